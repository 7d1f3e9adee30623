"""What each kind of message must say, and that it is looked at on both sides."""

from __future__ import annotations

import contextlib
import enum
import json
import math
import re
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftwright.errors import FormatError, UsageError
from raftwright.events import FORMAT, KINDS, MESSAGES, Event, codes
from raftwright.events.identity import colon_items, colon_list, raft_name, sensor_name, split_detector
from raftwright.events.message import encode, read
from raftwright.events.observatory import OBSERVATORY
from raftwright.events.replay import Replay, read_answer
from raftwright.events.schema import check_fields

GOOD: dict[str, Any] = json.loads("""{
  "thing": "source", "new": "done", "dayobs": "20261122",
 "instrument": "LSSTCam", "camera": "LSSTCam", "obsid": "MC_O_20261122_000123", "raft": "R22",
 "imageName": "MC_O_20261122_000123", "obsId": "MC_O_20261122_000123", "id": "MC_O_20261122_000123",
 "sensor": "S11", "location": "22/1", "path": "a/b.fits", "bytes": 10, "crc32c": "0badcafe",
 "version": 1, "replaces": "a/c.fits", "files": 3, "missing_bytes": 7, "reason": "the cable",
 "previous": "f1", "owner": "f2", "expected": 9, "present": 9, "destination": "usdf", "name": "k",
 "attempt": 1, "command": "ls -l", "rc": 0, "service": "archiver", "state": "ENABLED",
 "imagesInSequence": 1, "imageIndex": 1, "imageSource": "MC", "imageController": "O",
 "imageDate": "20261122", "imageNumber": 123, "timestampAcquisitionStart": 1700000000.0,
 "exposureTime": 30.0, "timestampStartOfReadout": 1700000000.0, "requestedExposureTime": 30,
 "timestampEndOfReadout": 1700000000.0, "imageTag": "9f", "timestampDateObs": 1700000000.0,
 "darkTime": 30.1, "timestampDateEnd": 1700000000.0, "measuredShutterOpenTime": 30.0,
 "ccdLocation": ["22/0", "22/1"], "raftBay": "R22:R22", "ccdSlot": "S00:S01", "daqFolder": "raw",
 "timestampImageStored": 1700000000.0, "ccdType": [1, 2], "overRows": [1, 2], "overCols": [1, 2],
 "readRows": [1, 2], "readCols": [1, 2], "readCols2": [1, 2], "preCols": [0, 0], "preRows": [0, 0],
 "postCols": [0, 0], "underCols": [0, 0], "timestampFilesWritten": 1700000000.0, "rootFileName": "/data",
 "relativeFileNames": ["a:b", "c"], "fileNode": "n1:n2", "timestampCommandComplete": 1700000000.0,
 "timestampVisualizationAvailable": 1700000000.0, "url": "http://x/y", "statusCode": 0,
 "generator": "header", "byteSize": 5, "checkSum": "00000000000000000000000000000000",
 "mimeType": "YAML", "site": "usdf", "dayObs": "20261122", "resendCount": 0, "fileType": "FITS",
 "operation": "copy", "writeHost": "dc01", "fileName": "a", "timestamp": 1700000000.0, "duration": 0.5,
 "written": 9, "transferredBeforeResend": 9, "missingBeforeResend": 0, "transferredAfterResend": 9,
 "missingAfterResend": 0, "maxFullDiskNode": "dc01", "maxFullDiskPercent": 50, "salIndex": 1,
 "scriptSalIndex": 10, "groupId": "2026-11-22T00:00:00", "coordinateSystem": 2, "dome": 2,
 "position": [1.0, 2.0], "startTime": 1700000000.0, "rotationSystem": 2, "cameraAngle": 0.0,
 "nimages": 1, "endpoint": "usdf", "standing": "verified"
}""")
"""A good value of every mandatory field there is."""


def good(kind: str) -> dict[str, Any]:
    return {name: GOOD[name] for name in KINDS[kind]}


def body(kind: str, fields: dict[str, Any], **changes: Any) -> bytes:
    wire = {"format": FORMAT, "kind": kind, "schema": 1, "sequence": 1, "session": "s", "publisher": "p"}
    return json.dumps({**wire, "time": "", "fields": fields, **changes}).encode()


def test_the_observatory_has_its_own_names() -> None:
    """Names and fields as the observatory has them; what is mandatory besides is the instrument."""
    common = {
        *("imagesInSequence", "imageName", "imageIndex", "imageSource", "imageController", "imageDate"),
        *("imageNumber", "timestampAcquisitionStart"),
    }
    assert {kind.KIND for kind in OBSERVATORY} == {
        *("startIntegration", "startReadout", "endReadout", "endOfImageTelemetry", "imageReadoutParameters"),
        *("imageStored", "fitsFilesWritten", "fileCommandExecution", "imageVisualization", "imageInOODS"),
        *("largeFileObjectAvailable", "fileTransfer", "fileTransferPerImageSummary", "nextVisit"),
        *("fileTransferNightlySummary", "nextVisitCanceled"),
    }
    for kind in ("startIntegration", "startReadout", "endReadout", "endOfImageTelemetry"):
        assert common < set(KINDS[kind])
        assert {"additionalKeys", "additionalValues"} < set(MESSAGES[kind].__struct_fields__)
    assert set(KINDS["largeFileObjectAvailable"]) == {
        *("url", "generator", "version", "byteSize", "checkSum", "mimeType", "id", "instrument")
    }
    assert set(KINDS["imageInOODS"]) == {"camera", "obsid", "raft", "sensor", "statusCode"}
    for kind in OBSERVATORY:
        for name in kind.__struct_fields__:
            assert name.isalnum() or name.startswith("private_"), name


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_mandatory_field_in_turn(kind: str) -> None:
    """F64, D062, D071: a message without it, or with nothing in it, is refused by name, on both sides."""
    fields = good(kind)
    told = check_fields(kind, fields)
    event = read(body(kind, told))
    assert event.fields == json.loads(json.dumps(told))
    assert type(event.message) is MESSAGES[kind]
    for name in KINDS[kind]:
        for broken in (
            {key: value for key, value in fields.items() if key != name},
            {**fields, name: None},
            {**fields, name: ""},
        ):
            with pytest.raises(UsageError, match=f"event {kind} lacks {name};"):
                check_fields(kind, broken)
            with pytest.raises(FormatError, match=f"event {kind} lacks {name};"):
                read(body(kind, broken))
        wrong = {**told, name: {"x": 1}}
        with pytest.raises(UsageError, match=rf"event {kind}: {name}: "):
            check_fields(kind, wrong)
        with pytest.raises(FormatError, match=rf"event {kind}: {name}: "):
            read(body(kind, wrong))
    assert set(KINDS[kind]) & {"instrument", "camera", "service", "groupId", "thing"}


def test_the_page_has_every_kind_and_field() -> None:
    text = (Path(__file__).parents[2] / "docs/events.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", text, re.MULTILINE))
    common = re.findall(r"\w+", text[text.index("*common*: ") :].partition(".")[0])
    before: list[str] = []
    for kind, names in KINDS.items():
        words = re.findall(r"\w+", rows[kind].partition("[")[0])
        before = words + (before if "same" in words else []) + (common if "common" in words else [])
        assert set(names) - {"instrument"} <= set(before), kind
        after = re.findall(r"\w+", rows[kind].partition("[")[2])
        assert not set(after) & set(names) - {"instrument"} or "…" in rows[kind] or kind == "imageComplete"


def test_a_message_about_a_file_says_which_ccd() -> None:
    """D071: full identity."""
    for kind in ("fileWritten", "fileRepaired", "delivered", "deliveryFailed", "fileTransfer", "imageInOODS"):
        assert {"obsid", "raft", "sensor"} <= set(KINDS[kind])
    for name, kind in MESSAGES.items():
        if name not in (
            "serviceState",
            "ledgerNote",
            "nextVisit",
            "nextVisitCanceled",
            "fileTransferNightlySummary",
        ):
            assert kind.IMAGE_FIELD in KINDS[name]
            assert msgspec.convert(check_fields(name, good(name)), kind).image == GOOD["obsid"]


def test_more_than_the_schema_is_welcome() -> None:
    fields = {**good("imageWritten"), "later": {"a": [1]}}
    assert check_fields("imageWritten", fields) == fields
    assert read(body("imageWritten", fields, later=1))["later"] == {"a": [1]}
    assert read(body("madeUpLater", {"a": None})).fields == {"a": None}
    assert read(body("madeUpLater", {}, schema=7)).message is None
    with pytest.raises(FormatError, match="imageWritten of schema 2; this reads 1"):
        read(body("imageWritten", fields, schema=2))


def test_numbers_are_finite() -> None:
    for value in (math.nan, math.inf):
        with pytest.raises(UsageError, match="darkTime"):
            check_fields("endOfImageTelemetry", {**good("endOfImageTelemetry"), "darkTime": value})
        with pytest.raises(UsageError, match="position is not finite"):
            check_fields("nextVisit", {**good("nextVisit"), "position": [0.0, value]})
    fields = check_fields("endOfImageTelemetry", good("endOfImageTelemetry"))
    with pytest.raises(FormatError):
        read(body("endOfImageTelemetry", fields).replace(b"30.1", b"NaN"))


def test_both_spellings_of_a_ccd_are_the_same() -> None:
    """D097: 22 and R22."""
    for raft, sensor in (("22", "11"), ("R22", "S11"), ("22", "S11")):
        fields = {**good("fileWritten"), "raft": raft, "sensor": sensor}
        for told in (check_fields("fileWritten", fields), read(body("fileWritten", fields)).fields):
            assert (told["raft"], told["sensor"]) == ("R22", "S11")
    assert [raft_name(text) for text in ("00", "R00", "R??", "NR")] == ["R00", "R00", "R??", "NR"]
    assert [sensor_name(text) for text in ("01", "S01", "G0", "SW1", "undef")] == [
        "S01",
        "S01",
        "SG0",
        "SW1",
        "undef",
    ]
    assert split_detector("R22_S11") == split_detector("22_11") == split_detector("2211") == ("R22", "S11")
    for nonsense in ("", "2 2", "R22/S11", "x" * 17, "２２"):
        with pytest.raises(FormatError, match="written R22"):
            raft_name(nonsense)
    with pytest.raises(UsageError, match="event fileWritten: 'R 22' is none"):
        check_fields("fileWritten", {**good("fileWritten"), "raft": "R 22"})


def test_lists_with_colons() -> None:
    """CAP-572."""
    assert colon_list(["a", "b:c", "d\\"]) == r"a:b\:c:d\\"
    assert colon_items(r"a:b\:c:d\\") == ["a", "b:c", "d\\"]
    assert colon_items("a::b:") == ["a", "", "b", ""]
    assert colon_items(r"C\x:\\") == [r"C\x", "\\"]
    assert colon_items("x\\") == ["x\\"]
    assert colon_items("") == colon_items(colon_list([])) == []
    told = check_fields("fitsFilesWritten", good("fitsFilesWritten"))
    assert told["relativeFileNames"] == r"a\:b:c"
    with pytest.raises(UsageError, match="event fitsFilesWritten"):
        check_fields("fitsFilesWritten", {**good("fitsFilesWritten"), "relativeFileNames": [1]})


@given(st.lists(st.text(st.sampled_from(":\\aé\n"), max_size=5), max_size=5))
def test_lists_come_back(items: list[str]) -> None:
    assert colon_items(colon_list(items)) == ([] if items == [""] else items)


@given(st.text(st.sampled_from(":\\ab"), max_size=12))
def test_any_list_can_be_read(text: str) -> None:
    items = colon_items(text)
    assert colon_items(colon_list(items)) == ([] if items == [""] else items)


def test_numbers_of_codes_have_one_meaning() -> None:
    """D068: unique, and each is explained."""
    for found in vars(codes).values():
        if isinstance(found, type) and issubclass(found, enum.IntEnum) and found is not enum.IntEnum:
            assert len(found) == len(found.__members__), "an alias is a number with two meanings"
    assert [(code.name, code.value) for code in codes.OodsStatus] == [
        ("INGESTED", 0),
        ("INGEST_FAILURE", 1),
        ("METADATA_FAILURE", 2),
    ]
    fields = good("imageInOODS")
    assert (
        read(body("imageInOODS", {**fields, "statusCode": 2})).message.statusCode.name == "METADATA_FAILURE"
    )
    with pytest.raises(UsageError, match="statusCode: Invalid enum value 3"):
        check_fields("imageInOODS", {**fields, "statusCode": 3})
    told = check_fields("imageInOODS", {**fields, "statusCode": codes.OodsStatus.INGEST_FAILURE})
    event = Event(kind="imageInOODS", sequence=1, session="s", publisher="p", time="", fields=told)
    assert read(encode(event))["statusCode"] == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(sorted(GOOD)), inner, max_size=4)
    ),
    max_leaves=10,
)


@given(st.sampled_from(sorted(KINDS)), st.dictionaries(st.sampled_from(sorted(GOOD)), JSON, max_size=8))
def test_whatever_stands_in_the_fields(kind: str, changes: dict[str, Any]) -> None:
    """Sender and receiver agree, and nothing else than their two errors ever comes."""
    fields = {**good(kind), **changes}
    try:
        told = check_fields(kind, fields)
    except UsageError:
        told = None
    try:
        event = read(body(kind, fields).replace(b"NaN", b"null").replace(b"Infinity", b"null"))
    except FormatError:
        return
    assert told is not None
    assert event.message is not None


@given(st.binary(max_size=200) | JSON.map(lambda thing: json.dumps(thing).encode()))
def test_whatever_comes_as_a_message(thing: bytes) -> None:
    replay = Replay("s", lambda number, limit: ([], False, 0), None, lambda log, row: b"")
    for reader in (read, replay.answer, lambda frame: read_answer([frame])):
        with contextlib.suppress(FormatError):
            reader(thing)
    mixed = body("imageWritten", {}).replace(b'"fields": {}', b'"fields": ' + thing)
    with contextlib.suppress(FormatError):
        read(mixed)


def test_the_first_use_of_a_schema_may_be_in_many_threads() -> None:
    failures: list[BaseException] = []
    barrier = threading.Barrier(8)

    def use() -> None:
        barrier.wait()
        try:
            for kind in KINDS:
                check_fields(kind, good(kind))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
