"""`raftwright endpoint` from the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from endpoint_stand import Stand, fits, raws, wait_for

from raftwright.cli import main


class Done(NamedTuple):
    """What a call of the program printed."""

    stdout: str
    stderr: str


Call = Callable[..., Done]


@pytest.fixture
def raftwright(capsys: pytest.CaptureFixture[str]) -> Call:
    """The program, in this process."""

    def call(*arguments: object, code: int = 0) -> Done:
        capsys.readouterr()
        ended = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        assert ended == code, f"{ended}\n{printed.out}{printed.err}"
        return Done(printed.out, printed.err)

    return call


@pytest.fixture
def told(raftwright: Call) -> Callable[..., Any]:
    """The same with --json: what it answers."""
    return lambda *arguments, code=0: json.loads(raftwright(*arguments, "--json", code=code).stdout)


@pytest.fixture
def site(stand: Stand) -> Path:
    path = stand.path / "site.yaml"
    path.write_text(
        f"archive: {{root: {stand.storage}}}\nlife: {{pages: none, control: none}}\n"
        f"endpoint:\n  buffer: {stand.buffer}\n  settle: 0 s\n  pause: 50 ms\n  patience: 0 s\n"
        "  ingest: [{plugin: 'null'}]\n"
    )
    return path


def test_once_status_history_rerun(
    stand: Stand, site: Path, raftwright: Call, told: Callable[..., Any]
) -> None:
    for name, data in raws().items():
        stand.hand_over(name, data)
    done = raftwright("endpoint", "once", "--config", site)
    assert f"{len(raws())} files taken in, 0 left to ingest, 0 failed, 0 set aside" in done.stdout
    assert stand.stored() == raws()

    stand.hand_over("x.fits", b"no FITS")
    lines = raftwright("endpoint", "once", "--config", site, "--json", code=5).stdout.splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["ready", "taken", "done"]

    status = told("endpoint", "status", "--storage", stand.storage)
    assert status["files"] == {"refused": 1, "storage": len(raws())}
    assert status["ingesters"]["null"]["states"] == {"SUCCESS": len(raws())}
    assert [each["name"] for each in status["set_aside"]] == ["x.fits"]

    name, data = fits()
    history = told("endpoint", "history", name.rpartition("/")[2], "--storage", stand.storage)
    (file,) = history["files"]
    assert file["bytes"] == len(data)
    assert [each["state"] for each in file["events"]] == ["SUCCESS", "UNTRIED", "PENDING", "SUCCESS"]
    text = raftwright("endpoint", "history", name, "--storage", stand.storage).stdout
    assert "intake" in text
    assert "2026-" in text or "20" in text

    assert told("endpoint", "rerun", "--storage", stand.storage)["queued"] == 0
    asked = told("endpoint", "rerun", name, "--state", "success", "--storage", stand.storage)
    assert asked["queued"] == 1
    raftwright("endpoint", "once", "--config", site, code=5)
    with stand.register() as register:
        assert register.counts() == {"null": {"SUCCESS": len(raws())}}


def test_run_until_stopped(stand: Stand, site: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "raftwright", "endpoint", "run", "--config", str(site), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] == "ready"
        stand.hand_over("x.txt", b"x")
        assert json.loads(process.stdout.readline())["name"] == "x.txt"
        wait_for(lambda: stand.stored() == {"x.txt": b"x"})
        os.kill(process.pid, signal.SIGTERM)
        out, errors = process.communicate(timeout=20)
        assert process.returncode == 0, errors
        assert json.loads(out.splitlines()[-1]) == {"event": "stopped", "taken": 1}
    finally:
        process.kill()
        process.wait()


def test_backfill_enters_what_stands_there(
    stand: Stand, site: Path, raftwright: Call, told: Callable[..., Any]
) -> None:
    for name, data in raws().items():
        (stand.storage / name).parent.mkdir(parents=True, exist_ok=True)
        (stand.storage / name).write_bytes(data)
    found = told("endpoint", "backfill", "--config", site)
    assert (found["seen"], found["entered"]) == (len(raws()), len(raws()))
    with stand.register() as register:
        assert register.counts() == {"null": {"BACKFILL": len(raws())}}
    assert told("endpoint", "backfill", "--config", site)["entered"] == 0
    (stand.storage / "new.txt").write_text("new")
    (stand.storage / next(iter(raws()))).write_bytes(b"changed")
    found = told("endpoint", "backfill", "--config", site, "--untried", code=5)
    assert found["entered"] == 1
    assert "another content" in found["odd"][0][1]
    with stand.register() as register:
        assert register.counts() == {"null": {"BACKFILL": len(raws()), "UNTRIED": 1}}
    assert "is not below" in raftwright("endpoint", "backfill", "/etc", "--config", site, code=2).stderr


def test_validate(stand: Stand, site: Path, raftwright: Call, told: Callable[..., Any]) -> None:
    assert told("endpoint", "validate", "--config", site)["ingesters"] == ["null"]
    done = raftwright("endpoint", "validate", "--config", site, "--ingest", "nothing", code=1)
    assert "there is no plug-in 'nothing'" in done.stderr
    done = raftwright("endpoint", "validate", "--config", site, "--ingest", 'null:{"a": 1}', code=1)
    assert "options" in done.stderr
    done = raftwright("endpoint", "validate", "--config", site, "--buffer", stand.path / "no", code=1)
    assert "there is no such buffer" in done.stderr
    assert "--storage or a configuration is needed" in raftwright("endpoint", "status", code=2).stderr
    assert (
        "there is no register" in raftwright("endpoint", "status", "--storage", stand.storage, code=1).stderr
    )


def test_up_runs_it(stand: Stand, site: Path) -> None:
    """As one of the services of a site."""
    stand.hand_over("x.txt", b"x")
    process = subprocess.Popen(
        [sys.executable, "-m", "raftwright", "up", str(site)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        wait_for(lambda: stand.stored().get("x.txt") == b"x", 20.0)
        os.kill(process.pid, signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 0, errors
    finally:
        process.kill()
        process.wait()
