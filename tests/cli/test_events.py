"""`raftwright events`: hearing what is told, and dealing with dead letters."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raftwright.events import DeadLetters, open_publisher, open_subscriber

Run = Callable[..., Any]

FIELDS = {"instrument": "LSSTCam", "obsid": "MC_O_20261122_000123", "files": 3}


def test_listening(run: Run, tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/events"
    over = threading.Event()

    def tell() -> None:
        with open_publisher(endpoint, name="f1") as publisher:
            while not over.wait(0.05):
                publisher.publish("imageWritten", **FIELDS)
                publisher.publish("other", text="\x1b[31m")

    thread = threading.Thread(target=tell)
    thread.start()
    try:
        done = run("events", "listen", endpoint, "--kinds", "imageWritten", "--count", "2", "--json")
        assert done.code == 0
        first, second, end = [json.loads(line) for line in done.out.splitlines()]
        assert (first["event"], first["fields"], first["publisher"]) == ("imageWritten", FIELDS, "f1")
        assert second["number"] > first["number"]
        assert end == {"event": "end", "events": 2, "missed": 0, "malformed": 0}
        done = run("events", "listen", endpoint, "--kinds", "other", "--count", "1")
        assert "\x1b" not in done.out
        assert "other" in done.out
    finally:
        over.set()
        thread.join()
    done = run("events", "listen", f"ipc://{tmp_path}/nobody", "--timeout", "0.1s")
    assert (done.code, "0 events" in done.out) == (0, True)


def test_kinds(run: Run) -> None:
    done = run("events", "kinds", "--json")
    assert done.json["kinds"]["imageWritten"] == ["instrument", "obsid", "files"]
    done = run("events", "kinds", "fileRepaired", "--json")
    assert done.json["fields"]["replaces"]["mandatory"]
    assert not done.json["fields"]["adler32"]["mandatory"]
    assert "imageInOODS" in run("events", "kinds").out
    assert "statusCode" in run("events", "kinds", "imageInOODS").out
    assert "has no schema" in run("events", "kinds", "nonsense").error


def test_dead_letters(run: Run, tmp_path: Path) -> None:
    directory = tmp_path / "dead"
    assert "no dead letters" in run("events", "dead", directory).out
    dead = DeadLetters(directory)
    good = dead.put(
        json.dumps({"kind": "imageWritten", "fields": FIELDS}).encode(), "schema 2; this reads 1", "topic/0/7"
    )
    bad = dead.put(b"\xff{", "no event", "tcp://x")
    (directory / f"{'1' * 19}-000000-1.json").write_text("{}")
    assert [row["reason"] for row in run("events", "dead", directory, "--json").json["letters"]][1:] == [
        *("schema 2; this reads 1", "no event")
    ]
    assert "topic/0/7" in run("events", "dead", directory).out
    assert r"\xff{" in run("events", "show", directory, bad).out
    assert "no dead letter" in run("events", "show", directory, "../x").error

    endpoint = f"ipc://{tmp_path}/events"
    assert "what it holds is no event" in run("events", "replay", directory, bad, endpoint).error
    failed = run("events", "replay", directory, good, endpoint, "--wait", "0.1s")
    assert "nobody" in failed.error
    assert good in dead.names()
    heard: list[Any] = []

    def listen() -> None:
        with open_subscriber(endpoint) as subscriber:
            end = time.monotonic() + 15
            while not heard and time.monotonic() < end:
                heard.extend(subscriber.events(0.1))

    thread = threading.Thread(target=listen)
    thread.start()
    done = run("events", "replay", directory, good, endpoint)
    thread.join()
    assert done.code == 0
    assert [(event.kind, event.fields) for event in heard] == [("imageWritten", FIELDS)]
    assert good not in dead.names()
    assert run("events", "remove", directory, bad).code == 0
    assert bad not in dead.names()
