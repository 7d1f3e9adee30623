"""`raftwright config`: what is in force and where it comes from; whether it can be."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from raftwright.cli.configs import FilesArgument, SetOption, files_of, read
from raftwright.cli.console import clean, console
from raftwright.cli.exits import Exit
from raftwright.cli.figures import count
from raftwright.cli.options import JsonOption

__all__ = ["app"]

app = typer.Typer(
    help="The configuration of a site: what is in force, where it comes from, whether it can be.",
    rich_markup_mode=None,
    no_args_is_help=False,
)


@app.command("show")
def show(
    files: FilesArgument = None,
    options: SetOption = None,
    given: Annotated[bool, typer.Option("--given", help="Only what is not a default.")] = False,
    json: JsonOption = False,
) -> None:
    """Print what is in force as YAML, each value with where it comes from. Secrets are not shown."""
    del json
    console.command = "config show"
    config = read(files, options)
    values = config.values()
    shown = [entry for entry in values if not given or entry[2].kind != "default"]
    lines = _yaml([(path, value, str(source)) for path, value, source in shown])
    console.say(*lines)
    from raftwright.service.documents import dotted

    console.answer(
        "ok",
        Exit.OK,
        {
            "services": config.services,
            "values": {dotted(path): {"value": value, "from": str(source)} for path, value, source in shown},
        },
    )


@app.command("check")
def check(files: FilesArgument = None, options: SetOption = None, json: JsonOption = False) -> None:
    """Check a configuration, and say all that is wrong with it. Exit code 5 where something is."""
    del json
    console.command = "config check"
    from raftwright.service.config import ConfigError

    try:
        config = read(files, options)
    except ConfigError as error:
        for fault in error.faults:
            console.say(fault)
        console.say(f"{count(len(error.faults), 'fault')}; nothing was started")
        console.answer("faults", Exit.FAULTS, {"faults": error.faults})
        raise typer.Exit(Exit.FAULTS) from None
    where = ", ".join(files_of(files)) or "the embedded defaults"
    console.say(f"{where}: no fault; services: {', '.join(config.services) or 'none'}")
    console.answer("ok", Exit.OK, {"faults": [], "services": config.services})


@app.command("sample")
def sample(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="Without a name: which there are.", show_default=False),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Print a configuration to begin with."""
    del json
    console.command = "config sample"
    from raftwright.service.config import sample_names, sample_text

    if name is None:
        for known in sample_names():
            console.say(f"{known}: {sample_text(known).splitlines()[0].lstrip('# ')}")
        console.answer("ok", Exit.OK, {"samples": sample_names()})
        return
    text = sample_text(name)
    console.say(*text.splitlines())
    console.answer("ok", Exit.OK, {"name": name, "text": text})


def _yaml(values: list[tuple[tuple[str | int, ...], Any, str]]) -> list[str]:
    """YAML that can be read again, with the sources as comments in a column."""
    rows: list[tuple[str, str]] = []
    before: tuple[str | int, ...] = ()
    for path, value, source in values:
        same = 0
        while same < len(path) - 1 and same < len(before) and path[same] == before[same]:
            same += 1
        dash = ""
        for depth in range(same, len(path)):
            part = path[depth]
            indent = "  " * depth
            if isinstance(part, int):
                dash = "- "
                if depth == len(path) - 1:
                    rows.append((f"{indent[2:]}- {_scalar(value)}", source))
                continue
            lead = f"{indent[2:]}- " if dash and depth else indent
            dash = ""
            if depth == len(path) - 1:
                rows.append((f"{lead}{part}: {_scalar(value)}", source))
            else:
                rows.append((f"{lead}{part}:", ""))
        before = path
    width = min(60, max((len(text) for text, source in rows if source), default=0))
    return [f"{text:<{width}}  # {source}" if source else text for text, source in rows]


def _scalar(value: Any) -> str:
    import json

    if value is None or isinstance(value, bool | int | float) or value in ([], {}):
        return json.dumps(value)
    text = str(value.value if hasattr(value, "value") else value)
    plain = (
        text and text == text.strip() and clean(text) == text and not set(text) & set(":#{}[],&*!|>'\"%@`")
    )
    if (
        plain
        and text not in ("true", "false", "null", "~")
        and not text[0].isdigit()
        and text[0] not in "-+?."
    ):
        return text
    return json.dumps(text, ensure_ascii=False)
