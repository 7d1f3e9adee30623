"""The program as a whole: help, versions, what is wrong with a command line, how fast it answers."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import raftwright

Run = Callable[..., Any]

COMMANDS = [
    "simulate",
    "replay",
    "assemble",
    "verify",
    "mosaic",
    "show",
    "info",
    "bench",
    "camera",
    "serve",
    "keys",
]


def test_help_names_every_command_and_exit_code(run: Run) -> None:
    done = run("--help")
    assert done.code == 0
    assert done.err == ""
    for command in COMMANDS:
        assert f"\n  {command} " in done.out
    for code in ("0 done", "1 error", "2 wrong", "3 done, but pixels", "4 a name", "5 faults"):
        assert code in " ".join(done.out.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(run: Run, command: str) -> None:
    done = run(command, "--help")
    assert done.code == 0
    assert done.out.startswith(f"Usage: raftwright {command} ")
    assert run(command, "-h").out == done.out


def test_no_command_is_a_usage_error(run: Run) -> None:
    done = run()
    assert done.code == 2
    assert done.out == ""
    assert "Usage: raftwright" in done.err


def test_version(run: Run) -> None:
    done = run("--version")
    assert (done.code, done.out) == (0, f"raftwright {raftwright.__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["bogus"], "No such command 'bogus'; see raftwright --help"),
        (["assemble"], "see raftwright assemble --help"),
        (["assemble", "x", "--bogus", "-o", "y"], "--bogus"),
        (["assemble", "x", "-o", "y", "--threads", "0"], "--threads"),
        (["assemble", "x", "-o", "y", "--threads", "two"], "--threads"),
        (["show", "x", "--scale", "loud"], "'zscale', 'percentile', 'minmax'"),
        (["mosaic", "x", "--bin", "0"], "--bin"),
        (["camera", "bogus"], "see raftwright camera --help"),
        (["info"], "--build"),
        (["info", "x", "--build"], "--build"),
    ],
)
def test_wrong_command_lines(run: Run, arguments: list[str], says: str) -> None:
    done = run(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert says in done.error


def test_usage_errors_in_json(run: Run) -> None:
    done = run("assemble", "--json", "--bogus")
    assert done.code == 2
    assert done.json["status"] == "error"
    assert done.json["exit_code"] == 2
    assert "--bogus" in done.json["error"]["message"]
    assert "--bogus" in done.error


def test_a_bug_is_one_line_and_debug_gives_the_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("inner\nworkings")

    monkeypatch.setattr("raftwright.camera.camera_names", broken)
    done = run("camera", "list")
    assert done.code == 1
    assert "internal error" in done.error
    assert "--debug" in done.error
    for arguments in (["--debug", "camera", "list"], ["camera", "list", "--debug"]):
        loud = run(*arguments)
        assert loud.code == 1
        assert "Traceback (most recent call last)" in loud.err
        assert "raftwright: error: " in loud.err.splitlines()[-1]
    monkeypatch.setenv("RAFTWRIGHT_DEBUG", "1")
    assert "Traceback" in run("camera", "list").err
    monkeypatch.setenv("RAFTWRIGHT_DEBUG", "0")
    assert "Traceback" not in run("camera", "list").err


def test_out_of_memory_has_a_remedy(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("raftwright.camera.camera_names", broken)
    assert "out of memory; ask for less" in run("camera", "list").error


def test_help_needs_nothing_heavy() -> None:
    heavy = ("numpy", "astropy", "PIL", "rich", "yaml", "msgspec", "raftwright.camera", "raftwright.rawfile")
    script = (
        "import sys; from raftwright.cli.app import program; program(); "
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_help_comes_at_once() -> None:
    """In the processor's own time: that of the clock is also what else the machine does."""

    def cost() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "raftwright", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    assert min(cost() for _ in range(6)) < 0.3


def test_the_installed_program_is_this_one() -> None:
    import importlib.metadata

    points = importlib.metadata.entry_points(group="console_scripts", name="raftwright")
    assert {point.value for point in points} == {"raftwright.cli:main"}


def test_the_exit_code_reaches_the_shell(spawn: Run) -> None:
    assert spawn("--version").code == 0
    assert spawn("camera", "show", "Nowhere").code == 1
    assert spawn("bogus").code == 2
