"""The commands put together. Their modules import nothing heavy, so that help comes at once."""

from __future__ import annotations

import functools
from typing import Any

import typer

from raftwright.cli import (
    assemble,
    bench,
    camera,
    doctor,
    forward,
    info,
    keys,
    mosaic,
    replay,
    serve,
    show,
    simulate,
    status,
    verify,
    watch,
)

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
    for command, short in (
        (simulate.simulate, "Invent an image and record it as the DAQ would."),
        (replay.replay, "Turn raw files back into a recording."),
        (assemble.assemble, "Turn a recording into raw FITS files."),
        (verify.verify, "Check raw files: sums, structure, every pixel."),
        (mosaic.mosaic, "Write a CCD, a raft or the focal plane as one FITS image."),
        (show.show, "Draw a CCD, a raft or the focal plane as PNG."),
        (info.info, "Tell what a file or directory is, or how this was built."),
        (serve.serve, "Publish images over the network."),
        (forward.forward, "Take images off a DAQ and write their raw files."),
        (status.status, "Show what running forwarders and servers do."),
        (watch.watch, "Print each CCD as a forwarder of this machine completes it."),
        (doctor.doctor, "Check whether this machine is fit, and say what to change."),
        (bench.bench, "Measure what this machine reaches."),
    ):
        app.command(short_help=short)(command)
    app.add_typer(camera.app, name="camera", short_help="List, show and check cameras.")
    app.add_typer(keys.app, name="keys", short_help="Keys of encrypted connections.")
    return typer.main.get_command(app)


def usage_line(error: Any) -> str:
    """An error of the parser in one line, with where to look."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "raftwright"
    text = " ".join(str(error.format_message()).split()).rstrip(".").replace(": Value error, ", ": ")
    return f"{text}; see {path} --help"
