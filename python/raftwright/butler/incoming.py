"""What goes into a repository, and what became of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias
from urllib.parse import quote, unquote, urlsplit

import msgspec

from raftwright.errors import FormatError
from raftwright.events.codes import OodsStatus
from raftwright.rawfile.names import FileName

__all__ = ["Incoming", "Kind", "Outcome", "State", "Transfer", "path_of", "uri_of"]

Kind: TypeAlias = Literal["raw", "guider"]
State: TypeAlias = Literal["ingested", "duplicate", "waiting", "failed", "conflict", "unsupported"]
Transfer: TypeAlias = Literal["direct", "hardlink", "copy", "move"]


def uri_of(path: str | os.PathLike[str]) -> str:
    """Of a local file, as a Butler writes it."""
    return f"file://{quote(os.fspath(path))}"


def path_of(uri: str) -> Path | None:
    """Of the file that a URI names; None where it is no local one."""
    parts = urlsplit(uri)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


class Incoming(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is to be ingested. What is left out is taken from its name."""

    path: str
    """Absolute path, or a URI (`s3://…`) where the file is nobody's local one."""
    sidecar: str = ""
    """Likewise; empty: the one beside it."""
    obsid: str = ""
    detector: str = ""
    """As in the names of files: `R22_S11`."""
    kind: Kind = "raw"
    crc32c: str = ""
    """Eight hexadecimal digits, as the ledger has it; empty: not known."""
    bytes: int = -1
    """Size that it must have; -1: not known."""
    header: Mapping[str, Any] | None = None
    """What the sidecar says, where the caller has read it already."""

    @classmethod
    def of(cls, path: str, *, crc32c: str = "", bytes: int = -1) -> Incoming:
        """A file whose name says what it is. Raises `FormatError` where it does not."""
        name = FileName.parse(path.rpartition("/")[2])
        return cls(
            path=path,
            obsid=str(name.image),
            detector=f"{name.raft}_{name.slot}",
            kind="guider" if name.guider else "raw",
            crc32c=crc32c,
            bytes=bytes,
        )

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def version(self) -> int:
        """Of the file, as its name has it; 1 where it has none."""
        try:
            return FileName.parse(self.name).version
        except FormatError:
            return 1


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one file."""

    state: State
    """`ingested`; `duplicate`: the same content, or a newer version, is there already, which is as good;
    `waiting`: a guider whose exposure the repository does not know yet; `failed`: see `again`; `conflict`:
    another content of the same version is there; `unsupported`: no camera of this repository made it."""
    code: int = OodsStatus.INGESTED
    """`statusCode` of `imageInOODS`."""
    reason: str = ""
    """One sentence where it is not ingested."""
    again: bool = False
    """Whether it may go better another time, with the same file."""
    dataset_id: str = ""
    dataset_type: str = ""
    run: str = ""
    uri: str = ""
    """Where the repository reads it."""
    instrument: str = ""
    exposure: int = 0
    older: bool = False
    """A newer version is there: this file is not what the repository reads."""
    replaced: str = ""
    """URI of the older version that the repository read before; the file itself stays."""

    @property
    def good(self) -> bool:
        """Whether the repository has it."""
        return self.state in ("ingested", "duplicate")
