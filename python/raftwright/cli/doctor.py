"""`raftwright doctor`: whether this machine is fit, and what to change."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raftwright.cli.console import console
from raftwright.cli.exits import Exit
from raftwright.cli.figures import count
from raftwright.cli.options import JsonOption, octets

if TYPE_CHECKING:
    from raftwright.doctor import Finding

__all__ = ["doctor"]

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(
    out: Annotated[
        list[Path] | None,
        typer.Option("--out", metavar="DIR", help="Where files will be written.", show_default=False),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option("--endpoint", metavar="ENDPOINT", help="The DAQ that will be read.", show_default=False),
    ] = None,
    bind: Annotated[
        str | None,
        typer.Option("--bind", metavar="ENDPOINT", help="Where a server will be.", show_default=False),
    ] = None,
    metrics: Annotated[
        str, typer.Option("--metrics", metavar="HOST:PORT", help="Where the page of figures will be.")
    ] = "127.0.0.1:9557",
    memory: Annotated[
        str, typer.Option("--memory", metavar="SIZE", help="Of the forwarder's buffers.")
    ] = "2GB",
    prompt: Annotated[
        str, typer.Option("--prompt-memory", metavar="SIZE", help="Shared memory for watching; 0: none.")
    ] = "2GB",
    keys: Annotated[
        str | None, typer.Option("--keys", metavar="NAME", help="The pair that is used.", show_default=False)
    ] = None,
    server_key: Annotated[
        str | None,
        typer.Option("--server-key", metavar="KEY", help="Public key of the DAQ.", show_default=False),
    ] = None,
    key_store: Annotated[
        Path | None,
        typer.Option(
            "--key-store", metavar="DIR", help="[default: ~/.config/raftwright/keys]", show_default=False
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Check whether this machine is fit to take images: processors, limits, clock, memory, disks, network,
    and the DAQ if its endpoint is given. Says what to change; changes nothing itself.

    `warn`: it works, slower or less safely than it could. `fail`: it will not work; the exit code is then 5.
    """
    from raftwright.doctor import Wishes, examine

    del json
    console.command = "doctor"
    wishes = Wishes(
        out=tuple(out or ()),
        endpoint=endpoint,
        metrics=metrics,
        bind=bind,
        memory=octets(memory, "--memory"),
        prompt=octets(prompt, "--prompt-memory"),
        keys=keys,
        server_key=server_key,
        key_store=key_store,
    )
    findings = list(examine(wishes))
    worst = {finding.level for finding in findings}
    if not console.json:
        _tell(findings)
    code = Exit.FAULTS if "fail" in worst else Exit.OK
    console.answer(
        "faults" if code else "ok", code, {"findings": [finding._asdict() for finding in findings]}
    )
    if code:
        raise typer.Exit(code)


def _tell(findings: list[Finding]) -> None:
    from raftwright.cli.tables import cell, draw, table

    rows = [(cell(f.level, _STYLES[f.level]), f.check, f.found, f.wanted) for f in findings]
    console.print(draw(table(("", "check", "found", "wanted"), rows)).lstrip("\n"))
    changes = [finding for finding in findings if finding.change]
    if changes:
        console.say("", "to change:")
    for finding in changes:
        console.say(f"  {finding.check}: {finding.change}")
    number = {level: sum(f.level == level for f in findings) for level in _STYLES}
    said = [count(number["fail"], "fault"), count(number["warn"], "warning")]
    console.say("", f"{len(findings)} checks: " + ", ".join(said))
