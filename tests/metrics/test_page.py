"""The page of a service, asked as Prometheus and people ask it."""

from __future__ import annotations

import contextlib
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from raftwright.errors import StorageError, UsageError
from raftwright.metrics import Metrics, StatusServer


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def server(metrics: Metrics) -> Iterator[StatusServer]:
    with StatusServer(metrics, status=lambda: {"service": "forwarder", "odd": float("nan")}) as server:
        yield server


def get(url: str, **options: Any) -> tuple[int, str, bytes]:
    request = urllib.request.Request(url, **options)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read()


def test_metrics_are_read_by_prometheus(server: StatusServer, metrics: Metrics) -> None:
    metrics.counter("files", "Files written").add(7)
    code, kind, body = get(f"{server.url}/metrics")
    assert (code, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    families = {family.name: family for family in text_string_to_metric_families(body.decode())}
    assert families["raftwright_forwarder_files"].samples[0].value == 7


def test_status_is_json(server: StatusServer, metrics: Metrics) -> None:
    metrics.drops("late", kind="pixels", bytes=3)
    code, kind, body = get(f"{server.url}/status")
    status = json.loads(body)
    assert (code, kind) == (200, "application/json")
    assert (status["service"], status["odd"]) == ("forwarder", None)
    assert status["process"]["pid"] > 0
    assert status["process"]["resident_bytes"] > 1 << 20
    assert status["metrics"]["drops"]["pixels"] == {"late": {"count": 1, "bytes": 3}}


def test_health_ready_and_nothing_else(server: StatusServer) -> None:
    assert get(f"{server.url}/health")[0] == 200
    assert get(f"{server.url}/ready?x=1")[0] == 200
    assert get(f"{server.url}/")[0] == 200
    assert get(f"{server.url}/../etc/passwd")[0] == 404
    assert get(f"{server.url}/status", data=b"x", method="POST")[0] == 501
    assert get(f"{server.url}/status", method="HEAD")[2] == b""


def test_ready_follows_the_service(metrics: Metrics) -> None:
    answers: list[bool] = []
    with StatusServer(metrics, ready=lambda: answers.pop()) as server:
        assert get(f"{server.url}/ready")[0] == 503  # it raised
        answers += [False, True]
        assert get(f"{server.url}/ready")[0] == 200
        assert get(f"{server.url}/ready")[0] == 503


def test_a_status_that_fails_says_so(metrics: Metrics) -> None:
    def fails() -> dict[str, Any]:
        raise OSError("no journal")

    with StatusServer(metrics, status=fails) as server:
        status = json.loads(get(f"{server.url}/status")[2])
    assert status["problems"] == ["the status itself failed: OSError: no journal"]
    assert "metrics" in status


def test_those_who_connect_and_say_nothing_shut_out_nobody_for_long(
    server: StatusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raftwright.metrics.page._LONGEST", 0.5)
    address = (server.url.split("//")[1].split(":")[0], int(server.url.rpartition(":")[2]))
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.create_connection(address, 5)) for _ in range(40)]
        silent[0].sendall(b"GET /status HT")
        begun = time.monotonic()
        while time.monotonic() < begun + 8:
            with contextlib.suppress(OSError):
                if get(f"{server.url}/health")[0] == 200:
                    break
            time.sleep(0.05)
        else:
            pytest.fail("nobody else was served")


def test_addresses_that_cannot_be(server: StatusServer, metrics: Metrics) -> None:
    with pytest.raises(StorageError, match=r"status page cannot be at .*--metrics"):
        StatusServer(metrics, server.url.split("//")[1])
    for address in ("", "9557", "localhost:", "localhost:x", "localhost:99999"):
        with pytest.raises(UsageError, match="HOST:PORT"):
            StatusServer(metrics, address)


def test_the_end_comes_soon_and_twice(metrics: Metrics) -> None:
    server = StatusServer(metrics)
    begun = time.monotonic()
    server.close()
    server.close()
    assert time.monotonic() - begun < 2
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{server.url}/health", timeout=2)
