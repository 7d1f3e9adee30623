"""Hand-over lists: what somebody says of the files that he hands over, so that nobody has to guess.

`<anything>.handover.json`, beside the files or above them:

    {"format": "raftwright-handover/1",
     "files": {"20261122/MC_O_20261122_000123/x.fits": {"bytes": 8640, "crc32c": "01234567"}}}

Names are relative to the directory of the list. `bytes` is there, and at least one of `crc32c`, `adler32`,
`md5`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from raftwright.errors import FormatError, StorageError

__all__ = ["SUFFIX", "Promise", "read_list"]

SUFFIX: Final = ".handover.json"
_LARGEST: Final = 64 << 20
_MOST: Final = 1_000_000


class Promise(msgspec.Struct, frozen=True, kw_only=True):
    """What a file is said to be."""

    bytes: Annotated[int, Meta(ge=0)]
    crc32c: Annotated[str, Meta(pattern=r"\A([0-9a-f]{8})?\Z")] = ""
    adler32: Annotated[str, Meta(pattern=r"\A([0-9a-f]{8})?\Z")] = ""
    md5: Annotated[str, Meta(pattern=r"\A([0-9a-f]{32})?\Z")] = ""

    def __post_init__(self) -> None:
        if not (self.crc32c or self.adler32 or self.md5):
            raise FormatError("has no sum; give crc32c, adler32 or md5")


class _List(msgspec.Struct, frozen=True, kw_only=True):
    format: Literal["raftwright-handover/1"]
    files: dict[str, Promise]


_decoder: Final = msgspec.json.Decoder(_List)


def read_list(path: Path) -> dict[str, Promise]:
    """What a list says, by names relative to its directory. Raises FormatError, StorageError."""
    try:
        with path.open("rb") as stream:
            data = stream.read(_LARGEST + 1)
    except OSError as error:
        raise StorageError(error.errno, f"cannot be read ({error.strerror})", str(path)) from None
    if len(data) > _LARGEST:
        raise FormatError(f"{path.name}: a hand-over list has at most {_LARGEST >> 20} MiB; split it")
    try:
        found = _decoder.decode(data)
    except (msgspec.DecodeError, FormatError, RecursionError) as error:
        raise FormatError(f"{path.name}: is no hand-over list ({str(error)[:300]}); write it again") from None
    if len(found.files) > _MOST:
        raise FormatError(f"{path.name}: names more than {_MOST} files; split it")
    return found.files
