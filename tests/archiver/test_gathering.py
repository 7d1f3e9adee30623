"""What is to be looked at is looked at, whatever happens to one image or file."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from archive_stand import Archive, wait_for

from hand_daq import HandImage
from raftwright.archiver import gathering, late_headers
from raftwright.errors import StorageError
from raftwright.ledger import FileRow
from raftwright.rawfile import later as later_sidecars
from raftwright.rawfile.standing import digest

HEADER = """PRIMARY:
- {keyword: EXPTIME, value: 30.0}
- {keyword: OBJECT, value: %s}
- {keyword: HDRVERS, value: %d}
"""


def number_of(archive: Archive, image: HandImage) -> int:
    return archive.ledger.images.get(image.base.name)[0].id


def put_header(archive: Archive, image: HandImage, version: int, target: str) -> None:
    name = image.base.name
    suffix = "" if version == 1 else f".v{version}"
    path = archive.root / "20261122" / name / f"{name}_header{suffix}.yaml"
    path.write_text(HEADER % (target, version))
    found = digest(path)
    archive.ledger.headers.put(name, version, str(path), found.bytes, found.crc32c)


def later(archive: Archive, image: HandImage, version: int = 2) -> int:
    directory = archive.root / "20261122" / image.base.name
    return len(list(directory.glob(f"*.sidecar{version}.json")))


def test_the_cursor_waits_for_the_image_that_is_looked_at(archive: Archive) -> None:
    """F12: who is killed while he looks at an image reads again what made him look."""
    archiver = archive.archiver(archive.to("oods"), headers=False)
    (image,) = archive.take(1)
    wait_for(lambda: archive.counts().get("oods") == {"delivered": 19})
    wait_for(lambda: not archiver.waiting)
    entered, release = threading.Event(), threading.Event()
    examine = archiver.gatherer.examine

    def slow(image_id: int, *, late: bool = False) -> Any:
        entered.set()
        assert release.wait(10)
        return examine(image_id, late=late)

    archiver.gatherer.examine = slow  # type: ignore[method-assign]
    put_header(archive, image, 1, "M 31")
    assert entered.wait(5)
    last = archive.ledger.events.last()
    archiver.chronicle.wake()
    time.sleep(1.5)
    assert archive.ledger.events.cursor(archiver.role.name) < last  # type: ignore[union-attr]
    release.set()
    wait_for(lambda: archive.ledger.events.cursor(archiver.role.name) >= last, 10)  # type: ignore[union-attr]
    wait_for(lambda: archive.counts().get("oods") == {"delivered": 20})


def test_a_ledger_that_fails_once_loses_no_image(archive: Archive) -> None:
    """F18: the other images that were due are looked at too; no sweep finds them."""
    archiver = archive.archiver(archive.to("oods"), sweep=60.0, headers=False)
    first, *others = archive.take(1, 2, 3, 4)
    wait_for(lambda: archive.counts().get("oods") == {"delivered": 76})
    wait_for(lambda: not archiver.waiting)
    entered, release = threading.Event(), threading.Event()
    examine = archiver.gatherer.examine
    asked: list[int] = []

    def fails(image_id: int, *, late: bool = False) -> Any:
        asked.append(image_id)
        if len(asked) == 1:
            entered.set()
            assert release.wait(10)
        if len(asked) == 2:
            raise StorageError(11, "the ledger is away", "ledger.db")
        return examine(image_id, late=late)

    archiver.gatherer.examine = fails  # type: ignore[method-assign]
    put_header(archive, first, 1, "M 31")
    assert entered.wait(5)
    for image in others:
        put_header(archive, image, 1, "M 31")
    wait_for(lambda: len(archiver._waiting) == 3)  # so that all are due at once
    release.set()
    wait_for(lambda: archive.counts().get("oods") == {"delivered": 80}, 10, archive.counts)


def test_a_file_that_cannot_be_read_holds_no_other(archive: Archive, monkeypatch: Any) -> None:
    """D080: neither the others of its image nor the other images; it goes when it can be read again."""
    monkeypatch.setattr(gathering, "_UNREADABLE", 0.3)
    first, second = archive.take(1, 2)
    raw = next(iter(sorted((archive.root / "20261122" / first.base.name).glob("*.fits"))))
    aside = archive.root / "aside"
    raw.rename(aside)
    raw.symlink_to(raw.name)
    archive.archiver(archive.to("oods"))
    wait_for(lambda: archive.state(second) == "complete", 5)
    wait_for(lambda: archive.counts().get("oods") == {"delivered": 36}, 5, archive.counts)
    assert archive.state(first) != "complete"
    aside.rename(raw)  # in one step: it is never gone
    wait_for(lambda: archive.state(first) == "complete", 5)
    wait_for(lambda: archive.counts().get("oods") == {"delivered": 38}, 5, archive.counts)


def test_a_sidecar_that_was_lost_and_is_there_again(archive: Archive) -> None:
    """F36: its raw file waits for it, and not for ever."""
    (image,) = archive.take(1)
    raw = archive.ledger.files.of(number_of(archive, image), "raw")[0]
    path = Path(raw.path).with_suffix(".json")
    found = digest(path)
    archive.ledger.files.enter(
        [
            FileRow(
                image=raw.image,
                daq_id=raw.daq_id,
                location=raw.location,
                detector=raw.detector,
                path=str(path),
                bytes=found.bytes,
                crc32c=found.crc32c,
                status="written",
                kind="sidecar",
            )
        ]
    )
    archive.ledger.files.lost(str(path))
    archive.archiver(archive.to("oods"))
    wait_for(lambda: archive.counts().get("oods") == {"delivered": 19}, 5, archive.counts)
    row = archive.ledger.files.by_path(str(path))
    assert row is not None
    assert row.status == "written"


def test_a_sidecar_that_cannot_be_read_holds_no_other_image(archive: Archive) -> None:
    """D056: late headers of other images are written meanwhile."""
    archive.archiver(archive.to("oods"))
    first, second = archive.take(1, 2)
    wait_for(lambda: archive.counts().get("oods") == {"delivered": 38})
    sidecar = next(iter(sorted((archive.root / "20261122" / first.base.name).glob("*R22*.json"))))
    sidecar.unlink()
    sidecar.mkdir()
    put_header(archive, first, 1, "M 31")
    time.sleep(0.5)
    put_header(archive, second, 1, "M 31")
    wait_for(lambda: later(archive, second) == 9, 4)


@pytest.mark.parametrize("trouble", ["news", "disk"])
def test_a_header_is_not_forgotten(trouble: str, archive: Archive, monkeypatch: Any) -> None:
    """D056: one that comes while sidecars are written for the one before it; and one that met a full disk."""
    monkeypatch.setattr(late_headers, "_AGAIN", 0.3)
    archive.archiver(archive.to("oods"))
    (image,) = archive.take(1)
    wait_for(lambda: archive.counts().get("oods") == {"delivered": 19})
    write = later_sidecars.write_later_sidecar
    calls: list[int] = []

    def odd(*arguments: Any) -> Any:
        calls.append(1)
        if trouble == "disk" and len(calls) <= 9:
            raise StorageError(28, "the disk is full", "sidecar")
        if trouble == "news" and len(calls) == 9:
            put_header(archive, image, 2, "NGC 253")
            time.sleep(1.0)
        return write(*arguments)

    monkeypatch.setattr(later_sidecars, "write_later_sidecar", odd)
    put_header(archive, image, 1, "M 31")
    wait_for(lambda: later(archive, image) == 9, 5)
    if trouble == "news":
        wait_for(lambda: later(archive, image, 3) == 9, 5)
