"""A Butler repository of raws: made, filled, read and cleaned. Needs the extra `butler`.

repository = make_repository("/data/oods", cameras=["LSSTCam"])
ingester = Ingester(repository)
ingester.ingest([Incoming.of("/archive/20261122/MC_O_20261122_000123/MC_O_20261122_000123_R22_S11.fits")])
repository.butler.get("raw.mosaic", instrument="LSSTCam", exposure=2026112200123, detector=94)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from raftwright.butler.incoming import Incoming, Kind, Outcome, State, Transfer

if TYPE_CHECKING:
    from raftwright.butler.ingesting import Ingester
    from raftwright.butler.making import make_repository
    from raftwright.butler.reading import GuiderStamps, Raw
    from raftwright.butler.repository import Repository, open_repository
    from raftwright.butler.visits import VisitOutcome, define_visits

__all__ = [
    "GuiderStamps",
    "Incoming",
    "Ingester",
    "Kind",
    "Outcome",
    "Raw",
    "Repository",
    "State",
    "Transfer",
    "VisitOutcome",
    "define_visits",
    "make_repository",
    "open_repository",
]

_HOMES = {
    "GuiderStamps": "reading",
    "Ingester": "ingesting",
    "Raw": "reading",
    "Repository": "repository",
    "VisitOutcome": "visits",
    "define_visits": "visits",
    "make_repository": "making",
    "open_repository": "repository",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"raftwright.butler.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'raftwright.butler' has no attribute {name!r}")
