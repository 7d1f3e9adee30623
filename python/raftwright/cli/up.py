"""`raftwright up`: the services of a site in one process."""

from __future__ import annotations

import os
import queue
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from raftwright.cli.configs import FilesArgument, SetOption, files_of
from raftwright.cli.console import columns, console
from raftwright.cli.exits import Exit
from raftwright.cli.figures import count, seconds, size
from raftwright.cli.options import DryRunOption, JsonOption, UntilIdleOption, duration, names
from raftwright.cli.signals import heard, left_over, stopped_by_signals
from raftwright.errors import RaftwrightError, StorageError

if TYPE_CHECKING:
    from raftwright.service.base import Service
    from raftwright.service.config import Config
    from raftwright.service.runner import Runner

__all__ = ["up"]

_MOST_NEWS: Final = 10_000
"""Things that may wait to be told: nobody may be reading."""
_PATIENCE: Final = "2s"

_News = tuple[str, Mapping[str, Any]]


def up(
    files: FilesArgument = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="NAME,NAME", help="Of its services only these.", show_default=False),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option("--without", metavar="NAME,NAME", help="Not these.", show_default=False),
    ] = None,
    options: SetOption = None,
    images: Annotated[
        int | None,
        typer.Option(
            "--images",
            min=1,
            help="The simulated camera takes so many; stop when all are done.",
            show_default=False,
        ),
    ] = None,
    until_idle: UntilIdleOption = None,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
) -> None:
    """Run the services of a site in one process: those that the configuration has sections of.

    Without a file: a simulated ComCam, and an archive in ./raftwright-archive. One line an image; with --json
    these are JSON objects, one a line. Ctrl-C and SIGTERM let all finish what is under way; SIGHUP reads the
    configuration again. A service that fails holds up no other, and is started again.
    """
    del json
    console.command = "up"
    wanted = list(options or ())
    if images is not None:
        wanted.append(f"simulator.images={images}")
        until_idle = until_idle or _PATIENCE
    patience = duration(until_idle, "--until-idle")
    from raftwright.service.config import load

    places = files_of(files)

    def reread() -> Config:
        return load(places, options=wanted)

    config = reread()
    chosen = _chosen(config, names(only), names(without))
    if dry_run:
        _plan(config, chosen)
        return
    _run(config, chosen, reread, patience)


def _chosen(config: Config, only: list[str] | None, without: list[str] | None) -> list[str]:
    for name in [*(only or ()), *(without or ())]:
        config.settings(name)
    return [name for name in config.services if name not in (without or ()) and (not only or name in only)]


def _plan(config: Config, chosen: list[str]) -> None:
    common = config.common
    rows = [(f"  {name}", common.life(name).page or "-", common.control_of(name) or "-") for name in chosen]
    console.say(f"archive {common.archive.root}, ledger {_shown(common.ledger)}, sockets in {common.run}")
    console.say(*columns([("  service", "page", "control"), *rows]))
    console.say("nothing was started")
    console.answer(
        "ok",
        Exit.OK,
        {
            "dry_run": True,
            "archive": common.archive.root,
            "ledger": _shown(common.ledger),
            "run": common.run,
            "services": {
                name: {
                    "page": common.life(name).page or None,
                    "control": common.control_of(name) or None,
                    "events": common.events_of(name),
                }
                for name in chosen
            },
        },
    )


def _shown(url: str) -> str:
    from raftwright.service.checking import masked

    return masked(url)


def _run(config: Config, chosen: list[str], reread: Any, patience: float | None) -> None:
    from raftwright.service.logs import logging_to
    from raftwright.service.runner import Runner

    news: queue.SimpleQueue[_News | None] = queue.SimpleQueue()

    def observe(what: str, facts: Mapping[str, Any]) -> None:
        if news.qsize() < _MOST_NEWS:
            news.put((what, facts))

    _make_archive(config)
    totals: Counter[str] = Counter()
    log = config.common.log
    with logging_to(format=log.format, level=log.level), stopped_by_signals(news, reload=("reload", {})):
        runner = Runner(config, only=chosen, observer=observe, reread=reread)
        try:
            runner.start()
            _ready(runner)
            _tell(runner, news, patience, totals)
        finally:
            runner.stop()
        for item in left_over(news):
            _news(item, totals, judged="archiver" in runner.names)
        _last(runner, totals)


def _make_archive(config: Config) -> None:
    try:
        config.common.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            error.errno,
            f"cannot be made ({error.strerror}); choose another archive.root",
            str(config.common.root),
        ) from error


def _web(service: Service) -> str:
    """Where it answers people over HTTP, if it does."""
    web = getattr(service, "web", None)
    return "" if web is None else str(web.url)


def _ready(runner: Runner) -> None:
    common = runner.config.common
    console.say(f"{', '.join(runner.services) or 'nothing'} up; archive {common.archive.root}")
    for name, reason in runner.failed.items():
        console.say(f"{name} does not start: {reason}; it is tried again")
    for name, service in runner.services.items():
        page = "" if service.page is None else f"page {service.page.url}"
        held = "" if service.control is None else f"control {service.control.endpoint}"
        answers = f"answers at {_web(service)}" if _web(service) else ""
        console.say(f"  {name}: {', '.join(part for part in (page, held, answers) if part) or 'running'}")
    console.flush()
    console.event(
        "ready",
        {
            "archive": common.archive.root,
            "ledger": _shown(common.ledger),
            "pid": os.getpid(),
            "failed": runner.failed,
            "services": {
                name: {
                    "page": None if service.page is None else service.page.url,
                    "control": None if service.control is None else service.control.endpoint,
                    "state": service.state.value,
                    **({"web": _web(service)} if _web(service) else {}),
                }
                for name, service in runner.services.items()
            },
        },
    )


def _tell(
    runner: Runner,
    news: queue.SimpleQueue[_News | None],
    patience: float | None,
    totals: Counter[str],
) -> None:
    for item in heard(news, lambda: runner.idle, patience):
        if item[0] == "reload":
            _reload(runner)
        else:
            _news(item, totals, judged="archiver" in runner.names)


def _reload(runner: Runner) -> None:
    try:
        changed = runner.reload()
    except (RaftwrightError, OSError) as error:
        console.say(f"the configuration is not taken, the old one stays: {error}")
        console.event("reload", {"ok": False, "reason": str(error)})
    else:
        said = ", ".join(f"{name}.{key}" for name, keys in changed.items() for key in keys)
        console.say(f"the configuration was read again; changed: {said or 'nothing'}")
        console.event("reload", {"ok": True, "changed": changed})
    console.flush()


def _news(item: _News, totals: Counter[str], *, judged: bool) -> None:
    what, facts = item
    totals[f"{facts.get('service', '')} {what}"] += 1
    line = _line(what, facts, totals, judged=judged)
    if line:
        console.say(line)
        console.flush()
    console.event(what, facts)


def _line(what: str, facts: Mapping[str, Any], totals: Counter[str], *, judged: bool) -> str:
    """What people are told of it; nothing of what they need not know. Where an archiver runs (`judged`) the
    line of an image is his."""
    service = facts.get("service", "")
    if what == "image" and service == "archiver":
        totals[f"{facts['state']} images"] += 1
        return _judged_line(facts)
    if what == "image" and service in ("forwarder", "catchup"):
        for key, fact in (("files", "files"), ("bytes", "bytes"), ("missing", "missing_pixels")):
            totals[key] += facts[fact]
        if service == "catchup":
            return f"catchup: {image_line({**facts, 'latency_s': None})}"
        return "" if judged else image_line(facts)
    if what == "state" and facts["state"] != "ENABLED":
        return f"{service}: {facts['before']} -> {facts['state']}"
    if what == "fault":
        over = f" is over ({facts['ended']})" if facts["over"] else ""
        return f"{service}: fault {facts['code']} {facts['name']}{over}: {facts['reason']}"
    if what == "failed":
        return f"{service} does not start: {facts['reason']}; it is tried again"
    return ""


def _judged_line(facts: Mapping[str, Any]) -> str:
    line = f"{facts['obsid']}: {facts['state']}, {facts['present']} of {facts['expected']} detectors"
    if facts.get("latency_s") is not None:
        line += f", {seconds(max(0.0, facts['latency_s']))} after the readout"
    return f"{line}; {facts['reason']}" if facts.get("reason") else line


def image_line(facts: Mapping[str, Any]) -> str:
    """An image that a forwarder has finished, in one line."""
    line = f"{facts['image']}: {count(facts['files'], 'file')}, {size(facts['bytes'])}"
    if facts["missing_pixels"]:
        line += f", {count(facts['missing_pixels'], 'pixel')} missing"
    others = sorted(set(facts["states"].values()) - {"done"})
    if others:
        line += f", {', '.join(others)}"
    if facts["latency_s"] is not None:
        line += f", {seconds(facts['latency_s'])} after the last byte"
    return line


def _last(runner: Runner, totals: Counter[str]) -> None:
    images = totals["forwarder image"]
    said = [f"{count(images, 'image')}, {count(totals['files'], 'file')}, {size(totals['bytes'])}"]
    if totals["missing"]:
        said.append(f"{count(totals['missing'], 'pixel')} missing")
    states = {key.removesuffix(" images"): n for key, n in totals.items() if key.endswith(" images")}
    said += [f"{n:,} {state}" for state, n in sorted(states.items())]
    faults = sum(n for key, n in totals.items() if key.endswith(" fault"))
    if faults:
        said.append(f"faults told {faults:,} times")
    if {"forwarder", "archiver", "catchup"} & set(runner.names):
        console.say("; ".join(said))
    for name, reason in runner.failed.items():
        console.say(f"{name} was never started: {reason}")
    console.event(
        "stopped",
        {
            "images": images,
            "states": states,
            "files": totals["files"],
            "bytes": totals["bytes"],
            "faults": faults,
            "failed": runner.failed,
        },
    )
