"""What the inputs set aside: files and objects that are none of ours, not whole, or changed since they were
ingested. It stands in the ledger's quarantine until it is taken after all, or gone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from raftwright.ledger import Ledger
    from raftwright.ledger.rows import QuarantineRow
    from raftwright.oods.settings import Settings

__all__ = ["FILE", "OBJECT", "again", "standing"]

FILE: Final = "file"
OBJECT: Final = "object"
"""What the ledger calls them."""


def standing(ledger: Ledger, settings: Settings, limit: int = 1000) -> list[QuarantineRow]:
    """What stands aside of the inputs of a repository, of each the last ones. Raises StorageError."""
    return [
        row
        for what, under in _places(settings)
        for row in ledger.quarantine.standing(what, under, limit=limit)
    ]


def again(ledger: Ledger, settings: Settings) -> int:
    """Has it tried once more by the OODS that works; how many there are. Raises StorageError."""
    return sum(ledger.quarantine.again(what, under) for what, under in _places(settings))


def _places(settings: Settings) -> Iterator[tuple[str, str]]:
    """What is set aside, and how its names begin."""
    for directory in settings.directories:
        yield FILE, directory.path.rstrip("/") + "/"
    if settings.notifications is not None:
        for root in settings.notifications.roots:
            yield OBJECT, root
