"""The thread that talks to the brokers for a subscriber: it fetches, stops fetching, and commits."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from raftwright.errors import UsageError
from raftwright.events.progress import Progress

__all__ = ["Feed", "Message"]

_log = logging.getLogger("raftwright.events")

_MOST_MESSAGES: Final = 2000
_MOST_BYTES: Final = 16 << 20
"""What waits for the caller; then nothing more is fetched."""
_COMMIT_EVERY: Final = 0.2
_CLOSING: Final = 10.0


class Message(NamedTuple):
    """A message as it came."""

    place: tuple[str, int, int]
    """Which assignment, partition, offset."""
    kind: str
    """As its header says; empty where it has none."""
    body: bytes


@dataclass
class _Partition:
    assignment: str
    progress: Progress = field(default_factory=Progress)
    committed: int = -1
    """The offset that the brokers know, or are being told."""


class Feed:
    """Messages of a topic. `take` and `done` belong to the caller's thread, everything else to its own.

    Parameters
    ----------
    kafka
        The library.
    settings
        Of librdkafka.
    grouped
        Whether the work is shared and remembered; else it begins at the end.
    lost
        Called, with a lock held, with the number of each partition that goes to somebody else.
    """

    def __init__(
        self,
        kafka: Any,
        settings: dict[str, Any],
        topic: str,
        *,
        grouped: bool,
        lost: Callable[[int], None],
    ) -> None:
        self.topic = topic
        self.closed = False
        self._kafka = kafka
        self._grouped = grouped
        self._lost = lost
        self._settings = {**settings, "error_cb": self._on_error, "on_commit": self._on_commit}
        self._lock = threading.RLock()
        self._filled = threading.Condition(self._lock)
        self._messages: deque[Message] = deque()
        self._bytes = 0
        self._partitions: dict[int, _Partition] = {}
        self._numbers = itertools.count(1)
        self._paused = False
        self._broken = False
        self._closing = threading.Event()
        self._consumer = self._new_consumer()
        self._thread = threading.Thread(target=self._run, name="events-kafka-feed", daemon=True)
        self._thread.start()

    # -- the caller's side

    def take(self, timeout: float) -> Message | None:
        """The next message; None where none comes within `timeout` seconds."""
        with self._filled:
            if not self._messages and not self.closed:
                self._filled.wait(timeout)
            if not self._messages:
                return None
            message = self._messages.popleft()
            self._bytes -= len(message.body)
            return message

    def done(self, assignment: str, partition: int, offset: int) -> None:
        """What stood there is dealt with. Nothing happens where the partition is somebody else's by now."""
        with self._lock:
            found = self._partitions.get(partition)
            if found is not None and found.assignment == assignment:
                found.progress.done(offset)

    def holds(self, assignment: str, partition: int) -> bool:
        """Whether the partition is still ours, by the same assignment."""
        with self._lock:
            found = self._partitions.get(partition)
            return found is not None and found.assignment == assignment

    def close(self) -> None:
        """Commits what is done, and ends; ten seconds at most. Twice is once."""
        self._closing.set()
        self._thread.join(_CLOSING)
        with self._lock:
            self.closed = True
            self._filled.notify_all()

    # -- its own thread

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                if self._broken:
                    self._renew()
                self._begin()
                while not self._closing.is_set() and not self._broken:
                    self._fetch()
                    self._commit(_COMMIT_EVERY)
            except Exception as error:  # whoever listens would wait for nothing for ever
                known = isinstance(error, self._kafka.KafkaException)
                said = error.args[0] if known else error
                _log.warning("Kafka: %s; trying again", said, exc_info=None if known else error)
                self._broken = True
                self._closing.wait(1.0)
        with contextlib.suppress(self._kafka.KafkaException, RuntimeError):
            self._commit(0.0, wait=True)
        with contextlib.suppress(self._kafka.KafkaException, RuntimeError):
            self._consumer.close()
        with self._lock:
            self.closed = True
            self._filled.notify_all()

    def _new_consumer(self) -> Any:
        try:
            return self._kafka.Consumer(self._settings, logger=_log)
        except self._kafka.KafkaException as error:
            raise UsageError(
                f"Kafka refuses its settings ({error.args[0].code()}); look at its options"
            ) from None

    def _renew(self) -> None:
        with contextlib.suppress(self._kafka.KafkaException, RuntimeError):
            self._consumer.close()
        with self._lock:
            self._take_away(list(self._partitions))
            self._broken = False
        self._consumer = self._new_consumer()

    def _begin(self) -> None:
        if self._grouped:
            self._consumer.subscribe(
                [self.topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
            return
        while not self._closing.is_set():
            ends = self._ends()
            if ends:
                self._consumer.assign(ends)
                self._add(ends)
                return
            self._closing.wait(0.2)

    def _ends(self) -> list[Any]:
        """Where each partition ends now; empty where nobody knows yet."""
        try:
            found = self._consumer.list_topics(self.topic, timeout=1.0).topics[self.topic]
            if found.error is not None:
                return []
            where = [self._kafka.TopicPartition(self.topic, number) for number in found.partitions]
            for place in where:
                place.offset = self._consumer.get_watermark_offsets(place, timeout=1.0)[1]
        except (self._kafka.KafkaException, KeyError):
            return []
        return where

    def _fetch(self) -> None:
        with self._lock:
            full = len(self._messages) >= _MOST_MESSAGES or self._bytes >= _MOST_BYTES
            here = [self._kafka.TopicPartition(self.topic, number) for number in self._partitions]
        if full != self._paused and here:
            (self._consumer.pause if full else self._consumer.resume)(here)
            self._paused = full
        # While it is full nothing comes, but the brokers see that we are alive.
        first = self._consumer.poll(0.05 if full else _COMMIT_EVERY)
        if first is None:
            return
        with self._filled:
            for raw in (first, *self._consumer.consume(500, 0)):
                self._enter(raw)
            self._filled.notify_all()

    def _enter(self, raw: Any) -> None:
        problem = raw.error()
        if problem is not None:
            self._on_error(problem)
            return
        found = self._partitions.get(raw.partition())
        if found is None:
            return
        body = raw.value() or b""
        if self._grouped:  # else nobody has to say that it is done
            found.progress.given(raw.offset())
            found.progress.reached(raw.offset())
        self._messages.append(Message((found.assignment, raw.partition(), raw.offset()), _kind(raw), body))
        self._bytes += len(body)

    _last_commit = 0.0

    def _commit(self, every: float, *, wait: bool = False) -> None:
        now = time.monotonic()
        if not self._grouped or now - self._last_commit < every:
            return
        self._last_commit = now
        with self._lock:
            news = []
            for number, partition in self._partitions.items():
                low = partition.progress.low
                if low > partition.committed:
                    news.append(self._kafka.TopicPartition(self.topic, number, low + 1))
                    partition.committed = low
        if news:
            self._consumer.commit(offsets=news, asynchronous=not wait)

    # -- what librdkafka tells, from within poll

    def _add(self, places: list[Any]) -> None:
        with self._lock:
            for place in places:
                self._partitions[place.partition] = _Partition(str(next(self._numbers)), Progress(-1))
            self._paused = False

    def _take_away(self, numbers: list[int]) -> None:
        for number in numbers:
            gone = self._partitions.pop(number, None)
            if gone is not None:
                kept = [message for message in self._messages if message.place[1] != number]
                self._bytes = sum(len(message.body) for message in kept)
                self._messages = deque(kept)
                self._lost(number)

    def _on_assign(self, consumer: Any, places: list[Any]) -> None:
        del consumer
        self._add(places)

    def _on_revoke(self, consumer: Any, places: list[Any]) -> None:
        del consumer
        with contextlib.suppress(self._kafka.KafkaException):
            self._commit(0.0, wait=True)
        self._on_lost(None, places)

    def _on_lost(self, consumer: Any, places: list[Any]) -> None:
        del consumer
        with self._lock:
            self._take_away([place.partition for place in places])

    def _on_commit(self, error: Any, places: list[Any]) -> None:
        with self._lock:
            for place in places:
                problem = error or place.error
                found = self._partitions.get(place.partition)
                if problem is not None and found is not None:
                    found.committed = -1  # it is told again
                    _log.warning("Kafka: offset %d is not committed: %s", place.offset, problem)

    def _on_error(self, error: Any) -> None:
        if error.fatal():
            self._broken = True
        if error.code() != self._kafka.KafkaError.UNKNOWN_TOPIC_OR_PART:  # it comes with the first event
            _log.warning("Kafka: %s", error)


def _kind(raw: Any) -> str:
    for name, value in raw.headers() or ():
        if name == "kind" and isinstance(value, bytes):
            with contextlib.suppress(UnicodeDecodeError):
                return str(value, "ascii")
    return ""
