"""Notifications from a topic of Kafka. An offset is committed after the ledger has what was told."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from raftwright.errors import RaftwrightError
from raftwright.transfer.place import is_unencrypted

if TYPE_CHECKING:
    from raftwright.events.kafka_feed import Message
    from raftwright.oods.inputs import Notifications
    from raftwright.oods.notified import Intake
    from raftwright.service import Task

__all__ = ["Topic"]

_log = logging.getLogger("raftwright.oods")

_MOST: Final = 500
"""Messages that are taken in one commit."""
_PAUSE: Final = 1.0


class Topic:
    """A task that reads them from a topic of Kafka."""

    def __init__(self, settings: Notifications, intake: Intake, name: str) -> None:
        self._settings = settings
        self._intake = intake
        self._name = name
        self.trouble = ""
        self._warn()

    def _warn(self) -> None:
        from raftwright.events.kafka import read_options

        wanted = self._settings
        plain = "ssl" not in read_options(wanted.options).get("security.protocol", "plaintext").lower()
        far = any(is_unencrypted(f"http://{broker}") for broker in wanted.brokers.split(","))
        if plain and far and not wanted.insecure:
            _log.warning(
                "notifications come from %s unencrypted, and nobody knows from whom; give options with"
                " security.protocol, or say insecure: true",
                wanted.brokers,
            )

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
