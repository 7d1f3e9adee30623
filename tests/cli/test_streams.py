"""Pipes, terminals, signals and full disks: what happens around the program."""

from __future__ import annotations

import json
import os
import pty
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
Collect = Callable[[Path], dict[str, bytes]]
PROGRAM = [sys.executable, "-m", "raftwright"]


def test_whoever_reads_may_go_away(tmp_path: Path, raws: Path) -> None:
    path = next(raws.glob("*S11.fits"))
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [*PROGRAM, "info", str(path), "--header"], stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    os.read(reader, 10)
    os.close(reader)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 141
    assert err == ""


def test_closed_streams(spawn: Run) -> None:
    for redirect in (">&-", "2>&-", ">&- 2>&-"):
        command = f'"$0" -m raftwright camera list {redirect}'
        done = subprocess.run(["/bin/sh", "-c", command, sys.executable], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("extra", [[], ["--json"]])
def test_the_standard_output_may_be_full(spawn: Run, extra: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = spawn("camera", "list", *extra, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.code == 1
    assert "the standard output: No space left on device" in done.error


def test_an_ascii_terminal_gets_escapes(spawn: Run) -> None:
    done = spawn("camera", "show", "§", env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert done.code == 1
    assert "Traceback" not in done.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_it_politely(
    tmp_path: Path, number: signal.Signals, code: int, files_below: Collect
) -> None:
    """Interrupted at some moment of its work: one line, and no file that is not whole."""
    process = subprocess.Popen(
        [*PROGRAM, "simulate", "--camera", "LSSTCam", "--rafts", "R22,R21,R20", "--no-sync", "--json"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".*.partial/*.raw")) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    # The interpreter may end itself by the signal once more when the interrupt fell into an import.
    assert process.returncode in (code, -number)
    assert err.startswith("raftwright: error: stopped")
    assert len(err.splitlines()) == 1
    assert json.loads(out)["status"] == "stopped"
    assert files_below(tmp_path) == {}


def in_terminal(command: list[str], columns: int, cwd: Path) -> tuple[int, str]:
    """Runs a command in a terminal of its own; returns its exit code and all that it showed."""
    script = f'stty cols {columns} rows 24; exec "$@"'
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(cwd)
        os.environ["TERM"] = "xterm"
        os.environ.pop("COLUMNS", None)
        os.execvp("/bin/sh", ["/bin/sh", "-c", script, "sh", *command])
    shown = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    _, status = os.waitpid(process, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), shown.decode()


@pytest.mark.parametrize("columns", [120, 30])
def test_a_terminal_sees_a_bar_and_nothing_of_it_stays(tmp_path: Path, comcam: Path, columns: int) -> None:
    code, shown = in_terminal(
        [*PROGRAM, "assemble", str(comcam), "-o", "out", "--no-sync"], columns, tmp_path
    )
    assert code == 0, shown
    assert "assembling" in shown
    assert "no pixel is missing" in shown
    assert "\x1b[?25h" in shown  # the cursor is back


def test_no_bar_without_a_terminal(spawn: Run, comcam: Path) -> None:
    done = spawn("assemble", comcam, "-o", "out", "--no-sync")
    assert done.code == 0
    assert done.err == ""
    assert "\x1b" not in done.out


def limited(octets: int) -> Callable[[], None]:
    def apply() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (octets, octets))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    return apply


@pytest.mark.parametrize(
    "command",
    [
        ["assemble", "COMCAM", "-o", "out"],
        ["simulate", "CC_S_20261122_000001", "--size", "24x40", "-o", "out"],
        ["replay", "RAWS", "-o", "out"],
        ["mosaic", "RAWS", "-o", "out/m.fits", "--bin", "1"],
        ["show", "RAWS", "-o", "out/m.png"],
    ],
)
def test_a_full_disk_leaves_nothing_half(
    spawn: Run, comcam: Path, raws: Path, tmp_path: Path, command: list[str], files_below: Collect
) -> None:
    """No file may grow beyond 20 kB: a disk that is full for all but the smallest."""
    paths = {"COMCAM": comcam, "RAWS": raws}
    done = spawn(*(paths.get(word, word) for word in command), preexec_fn=limited(20_000))
    assert done.code == 1
    assert "out/" in done.error
    assert "; " in done.error
    left = [name for name in files_below(tmp_path) if not name.endswith(".json")]
    assert left == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_really_full_disk(spawn: Run, comcam: Path, tmp_path: Path, files_below: Collect) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", disk], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("this system lets nobody mount")
    try:
        done = spawn("assemble", comcam, "-o", disk)
        assert done.code == 1
        assert "No space left on device; " in done.error
        whole = [disk / name for name in files_below(disk) if name.endswith(".fits")]
        assert len(whole) < 9
        for path in whole:
            assert spawn("verify", path).code == 0
        assert not [name for name in files_below(disk) if not name.endswith((".fits", ".json"))]
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize(
    "command",
    [
        ["assemble", "COMCAM", "-o", "PLACE"],
        ["simulate", "CC_S_20261122_000001", "--size", "8x8", "-o", "PLACE"],
        ["replay", "RAWS", "-o", "PLACE"],
        ["mosaic", "RAWS", "-o", "PLACE/m.fits"],
        ["show", "RAWS", "-o", "PLACE/m.png"],
    ],
)
def test_places_that_cannot_be_written(
    run: Run, comcam: Path, raws: Path, tmp_path: Path, command: list[str]
) -> None:
    (tmp_path / "afile").write_text("mine")
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    places = [tmp_path / "afile", Path("/sys/nowhere")]
    if os.geteuid() != 0:
        places.append(locked)
    for place in places:
        words = [word.replace("PLACE", str(place)) for word in command]
        done = run(*({"COMCAM": comcam, "RAWS": raws}.get(word, word) for word in words))
        assert done.code == 1
        assert place.name in done.error
        assert "; " in done.error
    assert (tmp_path / "afile").read_text() == "mine"
    assert list(locked.iterdir()) == []
