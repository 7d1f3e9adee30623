"""`raftwright catchup` as a process: what it prints, how it ends, what it survives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from recovery import fits_in, path_of, wait_for

from hand_daq import HandStore
from raftwright.ledger import Ledger


def run(*options: str, code: int = 0) -> list[dict[str, Any]]:
    process = subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-m", "raftwright", "catchup", *options, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    try:
        told, log = process.communicate(timeout=45)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # says where its threads are
        told, log = process.communicate(timeout=10)
    assert process.returncode == code, (process.returncode, told[-2000:], log[-6000:])
    if code in (1, 2):
        return [json.loads(told)]
    return [json.loads(line) for line in told.splitlines()]


def test_a_trial_and_then_the_thing_itself(captured: Any, out: Path) -> None:
    """--dry-run says what --once does."""
    server, (image,) = captured(1)
    path_of(out, image, "R22_S11").unlink()
    trial = run(server.endpoint, "--out", str(out), "--young", "0s", "--dry-run")
    assert trial[0]["event"] == "ready"
    assert trial[0]["dry_run"]
    (lack,) = trial[-1]["lacking"]
    assert (lack["image"], lack["detectors"], lack["action"]) == (image.base.name, ["R22_S11"], "fetch")
    assert len(fits_in(out)) == 8
    done = run(server.endpoint, "--out", str(out), "--young", "0s", "--once")
    assert [line["state"] for line in done if line["event"] == "unit"] == ["done"]
    assert done[-1]["event"] == "stopped"
    assert done[-1]["lacking"] == []
    assert done[-1]["files"] == 1
    assert len(fits_in(out)) == 9


def test_one_image_and_one_detector(daq: HandStore, serve: Any, out: Path) -> None:
    images = daq.add(1, 2)
    endpoint = serve().endpoint
    name = images[1].base.name
    run(endpoint, "--out", str(out), "--image", name, "--detector", "22/11,22/12", "--bandwidth", "50MB/s")
    assert fits_in(out) == {f"{name}_R22_S11.fits", f"{name}_R22_S12.fits"}


def test_what_is_left_is_told_with_its_reason(daq: HandStore, serve: Any, out: Path) -> None:
    """D098: exit code 3, and why."""
    (image,) = daq.add(1)
    image.lose(0, 3024, "22/2")
    ended = run(serve().endpoint, "--out", str(out), "--young", "0s", "--once", code=3)[-1]
    assert ended["detectors"] == {"fetch": 0, "wait": 0, "never": 3}
    assert "lacks 3024" in ended["lacking"][0]["reason"]


def test_wrong_commands_are_one_line(out: Path) -> None:
    assert "not an image name" in run("--out", str(out), "--image", "x", code=2)[0]["error"]["message"]
    assert run("--out", str(out), "--since", "yesterday", code=2)[0]["error"]["type"] == "UsageError"
    assert "policy" in run("--out", str(out), "--policy", "best", code=1)[0]["error"]["message"]
    assert run("--out", str(out), "--bandwidth", "fast", code=2)[0]["error"]["type"] == "UsageError"


def test_killed_and_started_again(daq: HandStore, serve: Any, out: Path, ledger: Ledger) -> None:
    """D088: SIGKILL in the middle; the next one goes on with what was in hand, and all pixels are there."""
    images = daq.add(*range(1, 6))
    endpoint = serve().endpoint
    options = ("--out", str(out), "--young", "0s", "--bandwidth", "50kB/s", "--every", "200ms")
    process = subprocess.Popen(
        [sys.executable, "-m", "raftwright", "catchup", endpoint, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: ledger.claims.counts().get("claimed", 0) and ledger.claims.counts().get("done", 0))
        ours = os.getpriority(os.PRIO_PROCESS, 0)
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == min(19, ours + 10)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    assert ledger.claims.counts()["claimed"] > 0
    run(endpoint, "--out", str(out), "--young", "0s", "--once")
    assert len(fits_in(out)) == 45
    for image in images:
        assert ledger.images.get(image.base.name)[0].state == "complete"
    assert not list(out.rglob("*.conflict-*"))


def test_sigterm_ends_it_soon(daq: HandStore, serve: Any, out: Path, ledger: Ledger) -> None:
    daq.add(1)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "raftwright", "catchup", serve().endpoint, "--out", str(out)),
            *("--young", "0s", "--json"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        wait_for(lambda: len(fits_in(out)) == 9)
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=20)[0]
        assert time.monotonic() - begun < 10
    finally:
        process.kill()
        process.wait(10)
    assert process.returncode == 0
    assert json.loads(said.splitlines()[-1])["event"] == "stopped"
