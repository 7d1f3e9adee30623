"""`raftwright events`: what is told, and the messages that could not be dealt with."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raftwright.cli.console import columns, console
from raftwright.cli.exits import Exit
from raftwright.cli.figures import count
from raftwright.cli.options import JsonOption, duration, names
from raftwright.errors import FormatError, StorageError, UsageError

if TYPE_CHECKING:
    from raftwright.events import Event

__all__ = ["app"]

app = typer.Typer(
    help="Events: hear what services tell, what a kind must say, and the messages that nobody could use.",
    rich_markup_mode=None,
    no_args_is_help=False,
)

DirectoryArgument = Annotated[Path, typer.Argument(metavar="DIR", help="Where the dead letters are.")]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="As `events dead` lists them.")]
OptionsOption = Annotated[
    str,
    typer.Option(
        "--kafka-options", metavar="FILE", help="Security options of Kafka, mode 0600.", show_default=False
    ),
]


@app.command("listen")
def listen(
    urls: Annotated[
        list[str],
        typer.Argument(metavar="URL...", help="tcp://HOST:PORT, ipc://PATH, or kafka://HOST:PORT/PREFIX."),
    ],
    kinds: Annotated[
        list[str] | None,
        typer.Option("--kinds", metavar="KIND,...", help="Only these.", show_default=False),
    ] = None,
    group: Annotated[
        str,
        typer.Option(
            "--group", help="Of Kafka: go on where it was; what is shown is done.", show_default=False
        ),
    ] = "",
    number: Annotated[
        int | None,
        typer.Option("--count", min=1, metavar="N", help="End after so many.", show_default=False),
    ] = None,
    timeout: Annotated[
        str | None,
        typer.Option(
            "--timeout", metavar="TIME", help="End after this time without an event.", show_default=False
        ),
    ] = None,
    options: OptionsOption = "",
    json: JsonOption = False,
) -> None:
    """Print what is told, as it comes. With --json one object a line."""
    from raftwright.events import open_subscriber

    del json
    console.command = "events listen"
    seconds = None if timeout is None else duration(timeout, "--timeout")
    seen = 0
    with open_subscriber(*urls, kinds=names(kinds), group=group, options=options) as subscriber:
        for event in subscriber.events(seconds):
            _tell(event)
            subscriber.done(event)
            seen += 1
            if seen == number:
                break
        console.say(f"{count(seen, 'event')}, {subscriber.missed} missed, {subscriber.malformed} malformed")
        console.event("end", {"events": seen, "missed": subscriber.missed, "malformed": subscriber.malformed})


def _tell(event: Event) -> None:
    console.say(f"{event.time}  {event.publisher}  {event.kind}  {json_module.dumps(event.fields)}")
    console.flush()
    console.event(
        event.kind,
        {
            "time": event.time,
            "publisher": event.publisher,
            "log": event.log,
            "number": event.number,
            "fields": event.fields,
        },
    )


@app.command("relay")
def relay(
    ledger: Annotated[str, typer.Argument(metavar="LEDGER", help="Its file, or postgresql://...")],
    url: Annotated[str, typer.Argument(metavar="URL", help="Where it is told.")],
    name: Annotated[
        str, typer.Option("--name", help="Under which the ledger notes how far it was told.")
    ] = "relay",
    dead: Annotated[
        Path | None,
        typer.Option("--dead", metavar="DIR", help="For what cannot be told.", show_default=False),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="End when all is told.")] = False,
    options: OptionsOption = "",
    json: JsonOption = False,
) -> None:
    """Tell every change of the ledger, at least once, until Ctrl-C."""
    import time

    from raftwright.events import DeadLetters, LedgerLog, Outbox, open_publisher
    from raftwright.ledger import open_ledger

    del json
    console.command = "events relay"
    letters = None if dead is None else DeadLetters(dead)
    with open_ledger(ledger) as opened:
        log = LedgerLog(opened)
        with open_publisher(url, name=f"relay {name}", log=log, options=options) as publisher:
            outbox = Outbox(log, publisher, f"events {name}", dead=letters)
            if once:
                while outbox.step():
                    pass
            else:
                console.say(f"telling {opened.where} at {publisher.endpoint}")
                console.event("telling", {"ledger": opened.where, "url": publisher.endpoint})
                console.flush()
                outbox.start()
                try:
                    while True:
                        time.sleep(1.0)
                finally:
                    outbox.stop()
                    told = f"{count(outbox.relayed, 'event')} told, {outbox.skipped} not"
                    console.say(told)
    console.answer("ok", Exit.OK, {"told": outbox.relayed, "skipped": outbox.skipped})


@app.command("kinds")
def list_kinds(
    kind: Annotated[str | None, typer.Argument(metavar="[KIND]", show_default=False)] = None,
    json: JsonOption = False,
) -> None:
    """List the kinds of messages and the fields that each must have; of one, all its fields."""
    from raftwright.events import KINDS, MESSAGES

    del json
    console.command = "events kinds"
    if kind is None:
        console.say(*columns([("kind", "must have"), *((name, ", ".join(KINDS[name])) for name in KINDS)]))
        console.answer("ok", Exit.OK, {"kinds": {name: list(fields) for name, fields in KINDS.items()}})
        return
    if kind not in MESSAGES:
        raise UsageError(f"{kind!a} has no schema; raftwright events kinds lists those that have one")
    message = MESSAGES[kind]
    types = {name: str(said).replace("_", "") for name, said in _annotations(message).items()}
    console.say((message.__doc__ or "").partition("\n")[0])
    console.say(
        *columns(
            [
                ("field", "type", "must be"),
                *(
                    (name, types[name], "yes" if name in KINDS[kind] else "no")
                    for name in message.__struct_fields__
                ),
            ]
        )
    )
    fields = {name: {"type": types[name], "mandatory": name in KINDS[kind]} for name in types}
    console.answer("ok", Exit.OK, {"kind": kind, "schema": message.SCHEMA, "fields": fields})


def _annotations(message: Any) -> dict[str, Any]:
    """Names of the types of all fields, as they are written."""
    import inspect

    found: dict[str, Any] = {}
    for part in reversed(message.__mro__):
        found.update(inspect.get_annotations(part))
    return {name: found[name] for name in message.__struct_fields__}


@app.command("dead")
def list_dead(directory: DirectoryArgument, json: JsonOption = False) -> None:
    """List the messages that nobody could use, with the reason."""
    from raftwright.events import DeadLetters

    del json
    console.command = "events dead"
    dead = DeadLetters(directory)
    rows: list[dict[str, Any]] = []
    for name in dead.names():
        try:
            letter = dead.read(name)
        except FormatError as error:
            rows.append({"name": name, "time": "", "source": "", "bytes": 0, "reason": str(error)})
            continue
        rows.append(
            {
                "name": name,
                "time": letter.time,
                "source": letter.source,
                "bytes": letter.length,
                "reason": letter.reason,
            }
        )
    table = [("name", "time", "from", "bytes", "reason"), *(tuple(row.values()) for row in rows)]
    console.say(*columns(table, right=(3,)) if rows else ["no dead letters"])
    console.answer("ok", Exit.OK, {"directory": directory, "letters": rows})


@app.command("show")
def show_dead(directory: DirectoryArgument, name: NameArgument, json: JsonOption = False) -> None:
    """Print one of them whole."""
    from raftwright.events import DeadLetters

    del json
    console.command = "events show"
    letter = DeadLetters(directory).read(name)
    text = letter.body.decode(errors="backslashreplace")
    console.say(f"{letter.time}  from {letter.source}, {letter.length} bytes", letter.reason, text)
    console.answer(
        "ok",
        Exit.OK,
        {"name": name, "time": letter.time, "source": letter.source, "reason": letter.reason, "text": text},
    )


@app.command("replay")
def replay_dead(
    directory: DirectoryArgument,
    name: NameArgument,
    url: Annotated[str, typer.Argument(metavar="URL", help="Where it is told again.")],
    wait: Annotated[
        str, typer.Option("--wait", metavar="TIME", help="For somebody who listens, or for the broker.")
    ] = "10s",
    keep: Annotated[bool, typer.Option("--keep", help="Keep the dead letter.")] = False,
    options: OptionsOption = "",
    json: JsonOption = False,
) -> None:
    """Tell one of them again, if it can be read by now; then it is removed."""
    from raftwright.events import DeadLetters, open_publisher

    del json
    console.command = "events replay"
    dead = DeadLetters(directory)
    kind, fields = dead.read(name).event()
    with open_publisher(url, name="raftwright events replay", options=options) as publisher:
        if not publisher.ready(duration(wait, "--wait")):
            raise StorageError(110, f"nobody at {url} takes it; the dead letter is where it was")
        publisher.publish(kind, **fields)
    if publisher.dropped:
        raise StorageError(110, f"{url} did not take it; the dead letter is where it was")
    if not keep:
        dead.remove(name)
    console.say(f"{kind} told again at {url}" + ("" if keep else "; the dead letter is removed"))
    console.answer("ok", Exit.OK, {"name": name, "kind": kind, "url": url, "removed": not keep})


@app.command("remove")
def remove_dead(
    directory: DirectoryArgument,
    found: Annotated[list[str], typer.Argument(metavar="NAME...", help="As `events dead` lists them.")],
    json: JsonOption = False,
) -> None:
    """Remove some of them for good."""
    from raftwright.events import DeadLetters

    del json
    console.command = "events remove"
    dead = DeadLetters(directory)
    for name in found:
        dead.read(name)
    for name in found:
        dead.remove(name)
    console.say(f"{count(len(found), 'dead letter')} removed")
    console.answer("ok", Exit.OK, {"removed": found})
