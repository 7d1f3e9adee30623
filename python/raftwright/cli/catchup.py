"""`raftwright catchup`: what the DAQ has and the archive lacks is found and fetched."""

from __future__ import annotations

import contextlib
import os
import queue
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import typer

from raftwright.cli.console import console
from raftwright.cli.figures import count, seconds, size
from raftwright.cli.options import (
    ConfigOption,
    ControlOption,
    DryRunOption,
    EventsOption,
    FolderOption,
    JsonOption,
    KeysOption,
    KeyStoreOption,
    MetricsOption,
    OutOption,
    ServerKeyOption,
    duration,
    names,
    octets,
)

if TYPE_CHECKING:
    from raftwright.catchup import CatchUp
    from raftwright.catchup.settings import Settings

__all__ = ["catchup"]

_TICK: Final = 0.2
_EVERY: Final = 5.0
"""Seconds between two lines of progress."""
_LINES: Final = 200

_News: TypeAlias = "queue.SimpleQueue[Mapping[str, Any] | None]"


def catchup(
    endpoint: Annotated[
        str | None,
        typer.Argument(
            help="Of the DAQ's server; without it ledger and disk are compared.", show_default=False
        ),
    ] = None,
    out: OutOption = None,
    ledger: Annotated[
        str | None,
        typer.Option(
            "--ledger",
            metavar="URL",
            help="`none`: there is none.  [default: ledger.db in the archive]",
            show_default=False,
        ),
    ] = None,
    config: ConfigOption = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="TIME|DAYOBS",
            help="Only images since then: 20261122, 2026-11-22T03:00:00 (TAI), 3d.",
            show_default=False,
        ),
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option("--image", metavar="OBSID", help="Only this one, now.", show_default=False),
    ] = None,
    detector: Annotated[
        list[str] | None,
        typer.Option("--detector", metavar="R22_S11", help="Only these CCDs, now.", show_default=False),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Try everything that is missing once, and end.")
    ] = False,
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy",
            metavar="oldest|newest|priority",
            help="What goes first; priority: images of the sky.  [default: oldest]",
            show_default=False,
        ),
    ] = None,
    bandwidth: Annotated[
        str | None,
        typer.Option("--bandwidth", metavar="200MB/s", help="Ask for no more.", show_default=False),
    ] = None,
    units: Annotated[
        int | None, typer.Option("--units", min=1, help="Sources at a time.  [default: 3]")
    ] = None,
    nice: Annotated[
        int | None,
        typer.Option("--nice", min=0, max=19, help="Share of the processor, 19 the least.  [default: 10]"),
    ] = None,
    every: Annotated[
        str | None,
        typer.Option("--every", metavar="TIME", help="Between two comparisons.  [default: 60s]"),
    ] = None,
    young: Annotated[
        str | None,
        typer.Option(
            "--young", metavar="TIME", help="Younger images are left to forwarders.  [default: 60s]"
        ),
    ] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", metavar="SIZE", help="For images under way.  [default: 1GB]")
    ] = None,
    folder: FolderOption = None,
    events: EventsOption = None,
    metrics: MetricsOption = None,
    control: ControlOption = None,
    keys: KeysOption = None,
    server_key: ServerKeyOption = None,
    key_store: KeyStoreOption = None,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Find what the archive lacks of the DAQ's images, and fetch it beside tonight's.

    Compares the DAQ's catalogue, the ledger and the disk: at the start, after each outage and every minute,
    until it is stopped; with --once, --image, --detector or --dry-run a single time, and then it tells what
    is still missing and why. What others work on is left to them. With --json one object a line.
    """
    del json
    console.command = "catchup"
    from raftwright.catchup import CatchUp, Selection

    settings = _settings(
        config,
        {
            "endpoint": endpoint,
            "out": out,
            "ledger": ledger,
            "since": since,
            "policy": policy,
            "bandwidth": None if bandwidth is None else octets(bandwidth.removesuffix("/s"), "--bandwidth"),
            "units": units,
            "nice": nice,
            "every": duration(every, "--every"),
            "young": duration(young, "--young"),
            "memory": octets(memory, "--memory"),
            "folder": folder,
            "events": events,
            "metrics": metrics,
            "control": control,
            "keys": keys,
            "server_key": server_key,
            "key_store": key_store,
        },
    )
    selection = Selection.of(settings.since, names(image) or (), names(detector) or ())
    single = once or dry_run or bool(image) or bool(detector)
    _run(CatchUp(settings, selection=selection, once=single, dry=dry_run))


def _settings(config: str | None, given: Mapping[str, object]) -> Settings:
    """Raises NotFoundError, StorageError and FormatError with line and key."""
    import msgspec

    from raftwright.catchup import Settings
    from raftwright.errors import FormatError
    from raftwright.service.config import read_section

    options = {key: value for key, value in given.items() if value is not None}
    if config is not None:
        found: Settings = read_section(config, Settings, options)
        return found
    try:
        return msgspec.convert(options, Settings)
    except msgspec.ValidationError as error:
        raise FormatError(f"the options: {error}; see `raftwright catchup --help`") from None


def _run(service: CatchUp) -> None:
    from raftwright.cli.exits import Exit
    from raftwright.cli.signals import stopped_by_signals
    from raftwright.service.context import bound
    from raftwright.service.logs import logging_to

    news: _News = queue.SimpleQueue()
    service.observer = lambda what, facts: news.put({"what": what, **facts})
    with contextlib.suppress(OSError):
        os.nice(service.settings.nice)
    with logging_to(), bound(service="catchup"), stopped_by_signals(news):
        try:
            service.start()
            _ready(service)
            _tell(service, news)
        finally:
            service.stop()
    while not news.empty():
        item = news.get()
        if item is not None:
            _news(item)
    lacking = _last(service)
    if service.once and lacking and not service.dry:
        raise typer.Exit(Exit.INCOMPLETE)


def _ready(service: CatchUp) -> None:
    settings = service.settings
    page = None if service.page is None else service.page.url
    console.say(
        f"catching up {settings.out} with {settings.endpoint or 'the ledger'}"
        + (f", at most {size(settings.bandwidth)}/s" if settings.bandwidth else "")
        + ("; nothing is fetched, this is a trial" if service.dry else "")
        + ("" if page is None else f"; figures at {page}")
    )
    console.flush()
    console.event(
        "ready",
        {
            "endpoint": settings.endpoint or None,
            "archive": settings.out,
            "ledger": settings.ledger_url or None,
            "metrics": page,
            "dry_run": service.dry,
        },
    )


def _tell(service: CatchUp, news: _News) -> None:
    said = time.monotonic()
    while not service.over.is_set():
        try:
            item = news.get(timeout=_TICK)
        except queue.Empty:
            if time.monotonic() - said >= _EVERY:
                said = time.monotonic()
                _progress(service)
            continue
        if item is None:
            return
        _news(item)


def _progress(service: CatchUp) -> None:
    facts = service.progress.to_dict()
    if facts["units_left"] or service.in_flight():
        line = (
            f"{count(facts['units_done'], 'source')} fetched, {facts['units_left']} left, "
            f"{size(facts['bytes_per_s'])}/s"
        )
        if facts["eta_s"] is not None:
            line += f", {seconds(facts['eta_s'])} to go"
        if service.meter.quiet:
            line += "; gives way to others"
        console.say(line)
        console.flush()
        console.event("progress", {**facts, "gives_way": service.meter.quiet})


def _news(item: Mapping[str, Any]) -> None:
    if item["what"] == "unit":
        facts = {key: value for key, value in item.items() if key not in ("what", "service")}
        line = f"{facts['image']} {facts['location']}: {facts['state']}, {count(facts['files'], 'file')}"
        if facts["reason"]:
            line += f"; {facts['reason']}"
        console.say(line)
        console.flush()
        console.event("unit", facts)


def _last(service: CatchUp) -> int:
    """What is still missing, and why; how many detectors that are."""
    from raftwright.catchup.findings import totals

    findings = [] if service.survey is None else list(service.survey.findings)
    counts = totals(findings)
    progress = service.progress.to_dict()
    for finding in findings[:_LINES]:
        where = " ".join(part for part in (finding.image, finding.location) if part)
        which = ", ".join(finding.detectors[:9])
        done = "to be fetched" if finding.action == "fetch" else finding.reason
        console.say(f"{where}: {which + ' ' if which else ''}{finding.why}: {done}")
    if len(findings) > _LINES:
        console.say(f"and {len(findings) - _LINES} more")
    lacking = sum(counts.values())
    problems = service.problems()
    for problem in problems:
        console.say(problem)
    if not service.dry:
        console.say(f"fetched {count(progress['units_done'], 'source')}, {count(progress['files'], 'file')}")
    console.say(f"{count(lacking, 'CCD')} missing" if lacking else "nothing is missing")
    console.event(
        "stopped",
        {
            **progress,
            "detectors": counts,
            "lacking": [finding.to_dict() for finding in findings],
            "problems": problems,
        },
    )
    return lacking
