"""Events: what a service did, told to whoever listens. Hints, never the truth: that is in the journal.

A message is two frames on ZeroMQ PUB/SUB: the kind, and a JSON object. See `raftwright.events.message`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raftwright.events.message import FORMAT, KINDS, MAX_BYTES, Event

if TYPE_CHECKING:
    from raftwright.events.publisher import Publisher
    from raftwright.events.subscriber import Subscriber

__all__ = ["FORMAT", "KINDS", "MAX_BYTES", "Event", "Publisher", "Subscriber"]


def __getattr__(name: str) -> Any:
    if name == "Publisher":
        from raftwright.events.publisher import Publisher

        return Publisher
    if name == "Subscriber":
        from raftwright.events.subscriber import Subscriber

        return Subscriber
    raise AttributeError(f"module 'raftwright.events' has no attribute {name!r}")
