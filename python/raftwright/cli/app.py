"""The commands put together: their names and a line about each. See `raftwright.cli.lazy`."""

from __future__ import annotations

import functools
from typing import Any

import typer

from raftwright.cli.lazy import LazyCommand

__all__ = ["program", "usage_line"]

_HELP = """Assembles the images of mosaic cameras: from the packed streams of the readout boards to arrays
and to raw FITS files.

A recording is a directory with image.json and one packed stream for every board. `simulate` makes one,
`replay` makes one out of raw files, `assemble` turns it into raw files; `verify`, `mosaic`, `show` and `info`
look at what came of it.
"""

_EPILOG = """Exit codes: 0 done; 1 error; 2 wrong command line; 3 done, but pixels were missing; 4 a name is
taken by another content; 5 faults found; 130 stopped by Ctrl-C. With --json every command prints one JSON
object, also when it fails."""


_COMMANDS = {
    "simulate": "Invent an image and record it as the DAQ would.",
    "replay": "Turn raw files back into a recording.",
    "assemble": "Turn a recording into raw FITS files.",
    "verify": "Check raw files: sums, structure, every pixel.",
    "mosaic": "Write a CCD, a raft or the focal plane as one FITS image.",
    "show": "Draw a CCD, a raft or the focal plane as PNG.",
    "info": "Tell what a file or directory is, or how this was built.",
    "serve": "Publish images over the network.",
    "forward": "Take images off a DAQ and write their raw files.",
    "catchup": "Find what the archive lacks of the DAQ's images, and fetch it.",
    "archive": "Find out whether images are complete, and deliver their files.",
    "oods": "Keep the last weeks' images in a Butler repository.",
    "handoff": "Bring verified replicas to endpoints; see how they stand; read them again.",
    "mirror": "Mirror trees that somebody else writes.",
    "header": "Make header documents of what is told of images; check them.",
    "telemetry": "Tell what a simulated observatory would, for trials.",
    "up": "Run the services of a site in one process.",
    "control": "Command a running service.",
    "config": "Show and check the configuration of a site.",
    "endpoint": "Receive hand-overs: take in, store, ingest, remember each attempt.",
    "rucio": "Register files in Rucio, with datasets of exposures and rules.",
    "status": "Show tonight at a glance, and what running services do.",
    "image": "Tell the whole story of an image.",
    "audit": "Compare the ledger with disk, destinations and DAQ.",
    "repair": "Do about the audit's findings what is safe.",
    "night-report": "Write the report of a night, Markdown and HTML.",
    "ledger": "Count, check, upgrade the ledger; make it anew from the archive.",
    "events": "Hear what services tell; list and replay messages nobody could use.",
    "watch": "Print each CCD as a forwarder of this machine completes it.",
    "doctor": "Check whether this machine is fit, and say what to change.",
    "bench": "Measure what this machine reaches.",
    "camera": "List, show and check cameras.",
    "keys": "Keys of encrypted connections.",
}
"""Each is the module of its name (`_` for `-`), imported when it is used."""

_GROUPS = (
    "camera",
    "config",
    "keys",
    "header",
    "ledger",
    "events",
    "handoff",
    "mirror",
    "oods",
    "endpoint",
    "rucio",
)


def _version(wanted: bool) -> None:
    if wanted:
        from raftwright._version import __version__

        typer.echo(f"raftwright {__version__}")
        raise typer.Exit


def _top(
    context: typer.Context,
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
    debug: bool = typer.Option(
        False,
        "--debug",
        help="Print tracebacks of errors. May stand anywhere; RAFTWRIGHT_DEBUG=1 does the same.",
    ),
) -> None:
    del version, debug  # --version has its callback, --debug is read before anything is parsed
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


@functools.cache
def program() -> Any:
    """The command line as an object of typer's click: it has `make_context`, `invoke` and `__call__`."""
    app = typer.Typer(
        name="raftwright",
        help=_HELP,
        epilog=_EPILOG,
        callback=_top,
        invoke_without_command=True,
        rich_markup_mode=None,  # with rich, help alone would take longer than all that is allowed for it
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
    group: Any = typer.main.get_command(app)
    for name, short in _COMMANDS.items():
        group.add_command(LazyCommand(name, short, group=name in _GROUPS), name)
    return group


def usage_line(error: Any) -> str:
    """An error of the parser in one line, with where to look."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "raftwright"
    text = " ".join(str(error.format_message()).split()).rstrip(".").replace(": Value error, ", ": ")
    return f"{text}; see {path} --help"
