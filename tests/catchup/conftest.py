"""A DAQ by hand, servers of it, forwarders, and catch-up archivers as objects."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))  # for recovery

from recovery import CHUNK, CatchingUp, Serve, wait_for

from hand_daq import HandImage, HandStore
from raftwright.catchup import CatchUp, Selection, Settings
from raftwright.forwarder import Forwarder
from raftwright.forwarder import Settings as ForwarderSettings
from raftwright.ledger import Ledger, open_ledger
from raftwright.stream.server import Limits, Server


@pytest.fixture
def daq() -> HandStore:
    """Empty."""
    return HandStore()


@pytest.fixture
def serve(daq: HandStore) -> Iterator[Serve]:
    """Starts servers, that are stopped at the end."""
    started: list[Server] = []

    def make(bind: str = "tcp://127.0.0.1:0", **options: Any) -> Server:
        options.setdefault("limits", Limits(chunk=(1024, CHUNK + 8)))
        options.setdefault("heartbeat", 0.3)
        started.append(Server(options.pop("store", daq), bind, **options))
        return started[-1].start()

    yield make
    for one in started:
        one.stop()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Of the archive."""
    made = tmp_path / "archive"
    made.mkdir()
    return made


@pytest.fixture
def ledger(out: Path) -> Iterator[Ledger]:
    """That of the archive, to look into."""
    with open_ledger(out / "ledger.db") as opened:
        yield opened


@pytest.fixture
def catch_up(out: Path) -> Iterator[CatchingUp]:
    """Starts catch-up archivers, that are stopped at the end; with `once` it is waited for the end."""
    started: list[CatchUp] = []

    def make(endpoint: str = "", **options: Any) -> CatchUp:
        given = {key: options.pop(key) for key in ("once", "dry") if key in options}
        selection = Selection.of(
            options.get("since", ""), options.pop("images", ()), options.pop("detectors", ())
        )
        observer = options.pop("observer", None)
        values: dict[str, Any] = {
            "out": str(out),
            "every": 0.3,
            "young": 0.0,
            "retry": 0.3,
            "deadline": 10.0,
            "drain": 3.0,
            "memory": 64 << 20,
            "header_wait": 0.0,
            "durable": False,
            **options,
        }
        service = CatchUp(Settings(endpoint=endpoint, **values), selection=selection, **given)
        service.observer = observer
        started.append(service)
        service.start()
        if given.get("once") or given.get("dry"):
            assert service.over.wait(20.0), service.report()
        return service

    yield make
    for one in started:
        one.stop()


@pytest.fixture
def forward(out: Path) -> Iterator[Callable[..., Forwarder]]:
    """Starts forwarders, that are stopped at the end."""
    started: list[Forwarder] = []

    def make(endpoint: str, **options: Any) -> Forwarder:
        values: dict[str, Any] = {
            "out": str(out),
            "sweep": 0.3,
            "retry": 0.3,
            "deadline": 10.0,
            "drain": 3.0,
            "memory": 64 << 20,
            "header_wait": 0.0,
            "durable": False,
            **options,
        }
        started.append(Forwarder(ForwarderSettings(endpoint=endpoint, **values)))
        return started[-1].start()

    yield make
    for one in started:
        one.stop()


@pytest.fixture
def captured(
    daq: HandStore, serve: Serve, forward: Callable[..., Forwarder]
) -> Callable[..., tuple[Server, list[HandImage]]]:
    """Images that a forwarder has written, and which is gone now."""

    def make(*numbers: int, **more: Any) -> tuple[Server, list[HandImage]]:
        server = serve()
        images = daq.add(*numbers, **more)
        forwarder = forward(server.endpoint)
        wait_for(lambda: forwarder.idle and forwarder.account.units["done"].value >= 3 * len(images))
        forwarder.stop()
        return server, images

    return make
