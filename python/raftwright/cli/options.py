"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, overload

import typer

from raftwright.errors import UsageError

__all__ = [
    "CameraOption",
    "ConfigOption",
    "ControlOption",
    "DetectorsOption",
    "DryRunOption",
    "ElectronsOption",
    "EventsOption",
    "FolderOption",
    "ImageOption",
    "JsonOption",
    "KeyStoreOption",
    "KeysOption",
    "LocationsOption",
    "MetricsOption",
    "OutOption",
    "OverwriteOption",
    "Pattern",
    "PatternOption",
    "RaftsOption",
    "SalvageOption",
    "SeedOption",
    "ServerKeyOption",
    "SizeOption",
    "SyncOption",
    "ThreadsOption",
    "UntilIdleOption",
    "duration",
    "names",
    "octets",
]

_DURATION = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*(ms|s|min|h|d)?\s*\Z")
_SECONDS = {None: 1.0, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([kMGT]i?)?B?\s*\Z")
_STEPS = {"k": 1, "M": 2, "G": 3, "T": 4}

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
SyncOption = Annotated[
    bool, typer.Option("--sync/--no-sync", help="Wait until the files are safely on the disk.")
]

# What simulated images show.


class Pattern(StrEnum):
    """What the pixels show."""

    SKY = "sky"
    COORDINATES = "coordinates"


SeedOption = Annotated[int, typer.Option("--seed", help="The same seed and name, the same pixels.")]
PatternOption = Annotated[
    Pattern, typer.Option("--pattern", help="Stars on a noisy sky, or pixels that name their own place.")
]
SizeOption = Annotated[
    str | None,
    typer.Option(
        "--size",
        metavar="COLSxROWS",
        help="Light-sensitive pixels of a segment.  [default: as the camera has them]",
        show_default=False,
    ),
]

# What services are told.

OutOption = Annotated[
    str | None, typer.Option("--out", metavar="DIR", help="Root of the archive.", show_default=False)
]
ConfigOption = Annotated[
    str | None,
    typer.Option(
        "--config", metavar="FILE", help="Settings as YAML; options go before it.", show_default=False
    ),
]
FolderOption = Annotated[
    str | None, typer.Option("--folder", help="Only images of this folder.", show_default=False)
]
EventsOption = Annotated[
    str | None, typer.Option("--events", metavar="URL", help="Where events are told.", show_default=False)
]
MetricsOption = Annotated[
    str | None,
    typer.Option("--metrics", metavar="HOST:PORT", help="Page of figures; port 0: any.", show_default=False),
]
ControlOption = Annotated[
    str | None,
    typer.Option("--control", metavar="ENDPOINT", help="For `raftwright control`.", show_default=False),
]
KeysOption = Annotated[
    str | None, typer.Option("--keys", metavar="NAME", help="Own key pair.", show_default=False)
]
ServerKeyOption = Annotated[
    str | None,
    typer.Option("--server-key", metavar="KEY", help="Public key of the server.", show_default=False),
]
KeyStoreOption = Annotated[
    str | None,
    typer.Option(
        "--key-store", metavar="DIR", help="[default: ~/.config/raftwright/keys]", show_default=False
    ),
]
UntilIdleOption = Annotated[
    str | None,
    typer.Option(
        "--until-idle",
        metavar="TIME",
        help="Stop when nothing was to do for so long.",
        show_default=False,
    ),
]


@overload
def duration(text: str, option: str = "") -> float: ...
@overload
def duration(text: str | None, option: str = "") -> float | None: ...
def duration(text: str | None, option: str = "") -> float | None:
    """Seconds of `17s`, `200ms`, `2min`, `1h`, `1d`; without a unit, seconds. None stays None. Raises
    UsageError."""
    if text is None:
        return None
    match = _DURATION.match(text)
    if match is None:
        place = f"{option}: " if option else ""
        raise UsageError(f"{place}{text[:40]!r} is no time; write 17s, 200ms, 2min or 1h")
    return float(match[1]) * _SECONDS[match[2]]


@overload
def octets(text: str, option: str = "") -> int: ...
@overload
def octets(text: str | None, option: str = "") -> int | None: ...
def octets(text: str | None, option: str = "") -> int | None:
    """Bytes of `2GB`, `500MB`, `64MiB`, `1000000`. None stays None. Raises UsageError."""
    if text is None:
        return None
    match = _SIZE.match(text)
    if match is None:
        place = f"{option}: " if option else ""
        raise UsageError(f"{place}{text[:40]!r} is no size; write 500MB, 2GB or 64MiB")
    unit = match[2] or ""
    step = 1024 if unit.endswith("i") else 1000
    return int(float(match[1]) * (step ** _STEPS[unit[0]] if unit else 1))


def names(values: Sequence[str] | None) -> list[str] | None:
    """`["R22,R01", "R10"]` as `["R22", "R01", "R10"]`; None stays None. Raises UsageError for no name."""
    if values is None:
        return None
    found = [part for value in values for part in (p.strip() for p in value.split(",")) if part]
    if not found:
        text = ",".join(values)[:40]
        raise UsageError(f"{text!r} names nothing; give names, or leave the option out for all")
    return found
