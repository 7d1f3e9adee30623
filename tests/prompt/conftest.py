"""Pools in a directory of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from raftwright.prompt import Pool
from raftwright.prompt.slabs import file_bytes

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # for prompt_boards

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory for a pool, in shared memory where there is any."""
    parent = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    directory = Path(tempfile.mkdtemp(prefix="raftwright-test-", dir=parent))
    yield directory / "pool"
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def open_pool(place: Path) -> Iterator[Callable[..., Pool]]:
    """Function to open the pool of this test with so many boards of room."""
    opened: list[Pool] = []

    def make(boards: float = 4, **options: Any) -> Pool:
        from prompt_boards import board_bytes

        options.setdefault("bytes", int(boards * file_bytes(board_bytes())))
        opened.append(Pool(place, **options))
        return opened[-1]

    yield make
    for pool in opened:
        pool.close()


@pytest.fixture
def start() -> Iterator[Start]:
    """Function that starts a Python process with some code and arguments; it is killed at the end."""
    processes: list[subprocess.Popen[str]] = []

    def run(code: str, *arguments: object) -> subprocess.Popen[str]:
        path = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH", ""))))
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()
