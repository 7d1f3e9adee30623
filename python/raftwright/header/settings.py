"""What a header service is told to do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from raftwright.service.units import Period, Seconds

__all__ = ["SHARED", "Settings"]

SHARED: Final = {
    "archive": "archive.root",
    "spec": "site.camera",
    "daq": "daq.endpoint",
    "keys": "daq.keys",
    "server_key": "daq.server_key",
    "key_store": "daq.key_store",
}


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section `header`."""

    archive: Annotated[str, Meta(min_length=1)]
    """Root of the archive; that of `archive` by default."""
    spec: Annotated[str, Meta(min_length=1)]
    """Specification of the header: a built-in camera, or a file (*.yaml); the site's camera by default."""
    listen: list[Annotated[str, Meta(min_length=1, max_length=4000)]] = []
    """Where events and telemetry are published; all publishers of the site by default."""
    directory: str = ""
    """Where files with events are put, if there is such a place."""
    daq: str = ""
    """Control socket of the DAQ's server, for what it says of images; none: without."""
    keys: str = ""
    server_key: str = ""
    key_store: str = ""
    events: str = ""
    """Where headers are announced; that of the site by default."""
    ledger: str = ""
    """URL; that of the site by default."""
    journal: str = ""
    """File of what was collected; `.header/journal` in the archive by default."""
    door: str = ""
    """HOST:PORT where headers are served over HTTP; none by default."""
    door_url: str = ""
    """What announcements call the door, where it is known by another name."""
    deadline: Period = 30.0
    """Beyond the camera's own timeout, or after the end of readout: then what is known is written."""
    settle: Seconds = 0.1
    """After the end of telemetry, for what was overtaken by it."""
    remember: Period = 600.0
    """For which a written image is known, so that what comes late is added."""
    images: Annotated[int, Meta(ge=1, le=10_000)] = 256
    """Most that are known at a time."""
    samples: Annotated[int, Meta(ge=16, le=100_000)] = 2048
    """Most that are kept of a topic."""
    builders: Annotated[int, Meta(ge=1, le=16)] = 2
    """Threads that write documents."""
    durable: bool = True
    """Sync documents to the disk before they are announced."""

    @property
    def journal_path(self) -> Path:
        """Where the journal is."""
        return Path(self.journal) if self.journal else Path(self.archive) / ".header" / "journal"
