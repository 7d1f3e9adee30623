"""Where a hand-off finds the others, and the hand-off of a site's configuration."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from raftwright.backbone.service import HandOff
    from raftwright.backbone.settings import Settings
    from raftwright.service import Common

__all__ = ["NAME", "Places", "build"]

NAME: Final = "handoff"


class Places:
    """Where a hand-off finds the others: `publish` and `listen` are of events."""

    def __init__(self, *, ledger: str, publish: str = "", listen: Collection[str] = ()) -> None:
        self.ledger = ledger
        self.publish = publish
        self.listen = tuple(listen)


def build(settings: Settings, common: Common) -> HandOff:
    """The hand-off of a configuration."""
    from raftwright.backbone.service import HandOff

    told = common.events_of(NAME)
    return HandOff(
        settings,
        Places(
            ledger=common.ledger,
            publish=told,
            listen=[url for url in common.events_from() if url.startswith("kafka://") or url != told],
        ),
        common.life(NAME),
    )
