"""The scorecard of a night: green, yellow, red."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["Colour", "Score", "colour_of", "score"]

ACCEPTABLE: Final = 0.01
"""Share of problems that is acceptable."""
A_LOT: Final = 0.02
"""Share that is a lot."""


class Colour(StrEnum):
    """How good a figure is."""

    GREEN = "green"
    YELLOW = "yellow"
    RED = "red"
    NONE = "none"
    """There was nothing to judge."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """A line of the scorecard: a share of problems."""

    name: str
    bad: float
    of: float
    unit: str
    """What is counted."""
    colour: Colour

    @property
    def share(self) -> float | None:
        """Of problems; None where nothing was counted."""
        return None if self.of <= 0 else self.bad / self.of


def colour_of(bad: float, of: float) -> Colour:
    """Green up to 1 % of problems, yellow up to 2 %, red above."""
    if of <= 0:
        return Colour.NONE
    share = bad / of
    if share > A_LOT:
        return Colour.RED
    return Colour.YELLOW if share > ACCEPTABLE else Colour.GREEN


def score(name: str, bad: float, of: float, unit: str) -> Score:
    """A line with its colour."""
    return Score(name=name, bad=bad, of=of, unit=unit, colour=colour_of(bad, of))


def worst(scores: list[Score]) -> Colour:
    """The colour of the night."""
    for colour in (Colour.RED, Colour.YELLOW, Colour.GREEN):
        if any(one.colour is colour for one in scores):
            return colour
    return Colour.NONE
