"""One Rucio server for the tests of a process."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))  # for rucio_server
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "endpoint"))  # for endpoint_stand

import rucio_server
from endpoint_stand import Stand


@pytest.fixture(scope="session")
def server_environment() -> Path:
    """Of the server; skipped, or failed where tools are required, when it cannot be had."""
    pytest.importorskip("rucio.client", reason="rucio-clients are not installed")
    found = rucio_server.environment_of_server()
    if isinstance(found, str):
        if os.environ.get("RAFTWRIGHT_REQUIRE_TOOLS") == "1":
            pytest.fail(found, pytrace=False)
        pytest.skip(found)
    return found


@pytest.fixture(scope="session")
def server(
    server_environment: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[rucio_server.Server]:
    """A server with the RSEs SUMMIT and USDF and the scope `raw`."""
    with rucio_server.server(server_environment, tmp_path_factory.mktemp("rucio")) as made:
        yield made


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    """Directories of an endpoint."""
    made = Stand(tmp_path)
    yield made
    made.close()
