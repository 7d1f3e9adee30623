"""What the services of a site share: the sections of the configuration that belong to none of them alone."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from raftwright.errors import StorageError, UsageError
from raftwright.service.base import Life
from raftwright.service.states import State
from raftwright.service.table import SERVICES
from raftwright.service.units import Seconds

__all__ = ["SHARED_SECTIONS", "Archive", "Common", "Daq", "Events", "Ledger", "LifeSection", "Log", "Site"]

_Name: TypeAlias = Annotated[str, Meta(max_length=200)]
_Path: TypeAlias = Annotated[str, Meta(min_length=1, max_length=4000)]

_LONGEST_PATH: Final = 80
"""Bytes of a directory of sockets: the path of one has at most 107."""


class Site(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section `site`: where this is."""

    name: _Name = "site"
    camera: _Name = ""
    """Of the images: LSSTComCam, LATISS, LSSTCam, or a camera file. Only the simulator and views need it."""
    run: str = ""
    """Directory of sockets; `.run` in the archive by default. On each machine its own."""


class Archive(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section `archive`."""

    root: _Path
    """Directory of the raw files. There is no default."""


class Ledger(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section `ledger`."""

    url: str = ""
    """`sqlite:///PATH` or `postgresql://HOST/NAME`; `ledger.db` in the archive by default. Passwords belong
    into ~/.pgpass or PGPASSWORD."""


class Events(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section `events`: how services hint one another."""

    url: str = ""
    """`ipc://PATH` (each service adds `-NAME`), `tcp://HOST:PORT` (each adds its step), `kafka://HOST:PORT/PREFIX`;
    ipc in the directory of sockets by default."""
    listen: list[_Path] = []
    """Publishers elsewhere."""


class Daq(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section `daq`: where images come from."""

    endpoint: str = ""
    """Control socket of the server, `tcp://daq:5570`; the simulator's where that runs here."""
    folder: str = ""
    """Only images of this folder."""
    keys: str = ""
    """Name of our key pair; with `server_key` for CURVE."""
    server_key: str = ""
    key_store: str = ""


class LifeSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section `life`: what every service is told about its own."""

    pages: str = "127.0.0.1:0"
    """HOST:PORT of the first page, each service adds its step; port 0: any; `none`: no pages."""
    control: str = "ipc"
    """`ipc` in the directory of sockets, `tcp://HOST:PORT` to which each adds its step, or `none`."""
    keys: str = ""
    """Name of our key pair: the control sockets then let in only clients that `keys allow` named."""
    key_store: str = ""
    """Directory of the key pairs; that of the user by default."""
    initial: State = State.ENABLED
    """State after the start."""
    drain: Seconds = 30.0
    """The end, and `disable`, wait so long for what is under way."""
    recovery: bool = True
    """Whether services leave FAULT by themselves."""


class Log(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section `log`: lines on the standard error."""

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error", "critical"] = "info"


SHARED_SECTIONS: Final[dict[str, Any]] = {
    "site": Site,
    "archive": Archive,
    "ledger": Ledger,
    "events": Events,
    "daq": Daq,
    "life": LifeSection,
    "log": Log,
}


class Common(msgspec.Struct, frozen=True, kw_only=True):
    """What `build(settings, common)` is given."""

    site: Site
    archive: Archive
    ledger_section: Ledger
    events: Events
    daq: Daq
    life_section: LifeSection
    log: Log
    services: tuple[str, ...]
    """Those that the configuration has, whether they run in this process or not."""

    @property
    def root(self) -> Path:
        """Root of the archive."""
        return Path(self.archive.root)

    @property
    def ledger(self) -> str:
        """URL of the ledger, for `open_ledger`."""
        return self.ledger_section.url or f"sqlite:///{self.root / 'ledger.db'}"

    @property
    def run(self) -> Path:
        """Directory of sockets; see `make_run`."""
        if self.site.run:
            return Path(self.site.run)
        inside = self.root / ".run"
        if len(os.fsencode(inside)) <= _LONGEST_PATH:
            return inside
        mark = hashlib.sha256(os.fsencode(self.root.absolute())).hexdigest()[:16]
        return Path(f"/tmp/raftwright-{os.getuid()}-{mark}")

    def make_run(self) -> Path:
        """Makes the directory of sockets, for us alone. Raises StorageError."""
        run = self.run
        try:
            run.mkdir(mode=0o700, parents=True, exist_ok=True)
            owner = run.stat().st_uid
        except OSError as error:
            raise StorageError(
                error.errno, f"cannot be made for sockets ({error.strerror}); set site.run", str(run)
            ) from error
        if owner not in (os.getuid(), 0):
            raise StorageError(13, "belongs to somebody else; set site.run to another directory", str(run))
        return run

    def life(self, service: str) -> Life:
        """How a service lives: its page, control socket and first state."""
        section = self.life_section
        return Life(
            name=service,
            page="" if section.pages == "none" else _stepped(section.pages, service),
            control=self.control_of(service),
            keys=section.keys,
            key_store=section.key_store,
            initial=section.initial,
            drain=section.drain,
            recovery=section.recovery,
        )

    def control_of(self, service: str) -> str:
        """Endpoint of its control socket; none where there is none."""
        section = self.life_section
        if section.control == "none":
            return ""
        if section.control == "ipc":
            return f"ipc://{self.run}/{service}.control"
        return _stepped(section.control, service)

    def events_of(self, service: str) -> str:
        """Where a service publishes its events, for `open_publisher`."""
        url = self.events.url or f"ipc://{self.run}/events"
        if url.startswith("kafka://"):
            return url
        return f"{url}-{service}" if url.startswith("ipc://") else _stepped(url, service)

    def events_from(self, services: Sequence[str] | None = None) -> list[str]:
        """Where to listen, for `open_subscriber`: these services (all), and publishers elsewhere."""
        here = [self.events_of(service) for service in (self.services if services is None else services)]
        return list(dict.fromkeys([*here, *self.events.listen]))


def _stepped(address: str, service: str) -> str:
    """`tcp://127.0.0.1:5580` and the step of the service. Raises UsageError."""
    match = re.fullmatch(r"(.*):([0-9]{1,5}|\*)", address)
    if match is None:
        raise UsageError(f"{address[:200]!a} has no port; write HOST:PORT")
    if match[2] in ("*", "0"):
        return address
    port = int(match[2]) + SERVICES[service].step
    if port > 65535:
        raise UsageError(f"{address[:200]!a}: there is no port {port} for {service}; begin lower")
    return f"{match[1]}:{port}"
