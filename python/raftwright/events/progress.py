"""How far somebody has come: what was given and is not yet done, and what came before."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from typing import Final

from raftwright.events.message import Event

__all__ = ["MOST_OPEN", "Progress", "Repeats"]

MOST_OPEN: Final = 100_000
"""Events that may be given and not done, before that is taken for a mistake of the program."""


class Progress:
    """Numbers that were given and are not done. Up to `low` everything is done.

    Numbers are given in any order; one that is not above `low` is left out.
    """

    def __init__(self, low: int = 0) -> None:
        self._open: set[int] = set()
        self._heap: list[int] = []
        self._top = low
        """Everything up to here was given, or is none of ours."""

    @property
    def low(self) -> int:
        """Everything up to this number is done."""
        while self._heap and self._heap[0] not in self._open:
            heapq.heappop(self._heap)
        return self._heap[0] - 1 if self._heap else self._top

    def __len__(self) -> int:
        return len(self._open)

    def given(self, number: int) -> None:
        """It is in somebody's hands."""
        if number not in self._open:
            self._open.add(number)
            heapq.heappush(self._heap, number)

    def done(self, number: int) -> bool:
        """It is dealt with; False where it was not given, or done before."""
        if number not in self._open:
            return False
        self._open.remove(number)
        return True

    def reached(self, number: int) -> None:
        """Nothing up to this number will be given any more."""
        self._top = max(self._top, number)


class Repeats:
    """Recognises an event that came before, among the last ones that did."""

    def __init__(self, most: int = 1 << 16) -> None:
        self._most = most
        self._seen: OrderedDict[tuple[str, int, str, str], None] = OrderedDict()

    def seen(self, event: Event) -> bool:
        """Whether it came before; from here on it did.

        The time is looked at as well: a log that was restored from a copy gives its numbers out again.
        """
        if not event.number:
            return False
        key = (event.log, event.number, event.kind, event.time)
        if key in self._seen:
            return True
        self._seen[key] = None
        if len(self._seen) > self._most:
            self._seen.popitem(last=False)
        return False

    def forget(self, event: Event) -> None:
        """It was not dealt with, and is to be given again when it comes again."""
        self._seen.pop((event.log, event.number, event.kind, event.time), None)
