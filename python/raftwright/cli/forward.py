"""`raftwright forward`: the forwarder as a service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raftwright.cli.console import console
from raftwright.cli.figures import count, size
from raftwright.cli.options import (
    ConfigOption,
    ControlOption,
    EventsOption,
    FolderOption,
    JsonOption,
    KeysOption,
    KeyStoreOption,
    LocationsOption,
    MetricsOption,
    OutOption,
    RaftsOption,
    ServerKeyOption,
    UntilIdleOption,
    duration,
    names,
    octets,
)
from raftwright.cli.running import run_service
from raftwright.cli.up import image_line
from raftwright.errors import RaftwrightError

if TYPE_CHECKING:
    from raftwright.forwarder import Forwarder

__all__ = ["forward"]


def forward(
    endpoint: Annotated[
        str | None,
        typer.Argument(help="Of the server: tcp://HOST:PORT or ipc://PATH.", show_default=False),
    ] = None,
    out: OutOption = None,
    ledger: Annotated[
        str | None,
        typer.Option(
            "--ledger",
            metavar="URL",
            help="A file or postgresql://..; who shares it shares the work.  [default: ledger.db in DIR]",
            show_default=False,
        ),
    ] = None,
    config: ConfigOption = None,
    rafts: RaftsOption = None,
    locations: LocationsOption = None,
    folder: FolderOption = None,
    memory: Annotated[
        str | None,
        typer.Option("--memory", metavar="SIZE", help="For images under way.  [default: 2GB]"),
    ] = None,
    receivers: Annotated[
        int | None, typer.Option("--receivers", min=1, help="Receiving threads.  [default: 2]")
    ] = None,
    writers: Annotated[
        int | None, typer.Option("--writers", min=1, help="Writing threads.  [default: 2]")
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(
            "--deadline",
            metavar="TIME",
            help="For an attempt; then files are written with gaps marked, to be repaired.  [default: 60s]",
        ),
    ] = None,
    retry: Annotated[
        str | None,
        typer.Option("--retry", metavar="TIME", help="Before the next attempt; grows.  [default: 5s]"),
    ] = None,
    header_wait: Annotated[
        str | None,
        typer.Option(
            "--header-wait",
            metavar="TIME",
            help="For the header of an image, after its last byte; 0: not at all.  "
            "[default: 600ms where headers are made]",
        ),
    ] = None,
    sweep: Annotated[
        str | None,
        typer.Option("--sweep", metavar="TIME", help="Between looks for what was missed.  [default: 5s]"),
    ] = None,
    fill: Annotated[
        int | None, typer.Option("--fill", help="Value of missing pixels.  [default: -1]")
    ] = None,
    metrics: MetricsOption = None,
    events: EventsOption = None,
    control: ControlOption = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt",
            metavar="NAME",
            help="Pixels in shared memory for `raftwright watch`.",
            show_default=False,
        ),
    ] = None,
    prompt_memory: Annotated[
        str | None, typer.Option("--prompt-memory", metavar="SIZE", help="For that.  [default: 2GB]")
    ] = None,
    keys: KeysOption = None,
    server_key: ServerKeyOption = None,
    key_store: KeyStoreOption = None,
    name: Annotated[
        str | None, typer.Option("--name", help="What others call it.", show_default=False)
    ] = None,
    until_idle: UntilIdleOption = None,
    json: JsonOption = False,
) -> None:
    """Take images off a DAQ as they are read out, and write their raw files.

    Runs until it is stopped; what it missed meanwhile it fetches when it is started again, the oldest first.
    One line an image; with --json these are JSON objects, one a line. SIGTERM and Ctrl-C let it finish what
    is under way; SIGHUP reads the file of settings again.
    """
    del json
    console.command = "forward"
    from raftwright.forwarder import Forwarder, read_settings
    from raftwright.service.context import bound

    given = {
        "endpoint": endpoint,
        "out": out,
        "ledger": ledger,
        "rafts": names(rafts),
        "locations": names(locations),
        "folder": folder,
        "memory": octets(memory, "--memory"),
        "receivers": receivers,
        "writers": writers,
        "deadline": duration(deadline, "--deadline"),
        "retry": duration(retry, "--retry"),
        "header_wait": duration(header_wait, "--header-wait"),
        "sweep": duration(sweep, "--sweep"),
        "fill": fill,
        "metrics": metrics,
        "events": events,
        "control": control,
        "prompt": prompt,
        "prompt_memory": octets(prompt_memory, "--prompt-memory"),
        "keys": keys,
        "server_key": server_key,
        "key_store": key_store,
        "name": name,
    }
    settings = read_settings(config, given)
    patience = duration(until_idle, "--until-idle")
    again = None if config is None else lambda: read_settings(config, given)

    def make() -> Forwarder:
        made = Forwarder(settings)
        made.reloader = again
        return made

    with bound(service="forwarder"):
        _last(run_service(make, {"image": _image}, _ready, patience=patience, reload=_reload))


def _ready(forwarder: Forwarder) -> None:
    page = None if forwarder.page is None else forwarder.page.url
    told = "" if forwarder.publisher is None else f"; events at {forwarder.publisher.endpoint}"
    console.say(
        f"forwarding from {forwarder.settings.endpoint} to {forwarder.settings.out}"
        + ("" if page is None else f"; figures at {page}")
        + told
    )
    console.flush()
    console.event(
        "ready",
        {
            "endpoint": forwarder.settings.endpoint,
            "archive": forwarder.settings.out,
            "ledger": forwarder.ledger.where,
            "metrics": page,
            "events": None if forwarder.publisher is None else forwarder.publisher.endpoint,
        },
    )


def _reload(forwarder: Forwarder) -> None:
    try:
        told = {"ok": True, **forwarder.reload()}
        console.say(f"the settings were read again; changed: {', '.join(told['changed']) or 'nothing'}")
    except (RaftwrightError, OSError) as error:
        told = {"ok": False, "reason": str(error)}
        console.say(f"the settings are not taken, the old ones stay: {error}")
    console.flush()
    console.event("reload", told)


def _image(facts: Mapping[str, Any]) -> None:
    console.say(image_line(facts))
    console.flush()
    console.event("image", {key: facts[key] for key in facts if key != "service"})


def _last(forwarder: Forwarder) -> None:
    written = int(forwarder.account.written.value)
    octets_written = int(forwarder.account.written_bytes.value)
    console.say(f"wrote {count(written, 'file')}, {size(octets_written)}")
    console.event("stopped", {"files": written, "bytes": octets_written})
