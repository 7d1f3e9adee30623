"""CCDs for prompt processing, in shared memory: as soon as its last row is there, without a copy.

    for ccd in raftwright.watch():         # in any process of this user on this machine
        ccd.segments["Segment10"]          # (2048, 576) int32, read-only, a view

The forwarder assembles a board into a *slab* of a `Pool`, and announces it. Whoever looks holds a lease: a
slab is used again only when nobody holds it, and who dies holds nothing. The forwarder never waits: where all
slabs are held, the next board is not shown (a loss in the preview, counted as one; its files are written all
the same).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raftwright.prompt.ccd import PromptCcd
    from raftwright.prompt.place import PoolFacts, pool_directory, pools
    from raftwright.prompt.pool import Pool, Slab
    from raftwright.prompt.watching import Watch, watch

__all__ = ["Pool", "PoolFacts", "PromptCcd", "Slab", "Watch", "pool_directory", "pools", "watch"]

_HOMES = {
    "Pool": "pool",
    "PoolFacts": "place",
    "PromptCcd": "ccd",
    "Slab": "pool",
    "Watch": "watching",
    "pool_directory": "place",
    "pools": "place",
    "watch": "watching",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f"raftwright.prompt.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'raftwright.prompt' has no attribute {name!r}")
