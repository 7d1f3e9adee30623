"""Made-up images for a ledger."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from raftwright.camera import camera
from raftwright.errors import NotFoundError, StorageError
from raftwright.ledger import (
    DetectorFacts,
    FileRow,
    ImageFacts,
    Ledger,
    Outcome,
    SourceFacts,
    UnitKey,
    open_ledger,
)

A = UnitKey("CC_O_20261122_000001", "1f", "22/0")
B = UnitKey("CC_O_20261122_000001", "1f", "22/1")


def name_of(number: int, day: int = 20261122) -> str:
    """Of an image."""
    return f"CC_O_{day}_{number:06d}"


def facts_of(
    number: int = 1, *, daq_id: str = "1f", day: int = 20261122, of: str = "LSSTComCam"
) -> ImageFacts:
    """A whole image of a camera."""
    model = camera(of)
    return ImageFacts(
        obsid=name_of(number, day),
        daq_id=daq_id,
        camera=model.name,
        instrument=model.name,
        folder="raw",
        trigger_tai=1.8e9,
        sources=tuple(SourceFacts(board.location, board.kind, 1000) for board in model.boards.values()),
        detectors=tuple(
            DetectorFacts(detector.name, board.location, "SCIENCE")
            for board in model.boards.values()
            for detector in board.detectors
        ),
    )


def want(*keys: UnitKey) -> list[tuple[UnitKey, str, int]]:
    """As `claims.claim` takes them."""
    return [(key, "raw", 1000) for key in keys]


def keys_of(facts: ImageFacts) -> list[UnitKey]:
    """The units of an image."""
    return [UnitKey(facts.obsid, facts.daq_id, source.location) for source in facts.sources]


def row(key: UnitKey, path: str = "/archive/a.fits", **more: Any) -> FileRow:
    """A raw file."""
    values: dict[str, Any] = {
        "image": key.image,
        "daq_id": key.daq_id,
        "location": key.location,
        "detector": "R22_S00",
        "path": path,
        "bytes": 10,
        "adler32": "00000001",
        "crc32c": "00000002",
        "status": "written",
        **more,
    }
    return FileRow(**values)


def files_of(facts: ImageFacts, location: str, **more: Any) -> tuple[FileRow, ...]:
    """The raw files of a source."""
    key = UnitKey(facts.obsid, facts.daq_id, location)
    return tuple(
        row(key, f"/archive/{facts.obsid}_{each.detector}.fits", detector=each.detector, **more)
        for each in facts.detectors
        if each.location == location
    )


def take(ledger: Ledger, facts: ImageFacts, *locations: str, state: str = "done", **more: Any) -> int:
    """Announces an image, and brings some of its sources, or all, to an end; number of the image."""
    image_id = ledger.images.announce(facts)
    wanted = [key for key in keys_of(facts) if not locations or key.location in locations]
    claims = ledger.claims.claim(want(*wanted), again=True)
    assert len(claims) == len(wanted)
    ends = []
    for claim in claims:
        files = files_of(facts, claim.key.location, **more) if state not in ("failed", "gone", "open") else ()
        ends.append((claim, Outcome(state=state, received=1000, files=files)))  # type: ignore[arg-type]
    assert all(ledger.claims.end_many(ends))
    return image_id


def wait_for(what: Callable[[], object], seconds: float = 30.0) -> None:
    """Until it is true."""
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until
        time.sleep(0.02)


def counts(url: str) -> dict[str, int]:
    """Units that were begun, by state, as somebody else sees them."""
    try:
        with open_ledger(url, read_only=True, busy=0.1) as ledger:
            return {state: n for state, n in ledger.claims.counts().items() if state != "expected"}
    except (NotFoundError, StorageError):
        return {}
