"""Times and sizes with their units, and secrets: types of settings, and how their values are read."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, TypeAlias

from msgspec import Meta

from raftwright.errors import UsageError

__all__ = ["SIZE", "TIME", "Bytes", "Period", "Seconds", "Secret", "read_bytes", "read_seconds", "unit_of"]

TIME: Final = {"unit": "time"}
"""For times with a range of their own: `Annotated[float, Meta(gt=0, le=60, extra=TIME)]`."""
SIZE: Final = {"unit": "size"}
"""For sizes."""
Seconds: TypeAlias = Annotated[float, Meta(ge=0, le=31_536_000, extra=TIME)]
"""A time: `10 s`, `200 ms`, `2 min`, `1 h`, `1 d` in a file; a number is seconds."""
Period: TypeAlias = Annotated[float, Meta(gt=0, le=31_536_000, extra=TIME)]
"""A time that is not 0."""
Bytes: TypeAlias = Annotated[int, Meta(ge=0, le=1 << 60, extra=SIZE)]
"""A size: `2 GB`, `64 MiB` in a file; a number is bytes."""
Secret: TypeAlias = Annotated[str, Meta(max_length=4096, extra={"unit": "secret"})]
"""A password or key: from the environment or a file only its owner can read, `{file: PATH}`; never shown."""

_DURATION: Final = re.compile(r"\s*([0-9]{1,18}(?:\.[0-9]{0,18})?|\.[0-9]{1,18})\s*(ms|s|min|h|d)?\s*\Z")
_SECONDS: Final = {None: 1.0, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE: Final = re.compile(r"\s*([0-9]{1,18}(?:\.[0-9]{0,18})?|\.[0-9]{1,18})\s*([kMGT]i?)?B?\s*\Z")
_STEPS: Final = {"k": 1, "M": 2, "G": 3, "T": 4}


def read_seconds(text: str) -> float:
    """Seconds of `17s`, `200 ms`, `2min`, `1 h`, `1d`; without a unit, seconds. Raises UsageError."""
    match = _DURATION.match(text)
    if match is None:
        raise UsageError(f"{text[:40]!r} is no time; write 17s, 200ms, 2min or 1h")
    return float(match[1]) * _SECONDS[match[2]]


def read_bytes(text: str) -> int:
    """Bytes of `2GB`, `500 MB`, `64MiB`, `1000000`. Raises UsageError."""
    match = _SIZE.match(text)
    if match is None:
        raise UsageError(f"{text[:40]!r} is no size; write 500MB, 2GB or 64MiB")
    unit = match[2] or ""
    step = 1024 if unit.endswith("i") else 1000
    return int(float(match[1]) * (step ** _STEPS[unit[0]] if unit else 1))


def unit_of(extra: dict[str, Any] | None) -> str:
    """`time`, `size`, `secret` or nothing."""
    return str((extra or {}).get("unit", ""))
