"""Events: what a service did, told to whoever listens. Hints, never the truth: that is in the ledger.

    with open_publisher("tcp://127.0.0.1:5580", name="forwarder-1") as publisher:
        publisher.publish("imageWritten", instrument="LSSTCam", obsid="MC_O_20261122_000123", files=9)

    with open_subscriber("tcp://127.0.0.1:5580", kinds=["imageWritten"]) as subscriber:
        for event in subscriber.events(timeout=60.0):
            ...
            subscriber.done(event)

A URL says what carries them: ZeroMQ, or Kafka. `docs/events.md` has kinds, fields, and the bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raftwright.events.interface import (
    Cursors,
    EventLog,
    Publisher,
    Row,
    Subscriber,
    open_publisher,
    open_subscriber,
)
from raftwright.events.message import FORMAT, KINDS, MAX_BYTES, Event
from raftwright.events.schema import MESSAGES

if TYPE_CHECKING:
    from raftwright.events.deadletters import DeadLetters
    from raftwright.events.ledger_log import LedgerLog
    from raftwright.events.outbox import Outbox

__all__ = [
    "FORMAT",
    "KINDS",
    "MAX_BYTES",
    "MESSAGES",
    "Cursors",
    "DeadLetters",
    "Event",
    "EventLog",
    "LedgerLog",
    "Outbox",
    "Publisher",
    "Row",
    "Subscriber",
    "open_publisher",
    "open_subscriber",
]


def __getattr__(name: str) -> Any:
    if name == "DeadLetters":
        from raftwright.events.deadletters import DeadLetters

        return DeadLetters
    if name == "LedgerLog":
        from raftwright.events.ledger_log import LedgerLog

        return LedgerLog
    if name == "Outbox":
        from raftwright.events.outbox import Outbox

        return Outbox
    raise AttributeError(f"module 'raftwright.events' has no attribute {name!r}")
