"""What a listener makes of the messages of one publisher: what is new, what is missing, what to ask for.

It has no sockets. Messages go in, events come out, and `question` says what is to be asked. While something
that was missed is fetched, what comes after it is held back, so that events come in the order of the log.
"""

from __future__ import annotations

import itertools
from collections import Counter, OrderedDict, deque
from typing import Any, Final

from raftwright.events.message import MISSED, Event
from raftwright.events.positions import Log, Positions
from raftwright.events.replay import UNKNOWN_LOG, Answer, Question

__all__ = ["Following"]

_MOST_HELD: Final = 4096
_MOST_TRIES: Final = 3


class Following:
    """One start of a publisher, as heard by one listener.

    Parameters
    ----------
    first
        Any message of it.
    kinds
        The kinds that are listened to; None for all.
    """

    def __init__(self, first: Event, kinds: frozenset[str] | None, positions: Positions) -> None:
        self.session = first.session
        self.publisher = first.publisher
        self.replay = ""
        """Where questions go; empty where nobody answers."""
        self.question: Question | None = None
        """To be asked, or asked and not answered."""
        self.repeated = 0
        """Events that came again."""
        self._kinds = kinds
        self._positions = positions
        self._logs: dict[str, None] = {self.session: None}
        self._last: dict[str, int] = {}
        self._greeted = False
        self._pending: Counter[str] = Counter()  # what is missing, by kind
        self._recovered: Counter[str] = Counter()  # what came by answers and was not heard
        self._doubt = False  # not all that was told stands in the logs that we asked for
        self._unknown = False  # something is missing, and nobody knows how much
        self._late = False  # something more was missing while we asked
        self._asking: deque[str] = deque()
        self._through: dict[str, int] = {}
        self._held: OrderedDict[tuple[str, int], Event] = OrderedDict()
        self._nameless = itertools.count(1)
        self._let_go: dict[str, int] = {}  # log -> last number that was held and let go of
        self._number = 0
        self._tries = 0

    # -- what came

    def event(self, event: Event) -> list[Event]:
        """An event came; what the caller gets."""
        if event.log:
            self._logs.setdefault(event.log)
        key = (event.log, event.number)
        known = key in self._held or (bool(event.log) and self._log(event.log).has(event.number))
        gap, news = self._gap(event)
        self._pending[event.kind] += gap
        self._late |= gap > 0
        if known:
            self.repeated += 1
            self._recovered[event.kind] -= news and key not in self._held
            if self.question is not None or not gap:
                return []
        elif not news:  # it is late, and was taken for lost
            self._pending[event.kind] = max(0, self._pending[event.kind] - 1)
        if self.question is not None:
            self._hold(event)
            return []
        if not gap:
            return self._new([event])
        if self._ask():
            self._hold(event)
            return []
        return [*self._given_up(), *self._new([event])]

    def alive(self, event: Event) -> list[Event]:
        """The publisher said what was last; what the caller gets."""
        sequences, logs = event.fields.get("sequences"), event.fields.get("logs")
        if not isinstance(sequences, dict):
            return []
        before = self._pending.total()
        self._compare(sequences)
        self._late |= self._pending.total() > before
        logs = logs if isinstance(logs, dict) else {}
        numbers = {log: number if isinstance(number, int) else None for log, number in logs.items()}
        self._logs.update(dict.fromkeys(numbers))
        out: list[Event] = []
        if not self._greeted:
            self._greeted = True
            out = self._went_back(event.fields.get("restored"))
            for log, number in numbers.items():
                known = self._log(log)
                behind = known.position is not None and (number is None or number > known.position)
                known.owed |= known.durable and behind
        if self.question is not None:
            return out
        if +self._pending or any(self._log(log).owed for log in self._logs):
            return out if self._ask() else [*out, *self._given_up()]
        for log, number in numbers.items():
            if number is not None:
                self._log(log).verified(number)
        return out

    def _went_back(self, restored: object) -> list[Event]:
        """Logs that were restored from copies: behind these numbers come other events than before."""
        out: list[Event] = []
        for log, number in restored.items() if isinstance(restored, dict) else ():
            known = self._log(log)
            if isinstance(number, int) and number >= 0 and (known.position or 0) > number:
                known.begin_again(number)
                out += self._missed("", 0)
        return out

    def answer(self, answer: Answer, events: list[Event]) -> list[Event]:
        """An answer came; what the caller gets."""
        question = self.question
        if question is None or answer.id != question.id:
            return []
        log = self._log(question.log)
        if answer.error == UNKNOWN_LOG:
            log.owed = False
            self._doubt = True
            return self._answered()
        if answer.error or answer.log != question.log:
            return self.failed()
        if answer.last < question.after:
            log.begin_again(answer.last)
            self._next(question.log, answer.last)
            return self._missed("", 0)
        self._tries = 0
        self._unknown |= answer.lost
        self._doubt |= answer.lost
        wanted = [
            event
            for event in sorted(events, key=lambda event: event.number)
            if event.log == question.log and (self._kinds is None or event.kind in self._kinds)
        ]
        out = self._new(wanted)
        self._recovered.update(event.kind for event in out if (event.log, event.number) not in self._held)
        if answer.more and answer.through > question.after:
            self._next(question.log, answer.through)
            return out
        self._through[question.log] = answer.through
        log.owed = False
        return [*out, *self._answered()]

    def failed(self) -> list[Event]:
        """The question was not answered; what the caller gets."""
        self._tries += 1
        for log in self._asking:
            self._log(log).owed |= self._log(log).durable
        self.question = None
        out = [] if self._tries < _MOST_TRIES else self._given_up()  # the next `alive` makes us ask again
        return [*out, *self._release()]

    def begun_anew(self) -> list[Event]:
        """The publisher was another one before: what it told last may be missing."""
        return self._missed("", 0)

    def over(self) -> list[Event]:
        """Nothing will come of this one any more; what the caller gets."""
        self.question = None
        return [*self._given_up(), *self._release()]

    # -- asking

    def _ask(self) -> bool:
        """Begins to ask for what is missing, in every log; False where nobody would answer."""
        if not self.replay:
            return False
        self._asking = deque(log for log in self._logs if self._log(log).base is not None)
        if not self._asking:
            return False
        self._doubt = len(self._asking) < len(self._logs)
        self._recovered.clear()
        self._through.clear()
        self._let_go.clear()
        self._late = False
        self._begin(self._asking[0])
        return True

    def _begin(self, log: str) -> None:
        self._next(log, self._log(log).base or 0)

    def _next(self, log: str, after: int) -> None:
        self._number += 1
        kinds = None if self._kinds is None else sorted(self._kinds)
        self.question = Question(id=self._number, log=log, after=after, kinds=kinds)

    def _hold(self, event: Event) -> None:
        self._held[(event.log, event.number) if event.log else ("", next(self._nameless))] = event
        if len(self._held) > _MOST_HELD:  # it stands in its log, behind what is asked for now
            _, gone = self._held.popitem(last=False)
            self._pending[gone.kind] += 1
            self._let_go[gone.log] = max(self._let_go.get(gone.log, 0), gone.number)

    def _answered(self) -> list[Event]:
        """All is known of one log; there may be another."""
        self._asking.popleft()
        if self._asking:
            self._begin(self._asking[0])
            return []
        self.question = None
        for log, number in self._through.items():
            self._log(log).verified(number)
        self._pending -= self._recovered
        self._late |= any(number > self._through.get(log, number) for log, number in self._let_go.items())
        if self._late and self._ask():
            return []
        if not self._doubt:
            self._pending.clear()  # what is still counted is told twice, or told by another start before
        return [*self._given_up(), *self._release()]

    def _release(self) -> list[Event]:
        """What was held back, but for what came by the answer."""
        out = self._new(list(self._held.values()))
        self._held.clear()
        return out

    def _given_up(self) -> list[Event]:
        """What is missing now will not come."""
        out = [event for kind, count in (+self._pending).items() for event in self._missed(kind, count)]
        if not out and (self._unknown or any(self._log(log).owed for log in self._logs)):
            out = self._missed("", 0)
        self._pending.clear()
        self._unknown = False
        self._tries = 0
        for log in self._logs:
            self._log(log).owed = False
        return out

    # -- counting

    def _log(self, log: str) -> Log:
        return self._positions.of(log, self.session)

    def _new(self, events: list[Event]) -> list[Event]:
        return [event for event in events if not event.log or self._log(event.log).take(event.number)]

    def _gap(self, event: Event) -> tuple[int, bool]:
        """How many events of this kind did not come before it; whether it is later than all before."""
        if not event.sequence:
            return 0, False
        before = self._last.get(event.kind)
        if before is None:
            before = 0 if self._greeted else event.sequence - 1
        self._last[event.kind] = max(before, event.sequence)
        return max(0, event.sequence - before - 1), event.sequence > before

    def _compare(self, sequences: dict[str, Any]) -> None:
        """`alive` tells the last sequence of each kind: the end of a series may be lost too."""
        for kind, sequence in sequences.items():
            if not isinstance(sequence, int) or (self._kinds is not None and kind not in self._kinds):
                continue
            before = self._last.get(kind, 0 if self._greeted else sequence)
            self._pending[kind] += max(0, sequence - before)
            self._last[kind] = max(sequence, before)

    def _missed(self, kind: str, count: int) -> list[Event]:
        return [
            Event(
                kind=MISSED,
                sequence=0,
                session=self.session,
                publisher=self.publisher,
                time="",
                fields={"of": kind, "count": count, "publisher": self.publisher},
            )
        ]
