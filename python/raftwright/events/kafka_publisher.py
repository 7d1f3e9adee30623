"""Telling events over Kafka: every message confirmed by all replicas, and never a wait for those who tell."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from raftwright.errors import UsageError
from raftwright.events.interface import Publisher, Row
from raftwright.events.kafka import common_settings, library, parse
from raftwright.events.message import Event, encode, prepared, stamp
from raftwright.events.schema import MESSAGES, schema_of

__all__ = ["KafkaPublisher"]

_log = logging.getLogger("raftwright.events")

_QUEUE_MESSAGES: Final = 50_000
_QUEUE_KBYTES: Final = 64 << 10
"""What waits while the brokers are away; more is not taken."""
_CLOSING: Final = 5.0


class KafkaPublisher(Publisher):
    """Publishes to the topic `PREFIX.events`. Thread-safe.

    Messages of an image go to one partition, and so stay in order. What is published while the brokers are
    away waits in memory, 64 MiB at most; what must not be lost goes through an `Outbox`.

    Parameters
    ----------
    url
        `kafka://HOST:PORT[,HOST:PORT]/PREFIX`.
    name
        Who tells; by default the host's name and the process.
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
        self, url: str, *, name: str = "", options: str = "", tuning: Mapping[str, Any] | None = None
    ) -> None:
        self.name = (name or f"{socket.gethostname()}:{os.getpid()}")[:200]
        self.session = secrets.token_hex(8)
        self.endpoint = url
        self.delivered = 0
        """Messages that the brokers confirmed."""
        self.refused = 0
        """Messages that they will never take."""
        place = parse(url)
        self._kafka = library()
        self._topic = place.topic
        self._settings: dict[str, Any] = {
            **common_settings(place, options, self.name),
            "acks": "all",
            "enable.idempotence": True,
            "message.timeout.ms": 0,  # it waits until it is delivered; the queue is what is bounded
            "queue.buffering.max.messages": _QUEUE_MESSAGES,
            "queue.buffering.max.kbytes": _QUEUE_KBYTES,
            "linger.ms": 5,
            "partitioner": "murmur2_random",
            "error_cb": self._on_error,
            **(tuning or {}),
        }
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._sequences: Counter[str] = Counter()
        self._number = 0
        self._relayed: dict[tuple[str, int], bool] = {}  # whether it is delivered
        self._broken = False
        self._closing = threading.Event()
        self._producer = self._new_producer()
        self._thread = threading.Thread(target=self._work, name="events-kafka", daemon=True)
        self._thread.start()

    def publish(self, kind: str, /, **fields: Any) -> None:
        told = prepared(kind, fields)
        with self._lock:
            body = self._encoded(kind, told, self.session, self._number + 1, stamp())
            self._sequences[kind] += 1
            self._number += 1
            if not self._send(kind, told, body, self._on_hint):
                self.dropped += 1

    def relay(self, log: str, rows: Sequence[Row], timeout: float) -> int:
        end = time.monotonic() + timeout
        numbers: list[int] = []
        with self._lock:
            for row in rows:
                if (log, row.number) not in self._relayed:
                    try:
                        told = prepared(row.kind, row.fields)
                        body = self._encoded(row.kind, told, log, row.number, row.time or stamp())
                    except UsageError:
                        if not numbers:
                            raise
                        break
                    if not self._send(row.kind, told, body, self._on_row((log, row.number))):
                        break
                    self._sequences[row.kind] += 1
                    self._relayed[log, row.number] = False
                numbers.append(row.number)
            while not self._closing.is_set():
                sent = [number for number in numbers if (log, number) in self._relayed]
                if len(sent) < len(numbers) or all(self._relayed[log, number] for number in sent):
                    break
                left = end - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            reached = 0
            for number in numbers:
                if not self._relayed.get((log, number)):
                    break
                del self._relayed[log, number]
                reached = number
        return reached

    def told(self, log: str, number: int) -> None:
        """The topic has it."""

    def ready(self, timeout: float) -> bool:
        try:
            return bool(self._producer.list_topics(timeout=timeout).brokers)
        except self._kafka.KafkaException:
            return False

    def close(self) -> None:
        with self._lock:
            if self._closing.is_set():
                return
            self._closing.set()
            self._changed.notify_all()
        self._thread.join(_CLOSING)
        left = self._producer.flush(_CLOSING)
        if left:
            self._producer.purge()
            self._producer.flush(1.0)

    # -- its own thread

    def _work(self) -> None:
        while not self._closing.is_set():
            try:
                self._producer.poll(0.5)
                if self._broken:
                    self._renew()
            except Exception as error:  # who waits for a delivery would never hear of it
                _log.warning("Kafka: %s; trying again", error, exc_info=error)
                self._closing.wait(1.0)

    def _renew(self) -> None:
        """After a fatal error a producer does nothing any more; another takes its place."""
        with self._lock:
            old, self._producer = self._producer, self._new_producer()
            self._broken = False
        old.purge()
        old.flush(1.0)  # tells of what it held

    def _new_producer(self) -> Any:
        try:
            return self._kafka.Producer(self._settings, logger=_log)
        except self._kafka.KafkaException as error:
            raise UsageError(
                f"Kafka refuses its settings ({error.args[0].code()}); look at its options"
            ) from None

    # -- sending, with the lock held

    def _encoded(self, kind: str, fields: dict[str, Any], log: str, number: int, time: str) -> bytes:
        return encode(
            Event(
                kind=kind,
                schema=schema_of(kind),
                sequence=self._sequences[kind] + 1,
                session=self.session,
                publisher=self.name,
                log=log,
                number=number,
                time=time,
                fields=fields,
            )
        )

    def _send(
        self, kind: str, fields: Mapping[str, Any], body: bytes, told: Callable[[Any, Any], None]
    ) -> bool:
        if self._closing.is_set():
            return False
        with contextlib.suppress(BufferError, self._kafka.KafkaException):
            self._producer.produce(
                self._topic, body, _key(kind, fields), headers={"kind": kind}, on_delivery=told
            )
            return True
        return False

    # -- what librdkafka tells, in its own time

    def _on_hint(self, error: Any, message: Any) -> None:
        del message
        with self._lock:
            if error is None:
                self.delivered += 1
            else:
                self.dropped += 1

    def _on_row(self, key: tuple[str, int]) -> Callable[[Any, Any], None]:
        def told(error: Any, message: Any) -> None:
            del message
            with self._lock:
                if error is None:
                    self.delivered += 1
                    self._relayed[key] = True
                else:
                    self.refused += 1
                    self._relayed.pop(key, None)
                    _log.warning("an event was not delivered and is sent again: %s", error)
                self._changed.notify_all()

        return told

    def _on_error(self, error: Any) -> None:
        if error.fatal():
            self._broken = True
        _log.warning("Kafka: %s", error)


def _key(kind: str, fields: Mapping[str, Any]) -> str:
    """What decides the partition: the image, where it is about one."""
    known = MESSAGES.get(kind)
    name = known.IMAGE_FIELD if known is not None else "obsid"
    found = fields.get(name) or fields.get("groupId") or fields.get("instrument") or kind
    return str(found)[:200]
