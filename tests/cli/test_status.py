"""`raftwright status` and `raftwright watch`."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raftwright import _core
from raftwright import camera as find_camera
from raftwright.assembly import AssembledSource, assemble
from raftwright.daq import simulate_image
from raftwright.metrics import Metrics, StatusServer
from raftwright.prompt import Pool

Run = Callable[..., Any]

STATUS: dict[str, Any] = {
    "service": "forwarder",
    "name": "dc01",
    "state": "working",
    "buffers": {"used": 812_000_000, "limit": 2_000_000_000},
    "credit": {"used": 64 << 20, "limit": 128 << 20},
    "prompt": {"used": 0, "limit": 0, "problem": "readers hold all"},
    "images": {"complete": 201, "incomplete": 1},
    "incomplete": [
        {"image": "MC_O_20261122_000123", "location": "22/1", "missing_bytes": 1950720, "next_try_s": 12.2}
    ],
    "problems": ["the disk is nearly full"],
    "endpoint": "tcp://127.0.0.1:5570",
    "data": {"bytes": 17, "peers": ["a", "b"]},
}


@pytest.fixture
def page() -> Iterator[StatusServer]:
    metrics = Metrics()
    metrics.stage("write").observe(0.25, bytes=10_000_000)
    metrics.drops("deadline", kind="pixels", bytes=1950720)
    metrics.counter("files").add(1821)
    metrics.gauge("backlog_bytes").set(904e6)
    with StatusServer(metrics, status=lambda: STATUS) as server:
        yield server


def test_tables_for_people(run: Run, page: StatusServer) -> None:
    done = run("status", page.url)
    assert (done.code, done.err) == (0, "")
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    assert f"forwarder dc01 at {page.url}, working" in lines
    assert "problem: the disk is nearly full" in lines
    assert "preview: readers hold all" in lines
    assert "images: 201 complete, 1 incomplete" in lines
    assert "MC_O_20261122_000123 22/1 1.95 MB in 12.2 s" in lines
    assert "write 1 250 ms 250 ms 250 ms 250 ms 10.0 MB 40.0 MB/s" in lines
    assert "buffers 812 MB 2.00 GB 40.6 %" in lines
    assert "pixels deadline 1 1.95 MB" in lines
    assert "preview none lost 0" in lines
    assert "files 1,821" in lines
    assert "backlog_bytes 904 MB" in lines
    assert "data: bytes 17, peers a, b" in lines
    assert all(len(line) <= 110 for line in done.out.splitlines())


def test_json_for_machines(run: Run, page: StatusServer) -> None:
    answer = run("status", page.url, "--json").json
    assert (answer["command"], answer["status"], answer["exit_code"]) == ("status", "ok", 0)
    [service] = answer["services"]
    assert service["url"] == page.url
    assert service["status"]["metrics"]["drops"]["pixels"]["deadline"]["bytes"] == 1950720
    # A host and a port are enough, and the path of a page does no harm.
    port = page.url.rpartition(":")[2]
    for text in (f"127.0.0.1:{port}", f":{port}", f"{page.url}/status", f"{page.url}/"):
        assert run("status", text, "--json").json["services"][0]["url"] == page.url


def free_port() -> int:
    with contextlib.closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_nobody_answers(run: Run, page: StatusServer) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    done = run("status", dead)
    assert done.code == 1
    assert done.out == ""
    assert done.error == (f"no service answers at {dead}: connection refused; is it running, with --metrics?")
    done = run("status", dead, page.url)
    assert done.code == 1
    assert "forwarder dc01" in done.out
    assert done.error == f"1 of 2 services do not answer: {dead}: connection refused"
    answer = run("status", dead, page.url, "--json").json
    assert answer["exit_code"] == 1
    assert [("error" in service, "status" in service) for service in answer["services"]] == [
        (True, False),
        (False, True),
    ]
    for text in ("ftp://x", "http://", "http://x:0", "http://x:99999", "http://[x"):
        assert run("status", text).code == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"no http\r\n\r\n",
        b"HTTP/1.0 404 Not Found\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n[]",
        b"HTTP/1.0 200 OK\r\n\r\n" + b"[" * 100_000,
        b"HTTP/1.0 200 OK\r\n\r\n{}x",
        b"HTTP/1.0 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n",
    ],
)
def test_those_who_answer_nonsense(run: Run, answer: bytes) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:

        def serve() -> None:
            with server.accept()[0] as peer:
                peer.recv(4096)
                peer.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        done = run("status", f":{server.getsockname()[1]}")
        thread.join(10)
    assert done.code == 1
    assert "no service answers at" in done.error


def test_a_status_of_strange_things_is_shown(run: Run) -> None:
    strange = {
        "service": ["x"],
        "name": "\x1b[31mred\n[bold]",
        "images": [1],
        "incomplete": [1, {}, {"image": "\x1b]0;x\x07", "missing_bytes": "many", "next_try_s": "soon"}],
        "buffers": {"used": None},
        "credit": "none",
        "problems": "all",
        "process": 3,
        "metrics": {
            "stages": {"x": 1, "y": {"count": 1e400}},
            "drops": {"pixels": {"r": None}},
            "gauges": [1],
        },
        "a": {"b": {"c": [1, 2, {"d": None}]}},
    }
    with StatusServer(Metrics(), status=lambda: strange) as server:
        server.status = lambda: strange  # type: ignore[method-assign]
        done = run("status", server.url)
    assert done.code == 0, done.err
    assert "\x1b" not in done.out
    assert "\\x1b[31mred\\n[bold]" in done.out


def test_a_wait_that_does_not_end(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raftwright.cli.pages._TIMEOUT", 0.3)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        done = run("status", f":{server.getsockname()[1]}")
    assert done.code == 1
    assert "no answer within 0.3 s" in done.error


def test_watching_a_status_goes_on_until_it_is_stopped(page: StatusServer, tmp_path: Path) -> None:
    arguments = ["status", page.url, "--watch", "--every", "100ms", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "raftwright", *arguments], stdout=subprocess.PIPE, cwd=tmp_path, text=True
    )
    assert process.stdout is not None
    with process.stdout:
        try:
            looks = [json.loads(process.stdout.readline()) for _ in range(3)]
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 0
    assert [look["event"] for look in looks] == ["status"] * 3
    assert looks[2]["time"] > looks[0]["time"]


# --- watch -------------------------------------------------------------------------------------------------


@pytest.fixture
def place() -> Iterator[Path]:
    parent = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    directory = Path(tempfile.mkdtemp(prefix="raftwright-test-", dir=parent))
    yield directory / "pool"
    shutil.rmtree(directory, ignore_errors=True)


def show(pool: Pool, name: str, *, lose: bool = False) -> Any:
    """Puts the first board of a MiniCam image into the pool; returns the whole image."""
    image = simulate_image("MiniCam", name, seed=5)
    info = image.info.sources[0]
    board = find_camera("MiniCam").board(info.location)
    geometry = info.registers.geometry
    slab = pool.lend(_core.planes_bytes(len(board.plane_of), geometry.width, geometry.height))
    assert slab is not None
    readout = _core.Readout(board.layout, geometry.width, geometry.height, memory=slab.memory)
    readout.add(0, image.source(info.location).read(0, info.bytes - (500 if lose else 0)))
    readout.finish(-1)
    slab.publish_source(name, "MiniCam", AssembledSource(board, info, geometry, readout, -1))
    return assemble(image)


def test_each_ccd_in_a_line(run: Run, place: Path) -> None:
    with Pool(place, 64 << 20) as pool:
        first = show(pool, "MN_S_20261122_000001")
        show(pool, "MN_S_20261122_000002", lose=True)
        ccds = [ccd for ccd in first if ccd.detector.location == first.sources[0].board.location]
        done = run("watch", place, "--since", "all", "--timeout", "100ms")
        assert done.code == 0
        lines = done.out.splitlines()
        assert len(lines) == 2 * len(ccds) + 1
        assert lines[0].endswith(f"MN_S_20261122_000001  {ccds[0].name}")
        assert "missing" in lines[len(ccds)]
        assert lines[-1] == f"{2 * len(ccds)} CCDs seen, 0 boards missed"
        told = run(
            *("watch", place, "--since", "all", "--timeout", "1s", "--count", 1, "--statistics", "--json")
        ).out
        ccd, end = map(json.loads, told.splitlines())
        assert (ccd["event"], ccd["image"], ccd["detector"]) == (
            "ccd",
            "MN_S_20261122_000001",
            ccds[0].name,
        )
        shape = ccds[0].geometry
        pixels = np.concatenate(
            [p[: shape.rows, shape.prescan : shape.prescan + shape.columns].ravel() for p in ccds[0].planes]
        )
        assert abs(ccd["median"] - np.median(pixels)) < 2
        assert ccd["scatter"] > 0
        assert end == {"event": "end", "ccds": 1, "boards_missed": 0}
        only = run(
            "watch", place, "--since", "all", "--timeout", "0s", "--image", "*_000002", "--detector", "99"
        )
        assert only.out == "0 CCDs seen, 0 boards missed\n"


def test_a_pool_that_is_not_there_yet(run: Run, place: Path) -> None:
    begun = time.monotonic()
    done = run("watch", place, "--timeout", "200ms")
    assert time.monotonic() - begun < 5
    assert done.code == 0
    assert f"no forwarder has made the pool {place} yet; waiting for it" in done.err
    assert run("watch", "a b").code == 2
    assert run("watch", place, "--timeout", "soon").code == 2
