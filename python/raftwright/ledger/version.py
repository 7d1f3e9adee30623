"""The version of the tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from raftwright.errors import FormatError

__all__ = ["APPLICATION", "CHANGES", "JOURNAL", "REVISION", "VERSION", "check_version"]

VERSION: Final = 4
"""What this release reads and writes."""

CHANGES: Final[Mapping[int, str]] = {
    1: "images, sources, detectors, files, headers, deliveries, events",
    2: "tables replica, ingest and tag; images know their place in their group, and are found by it",
    3: "objects that are ingested keep tag and sums of their store; what was set aside can be tried again",
    4: "table member: containers of images, and what is in them",
}
"""What each version brought."""

APPLICATION: Final = 0x52574C31
"""Says of an SQLite file that it is ours: "RWL1"."""

JOURNAL: Final = 0x52574A31
"""The journal of a forwarder of before: "RWJ1"."""

REVISION: Final = "0004"
"""The migration that leads to it."""


def check_version(found: int, where: str) -> None:
    """Raises FormatError for every version but ours."""
    if found < VERSION:
        raise FormatError(
            f"{where}: is a ledger of version {found}, this release has {VERSION}; bring it up to date with "
            "`raftwright ledger upgrade`"
        )
    if found > VERSION:
        raise FormatError(
            f"{where}: is a ledger of version {found}, this release knows {VERSION}; use one that knows it"
        )
