"""Follows topics with `transfer-done` messages, and keeps those that nothing can be done with."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from raftwright.backbone.receiving.transfers import Arrivals, dead_letters_of, feeds
from raftwright.errors import FormatError, NotFoundError, RaftwrightError, StorageError
from raftwright.events.deadletters import DeadLetters

if TYPE_CHECKING:
    from raftwright.backbone.receiving.register import Register
    from raftwright.backbone.receiving.settings import Settings
    from raftwright.metrics import Metrics
    from raftwright.service import Task

__all__ = ["Follower"]

_log = logging.getLogger("raftwright.endpoint")

_PAUSE: Final = 1.0


class Follower:
    """One task a topic. A message is done once its file is in the register, or it is a dead letter."""

    def __init__(
        self,
        settings: Settings,
        register: Register,
        metrics: Metrics,
        *,
        name: str,
        md5: bool,
        entered: Callable[[], None],
    ) -> None:
        assert settings.transfers is not None
        self._settings = settings.transfers
        self._arrivals = Arrivals(self._settings, register, [each.label for each in settings.ingest], md5=md5)
        self.letters = DeadLetters(dead_letters_of(register.storage))
        self._metrics = metrics
        self._entered = entered
        self._feeds = feeds(self._settings, name)

    @property
    def topics(self) -> list[str]:
        """Those that are followed."""
        return list(self._feeds)

    def follow(self, topic: str) -> Callable[[Task], None]:
        """The function of a task."""

        def follow(task: Task) -> None:
            feed = self._feeds[topic]
            while not task.stopping.is_set():
                message = feed.take(0.5)
                if message is None:
                    if feed.closed:
                        return
                    continue
                if self._deal_with(topic, message.body, f"{topic} {message.place[1:]}", task):
                    feed.done(*message.place)
                task.beat()

        return follow

    def _deal_with(self, topic: str, body: bytes, source: str, task: Task) -> bool:
        """Whether it need not come again."""
        tries = 0
        while not task.stopping.is_set():
            try:
                self._count(topic, self._arrivals.take(topic, body))
                self._entered()
                return True
            except NotFoundError as error:
                tries += 1
                if tries >= self._settings.tries:
                    return self._set_aside(topic, body, str(error), source)
            except FormatError as error:
                return self._set_aside(topic, body, str(error), source)
            except StorageError as error:
                _log.error("%s: %s", topic, error)
            except Exception as error:  # nothing in a message may stop those behind it
                _log.error("%s: %s: %s", topic, type(error).__name__, error, exc_info=error)
                return self._set_aside(topic, body, f"{type(error).__name__}: {error}", source)
            task.wait(_PAUSE)
        return False

    def _set_aside(self, topic: str, body: bytes, reason: str, source: str) -> bool:
        try:
            self.letters.put(body, reason, source)
        except StorageError as error:
            _log.error("%s", error)
            return False
        self._count(topic, "dead")
        _log.error("%s: %s; kept in %s", source, reason, self.letters.directory)
        return True

    def _count(self, topic: str, outcome: str) -> None:
        self._metrics.counter("transfers", "Messages of Rucio", topic=topic, outcome=outcome).add(1)

    def replay(self) -> dict[str, int]:
        """Goes through the dead letters once more; those that can be dealt with now are gone."""
        counts = {"entered": 0, "left": 0}
        for name in self.letters.names():
            try:
                letter = self.letters.read(name)
                self._arrivals.take(letter.source.partition(" ")[0], letter.body)
            except RaftwrightError:
                counts["left"] += 1
            else:
                self.letters.remove(name)
                counts["entered"] += 1
        self._entered()
        return counts

    def problems(self) -> list[str]:
        """Dead letters."""
        try:
            names = self.letters.names()
            last = self.letters.read(names[-1]).reason if names else ""
        except RaftwrightError as error:
            return [str(error)]
        return [f"{len(names)} messages of transfers are dead letters, the last: {last}"] if names else []

    def close(self) -> None:
        """Ends the feeds."""
        for feed in self._feeds.values():
            feed.close()
