"""What is to be done, in which order, and how much of it fits into memory."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Iterable
from typing import Any

from raftwright.capture.work import Work
from raftwright.ledger.claims import UnitKey

__all__ = ["Schedule"]

_BACKLOG_SHARE = 0.5
"""Of the memory, for what is not live."""

_MOST_OLD = 256
"""Units in hand that are not live: those who share the work are to find some, however small they are."""


class Schedule:
    """Units that wait: live ones first, in order of their announcement, then the oldest. Thread-safe.

    Every unit that is taken reserves what it may need in the worst case, so that memory is bounded whatever
    stalls: when nothing fits, nothing is taken. While live units are in hand, one other at a time is.
    """

    def __init__(self, memory: int, credit: int, backlog_share: float = _BACKLOG_SHARE) -> None:
        self._memory = memory
        self._credit = credit
        self._backlog_share = backlog_share
        self._changed = threading.Condition()
        self._live: list[tuple[int, Work]] = []
        self._backlog: list[tuple[tuple[Any, ...], int, Work]] = []
        self._waiting: dict[UnitKey, Work] = {}
        self._in_hand: dict[UnitKey, Work] = {}
        self._used = 0
        self._used_by_backlog = 0
        self._order = itertools.count()
        self._nudged = False

    def offer(self, works: Iterable[Work]) -> int:
        """Units that should be done, but for those that wait or are in hand already. How many are new."""
        new = 0
        with self._changed:
            for work in works:
                known = self._waiting.get(work.key)
                if work.key in self._in_hand or (known is not None and (known.live or not work.live)):
                    continue
                self._waiting[work.key] = work
                if work.live:
                    heapq.heappush(self._live, (next(self._order), work))
                else:
                    heapq.heappush(self._backlog, ((*work.order, *work.age), next(self._order), work))
                new += 1
            if new:
                self._changed.notify_all()
        return new

    def drop(self, image: str) -> None:
        """Forgets what waits of an image."""
        with self._changed:
            for key in [key for key in self._waiting if key.image == image]:
                del self._waiting[key]

    def take(self, most: int) -> list[Work]:
        """Up to so many units that fit, with memory reserved."""
        taken: list[Work] = []
        with self._changed:
            while len(taken) < most and (work := self._next()) is not None:
                taken.append(work)
        return taken

    def _next(self) -> Work | None:
        while self._live:
            work = self._live[0][1]
            if self._waiting.get(work.key) is not work:
                heapq.heappop(self._live)  # dropped, or taken by another way
                continue
            if not self._reserve(work):
                return None  # live goes first: nothing else takes its room
            heapq.heappop(self._live)
            return work
        while self._backlog:
            work = self._backlog[0][2]
            if self._waiting.get(work.key) is not work:
                heapq.heappop(self._backlog)
                continue
            if not self._reserve(work):
                return None
            heapq.heappop(self._backlog)
            return work
        return None

    def _reserve(self, work: Work) -> bool:
        need = work.worst_case(self._credit)
        alone = not self._in_hand
        if self._used + need > self._memory:
            return False
        if not work.live:
            live = any(other.live for other in self._in_hand.values())
            others = sum(1 for other in self._in_hand.values() if not other.live)
            if (live and others) or others >= _MOST_OLD:
                return False
            if not alone and self._used_by_backlog + need > self._backlog_share * self._memory:
                return False
            self._used_by_backlog += need
        self._used += need
        work.reserved = need
        del self._waiting[work.key]
        self._in_hand[work.key] = work
        return True

    def too_big(self) -> list[Work]:
        """Units that no memory of ours is enough for; they do not wait any longer."""
        with self._changed:
            found = [work for work in self._waiting.values() if work.worst_case(self._credit) > self._memory]
            for work in found:
                del self._waiting[work.key]
        return found

    def shrink(self, work: Work) -> None:
        """All of a unit has come: what it did not take of its reservation is free."""
        with self._changed:
            back = work.settle_memory()
            self._used -= back
            if not work.live:
                self._used_by_backlog -= back
            self._changed.notify_all()

    def release(self, work: Work) -> None:
        """A unit is no longer in hand."""
        with self._changed:
            if self._in_hand.pop(work.key, None) is None:
                return
            self._used -= work.reserved
            if not work.live:
                self._used_by_backlog -= work.reserved
            work.reserved = 0
            self._changed.notify_all()

    def wait(self, timeout: float) -> None:
        """Until something changed."""
        with self._changed:
            if not self._nudged:
                self._changed.wait(timeout)
            self._nudged = False

    def nudge(self) -> None:
        """Ends a wait."""
        with self._changed:
            self._nudged = True
            self._changed.notify_all()

    def waiting(self, image: str | None = None) -> int:
        """How many units wait, of one image or of all."""
        with self._changed:
            return sum(1 for key in self._waiting if image in (None, key.image))

    def in_hand(self, image: str | None = None) -> int:
        """How many are being worked on."""
        with self._changed:
            return sum(1 for key in self._in_hand if image in (None, key.image))

    def hands(self) -> list[UnitKey]:
        """Units that are being worked on."""
        with self._changed:
            return list(self._in_hand)

    @property
    def used(self) -> int:
        """Bytes that are reserved."""
        return self._used

    @property
    def memory(self) -> int:
        """Bytes there are."""
        return self._memory
