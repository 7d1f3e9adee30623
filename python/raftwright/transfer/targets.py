"""Names at a place: which are taken, and which a sender makes for itself."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Final

from raftwright.transfer.outcome import RefusedError

if TYPE_CHECKING:
    from raftwright.transfer.outcome import Job

__all__ = ["ASIDE", "HIDDEN", "aside", "check_text", "checked", "is_ours", "partial"]

HIDDEN: Final = ".raftwright-"
"""Begins the name of what is not ready."""
ASIDE: Final = (".conflict", ".damaged")
"""Folders of what was set aside, right below the root."""

_LONGEST: Final = 255
_LONGEST_TARGET: Final = 4000


def checked(target: str) -> tuple[str, ...]:
    """The parts of a target. Raises RefusedError for what is none."""
    parts = tuple(target.split("/"))
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise RefusedError(f"{ascii(target)[:300]}: is no relative name below the root; it is not sent")
    if is_ours(parts):
        raise RefusedError(
            f"{ascii(target)[:300]}: such names are made by raftwright for itself; call it otherwise"
        )
    if any(len(os.fsencode(part)) > _LONGEST for part in parts) or len(os.fsencode(target)) > _LONGEST_TARGET:
        raise RefusedError(
            f"{ascii(target)[:300]}: is too long; a part of a name has at most {_LONGEST} bytes"
        )
    return parts


def check_text(target: str, without: str = "") -> None:
    """Raises RefusedError for a name that is no text, has characters that no document can carry, or one of
    those that it is to be without."""
    shown = ascii(target)[:300]
    try:
        target.encode()
    except UnicodeEncodeError:
        raise RefusedError(f"{shown}: is no UTF-8, which names are there; call it otherwise") from None
    if any(letter in without or ord(letter) < 0x20 or ord(letter) == 0x7F for letter in target):
        odd = f", or one of {without}" if without else ""
        raise RefusedError(
            f"{shown}: has control characters{odd}, which are not safe there; call it otherwise"
        )


def is_ours(parts: tuple[str, ...]) -> bool:
    """Whether a name is none of a file that was sent: not ready yet, or set aside."""
    return parts[0] in ASIDE or any(part.startswith(HIDDEN) for part in parts)


def partial(job: Job) -> str:
    """Name of what a try left that was cut: of this content, for this target, and of nothing else."""
    text = f"{job.target}\0{job.crc32c}\0{job.bytes}"
    return f"{HIDDEN}{hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}.part"


def aside(parts: tuple[str, ...], why: str, number: int) -> tuple[str, ...]:
    """Where a file is set aside for the so-manieth time."""
    *folders, name = parts
    ending = f".{number}"
    encoded = os.fsencode(name)
    if len(encoded) + len(ending) > _LONGEST:
        known = hashlib.sha256(encoded).hexdigest()[:16]
        name = f"{os.fsdecode(encoded[:180])}-{known}"
    return (f".{why}", *folders, name + ending)
