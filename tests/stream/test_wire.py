"""Headers and bodies of the protocol, and endpoints."""

from __future__ import annotations

import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftwright import _core
from raftwright.daq import simulate_image
from raftwright.daq.info import decode_description, describe
from raftwright.errors import FormatError, StorageError, UsageError
from raftwright.stream import messages, wire
from raftwright.stream.endpoints import announced, plan, reachable, refuse_taken
from raftwright.stream.wire import Header, Type, WireError, check_body, pack, unpack

HEADER = Header(Type.CHUNK, 7, 1 << 40, 3, b"imagekey", b"src1", 5, 0xDEADBEEF, 0)


def test_the_layout_is_that_of_the_specification() -> None:
    frame = pack(HEADER, b"abc")
    assert len(frame) == 64
    assert frame[:4] == b"RWST"
    assert (frame[4], frame[5]) == (1, 7)
    assert struct.unpack_from("<H", frame, 6) == (0,)
    assert struct.unpack_from("<QQQ", frame, 8) == (7, 1 << 40, 3)
    assert frame[32:40] == b"imagekey"
    assert frame[40:44] == b"src1"
    assert struct.unpack_from("<I", frame, 44) == (_core.crc32c(b"abc"),)
    assert struct.unpack_from("<QI", frame, 48) == (5, 0xDEADBEEF)
    assert struct.unpack_from("<I", frame, 60) == (_core.crc32c(frame[:60]),)


def test_the_types_are_numbered_as_specified() -> None:
    names = "HELLO WELCOME ERROR QUERY REPLY PULL CHUNK CREDIT CANCEL WAIT END PING PONG NOTICE"
    assert [kind.name for kind in Type] == names.split()
    assert [kind.value for kind in Type] == list(range(1, 15))


def test_keys_are_heads_of_sha256() -> None:
    name = "MC_O_20261122_000123"
    assert wire.image_key(name) == hashlib.sha256(name.encode()).digest()[:8]
    assert wire.source_key("22/0") == hashlib.sha256(b"22/0").digest()[:4]
    assert len(wire.image_key("\ud800")) == 8  # a name that is none has a key as well


U64 = st.integers(0, 2**64 - 1)


@given(
    st.sampled_from(Type),
    U64,
    U64,
    U64,
    st.binary(min_size=8, max_size=8),
    st.binary(min_size=4, max_size=4),
    U64,
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**16 - 1),
    st.binary(max_size=100),
)
def test_what_is_packed_comes_out_again(
    kind: Type,
    request: int,
    offset: int,
    length: int,
    image: bytes,
    source: bytes,
    sequence: int,
    session: int,
    flags: int,
    body: bytes,
) -> None:
    header = Header(kind, request, offset, length, image, source, sequence, session, flags)
    found = unpack(pack(header, body))
    assert found._replace(body_crc=0) == header
    check_body(found, body)
    assert pack(header, b"", body_crc=_core.crc32c(body)) == pack(header, body)


def test_no_bit_can_change_unseen() -> None:
    frame = pack(HEADER, b"abc")
    for place in range(len(frame) * 8):
        wrong = bytearray(frame)
        wrong[place // 8] ^= 1 << place % 8
        with pytest.raises(WireError) as caught:
            unpack(bytes(wrong))
        assert caught.value.code == "malformed"


@pytest.mark.parametrize("size", [0, 1, 63, 65, 1000])
def test_other_sizes_are_malformed(size: int) -> None:
    with pytest.raises(WireError, match="64 bytes") as caught:
        unpack(bytes(size))
    assert caught.value.code == "malformed"


def resealed(frame: bytes, **bytes_at: int) -> bytes:
    changed = bytearray(frame)
    for place, value in bytes_at.items():
        changed[int(place[1:])] = value
    changed[60:] = struct.pack("<I", _core.crc32c(bytes(changed[:60])))
    return bytes(changed)


def test_the_crc_comes_before_the_version_and_the_version_before_the_type() -> None:
    frame = pack(HEADER)
    with pytest.raises(WireError) as caught:
        unpack(resealed(frame, _4=2, _5=99))
    assert caught.value.code == "version"
    assert caught.value.more == {"spoken": [1], "got": 2}
    for kind in (0, 15, 255):
        with pytest.raises(WireError) as caught:
            unpack(resealed(frame, _5=kind))
        assert caught.value.code == "unknown-type"
    with pytest.raises(WireError) as caught:
        unpack(resealed(frame, _0=ord("X"), _4=2))
    assert caught.value.code == "malformed"


def test_a_body_of_another_header_is_malformed() -> None:
    with pytest.raises(WireError) as caught:
        check_body(unpack(pack(HEADER, b"abc")), b"abd")
    assert caught.value.code == "malformed"


@pytest.mark.parametrize("wrong", [{"request": -1}, {"length": 2**64}, {"session": 2**32}, {"flags": 2**16}])
def test_fields_that_do_not_fit_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(FormatError):
        pack(HEADER._replace(**wrong))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"what": 1}',
        b'{"what": "x", "offset": -1}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"what": "images", "limit": 0}',
        b'{"what": "image", "image": "' + b"x" * 2000 + b'"}',
        b" " * (1 << 20) + b"{}",
    ],
)
def test_bodies_that_are_none(body: bytes) -> None:
    with pytest.raises(WireError) as caught:
        messages.decode(body, messages.Query, wire.MAX_BODY_TO_SERVER)
    assert caught.value.code == "malformed"
    assert len(str(caught.value)) < 400


def test_unknown_keys_are_ignored() -> None:
    assert messages.decode(b'{"what": "folders", "colour": 3}', messages.Query).what == "folders"


def test_the_examples_of_the_specification_can_be_read() -> None:
    welcome = messages.decode(
        b'{"version": 1, "software": "raftwright 0.1", "session": 2886794753, "store": "simulated",'
        b'"heartbeat": 1.0, "chunk": [1048576, 16777216], "credit": 268435456, "pulls": 256,'
        b'"notices": "tcp://*:5571", "data": ["tcp://*:5572", "tcp://*:5573"]}',
        messages.Welcome,
    )
    assert welcome.chunk == (1 << 20, 16 << 20)
    order = messages.decode(
        b'{"image": "MC_O_20261122_000123", "location": "22/0", "credit": 16777216, "chunk": 3981312}',
        messages.Pull,
    )
    assert order.credit == 16 << 20
    end = messages.decode(
        b'{"bytes": 127401984, "crc32c": "89abcdef", "gaps": [], "sent": 127401984}', messages.End
    )
    assert end.gaps == []


def test_descriptions_survive_with_and_without_sums() -> None:
    info = simulate_image("MiniCam", "X_S_20261122_000001").info
    assert decode_description(describe(info), "here") == info
    document = describe(info)
    document["sources"][0]["crc32c"] = "0123abcd"
    assert decode_description(document, "here").sources[0].crc32c == "0123abcd"
    document["sources"][0]["crc32c"] = "no sum"
    with pytest.raises(FormatError, match="here"):
        decode_description(document, "here")
    with pytest.raises(FormatError):
        decode_description({"sources": 5}, "here")


def test_endpoints_follow_from_the_first() -> None:
    assert plan("tcp://127.0.0.1:5570", 2) == (
        "tcp://127.0.0.1:5570",
        "tcp://127.0.0.1:5571",
        ("tcp://127.0.0.1:5572", "tcp://127.0.0.1:5573"),
    )
    assert plan("tcp://*:0", 1) == ("tcp://*:0", "tcp://*:0", ("tcp://*:0",))
    assert plan("ipc:///run/x", 1) == ("ipc:///run/x", "ipc:///run/x-notices", ("ipc:///run/x-data0",))
    for wrong in (
        "",
        "tcp://",
        "tcp://a",
        "tcp://a:b",
        "tcp://a:99999",
        "udp://a:1",
        "ipc://",
        "ipc://" + "x" * 200,
        "tcp://a b:1",
        "tcp://127.0.0.1:65535",
        "inproc://x",
        "ipc://\0",
    ):
        with pytest.raises(UsageError):
            plan(wrong, 2)


def test_any_host_becomes_the_one_that_was_reached() -> None:
    assert announced("tcp://0.0.0.0:5571") == announced("tcp://[::]:5571") == "tcp://*:5571"
    assert announced("tcp://127.0.0.1:5571") == "tcp://127.0.0.1:5571"
    assert reachable("tcp://*:5571", "tcp://dc01.example.org:5570") == "tcp://dc01.example.org:5571"
    assert reachable("tcp://*:5571", "tcp://[fe80::1]:5570") == "tcp://[fe80::1]:5571"
    assert reachable("tcp://10.0.0.1:5571", "tcp://dc01:5570") == "tcp://10.0.0.1:5571"


def test_an_ipc_endpoint_that_is_listened_at_is_taken(tmp_path) -> None:  # type: ignore[no-untyped-def]
    import socket

    path = tmp_path / "s"
    refuse_taken(f"ipc://{path}")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        refuse_taken(f"ipc://{path}")  # nobody listens: what a dead server left
        other.listen()
        with pytest.raises(StorageError, match="another server"):
            refuse_taken(f"ipc://{path}")
