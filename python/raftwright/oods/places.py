"""Where the OODS finds the others, and the OODS of a site's configuration."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from raftwright.oods.service import Oods
    from raftwright.oods.settings import Settings
    from raftwright.service import Common

__all__ = ["NAME", "Places", "build"]

NAME: Final = "oods"


class Places:
    """Where the OODS finds the others: `publish` and `listen` are of events."""

    def __init__(
        self, *, ledger: str, camera: str = "", publish: str = "", listen: Collection[str] = ()
    ) -> None:
        self.ledger = ledger
        self.camera = camera
        self.publish = publish
        self.listen = tuple(listen)


def build(settings: Settings, common: Common) -> Oods:
    """The OODS of a configuration."""
    from raftwright.oods.service import Oods

    told = common.events_of(NAME)
    places = Places(
        ledger=common.ledger,
        camera=common.site.camera,
        publish=told,
        listen=[url for url in common.events_from() if url.startswith("kafka://") or url != told],
    )
    return Oods(settings, places, common.life(NAME))
