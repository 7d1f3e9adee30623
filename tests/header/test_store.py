"""Documents in the archive: whole, never replaced, versioned."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from observatory import BEGIN, Observatory, values_of

from raftwright import _core
from raftwright.errors import StorageError
from raftwright.header import HeaderStore, build_header
from raftwright.header.building import BuiltHeader
from raftwright.header.store import Stored, header_versions
from raftwright.rawfile import times
from raftwright.rawfile.names import ImageName

COMCAM = Observatory()


def put(store: HeaderStore, change: Any = None, number: int = 1, telemetry: bool = True) -> Stored:
    exposure = COMCAM.exposure(number)
    collector = COMCAM.collector([exposure] if telemetry else [])
    events = COMCAM.events(exposure)
    if change is not None:
        change(events)
    for kind, fields in events.items():
        collector.event(kind, fields, 0.0)
    image = collector.snapshot(str(exposure.name))

    def make(created: int, version: int) -> BuiltHeader:
        return build_header(COMCAM.spec, image, created=created, version=version)

    return store.put(exposure.name, make)


def without_end(events: dict[str, dict[str, Any]]) -> None:
    del events["endOfImageTelemetry"]


def dark(seconds: float) -> Any:
    def change(events: dict[str, dict[str, Any]]) -> None:
        events["endOfImageTelemetry"]["darkTime"] = seconds

    return change


def test_a_document_stands_where_its_image_does(tmp_path: Path) -> None:
    """D110: by the day of its name, though it was written on another."""
    stored = put(HeaderStore(tmp_path))
    name = "CC_O_20261122_000001"
    assert stored.path == tmp_path / "20261122" / name / f"{name}_header.yaml"
    assert (stored.outcome, stored.version) == ("written", 1)
    data = stored.path.read_bytes()
    assert stored.header.data == data
    assert stored.header.md5 == hashlib.md5(data).hexdigest()
    assert stored.header.crc32c == f"{_core.crc32c(data):08x}"
    assert os.listdir(stored.path.parent) == [stored.path.name]


def test_the_same_again_changes_nothing(tmp_path: Path) -> None:
    store = HeaderStore(tmp_path)
    first = put(store)
    before = first.path.stat()
    again = put(store)
    assert (again.outcome, again.version, again.path) == ("unchanged", 1, first.path)
    assert again.header.data == first.path.read_bytes()
    after = first.path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_another_content_is_another_version(tmp_path: Path) -> None:
    store = HeaderStore(tmp_path)
    first = put(store)
    content = first.path.read_bytes()
    second = put(store, dark(15.5))
    assert (second.outcome, second.version) == ("written", 2)
    assert second.path.name == "CC_O_20261122_000001_header.v2.yaml"
    assert first.path.read_bytes() == content
    assert values_of(second.path)["HDRVERS"] == 2
    assert put(store, dark(15.5)).outcome == "unchanged"
    third = put(store, dark(16.5))
    assert third.version == 3
    assert [v for v, _ in header_versions(tmp_path, first.header.name)] == [1, 2, 3]
    assert store.read(first.header.name) == third.path.read_bytes()
    assert store.read(first.header.name, 2) == second.path.read_bytes()
    assert store.read(first.header.name, 9) is None


def test_partial_then_complete_and_never_back(tmp_path: Path) -> None:
    """D104: what is known of an image only grows."""
    store = HeaderStore(tmp_path)
    assert put(store, without_end).header.state == "partial"
    whole = put(store)
    assert (whole.version, whole.header.state) == (2, "complete")
    assert put(store, without_end).outcome == "kept"
    assert put(store, telemetry=False).outcome == "kept"
    assert len(header_versions(tmp_path, whole.header.name)) == 2


def test_a_partial_one_with_all_values_is_completed(tmp_path: Path) -> None:
    store = HeaderStore(tmp_path)
    assert put(store, without_end).outcome == "written"
    assert put(store).header.state == "complete"


def test_a_damaged_document_is_left_and_the_next_version_written(tmp_path: Path) -> None:
    store = HeaderStore(tmp_path)
    first = put(store)
    first.path.write_bytes(b"\0" * 100)
    second = put(store)
    assert (second.outcome, second.version) == ("written", 2)
    assert first.path.read_bytes() == b"\0" * 100


def test_other_files_are_no_versions(tmp_path: Path) -> None:
    store = HeaderStore(tmp_path)
    directory = put(store).path.parent
    for name in (
        "CC_O_20261122_000002_header.yaml",
        "CC_O_20261122_000001_header.v1.yaml",
        "x_header.v7.yaml",
    ):
        (directory / name).write_text("PRIMARY: []")
    (directory / "CC_O_20261122_000001_header.v02.yaml").write_text("PRIMARY: []")
    assert [v for v, _ in header_versions(tmp_path, ImageName.parse("CC_O_20261122_000001"))] == [1]


def test_an_archive_that_refuses(tmp_path: Path) -> None:
    (tmp_path / "arc").write_text("a file")
    with pytest.raises(StorageError):
        put(HeaderStore(tmp_path / "arc"))
    assert (tmp_path / "arc").read_text() == "a file"


def test_many_writers_make_one_row_of_versions(tmp_path: Path) -> None:
    """Processes that store different documents of one image at once: each has its own version."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_store import *\n"
        "store, first = HeaderStore(sys.argv[2], durable=False), float(sys.argv[3])\n"
        "for n in range(6): put(store, dark(first + n / 100))\n"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(Path(__file__).parent), str(tmp_path), str(10 + n)]
        )
        for n in range(3)
    ]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    there = header_versions(tmp_path, ImageName.parse("CC_O_20261122_000001"))
    assert [version for version, _ in there] == list(range(1, 19))
    assert len({values_of(path)["DARKTIME"] for _, path in there}) == 18


def test_the_date_is_that_of_the_first_writing(tmp_path: Path) -> None:
    before = times.now()
    stored = put(HeaderStore(tmp_path))
    assert before // 10**6 * 10**6 <= stored.header.created <= times.now()
    assert stored.header.created * 1e-9 > BEGIN - 86400 * 365
