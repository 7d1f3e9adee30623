"""What a catch-up archiver is told: what to compare, how often, and how much of the machine it may have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

from msgspec import Meta

from raftwright.capture.settings import CaptureSettings, Seconds
from raftwright.service.units import SIZE, TIME

__all__ = ["NO_LEDGER", "SHARED", "Policy", "Settings"]

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
"""What the catch-up archiver of a site takes from the shared sections."""

NO_LEDGER: Final = "none"

Policy: TypeAlias = Literal["oldest", "newest", "priority"]
"""Which images go first. `priority`: those of the sky, then the oldest."""

_Wait: TypeAlias = Annotated[float, Meta(ge=0, le=31_536_000, extra=TIME)]


class Settings(CaptureSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of a `CatchUp`: those of the engine and its own; times in seconds, sizes in bytes."""

    memory: Annotated[int, Meta(ge=1 << 20, extra=SIZE)] = 1 << 30
    """Most that readouts under way and on their way to the disk may take, in the worst case."""
    receivers: Annotated[int, Meta(ge=1, le=256)] = 1
    endpoint: str = ""
    """Control socket of the DAQ's server. Without it the ledger and the disk are compared."""
    ledger: str = ""
    """Path or URL of the ledger, `<out>/ledger.db` by default. `none`: the DAQ and the disk are compared, and
    nobody else is known to work on the same."""
    name: str = ""
    """What the server and the listeners to events are told; host and process by default."""
    folder: str = ""
    """Only images of this folder of the DAQ."""
    events: str = ""
    """Endpoint where events are told; none by default."""
    metrics: str = ""
    """HOST:PORT of the page of figures; none by default."""
    control: str = ""
    """Endpoint of the control socket; none by default."""
    keys: str = ""
    """Name of our key pair; with `server_key` for CURVE."""
    server_key: str = ""
    """Public key of the server."""
    key_store: str = ""
    """Directory of the key pairs; that of the user by default."""
    since: str = ""
    """Only images since then: a day of observation, 20261122; a time, TAI; or how long ago, `3 d`."""
    policy: Policy = "oldest"
    every: Seconds = 60.0
    """Between two comparisons. One is made at the start and after each outage too."""
    young: _Wait = 60.0
    """Images younger than that are left to the forwarders."""
    whole: _Wait = 3600.0
    """What was found whole is looked at again after this time."""
    tries: Annotated[int, Meta(ge=1, le=10_000)] = 20
    """After so many attempts a source is given up on, until somebody asks for it by name."""
    redeliver: _Wait = 3600.0
    """Deliveries that were given up on are asked for again so often; 0: never."""
    bandwidth: Annotated[int, Meta(ge=0, extra=SIZE)] = 0
    """Bytes a second that are asked for at most; 0: as fast as they come."""
    units: Annotated[int, Meta(ge=1, le=256)] = 3
    """Sources that are worked on at a time."""
    give_way: _Wait = 30.0
    """While others work on images nothing is begun and nothing asked for, but after this time one unit goes
    on."""
    nice: Annotated[int, Meta(ge=0, le=19)] = 10
    """Share of the processor, where it is a process of its own: 0 the same as others, 19 the least."""

    @property
    def ledger_url(self) -> str:
        """Where the ledger is, for `open_ledger`; empty: there is none."""
        if self.ledger == NO_LEDGER:
            return ""
        return self.ledger or str(Path(self.out) / "ledger.db")
