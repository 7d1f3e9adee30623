"""Bounds on the bytes a second."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from far_places import far_place, job, made, rsync_templates

from raftwright.transfer.outcome import OutageError
from raftwright.transfer.throttle import Throttle


def test_all_threads_together_keep_to_the_rate() -> None:
    """Four threads take two seconds' worth: it takes two seconds, but for what may go ahead."""
    throttle = Throttle(1_000_000)
    begun = time.monotonic()
    threads = [threading.Thread(target=lambda: [throttle.take(50_000) for _ in range(10)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1.6 < time.monotonic() - begun < 2.6


def test_without_a_bound_nothing_waits() -> None:
    throttle = Throttle(0)
    begun = time.monotonic()
    for _ in range(10_000):
        throttle.take(1 << 30)
    assert time.monotonic() - begun < 1.0
    assert throttle.step(4 << 20) == 4 << 20


def test_the_end_of_the_service_ends_the_wait() -> None:
    throttle = Throttle(1000)
    threading.Timer(0.2, throttle.close).start()
    begun = time.monotonic()
    with pytest.raises(OutageError):
        throttle.take(1_000_000)
    assert time.monotonic() - begun < 2.0
    with pytest.raises(OutageError):
        throttle.take(1)


@pytest.mark.parametrize("kind", ["directory", "s3", "webdav", "command"])
def test_files_go_no_faster_than_they_may(kind: str, tmp_path: Path, s3_url: str) -> None:
    """6 MB at 4 MB a second, two threads: no less than 1.1 s, and not twice as long as it should take."""
    rate = 4_000_000
    more = {"commands": rsync_templates("--bwlimit={bandwidth}")} if kind == "command" else {}
    with far_place(kind, tmp_path, s3_url, link="never", bandwidth=rate, concurrency=2, **more) as far:
        sources = [made(tmp_path / "from" / f"{n}.fits", os.urandom(3_000_000)) for n in range(2)]
        far.sender.warm()
        jobs = [job(source) for source in sources]
        begun = time.monotonic()
        threads = [threading.Thread(target=far.sender.send, args=(one,)) for one in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.monotonic() - begun
        assert sorted(far.files()) == ["0.fits", "1.fits"]
    assert 1.1 < took < 3.2, took
