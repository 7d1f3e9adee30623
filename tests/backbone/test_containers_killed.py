"""Whoever packs is killed: what is done is whole, and nothing else counts."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time

from container_stand import box, boxes, obsid, packer, ready, unit, whole
from handoff_stand import Site, configuration, endpoint, files_in, running, wait_for

from raftwright.ledger.checking import check_ledger
from raftwright.rawfile.container import open_container
from raftwright.rawfile.standing import digest

_CHILD = """
import os, signal, sys
import raftwright.backbone.packing as packing
import raftwright.rawfile.container_writing as writing
import msgspec
from raftwright.backbone.settings import Containers
from raftwright.ledger import open_ledger
left = int(sys.argv[3])

def deadly(call):
    def counted(*arguments, **named):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        found = call(*arguments, **named)
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return found
    return counted

for name in ("pwrite", "fsync", "link", "unlink", "posix_fadvise"):
    setattr(os, name, deadly(getattr(os, name)))
ledger = open_ledger(sys.argv[1])
ledger.containers.enter = deadly(ledger.containers.enter)
ledger.files.removed = deadly(ledger.files.removed)
ledger.quarantine.put = deadly(ledger.quarantine.put)
writing.check_container = deadly(writing.check_container)
chosen = Containers(settle=0.0, patience=0.0, reserve=0.0, always=True)
packer = packing.Packer(ledger, lambda: chosen, ())
(unit,) = ledger.containers.units([int(sys.argv[2])])
print(packer.pack(unit).how, flush=True)
"""


def test_killed_at_every_step(site: Site) -> None:
    """D162, F44, F12: SIGKILL before and after each write, sync, name and row, with a truncated zip under
    the name at the beginning; what is done is whole, and nothing else counts."""
    chance = random.Random(20261122)
    number, steps, died = 1, 1, 0
    while True:
        ready(site, number, bytes=3000)
        left = chance.randbytes(500) if number % 2 else b""
        if left:
            box(site, number).write_bytes(left)
        image = unit(site, number)
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, site.url, str(image.image_id), str(steps)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        rows = boxes(site, number)
        if done.returncode == 0:
            assert done.stdout.strip() == "packed"
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        died += 1
        if rows:
            whole(site, number)
        else:
            assert unit(site, number).standing() == "missing"
        again = packer(site).pack(unit(site, number))
        assert again.how in ("packed", "adopted", "there")
        whole(site, number)
        asides = [path.read_bytes() for path in box(site, number).parent.glob("*.damaged-*")]
        assert asides == ([left] if left else [])
        hidden = [path for path in box(site, number).parent.iterdir() if path.name.startswith(".")]
        assert hidden == []
        number, steps = number + 1, steps + (1 if steps < 12 else chance.randrange(1, 9))
    assert died > 12
    assert check_ledger(site.ledger) == []


def test_killed_again_and_again_while_it_packs_and_hands_over(site: Site) -> None:
    """F12, D162: the service at random points; every image arrives as one file, once."""
    chance = random.Random(7)
    config = configuration(
        site,
        [endpoint(site, "far", what=["container"], bandwidth="3 MB")],
        containers={"settle": 0, "patience": 0, "reserve": 0, "workers": 2, "keep": "until-replicated"},
    )
    numbers = list(range(1, 9))
    for number in numbers:
        ready(site, number, bytes=100_000)
    for _ in range(6):
        before = len(site.ledger.read("SELECT 1 FROM event WHERE thing IN ('file', 'replica')"))
        with running(config):
            until = time.monotonic() + 3.0
            wanted = before + chance.randrange(1, 4)
            while time.monotonic() < until and wanted > len(
                site.ledger.read("SELECT 1 FROM event WHERE thing IN ('file', 'replica')")
            ):
                time.sleep(0.002)
            time.sleep(chance.uniform(0.0, 0.02))
    with running(config):
        wait_for(lambda: all(boxes(site, n) and boxes(site, n)[-1].status == "removed" for n in numbers), 40)
        wait_for(lambda: not list(site.root.rglob("*.zip")))
    assert site.states("far") == {"verified": len(numbers)}
    there = files_in(site.place("far"))
    assert len(there) == len(numbers)
    for number in numbers:
        (row,) = boxes(site, number)
        path = site.place("far") / "LSSTComCam" / "20261122" / obsid(number) / f"{obsid(number)}.zip"
        assert digest(path).crc32c == row.crc32c
        with open_container(path) as container:
            assert sum(not name.startswith("_") for name in container.members) == 7
    assert not list(site.root.rglob("*.damaged-*"))
    assert check_ledger(site.ledger) == []
