"""Text with styles and aligned columns for commands that answer before rich would be loaded.

Widths fit a terminal of 100 columns. Everything that is not ours is cleaned: no name acts on a terminal.
"""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Final

from raftwright.cli.console import clean

__all__ = ["WIDTH", "Cell", "Lines", "style_of", "wrapped"]

WIDTH: Final = 100
_MOST: Final = 400

_STYLES: Final = {
    "bold": "1",
    "faint": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "bold red": "1;31",
}

_COLOURS: Final = {
    **dict.fromkeys(("complete", "present", "done", "delivered", "alive", "OK"), "green"),
    **dict.fromkeys(("incomplete", "failed", "conflict", "partial", "late", "SOME MISSING"), "yellow"),
    **dict.fromkeys(("lost", "missing", "gone", "problem"), "bold red"),
}

Cell = tuple[object, str]
"""A text and its style."""


def style_of(state: str) -> str:
    """The colour of a state."""
    return _COLOURS.get(state, "")


class Lines:
    """Lines that are put together and shown at once."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._colours = (
            sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and "NO_COLOR" not in os.environ
        )

    def add(self, *parts: object | Cell, indent: int = 0) -> None:
        """A line of parts, each a text or a text and its style."""
        texts = []
        for part in parts:
            text, style = part if isinstance(part, tuple) else (part, "")
            texts.append(self._styled(clean(text), style))
        self._lines.append((" " * indent + "".join(texts)).rstrip())

    def blank(self) -> None:
        """An empty line, where the last one is none."""
        if self._lines and self._lines[-1]:
            self._lines.append("")

    def text(self, text: object, style: str = "", *, indent: int = 0, hang: int = 2) -> None:
        """A text that is broken into lines."""
        for n, line in enumerate(wrapped(clean(text), WIDTH - indent, hang)):
            self._lines.append(" " * (indent + (hang if n else 0)) + self._styled(line, style))

    def table(
        self,
        heads: Sequence[str],
        rows: Iterable[Sequence[object | Cell]],
        *,
        right: Iterable[int] = (),
        indent: int = 0,
    ) -> None:
        """A table under a blank line; its last column is broken where a line would be longer than `WIDTH`."""
        cells = [
            [
                (clean(part[0], 200), part[1]) if isinstance(part, tuple) else (clean(part, 200), "")
                for part in row
            ]
            for row in rows
        ]
        if not cells:
            return
        widths = [max(len(head), *(len(row[n][0]) for row in cells)) for n, head in enumerate(heads)]
        room = WIDTH - indent - sum(widths[:-1]) - 2 * (len(widths) - 1)
        widths[-1] = max(min(widths[-1], room), 10)
        to_right = frozenset(right)
        self.blank()
        self._row([(head, "bold") for head in heads], widths, to_right, indent)
        for row in cells:
            self._row(row, widths, to_right, indent)

    def _row(
        self, row: Sequence[tuple[str, str]], widths: Sequence[int], right: frozenset[int], indent: int
    ) -> None:
        parts = []
        *first, (last, last_style) = row
        for n, ((text, style), width) in enumerate(zip(first, widths[:-1], strict=True)):
            blank = " " * (width - len(text))
            shown = self._styled(text, style)
            parts.append(blank + shown if n in right else shown + blank)
        margin = " " * (indent + sum(widths[:-1]) + 2 * len(first))
        before = " " * indent + "".join(f"{part}  " for part in parts)
        for line in textwrap.wrap(last, widths[-1]) or [""]:
            padding = " " * (widths[-1] - len(line)) if len(first) in right else ""
            self._lines.append((before + padding + self._styled(line, last_style)).rstrip())
            before = margin

    def _styled(self, text: str, style: str) -> str:
        code = _STYLES.get(style)
        return f"\x1b[{code}m{text}\x1b[0m" if code and self._colours and text else text

    def __str__(self) -> str:
        return "\n".join(self._lines)


def wrapped(text: str, width: int, hang: int = 0) -> list[str]:
    """A text in lines of at most `width` characters; those after the first have `hang` fewer."""
    if len(text) <= width:
        return [text]
    first, *_ = textwrap.wrap(text, width) or [""]
    rest = text[len(first) :].strip()
    return [first, *textwrap.wrap(rest, max(20, width - hang))]
