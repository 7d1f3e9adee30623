"""Options of commands that read the configuration of a site, and how it is found."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from raftwright.service.config import Config

__all__ = ["CONFIG_VARIABLE", "ConfigOption", "FilesArgument", "SetOption", "files_of", "read"]

CONFIG_VARIABLE: Final = "RAFTWRIGHT_CONFIG"

FilesArgument = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[FILE]...",
        help="Configuration as YAML; what a later file says goes before.  "
        f"[default: ${CONFIG_VARIABLE}, else a simulated ComCam and ./raftwright-archive]",
        show_default=False,
    ),
]
ConfigOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help=f"Configuration of the site.  [default: ${CONFIG_VARIABLE}, else the embedded one]",
        show_default=False,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="SECTION.KEY=VALUE", help="Goes before files and environment.", show_default=False
    ),
]


def files_of(files: Sequence[Path] | None) -> list[str]:
    """Those that were named, or those of the environment."""
    if files:
        return [str(file) for file in files]
    return [part for part in os.environ.get(CONFIG_VARIABLE, "").split(os.pathsep) if part]


def read(
    files: Sequence[Path] | None, options: Sequence[str] | None = None, *, shared_only: bool = False
) -> Config:
    """The configuration. Raises as `raftwright.service.config.load`."""
    from raftwright.service.config import load

    return load(files_of(files), options=options or (), shared_only=shared_only)
