"""The program `raftwright`: one module a command, each a thin layer over the library.

Importing this package is cheap, and so is every command module: numpy, astropy and the rest are imported by
the commands that need them, when they run.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any, cast

from raftwright.cli.console import console
from raftwright.cli.exits import INTERRUPTED, PIPE_CLOSED, Exit, exit_code, one_line
from raftwright.cli.figures import count

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program with the arguments (those of the process by default) and returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    _open_streams()
    if "_RAFTWRIGHT_COMPLETE" in os.environ:
        from raftwright.cli.app import program

        program()(prog_name="raftwright")
        return Exit.OK
    options = given[: given.index("--")] if "--" in given else given
    debug = "--debug" in options or os.environ.get("RAFTWRIGHT_DEBUG", "") not in ("", "0")
    given = [word for n, word in enumerate(given) if n >= len(options) or word != "--debug"]
    console.begin(json="--json" in options)
    try:
        with _polite_end():
            code = _run(given, debug=debug)
        # What did not fit into the pipe or the disk shows only now.
        console.flush()
    except BrokenPipeError:
        code = _pipe_closed()
    except OSError as error:
        code = _failed(error, debug=debug)
        _drop_stdout()
    return code


def _open_streams() -> None:
    """A stream that the caller closed becomes one that goes nowhere."""
    # Python has None there, whatever its stubs say.
    if cast("object", sys.stdout) is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for the rest of the process
    if cast("object", sys.stderr) is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


class _Terminated(KeyboardInterrupt):
    """SIGTERM."""


@contextlib.contextmanager
def _polite_end() -> Iterator[None]:
    """`timeout` and batch systems end a program politely first: it then cleans up as after Ctrl-C."""

    def terminated(_number: int, _frame: object) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(arguments: list[str], *, debug: bool) -> int:
    import typer

    from raftwright.cli.app import program, usage_line

    # The root of what the parser raises; it has no public name.
    usage_error = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
    command = program()
    try:
        with command.make_context("raftwright", arguments) as context:
            result = command.invoke(context)
        return int(result or Exit.OK)
    except typer.Exit as stop:
        return int(stop.exit_code)
    except (KeyboardInterrupt, typer.Abort) as stop:
        code = 143 if isinstance(stop, _Terminated) else INTERRUPTED
        console.answer("stopped", code, {})
        console.error("stopped; what was written is whole, and doing it again goes on from there")
        return code
    except BrokenPipeError:
        raise
    except Exception as error:
        if not isinstance(error, usage_error):
            return _failed(error, debug=debug)
        text = usage_line(error)
        console.answer("error", Exit.USAGE, {"error": {"type": "UsageError", "message": text}})
        console.error(text)
        return Exit.USAGE


def _failed(error: Exception, *, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exception(error)
    code = exit_code(error)
    text = one_line(error)
    report: Any = getattr(error, "report", None)
    content = report.to_dict() if hasattr(report, "to_dict") else {}
    try:
        console.answer("error", code, {**content, "error": {"type": type(error).__name__, "message": text}})
    except OSError:
        _drop_stdout()  # it is the standard output that fails
    if content.get("files"):
        others = count(len(content["files"]), "file is", "files are")
        text = f"{text} (of the other CCDs {others} there, whole)"
    console.error(text)
    return code


def _pipe_closed() -> int:
    _drop_stdout()
    return PIPE_CLOSED


def _drop_stdout() -> None:
    """Lets what is still buffered go nowhere, so that the interpreter does not complain at its end."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError, AttributeError):
        pass
