"""`raftwright header`: the header service, and looking at specifications and documents."""

from __future__ import annotations

import json as jsons
import queue
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from raftwright.cli.console import columns, console
from raftwright.cli.exits import Exit
from raftwright.cli.figures import count
from raftwright.cli.options import JsonOption, duration
from raftwright.cli.signals import stopped_by_signals
from raftwright.errors import UsageError

if TYPE_CHECKING:
    from raftwright.header.service import HeaderService
    from raftwright.header.spec import CardSpec, Spec

__all__ = ["app"]

app = typer.Typer(
    help="Header documents: the service that makes them, and what one should be.",
    rich_markup_mode=None,
    no_args_is_help=False,
)

SpecOption = Annotated[
    str | None,
    typer.Option(
        "--spec",
        metavar="CAMERA|FILE",
        help="Specification: of a built-in camera, or a file.",
        show_default=False,
    ),
]


@app.command("run")
def run(
    archive: Annotated[
        str | None, typer.Option("--archive", metavar="DIR", help="Root of the archive.", show_default=False)
    ] = None,
    spec: SpecOption = None,
    config: Annotated[
        list[Path] | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="Configuration of the site; options go before it.",
            show_default=False,
        ),
    ] = None,
    listen: Annotated[
        list[str] | None,
        typer.Option(
            "--listen", metavar="URL", help="Where events are published; may be repeated.", show_default=False
        ),
    ] = None,
    directory: Annotated[
        str | None,
        typer.Option(
            "--directory", metavar="DIR", help="Where files with events are put.", show_default=False
        ),
    ] = None,
    daq: Annotated[
        str | None,
        typer.Option("--daq", metavar="ENDPOINT", help="Control socket of the DAQ.", show_default=False),
    ] = None,
    events: Annotated[
        str | None,
        typer.Option("--events", metavar="URL", help="Where headers are announced.", show_default=False),
    ] = None,
    ledger: Annotated[
        str | None,
        typer.Option("--ledger", metavar="URL", help="Where headers are entered.", show_default=False),
    ] = None,
    door: Annotated[
        str | None,
        typer.Option("--door", metavar="HOST:PORT", help="Serves headers over HTTP.", show_default=False),
    ] = None,
    journal: Annotated[
        str | None,
        typer.Option("--journal", metavar="FILE", help="[default: .header/journal in the archive]"),
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option("--deadline", metavar="TIME", help="For the end of telemetry.  [default: 30s]"),
    ] = None,
    metrics: Annotated[
        str,
        typer.Option(
            "--metrics", metavar="HOST:PORT", help="Page of figures; port 0: any.", show_default=False
        ),
    ] = "",
    control: Annotated[
        str, typer.Option("--control", metavar="ENDPOINT", help="Control socket.", show_default=False)
    ] = "",
    json: JsonOption = False,
) -> None:
    """Gather what is told of images and write their header documents into the archive.

    Runs until it is stopped. One line a header; with --json these are JSON objects, one a line.
    """
    del json
    console.command = "header run"
    from raftwright.service.logs import logging_to

    given = {
        "archive": archive,
        "spec": spec,
        "listen": listen,
        "directory": directory,
        "daq": daq,
        "events": events,
        "ledger": ledger,
        "door": door,
        "journal": journal,
        "deadline": None if deadline is None else duration(deadline, "--deadline"),
    }
    service = _service(config, {key: value for key, value in given.items() if value is not None})
    life = service.life
    service.life = msgspec.structs.replace(life, page=metrics or life.page, control=control or life.control)
    news: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()
    service.observer = lambda what, facts: news.put(facts) if what == "header" else None
    with logging_to(), stopped_by_signals(news):
        try:
            service.start()
            _ready(service)
            while (facts := _next(news)) is not None:
                _told(facts)
        finally:
            service.stop()
    while not news.empty():
        facts = news.get()
        if facts is not None:
            _told(facts)


def _service(config: list[Path] | None, given: dict[str, Any]) -> HeaderService:
    """Of the configuration, or of the options alone. Raises UsageError, FormatError, NotFoundError."""
    from raftwright.header.service import HeaderService
    from raftwright.header.settings import Settings

    if config:
        from raftwright.service import config as configuration

        options = [f"header.{key}={jsons.dumps(value)}" for key, value in given.items()]
        built = configuration.load(config, options=options, text="header: {}").build("header")
        assert isinstance(built, HeaderService)
        return built
    lacking = [f"--{key}" for key in ("archive", "spec") if key not in given]
    if lacking:
        raise UsageError(f"{' and '.join(lacking)} or a configuration is needed; see --help")
    try:
        return HeaderService(msgspec.convert(given, Settings))
    except msgspec.ValidationError as error:
        raise UsageError(f"{error}; see raftwright header run --help") from None


def _next(news: queue.SimpleQueue[Mapping[str, Any] | None]) -> Mapping[str, Any] | None:
    while True:
        try:
            return news.get(timeout=3600.0)
        except queue.Empty:
            continue


def _ready(service: Any) -> None:
    facts = {
        "archive": service.settings.archive,
        "spec": service.spec.name,
        "events": None if service.publisher is None else service.publisher.endpoint,
        "door": None if service.door is None else service.door.url,
        "metrics": None if service.page is None else service.page.url,
        "recovered": service.recovered_images,
    }
    console.say(
        f"headers of {facts['spec']} into {facts['archive']}"
        + (f"; {count(service.recovered_images, 'image')} under way" if service.recovered_images else "")
        + (f"; at {facts['door']}" if facts["door"] else "")
    )
    console.flush()
    console.event("ready", facts)


def _told(facts: Mapping[str, Any]) -> None:
    line = f"{facts['obsid']}: {facts['state']}, version {facts['version']} {facts['outcome']}"
    if facts["lacking"]:
        line += f", lacks {', '.join(facts['lacking'])}"
    if facts["problems"]:
        line += f", {count(len(facts['problems']), 'problem')}"
    console.say(line)
    console.flush()
    console.event("header", facts)


@app.command("spec")
def show_spec(
    name: Annotated[str, typer.Argument(metavar="CAMERA|FILE", help="Of a built-in camera, or a file.")],
    json: JsonOption = False,
) -> None:
    """Show a specification: every card with its type, where it comes from, and whether it is mandatory."""
    del json
    console.command = "header spec"
    from raftwright.header import header_spec

    spec = header_spec(name)
    console.say(f"{spec.name}: header of {spec.camera.name}, {count(len(list(spec.cards())), 'card')}")
    for section in spec.sections:
        each = "" if section.each == "image" else f", one each {section.each}"
        console.say("", f"{section.name}{each}")
        rows: list[tuple[object, ...]] = []
        for group in section.groups:
            if group.title:
                rows.append((f"-- {group.title}", "", "", ""))
            rows += [_row(card) for card in group.cards]
        console.say(*columns(rows))
    console.answer("ok", Exit.OK, {"spec": _content(spec)})


def _row(card: CardSpec) -> tuple[object, ...]:
    sources = " | ".join(str(source) for source in card.sources)
    if card.default is not None:
        sources += f"{' | ' if sources else ''}default {card.default}"
    return (f"  {card.keyword}", card.type, "" if card.mandatory == "no" else card.mandatory, sources)


def _content(spec: Spec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "file": spec.file,
        "camera": spec.camera.name,
        "minimum": {group: list(keywords) for group, keywords in spec.minimum.items()},
        "sections": [
            {
                "name": section.name,
                "each": section.each,
                "cards": [
                    {
                        "keyword": card.keyword,
                        "type": card.type,
                        "sources": [str(source) for source in card.sources],
                        "default": card.default,
                        "mandatory": card.mandatory,
                        "range": [card.low, card.high],
                        "comment": card.comment,
                    }
                    for card in section.cards()
                ],
            }
            for section in spec.sections
        ],
    }


@app.command("check-spec")
def check_spec(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Specification file.")],
    json: JsonOption = False,
) -> None:
    """Check a specification file: everything that is wrong, with its line. Exit code 5 if there is any."""
    del json
    console.command = "header check-spec"
    from raftwright.header import check_spec_file, header_spec

    problems = check_spec_file(file)
    code = Exit.FAULTS if problems else Exit.OK
    console.say(*problems)
    content: dict[str, Any] = {
        "file": file,
        "problems": [{"line": p.line, "place": p.place, "message": p.message} for p in problems],
    }
    if problems:
        console.error(f"{file}: {count(len(problems), 'problem')}; the first: {problems[0]}")
    else:
        spec = header_spec(file)
        console.say(f"{file}: no problem. {spec.name}: {count(len(list(spec.cards())), 'card')}")
    console.answer("faults" if problems else "ok", code, content)
    raise typer.Exit(code)


@app.command("check")
def check(
    documents: Annotated[list[Path], typer.Argument(metavar="DOC.yaml...", help="Header documents.")],
    spec: SpecOption = None,
    json: JsonOption = False,
) -> None:
    """Tell what is wrong with header documents: times, ranges, identity, what they lack. Exit code 5 if
    anything is."""
    del json
    console.command = "header check"
    from raftwright.header.inspection import inspect_document

    content = []
    faults = 0
    for document in documents:
        found = inspect_document(document, spec)
        content.append({"document": document, "faults": found.faulty, **found.to_dict()})
        faults += found.faulty
        where = f"{document}: " if len(documents) > 1 else ""
        console.say(*(f"{where}{problem}" for problem in (*found.problems, *found.notes)))
        if found.lacking:
            console.say(f"{where}mandatory keywords without a value: {', '.join(found.lacking)}")
        for group, keywords in found.groups.items():
            console.say(f"{where}least metadata, {group}: {', '.join(keywords)} without a value")
        what = count(found.faulty, "fault") if found.faulty else "no fault"
        console.say(f"{document}: {found.obsid or 'no image'}, {count(found.records, 'record')}, {what}")
    if faults:
        console.error(f"{count(len(documents), 'document')}, {count(faults, 'fault')}")
    code = Exit.FAULTS if faults else Exit.OK
    console.answer("faults" if faults else "ok", code, {"documents": content})
    raise typer.Exit(code)
