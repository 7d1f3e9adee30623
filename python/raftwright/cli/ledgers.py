"""Where the ledger is: as the user says, or found."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from raftwright.errors import NotFoundError

if TYPE_CHECKING:
    from raftwright.archiver.settings import Destination
    from raftwright.service.config import Config

__all__ = [
    "ArchiveOption",
    "ConfigOption",
    "LedgerOption",
    "NightOption",
    "archive_of",
    "destinations_of",
    "find_ledger",
    "ledger_of",
    "ledger_or_none",
]

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
ArchiveOption = Annotated[
    str | None,
    typer.Option(
        "--archive",
        metavar="DIR",
        help="Root of the raw files.  [default: where the ledger is]",
        show_default=False,
    ),
]
ConfigOption = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Configuration of the services (`raftwright up`).",
        show_default=False,
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


def find_ledger(option: str | None, archive: Sequence[str | None] = (), config: str | None = None) -> str:
    """As `ledger_or_none`, also of an archive or a configuration that was named. Raises NotFoundError."""
    for text in (option, *archive):
        if text:
            return ledger_of(text)
    if config is not None:
        return str(_configured(config).common.ledger)
    found = ledger_or_none(None)
    if found is None:
        raise NotFoundError(
            "there is no ledger here; give --ledger URL, set RAFTWRIGHT_LEDGER, or go where the archive is"
        )
    return found


def archive_of(
    ledger: str, directory: str | None = None, archive: str | None = None, config: str | None = None
) -> Path | None:
    """Root of the raw files: as it is named, else where a ledger in a file stands; else None.

    Raises NotFoundError.
    """
    named = archive or directory
    if named is not None:
        if not os.path.isdir(named):
            raise NotFoundError(f"{named}: there is no such directory; name that of the archive")
        return Path(named).absolute()
    if config is not None:
        return Path(_configured(config).common.root).absolute()
    path = ledger.removeprefix("sqlite:///")
    return None if "://" in path else Path(path).absolute().parent


def destinations_of(config: str) -> list[Destination]:
    """The archiver's, of a configuration. Raises NotFoundError where it has none, FormatError."""
    return list(_configured(config).settings("archiver").destinations)


@functools.cache
def _configured(config: str) -> Config:
    from raftwright.service.config import load

    return load([config])
