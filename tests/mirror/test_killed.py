"""Mirrors that are killed at any moment: both sides are the same in the end, and nothing is lost on the
way."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from mirror_stand import Stand

# The service without the command line, which is much to load for one that lives for half a second.
_SERVICE = """
import json, signal, sys, threading
from pathlib import Path
import msgspec
from raftwright.mirror import Mirror, Settings, TreeSettings
ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())
tree = msgspec.convert(json.loads(sys.argv[1]), TreeSettings)
with Mirror(Settings(trees=[tree]), Path("/nowhere")):
    print("ready", flush=True)
    ended.wait()
"""


def contents_there(stand: Stand) -> set[bytes]:
    """All contents of the far side, whatever they are called, but for what is under way."""
    found = set()
    for directory, _, files in os.walk(stand.far):
        if not directory.endswith("/.versions/.new"):
            found |= {
                (Path(directory) / name).read_bytes() for name in files if not name.startswith(".raftwright-")
            }
    return found


def conflicts(stand: Stand) -> list[tuple[bytes, str]]:
    with closing(sqlite3.connect(stand.manifest)) as run:
        return run.execute("SELECT name, reason FROM entry WHERE state = 'conflict'").fetchall()


@pytest.mark.parametrize("seed", [20261122, 7])
def test_killed_again_and_again(stand: Stand, seed: int) -> None:
    """SIGKILL at random points of finding, bringing, replacing, renaming and marking; files are written,
    changed, renamed and removed meanwhile. Every content that was ever settled is there afterwards, under its
    name or as a version, and no name there ever holds anything that its file was not."""
    chance = random.Random(seed)
    ever: dict[str, set[bytes]] = {}
    settled: set[bytes] = set()

    def write(name: str) -> None:
        content = b"%d %s " % (chance.randrange(1 << 30), name.encode()) * chance.randrange(1, 3000)
        if chance.random() < 0.3:
            hidden = stand.write(name + ".part", content)
            ever.setdefault(name + ".part", set()).add(content)
            os.rename(hidden, stand.source / name)
        else:
            stand.write(name, content)
        ever.setdefault(name, set()).add(content)

    tree = {
        "name": "tree",
        "source": str(stand.source),
        "to": {"name": "far", "kind": "directory", "root": str(stand.far), "backoff": 0.05, "longest": 0.2},
        "manifest": str(stand.manifest),
        "every": 0.2,
        "settle": 0.1,
        "calm": 0.02,
        "longest": 0.1,
        "gone_after": 0.3,
        "deleted": "mark",
        "brake": 1.0,
    }
    for number in range(60):
        write(f"{number % 4}/f{number}")
    for round_ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVICE, json.dumps(tree)], stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            until = time.monotonic() + chance.uniform(0.05, 0.8)
            while time.monotonic() < until:
                names = sorted(stand.files())
                what, name = chance.random(), chance.choice(names)
                if what < 0.5:
                    write(
                        name
                        if chance.random() < 0.6
                        else f"{chance.randrange(6)}/n{round_}-{chance.randrange(99)}"
                    )
                elif what < 0.75:
                    new = f"{chance.randrange(6)}/r{chance.randrange(1000)}"
                    content = (stand.source / name).read_bytes()
                    (stand.source / new).parent.mkdir(exist_ok=True)
                    os.rename(stand.source / name, stand.source / new)
                    ever.setdefault(new, set()).add(content)
                else:
                    (stand.source / name).unlink()
                time.sleep(chance.uniform(0.0, 0.05))
            process.kill()
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        there = stand.there()
        for name, content in there.items():
            if not os.path.basename(name).startswith(".raftwright-"):
                assert content in ever[name], f"{name} has a content there that it never had"
        assert settled <= contents_there(stand), "a content is lost"
        settled |= {content for name, content in there.items()}
        assert round_ > 4 or not conflicts(stand), "what it brought itself is strange to it"
        if round_ == 4:
            for path in stand.path.glob("manifest.db*"):
                path.unlink()
            tree["strange"] = "version"
    tree_ = {key: value for key, value in tree.items() if key not in ("name", "source", "to", "manifest")}
    stand.once(**tree_)
    # What a manifest that was lost did not tell is kept; everything else is the same.
    extra = set(stand.there()) - set(stand.files())
    assert {name: stand.there()[name] for name in stand.files()} == stand.files()
    assert settled <= contents_there(stand)
    assert all(stand.there()[name] in ever[name] for name in extra)
    assert stand.once(**tree_) == []
