"""Catching up, alone and beside live images: `pytest bench/test_catchup.py -s`.

Servers, forwarder and catch-up archiver are processes of their own on the same processors; rafts of ComCam in
full size, one nominally every 17 s.

RAFTWRIGHT_BENCH_RAFTS (24): rafts that are caught up alone. RAFTWRIGHT_BENCH_BLOCKS (8): half of them with
catching up, in turn, each of RAFTWRIGHT_BENCH_IMAGES (8) live images. RAFTWRIGHT_BENCH_DISK: where the
archive is.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))  # for test_forwarder

from raftwright.ledger import open_ledger
from test_forwarder import percentile, running, serve, since_readout

RAFT = ["--camera", "LSSTComCam", "--rafts", "R22", "--distinct", "2", "--memory", "2GB", "--keep", "1000"]
RAFTS = int(os.environ.get("RAFTWRIGHT_BENCH_RAFTS", "24"))
BLOCKS = int(os.environ.get("RAFTWRIGHT_BENCH_BLOCKS", "8"))
IMAGES = int(os.environ.get("RAFTWRIGHT_BENCH_IMAGES", "8"))
NOMINAL = 17.0
"""Seconds from raft to raft."""
FASTER = 4.0
GROWTH = 0.10
EVERY, READOUT = 5.0, 2.0
KEPT = 10.0
"""Seconds for which files stay on the disk of the long run."""


@pytest.fixture
def disk() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=os.environ.get("RAFTWRIGHT_BENCH_DISK")) as name:
        yield Path(name)


def backlog(count: int) -> tuple[str, ...]:
    """A DAQ whose images were all taken long ago."""
    long_ago = str(round(time.time()) - 100_000)
    return serve(
        *RAFT, "--epoch", long_ago, "--every", "1s", "--readout", "500ms", "--count", str(count),
        *("--day", "20261101"),
    )  # fmt: skip


@contextmanager
def sweeping(archive: Path) -> Iterator[None]:
    """Removes what is older than `KEPT`, so that the disk does not run full."""
    over = threading.Event()

    def sweep() -> None:
        while not over.wait(1.0):
            for directory in archive.glob("2*/*"):
                if time.time() - directory.stat().st_mtime > KEPT:
                    shutil.rmtree(directory, ignore_errors=True)

    thread = threading.Thread(target=sweep)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.timeout(900)
def test_four_times_the_nominal_rate_when_nothing_is_live(disk: Path) -> None:
    with running(*backlog(RAFTS)) as server:
        (ready,) = server.wait_for("ready", 1, 60)
        begun = time.monotonic()
        with running(
            *("catchup", ready["endpoint"], "--out", str(disk), "--young", "0s", "--every", "1h")
        ) as catchup:
            catchup.wait_for("unit", 3 * RAFTS, 800)
            took = time.monotonic() - begun
    with open_ledger(disk / "ledger.db") as ledger:
        sources = ledger.claims.counts()
    assert sources == {"done": 3 * RAFTS}
    assert len(list(disk.rglob("*.fits"))) == 9 * RAFTS
    each = took / RAFTS
    print(
        f"\n{RAFTS} rafts caught up in {took:.1f} s from the start of the program, {each:.2f} s each:"
        f" {NOMINAL / each:.1f} times the nominal rate"
    )
    assert NOMINAL / each >= FASTER


@pytest.mark.timeout(300 + 4 * BLOCKS * IMAGES * EVERY)
def test_live_images_do_not_notice(disk: Path) -> None:
    """Blocks of live images without and with catching up, in turn, so that both see the same machine."""
    count = BLOCKS * (IMAGES + 6) + 10
    waits: dict[bool, list[float]] = {False: [], True: []}
    fetched = 0
    seconds = 0.0
    cadence = ("--every", f"{EVERY}s", "--readout", f"{READOUT}s", "--count", str(count))
    with running(*backlog(500)) as past, running(*serve(*RAFT, *cadence)) as server, sweeping(disk):
        (old,) = past.wait_for("ready", 1, 60)
        (ready,) = server.wait_for("ready", 1, 60)
        with running(
            "forward", ready["endpoint"], "--out", str(disk), "--config", _no_wait(disk)
        ) as forwarder:
            images = forwarder.wait_for("image", 2, 60)
            for block in range(BLOCKS):
                beside = block % 2 == 1
                first = len([line for line in forwarder.lines if line.get("event") == "image"])
                if beside:
                    options = ("--young", "0s", "--every", "1h")
                    with running("catchup", old["endpoint"], "--out", str(disk), *options) as catchup:
                        catchup.wait_for("unit", 1, 60)
                        first = len([line for line in forwarder.lines if line.get("event") == "image"])
                        begun = time.monotonic()
                        images = forwarder.wait_for("image", first + IMAGES, 60 + 2 * IMAGES * EVERY)
                        units = [line for line in catchup.lines if line.get("event") == "unit"]
                        fetched += sum(unit["state"] == "done" for unit in units)
                        seconds += time.monotonic() - begun
                else:
                    images = forwarder.wait_for("image", first + IMAGES, 60 + 2 * IMAGES * EVERY)
                waits[beside] += _waits(ready, images[first : first + IMAGES])
    alone, both = percentile(waits[False], 0.99), percentile(waits[True], 0.99)
    growth = both / alone - 1.0
    print(
        f"\nlive rafts, one every {EVERY:g} s, from the end of the readout to nine durable files:"
        f" {len(waits[False])} alone median {statistics.median(waits[False]):.3f} s, 99 % {alone:.3f} s;"
        f" {len(waits[True])} beside catching up median {statistics.median(waits[True]):.3f} s,"
        f" 99 % {both:.3f} s:"
        f" {100 * growth:+.1f} %; {fetched} sources were caught up in {seconds:.0f} s,"
        f" {fetched / 3 / seconds * NOMINAL:.1f} times the nominal rate"
    )
    assert fetched > 0
    assert growth < GROWTH


def _no_wait(disk: Path) -> str:
    """Nobody makes headers here."""
    path = disk / "forwarder.yaml"
    path.write_text("header_wait: 0.0\n")
    return str(path)


def _waits(ready: dict[str, Any], images: list[dict[str, Any]]) -> list[float]:
    return since_readout(ready, images, EVERY, READOUT)
