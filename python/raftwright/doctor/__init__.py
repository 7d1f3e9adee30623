"""Whether a machine is fit to take images: what was found, what is wanted, and what changes it.

    for finding in examine(Wishes(out=(Path("/data/raw"),))): ...

Nothing is changed here; a few small files are written into the output directories and removed again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator

from raftwright.doctor.finding import Finding, Wishes

__all__ = ["Finding", "Wishes", "examine"]

_LONGEST = 30.0
"""Seconds that one check may take: a dead network disk answers never."""

_Check = Callable[[Wishes], Iterable[Finding]]


def examine(wishes: Wishes) -> Iterator[Finding]:
    """The findings, check by check. A check that fails or does not end is a finding itself."""
    from raftwright.doctor import disk, host, memory, network

    for topic, check in (*host.CHECKS, *memory.CHECKS, *disk.CHECKS, *network.CHECKS):
        yield from _bounded(topic, check, wishes)


def _bounded(topic: str, check: _Check, wishes: Wishes) -> list[Finding]:
    found: list[Finding] = []
    done = threading.Event()

    def run() -> None:
        try:
            found.extend(check(wishes))
        except Exception as error:
            found.append(
                Finding(
                    topic, "warn", f"could not be looked at ({type(error).__name__}: {error})", "an answer"
                )
            )
        done.set()

    threading.Thread(target=run, name=f"doctor: {topic}", daemon=True).start()
    if done.wait(_LONGEST):
        return found
    said = f"no answer within {_LONGEST:g} s"
    return [
        *found,
        Finding(topic, "fail", said, "an answer at once", "look at the disks and mounts: dmesg | tail"),
    ]
