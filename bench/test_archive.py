"""From the end of a readout to an image that is complete in the archive: `pytest bench/test_archive.py -s`.

Server, forwarder and archiver are processes of their own on the same processors. Complete means that the
ledger says so: every CCD has a file, its sums were found to hold, and its deliveries are in their queues.

RAFTWRIGHT_BENCH_IMAGES (32): images of each run. RAFTWRIGHT_BENCH_DISK: where the archive is.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))  # for test_forwarder

from raftwright.ledger import ImageRow, open_ledger
from raftwright.rawfile.times import TAI_MINUS_UTC
from test_forwarder import RAFT, percentile, running, serve

IMAGES = int(os.environ.get("RAFTWRIGHT_BENCH_IMAGES", "32"))
EVERY, READOUT = 3.5, 2.0
PROMISED = 1.0
"""Seconds, of 99 % of the images."""


@pytest.fixture
def disk() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=os.environ.get("RAFTWRIGHT_BENCH_DISK")) as name:
        yield Path(name)


@pytest.mark.timeout(60 + 2 * IMAGES * EVERY)
@pytest.mark.parametrize(("header_wait", "promised"), [(0.0, PROMISED), (0.6, PROMISED + 0.6)])
def test_a_raft_is_complete_in_the_archive(header_wait: float, promised: float, disk: Path) -> None:
    """With a header that is never waited for, and with one that never comes and is waited for each time."""
    root, place = disk / "archive", disk / "place"
    place.mkdir()
    settings = disk / "forwarder.yaml"
    settings.write_text(f"header_wait: {header_wait}\n")
    told = f"ipc://{disk}/told"
    cadence = ("--every", f"{EVERY}s", "--readout", f"{READOUT}s", "--count", str(IMAGES))
    with running(*serve(*RAFT, *cadence)) as server:
        (ready,) = server.wait_for("ready", 1, 60)
        with (
            running(
                *("forward", ready["endpoint"], "--out", str(root), "--events", told),
                *("--config", str(settings)),
            ) as forwarder,
            running(
                *("archive", "--out", str(root), "--daq", ready["endpoint"], "--to", str(place)),
                *("--listen", told),
            ) as archiver,
        ):
            forwarder.wait_for("ready", 1, 60)
            archiver.wait_for("ready", 1, 60)
            begun = time.time()
            archiver.wait_for("image", IMAGES, IMAGES * EVERY + 60)
            time.sleep(1.0)
    with open_ledger(root / "ledger.db") as ledger:
        images = ledger.images.select()
        delivered = ledger.deliveries.counts()
    assert [image.state for image in images] == ["complete"] * IMAGES
    assert delivered == {"place": {"delivered": 19 * IMAGES}}
    # Those that were read out before all ran are a backlog, and the first one after it opens connections.
    ends = [ready["epoch"] + (image.seqnum - 1) * EVERY + READOUT for image in images]
    waits = [_wait(image, end) for image, end in zip(images, ends, strict=True) if end > begun + 1.0][1:]
    assert len(waits) > IMAGES // 2
    print(
        f"\n{len(waits)} rafts, one every {EVERY:g} s, header waited for {header_wait:g} s: end of the"
        f" readout to complete in the archive median {statistics.median(waits):.3f} s,"
        f" 99 % {percentile(waits, 0.99):.3f} s, most {max(waits):.3f} s"
    )
    assert percentile(waits, 0.99) <= promised


def _wait(image: ImageRow, end: float) -> float:
    assert image.complete_tai is not None
    return image.complete_tai - TAI_MINUS_UTC - end
