"""`raftwright night-report`: the report of a night, as Markdown and as one HTML page."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from raftwright.cli.configs import ConfigOption
from raftwright.cli.console import console
from raftwright.cli.exits import Exit
from raftwright.cli.figures import count, seconds
from raftwright.cli.ledgers import ArchiveOption, LedgerOption, archive_of, find_ledger
from raftwright.cli.options import JsonOption
from raftwright.errors import NotFoundError, UsageError

__all__ = ["night_report"]


def night_report(
    dayobs: Annotated[
        str | None,
        typer.Argument(
            metavar="DAYOBS", help="20261122.  [default: the last night with images]", show_default=False
        ),
    ] = None,
    directory: Annotated[
        str | None, typer.Argument(metavar="DIR", help="The archive.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="DIR", help="[default: reports in the archive]", show_default=False
        ),
    ] = None,
    ledger: LedgerOption = None,
    archive: ArchiveOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Write the report of a night: counts, latencies with plots, losses with reasons, headers, deliveries,
    incidents, availability, a scorecard.

    Two files, <dayobs>.md and <dayobs>.html, which needs nothing else; made again they replace those of
    before. All times are TAI.
    """
    from raftwright.report.book import open_book
    from raftwright.report.night import night_figures
    from raftwright.report.writing import to_dict, write_report

    del json
    console.command = "night-report"
    begun = time.monotonic()
    if dayobs is not None and directory is None and os.path.isdir(dayobs):
        dayobs, directory = None, dayobs
    url = find_ledger(ledger, [directory, archive], config)
    with open_book(url) as book:
        night = _night(dayobs) or book.value("SELECT max(dayobs) FROM image")
        if night is None:
            raise NotFoundError(f"the ledger {book.shown} has no images yet; there is no night to report")
        figures = night_figures(book, int(night))
    if not figures.images:
        raise NotFoundError(
            f"the ledger {figures.ledger} has no image of the night {night}; see `raftwright status`"
        )
    root = archive_of(url, directory, archive, config)
    paths = write_report(figures, out or (root or Path()) / "reports")
    taken = time.monotonic() - begun
    complete = figures.states.get("complete", 0)
    images, incidents = count(len(figures.images), "image"), count(len(figures.incidents), "incident")
    console.say(
        f"night {night}: {figures.colour.value}, {images}, {complete:,} complete, "
        f"{len(figures.late):,} late, {incidents}, in {seconds(taken)}",
        *(f"  {path}" for path in paths),
    )
    content = {"files": [str(path) for path in paths], "seconds": taken, **to_dict(figures)}
    console.answer("ok", Exit.OK, content)


def _night(text: str | None) -> int | None:
    if text is None:
        return None
    digits = text.replace("-", "")
    if len(digits) != 8 or not (digits.isascii() and digits.isdecimal()):
        raise UsageError(f"{text[:40]!r} is no night; write 20261122")
    return int(digits)
