"""Where the ledger is: as the user says, or found."""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from raftwright.errors import NotFoundError

if TYPE_CHECKING:
    from raftwright.archiver.settings import Destination
    from raftwright.backbone.settings import Endpoint
    from raftwright.ledger import Ledger

__all__ = [
    "ArchiveOption",
    "LedgerOption",
    "NightOption",
    "archive_of",
    "destinations_of",
    "endpoints_of",
    "find_ledger",
    "ledger_of",
    "ledger_or_none",
    "open_known",
]

FILE: Final = "ledger.db"

LedgerOption = Annotated[
    str | None,
    typer.Option(
        "--ledger",
        metavar="URL|PATH",
        help="sqlite:///PATH, a path, an archive or postgresql://HOST/NAME.  [default: that of the "
        "configuration, else ledger.db here or in ./archive]",
        show_default=False,
    ),
]


def _day(value: int | None) -> int | None:
    """A night that there never was has no images, which would be a wrong answer."""
    if value is not None:
        try:
            datetime.date(value // 10_000, value // 100 % 100, value % 100)
        except ValueError:
            raise typer.BadParameter(f"{value} is no day; write it as 20261122") from None
    return value


NightOption = Annotated[
    int | None,
    typer.Option(
        "--night",
        metavar="DAYOBS",
        help="E.g. 20261122.",
        min=19700101,
        max=99991231,
        show_default=False,
        callback=_day,
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


def ledger_of(text: str) -> str:
    """URL or path of the ledger that a text names: itself, or that of an archive."""
    if "://" not in text and os.path.isdir(text):
        return str(Path(text) / FILE)
    return text


def ledger_or_none(config: Sequence[Path] | None = None) -> str | None:
    """URL or path of the ledger: of the configuration, of the environment, or where one is found; None where
    there is none."""
    from raftwright.cli.configs import files_of

    url, root = os.environ.get("RAFTWRIGHT_LEDGER__URL"), os.environ.get("RAFTWRIGHT_ARCHIVE__ROOT")
    if files_of(config):
        return _configured(config)[0]
    if url or root:
        return ledger_of(url or str(Path(root or "") / FILE))
    for directory in (Path(), Path("archive"), Path("raftwright-archive")):
        if (directory / FILE).is_file():
            return str(directory / FILE)
    return None


def find_ledger(
    option: str | None, archive: Sequence[str | None] = (), config: Sequence[Path] | None = None
) -> str:
    """The one that is named, that of a named archive, or as `ledger_or_none`. Raises NotFoundError."""
    for text in (option, *archive):
        if text:
            return ledger_of(text)
    found = ledger_or_none(config)
    if found is None:
        raise NotFoundError(
            "there is no ledger here; give --ledger URL or --config FILE, or go where the archive is"
        )
    return found


def archive_of(
    ledger: str,
    directory: str | None = None,
    archive: str | None = None,
    config: Sequence[Path] | None = None,
) -> Path | None:
    """Root of the raw files: as it is named, that of the configuration, else where a ledger in a file stands;
    else None. Raises NotFoundError."""
    from raftwright.cli.configs import files_of

    named = archive or directory
    if named is not None:
        if not os.path.isdir(named):
            raise NotFoundError(f"{named}: there is no such directory; name that of the archive")
        return Path(named).absolute()
    if files_of(config):
        return Path(_configured(config)[1]).absolute()
    path = ledger.removeprefix("sqlite:///")
    if "://" not in path:
        return Path(path).absolute().parent
    root = os.environ.get("RAFTWRIGHT_ARCHIVE__ROOT")
    return Path(root).absolute() if root else None


def destinations_of(config: Sequence[Path] | None) -> list[Destination]:
    """The archiver's, of the configuration. Raises NotFoundError where it has none, FormatError."""
    from raftwright.cli.configs import read

    return list(read(config).settings("archiver").destinations)


def endpoints_of(config: Sequence[Path] | None) -> list[Endpoint]:
    """The hand-off's, of the configuration. Raises NotFoundError where it has none, FormatError."""
    from raftwright.cli.configs import read

    return list(read(config).settings("handoff").endpoints)


def open_known(url: str, *, read_only: bool = False) -> Ledger:
    """A ledger that is there: none is made in a place that was mistyped. Raises as `open_ledger`."""
    from raftwright.ledger import open_ledger

    opened = open_ledger(url, read_only=True)
    if read_only:
        return opened
    opened.close()
    return open_ledger(url)


def _configured(config: Sequence[Path] | None) -> tuple[str, Path]:
    """Ledger and root of the archive, of the configuration."""
    from raftwright.cli.configs import read

    common = read(config, shared_only=True).common
    return common.ledger, common.root
