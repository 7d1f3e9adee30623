"""What telling and hearing events is, whatever carries them."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

from raftwright.errors import StorageError, UsageError
from raftwright.events.message import Event, encode

if TYPE_CHECKING:
    from raftwright.events.deadletters import DeadLetters

__all__ = ["Cursors", "EventLog", "Publisher", "Row", "Subscriber", "open_publisher", "open_subscriber"]


_log = logging.getLogger("raftwright.events")


class Row(NamedTuple):
    """An event as it stands in a log."""

    number: int
    """From 1, growing; there may be gaps."""
    kind: str
    fields: dict[str, Any]
    time: str = ""
    """UTC, ISO 8601; empty for now."""


class Cursors(Protocol):
    """Remembers how far somebody has come in a log. It lasts."""

    def cursor(self, name: str) -> int:
        """The last number that is dealt with; 0 at first."""

    def move_cursor(self, name: str, number: int) -> None:
        """From here on `cursor` gives this number. It is durable when this returns, and never goes back."""


class EventLog(Cursors, Protocol):
    """A durable, append-only log of events. Thread-safe.

    A row is shown only once no row of a smaller number can appear any more; a database that numbers rows
    before they are committed must see to that.
    """

    @property
    def id(self) -> str:
        """Which log this is: another log, or one that was begun anew, has another id."""

    def after(self, number: int, limit: int) -> Sequence[Row]:
        """At most `limit` rows with greater numbers, in order."""

    def last(self) -> int:
        """The greatest number of a row that is shown; 0 where there is none."""


class Publisher(ABC):
    """Tells events. Thread-safe; who tells never waits for those who listen."""

    name: str
    session: str
    endpoint: str
    dropped: int = 0
    """Events of `publish` that are known not to have been sent."""

    @abstractmethod
    def publish(self, kind: str, /, **fields: Any) -> None:
        """Tells an event; at once, or not at all. It never blocks.

        Raises UsageError where a field is missing that its kind must have, or JSON has no form for one.
        """

    @abstractmethod
    def relay(self, log: str, rows: Sequence[Row], timeout: float) -> int:
        """Tells rows of a log, in order, and waits until they are delivered, `timeout` seconds at most.

        Returns the number of the last row up to which all are delivered; 0 where not even the first is.
        Raises UsageError where the first row cannot be told at all.
        """

    @abstractmethod
    def told(self, log: str, number: int) -> None:
        """Everything of a log up to this number was told before, by us or by another."""

    def went_back(self, log: str, number: int) -> None:
        """A log was restored from a copy: behind this number come other events under numbers that were told
        before."""
        del log, number  # whoever looks at the time of an event as well knows them apart

    @abstractmethod
    def ready(self, timeout: float) -> bool:
        """Whether somebody takes what is told: a listener, or a broker. Waits so many seconds at most."""

    @abstractmethod
    def close(self) -> None:
        """Ends it; what was told leaves, if that takes not long. Twice is once."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Subscriber(ABC):
    """Hears events. It belongs to one thread.

    An event is given again after a restart until `done` was called for it, where the subscriber has a group
    (Kafka) or cursors (ZeroMQ); repeats that can be recognised are left out.
    """

    missed: int = 0
    """Events that are known to be lost."""
    malformed: int = 0
    """Messages that were no events; they are dead letters."""
    repeated: int = 0
    """Events that came again and were left out."""

    def __init__(self, dead: DeadLetters | None) -> None:
        self._dead = dead

    @abstractmethod
    def events(self, timeout: float | None = None) -> Iterator[Event]:
        """Events as they come; ends after `timeout` seconds without one (None: never)."""

    @abstractmethod
    def done(self, event: Event) -> None:
        """The event is dealt with, and what came of it is safe: it need not be given again."""

    def refuse(self, event: Event, reason: str) -> None:
        """The event cannot be dealt with: it becomes a dead letter, and is done."""
        if self._set_aside(encode(event), reason, event.publisher):
            self.done(event)

    @abstractmethod
    def close(self) -> None:
        """Ends it. Twice is once."""

    def _set_aside(self, body: bytes, reason: str, source: str) -> bool:
        """A message that is of no use to us; one of them never ends anything.

        False where it should have been kept and could not be.
        """
        self.malformed += 1
        if self.malformed <= 10 or self.malformed % 1000 == 0:
            _log.warning("from %s: %s", source, reason)
        if self._dead is not None:
            try:
                self._dead.put(body, reason, source)
            except StorageError as error:
                _log.error("%s", error)
                return False
        return True

    def __iter__(self) -> Iterator[Event]:
        return self.events()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_publisher(
    url: str, *, name: str = "", log: EventLog | None = None, alive: float = 5.0, options: str = ""
) -> Publisher:
    """Who tells events at `url`.

    Parameters
    ----------
    url
        `tcp://HOST:PORT` or `ipc://PATH`, where ZeroMQ binds; or `kafka://HOST:PORT[,HOST:PORT]/PREFIX`.
    name
        Who tells; by default the host's name and the process.
    log
        What `relay` tells stands in this log, so that listeners can ask for what they missed (ZeroMQ).
    alive
        Seconds between messages that say what was last (ZeroMQ).
    options
        File of mode 0600 with security options of Kafka.

    Raises
    ------
    UsageError
        The URL is none.
    StorageError
        The endpoint cannot be had.
    MissingExtraError
        Kafka is not installed.
    """
    if _is_kafka(url):
        from raftwright.events.kafka_publisher import KafkaPublisher

        return KafkaPublisher(url, name=name, options=options)
    from raftwright.events.publisher import ZmqPublisher

    return ZmqPublisher(url, name=name, log=log, alive=alive)


def open_subscriber(
    *urls: str,
    kinds: Iterable[str] | None = None,
    group: str = "",
    cursors: Cursors | None = None,
    dead: DeadLetters | None = None,
    options: str = "",
) -> Subscriber:
    """Who hears events of `urls`.

    Parameters
    ----------
    urls
        Endpoints of ZeroMQ publishers, which need not be there yet; or one `kafka://...`.
    kinds
        Only these; all by default.
    group
        Name of those who share the work (Kafka), or under which the cursor stands (ZeroMQ). Without, one
        hears what is told from now on, and nothing is remembered.
    cursors
        Where ZeroMQ subscribers of a group remember how far they are.
    dead
        Where messages go that cannot be read; by default they are only counted, and told in the log.
    options
        File of mode 0600 with security options of Kafka.

    Raises
    ------
    UsageError
        A URL is none, or they are of both transports.
    MissingExtraError
        Kafka is not installed.
    """
    wanted = None if kinds is None else frozenset(kinds)
    if any(_is_kafka(url) for url in urls):
        if len(urls) > 1:
            raise UsageError("a subscriber hears one kafka:// URL, or several of ZeroMQ; open one for each")
        from raftwright.events.kafka_subscriber import KafkaSubscriber

        return KafkaSubscriber(urls[0], kinds=wanted, group=group, dead=dead, options=options)
    from raftwright.events.subscriber import ZmqSubscriber

    return ZmqSubscriber(*urls, kinds=wanted, group=group, cursors=cursors, dead=dead)


def _is_kafka(url: str) -> bool:
    return url.startswith("kafka:")
