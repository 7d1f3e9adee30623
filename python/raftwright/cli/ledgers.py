"""Where the ledger is: as the user says, or found."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from raftwright.errors import NotFoundError

__all__ = ["LedgerOption", "NightOption", "find_ledger", "ledger_of", "ledger_or_none"]

FILE: Final = "ledger.db"

LedgerOption = Annotated[
    str | None,
    typer.Option(
        "--ledger",
        metavar="URL|PATH",
        help="sqlite:///PATH, a path, an archive or postgresql://HOST/NAME.  [default: RAFTWRIGHT_LEDGER, "
        "ledger.db here or in ./archive]",
        show_default=False,
    ),
]
NightOption = Annotated[
    int | None,
    typer.Option(
        "--night", metavar="DAYOBS", help="E.g. 20261122.", min=19700101, max=99991231, show_default=False
    ),
]


def ledger_of(text: str) -> str:
    """URL or path of the ledger that a text names: itself, or that of an archive."""
    if "://" not in text and os.path.isdir(text):
        return str(Path(text) / FILE)
    return text


def ledger_or_none(option: str | None) -> str | None:
    """URL or path of the ledger; None where nothing is given and none is found."""
    given = option or os.environ.get("RAFTWRIGHT_LEDGER")
    if given:
        return ledger_of(given)
    for directory in (Path(), Path("archive")):
        if (directory / FILE).is_file():
            return str(directory / FILE)
    return None


def find_ledger(option: str | None, archive: Sequence[str | None] = ()) -> str:
    """As `ledger_or_none`, also of an archive that was named. Raises NotFoundError."""
    for text in (option, *archive):
        if text:
            return ledger_of(text)
    found = ledger_or_none(None)
    if found is None:
        raise NotFoundError(
            "there is no ledger here; give --ledger URL, set RAFTWRIGHT_LEDGER, or go where the archive is"
        )
    return found
