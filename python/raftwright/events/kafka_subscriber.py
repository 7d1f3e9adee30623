"""Hearing events over Kafka: an offset is committed when what was read is done, and not before."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from raftwright.errors import FormatError, UsageError
from raftwright.events.interface import Subscriber
from raftwright.events.kafka import common_settings, library, parse
from raftwright.events.kafka_feed import Feed
from raftwright.events.message import ALIVE, Event, read
from raftwright.events.progress import MOST_OPEN, Repeats

if TYPE_CHECKING:
    from raftwright.events.deadletters import DeadLetters

__all__ = ["KafkaSubscriber"]

_LOOK: Final = 1.0


class KafkaSubscriber(Subscriber):
    """Reads the topic `PREFIX.events`. It belongs to one thread; another one of its own talks to the brokers.

    That other thread goes on while the caller works on an event for as long as it likes, so that the brokers
    do not take it for dead. With a group, members share the partitions, and what one of them did not do comes
    again.

    Parameters
    ----------
    url
        `kafka://HOST:PORT[,HOST:PORT]/PREFIX`.
    kinds
        Only these; all by default.
    group
        Without, it hears what is told from now on, and nothing is remembered.
    dead
        Where messages go that cannot be read.
    options
        File of mode 0600 with security options.
    tuning
        More settings of librdkafka.

    Raises
    ------
    UsageError
        The URL or an option is none.
    MissingExtraError
        Kafka is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        kinds: frozenset[str] | None = None,
        group: str = "",
        dead: DeadLetters | None = None,
        options: str = "",
        tuning: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(dead)
        self._kinds = kinds
        self._repeats = Repeats()
        self._given: dict[tuple[str, int, int], Event] = {}
        place = parse(url)
        settings: dict[str, Any] = {
            **common_settings(place, options, group or "listener"),
            "group.id": group or f"raftwright-{secrets.token_hex(8)}",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest" if group else "latest",
            "queued.max.messages.kbytes": 16 << 10,
            **(tuning or {}),
        }
        self._remembers = bool(group)
        self._feed = Feed(library(), settings, place.topic, grouped=bool(group), lost=self._lost)

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            wait = _LOOK if end is None else min(_LOOK, end - time.monotonic())
            message = self._feed.take(max(0.0, wait))
            if message is None:
                if self._feed.closed or (end is not None and time.monotonic() >= end):
                    return
                continue
            event = self._read(message)
            if event is not None:
                yield event
                if timeout is not None:  # the caller's own time is not ours
                    end = time.monotonic() + timeout

    def done(self, event: Event) -> None:
        self._given.pop(event.place, None)
        self._feed.done(*event.place)

    def close(self) -> None:
        self._feed.close()

    def _read(self, message: Any) -> Event | None:
        """An event for the caller; None where there is none in it, and then it is done."""
        place = message.place
        event: Event | None = None
        if self._wanted(message.kind):
            try:
                event = read(message.body)
            except FormatError as error:
                where = f"{self._feed.topic}/{place[1]}/{place[2]}"
                if not self._set_aside(message.body, str(error), where):
                    return None  # it is nowhere else yet, so it stays in the topic
        if event is not None and (event.kind == ALIVE or not self._wanted(event.kind)):
            event = None
        if event is not None and self._repeats.seen(event):
            self.repeated += 1
            event = None
        if event is None:
            self._feed.done(*place)
            return None
        event = msgspec.structs.replace(event, place=place)
        if self._remembers:
            if len(self._given) >= MOST_OPEN:
                raise UsageError(f"{MOST_OPEN} events are not done; call done() for each that is dealt with")
            self._given[place] = event
            if not self._feed.holds(place[0], place[1]):
                self._lost(place[1])
        return event

    def _wanted(self, kind: str) -> bool:
        return self._kinds is None or not kind or kind in self._kinds

    def _lost(self, partition: int) -> None:
        """A partition is somebody else's: what is not done comes again, to him or to us."""
        for place in [place for place in list(self._given) if place[1] == partition]:
            event = self._given.pop(place, None)
            if event is not None:
                self._repeats.forget(event)
