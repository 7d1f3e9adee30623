"""`raftwright oods run|status|again`: the service, how its queue stands, its dead letters."""

from __future__ import annotations

import json as jsons
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raftwright.cli.console import columns, console
from raftwright.cli.exits import Exit
from raftwright.cli.figures import count
from raftwright.cli.ledgers import NightOption, ledger_of, open_known
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
from raftwright.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from raftwright.oods import Oods

__all__ = ["OodsConfigOption", "OodsLedgerOption", "RepoOption", "again", "run", "site_of", "status"]

OodsConfigOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Configuration of the site, with a section `oods`; options go before it.",
        show_default=False,
    ),
]
OodsLedgerOption = Annotated[
    str | None,
    typer.Option("--ledger", metavar="URL", help="[default: ledger.db in the archive]", show_default=False),
]
RepoOption = Annotated[
    str | None,
    typer.Option("--repo", metavar="DIR", help="The Butler repository.", show_default=False),
]
_SHOWN = 20


def run(
    config: OodsConfigOption = None,
    out: OutOption = None,
    ledger: OodsLedgerOption = None,
    repo: RepoOption = None,
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
    """Ingest the archive's raws into a Butler repository as they are written, and announce each.

    Runs until it is stopped; what was left it does when it is started again. One line for each file that
    cannot be ingested; with --json one object for every file.
    """
    del json
    console.command = "oods run"
    from raftwright.oods import Oods, Places
    from raftwright.service import Life

    found = site_of(config, out, ledger, repo)
    places = Places(
        ledger=found.common.ledger,
        camera=found.common.site.camera,
        publish=events or "",
        listen=tuple(listen or ()),
    )
    service = Oods(found.settings("oods"), places, Life(page=metrics or "", control=control or ""))
    patience = duration(until_idle, "--until-idle")
    run_service(lambda: service, {"file": _file}, _ready, log=found.common.log, patience=patience)
    console.event("stopped", {"repository": service.settings.repository})


def status(
    obsid: Annotated[
        str | None, typer.Argument(metavar="[OBSID]", help="An image: its files in the repository.")
    ] = None,
    config: OodsConfigOption = None,
    out: OutOption = None,
    ledger: OodsLedgerOption = None,
    repo: RepoOption = None,
    night: NightOption = None,
    json: JsonOption = False,
) -> None:
    """Tell how many files are ingested, wait, were given up or set aside, and why; or each file of one image.

    What is set aside has the name of a raw, and is none, not whole, or changed since it was ingested.
    """
    del json
    console.command = "oods status"

    from raftwright.oods.aside import standing
    from raftwright.oods.hearing import silent_of

    found = site_of(config, out, ledger, repo)
    settings = found.settings("oods")
    name = settings.name
    with open_known(found.common.ledger, read_only=True) as opened:
        if obsid is not None:
            images = opened.images.get(obsid)
            if not images:
                raise NotFoundError(f"{obsid[:100]!a}: the ledger knows no such image")
            rows = [row for image in images for row in opened.ingests.of(image.id, name)]
            console.say(
                *columns([(row.detector, row.state, row.uri or row.path, row.reason) for row in rows])
            )
            content = [
                {
                    "detector": row.detector,
                    "state": row.state,
                    "uri": row.uri,
                    "path": row.path,
                    "reason": row.reason,
                }
                for row in rows
            ]
            console.answer("ok", Exit.OK, {"repository": name, "image": obsid, "files": content})
            return
        states = opened.ingests.counts(name, night).get(name, {})
        letters = opened.ingests.select(
            repository=name, states=("failed", "conflict", "unsupported"), dayobs=night, limit=1000
        )
        aside = standing(opened, settings) if night is None else []
        silent = silent_of(opened, name)
    console.say(*columns([(state, count(number, "file")) for state, number in states.items()]))
    if not states:
        console.say("nothing is ingested, and nothing waits")
    for row in letters[:_SHOWN]:
        console.say(f"  {row.path}: {row.state} after {count(row.attempts, 'try', 'tries')}: {row.reason}")
    if len(letters) > _SHOWN:
        console.say(f"  and {len(letters) - _SHOWN} more")
    if aside:
        console.say(f"{count(len(aside), 'file')} set aside; `raftwright oods again` tries them once more")
    for thing in aside[:_SHOWN]:
        once_more = "; it is tried again" if thing.standing == "again" else ""
        console.say(f"  {thing.shown}: {thing.reason}{once_more}")
    if len(aside) > _SHOWN:
        console.say(f"  and {len(aside) - _SHOWN} more")
    for reason in silent.values():
        console.say(f"alarm: {reason}")
    content = [
        {
            "path": row.path,
            "obsid": row.obsid,
            "detector": row.detector,
            "state": row.state,
            "reason": row.reason,
        }
        for row in letters
    ]
    told = [
        {
            "name": thing.shown,
            "what": thing.what,
            "reason": thing.reason,
            "again": thing.standing == "again",
            "times": thing.count,
            "last_tai": thing.last_tai,
        }
        for thing in aside
    ]
    console.answer(
        "ok",
        Exit.OK,
        {
            "repository": name,
            "files": states,
            "dead_letters": content,
            "set_aside": told,
            "silent": silent,
        },
    )


def again(
    config: OodsConfigOption = None,
    out: OutOption = None,
    ledger: OodsLedgerOption = None,
    repo: RepoOption = None,
    json: JsonOption = False,
) -> None:
    """Queue dead letters once more: what failed, conflicts, unsupported files; and try what was set aside.

    A running OODS does it.
    """
    del json
    console.command = "oods again"
    from raftwright.oods.aside import again as again_of

    found = site_of(config, out, ledger, repo)
    settings = found.settings("oods")
    with open_known(found.common.ledger) as opened:
        queued = opened.ingests.again(settings.name, states=("failed", "conflict", "unsupported"))
        aside = again_of(opened, settings)
    console.say(f"{count(queued, 'file')} queued again")
    if aside:
        console.say(f"{count(aside, 'file')} set aside, to be looked at again")
    console.answer("ok", Exit.OK, {"queued": queued, "set_aside": aside})


def site_of(config: Sequence[Path] | None, out: str | None, ledger: str | None, repo: str | None) -> Any:
    """The configuration, with what the options say. Raises as `raftwright.service.config.load`."""
    from raftwright.cli.configs import files_of
    from raftwright.service.config import load

    files = files_of(config)
    if ledger is not None and out is None and not files and "://" not in ledger:
        out = str(Path(ledger_of(ledger)).parent)
    lacking = [
        option
        for option, value, variable in (
            ("--out DIR", out, "RAFTWRIGHT_ARCHIVE__ROOT"),
            ("--repo DIR", repo, "RAFTWRIGHT_OODS__REPOSITORY"),
        )
        if value is None and not files and variable not in os.environ
    ]
    if lacking:
        raise UsageError(f"name the site with --config FILE, or give {' and '.join(lacking)}")
    given = {
        "archive.root": out,
        "ledger.url": None if ledger is None else ledger_of(ledger),
        "oods.repository": None if repo is None else os.path.abspath(repo),
    }
    options = [f"{key}={jsons.dumps(value)}" for key, value in given.items() if value is not None]
    return load(files, options=options, text="oods: {}")


def _ready(service: Oods) -> None:
    page = None if service.page is None else service.page.url
    where = service.settings.repository
    console.say(
        f"repository {where}"
        + ("" if service.active else "; another OODS works, this one waits")
        + ("" if page is None else f"; figures at {page}")
        + ("" if service.web is None else f"; answers at {service.web.url}")
    )
    console.flush()
    web = None if service.web is None else service.web.url
    console.event("ready", {"repository": where, "active": service.active, "metrics": page, "web": web})


def _file(facts: Mapping[str, Any]) -> None:
    if facts["state"] != "ingested":
        console.say(f"{facts['path']}: {facts['state']}: {facts['reason']}")
        console.flush()
    console.event("file", facts)
