"""Archivers that are killed at any moment: everything is delivered, once, and nothing is lost."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from archive_stand import Archive, files_in, wait_for
from s3_servers import Odd, pause

pytest.importorskip("lsst.resources", reason="lsst-resources is not installed: pip install 'raftwright[s3]'")


def configuration(archive: Archive, *destinations: dict[str, object], instrument: str = "") -> Path:
    path = archive.path / "site.json"  # which is YAML too
    content = {
        "archive": {"root": str(archive.root)},
        "life": {"pages": "none", "control": "none"},
        "archiver": {"destinations": destinations, "sweep": "500 ms", "instrument": instrument},
    }
    path.write_text(json.dumps(content))
    path.chmod(0o600)
    return path


# The service without the command line, which is much to load for one that lives for half a second.
_SERVICE = """
import json, signal, sys, threading
from raftwright.service import config
ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())
site = config.load(sys.argv[1:])
site.common.make_run()
with site.build("archiver") as archiver:
    print(json.dumps({"active": archiver.active}), flush=True)
    ended.wait()
"""


@contextmanager
def running(config: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", _SERVICE, str(config)]
    with (config.parent / "log").open("ab") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def ready(process: subprocess.Popen[str]) -> dict[str, object]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "it did not begin"
    found: dict[str, object] = json.loads(line)
    return found


def directory(name: str, archive: Archive, **more: object) -> dict[str, object]:
    return {"name": name, "kind": "directory", "root": str(archive.place(name)), "backoff": "50 ms", **more}


def test_killed_again_and_again_while_it_delivers(archive: Archive) -> None:
    """F12, F13, F05, D007, D052: three destinations, images that come meanwhile, SIGKILL at random points."""
    chance = random.Random(20261122)
    with Odd(pause(0.005)) as server:
        bucket = {
            "name": "bucket",
            "kind": "s3",
            "root": "s3://raws/raw",
            "endpoint": server.endpoint,
            "access_key": "x",
            "secret_key": "y",
            "backoff": "50 ms",
            "concurrency": 3,
        }
        config = configuration(
            archive, directory("links", archive), directory("copies", archive, link="never"), bucket
        )
        images = []
        for number in range(1, 7):
            images += archive.take(number)
            done = sum(states.get("delivered", 0) for states in archive.counts().values())
            with running(config) as process:
                ready(process)
                wanted = done + chance.randrange(1, 50)
                wait_for(
                    lambda wanted=wanted: (  # type: ignore[misc]
                        sum(states.get("delivered", 0) for states in archive.counts().values()) >= wanted
                    ),
                    20,
                    archive.counts,
                )
                time.sleep(chance.uniform(0.0, 0.02))
                process.kill()
        with running(config) as process:
            ready(process)
            whole = {name: {"delivered": 19 * len(images)} for name in ("bucket", "copies", "links")}
            wait_for(lambda: archive.counts() == whole, 30, archive.counts)
            process.terminate()
            assert process.wait(20) == 0
        for name in ("links", "copies"):
            archive.check(archive.place(name), images)
        assert set(Counter(server.kept).values()) == {1}, "an object was put twice"
        expected = files_in(archive.place("links"))
        assert {key.removeprefix("/raws/raw/"): body for key, body in server.objects.items()} == expected
    assert [archive.state(image) for image in images] == ["complete"] * len(images)
    for image in images:
        row = archive.ledger.images.get(image.base.name)[0]
        ended = [one for one in archive.ledger.events.of(row.id) if one.thing == "delivery"]
        last = Counter(one.subject for one in ended if one.new == "delivered")
        assert set(last.values()) == {1}, "something was delivered twice"


def test_the_second_takes_over_when_the_first_is_killed(archive: Archive) -> None:
    """F14."""
    config = configuration(archive, directory("links", archive), instrument="LSSTComCam")
    with running(config) as first:
        assert ready(first)["active"] is True
        with running(config) as second:
            assert ready(second)["active"] is False
            archive.take(1)
            wait_for(lambda: archive.counts() == {"links": {"delivered": 19}})
            first.kill()
            first.wait()
            archive.take(2)
            wait_for(lambda: archive.counts() == {"links": {"delivered": 38}}, 15, archive.counts)
            second.terminate()
            assert second.wait(20) == 0


def test_the_command_line_says_what_is_wrong(tmp_path: Path) -> None:
    """D061, D084: file, line and key; nothing is started."""
    config = tmp_path / "site.yaml"
    config.write_text(
        "archive: {root: /tmp/x}\narchiver:\n  destinations:\n    - name: usdf\n      kind: s3\n      rooot: s3://raws\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "raftwright", "archive", "--config", str(config)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode != 0
    assert "line 6" in done.stderr
    assert "root" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_until_idle_delivers_and_ends(archive: Archive) -> None:
    archive.take(1, 2)
    place = archive.place("there")
    command = ["archive", "--out", str(archive.root), "--to", str(place), "--until-idle", "500ms", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "raftwright", *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[0]["event"] == "ready"
    assert sorted(event["obsid"] for event in events if event["event"] == "image") == [
        "CC_S_20261122_000001",
        "CC_S_20261122_000002",
    ]
    assert len(files_in(place)) == 38
