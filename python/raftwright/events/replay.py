"""Events told again over ZeroMQ, to who asks: from a publisher's memory, or from the log that it relays.

A question is one frame, JSON (`Question`). The answer is a frame of JSON (`Answer`) and one frame an event,
in the form in which events are published. One answer has at most 500 events and a bit more than 1 MiB.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from itertools import takewhile
from typing import Annotated, Any, Final, NamedTuple, TypeAlias

import msgspec
from msgspec import Meta

from raftwright.errors import FormatError, UsageError
from raftwright.events.interface import EventLog, Row

__all__ = ["MOST_EVENTS", "UNKNOWN_LOG", "Answer", "Question", "Recent", "Replay", "read_answer"]

_log = logging.getLogger("raftwright.events")

FORMAT: Final = "raftwright-replay/1"
UNKNOWN_LOG: Final = "unknown-log"
MOST_EVENTS: Final = 500
_MOST_BYTES: Final = 1 << 20
MEMORY: Final = 4 << 20
"""Bytes of events that a publisher remembers."""

_Name: TypeAlias = Annotated[str, Meta(max_length=200)]
_Number: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What came after a number."""

    format: str = FORMAT
    id: _Number
    """Comes back with the answer."""
    log: _Name
    after: _Number
    kinds: Annotated[list[_Name], Meta(max_length=256)] | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What goes before the events."""

    id: _Number
    log: _Name = ""
    through: _Number = 0
    """Up to here the log was looked at."""
    last: _Number = 0
    """The last number that the log has."""
    more: bool = False
    """There is more behind `through`."""
    lost: bool = False
    """Some of what was asked for is no longer there."""
    error: Annotated[str, Meta(max_length=500)] = ""
    """`unknown-log`, or `storage`: then it can be asked again."""


_questions = msgspec.json.Decoder(Question)
_answers = msgspec.json.Decoder(Answer)


class _Kept(NamedTuple):
    number: int
    kind: str
    body: bytes


class Recent:
    """The last events of a publisher, in memory; the oldest go. It has no lock of its own."""

    def __init__(self, limit: int = MEMORY) -> None:
        self._limit = limit
        self._bytes = 0
        self._kept: deque[_Kept] = deque()
        self.last = 0

    def add(self, number: int, kind: str, body: bytes) -> None:
        """Numbers grow by one."""
        self.last = number
        self._kept.append(_Kept(number, kind, body))
        self._bytes += len(body)
        while self._bytes > self._limit:
            self._bytes -= len(self._kept.popleft().body)

    def after(self, number: int, limit: int) -> tuple[list[_Kept], bool]:
        """At most `limit` of them with greater numbers, and whether there were more that are gone."""
        first = self._kept[0].number if self._kept else self.last + 1
        newer = list(takewhile(lambda kept: kept.number > number, reversed(self._kept)))
        return newer[::-1][:limit], number + 1 < first and number < self.last


class Replay:
    """Answers questions.

    Parameters
    ----------
    session
        The publisher's own log, which is `recent`.
    recent
        Reads that log: a number and a limit to events and whether some are gone.
    log
        The durable log, if there is one.
    encoded
        Makes a message of a row; raises UsageError where there is none.
    """

    def __init__(
        self,
        session: str,
        recent: Callable[[int, int], tuple[list[_Kept], bool, int]],
        log: EventLog | None,
        encoded: Callable[[str, Row], bytes],
    ) -> None:
        self._session = session
        self._recent = recent
        self._log = log
        self._encoded = encoded

    def answer(self, frame: bytes) -> list[bytes]:
        """The frames of the answer. Raises FormatError where it is no question."""
        try:
            question = _questions.decode(frame)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise FormatError(f"no question: {error}") from None
        if question.format != FORMAT:
            raise FormatError(f"a question of format {question.format[:64]!a}; this answers {FORMAT}")
        if question.log == self._session:
            kept, lost, last = self._recent(question.after, MOST_EVENTS)
        elif self._log is not None and question.log == self._log.id:
            try:
                kept, lost, last = self._durable(question.after)
            except Exception as error:  # the log is somebody else's code; who asks tries again
                _log.warning("the log of events cannot be read: %s", error)
                return [_told(Answer(id=question.id, error="storage"))]
        else:
            return [_told(Answer(id=question.id, error=UNKNOWN_LOG))]
        events: list[bytes] = []
        through, size = question.after, 0
        for number, kind, body in kept:
            if size > _MOST_BYTES:
                break
            through = number
            if body and (question.kinds is None or kind in question.kinds):
                events.append(body)
                size += len(body)
        more = through < last and bool(kept)
        head = Answer(id=question.id, log=question.log, through=through, last=last, more=more, lost=lost)
        return [_told(head), *events]

    def _durable(self, after: int) -> tuple[list[_Kept], bool, int]:
        assert self._log is not None
        last = self._log.last()
        kept: list[_Kept] = []
        for row in self._log.after(after, MOST_EVENTS):
            try:
                body = self._encoded(self._log.id, row)
            except UsageError:
                body = b""  # it was never told; the outbox set it aside
            kept.append(_Kept(row.number, row.kind, body))
        return kept, False, max(last, kept[-1].number if kept else 0)


def _told(answer: Any) -> bytes:
    return msgspec.json.encode(answer)


def read_answer(frames: list[bytes]) -> tuple[Answer, list[bytes]]:
    """Raises FormatError."""
    if not frames or len(frames) > MOST_EVENTS + 1:
        raise FormatError(f"an answer of {len(frames)} frames")
    try:
        return _answers.decode(frames[0]), frames[1:]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"no answer: {error}") from None
