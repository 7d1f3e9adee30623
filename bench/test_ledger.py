"""The ledger's figures: time an image on both databases, and questions to a ledger of ten million files.

    pytest bench/test_ledger.py -s

RAFTWRIGHT_BENCH_FILES (10000000): raw files of the large ledger. RAFTWRIGHT_BENCH_DISK: where it stands.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
sys.path += [str(PROJECT / "tests"), str(PROJECT / "tests" / "ledger"), str(PROJECT / "bench")]

from night import facts_of, files_of, keys_of  # noqa: E402

import postgres_server  # noqa: E402
from ledger_rows import fill, last_night  # noqa: E402
from raftwright.ledger import DeliveryPlan, Ledger, Outcome, open_ledger  # noqa: E402
from raftwright.ledger.database import Transaction  # noqa: E402

IMAGES = 20
FILES = int(os.environ.get("RAFTWRIGHT_BENCH_FILES", "10000000"))
BATCH = 24
"""Units that a forwarder claims at a time."""


@pytest.fixture(scope="module")
def disk() -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="raftwright-bench-", dir=os.environ.get("RAFTWRIGHT_BENCH_DISK")))
    yield place
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, disk: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{disk}/image.db"
        return
    server = postgres_server.start(pytest.skip, durable=True)
    yield server.new_database()
    server.stop()


def one_image(ledger: Ledger, number: int) -> dict[str, float]:
    """A full LSSTCam image through the ledger: seconds for each part."""
    facts = facts_of(number, of="LSSTCam")
    taken: dict[str, float] = {}

    def timed(name: str, what: Callable[[], object]) -> object:
        begun = time.perf_counter()
        result = what()
        taken[name] = taken.get(name, 0.0) + time.perf_counter() - begun
        return result

    image_id = timed("announce", lambda: ledger.images.announce(facts))
    assert isinstance(image_id, int)
    keys = keys_of(facts)
    for begin in range(0, len(keys), BATCH):
        wanted = [(key, "raw", 1000) for key in keys[begin : begin + BATCH]]
        claims = timed("claim", lambda wanted=wanted: ledger.claims.claim(wanted))
        assert isinstance(claims, list)
        ends = [
            (claim, Outcome(state="done", received=1000, files=files_of(facts, claim.key.location)))
            for claim in claims
        ]
        timed("end", lambda ends=ends: ledger.claims.end_many(ends))
    files = ledger.files.of(image_id)
    plans = [
        DeliveryPlan(image_id=image_id, destination="oods", path=file.path, bytes=10, crc32c=file.crc32c)
        for file in files
    ]

    def settle(transaction: Transaction) -> None:
        """As the archiver does it: in one commit."""
        assert ledger.files.all_verified_in(transaction, [file.path for file in files]) == 205
        assert ledger.deliveries.plan_in(transaction, plans) == 205
        ledger.images.judge_in(transaction, image_id, verified=True)

    timed("settle", lambda: ledger.database.change(settle))
    assert ledger.images.by_id(image_id).state == "complete"
    rows = timed("take", lambda: ledger.deliveries.claim("oods", len(plans)))
    assert isinstance(rows, list)
    assert len(rows) == 205
    timed("deliver", lambda: ledger.deliveries.end_many([(row, "delivered", "", 0.0, 10) for row in rows]))
    return taken


def test_an_image_of_lsstcam(url: str) -> None:
    """205 detectors, 71 sources: announced, claimed and ended in batches of 24, verified, judged, delivered
    to one destination; about a thousand events. Every commit is synced."""
    with open_ledger(url) as ledger:
        one_image(ledger, 1)  # statements are compiled, caches are filled
        taken = [one_image(ledger, number) for number in range(2, 2 + IMAGES)]
        events = ledger.events.last() / (IMAGES + 1)
    totals = [1e3 * sum(each.values()) for each in taken]
    parts = {name: 1e3 * statistics.median(each[name] for each in taken) for name in taken[0]}
    said = ", ".join(f"{name} {value:.1f}" for name, value in parts.items())
    print(
        f"\n{url.partition(':')[0]}: {statistics.median(totals):.1f} ms an image, least {min(totals):.1f}, "
        f"most {max(totals):.1f}; {events:.0f} events ({said})"
    )
    assert statistics.median(totals) <= 50


@pytest.fixture(scope="module")
def large(disk: Path) -> tuple[str, list[int]]:
    url = f"sqlite:///{disk}/large.db"
    begun = time.monotonic()
    days = fill(url, FILES)
    size = (disk / "large.db").stat().st_size
    print(
        f"\n{FILES} files in {len(days)} nights made in {time.monotonic() - begun:.0f} s, {size / 1e9:.1f} GB"
    )
    return url, days


def test_questions_to_a_large_ledger(large: tuple[str, list[int]]) -> None:
    """What services and commands ask again and again, beside ten million files."""
    url, days = large
    night = last_night(days)
    with open_ledger(url) as ledger:
        image = ledger.images.select(night, limit=1)[0]
        limits: dict[str, tuple[Callable[[], object], float]] = {
            "images of the night": (lambda: ledger.images.select(night), 0.1),
            "an image by name": (lambda: ledger.images.get(image.obsid), 0.01),
            "files of an image": (lambda: ledger.files.of(image.id), 0.05),
            "events of an image": (lambda: ledger.events.of(image.id), 0.05),
            "detectors of an image": (lambda: ledger.images.detectors(image.id), 0.05),
            "deliveries on their way": (lambda: ledger.deliveries.counts(delivered=False), 0.01),
            "unfinished units": (lambda: ledger.claims.unfinished(100), 0.01),
            "units settled, of 20 images": (lambda: ledger.claims.settled([image.obsid]), 0.05),
            "events after the last": (lambda: ledger.events.after(ledger.events.last()), 0.01),
            "images to be worked on": (lambda: ledger.images.select(states=["announced", "capturing"]), 0.01),
            "counts of units": (ledger.claims.counts, 0.1),
        }
        slow = []
        for name, (what, limit) in limits.items():
            times = []
            for _ in range(3):
                begun = time.perf_counter()
                what()
                times.append(time.perf_counter() - begun)
            print(f"{name}: {1e3 * min(times):.1f} ms")
            if min(times) > limit:
                slow.append(f"{name}: {min(times):.3f} s, at most {limit}")
        assert not slow, slow
        taken = [sum(one_image(ledger, number).values()) for number in range(70_000, 70_005)]
        print(f"an image of LSSTCam beside them: {1e3 * statistics.median(taken):.1f} ms")
        assert statistics.median(taken) <= 0.05
