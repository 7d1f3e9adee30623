"""`raftwright endpoint`: the side that receives hand-overs."""

from __future__ import annotations

import json as jsons
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raftwright.cli.configs import files_of
from raftwright.cli.console import columns, console
from raftwright.cli.exits import Exit
from raftwright.cli.figures import count, seconds
from raftwright.cli.options import JsonOption, UntilIdleOption, duration
from raftwright.cli.running import run_service
from raftwright.errors import UsageError

if TYPE_CHECKING:
    from raftwright.backbone.receiving import Endpoint, Register, Settings
    from raftwright.service.config import Config

__all__ = ["app"]

app = typer.Typer(
    help="Receiving hand-overs: files are taken in, stored and ingested, each attempt is remembered.",
    rich_markup_mode=None,
    no_args_is_help=False,
)

ConfigOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Configuration of the site, with a section `endpoint`; options go before it.",
        show_default=False,
    ),
]
BufferOption = Annotated[
    str | None,
    typer.Option("--buffer", metavar="DIR", help="Where hand-overs appear.", show_default=False),
]
StorageOption = Annotated[
    str | None, typer.Option("--storage", metavar="DIR", help="Root of the files.", show_default=False)
]
IngestOption = Annotated[
    list[str] | None,
    typer.Option(
        "--ingest",
        metavar="PLUGIN[:JSON]",
        help="Plug-in with its options; may be repeated. Instead of those of the file.",
        show_default=False,
    ),
]
IngesterOption = Annotated[
    str | None, typer.Option("--ingester", metavar="NAME", help="Only of this one.", show_default=False)
]
_SHOWN = 20


@app.command("run")
def run(
    config: ConfigOption = None,
    buffer: BufferOption = None,
    storage: StorageOption = None,
    ingest: IngestOption = None,
    until_idle: UntilIdleOption = None,
    json: JsonOption = False,
) -> None:
    """Take in, store and ingest what is handed over.

    Runs until it is stopped; what was left it does when it is started again. One line a file that is ingested
    or refused; with --json these are JSON objects, one a line.
    """
    del json
    console.command = "endpoint run"
    endpoint = _serve(_found(config, buffer, storage, ingest), duration(until_idle, "--until-idle"))
    console.event("stopped", {"taken": endpoint.taken})


@app.command("once")
def once(
    config: ConfigOption = None,
    buffer: BufferOption = None,
    storage: StorageOption = None,
    ingest: IngestOption = None,
    patience: Annotated[
        str, typer.Option("--patience", metavar="TIME", help="Then what is not done is left.")
    ] = "60s",
    json: JsonOption = False,
) -> None:
    """Do what there is to do now, and end. Exit code 5 where something is left or was refused."""
    del json
    console.command = "endpoint once"
    found = _found(config, buffer, storage, ingest)
    endpoint = _serve(found, 0.5, longest=duration(patience, "--patience"))
    settings: Settings = found.settings("endpoint")
    with _register(settings) as register:
        from raftwright.backbone.receiving.service import status_of

        status = status_of(register)
    left = sum(each["waiting"] for each in status["ingesters"].values())
    failed = sum(
        number
        for each in status["ingesters"].values()
        for state, number in each["states"].items()
        if state in ("FAILURE", "UNKNOWN", "INVALID")
    )
    aside = status["files"].get("refused", 0) + status["files"].get("conflict", 0)
    bad = bool(left or failed or aside or endpoint.problems())
    console.say(
        f"{count(endpoint.taken, 'file')} taken in, {left} left to ingest, {failed} failed, {aside} set aside"
    )
    console.event(
        "done", {"taken": endpoint.taken, "exit_code": int(Exit.FAULTS if bad else Exit.OK), **status}
    )
    if bad:
        raise typer.Exit(Exit.FAULTS)


@app.command("status")
def status(config: ConfigOption = None, storage: StorageOption = None, json: JsonOption = False) -> None:
    """Say where files stand, what failed and what was set aside."""
    del json
    console.command = "endpoint status"
    from raftwright.backbone.receiving.service import status_of

    with _register(_found(config, None, storage, None).settings("endpoint"), must_exist=True) as register:
        found = status_of(register)
        dead = register.dead_letters(_SHOWN)
        aside = register.set_aside(_SHOWN)
    console.say(", ".join(f"{number} {place}" for place, number in found["files"].items()) or "no files came")
    for name, each in found["ingesters"].items():
        states = ", ".join(f"{number} {state}" for state, number in each["states"].items())
        waits = (
            f"; the oldest of {each['waiting']} waits for {seconds(each['oldest_s'])}"
            if each["waiting"]
            else ""
        )
        console.say(f"{name}: {states or 'nothing'}{waits}")
    console.say(*(f"  {row.name}: {name} {state}: {why}" for row, name, state, why in dead))
    console.say(*(f"  {row.name}: {row.place}: {why}; kept as {row.kept_as}" for row, why in aside))
    content = {
        **found,
        "dead_letters": [
            {"file": row.id, "name": row.name, "ingester": name, "state": state, "message": why}
            for row, name, state, why in dead
        ],
        "set_aside": [
            {"file": row.id, "name": row.name, "place": row.place, "kept_as": row.kept_as, "message": why}
            for row, why in aside
        ],
    }
    console.answer("ok", Exit.OK, content)


@app.command("history")
def history(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of a file, with its directory or without.")],
    config: ConfigOption = None,
    storage: StorageOption = None,
    json: JsonOption = False,
) -> None:
    """Tell every attempt at a file."""
    del json
    console.command = "endpoint history"
    from raftwright.errors import NotFoundError

    with _register(_found(config, None, storage, None).settings("endpoint"), must_exist=True) as register:
        files = [(row, register.events(row.id)) for row in register.files(name)]
    if not files:
        raise NotFoundError(f"{name[:300]}: no such file came; name it as it was in the buffer")
    for row, events in files:
        console.say(
            f"{row.name}, {row.bytes} bytes, CRC-32C {row.crc32c}: {row.place} {row.kept_as}".rstrip()
        )
        rows = [
            (
                *(_iso(each.begun_tai), each.ingester, each.state, each.attempt or ""),
                *("" if each.duration is None else seconds(each.duration), each.message),
            )
            for each in events
        ]
        console.say(*("  " + line for line in columns(rows)))
    console.answer(
        "ok",
        Exit.OK,
        {
            "files": [
                {
                    **{key: getattr(row, key) for key in row.__struct_fields__},
                    "events": [
                        {key: getattr(each, key) for key in each.__struct_fields__} for each in events
                    ],
                }
                for row, events in files
            ]
        },
    )


@app.command("rerun")
def rerun(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Only these files.", show_default=False)
    ] = None,
    config: ConfigOption = None,
    storage: StorageOption = None,
    ingester: IngesterOption = None,
    state: Annotated[
        list[str] | None,
        typer.Option(
            "--state",
            metavar="STATE",
            help="What ended so; may be repeated.  [default: FAILURE, UNKNOWN, INVALID]",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Ask once more for what failed. A running endpoint begins with it within a second."""
    del json
    console.command = "endpoint rerun"
    from raftwright.backbone.receiving.rows import STATES

    states = [each.upper() for each in state or ("FAILURE", "UNKNOWN", "INVALID")]
    wrong = [each for each in states if each not in STATES or each == "PENDING"]
    if wrong:
        raise UsageError(f"--state: {wrong[0][:40]} is none; there are {', '.join(STATES)}, but not PENDING")
    with _register(_found(config, None, storage, None).settings("endpoint"), must_exist=True) as register:
        asked = register.rerun(ingester, names=names or (), states=states)  # type: ignore[arg-type]
    console.say(f"{count(asked, 'file')} to be ingested once more")
    console.answer("ok", Exit.OK, {"queued": asked})


@app.command("backfill", short_help="Enter files that stood in the storage before.")
def backfill(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATH", help="Below the storage; all of it by default.", show_default=False),
    ] = None,
    config: ConfigOption = None,
    storage: StorageOption = None,
    ingest: Annotated[
        bool, typer.Option("--untried", help="They are to be ingested; else they count as ingested.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Enter files that stand in the storage and never came through the buffer."""
    del json
    console.command = "endpoint backfill"
    from raftwright.backbone.receiving.backfilling import backfill as enter

    settings: Settings = _found(config, None, storage, None).settings("endpoint")
    with _register(settings) as register:
        found = enter(
            register,
            paths or [Path()],
            [each.label for each in settings.ingest],
            "UNTRIED" if ingest else "BACKFILL",
        )
    console.say(*(f"{name}: {why}" for name, why in found.odd[:_SHOWN]))
    console.say(f"{count(found.seen, 'file')} looked at, {found.new} entered")
    code = Exit.FAULTS if found.odd else Exit.OK
    console.answer("ok", code, {"seen": found.seen, "entered": found.new, "odd": found.odd[:1000]})
    if found.odd:
        raise typer.Exit(code)


@app.command("validate", short_help="Check the configuration.")
def validate(
    config: ConfigOption = None,
    buffer: BufferOption = None,
    storage: StorageOption = None,
    ingest: IngestOption = None,
    json: JsonOption = False,
) -> None:
    """Check the configuration, that directories are there, and that every plug-in can be made."""
    del json
    console.command = "endpoint validate"
    from raftwright.backbone.receiving.plugins import Where, make_plugin
    from raftwright.errors import NotFoundError

    settings: Settings = _found(config, buffer, storage, ingest).settings("endpoint")
    for key in ("buffer", "storage"):
        if not Path(getattr(settings, key)).is_dir():
            raise NotFoundError(f"{getattr(settings, key)}: there is no such {key}; make it, or mount it")
    for each in settings.ingest:
        where = Where(storage=Path(settings.storage), name=each.label)
        make_plugin(each.plugin, each.options, where).close()
    names = [each.label for each in settings.ingest]
    console.say(f"{settings.buffer} -> {settings.storage}, ingested by {', '.join(names) or 'nobody'}: sound")
    console.answer(
        "ok", Exit.OK, {"buffer": settings.buffer, "storage": settings.storage, "ingesters": names}
    )


# -- what they share


def _found(
    config: list[Path] | None, buffer: str | None, storage: str | None, ingest: list[str] | None
) -> Config:
    from raftwright.service import config as configuration

    files = files_of(config)
    given: dict[str, Any] = {}
    if buffer is not None:
        given["endpoint.buffer"] = str(Path(buffer).absolute())
    if storage is not None:
        given["endpoint.storage"] = str(Path(storage).absolute())
        if not files:
            given["archive.root"] = given["endpoint.storage"]
    if ingest:
        given["endpoint.ingest"] = [_ingest(each) for each in ingest]
    if not files:
        if storage is None:
            raise UsageError("--storage or a configuration is needed; see raftwright endpoint --help")
        given.setdefault("endpoint.buffer", given["endpoint.storage"] + ".no-buffer")
    options = [f"{key}={jsons.dumps(value)}" for key, value in given.items()]
    return configuration.load(files, options=options, text="endpoint: {}")


def _ingest(text: str) -> dict[str, Any]:
    """`rucio` or `rucio:{"rse": "X"}`."""
    plugin, _, options = text.partition(":")
    try:
        found = jsons.loads(options) if options else {}
    except ValueError as error:
        raise UsageError(f"--ingest {plugin[:40]}: its options are no JSON ({error})") from None
    return {"plugin": plugin, "options": found}


def _register(settings: Settings, *, must_exist: bool = False) -> Register:
    from raftwright.backbone.receiving import Register

    return Register(settings.register_path, settings.storage, must_exist=must_exist)


def _serve(found: Config, patience: float | None, *, longest: float | None = None) -> Endpoint:
    from raftwright.backbone.receiving import Endpoint

    def make() -> Endpoint:
        made = found.build("endpoint")
        assert isinstance(made, Endpoint)
        return made

    tells = {"taken": _taken, "ingested": _ingested}
    return run_service(make, tells, _ready, log=found.common.log, patience=patience, longest=longest)


def _ready(endpoint: Endpoint) -> None:
    console.say(f"{endpoint.settings.buffer} -> {endpoint.settings.storage}")
    console.flush()
    console.event("ready", {"buffer": endpoint.settings.buffer, "storage": endpoint.settings.storage})


def _taken(facts: Mapping[str, Any]) -> None:
    if facts["outcome"] != "stored":
        _told("taken", facts, str(facts["outcome"]))
    else:
        _told("taken", facts)


def _ingested(facts: Mapping[str, Any]) -> None:
    _told("ingested", facts, str(facts["verdict"]))


def _told(what: str, facts: Mapping[str, Any], outcome: str = "") -> None:
    if outcome:
        console.say(f"{facts['name']}: {outcome}" + (f": {facts['message']}" if facts["message"] else ""))
        console.flush()
    console.event(what, {key: facts[key] for key in facts if key != "service"})


def _iso(moment: float) -> str:
    from raftwright.rawfile import times

    return times.iso(int(moment * 1e9))
