"""States of everything that the ledger keeps, and the edges between them. No other step is ever written.

Each table says for a state where it may go; a state may always stay what it is. `check` refuses the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from raftwright.errors import UsageError

__all__ = [
    "EDGES",
    "DeliveryState",
    "DetectorState",
    "HeaderState",
    "ImageState",
    "IngestState",
    "ReplicaState",
    "SourceState",
    "Thing",
    "check",
    "sources_of",
]

Thing: TypeAlias = Literal["image", "source", "detector", "header", "delivery", "replica", "ingest"]

ImageState: TypeAlias = Literal["announced", "capturing", "complete", "incomplete", "lost"]
"""`announced`: the DAQ has it. `capturing`: work on it has begun. `complete`: every expected detector is
there with every pixel, and its sums hold. `incomplete`: something is missing, the reasons say what, and it is
worked on. `lost`: what is missing cannot be had any more; if it can after all, it goes on."""

SourceState: TypeAlias = Literal[
    "expected", "claimed", "open", "done", "incomplete", "conflict", "failed", "gone"
]
"""`expected`: nobody has begun it. `claimed`: somebody works on it. `open`: nobody does and somebody should.
`done`: every pixel is in its files. `incomplete`: its files are there with gaps, it waits for repair.
`conflict`: another content has its names; both are kept. `failed`: there are no files; the reason says why,
and it is tried again. `gone`: the DAQ no longer has it; what came is in the files."""

DetectorState: TypeAlias = Literal["expected", "present", "incomplete", "missing"]
"""`expected`: no file yet. `present`: a file with every pixel. `incomplete`: a file with gaps. `missing`:
there will be none, or what was there is not there any more."""

HeaderState: TypeAlias = Literal["expected", "missing", "partial", "complete"]
"""Of an image. `missing`: files were written without one. `partial`: mandatory keywords are missing."""

DeliveryState: TypeAlias = Literal["queued", "sending", "delivered", "failed", "conflict"]
"""`failed`: given up after the last try, until somebody asks for it again. `conflict`: the destination has
another content under the name; it is left as it is."""

ReplicaState: TypeAlias = Literal["verified", "damaged", "lost", "removed"]
"""`verified`: it was read there and is what it should be. `damaged`: its sums do not hold there. `lost`: it
is not there any more. `removed`: it was taken away on purpose."""

IngestState: TypeAlias = Literal[
    "queued",
    "ingesting",
    "waiting",
    "ingested",
    "failed",
    "conflict",
    "unsupported",
    "leaving",
    "removed",
]
"""`waiting`: for the exposure that it belongs to. `failed`: given up after the last try, until somebody asks
for it again. `conflict`: the repository has it with another content. `unsupported`: nothing that it can be
ingested as. `leaving`: it is being removed, and may be half there. `removed`: it is not there any more."""

EDGES: Final[Mapping[str, Mapping[str, frozenset[str]]]] = {
    "image": {
        "announced": frozenset({"capturing", "complete", "incomplete", "lost"}),
        "capturing": frozenset({"complete", "incomplete", "lost"}),
        "incomplete": frozenset({"capturing", "complete", "lost"}),
        # The audit found that a file of it is not there any more, or a repaired file came.
        "complete": frozenset({"incomplete"}),
        "lost": frozenset({"capturing", "incomplete", "complete"}),
    },
    "source": {
        "expected": frozenset({"claimed"}),
        "claimed": frozenset({"open", "done", "incomplete", "conflict", "failed", "gone"}),
        "open": frozenset({"claimed"}),
        "incomplete": frozenset({"claimed", "open"}),
        "failed": frozenset({"claimed", "open"}),
        "gone": frozenset({"claimed", "open"}),
        # Only when somebody asks for it: a file of it was lost or damaged.
        "done": frozenset({"open"}),
        "conflict": frozenset({"open"}),
    },
    "detector": {
        "expected": frozenset({"present", "incomplete", "missing"}),
        "incomplete": frozenset({"present", "missing"}),
        "missing": frozenset({"present", "incomplete"}),
        "present": frozenset({"missing"}),
    },
    "header": {
        "expected": frozenset({"missing", "partial", "complete"}),
        "missing": frozenset({"partial", "complete"}),
        "partial": frozenset({"complete"}),
        "complete": frozenset(),
    },
    "delivery": {
        "queued": frozenset({"sending"}),
        "sending": frozenset({"queued", "delivered", "failed", "conflict"}),
        # The audit found that it is not where it was said to be, or an operator asked for it again.
        "delivered": frozenset({"queued"}),
        "failed": frozenset({"queued"}),
        "conflict": frozenset({"queued"}),
    },
    "replica": {
        "verified": frozenset({"damaged", "lost", "removed"}),
        "damaged": frozenset({"verified", "lost", "removed"}),
        "lost": frozenset({"verified", "damaged", "removed"}),
        # Somebody wants it there after all.
        "removed": frozenset({"verified"}),
    },
    "ingest": {
        "queued": frozenset({"ingesting"}),
        "ingesting": frozenset({"queued", "waiting", "ingested", "failed", "conflict", "unsupported"}),
        "waiting": frozenset({"queued", "failed"}),
        # The audit found that the repository has it not, or an operator asked for it again.
        "ingested": frozenset({"leaving", "queued"}),
        "failed": frozenset({"queued"}),
        "conflict": frozenset({"queued"}),
        "unsupported": frozenset({"queued"}),
        "leaving": frozenset({"removed", "ingested"}),
        "removed": frozenset({"queued"}),
    },
}
"""For each thing: where each state may go."""


def check(thing: Thing, old: str, new: str, what: str = "") -> None:
    """Raises UsageError for a step that there is not."""
    edges = EDGES[thing]
    if old not in edges or new not in edges:
        unknown = old if old not in edges else new
        raise UsageError(f"{what or thing}: {unknown!a} is no state; there are {', '.join(edges)}")
    if new != old and new not in edges[old]:
        raise UsageError(
            f"{what or thing}: there is no step from {old} to {new}; from there it goes to "
            f"{', '.join(sorted(edges[old])) or 'nowhere'}"
        )


def sources_of(thing: Thing, new: str) -> tuple[str, ...]:
    """The states that lead to a state, itself included: for the WHERE of an UPDATE."""
    return tuple(old for old, steps in EDGES[thing].items() if new in steps or old == new)
