"""A service that does what the test says, and places for sockets with short names."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))  # for odd


@pytest.fixture
def run() -> Iterator[Path]:
    """A directory for sockets: the path of one has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="rw-") as name:
        yield Path(name)


@pytest.fixture
def endpoint(run: Path) -> str:
    """Of a control socket."""
    return f"ipc://{run}/odd.control"
