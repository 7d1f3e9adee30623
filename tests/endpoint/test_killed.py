"""Endpoints that are killed at any moment: nothing is lost, nothing is replaced, all is ingested."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from endpoint_stand import Stand, wait_for

_SERVICE = """
import json, sys
import threading
import msgspec
from raftwright.backbone.receiving import Endpoint, Settings
made = Endpoint(msgspec.convert(json.loads(sys.argv[1]), Settings), lease=1.0)
made.start()
print("ready", flush=True)
threading.Event().wait()
"""


def begin(stand: Stand) -> subprocess.Popen[str]:
    settings = {
        "buffer": str(stand.buffer),
        "storage": str(stand.storage),
        "settle": 0,
        "pause": 0.01,
        "ingest": [{"plugin": "null", "batch": 5}],
    }
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVICE, json.dumps(settings)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_killed_again_and_again(stand: Stand) -> None:
    """F12, D154: what is in the buffer at a kill is stored once; nothing leaves it before it is entered."""
    chance = random.Random(20261122)
    given: dict[str, bytes] = {}
    for number in range(240):
        name = f"{number % 7}/{number}.bin"
        given[name] = chance.randbytes(chance.randrange(1, 50_000))
        stand.hand_over(name, given[name])
    conflicts = {f"{number % 7}/{number}.bin": b"other" + bytes([number]) for number in range(20)}
    for _ in range(6):
        process = begin(stand)
        time.sleep(chance.uniform(0.02, 0.25))
        end(process)
        with stand.register() as register:
            for name, content in stand.stored().items():
                assert content == given[name]
            entered = {row.name for row in register._files("place = 'storage'", ())}
        still = {name.removeprefix(".raftwright-taking/") for name in stand.in_buffer()}
        assert entered | still == set(given), "nothing is anywhere else"
    process = begin(stand)
    try:
        wait_for(lambda: not stand.in_buffer(), 40.0, stand.in_buffer)
        for name, content in conflicts.items():
            stand.hand_over(name, content)

        def done() -> bool:
            with stand.register() as register:
                counts = register.counts().get("null", {})
            return not stand.in_buffer() and counts == {"SUCCESS": len(given)}

        wait_for(done, 40.0, stand.in_buffer)
    finally:
        end(process)
    assert stand.stored() == given
    with stand.register() as register:
        aside = {row.name: Path(row.kept_as).read_bytes() for row, _ in register.set_aside(1000)}
        assert aside == conflicts
        for file in register._files("place = 'storage'", ()):
            events = register.events(file.id)
            assert [each.state for each in events if each.ingester == "null"][-1] == "SUCCESS"
            assert sum(each.state == "SUCCESS" and each.ingester == "null" for each in events) == 1
