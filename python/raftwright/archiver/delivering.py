"""All lanes of an archiver: one for each destination and each command, with what each sends by."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from raftwright.archiver.commands import Runner
from raftwright.archiver.planning import COMMAND
from raftwright.archiver.settings import Command, Destination
from raftwright.errors import NotFoundError
from raftwright.transfer.directory import DirectorySender
from raftwright.transfer.lane import Ended, Lane, Limits
from raftwright.transfer.naming import before
from raftwright.transfer.outcome import Job, Sent
from raftwright.transfer.sender import Sender, sender_of
from raftwright.transfer.warming import Warming

if TYPE_CHECKING:
    from raftwright.archiver.settings import Settings
    from raftwright.ledger import Ledger
    from raftwright.ledger.rows import DeliveryRow, ImageRow
    from raftwright.metrics import Metrics
    from raftwright.transfer.digests import Digests

__all__ = ["Lanes"]

_log = logging.getLogger("raftwright.archiver")

_IN_A_ROW: Final = 10
_KNOWN: Final = 60.0
"""Seconds for which a sidecar that was brought is known to be there."""
_REMEMBERED: Final = 10_000
_GRACE: Final = 5.0
"""Seconds more that a lane grants a command, which is killed at its own limit."""


class Lanes:
    """Raises, when it is made, what is missing for a destination.

    `told` is called with each try that ended and what it was for; `active` says whether to take on work.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        digests: Digests,
        image_of: Callable[[int], ImageRow],
        *,
        told: Callable[[Destination | Command, Ended], None],
        active: Callable[[], bool],
        metrics: Metrics,
    ) -> None:
        self._ledger = ledger
        self._digests = digests
        self._told = told
        self._active = active
        self._metrics = metrics
        self._brought: OrderedDict[tuple[str, str, str], float] = OrderedDict()
        """Sidecars by destination, name there and sum, and when they were seen there last."""
        self._lock = threading.Lock()
        self._warming = Warming(_log)
        self._lanes: dict[str, Lane] = {}
        self._senders: dict[str, Sender | Runner] = {}
        for destination in settings.destinations:
            sender = sender_of(destination)
            send = functools.partial(self._bring, destination, sender)
            self._add(destination.name, destination, sender, send, destination.timeout)
        for command in settings.commands:
            runner = Runner(command, image_of)
            name = f"{COMMAND}{command.name}"
            self._add(name, command, runner, runner.send, command.timeout + _GRACE)

    def _add(
        self,
        name: str,
        what: Destination | Command,
        sender: Sender | Runner,
        send: Callable[[DeliveryRow], Sent],
        timeout: float,
    ) -> None:
        self._senders[name] = sender
        self._lanes[name] = Lane(
            name,
            Limits(
                concurrency=what.concurrency,
                timeout=timeout,
                retries=what.retries,
                backoff=what.backoff,
                longest=what.longest,
                in_a_row=max(_IN_A_ROW, 2 * what.concurrency) if isinstance(what, Destination) else 0,
            ),
            self._ledger.deliveries,
            send,
            probe=sender.probe,
            told=functools.partial(self._told, what),
            active=self._active,
            any_waiting=functools.partial(self._any_waiting, name),
            metrics=self._metrics,
        )

    def _any_waiting(self, name: str) -> bool:
        return self._ledger.deliveries.any_waiting(name)

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    def poke(self, name: str | None = None) -> None:
        """There is something new in a queue, or in any."""
        for lane in self if name is None else [self._lanes[name]] if name in self._lanes else []:
            lane.poke()

    def warm(self, archive: Path) -> None:
        """Makes connections before the first image needs them. Waits for none of it."""
        for name, sender in self._senders.items():
            self._warming.begin(name, functools.partial(_how, sender, archive), self._lanes[name].doubt)

    def idle(self) -> bool:
        """Whether every queue is empty."""
        return not any(lane.in_flight() or self._any_waiting(lane.name) for lane in self)

    def status(self) -> dict[str, Any]:
        """As JSON, by name. Raises StorageError."""
        waiting = self._ledger.deliveries.counts(delivered=False)
        return {lane.name: {**lane.status(), "waiting": waiting.get(lane.name, {})} for lane in self}

    def close(self) -> None:
        """Ends what runs, and all connections."""
        self._warming.close()
        for sender in self._senders.values():
            sender.close()

    def _bring(self, destination: Destination, sender: Sender, row: DeliveryRow) -> Sent:
        """Brings a file, and what has to be there before it. In a thread of a lane."""
        if "sidecar" in destination.what:
            for path, name in before(row):
                found = self._digests.of(path)
                if found is None:
                    raise NotFoundError(f"{path}: the sidecar is not there; {row.path} waits for it")
                known = self._brought.get((destination.name, name, found.crc32c))
                if known is None or time.monotonic() - known > _KNOWN:
                    sender.send(Job(path=path, target=name, bytes=found.bytes, crc32c=found.crc32c))
        sent = sender.send(Job(path=row.path, target=row.target, bytes=row.bytes, crc32c=row.crc32c))
        if row.path.endswith(".json"):
            with self._lock:
                self._brought[destination.name, row.target, row.crc32c] = time.monotonic()
                while len(self._brought) > _REMEMBERED:
                    self._brought.popitem(last=False)
        return sent


def _how(sender: Sender | Runner, archive: Path) -> str:
    how = sender.warm()
    if isinstance(sender, DirectorySender) and not sender.links_from(archive):
        how += "; copies, because the archive is on another file system"
    return how
