"""A DAQ by hand, servers of it, and forwarders as objects and as processes."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))  # for stand

from stand import ROWS, Forward, Program, Run, Serve

from hand_daq import HandStore
from raftwright.forwarder import Forwarder, Settings
from raftwright.stream.server import Server


@pytest.fixture
def daq() -> HandStore:
    """Empty."""
    return HandStore()


@pytest.fixture
def serve(daq: HandStore) -> Iterator[Serve]:
    """Starts servers of `daq`, that are stopped at the end."""
    started: list[Server] = []

    def make(bind: str = "tcp://127.0.0.1:0", **options: Any) -> Server:
        options.setdefault("limits", ROWS)
        options.setdefault("heartbeat", 0.3)
        started.append(Server(options.pop("store", daq), bind, **options))
        return started[-1].start()

    yield make
    for one in started:
        one.stop()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Of the archive."""
    return tmp_path / "archive"


@pytest.fixture
def ledger(out: Path) -> Path:
    """Of the forwarder that is told nothing else."""
    return out / "ledger.db"


@pytest.fixture
def forward(out: Path) -> Iterator[Forward]:
    """Starts forwarders in this process, that are stopped at the end."""
    started: list[Forwarder] = []

    def make(endpoint: str, **options: Any) -> Forwarder:
        observer = options.pop("observer", None)
        values: dict[str, Any] = {
            "out": str(out),
            "sweep": 0.3,
            "retry": 0.3,
            "deadline": 20.0,
            "drain": 5.0,
            "memory": 64 << 20,
            "durable": False,
            "header_wait": 0.0,
            **options,
        }
        started.append(Forwarder(Settings(endpoint=endpoint, **values), observer=observer))
        return started[-1].start()

    yield make
    for one in started:
        one.stop()


@pytest.fixture
def run(out: Path) -> Iterator[Run]:
    """Starts forwarders as processes, that are ended at the end."""
    started: list[Program] = []

    def make(endpoint: str, *options: str, **more: Any) -> Program:
        started.append(Program(endpoint, more.pop("out", out), *options, **more))
        return started[-1]

    yield make
    for one in started:
        if one.process.poll() is None:
            one.send(signal.SIGCONT)
        one.end(signal.SIGKILL)


@pytest.fixture
def pool() -> Iterator[str]:
    """Where a pool of shared memory may be."""
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("no shared memory")
    with tempfile.TemporaryDirectory(prefix="raftwright-test-", dir="/dev/shm") as directory:
        yield f"{directory}/pool"
