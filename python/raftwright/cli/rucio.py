"""`raftwright rucio`: registration of an archive's files, and what Rucio still has to do."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raftwright.cli.console import console
from raftwright.cli.exits import Exit
from raftwright.cli.figures import count, seconds
from raftwright.cli.options import JsonOption, duration

if TYPE_CHECKING:
    from raftwright.backbone.receiving import Register
    from raftwright.backbone.rucio import RucioSettings

__all__ = ["app"]

app = typer.Typer(
    help="Registration of files in Rucio, with datasets of exposures and rules.",
    rich_markup_mode=None,
    no_args_is_help=False,
)

OptionsOption = Annotated[
    Path,
    typer.Option("--options", metavar="FILE", help="YAML: rse, scope, pfn and more.", show_default=False),
]
RootOption = Annotated[
    Path, typer.Option("--root", metavar="DIR", help="Root of the files.", show_default=False)
]
QueueOption = Annotated[
    Path | None,
    typer.Option(
        "--queue", metavar="FILE", help="[default: .rucio/register.db below the root]", show_default=False
    ),
]
_NAME = "rucio"
_SHOWN = 20


@app.command("register")
def register(
    options: OptionsOption,
    root: RootOption,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATH", help="Files or directories below the root.", show_default=False),
    ] = None,
    queue: QueueOption = None,
    patience: Annotated[
        str, typer.Option("--patience", metavar="TIME", help="Then what is left stays in the queue.")
    ] = "10min",
    json: JsonOption = False,
) -> None:
    """Queue files for registration, and register what is in the queue.

    The queue lasts: what could not be done stays in it, and the next call, without a path too, goes on. Exit
    code 5 where something is left.
    """
    del json
    console.command = "rucio register"
    from raftwright.backbone.receiving import Ingest
    from raftwright.backbone.receiving.backfilling import backfill
    from raftwright.backbone.receiving.ingesting import Ingester
    from raftwright.backbone.rucio_plugin import RucioPlugin
    from raftwright.service.logs import logging_to

    until = time.monotonic() + duration(patience, "--patience")
    settings = _settings(options)
    plugin = RucioPlugin(settings)
    with _register(root, queue) as opened, logging_to(level="error"):
        entered = backfill(opened, paths or (), [_NAME], "UNTRIED", md5=settings.md5)
        ingester = Ingester(Ingest(plugin=_NAME, backoff=0.5, longest=30.0), opened, plugin)
        try:
            while opened.waiting(_NAME)[0] and time.monotonic() < until:
                opened.renew()
                if not ingester.work():
                    time.sleep(0.1)
        finally:
            ingester.close()
        states, (left, oldest) = opened.counts().get(_NAME, {}), opened.waiting(_NAME)
        dead = opened.dead_letters(_SHOWN)
    console.say(*(f"{name}: {why}" for name, why in entered.odd[:_SHOWN]))
    console.say(*(f"{row.name}: {why}" for row, _, _, why in dead))
    done = states.get("SUCCESS", 0)
    console.say(
        f"{count(entered.new, 'file')} queued, {done} registered in all, {left} left, {len(dead)} failed"
    )
    if ingester.trouble and left:
        console.note(ingester.trouble)
    bad = bool(left or dead or entered.odd)
    code = Exit.FAULTS if bad else Exit.OK
    console.answer(
        "left" if bad else "ok",
        code,
        {
            "queued": entered.new,
            "states": states,
            "left": left,
            "oldest_s": oldest,
            "trouble": ingester.trouble,
            "odd": entered.odd[:1000],
            "failed": [{"name": row.name, "state": state, "message": why} for row, _, state, why in dead],
        },
    )
    if bad:
        raise typer.Exit(code)


@app.command("audit")
def audit(
    options: OptionsOption,
    root: RootOption,
    queue: QueueOption = None,
    again: Annotated[bool, typer.Option("--again", help="Queue what is missing once more.")] = False,
    json: JsonOption = False,
) -> None:
    """Compare what was registered with what Rucio has. Exit code 5 where they differ."""
    del json
    console.command = "rucio audit"
    from raftwright.backbone.rucio_plugin import RucioPlugin

    plugin = RucioPlugin(_settings(options))
    found: list[tuple[str, str]] = []
    looked, after = 0, 0
    with _register(root, queue) as opened:
        try:
            while items := opened.ended(_NAME, "SUCCESS", after):
                looked, after = looked + len(items), items[-1].id
                wrong = plugin.audit(items)
                named = {item.id: item.name for item in items}
                found += [(named[number], why) for number, why in wrong.items()]
                if again and wrong:
                    opened.rerun(_NAME, names=[named[number] for number in wrong], states=["SUCCESS"])
        finally:
            plugin.close()
    console.say(*(f"{name}: {why}" for name, why in found[:_SHOWN]))
    console.say(
        f"{count(looked, 'file')} looked at, {len(found)} differ" + ("; queued" if again and found else "")
    )
    code = Exit.FAULTS if found else Exit.OK
    console.answer(
        "faults" if found else "ok", code, {"looked_at": looked, "differ": found[:10_000], "queued": again}
    )
    if found:
        raise typer.Exit(code)


@app.command("status", short_help="Say what waits, and which rules are not satisfied.")
def status(
    options: OptionsOption,
    root: RootOption,
    queue: QueueOption = None,
    older: Annotated[
        str, typer.Option("--older", metavar="TIME", help="Only rules that are older than this.")
    ] = "0s",
    json: JsonOption = False,
) -> None:
    """Say what waits in the queue, and which rules Rucio has not satisfied, with their ages."""
    del json
    console.command = "rucio status"
    from raftwright.backbone.rucio import Registrar

    with _register(root, queue) as opened:
        states, (left, oldest) = opened.counts().get(_NAME, {}), opened.waiting(_NAME)
    registrar = Registrar(_settings(options))
    try:
        version, pending = registrar.ping(), registrar.pending(duration(older, "--older"))
    finally:
        registrar.close()
    console.say(
        f"Rucio {version}; {left} files wait for registration"
        + (f", the oldest for {seconds(oldest)}" if left else "")
    )
    for each in pending[:_SHOWN]:
        console.say(
            f"{each.dataset} at {each.rses}: {each.state} for {seconds(each.age)}, "
            f"{each.left} files {each.error}".rstrip()
        )
    console.say(f"{count(len(pending), 'rule')} not satisfied")
    content: dict[str, Any] = {
        "server": version,
        "states": states,
        "waiting": left,
        "oldest_s": oldest,
        "rules": [{key: getattr(each, key) for key in each.__struct_fields__} for each in pending],
    }
    console.answer("ok", Exit.OK, content)


def _settings(path: Path) -> RucioSettings:
    from raftwright.backbone.receiving.plugins import options_of
    from raftwright.backbone.rucio import RucioSettings
    from raftwright.service.documents import read_document

    values, _ = read_document(str(path))
    return options_of(RucioSettings, values, "rucio")


def _register(root: Path, queue: Path | None) -> Register:
    from raftwright.backbone.receiving import Register
    from raftwright.errors import NotFoundError

    if not root.is_dir():
        raise NotFoundError(f"{root}: there is no such directory; name the root of the files")
    # Nobody renews it beside a request that takes long; a process that is gone is known at once all the same.
    return Register(queue or root / ".rucio" / "register.db", root.absolute(), lease=600.0)
