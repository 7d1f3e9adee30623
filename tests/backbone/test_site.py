"""A real archiver and a hand-off that meet in the ledger alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from handoff_stand import files_in, wait_for

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "archiver"))  # for archive_stand

from archive_stand import Archive

from raftwright.backbone import Endpoint, HandOff, Places, Settings


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    made = Archive(tmp_path)
    yield made
    made.close()


def test_images_as_they_come(archive: Archive) -> None:
    """N34, D141: what the archiver found to hold goes out at once; the archive keeps what it has."""
    archiver = archive.archiver(archive.to("oods"))
    endpoints = [
        Endpoint(name=name, kind="directory", root=str(archive.place(name)), custodial=False)
        for name in ("near", "far")
    ]
    service = HandOff(Settings(endpoints=endpoints), Places(ledger=archive.url))
    with service:
        images = archive.take(1, 2, 3)
        whole = {name: {"delivered": 57} for name in ("oods", "endpoint:near", "endpoint:far")}
        wait_for(lambda: archive.counts() == whole, 20, archive.counts)
        for name in ("near", "far", "oods"):
            archive.check(archive.place(name), images)
        assert archiver.problems() == service.problems() == []
        files = [
            file.id
            for image in images
            for file in archive.ledger.files.of(archive.ledger.images.get(image.base.name)[0].id)
        ]
        assert len(files) == 57
        assert archive.ledger.replicas.safe(files, ["near", "far"]) == set(files)
        assert archive.ledger.replicas.safe(files, 3) == set(), "deliveries are no replicas"
        before = files_in(archive.root / "20261122")
        assert len(before) == 57
        wait_for(lambda: service.idle)
        assert files_in(archive.root / "20261122") == before
