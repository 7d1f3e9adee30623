"""A ledger of two nights of ComCam in which not all went well."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))  # for nights

from nights import BEFORE, TONIGHT, Archive, Nights, evening, new_ledger

from raftwright.cli import main


class Done(NamedTuple):
    """How a run of the program ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        import json

        return json.loads(self.out)


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Done]:
    """Runs the program in an empty directory, without a ledger in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in ("RAFTWRIGHT_LEDGER__URL", "RAFTWRIGHT_ARCHIVE__ROOT", "RAFTWRIGHT_CONFIG"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: object) -> Done:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return call


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Without images."""
    root = tmp_path / "archive"
    root.mkdir()
    connection = new_ledger(root / "ledger.db")
    return Archive(root, Nights(connection, root))


@pytest.fixture
def busy(archive: Archive) -> Archive:
    """Twenty images of a night, and two of the night before."""
    nights = archive.nights
    nights.connection.execute("BEGIN")
    nights.image(BEFORE, 1)
    nights.image(BEFORE, 2, state="incomplete", reason="22/0 has not come", absent=("R22_S01", "R22_S02"))
    for number in range(1, 21):
        what: dict[str, Any] = {"took": 0.5 + 0.01 * number}
        if number == 5:
            what = {"took": 14.0}
        elif number == 7:
            what = {"state": "incomplete", "reason": "22/1: 3 chunks never came", "absent": ("R22_S11",)}
        elif number == 9:
            what = {"state": "lost", "reason": "the DAQ has it no more", "absent": ("R22_S20", "R22_S21")}
        elif number == 11:
            what |= {"header": "missing"}
        elif number == 12:
            what |= {"header": "partial"}
        elif number == 19:
            what |= {"undelivered": ("usdf",)}
        elif number == 20:
            what = {"state": "announced", "header": "expected"}
        nights.image(TONIGHT, number, **what)
    here = _this_process()
    archive.run("INSERT INTO owner VALUES (?, ?, ?, ?, ?, ?)", *here)
    archive.run("INSERT INTO owner VALUES ('dc02:815:99', 'dc02', 'x', 815, 1, ?)", here[-1] - 1000)
    archive.run("INSERT INTO role VALUES ('archiver:LSSTComCam', ?, 0)", here[0])
    archive.run("INSERT INTO role VALUES ('catchup', 'dc02:815:99', 0)")
    archive.run(
        "INSERT INTO quarantine (what, name_hex, shown, reason, first_tai, last_tai)"
        " VALUES ('image', '00', '\\x00', 'no name', 0, 0)"
    )
    nights.connection.execute("COMMIT")
    return archive


def _this_process() -> tuple[Any, ...]:
    started = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    host = socket.gethostname()
    return f"{host}:1:aa", host, boot, os.getpid(), started, time.clock_gettime(time.CLOCK_BOOTTIME)


@pytest.fixture
def late_evening() -> float:
    """A moment of that night: 20 s after the end of the last readout, TAI."""
    return evening(TONIGHT) + 17 * 20 + 20
