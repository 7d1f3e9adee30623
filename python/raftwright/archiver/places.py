"""Where an archiver finds the others, and the archiver of a site's configuration."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from raftwright.archiver.service import Archiver
    from raftwright.archiver.settings import Settings
    from raftwright.daq import Store
    from raftwright.service import Common

__all__ = ["NAME", "Places", "build"]

NAME: Final = "archiver"


class Places:
    """Where an archiver finds the others: `store` opens the DAQ's, `publish` and `listen` are of events."""

    def __init__(
        self,
        *,
        root: Path,
        ledger: str,
        store: Callable[[], Store] | None,
        folder: str = "",
        publish: str = "",
        listen: Collection[str] = (),
    ) -> None:
        self.root = root
        self.ledger = ledger
        self.store = store
        self.folder = folder
        self.publish = publish
        self.listen = tuple(listen)


def build(settings: Settings, common: Common) -> Archiver:
    """The archiver of a configuration."""
    from raftwright.archiver.service import Archiver

    daq, told = common.daq, common.events_of(NAME)

    def open_daq() -> Store:
        from raftwright.stream import KeyStore, NetworkStore

        pair = KeyStore(daq.key_store or None).secret(daq.keys) if daq.keys else None
        return NetworkStore(daq.endpoint, keys=pair, server_key=daq.server_key or None, name=NAME)

    return Archiver(
        settings,
        Places(
            root=common.root,
            ledger=common.ledger,
            store=open_daq if daq.endpoint else None,
            folder=daq.folder,
            publish=told,
            listen=[url for url in common.events_from() if url.startswith("kafka://") or url != told],
        ),
        common.life(NAME),
    )
