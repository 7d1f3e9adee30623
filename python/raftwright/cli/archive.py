"""`raftwright archive`: the archiver as a service."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raftwright.cli.console import console
from raftwright.cli.figures import count
from raftwright.cli.options import (
    ControlOption,
    EventsOption,
    JsonOption,
    MetricsOption,
    OutOption,
    UntilIdleOption,
    duration,
)
from raftwright.cli.running import run_service

if TYPE_CHECKING:
    from raftwright.archiver import Archiver

__all__ = ["archive"]


def archive(
    config: Annotated[
        list[str] | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="Configuration of the site, with a section `archiver`; options go before it.",
            show_default=False,
        ),
    ] = None,
    out: OutOption = None,
    ledger: Annotated[
        str | None,
        typer.Option(
            "--ledger", metavar="URL", help="[default: ledger.db in the archive]", show_default=False
        ),
    ] = None,
    daq: Annotated[
        str | None,
        typer.Option("--daq", metavar="ENDPOINT", help="Control socket of the DAQ.", show_default=False),
    ] = None,
    to: Annotated[
        list[str] | None,
        typer.Option(
            "--to",
            metavar="DIR",
            help="Deliver to this directory; may be repeated. Instead of the destinations of the file.",
            show_default=False,
        ),
    ] = None,
    events: EventsOption = None,
    listen: Annotated[
        list[str] | None,
        typer.Option("--listen", metavar="URL", help="Events of the others.", show_default=False),
    ] = None,
    metrics: MetricsOption = None,
    control: ControlOption = None,
    until_idle: UntilIdleOption = None,
    json: JsonOption = False,
) -> None:
    """Find out whether images are complete, and deliver their files.

    Runs until it is stopped; what was left it does when it is started again. One line an image that is
    settled; with --json these are JSON objects, one a line. Of several archivers for one instrument one works
    and the others wait.
    """
    del json
    console.command = "archive"
    from raftwright.service import config as configuration

    options = _options(
        {
            "archive.root": out,
            "ledger.url": ledger,
            "daq.endpoint": daq,
            "archiver.destinations": _destinations(to),
        }
    )
    found = configuration.load(config or (), options=options, text="archiver: {}")
    archiver = _made(found, events, listen, metrics, control)
    patience = duration(until_idle, "--until-idle")
    run_service(lambda: archiver, {"image": _image}, _ready, log=found.common.log, patience=patience)
    console.event("stopped", {"archive": str(archiver.places.root)})


def _options(given: Mapping[str, Any]) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None]


def _destinations(to: list[str] | None) -> list[dict[str, str]] | None:
    if not to:
        return None
    names: list[str] = []
    for directory in to:
        name = "".join(c if c.isascii() and c.isalnum() else "-" for c in Path(directory).name).strip("-")[
            :30
        ]
        names.append(f"{name or 'place'}-{len(names) + 1}" if name in names or not name else name)
    return [
        {"name": name, "kind": "directory", "root": str(Path(directory).absolute())}
        for name, directory in zip(names, to, strict=True)
    ]


def _made(
    found: Any, events: str | None, listen: list[str] | None, metrics: str | None, control: str | None
) -> Archiver:
    from raftwright.archiver import Archiver, build
    from raftwright.service import Life

    built = build(found.settings("archiver"), found.common)
    places = built.places
    places.publish = events or ""
    places.listen = tuple(listen or ())
    return Archiver(built.settings, places, Life(name=built.name, page=metrics or "", control=control or ""))


def _ready(archiver: Archiver) -> None:
    page = None if archiver.page is None else archiver.page.url
    names = [lane.name for lane in archiver.lanes or ()]
    console.say(
        f"archive {archiver.places.root}"
        + (f", delivered to {', '.join(names)}" if names else ", delivered nowhere")
        + ("" if archiver.active else "; another archiver works, this one waits")
        + ("" if page is None else f"; figures at {page}")
    )
    console.flush()
    console.event(
        "ready",
        {
            "archive": str(archiver.places.root),
            "ledger": archiver.places.ledger,
            "destinations": names,
            "active": archiver.active,
            "metrics": page,
            "events": archiver.places.publish or None,
        },
    )


def _image(facts: Mapping[str, Any]) -> None:
    line = f"{facts['obsid']}: {facts['state']}, {facts['present']} of {count(facts['expected'], 'CCD')}"
    if facts["latency_s"] is not None:
        line += f", {facts['latency_s']:.2f} s after the readout"
    if facts["reason"]:
        line += f"; {facts['reason']}"
    console.say(line)
    console.flush()
    console.event("image", facts)
