"""Notifications of object stores: over Kafka, or by a webhook. Whatever says that one was dealt with, an
offset or an answer, does so after the ledger has it. What is none becomes a dead letter, and the next one
follows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from raftwright.errors import FormatError, RaftwrightError, UsageError
from raftwright.events.deadletters import DeadLetters
from raftwright.events.notifications import StoredObject, parse
from raftwright.oods.arrivals import Arrivals, Arrived, is_raw_name
from raftwright.rawfile.names import FileName

if TYPE_CHECKING:
    from raftwright.events.kafka_feed import Message
    from raftwright.ledger import Ledger
    from raftwright.metrics import Metrics
    from raftwright.oods.inputs import Notifications
    from raftwright.service import Task

__all__ = ["Intake", "Topic"]

_log = logging.getLogger("raftwright.oods")

_MOST: Final = 500
"""Messages that are taken in one commit."""
_PAUSE: Final = 1.0


class Intake:
    """Takes bodies of notifications, from any thread. `refused` is told (path, reason) of objects with the
    name of a raw that are none."""

    def __init__(
        self,
        settings: Notifications,
        ledger: Ledger,
        arrivals: Arrivals,
        dead: DeadLetters,
        refused: Callable[[str, str], None],
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._arrivals = arrivals
        self._refused = refused
        self.dead = dead
        self._objects = metrics.counter("notified", "Objects that stores told of")
        self._ignored = metrics.counter("notifications_ignored", "Records of no file that is ingested here")
        self._bad = metrics.counter("notifications_refused", "Messages and records that became dead letters")

    def take(self, bodies: Sequence[tuple[bytes, str]]) -> int:
        """Deals with messages (body, where it came from); how many files are new. Raises StorageError, and
        then all may be given again."""
        files: dict[str, Arrived] = {}
        letters: list[tuple[bytes, str, str]] = []
        ignored = 0
        for body, source in bodies:
            try:
                said = parse(body, secret=self._settings.secret)
            except FormatError as error:
                letters.append((body, str(error), source))
                continue
            letters += [(refused.body, refused.reason, source) for refused in said.refused]
            ignored += said.ignored
            for thing in said.objects:
                file = self._file(thing)
                if file is None:
                    ignored += 1
                else:
                    files[file.path] = file
        good = [file for file in files.values() if not self._changed(file)]
        new = self._arrivals.take(good)
        for letter in letters:
            self.dead.put(*letter)
        self._objects.add(len(files))
        self._ignored.add(ignored)
        self._bad.add(len(letters))
        return new

    def _file(self, thing: StoredObject) -> Arrived | None:
        """The raw that an object is; None where it is another. Raises StorageError."""
        wanted = self._settings
        if (wanted.buckets and thing.bucket not in wanted.buckets) or not is_raw_name(thing.key):
            return None
        bucket = f"{wanted.profile}@{thing.bucket}" if wanted.profile else thing.bucket
        path = f"s3://{bucket}/{quote(thing.key)}"
        try:
            if ".." in thing.key.split("/"):
                raise FormatError("its key has a part `..`")
            FileName.parse(thing.key)
        except FormatError as error:
            self._set_aside(path, str(error))
            return None
        return Arrived(path=path, bytes=thing.size)

    def _changed(self, file: Arrived) -> bool:
        refusal = self._arrivals.changed(file.path, file.bytes)
        if refusal:
            self._set_aside(file.path, refusal)
        return bool(refusal)

    def _set_aside(self, path: str, reason: str) -> None:
        if self._ledger.quarantine.put("object", path, reason):
            _log.warning("%s: is not taken: %s", path, reason)
            self._refused(path, reason)


class Topic:
    """A task that reads them from a topic of Kafka."""

    def __init__(self, settings: Notifications, intake: Intake, name: str) -> None:
        self._settings = settings
        self._intake = intake
        self._name = name
        self.trouble = ""

    def read(self, task: Task, active: Callable[[], bool]) -> None:
        """Until the task is to stop. Only who is at work reads: what he has not done, the next one gets."""
        while not task.stopping.is_set():
            if active():
                self._read(task, active)
            task.beat()
            task.wait(0.2)

    def _read(self, task: Task, active: Callable[[], bool]) -> None:
        from raftwright.events.kafka import Place, common_settings, library
        from raftwright.events.kafka_feed import Feed

        wanted = self._settings
        topic = wanted.topic or ""
        settings = {
            **common_settings(Place(wanted.brokers, topic), wanted.options, self._name),
            "group.id": wanted.group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "queued.max.messages.kbytes": 16 << 10,
        }
        feed = Feed(library(), settings, topic, grouped=True, lost=lambda _: None)
        try:
            while not task.stopping.is_set() and active():
                messages = self._next(feed.take)
                task.beat()
                if messages and not self._deal(task, messages, topic):
                    return
                for message in messages:
                    feed.done(*message.place)
        finally:
            feed.close()

    @staticmethod
    def _next(take: Callable[[float], Message | None]) -> list[Message]:
        """What is there now, or comes in a moment."""
        messages: list[Message] = []
        wait = 0.5
        while len(messages) < _MOST and (message := take(wait)) is not None:
            messages.append(message)
            wait = 0.0
        return messages

    def _deal(self, task: Task, messages: Sequence[Message], topic: str) -> bool:
        """Until they are written down; False where it is to stop before that, and they come again."""
        bodies = [(message.body, f"{topic}/{message.place[1]}/{message.place[2]}") for message in messages]
        while True:
            try:
                self._intake.take(bodies)
            except RaftwrightError as error:
                if not self.trouble:
                    _log.error("notifications wait: %s", error)
                self.trouble = f"notifications wait: {error}"
            else:
                self.trouble = ""
                return True
            task.beat()
            if task.wait(_PAUSE):
                return False


def dead_letters(settings: Notifications, repository: str) -> DeadLetters:
    """Where they go. Raises UsageError where that is no absolute path."""
    where = Path(settings.dead_letters or Path(repository).absolute() / "dead-letters")
    if not where.is_absolute():
        raise UsageError(f"{str(where)[:200]!a}: oods.notifications.dead_letters has to be an absolute path")
    return DeadLetters(where)
