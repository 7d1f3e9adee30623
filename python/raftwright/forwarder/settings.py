"""What a forwarder is told to do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta

from raftwright.capture.settings import CaptureSettings, Seconds
from raftwright.errors import FormatError
from raftwright.service.units import SIZE

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

__all__ = ["SHARED", "Settings", "read_settings"]

SHARED: Final = {
    "out": "archive.root",
    "ledger": "ledger.url",
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


class Settings(CaptureSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of a `Forwarder`: those of the engine and its own; times in seconds, sizes in bytes."""

    endpoint: str
    """Control socket of the server, e.g. `tcp://daq:5570`."""
    ledger: str = ""
    """Path or URL of the ledger, `<out>/ledger.db` by default. Who shares it shares the work."""
    name: str = ""
    """What the server and the listeners to events are told; host and process by default."""
    folder: str = ""
    """Only images of this folder of the DAQ."""
    rafts: _Names | None = None
    locations: _Names | None = None
    """Which boards are this one's; all by default."""
    sweep: Seconds = 5.0
    """Between two comparisons of the catalogue with the ledger."""
    events: str = ""
    """Endpoint where events are told; none by default."""
    metrics: str = ""
    """HOST:PORT of the page of figures; none by default."""
    control: str = ""
    """Endpoint of the control socket; none by default."""
    prompt: str = ""
    """Name of the pool of shared memory for `raftwright.watch`; none by default."""
    prompt_memory: Annotated[int, Meta(ge=1 << 20, extra=SIZE)] = 2 << 30
    keys: str = ""
    """Name of this forwarder's key pair; with `server_key` for CURVE."""
    server_key: str = ""
    """Public key of the server."""
    key_store: str = ""
    """Directory of the key pairs; that of the user by default."""

    @property
    def ledger_url(self) -> str:
        """Where the ledger is, for `open_ledger`."""
        return self.ledger or str(Path(self.out) / "ledger.db")


def read_settings(path: str | os.PathLike[str] | None, given: Mapping[str, object]) -> Settings:
    """Settings from a YAML file and from options, which go before it.

    Raises NotFoundError, StorageError, and FormatError with line and key: nothing unknown is accepted.
    """
    options = {key: value for key, value in given.items() if value is not None}
    if path is not None:
        from raftwright.service.config import read_section

        found: Settings = read_section(path, Settings, options)
        return found
    try:
        return msgspec.convert(options, Settings)
    except msgspec.ValidationError as error:
        raise FormatError(f"the options: {error}; see `raftwright forward --help`") from None
