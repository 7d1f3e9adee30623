"""`raftwright handoff`: verified replicas at endpoints: the service, how they stand, their mending."""

from __future__ import annotations

import json as jsons
import queue
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raftwright.cli.console import columns, console
from raftwright.cli.exits import Exit
from raftwright.cli.figures import count, size
from raftwright.cli.ledgers import NightOption, ledger_of, open_known
from raftwright.cli.options import (
    ControlOption,
    DryRunOption,
    EventsOption,
    JsonOption,
    MetricsOption,
    OutOption,
    UntilIdleOption,
    duration,
)
from raftwright.cli.running import run_service
from raftwright.cli.signals import stopped_by_signals
from raftwright.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raftwright.backbone import HandOff, Settings

__all__ = ["app"]

app = typer.Typer(
    help="Verified replicas at endpoints: bring them there, see how they stand, read them again.",
    rich_markup_mode=None,
    no_args_is_help=False,
)

_ConfigOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Configuration of the site, with a section `handoff`; options go before it.",
        show_default=False,
    ),
]
_LedgerOption = Annotated[
    str | None,
    typer.Option("--ledger", metavar="URL", help="[default: ledger.db in the archive]", show_default=False),
]
_ToOption = Annotated[
    list[str] | None,
    typer.Option(
        "--to",
        metavar="[NAME=]DIR",
        help="An endpoint that is a directory; may be repeated. Instead of those of the file.",
        show_default=False,
    ),
]
_EndpointOption = Annotated[
    list[str] | None,
    typer.Option("--endpoint", metavar="NAME", help="Only this one; may be repeated.", show_default=False),
]
_SHOWN = 20
_MOST_LISTED = 100_000
"""Files of an endpoint."""


@app.command("run", short_help="Bring files there, verify them, read them again.")
def run(
    config: _ConfigOption = None,
    out: OutOption = None,
    ledger: _LedgerOption = None,
    to: _ToOption = None,
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
    """Bring every whole file of the archive to every endpoint, verify it there, read it again on schedule.

    Runs until it is stopped; what was left it does when it is started again. One line for each replica that
    is damaged, lost or healed, and for each file that is given up; with --json one object for every replica.
    Of several for one instrument one works and the others wait.
    """
    del json
    console.command = "handoff run"
    from raftwright.ledger.replicas import ENDPOINT
    from raftwright.service import Life

    found = _site(config, out, ledger, to)
    service = _made(found, Life(page=metrics or "", control=control or ""), events or "", tuple(listen or ()))
    patience = duration(until_idle, "--until-idle")
    run_service(lambda: service, {"replica": _replica}, _ready, log=found.common.log, patience=patience)
    brought = {
        lane.name.removeprefix(ENDPOINT): int(lane.status()["delivered"]) for lane in service.lanes or ()
    }
    console.say(
        "brought " + (", ".join(f"{count(n, 'file')} to {name}" for name, n in brought.items()) or "nothing")
    )
    console.event("stopped", {"ledger": service.places.ledger, "brought": brought})


@app.command("status", short_help="Tell how replicas stand.")
def status(
    obsid: Annotated[
        str | None, typer.Argument(metavar="OBSID", help="An image: its files, and who has them.")
    ] = None,
    config: _ConfigOption = None,
    out: OutOption = None,
    ledger: _LedgerOption = None,
    to: _ToOption = None,
    night: NightOption = None,
    json: JsonOption = False,
) -> None:
    """Tell how replicas stand: at each endpoint, or of one image. Exit code 5 where an image lacks some."""
    del json
    console.command = "handoff status"
    import msgspec

    from raftwright.backbone.standing import endpoints_of, standing_of
    from raftwright.cli.containers import of_last_nights, tell_amiss
    from raftwright.cli.replicas import tell_endpoints, tell_images

    found = _site(config, out, ledger, to)
    settings: Settings = found.settings("handoff")
    with open_known(found.common.ledger, read_only=True) as opened:
        images = [] if obsid is None else standing_of(opened, settings, obsid)
        endpoints = {} if images else endpoints_of(opened, settings.endpoints, night)
        containers = [] if images else of_last_nights(opened, settings, night)
    if images:
        tell_images(images)
        return
    tell_endpoints(endpoints)
    tell_amiss(containers)
    content = {"ledger": found.common.ledger, "endpoints": endpoints}
    console.answer("ok", Exit.OK, {**content, "containers": msgspec.to_builtins(containers)})


@app.command("again", short_help="Queue once more what was given up.")
def again(
    config: _ConfigOption = None,
    out: OutOption = None,
    ledger: _LedgerOption = None,
    to: _ToOption = None,
    endpoint: _EndpointOption = None,
    image: Annotated[
        str | None, typer.Option("--image", metavar="OBSID", help="Only of this image.", show_default=False)
    ] = None,
    json: JsonOption = False,
) -> None:
    """Queue dead letters once more: what was given up, and conflicts. A running hand-off takes them up."""
    del json
    console.command = "handoff again"
    from raftwright.backbone.telling import DEAD
    from raftwright.ledger.replicas import ENDPOINT

    found = _site(config, out, ledger, to)
    names = _names(found.settings("handoff"), endpoint)
    queued = {}
    with open_known(found.common.ledger) as opened:
        ids: list[int | None] = [None]
        if image is not None:
            ids = [row.id for row in opened.images.get(image)]
            if not ids:
                raise NotFoundError(f"{image[:100]!a}: the ledger knows no such image")
        for name in names:
            queued[name] = sum(
                opened.deliveries.again(ENDPOINT + name, one, states=tuple(DEAD)) for one in ids
            )
    console.say(
        *columns([(name, f"{count(number, 'file')} queued again") for name, number in queued.items()])
    )
    console.answer("ok", Exit.OK, {"queued": queued})


@app.command("plan", short_help="Queue what is missing at endpoints.")
def plan(
    config: _ConfigOption = None,
    out: OutOption = None,
    ledger: _LedgerOption = None,
    to: _ToOption = None,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Compare all files of the ledger with all endpoints, and queue what is missing there.

    A running hand-off does the same from time to time. With --dry-run what would be queued is told.
    """
    del json
    console.command = "handoff plan"
    from raftwright.backbone.planning import Planner

    found = _site(config, out, ledger, to)
    settings: Settings = found.settings("handoff")
    with open_known(found.common.ledger, read_only=dry_run) as opened:
        planner = Planner(opened, settings.endpoints, settings.instrument)
        if not dry_run:
            number = planner.sweep(lambda: True)
            console.say(f"{count(number, 'file')} queued")
            console.answer("ok", Exit.OK, {"queued": number})
            return
        listed = planner.lacking(_MOST_LISTED)
    sums: dict[str, list[int]] = {one.name: [0, 0] for one in settings.endpoints}
    for one, file, _ in listed:
        sums[one.name][0] += 1
        sums[one.name][1] += file.bytes
    console.say(*columns([(name, count(n, "file"), size(octets)) for name, (n, octets) in sums.items()]))
    console.say(*(f"  {one.name}: {file.path} -> {target}" for one, file, target in listed[:_SHOWN]))
    if len(listed) > _SHOWN:
        console.say(f"  and {len(listed) - _SHOWN} more")
    whole = all(n < _MOST_LISTED for n, _ in sums.values())
    if not whole:
        console.say(f"no more than {_MOST_LISTED:,} files of an endpoint are counted here")
    content = {
        "whole": whole,
        "endpoints": {name: {"files": n, "bytes": octets} for name, (n, octets) in sums.items()},
        "files": [
            {"endpoint": one.name, "path": file.path, "target": target, "bytes": file.bytes}
            for one, file, target in listed
        ],
    }
    console.answer("ok", Exit.OK, content)


@app.command("pack", short_help="Make the container of each image.")
def pack(
    obsid: Annotated[
        list[str] | None, typer.Argument(metavar="[OBSID]...", help="Images; all by default.")
    ] = None,
    config: _ConfigOption = None,
    out: OutOption = None,
    ledger: _LedgerOption = None,
    to: _ToOption = None,
    night: NightOption = None,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Make the container of each image, one file with all of its files, where it has none that is up to date.

    The hand-off does the same where an endpoint takes containers. What stands under the name of one and is
    none is set aside. With --dry-run it is told which images lack one, or have it half done or out of date.
    """
    del json
    console.command = "handoff pack"
    from raftwright.cli.containers import pack_images

    if obsid and night is not None:
        raise UsageError("name images or a night, not both")
    found = _site(config, out, ledger, to)
    with open_known(found.common.ledger, read_only=dry_run) as opened:
        content = pack_images(
            opened, found.settings("handoff"), obsid or (), night, dry_run=dry_run, progress=console.say
        )
    made = "would be packed" if dry_run else "packed"
    said = [f"{content['packed']} {made}", f"{content['there']} were there"]
    said += [f"{content[key]} {key}" for key in ("adopted", "waiting", "failed") if content[key]]
    console.say(", ".join(said))
    code = Exit.FAULTS if content["failed"] else Exit.OK
    console.answer("faults" if content["failed"] else "ok", code, content)
    if content["failed"]:
        raise typer.Exit(code)


@app.command("scrub", short_help="Read replicas again, and mend them.")
def scrub(
    config: _ConfigOption = None,
    out: OutOption = None,
    ledger: _LedgerOption = None,
    to: _ToOption = None,
    endpoint: _EndpointOption = None,
    now: Annotated[
        bool, typer.Option("--now", help="All replicas, not only those that are due by the schedule.")
    ] = False,
    patience: Annotated[
        str, typer.Option("--patience", metavar="TIME", help="For the mending, after the reading.")
    ] = "10min",
    json: JsonOption = False,
) -> None:
    """Read replicas again where they are, and mend what is damaged or lost there.

    What is damaged is set aside there, and a good copy brought: from the archive, or from another endpoint.
    Exit code 5 where something is left that could not be mended or read.
    """
    del json
    console.command = "handoff scrub"
    from raftwright.service.logs import logging_to

    found = _site(config, out, ledger, to)
    service = _made(found, by_hand=True)
    names = _names(service.settings, endpoint)
    news: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()
    service.observer = lambda what, facts: news.put(facts) if what == "found" else None
    with logging_to(format=found.common.log.format, level=found.common.log.level), stopped_by_signals(news):
        try:
            service.start()
            report = _scrubbed(service, names, news, now=now, patience=duration(patience, "--patience"))
        finally:
            service.stop()
    rows = [
        (
            *(name, count(each["files"], "replica"), size(each["bytes"])),
            f"{each['damaged']} damaged, {each['lost']} lost, {each['healed']} healed",
            each["trouble"],
        )
        for name, each in report.items()
    ]
    console.say(*columns(rows, right=(1, 2)))
    left = any(each["left"] or each["unreadable"] or each["trouble"] for each in report.values())
    console.answer("faults" if left else "ok", Exit.FAULTS if left else Exit.OK, {"endpoints": report})
    if left:
        raise typer.Exit(Exit.FAULTS)


@app.command("lost", short_help="Say that all that an endpoint had is gone.")
def lost(
    endpoint: Annotated[str, typer.Argument(metavar="NAME", help="The endpoint.")],
    config: _ConfigOption = None,
    out: OutOption = None,
    ledger: _LedgerOption = None,
    to: _ToOption = None,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Say that all that an endpoint had is gone for good: a new disk, or an endpoint that is no more.

    Its replicas count no more. Where the endpoint is configured, all is queued to be brought there anew; what
    is still there stays as it is. Until then an endpoint where nothing is found of what was verified there is
    taken for one that is not mounted.
    """
    del json
    console.command = "handoff lost"
    from raftwright.backbone.planning import Planner

    found = _site(config, out, ledger, to)
    settings: Settings = found.settings("handoff")
    with open_known(found.common.ledger, read_only=dry_run) as opened:
        counts = opened.replicas.counts(endpoint)
        if not counts:
            raise NotFoundError(
                f"there are no replicas at {endpoint[:64]!a}; see `raftwright handoff status`"
            )
        number = sum(counts[endpoint].get(state, 0) for state in ("verified", "damaged"))
        queued = 0
        if not dry_run:
            number = 0
            while some := opened.replicas.all_lost(endpoint, "said to be gone for good"):
                number += some
            listed = [one for one in settings.endpoints if one.name == endpoint]
            queued = Planner(opened, listed, settings.instrument).sweep(lambda: True)
    console.say(f"{endpoint}: {count(number, 'replica')} lost, {count(queued, 'file')} queued")
    console.answer("ok", Exit.OK, {"endpoint": endpoint, "lost": number, "queued": queued})


# -- the site


def _site(config: Sequence[Path] | None, out: str | None, ledger: str | None, to: list[str] | None) -> Any:
    """The configuration, with what the options say. Raises as `raftwright.service.config.load`."""
    from raftwright.cli.configs import files_of
    from raftwright.service.config import load

    if ledger is not None and out is None and not files_of(config) and "://" not in ledger:
        out = str(Path(ledger_of(ledger)).parent)
    given = {
        "archive.root": out,
        "ledger.url": None if ledger is None else ledger_of(ledger),
        "handoff.endpoints": _endpoints(to),
    }
    options = [f"{key}={jsons.dumps(value)}" for key, value in given.items() if value is not None]
    return load(files_of(config), options=options, text="handoff: {}")


def _endpoints(to: list[str] | None) -> list[dict[str, str]] | None:
    if not to:
        return None
    found: list[dict[str, str]] = []
    for text in to:
        name, equals, directory = text.partition("=")
        if not equals:
            directory = text
            name = "".join(c if c.isascii() and c.isalnum() else "-" for c in Path(text).name).strip("-")[:30]
            if not name or any(one["name"] == name for one in found):
                name = f"{name or 'place'}-{len(found) + 1}"
        found.append({"name": name, "kind": "directory", "root": str(Path(directory).absolute())})
    return found


def _made(
    found: Any, life: Any = None, publish: str = "", listen: tuple[str, ...] = (), **more: Any
) -> HandOff:
    from raftwright.backbone import HandOff, Places

    places = Places(ledger=found.common.ledger, publish=publish, listen=listen)
    return HandOff(found.settings("handoff"), places, life, **more)


def _names(settings: Settings, wanted: list[str] | None) -> list[str]:
    known = [one.name for one in settings.endpoints]
    for name in wanted or ():
        if name not in known:
            raise UsageError(f"there is no endpoint {name[:64]!a}; there are {', '.join(known) or 'none'}")
    return [name for name in known if not wanted or name in wanted]


# -- the service


def _ready(service: HandOff) -> None:
    page = None if service.page is None else service.page.url
    names = [one.name for one in service.settings.endpoints]
    console.say(
        (f"replicas to {', '.join(names)}" if names else "no endpoints: nothing is handed over")
        + ("" if service.active else "; another hand-off works, this one waits")
        + ("" if page is None else f"; figures at {page}")
    )
    console.flush()
    ready = {"ledger": service.places.ledger, "endpoints": names, "active": service.active, "metrics": page}
    console.event("ready", ready)


def _replica(facts: Mapping[str, Any]) -> None:
    if facts["standing"] != "verified":
        reason = f": {facts['reason']}" if facts["reason"] else ""
        console.say(f"{facts['endpoint']}: {facts['name']} {facts['standing']}{reason}")
        console.flush()
    console.event("replica", facts)


def _scrubbed(
    service: HandOff, names: list[str], news: queue.SimpleQueue[Any], *, now: bool, patience: float
) -> dict[str, Any]:
    """Waits for the end of the reading, and then for that of the mending; what came of it, by endpoint."""
    import time

    assert service.lanes is not None
    found: list[Mapping[str, Any]] = []
    before = {name: service.unmended([name]) for name in names}
    service.mend(names)
    scrubbers = {name: service.scrubbers[name] for name in names}
    for scrubber in scrubbers.values():
        scrubber.now(None if now else service.settings.scrub.every)
    read_by: float | None = None
    while True:
        try:
            item = news.get(timeout=0.05)
            if item is None:
                break
            found.append(item)
            console.say(f"{item['endpoint']}: {item['name']} {item['state']}: {item['reason']}")
            console.flush()
            continue
        except queue.Empty:
            pass
        if all(each.idle or each.trouble for each in scrubbers.values()):
            read_by = read_by or time.monotonic()
            mended = all(service.lanes.idle([name]) or service.lanes.trouble(name) for name in names)
            if mended or time.monotonic() - read_by > patience:
                break
    report = {}
    for name, scrubber in scrubbers.items():
        left = service.unmended([name])
        mine = sum(item["endpoint"] == name for item in found)
        report[name] = {**scrubber.status(), "left": left, "healed": max(0, before[name] + mine - left)}
    return report
