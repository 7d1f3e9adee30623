"""Tables for people, drawn by rich. Every cell is cleaned: no name acts on a terminal."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from raftwright.cli.console import clean

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["cell", "draw", "indented", "table"]

_PLAIN_WIDTH: Final = 110
"""Columns where nobody says how many there are: a pipe or a file."""


def cell(text: object, style: str = "", *, most: int = 200) -> Text:
    """Text of a cell, as it stands: no markup, no controls, not more than `most` characters."""
    from rich.text import Text

    return Text(clean(text, most), style=style)


def indented(part: Any) -> Any:
    """Two columns to the right, all of its lines."""
    from rich.padding import Padding

    return Padding(part, (0, 0, 0, 2))


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[int] = ()) -> Any:
    """A table; the first of its heads is its title. Columns in `right` stand to the right. Cells are text or
    what `cell` gave."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    to_right = frozenset(right)
    lines = box.ASCII2 if _ascii() else box.SIMPLE_HEAD
    drawn = Table(box=lines, show_edge=False, header_style="bold")
    for number, head in enumerate(heads):
        drawn.add_column(
            head,
            justify="right" if number in to_right else "left",
            no_wrap=number in to_right,
            overflow="fold",
        )
    for row in rows:
        drawn.add_row(*(part if isinstance(part, Text) else cell(part) for part in row))
    return drawn


def draw(*parts: Any) -> str:
    """The parts below each other, a blank line before each table, as the terminal of the standard output
    shows them; in a pipe without colours."""
    from rich.console import Console as RichConsole
    from rich.table import Table

    terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    paper = io.StringIO()
    drawer = RichConsole(
        file=paper,
        force_terminal=terminal,
        color_system="auto" if terminal else None,
        width=None if terminal else _PLAIN_WIDTH,
        highlight=False,
        markup=False,
        emoji=False,
    )
    for part in parts:
        if isinstance(part, Table):
            drawer.print("")
        drawer.print(part)
    return "\n".join(line.rstrip() for line in paper.getvalue().splitlines())


def _ascii() -> bool:
    encoding = (getattr(sys.stdout, "encoding", None) or "ascii").lower()
    return not encoding.startswith("utf")
