"""What is missing, as it was found last, and what becomes of it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from raftwright.catchup.comparing import Need

__all__ = ["Finding", "Findings", "totals"]

_MOST: Final = 10_000


@dataclass(frozen=True)
class Finding:
    """Something that an image lacks, and what becomes of it."""

    image: str
    location: str
    detectors: tuple[str, ...]
    why: str
    """missing, gaps, lost, damaged, no sidecar, not entered; `strange` for an image that cannot be taken."""
    action: str
    """`fetch`, `wait`, `never`."""
    reason: str
    bytes: int = 0

    @classmethod
    def of(cls, image: str, need: Need) -> Finding:
        """Of a source."""
        return cls(
            image=image,
            location=need.location,
            detectors=tuple(sorted(need.detectors)),
            why=", ".join(dict.fromkeys(lack.why for lack in need.lacks)) or "missing",
            action="fetch" if need.fetch else "never" if need.for_good else "wait",
            reason=need.reason,
            bytes=0 if need.source is None else need.source.bytes,
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "image": self.image,
            "location": self.location,
            "detectors": list(self.detectors),
            "why": self.why,
            "action": self.action,
            "reason": self.reason,
            "bytes": self.bytes,
        }


class Findings:
    """Thread-safe; the latest ten thousand of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: OrderedDict[str, tuple[Finding, ...]] = OrderedDict()
        self._strange: OrderedDict[str, str] = OrderedDict()

    def put(self, image: str, findings: Iterable[Finding]) -> None:
        """All that an image lacks now."""
        listed = tuple(findings)
        with self._lock:
            self._strange.pop(image, None)
            self._of.pop(image, None)
            if listed:
                self._of[image] = listed
            while len(self._of) > _MOST:
                self._of.popitem(last=False)

    def aside(self, image: str, why: str) -> bool:
        """An image that cannot be taken; whether that is news."""
        with self._lock:
            known = self._strange.get(image)
            self._strange[image] = why
            while len(self._strange) > _MOST:
                self._strange.popitem(last=False)
        return known != why

    def forget(self, image: str) -> None:
        """An image may be taken after all."""
        with self._lock:
            self._strange.pop(image, None)

    def __iter__(self) -> Any:
        with self._lock:
            found = [finding for listed in self._of.values() for finding in listed]
            found += [Finding(name, "", (), "strange", "never", why) for name, why in self._strange.items()]
        return iter(found)


def totals(findings: Iterable[Finding]) -> dict[str, int]:
    """How many detectors are to be fetched, wait, or cannot be had; what has none counts as one."""
    counts = {"fetch": 0, "wait": 0, "never": 0}
    for finding in findings:
        counts[finding.action] += max(1, len(finding.detectors))
    return counts
