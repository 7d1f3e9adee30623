"""Exit codes of the command line, and how an error becomes one of them and one line of text."""

from __future__ import annotations

import errno
import os
from enum import IntEnum
from typing import Final

from raftwright import errors

__all__ = ["INTERRUPTED", "PIPE_CLOSED", "Exit", "exit_code", "one_line"]


class Exit(IntEnum):
    """What the shell is told. Anything above 100 is 128 plus the signal that ended the program."""

    OK = 0
    """Done, and nothing to complain about."""
    ERROR = 1
    """It could not be done; the line on the standard error says why and what helps."""
    USAGE = 2
    """The command line itself is wrong."""
    INCOMPLETE = 3
    """Done, but pixels were missing: they were filled, counted and listed."""
    CONFLICT = 4
    """A name is taken by another content. What was there is untouched."""
    FAULTS = 5
    """`verify` or `camera check` looked and found faults."""


INTERRUPTED: Final = 130
"""Stopped by Ctrl-C."""

PIPE_CLOSED: Final = 141
"""Whoever read the output went away."""


def exit_code(error: BaseException) -> int:
    """The exit code for an error."""
    if isinstance(error, errors.UsageError):
        return Exit.USAGE
    if isinstance(error, errors.ConflictError):
        return Exit.CONFLICT
    if isinstance(error, errors.IncompleteError):
        return Exit.INCOMPLETE
    return Exit.ERROR


def one_line(error: BaseException) -> str:
    """The text of an error: the thing, the place, the remedy. Never a traceback."""
    if isinstance(error, OSError):
        return _system_text(error)
    if isinstance(error, errors.RaftwrightError):
        return _text_of(error) or type(error).__name__
    if isinstance(error, MemoryError):
        return "out of memory; ask for less at a time (fewer rafts, a larger --bin, fewer --threads)"
    said = _text_of(error)
    what = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return f"internal error, {what}; please report it with what --debug prints"


def _text_of(error: BaseException) -> str:
    """`str(error)`, but never the quotes that KeyError puts around its message."""
    if isinstance(error, LookupError) and len(error.args) == 1 and isinstance(error.args[0], str):
        return error.args[0]
    return str(error)


_REMEDIES: Final = {
    errno.ENOSPC: "free some space there or name another directory",
    errno.EDQUOT: "free some of the quota or name another directory",
    errno.EACCES: "choose another place or have the permissions changed",
    errno.EPERM: "choose another place or have the permissions changed",
    errno.EROFS: "name a directory elsewhere",
    errno.ENOENT: "look at the path again",
    errno.ENOTDIR: "a part of the path is not a directory; look at it again",
    errno.EISDIR: "name a file",
    errno.EEXIST: "move away what is there, or name another place",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f) or name another directory",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


def _system_text(error: OSError) -> str:
    """An error of the operating system, with a remedy where its text has none; never with "[Errno 28]"."""
    said = error.strerror or (str(error.args[-1]) if error.args else "the file system refused")
    if error.filename is not None:
        place = (
            os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else str(error.filename)
        )
        said = said if place in said else f"{place}: {said}"
    remedy = _REMEDIES.get(error.errno or 0)
    return f"{said}; {remedy}" if remedy is not None and ";" not in said else said
