"""What the command line says: text for people, one JSON object for machines, errors in one line.

Whatever is printed may contain names that came from files: control characters, line breaks and what turns the
reading direction are shown as escapes, so that no name can act on a terminal or forge a line.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TextIO

__all__ = ["Console", "clean", "columns", "console"]

_MOST: Final = 2000
"""No line is longer: a message about a 10 MB value must not be one of 10 MB."""


def clean(text: object, most: int = _MOST) -> str:
    """One line that cannot act on a terminal: everything that is not printable becomes an escape, and what is
    longer than `most` characters is cut in its middle."""
    line = str(text)
    if len(line) > most:
        line = f"{line[: most * 2 // 3]} [... {len(line)} characters ...] {line[-most // 4 :]}"
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)


def columns(rows: Sequence[Sequence[object]], right: Iterable[int] = ()) -> list[str]:
    """Rows as lines of aligned columns; those in `right` stand to the right."""
    cells = [[clean(cell, 200) for cell in row] for row in rows]
    if not cells:
        return []
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    to_right = frozenset(right)
    return [
        "  ".join(
            cell.rjust(width) if i in to_right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def _plain(value: Any) -> Any:
    """What JSON has no form for: paths and others as text, numbers that are not finite as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        return _plain(value.item())
    return str(value)


class Console:
    """Where a command prints. In JSON mode people's text is swallowed and the one object printed instead."""

    def __init__(self) -> None:
        self.json = False
        """Print one JSON object on the standard output and nothing else."""
        self.command = ""
        self._answered = False

    def begin(self, *, json: bool) -> None:
        """Starts afresh for one run of the program."""
        self.json = json
        self.command = ""
        self._answered = False
        for stream in (sys.stdout, sys.stderr):
            # A terminal that knows no "×" gets an escape rather than the user an exception.
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")

    def say(self, *lines: object) -> None:
        """Lines for people."""
        if not self.json:
            for line in lines:
                _write(sys.stdout, clean(line))

    def print(self, text: str) -> None:
        """Lines for people that were made by us, colours and all; nothing in them is escaped."""
        if not self.json:
            _write(sys.stdout, text)

    def note(self, text: object) -> None:
        """A remark on the standard error that is no error."""
        if not self.json:
            _write(sys.stderr, f"raftwright: note: {clean(text)}")

    def error(self, text: object) -> None:
        """The one line of an error."""
        _write(sys.stderr, f"raftwright: error: {clean(text)}")

    def answer(self, status: str, code: int, content: Mapping[str, Any]) -> None:
        """The one object of JSON mode; nothing for people."""
        if self.json and not self._answered:
            self._answered = True
            head = {"command": self.command, "status": status, "exit_code": int(code)}
            assert not head.keys() & content.keys()
            _write(sys.stdout, json.dumps(_plain({**head, **content}), indent=2, allow_nan=False))

    def event(self, what: str, content: Mapping[str, Any]) -> None:
        """In JSON mode of a command that runs on: one object in one line, brought out at once."""
        if self.json:
            _write(sys.stdout, json.dumps(_plain({"event": what, **content}), allow_nan=False))
            self.flush()

    @property
    def progress_wanted(self) -> bool:
        """Whether somebody looks at the standard error who can see a bar move."""
        return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def flush(self) -> None:
        """Brings everything out. Raises as `say`."""
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _no_output(error) from None


def _write(stream: TextIO, line: str) -> None:
    try:
        stream.write(line + "\n")
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _no_output(error) from None


def _no_output(error: OSError) -> OSError:
    return OSError(error.errno, error.strerror, "the standard output")


console = Console()
"""The one of this process."""
