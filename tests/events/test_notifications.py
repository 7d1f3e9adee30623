"""Notifications of object stores: what they say, and what is made of bad ones."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftwright.errors import FormatError, UsageError
from raftwright.events import DeadLetters
from raftwright.events.notifications import StoredObject, build, parse

KEY = "LSSTCam/20261122/MC_O_20261122_000123/MC_O_20261122_000123_R22_S11.fits"
CEPH: dict[str, Any] = {
    "eventVersion": "2.2",
    "eventSource": "ceph:s3",
    "awsRegion": "",
    "eventTime": "2026-11-22T04:05:06.789Z",
    "eventName": "ObjectCreated:CompleteMultipartUpload",
    "userIdentity": {"principalId": "rubin"},
    "requestParameters": {"sourceIPAddress": ""},
    "responseElements": {"x-amz-request-id": "1", "x-amz-id-2": "2"},
    "s3": {
        "s3SchemaVersion": "1.0",
        "configurationId": "c",
        "bucket": {"name": "embargo", "ownerIdentity": {"principalId": "rubin"}, "arn": "", "id": "x"},
        "object": {
            "key": "LSSTCam%2F20261122/a+b%2B%C3%A9.fits",
            "size": 8_000_000,
            "eTag": "d41d8cd98f00b204e9800998ecf8427e",
            "versionId": "",
            "sequencer": "5D2B0A68",
            "metadata": [{"key": "x-amz-meta-x", "val": "1"}],
            "tags": [],
        },
    },
    "eventId": "1.2.3",
    "opaqueData": "the secret",
}


def body(*records: Any) -> bytes:
    return json.dumps({"Records": list(records)}).encode()


def changed(path: str, value: Any) -> dict[str, Any]:
    record = copy.deepcopy(CEPH)
    *parents, last = path.split(".")
    place = record
    for name in parents:
        place = place[name]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return record


def test_the_key_is_decoded_and_size_and_tag_are_there() -> None:
    """D127."""
    said = parse(body(CEPH), secret="the secret")
    assert (said.refused, said.ignored) == ([], 0)
    [found] = said.objects
    assert found.key == "LSSTCam/20261122/a b+é.fits"
    assert (found.bucket, found.size, found.etag) == (
        "embargo",
        8_000_000,
        "d41d8cd98f00b204e9800998ecf8427e",
    )
    assert found.event == "ObjectCreated:CompleteMultipartUpload"
    assert found.sequencer == "5D2B0A68"
    aws = changed("eventName", "s3:ObjectCreated:Put")
    assert parse(body(aws)).objects[0].event == "ObjectCreated:Put"


def test_removal_is_no_business_of_ours() -> None:
    """D127: other events are ignored, also where they have no size."""
    removed = changed("eventName", "ObjectRemoved:Delete")
    del removed["s3"]["object"]["size"]
    said = parse(body(removed, CEPH, changed("eventName", "s3:ObjectRemoved:DeleteMarkerCreated")))
    assert (len(said.objects), said.ignored, said.refused) == (1, 2, [])


def test_the_secret_is_looked_at() -> None:
    for wrong in ("another", "", None):
        said = parse(body(changed("opaqueData", wrong), CEPH), secret="the secret")
        assert len(said.objects) == 1
        [refused] = said.refused
        assert "does not have the secret" in refused.reason
    said = parse(body(CEPH), secret="right")
    assert b"the secret" not in said.refused[0].body
    assert "right" not in said.refused[0].reason


@pytest.mark.parametrize(
    "record",
    [
        *(None, 1, "x", [], {}),
        *(changed(f"s3.object.{name}", ...) for name in ("key", "size", "eTag")),
        *(changed(f"s3.object.{name}", None) for name in ("key", "size", "eTag")),
        *(changed("s3", value) for value in (..., None, [])),
        *(changed("s3.bucket", value) for value in (..., {}, {"name": ""})),
        *(changed("s3.object.key", value) for value in ("", "%FF", "a%00b", "a%0Ab", "a" * 1025, 7)),
        *(changed("s3.object.size", value) for value in (-1, "8", 1.5, 2**70)),
        *(changed("eventName", value) for value in (..., None, "", 5)),
    ],
)
def test_a_bad_record_is_refused_alone(record: Any) -> None:
    said = parse(body(CEPH, record, CEPH))
    assert len(said.objects) == 2
    [refused] = said.refused
    assert refused.reason
    assert json.loads(refused.body)["Records"]


def test_one_bad_notification_among_a_thousand(tmp_path: Path) -> None:
    """D113, F65: it becomes a dead letter, and 999 are dealt with."""
    dead = DeadLetters(tmp_path / "dead")
    bad = random.Random(5).randrange(1000)
    for kind in (b'{"Records": {"eventName": 1}}', b'{"event": 1}', b"{", b"\xff\xfe", b"[" * 100_000, b""):
        good = 0
        for number in range(1000):
            text = kind if number == bad else body(changed("s3.object.sequencer", f"{number:X}"))
            try:
                good += len(parse(text).objects)
            except FormatError as error:
                dead.put(text, str(error), "webhook")
        assert good == 999
    assert len(dead.names()) == 6
    assert all("notification" in dead.read(name).reason for name in dead.names())
    assert dead.read(dead.names()[3]).body == b"\xff\xfe"


def test_what_we_tell_can_be_read() -> None:
    mine = StoredObject("archive", KEY, 10, "0" * 32)
    first, second = (parse(build(mine, secret="s"), secret="s").objects[0] for _ in range(2))
    assert (first.bucket, first.key, first.size, first.etag) == ("archive", KEY, 10, "0" * 32)
    assert first.event == "ObjectCreated:Put"
    assert first.time.endswith("Z")
    assert int(first.sequencer, 16) < int(second.sequencer, 16)
    record = json.loads(build(mine))["Records"][0]
    assert set(record) == set(CEPH)
    assert set(record["s3"]) == set(CEPH["s3"])
    assert set(record["s3"]["object"]) == set(CEPH["s3"]["object"])
    for lacking in (
        StoredObject("", "k", 1, "e"),
        StoredObject("b", "", 1, "e"),
        StoredObject("b", "k", 1, ""),
    ):
        with pytest.raises(UsageError, match="lacks bucket, key, tag or size"):
            build(lacking)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=80))
def test_any_key_comes_back(key: str) -> None:
    [found] = parse(build(StoredObject("b", key, 1, "e"))).objects
    assert found.key == key


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(
                    ["Records", "eventName", "s3", "bucket", "object", "key", "size", "eTag", "name", "x"]
                ),
                inner,
                max_size=5,
            )
        ),
        max_leaves=20,
    )
)
def test_nothing_else_than_a_format_error(thing: Any) -> None:
    for text in (json.dumps(thing), json.dumps({"Records": thing}), json.dumps({"Records": [thing]})):
        try:
            said = parse(text.encode())
        except FormatError:
            continue
        assert all(found.key and found.bucket for found in said.objects)
