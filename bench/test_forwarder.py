"""The forwarder's figures, each measured on real processes: a server, a forwarder, files.

    pytest bench/test_forwarder.py -s

RAFTWRIGHT_BENCH_RAFTS (100): rafts of the sustained run. RAFTWRIGHT_BENCH_DISK: where its files go.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

RAFTS = int(os.environ.get("RAFTWRIGHT_BENCH_RAFTS", "100"))
NO_HEADER = ("--header-wait", "0s")
"""Nobody makes header documents here: files need not wait for one."""
RAFT = ["--camera", "LSSTComCam", "--rafts", "R22", "--distinct", "2", "--memory", "2GB", "--keep", "8"]
TINY = ["--camera", "LSSTCam", "--registers", "3,0,64,0,0,5,0,64,0,0,2", "--pattern", "coordinates"]


class Program:
    """One of our programs; its JSON lines are kept as they come."""

    def __init__(self, *arguments: str) -> None:
        self.begun = time.time()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "raftwright", *arguments, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[dict[str, Any]] = []
        self.errors = ""
        self._readers = [threading.Thread(target=self._read), threading.Thread(target=self._complain)]
        for reader in self._readers:
            reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with suppress(ValueError):
                self.lines.append(json.loads(line))

    def _complain(self) -> None:
        assert self.process.stderr is not None
        self.errors = self.process.stderr.read()

    def wait_for(self, event: str, number: int, timeout: float) -> list[dict[str, Any]]:
        """The first so many lines of a kind."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            found = [line for line in self.lines if line.get("event") == event]
            if len(found) >= number:
                return found
            assert self.process.poll() is None, f"it ended: {self.errors}"
            time.sleep(0.05)
        raise AssertionError(f"only {len(found)} of {number} lines of {event} in {timeout} s")

    def end(self) -> None:
        """Stops it, and shows what it complained of if it did not end well."""
        self.process.terminate()
        try:
            code = self.process.wait(60)
        finally:
            self.process.kill()
            for reader in self._readers:
                reader.join(5)
            for pipe in (self.process.stdout, self.process.stderr):
                assert pipe is not None
                pipe.close()
        assert code == 0, self.errors


@contextmanager
def running(*arguments: str) -> Iterator[Program]:
    program = Program(*arguments)
    try:
        yield program
    except BaseException:
        program.process.kill()
        raise
    program.end()


@pytest.fixture
def disk() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=os.environ.get("RAFTWRIGHT_BENCH_DISK")) as name:
        yield Path(name)


@pytest.fixture
def ram() -> Iterator[Path]:
    if not Path("/dev/shm").is_dir():
        pytest.skip("there is no RAM disk at /dev/shm")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


def anonymous(pid: int) -> int:
    """Memory of a process that is its alone, in bytes."""
    text = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("RssAnon"))


def status(page: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{page}/status", timeout=5) as answer:
        return json.load(answer)  # type: ignore[no-any-return]


def serve(*options: str) -> tuple[str, ...]:
    return ("serve", "--bind", "tcp://127.0.0.1:0", *options)


def since_readout(
    server: dict[str, Any], images: list[dict[str, Any]], every: float, readout: float
) -> list[float]:
    """Seconds from the end of each readout, when the last bytes came into being, to durable files."""
    found = []
    for image in images:
        number = int(image["image"].rsplit("_", 1)[1])
        found.append(image["time"] - (server["epoch"] + (number - 1) * every + readout))
    return found


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def check_images(images: list[dict[str, Any]], files: int) -> None:
    for image in images:
        assert image["files"] == files, image
        assert image["missing_pixels"] == 0, image
        assert set(image["states"].values()) == {"done"}, image


@pytest.mark.timeout(1200)
def test_a_raft_every_two_seconds_without_end(disk: Path) -> None:
    """Server and forwarder on the same processors, compressed files on a disk, the last ten rafts kept."""
    every, readout = 2.0, 1.9
    levels: list[tuple[float, int, int]] = []
    with running(*serve(*RAFT, "--every", "2s", "--readout", "1.9s", "--count", str(RAFTS))) as server:
        (ready,) = server.wait_for("ready", 1, 60)
        with running(
            *("forward", ready["endpoint"], "--out", str(disk), "--ledger", str(disk / "ledger.db")),
            *("--metrics", "127.0.0.1:0", *NO_HEADER),
        ) as forwarder:
            (begun,) = forwarder.wait_for("ready", 1, 60)
            end = time.monotonic() + RAFTS * every + 60
            done = 0
            while done < RAFTS and time.monotonic() < end:
                time.sleep(1)
                images = [line for line in forwarder.lines if line.get("event") == "image"]
                done = len(images)
                for image in images[:-10]:
                    shutil.rmtree(disk / "20261122" / image["image"], ignore_errors=True)
                for old in sorted(disk.glob("2*/*"))[:-10]:
                    shutil.rmtree(old, ignore_errors=True)
                now = status(begun["metrics"])
                levels.append(
                    (time.monotonic(), anonymous(forwarder.process.pid), now["waiting"] + now["in_hand"])
                )
            kept = sorted(disk.glob("2*/*"))[-1]
            verified = subprocess.run(
                [sys.executable, "-m", "raftwright", "verify", str(kept), "--against", ready["endpoint"]],
                capture_output=True,
                text=True,
                check=False,
            )
            assert verified.returncode == 0, verified.stdout + verified.stderr
    assert done == RAFTS, f"only {done} of {RAFTS} rafts"
    check_images(images, 9)
    waits = since_readout(ready, images, every, readout)
    quarter = max(1, len(levels) // 4)
    early = statistics.mean(level[1] for level in levels[quarter : 2 * quarter])
    late = statistics.mean(level[1] for level in levels[-quarter:])
    print(
        f"\n{RAFTS} rafts, one every 2 s: from the end of the readout to nine durable files median"
        f" {statistics.median(waits):.2f} s, 99 % {percentile(waits, 0.99):.2f} s, first half"
        f" {statistics.mean(waits[: RAFTS // 2]):.2f} s, second {statistics.mean(waits[RAFTS // 2 :]):.2f} s;"
        f" memory {early / 1e6:.0f} MB in the second quarter, {late / 1e6:.0f} MB in the last;"
        f" units in hand at most {max(level[2] for level in levels)}"
    )
    assert max(waits) < 2 * every, "the backlog grew"
    assert statistics.mean(waits[RAFTS // 2 :]) < statistics.mean(waits[: RAFTS // 2]) + 0.5, "it grows"
    assert late < 1.15 * early + 32e6, "memory grows"


@pytest.mark.timeout(300)
def test_from_the_last_chunk_to_nine_durable_files(ram: Path) -> None:
    """p99 over the images of a minute, from the end of the readout on, before the last chunk is sent."""
    number = 30
    with running(*serve(*RAFT, "--every", "2s", "--readout", "1.5s", "--count", str(number))) as server:
        (ready,) = server.wait_for("ready", 1, 60)
        with running("forward", ready["endpoint"], "--out", str(ram), *NO_HEADER) as forwarder:
            images = []
            while len(images) < number:
                images = forwarder.wait_for("image", len(images) + 1, 30)
                for old in sorted(ram.glob("2*/*"))[:-2]:
                    shutil.rmtree(old, ignore_errors=True)
    check_images(images, 9)
    waits = since_readout(ready, images, 2.0, 1.5)[1:]  # the first opens connections and makes headers
    print(
        f"\n{len(waits)} rafts on a RAM disk: from the end of the readout to nine durable files median"
        f" {1e3 * statistics.median(waits):.0f} ms, 99 % {1e3 * percentile(waits, 0.99):.0f} ms"
    )
    assert percentile(waits, 0.99) <= 0.25


@pytest.mark.timeout(300)
def test_the_full_camera_of_tiny_segments_every_two_seconds(disk: Path) -> None:
    """205 files, 205 sidecars, 71 sources an image: counts of the full camera, on a disk."""
    number, every = 15, 2.0
    with running(*serve(*TINY, "--every", "2s", "--readout", "1s", "--count", str(number))) as server:
        (ready,) = server.wait_for("ready", 1, 60)
        with running("forward", ready["endpoint"], "--out", str(disk), *NO_HEADER) as forwarder:
            images = forwarder.wait_for("image", number, 30 + number * every * 2)
    check_images(images, 205)
    waits = since_readout(ready, sorted(images, key=lambda image: str(image["image"])), every, 1.0)
    print(
        f"\n{number} images of 205 CCDs, one every 2 s: end of the readout to all files durable: median"
        f" {statistics.median(waits[1:]):.2f} s, most {max(waits[1:]):.2f} s"
    )
    assert max(waits[3:]) < every, "the next image was there before this one was written"


@pytest.mark.timeout(120)
def test_from_start_to_first_claim(ram: Path) -> None:
    with running(
        *serve("--camera", "LSSTComCam", "--registers", "3,0,64,0,0,5,0,64,0,0,1", "--every", "1s")
    ) as server:
        (ready,) = server.wait_for("ready", 1, 60)
        time.sleep(3)
        taken = []
        for attempt in range(5):
            ledger = ram / f"{attempt}.db"
            with running(
                *("forward", ready["endpoint"], "--out", str(ram / str(attempt)), "--ledger", str(ledger))
            ) as forwarder:
                forwarder.wait_for("image", 1, 30)
            with sqlite3.connect(ledger) as database:
                ((first,),) = database.execute(
                    "SELECT min(at_tai) - 37 FROM event WHERE new = 'claimed'"
                ).fetchall()
            database.close()
            taken.append(first - forwarder.begun)
    print(f"\nfrom start to first claim: median {statistics.median(taken):.2f} s, most {max(taken):.2f} s")
    assert statistics.median(taken) <= 1.0
