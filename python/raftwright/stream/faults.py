"""Faults on purpose: what may happen on a network and to a server, by chance but from a seed."""

from __future__ import annotations

import random
import re
import threading
from collections import Counter
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

from raftwright.errors import UsageError

__all__ = ["Fault", "Faults", "Kind", "Rule"]

Kind: TypeAlias = Literal[
    "drop",
    "duplicate",
    "reorder",
    "corrupt",
    "delay",
    "stall",
    "cut",
    "wrong-length",
    "garbage",
    "die",
    "lose-notice",
]

_TIMED: Final = {"delay": 0.2, "stall": 3.0}
_RULE = re.compile(r"\A([a-z-]+)=([0-9.]+(?:[eE]-?[0-9]+)?)(?::([0-9.]+)(ms|s|min)?)?\Z")
_UNITS: Final = {None: 1.0, "s": 1.0, "ms": 1e-3, "min": 60.0}
_LONGEST: Final = 3600.0


class Rule(NamedTuple):
    """How often a fault happens."""

    kind: Kind
    chance: float
    """0 to 1, for each chunk (for `lose-notice`: each notice)."""
    seconds: float = 0.0
    """Of a delay or a stall."""


class Fault(NamedTuple):
    """One that happens now."""

    kind: Kind
    seconds: float
    number: int
    """64 random bits, for what else there is to choose."""


class Faults:
    """A plan of faults. Decisions come from the seed alone, in the order in which they are asked for.

    drop, duplicate, reorder
        A chunk is not sent; sent twice; sent after the one that follows it.
    corrupt, wrong-length, garbage
        A byte of it is changed; some bytes at its end are missing; a message of noise is sent before it.
    delay, stall
        The pull waits before it, saying that it is alive; without a word.
    cut
        The connection of everybody at this data socket is cut, and their pulls are forgotten.
    die
        The process ends at once.
    lose-notice
        A notice is not sent.
    """

    def __init__(self, rules: tuple[Rule, ...] = (), seed: int = 0) -> None:
        """Raises UsageError for chances that are none, or of more than 1 together."""
        self.rules = rules
        self.seed = seed
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        for rule in rules:
            if not 0.0 <= rule.chance <= 1.0 or not 0.0 <= rule.seconds <= _LONGEST:
                raise UsageError(
                    f"fault {rule.kind}: chance {rule.chance:g}, {rule.seconds:g} s; give 0 to 1, up to 3600"
                )
        self._chunk_rules = [rule for rule in rules if rule.kind != "lose-notice" and rule.chance > 0]
        self._notice_chance = max((rule.chance for rule in rules if rule.kind == "lose-notice"), default=0.0)
        if sum(rule.chance for rule in self._chunk_rules) > 1.0:
            raise UsageError("the chances of all faults are more than 1 together; lower them")

    @classmethod
    def parse(cls, text: str, seed: int = 0) -> Faults:
        """From `drop=0.01,delay=0.01:200ms,die=0.0001`. Raises UsageError."""
        rules: dict[str, Rule] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            match = _RULE.match(part)
            kind: Kind | None = next((k for k in get_args(Kind) if match and k == match[1]), None)
            if match is None or kind is None:
                raise UsageError(
                    f"fault {ascii(part)[:60]}: write KIND=CHANCE or KIND=CHANCE:SECONDS; there are "
                    + ", ".join(get_args(Kind))
                )
            if kind in rules:
                raise UsageError(f"fault {kind} is given twice; give it once")
            if match[3] is not None and kind not in _TIMED:
                raise UsageError(f"fault {kind} takes no time; write {kind}=CHANCE")
            try:
                seconds = _TIMED.get(kind, 0.0) if match[3] is None else float(match[3]) * _UNITS[match[4]]
                rules[kind] = Rule(kind, float(match[2]), seconds)
            except ValueError:
                raise UsageError(f"fault {ascii(part)[:60]}: that is no number") from None
        return cls(tuple(rules.values()), seed)

    def __str__(self) -> str:
        return ",".join(
            f"{rule.kind}={rule.chance:g}" + (f":{rule.seconds:g}s" if rule.kind in _TIMED else "")
            for rule in self.rules
        )

    def chooser(self, stream: str) -> Chooser:
        """Decisions of their own for one thread; the same seed and name give the same."""
        return Chooser(self, random.Random(f"{self.seed}/{stream}"))

    def count(self, kind: Kind) -> None:
        """One was done."""
        with self._lock:
            self._counts[kind] += 1

    def counts(self) -> dict[str, int]:
        """How many of each kind were done."""
        with self._lock:
            return dict(self._counts)


class Chooser:
    """The decisions of one thread."""

    def __init__(self, faults: Faults, chance: random.Random) -> None:
        self.faults = faults
        self._chance = chance

    def chunk(self) -> Fault | None:
        """What happens to the next chunk."""
        left = self._chance.random()
        number = self._chance.getrandbits(64)
        for rule in self.faults._chunk_rules:
            left -= rule.chance
            if left < 0:
                return Fault(rule.kind, rule.seconds, number)
        return None

    def loses_notice(self) -> bool:
        """Whether the next notice is not sent."""
        if self._chance.random() >= self.faults._notice_chance:
            return False
        self.faults.count("lose-notice")
        return True
