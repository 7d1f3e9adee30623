"""Options that several commands share, and how their values are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from raftwright.errors import UsageError

__all__ = [
    "CameraOption",
    "DetectorsOption",
    "DryRunOption",
    "ElectronsOption",
    "ImageOption",
    "JsonOption",
    "LocationsOption",
    "OverwriteOption",
    "RaftsOption",
    "SalvageOption",
    "ThreadsOption",
    "names",
]

CameraOption = Annotated[
    str | None,
    typer.Option("--camera", metavar="NAME|FILE", help="Built-in camera or camera file.", show_default=False),
]
RaftsOption = Annotated[
    list[str] | None,
    typer.Option("--rafts", "--raft", metavar="R22,R01", help="Only these rafts.", show_default=False),
]
DetectorsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--detectors", "--detector", metavar="R22_S11,94", help="Only these CCDs.", show_default=False
    ),
]
ImageOption = Annotated[
    str | None,
    typer.Option("--image", metavar="NAME", help="Which image, where there are several.", show_default=False),
]
SalvageOption = Annotated[
    bool, typer.Option("--salvage", help="Take streams that were cut off as far as they go.")
]
LocationsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--locations", "--location", metavar="22/0,22/1", help="Only the boards there.", show_default=False
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads",
        metavar="N",
        min=1,
        max=1024,
        help="Worker threads.  [default: one a processor]",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Check everything, say what would be done, write nothing.")
]
ElectronsOption = Annotated[
    bool, typer.Option("--electrons", help="Subtract the bias and multiply by the camera's gains.")
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace the file if there is one.")]


def names(values: Sequence[str] | None) -> list[str] | None:
    """`["R22,R01", "R10"]` as `["R22", "R01", "R10"]`; None stays None. Raises UsageError for no name."""
    if values is None:
        return None
    found = [part for value in values for part in (p.strip() for p in value.split(",")) if part]
    if not found:
        text = ",".join(values)[:40]
        raise UsageError(f"{text!r} names nothing; give names, or leave the option out for all")
    return found
