"""Verdicts of the audit, in the words of the observatory's own tools, and what they rest on."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

__all__ = ["FINE", "Finding", "ImageAudit", "Verdict", "What"]


class Verdict(StrEnum):
    """What an image is found to be; the first that applies, the worst one first."""

    NOT_ANNOUNCED = "NOT ANNOUNCED"
    """Its files or the DAQ have it, the ledger does not."""
    NONE_SENT = "NONE SENT"
    """The ledger expects detectors, and no raw file is there."""
    SOME_MISSING = "SOME MISSING"
    """Fewer raw files or sidecars than detectors, or with gaps."""
    DAMAGED = "DAMAGED"
    """A file has another size or other sums than the ledger says."""
    IMPOSSIBLE = "IMPOSSIBLE"
    """The ledger says what files and its own rows deny."""
    NONE_DELIVERED = "NONE DELIVERED"
    """A destination has nothing of it."""
    NOT_DELIVERED = "NOT DELIVERED"
    """A destination lacks some of it."""
    MORE_FOUND = "MORE FOUND"
    """There are files that the ledger does not know, or that nobody finished."""
    WAITING = "WAITING"
    """Work on it goes on."""
    NOT_TAKEN = "NOT TAKEN"
    """Nobody knows of this number: it was not used."""
    OK = "OK"


FINE: Final = frozenset({Verdict.OK, Verdict.NOT_TAKEN, Verdict.WAITING})
"""Verdicts about which nothing is to be done."""


class What(StrEnum):
    """Kinds of findings; `repair` knows what helps against each."""

    GONE = "gone"
    """A file of the ledger is not on the disk."""
    SIZE = "size"
    SUM = "sum"
    BACK = "back"
    """What the ledger calls lost or damaged is there and whole."""
    UNKNOWN = "unknown"
    """A file is on the disk that the ledger does not have."""
    TEMPORARY = "temporary"
    """Left by somebody who died."""
    ASIDE = "aside"
    """A conflict or a damaged file that was kept beside."""
    STRANGE = "strange"
    """A name that is none of ours."""
    NO_SIDECAR = "no sidecar"
    DETECTOR = "detector"
    """Pixels that are not there, or not all."""
    SOURCE = "source"
    """A source that did not come; the reason says why."""
    STATE = "state"
    """The state of the image is not what its rows say."""
    UNDELIVERED = "undelivered"
    """It has been in the queue of a destination for too long."""
    GIVEN_UP = "given up"
    TAKEN = "taken"
    """Another content has its name at the destination."""
    LIES = "lies"
    """A destination was said to have it, and has not, or something else."""
    REPLICA = "replica"
    """A replica that the ledger itself says is damaged or lost."""
    CONTAINER = "container"
    """There is none of the image, or it has not all of its files as they are."""
    UNPLANNED = "unplanned"
    """A destination that should get it was never asked to."""
    NO_ROW = "no row"
    """The image itself is not in the ledger."""
    DAQ = "daq"
    """What the DAQ says about it."""
    UNREADABLE = "unreadable"
    """It could not be looked at."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be."""

    what: What
    subject: str
    """A path, a detector, a location."""
    reason: str
    destination: str = ""
    row: int = 0
    """Number of the delivery."""

    def __str__(self) -> str:
        place = f"{self.destination}: " if self.destination else ""
        return f"{place}{self.subject}: {self.reason}" if self.subject else f"{place}{self.reason}"


@dataclass(slots=True)
class ImageAudit:
    """An image and what was found."""

    obsid: str
    dayobs: int
    verdict: Verdict = Verdict.OK
    image_id: int = 0
    daq_id: str = ""
    state: str = ""
    expected: int = 0
    """Detectors."""
    found: int = 0
    """Detectors with a whole raw file on the disk."""
    delivered: dict[str, tuple[int, int]] = field(default_factory=dict)
    """For each destination: files there, and files that should be."""
    directory: str = ""
    findings: list[Finding] = field(default_factory=list)

    def add(self, what: What, subject: str, reason: str, destination: str = "", row: int = 0) -> None:
        """Remembers a finding."""
        self.findings.append(Finding(what, subject, reason, destination, row))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "image": self.obsid,
            "dayobs": self.dayobs,
            "verdict": self.verdict.value,
            "state": self.state,
            "expected": self.expected,
            "found": self.found,
            "delivered": {name: {"there": n, "of": of} for name, (n, of) in self.delivered.items()},
            "findings": [
                {
                    "what": one.what.value,
                    "subject": one.subject,
                    "reason": one.reason,
                    **({"destination": one.destination} if one.destination else {}),
                }
                for one in self.findings
            ],
        }
