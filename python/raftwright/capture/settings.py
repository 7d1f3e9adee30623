"""What the engine is told: where files go, and how much of the machine it may have."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from raftwright.service.units import SIZE, TIME

__all__ = ["CaptureSettings", "Seconds", "Threads"]

Seconds: TypeAlias = Annotated[float, Meta(gt=0, le=86_400, extra=TIME)]
Threads: TypeAlias = Annotated[int, Meta(ge=1, le=256)]


class CaptureSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of an `Engine`, and the first ones of every service that has one: times in seconds, sizes in
    bytes."""

    out: str
    """Root of the archive."""
    memory: Annotated[int, Meta(ge=1 << 20, extra=SIZE)] = 2 << 30
    """Most that readouts under way and on their way to the disk may take, in the worst case."""
    receivers: Threads = 2
    writers: Threads = 2
    chunk: Annotated[int, Meta(ge=1, le=16 << 20, extra=SIZE)] = 4 << 20
    credit: Annotated[int, Meta(ge=1 << 16, extra=SIZE)] = 16 << 20
    """Most that may be on its way for a source."""
    deadline: Seconds = 60.0
    """For one attempt at a source; after that its files are written with the gaps marked."""
    retry: Seconds = 5.0
    """Pause before what is incomplete is tried again; doubled each time, ten minutes at most."""
    header_wait: Annotated[float, Meta(ge=0, le=60, extra=TIME)] | None = None
    """How long after the last byte the header document of an image is waited for; 0: it is used if it is
    there. By default 0.6 s where somebody makes headers (`raftwright.rawfile.makers`), else 0."""
    patience: Seconds = 60.0
    """How long a disk that refuses is tried again before the data are let go, to be fetched again later."""
    drain: Annotated[float, Meta(ge=0, le=86_400, extra=TIME)] = 30.0
    """How long the end waits for what is under way."""
    fill: Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)] = -1
    """Value of missing pixels."""
    durable: bool = True
    """Sync files to the disk before they count as written."""
