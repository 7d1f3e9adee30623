"""`transfer-done` messages: what is taken from them, and what becomes of those that are none."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from endpoint_stand import Stand, fits, wait_for

from raftwright import _core
from raftwright.backbone.receiving import Ingest, Register
from raftwright.backbone.receiving.transfers import Arrivals, Topic, Transfers
from raftwright.errors import FormatError, NotFoundError

TOPIC = "USDF_RAW-raw"
PREFIX = "davs://dtn.example.org:443/raw"
SETTINGS = Transfers(brokers="127.0.0.1:9092", topics={TOPIC: Topic(rucio_prefix=PREFIX)})


def message(name: str, data: bytes, **more: Any) -> dict[str, Any]:
    return {
        "event_type": "transfer-done",
        "created_at": "2026-11-23 03:15:43.153695",
        "payload": {
            "activity": "User Subscriptions",
            "request-id": "a0eab3e04e494c7fafb4ec4f7a8a6d48",
            "checksum-adler": f"{_core.adler32(data):08x}",
            "checksum-md5": None,
            "file-size": len(data),
            "bytes": len(data),
            "scope": "raw",
            "name": name,
            "dst-rse": "USDF_RAW",
            "dst-url": f"{PREFIX}/{name}",
            "rubin_butler": "raw_file",
            "rubin_sidecar": "{}",
            **more,
        },
    }


def put(root: Path, name: str, data: bytes) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(data)


@pytest.fixture
def register(tmp_path: Path) -> Iterator[Register]:
    (tmp_path / "storage").mkdir()
    with Register(tmp_path / "register.db", tmp_path / "storage") as made:
        yield made


def test_what_was_transferred_is_entered_once(register: Register) -> None:
    name, data = fits()
    put(register.storage, name, data)
    arrivals = Arrivals(SETTINGS, register, ["null"])
    body = json.dumps(message(name, data)).encode()
    assert [arrivals.take(TOPIC, body) for _ in range(2)] == ["entered", "known"]
    (row,) = register.files(name)
    assert register.states(row.id) == {"null": "UNTRIED"}
    other = message("x.json", b"{}", rubin_butler=None)
    put(register.storage, "x.json", b"{}")
    assert arrivals.take(TOPIC, json.dumps(other).encode()) == "entered"
    assert register.states(register.files("x.json")[0].id) == {"null": "IGNORED"}
    assert arrivals.take(TOPIC, b'{"event_type": "transfer-failed", "payload": {}}') == "ignored"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"rubin_butler": "new_type"}, "rubin_butler is 'new_type'"),
        ({"rubin_butler": 7}, "rubin_butler is '7'"),
        ({"dst-rse": "OTHER"}, "is of OTHER-raw"),
        ({"dst-url": "https://elsewhere/davs://dtn.example.org:443/raw/x.fits"}, "does not begin with"),
        ({"dst-url": f"{PREFIX}-not/x.fits"}, "does not begin with"),
        ({"dst-url": f"{PREFIX}/../../etc/passwd"}, "is no file below"),
        ({"dst-url": f"{PREFIX}/%2e%2e/x.fits"}, "is no file below"),
        ({"dst-url": f"{PREFIX}/a%0ab"}, "is no file below"),
        ({"dst-url": f"{PREFIX}/%ff"}, "is no file below"),
        ({"dst-url": f"{PREFIX}/"}, "is no file below"),
        ({"dst-url": None}, "is no transfer-done message"),
        ({"bytes": 3}, "bytes is 1, the message says 3"),
        ({"checksum-adler": "ffffffff"}, "adler32 is"),
        ({"checksum-md5": "0" * 32}, "md5 is"),
    ],
)
def test_what_cannot_be_dealt_with_is_said(register: Register, more: dict[str, Any], said: str) -> None:
    """D156, D157: unknown types, unmapped topics, prefixes elsewhere in the URL, other sums."""
    put(register.storage, "x.fits", b"x")
    body = json.dumps(message("x.fits", b"x", **more)).encode()
    with pytest.raises(FormatError, match=said):
        Arrivals(SETTINGS, register, ["null"]).take(TOPIC, body)
    assert register.places() == {}


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"[]", b"{}", b'{"event_type": "transfer-done"}', b"[" * 100_000]
)
def test_what_is_no_message(register: Register, body: bytes) -> None:
    with pytest.raises(FormatError):
        Arrivals(SETTINGS, register, []).take(TOPIC, body)


def test_unmapped_topics_and_files_that_are_not_there(register: Register) -> None:
    arrivals = Arrivals(SETTINGS, register, [])
    body = json.dumps(message("x.fits", b"x")).encode()
    with pytest.raises(NotFoundError, match="is not there"):
        arrivals.take(TOPIC, body)
    with pytest.raises(FormatError, match="not mapped"):
        arrivals.path_of("OTHER-raw", f"{PREFIX}/x")
    with pytest.raises(FormatError, match="not below the storage"):
        Topic(rucio_prefix=PREFIX, path="../x")


def test_one_bad_message_does_not_hold_the_others(stand: Stand) -> None:
    """D156: over Kafka; the bad ones are kept with their reasons, through a new start too, and dealt with
    once the cause is gone."""
    kafka = pytest.importorskip("confluent_kafka", reason="confluent-kafka is not installed")
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "events"))
    from event_stand import Broker

    with Broker() as broker:
        producer = kafka.Producer({"bootstrap.servers": broker.address})
        good = {f"d/{number}.fits": b"%d" % number for number in range(5)}
        for name, data in good.items():
            put(stand.storage, name, data)
        bodies: list[bytes] = [json.dumps(message(name, data)).encode() for name, data in good.items()]
        bodies.insert(2, json.dumps(message("d/0.fits", b"0", rubin_butler="new")).encode())
        bodies.insert(0, b"no message at all")
        bodies.insert(1, json.dumps(message("d/late.fits", b"late")).encode())
        for body in bodies:
            producer.produce(TOPIC, body, partition=0)
        assert producer.flush(10) == 0

        transfers = Transfers(brokers=broker.address, topics={TOPIC: Topic(rucio_prefix=PREFIX)}, tries=1)
        endpoint = stand.start(Ingest(plugin="null"), transfers=transfers)
        counts = lambda: endpoint.register and endpoint.register.counts()  # noqa: E731
        wait_for(lambda: counts() == {"null": {"SUCCESS": 5}}, 30.0, endpoint.status)
        (said,) = endpoint.problems()
        assert said.startswith("3 messages of transfers are dead letters")
        time.sleep(0.5)  # offsets are told
        endpoint.stop(5.0)

        again = stand.start(Ingest(plugin="null"), transfers=transfers)
        put(stand.storage, "d/late.fits", b"late")
        time.sleep(1.0)
        assert len(list((stand.storage / ".endpoint" / "dead-letters").iterdir())) == 3
        assert again.command("replay") == {"entered": 1, "left": 2}
        wait_for(lambda: again.register and again.register.counts() == {"null": {"SUCCESS": 6}}, 10.0)
