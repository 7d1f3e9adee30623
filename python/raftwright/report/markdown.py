"""The report of a night as Markdown."""

from __future__ import annotations

import re

from raftwright.report.night import NightFigures
from raftwright.report.telling import Table, parts, title
from raftwright.report.times import iso

__all__ = ["markdown"]

_MARKS = re.compile(r"([\\`*\[\]<>|])")
_CONTROLS = re.compile(r"[^\x20-\x7e\xa0-\U0010ffff]+")


def markdown(figures: NightFigures) -> str:
    """The text."""
    said = (
        f"**{figures.colour.value}** · ledger {_text(figures.ledger)} · made {iso(figures.made_tai)} TAI. "
        "All times are TAI (UTC + 37 s); the night is that of the images' names."
    )
    lines = [f"# {title(figures)}", "", said]
    for part in parts(figures):
        lines += ["", f"## {part.title}"]
        for line in part.lines:
            lines += ["", _text(line)]
        for table in part.tables:
            lines += ["", *_table(table)]
    return "\n".join(lines) + "\n"


def _table(table: Table) -> list[str]:
    rule = "|".join("---:" if n in table.right else "---" for n in range(len(table.heads)))
    return [
        f"| {' | '.join(_text(head) for head in table.heads)} |",
        f"|{rule}|",
        *(f"| {' | '.join(_text(cell) for cell in row)} |" for row in table.rows),
    ]


def _text(text: str) -> str:
    """What came from files and services, without what Markdown or a terminal would act on."""
    return _MARKS.sub(r"\\\1", _CONTROLS.sub(" ", text))
