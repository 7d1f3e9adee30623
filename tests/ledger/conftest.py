"""Ledgers on both databases: a test that asks for `url` runs on each."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))  # for night

import postgres_server
from hand_daq import HandStore
from raftwright.forwarder import Forwarder, Settings
from raftwright.ledger import Ledger, open_ledger
from raftwright.stream.server import Limits, Server


def _missing(reason: str) -> None:
    if os.environ.get("RAFTWRIGHT_REQUIRE_TOOLS") == "1":
        pytest.fail(
            f"{reason}, and RAFTWRIGHT_REQUIRE_TOOLS=1 says that no test may do without", pytrace=False
        )
    pytest.skip(reason)


@pytest.fixture(scope="session")
def server() -> Iterator[postgres_server.PostgresServer]:
    """PostgreSQL, for all tests of this process."""
    one = postgres_server.start(_missing)
    yield one
    one.stop()


@pytest.fixture
def postgres_url(server: postgres_server.PostgresServer) -> str:
    """An empty database."""
    return server.new_database()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A file that is not there yet."""
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty place for a ledger: once for each database."""
    return str(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url"))


@pytest.fixture
def opened() -> Iterator[Callable[..., Ledger]]:
    """Opens ledgers that are closed at the end."""
    some: list[Ledger] = []

    def make(where: str, **options: object) -> Ledger:
        some.append(open_ledger(where, **options))  # type: ignore[arg-type]
        return some[-1]

    yield make
    for one in some:
        one.__exit__()


@pytest.fixture
def ledger(url: str, opened: Callable[..., Ledger]) -> Ledger:
    """An empty one."""
    return opened(url)


@pytest.fixture
def daq() -> HandStore:
    """Empty."""
    return HandStore()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Of the forwarders."""
    return tmp_path / "archive"


@pytest.fixture
def forwarder(daq: HandStore, archive: Path) -> Iterator[Callable[..., Forwarder]]:
    """Starts forwarders of `daq` and `archive` on a ledger; they end at the end."""
    limits = Limits(chunk=(1024, 28 * 108 + 8))
    server = Server(daq, "tcp://127.0.0.1:0", limits=limits, heartbeat=0.3).start()
    started: list[Forwarder] = []

    def start(url: str, **options: Any) -> Forwarder:
        values: dict[str, Any] = {
            "sweep": 0.3,
            "retry": 300.0,
            "deadline": 20.0,
            "drain": 5.0,
            "memory": 64 << 20,
            "durable": False,
            "header_wait": 0.0,
            **options,
        }
        settings = Settings(endpoint=server.endpoint, out=str(archive), ledger=url, **values)
        started.append(Forwarder(settings).start())
        return started[-1]

    yield start
    for one in started:
        one.stop()
    server.stop()
