"""Containers: their bytes, what other programs make of them, and what is said of those that are none."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import subprocess
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest

import raftwright.rawfile.container_writing as writing
from raftwright import _core
from raftwright.camera import camera
from raftwright.daq import simulate_image
from raftwright.errors import FormatError, NotFoundError, RaftwrightError, StorageError
from raftwright.rawfile import verify, write_image
from raftwright.rawfile.container import (
    INDEX,
    METADATA_INDEX,
    adler32_combine,
    check_container,
    check_member_name,
    open_container,
    verify_container,
)
from raftwright.rawfile.container_writing import Source, metadata_index, stage_container
from raftwright.rawfile.names import ImageName, container_name, container_version
from raftwright.rawfile.standing import digest

OBSID = "CC_O_20261122_000001"


def sources(directory: Path, sizes: dict[str, int], seed: int = 1) -> list[Source]:
    """Files of an image, of chance."""
    chance = random.Random(seed)
    made = []
    directory.mkdir(exist_ok=True)
    for name, size in sizes.items():
        path = directory / name
        path.write_bytes(chance.randbytes(size))
        found = digest(path)
        made.append(Source(name=name, path=path, bytes=found.bytes, crc32c=found.crc32c))
    return made


def packed(path: Path, some: list[Source], metadata: bytes = b"{}", obsid: str = OBSID) -> Path:
    with stage_container(path.parent, obsid, some, {METADATA_INDEX: metadata}) as staged:
        assert staged.name(path)
        found = digest(path)
        assert (found.bytes, found.crc32c, found.adler32) == (staged.bytes, staged.crc32c, staged.adler32)
    return path


SIZES = {f"{OBSID}_R22_S11.fits": 3_000_001, f"{OBSID}_R22_S11.json": 777, f"{OBSID}_R22_S12.fits": 0}


def test_other_programs_read_it(tmp_path: Path) -> None:
    """D172: one file, and each member a range of it."""
    some = sources(tmp_path / "files", SIZES)
    path = packed(tmp_path / f"{OBSID}.zip", some)
    with zipfile.ZipFile(path) as opened:
        assert opened.testzip() is None
        assert opened.namelist() == [*sorted(SIZES), METADATA_INDEX, INDEX]
        assert {info.compress_type for info in opened.infolist()} == {zipfile.ZIP_STORED}
    if shutil.which("unzip"):
        subprocess.run(["unzip", "-tq", path], check=True, capture_output=True)
    body = path.read_bytes()
    with open_container(path) as container:
        assert str(container.image) == OBSID
        for one in some:
            member = container.members[one.name]
            data = one.path.read_bytes()
            assert body[member.offset : member.offset + member.bytes] == data
            assert (member.crc32c, member.adler32) == (one.crc32c, f"{zlib.adler32(data):08x}")
            assert container.read(one.name) == data
            assert container.verify(one.name) == ""
            assert container.extract(one.name, tmp_path / one.name) == one.crc32c
            assert (tmp_path / one.name).read_bytes() == data
        with pytest.raises(NotFoundError, match="no member"):
            container.read("x")
        with pytest.raises(FormatError, match="more than"):
            container.read(some[0].name, 10)


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    """Whoever they are given by, in whatever order, and whenever."""
    some = sources(tmp_path / "files", SIZES)
    first = packed(tmp_path / "a.zip", some)
    for one in some:
        os.utime(one.path, (1, 1))
    second = packed(tmp_path / "b.zip", some[::-1])
    assert first.read_bytes() == second.read_bytes()


def test_large_files_and_far_offsets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """zip64, from another limit on than 4 GiB: what the fields say is the same."""
    some = sources(tmp_path / "files", {f"{OBSID}_{n}.json": 100 * n for n in range(1, 30)})
    monkeypatch.setattr(writing, "_LARGE", 1000)
    path = packed(tmp_path / "x.zip", some)
    with zipfile.ZipFile(path) as opened:
        assert opened.testzip() is None
        assert [info.file_size for info in opened.infolist()[:-2]] == [
            one.bytes for one in sorted(some, key=lambda one: one.name)
        ]
    if shutil.which("unzip"):
        subprocess.run(["unzip", "-tq", path], check=True, capture_output=True)
    assert check_container(path).wrong == ()


def test_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_MANY", 5)
    path = packed(tmp_path / "x.zip", sources(tmp_path / "files", {f"f{n:03}": n for n in range(411)}))
    with zipfile.ZipFile(path) as opened:
        assert len(opened.namelist()) == 413


def test_sums_of_pieces() -> None:
    chance = random.Random(3)
    for _ in range(200):
        first, second = (chance.randbytes(chance.choice([0, 1, 7, 65520, 65521, 70000])) for _ in "ab")
        whole = adler32_combine(zlib.adler32(first), zlib.adler32(second), len(second))
        assert whole == zlib.adler32(first + second)


def test_a_file_that_is_not_what_was_said_stops_it(tmp_path: Path) -> None:
    some = sources(tmp_path / "files", SIZES)
    body = bytearray(some[0].path.read_bytes())
    body[5] ^= 1
    some[0].path.write_bytes(body)
    with pytest.raises(FormatError, match="the ledger says"):
        stage_container(tmp_path, OBSID, some, {METADATA_INDEX: b"{}"})
    some[0].path.write_bytes(body + b"x" * 5_000_000)
    with pytest.raises(FormatError, match="the ledger says"):
        stage_container(tmp_path, OBSID, some, {METADATA_INDEX: b"{}"})
    some[0].path.unlink()
    with pytest.raises(StorageError, match="cannot be read"):
        stage_container(tmp_path, OBSID, some, {METADATA_INDEX: b"{}"})
    with pytest.raises(FormatError, match="given up"):
        stage_container(tmp_path, OBSID, some[1:], {}, going_on=lambda: False)
    for name in ("../x", "a/b", ".x", "ä", "", "x" * 300, INDEX):
        bad = Source(name=name, path=some[1].path, bytes=some[1].bytes, crc32c=some[1].crc32c)
        with pytest.raises(FormatError):
            stage_container(tmp_path, OBSID, [bad], {})
    with pytest.raises(FormatError, match="one name"):
        stage_container(tmp_path, OBSID, [some[1], some[1]], {})
    assert [path.name for path in tmp_path.iterdir()] == ["files"], "nothing is left"


def test_a_name_is_never_taken_from_another(tmp_path: Path) -> None:
    some = sources(tmp_path / "files", SIZES)
    path = tmp_path / f"{OBSID}.zip"
    path.write_bytes(b"mine")
    with stage_container(tmp_path, OBSID, some, {METADATA_INDEX: b"{}"}) as staged:
        assert not staged.name(path)
        assert check_container(staged.readable_path).crc32c == staged.crc32c
    assert path.read_bytes() == b"mine"
    assert sorted(each.name for each in tmp_path.iterdir()) == [path.name, "files"]


def test_what_the_disk_gives_back_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that loses a bit between the writing and the reading."""
    some = sources(tmp_path / "files", SIZES)
    fsync = os.fsync

    def spoil(descriptor: int) -> None:
        fsync(descriptor)
        os.pwrite(descriptor, b"\xff", 0)

    monkeypatch.setattr(os, "fsync", spoil)
    with pytest.raises(RaftwrightError):
        stage_container(tmp_path, OBSID, some, {METADATA_INDEX: b"{}"})
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: (fsync(descriptor), os.pwrite(descriptor, b"\xff", 100_000))
    )
    with pytest.raises(StorageError, match="read back; look at this disk"):
        stage_container(tmp_path, OBSID, some, {METADATA_INDEX: b"{}"})


def test_without_nameless_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS: a hidden name, which the audit knows for what somebody left who died."""
    from raftwright.report.disk import what_is

    some = sources(tmp_path / "files", SIZES)
    real = os.open

    def refuse(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(95, "Operation not supported")
        return real(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", refuse)
    with stage_container(tmp_path, OBSID, some, {METADATA_INDEX: b"{}"}) as staged:
        (hidden,) = (path.name for path in tmp_path.iterdir() if path.name.startswith("."))
        assert what_is(hidden, OBSID) == "temporary"
        assert staged.name(tmp_path / "x.zip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["files", "x.zip"]
    stage_container(tmp_path, OBSID, some, {METADATA_INDEX: b"{}"}).close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["files", "x.zip"]


def test_flipped_bits_are_found_wherever_they_are(tmp_path: Path) -> None:
    """F44: by the sums of the members, the lists, or the sum of all."""
    path = packed(tmp_path / "x.zip", sources(tmp_path / "files", {f"{OBSID}_a.json": 500, "b.fits": 3000}))
    good, body = digest(path), path.read_bytes()
    chance = random.Random(20261122)
    for _ in range(400):
        at = chance.randrange(len(body))
        spoilt = bytearray(body)
        spoilt[at] ^= 1 << chance.randrange(8)
        path.write_bytes(spoilt)
        try:
            found = check_container(path)
        except (FormatError, StorageError) as error:
            assert "\n" not in str(error)
            continue
        assert found.crc32c != good.crc32c
        with open_container(path) as container:
            within = any(one.offset <= at < one.offset + one.bytes for one in container.members.values())
        assert bool(found.wrong) == within


def test_truncated_at_any_place(tmp_path: Path) -> None:
    """F44."""
    path = packed(tmp_path / "x.zip", sources(tmp_path / "files", {"a.json": 100, "b.fits": 3000}))
    body = path.read_bytes()
    for length in sorted({*range(0, len(body), 37), *range(len(body) - 60, len(body))}):
        path.write_bytes(body[:length])
        with pytest.raises((FormatError, StorageError)):
            check_container(path)
    path.write_bytes(b"junk" + body)
    with pytest.raises(FormatError):
        check_container(path)


def test_places_that_there_cannot_be(tmp_path: Path) -> None:
    """F44: a directory that points before the file or far behind it, as bits that flipped or somebody who
    wants to harm would have it; whoever reads it is told, and does not die."""
    path = packed(tmp_path / "x.zip", sources(tmp_path / "files", {"a.json": 100, "b.fits": 3000}))
    body = path.read_bytes()
    listed, end = body.index(b"PK\x01\x02"), body.rindex(b"PK\x05\x06")
    spoilt = [body[: end + 16] + struct.pack("<L", place) + body[end + 20 :] for place in (1 << 14, 1 << 31)]
    name = struct.unpack_from("<H", body, listed + 28)[0]
    for field in (20, 24, 42):
        for number in (1, 1 << 40, 1 << 63, (1 << 64) - 1):
            entry = bytearray(body[listed:end])
            entry[field : field + 4] = b"\xff" * 4
            entry[30:32] = struct.pack("<H", 12)
            entry[46 + name : 46 + name] = struct.pack("<HHQ", 1, 8, number)
            tail = bytearray(body[end:])
            struct.pack_into("<L", tail, 12, len(entry))
            spoilt.append(body[:listed] + bytes(entry) + bytes(tail))
    for each in spoilt:
        path.write_bytes(each)
        with pytest.raises(FormatError):
            check_container(path)
        assert verify_container(path)[0] is None


@pytest.mark.parametrize("large", [False, True])
def test_a_directory_that_would_fill_the_memory_is_not_read(tmp_path: Path, large: bool) -> None:
    """A file with holes costs who made it nothing."""
    path = tmp_path / "x.zip"
    length, few = 3 << 30, 0xFFFFFFFF
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 5, 5, few if large else length, 0, 0)
    if large:
        far = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 5, 5, length, 0)
        end = far + struct.pack("<4sLQL", b"PK\x06\x07", 0, length, 1) + end
    with path.open("wb") as file:
        file.truncate(length)
        file.seek(length)
        file.write(end)
    with pytest.raises(FormatError, match="a directory of 3,221,225,472 bytes"):
        check_container(path)


def test_nothing_stands_behind_it(tmp_path: Path) -> None:
    path = packed(tmp_path / "x.zip", sources(tmp_path / "files", {"a.json": 100}))
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(FormatError, match="does not end as one"):
        check_container(path)


def test_what_others_zip_is_none(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("a", b"a" * 1000)
    with pytest.raises(FormatError, match="is no container"):
        check_container(path)
    index = {"format": "raftwright container 1", "image": OBSID, "members": []}
    for name, text, how in (
        ("a", index, zipfile.ZIP_DEFLATED),
        ("../a", index, zipfile.ZIP_STORED),
        ("a", {**index, "format": "x"}, zipfile.ZIP_STORED),
        ("a", index, zipfile.ZIP_STORED),
        ("a", {**index, "image": "nothing"}, zipfile.ZIP_STORED),
        ("a", [], zipfile.ZIP_STORED),
    ):
        with zipfile.ZipFile(path, "w") as opened:
            opened.writestr(name, b"a" * 1000, compress_type=how)
            opened.writestr(INDEX, json.dumps(text))
        with pytest.raises(FormatError):
            check_container(path)
    with pytest.raises(StorageError):
        check_container(tmp_path / "none.zip")
    assert verify_container(tmp_path / "none.zip")[0] is None


def test_an_index_of_another_place_is_refused(tmp_path: Path) -> None:
    """The list says another offset than the zip."""
    path = packed(tmp_path / "x.zip", sources(tmp_path / "files", {"a.json": 100, "b.fits": 3000}))
    body = path.read_bytes()
    at = body.rindex(b'"offset": ') + 10
    end = body.index(b",", at)
    changed = bytearray(body)
    changed[at:end] = str(int(body[at:end]) + 1).encode()[: end - at]
    begin = body.rindex(b"PK\x03\x04")
    index = bytes(changed[begin + 30 + len(INDEX) : body.index(b"PK\x01\x02")])
    changed[begin + 14 : begin + 18] = struct.pack("<L", zlib.crc32(index))
    listed = body.rindex(b"PK\x01\x02")
    changed[listed + 16 : listed + 20] = struct.pack("<L", zlib.crc32(index))
    path.write_bytes(changed)
    with pytest.raises(FormatError, match="other members than the zip"):
        check_container(path)


def test_the_index_of_headers(tmp_path: Path) -> None:
    """As the observatory's own programs read and write it."""
    indexing = pytest.importorskip("astro_metadata_translator.indexing")
    found = camera("MiniCam")
    name = "MN_O_20261122_000007"
    write_image(simulate_image(found, name, seed=3), tmp_path, camera=found, durable=False)
    raws = {path.name: path.with_suffix(".json") for path in sorted(tmp_path.rglob("*.fits"))}
    assert len(raws) > 1
    index = json.loads(metadata_index(raws))
    read = indexing.process_index_data(index, force_dict=True)
    for raw, path in raws.items():
        sidecar = json.loads(path.read_text())
        expected = {key: value for key, value in sidecar.items() if not key.startswith("__")}
        assert read[raw] == expected
    headers = {raw: dict(read[raw]) for raw in raws}
    theirs = indexing.calculate_index(headers, "metadata")
    assert {key: dict(value) if key != "__CONTENT__" else value for key, value in theirs.items()} == index
    (first, *_) = raws
    assert json.loads(metadata_index({first: raws[first]}))[first] == {}
    assert json.loads(metadata_index({})) == {"__CONTENT__": "metadata", "__COMMON__": {}}
    raws[first].write_text("{")
    assert set(json.loads(metadata_index(raws))) == {"__CONTENT__", "__COMMON__", *list(raws)[1:]}


def test_names() -> None:
    image = ImageName.parse(OBSID)
    for version in (1, 2, 17, 9999):
        name = container_name(image, version)
        assert container_version(f"/a/b/{name}") == (image, version)
    assert (container_name(image), container_name(image, 2)) == (f"{OBSID}.zip", f"{OBSID}.v2.zip")
    for bad in (f"{OBSID}.v1.zip", f"{OBSID}.v02.zip", f"{OBSID}.zipx", f"{OBSID}.v10000.zip", "x.zip"):
        with pytest.raises(FormatError):
            container_version(bad)
    for version in (0, 10_000):
        with pytest.raises(FormatError):
            container_name(image, version)
    check_member_name(f"{OBSID}_R22_S11.fits")


def test_verify_and_info(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`raftwright info X.zip`, `raftwright verify X.zip`."""
    from raftwright.cli import main

    path = packed(tmp_path / f"{OBSID}.zip", sources(tmp_path / "files", SIZES))
    assert main(["info", str(path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["kind"], said["image"], len(said["members"])) == ("container", OBSID, 4)
    assert main(["info", str(path)]) == 0
    assert OBSID in capsys.readouterr().out
    assert main(["verify", str(path)]) == 0
    assert "1 container" in capsys.readouterr().out
    report = verify(path)
    assert (report.ok, report.containers) == (True, 1)
    with open_container(path) as container:
        at = container.members[f"{OBSID}_R22_S11.fits"].offset + 1000
    body = bytearray(path.read_bytes())
    body[at] ^= 4
    path.write_bytes(body)
    assert main(["verify", str(path)]) == 5
    assert f"{OBSID}_R22_S11.fits" in capsys.readouterr().out
    path.write_bytes(body[:1000])
    assert main(["verify", str(path)]) == 5
    assert main(["info", str(path)]) != 0
    assert len(capsys.readouterr().err.strip().splitlines()) <= 2
    assert _core.crc32c(b"") == 0
