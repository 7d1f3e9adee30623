"""What a forwarder is told to do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta

from raftwright.capture.settings import CaptureSettings, Seconds
from raftwright.errors import FormatError, NotFoundError, StorageError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SHARED", "Settings", "read_settings"]

SHARED: Final = {
    "out": "archive.root",
    "endpoint": "daq.endpoint",
    "folder": "daq.folder",
    "keys": "daq.keys",
    "server_key": "daq.server_key",
    "key_store": "daq.key_store",
    "events": "events.url",
    "metrics": "life.page",
    "control": "life.control",
    "drain": "life.drain",
}
"""What a forwarder of a site takes from the shared sections."""

_Names: TypeAlias = Annotated[list[Annotated[str, Meta(min_length=1, max_length=64)]], Meta(min_length=1)]

_MOST_BYTES = 1 << 20


class Settings(CaptureSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of a `Forwarder`: those of the engine and its own; times in seconds, sizes in bytes."""

    endpoint: str
    """Control socket of the server, e.g. `tcp://daq:5570`."""
    journal: str = ""
    """File of the journal, `<out>/journal.db` by default. Forwarders with the same journal share the work."""
    name: str = ""
    """What the server and the listeners to events are told; host and process by default."""
    folder: str = ""
    """Only images of this folder of the DAQ."""
    rafts: _Names | None = None
    locations: _Names | None = None
    """Which boards are this one's; all by default."""
    sweep: Seconds = 5.0
    """Between two comparisons of the catalogue with the journal."""
    events: str = ""
    """Endpoint where events are told; none by default."""
    metrics: str = ""
    """HOST:PORT of the page of figures; none by default."""
    control: str = ""
    """Endpoint of the control socket; none by default."""
    prompt: str = ""
    """Name of the pool of shared memory for `raftwright.watch`; none by default."""
    prompt_memory: Annotated[int, Meta(ge=1 << 20)] = 2 << 30
    keys: str = ""
    """Name of this forwarder's key pair; with `server_key` for CURVE."""
    server_key: str = ""
    """Public key of the server."""
    key_store: str = ""
    """Directory of the key pairs; that of the user by default."""

    @property
    def journal_path(self) -> Path:
        """Where the journal is."""
        return Path(self.journal) if self.journal else Path(self.out) / "journal.db"


def read_settings(path: str | os.PathLike[str] | None, given: Mapping[str, object]) -> Settings:
    """Settings from a YAML file and from options, which go before it.

    Raises NotFoundError, StorageError, and FormatError with the key at fault: nothing unknown is accepted.
    """
    content: dict[str, object] = {}
    where = "the options"
    if path is not None:
        where = os.fspath(path)
        content = _read(where)
    content.update({key: value for key, value in given.items() if value is not None})
    try:
        return msgspec.convert(content, Settings)
    except msgspec.ValidationError as error:
        raise FormatError(f"{where}: {error}; see `raftwright forward --help`") from None


def _read(where: str) -> dict[str, object]:
    import yaml

    try:
        with open(where, "rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise NotFoundError(f"{where}: there is no such file of settings") from None
    except OSError as error:
        raise StorageError(error.errno, f"cannot be read ({error.strerror})", where) from error
    if len(data) > _MOST_BYTES:
        raise FormatError(f"{where}: more than {_MOST_BYTES} bytes; that is no file of settings")
    try:
        content = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"{where}: cannot be read as YAML ({str(error)[:200]})") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise FormatError(f"{where}: has to be `key: value` lines")
    return content
