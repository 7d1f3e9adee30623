"""The queue of a destination: order, limits, tries, and what a place that fails does to it."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from archive_stand import wait_for

from raftwright.errors import ConflictError
from raftwright.ledger import DeliveryPlan, DeliveryRow, ImageFacts, Ledger, open_ledger
from raftwright.metrics import Metrics
from raftwright.service.tasks import Task
from raftwright.transfer.lane import Ended, Lane, Limits
from raftwright.transfer.outcome import OutageError, RefusedError, Sent

LIMITS = Limits(concurrency=3, timeout=2.0, retries=3, backoff=0.02, longest=0.1)


class Place:
    """What a test says that happens to files there."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.sent: list[str] = []
        self.now = 0
        self.most = 0
        self.answer: Callable[[DeliveryRow], None] = lambda row: None
        self.down = False
        self.probed = 0

    def send(self, row: DeliveryRow) -> Sent:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            self.answer(row)
            with self.lock:
                self.sent.append(row.path)
            return Sent(how="put", bytes=row.bytes)
        finally:
            with self.lock:
                self.now -= 1

    def probe(self) -> None:
        self.probed += 1
        if self.down:
            raise OutageError("it is down")


class Bench:
    """A lane on a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.place = Place()
        self.told: list[Ended] = []
        self.active = True
        self.tasks: list[Task] = []
        self.lanes: list[Lane] = []

    def image(self, number: int) -> int:
        facts = ImageFacts(
            obsid=f"CC_S_20261122_{number:06d}",
            daq_id=f"{number:x}",
            camera="LSSTComCam",
            instrument="LSSTComCam",
            sources=(),
            detectors=(),
        )
        return self.ledger.images.announce(facts)

    def plan(self, *names: str, image: int = 1, priority: int = 0, rank: int = 0, to: str = "place") -> None:
        number = self.image(image)
        self.ledger.deliveries.plan(
            [
                DeliveryPlan(
                    image_id=number,
                    destination=to,
                    path=name,
                    target=name,
                    bytes=1,
                    crc32c="00000000",
                    priority=priority,
                    rank=rank,
                )
                for name in names
            ]
        )

    def start(self, limits: Limits = LIMITS, name: str = "place", place: Place | None = None) -> Lane:
        where = place or self.place
        query = "SELECT 1 FROM delivery WHERE destination = ? AND state IN ('queued', 'sending') LIMIT 1"
        lane = Lane(
            name,
            limits,
            self.ledger.deliveries,
            where.send,
            probe=where.probe,
            told=self.told.append,
            active=lambda: self.active,
            any_waiting=lambda: bool(self.ledger.read(query, (name,))),
            metrics=Metrics("raftwright_archiver"),
        )
        task = Task("test", name, lane.work, waiting=None, patience=30.0, once=False)
        task.start()
        self.tasks.append(task)
        self.lanes.append(lane)
        return lane

    def states(self, name: str = "place") -> dict[str, int]:
        return self.ledger.deliveries.counts(name).get(name, {})

    def stop(self) -> None:
        for task in self.tasks:
            task.stop()
        for task in self.tasks:
            assert task.join(5.0)
            assert not task.deaths


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with open_ledger(tmp_path / "ledger.db") as ledger:
        made = Bench(ledger)
        yield made
        made.stop()


def test_in_order_of_priority_and_rank_and_age(bench: Bench) -> None:
    bench.plan("b raw", image=2, priority=2, rank=3)
    bench.plan("b sidecar", image=2, priority=2, rank=2)
    bench.plan("a raw", image=1, priority=2, rank=3)
    bench.plan("a manifest", image=1, priority=0, rank=0)
    bench.plan("a wave", image=1, priority=1, rank=3)
    bench.start(Limits(concurrency=1, timeout=2.0, retries=3, backoff=0.02, longest=0.1))
    wait_for(lambda: bench.states() == {"delivered": 5})
    # The images are numbered in the order in which they were announced: b first.
    assert bench.place.sent == ["a manifest", "a wave", "b sidecar", "b raw", "a raw"]


def test_never_more_at_a_time_than_stated(bench: Bench) -> None:
    """D057: parallelism at a destination is bounded, however much waits."""
    bench.place.answer = lambda row: time.sleep(0.02)
    bench.plan(*(f"{n}" for n in range(40)))
    bench.start()
    wait_for(lambda: bench.states() == {"delivered": 40})
    assert bench.place.most == 3
    assert sorted(bench.place.sent) == sorted(str(n) for n in range(40))


def test_a_refused_file_is_tried_again_and_then_a_dead_letter(bench: Bench) -> None:
    """D054, D146: with pauses, up to a limit, told, and without holding the others."""
    tries: list[float] = []

    def answer(row: DeliveryRow) -> None:
        if row.path == "bad":
            tries.append(time.monotonic())
            raise RefusedError("it is not liked")

    bench.place.answer = answer
    bench.plan("bad", *(f"{n}" for n in range(5)))
    lane = bench.start(Limits(concurrency=3, timeout=2.0, retries=3, backoff=0.05, longest=1.0))
    wait_for(lambda: bench.states() == {"delivered": 5, "failed": 1})
    assert len(tries) == 4
    pauses = [b - a for a, b in itertools.pairwise(tries)]
    assert pauses[0] >= 0.025
    assert pauses[2] >= 0.1
    final = [one for one in bench.told if one.state == "failed"]
    assert [one.reason for one in final] == ["it is not liked"]
    assert not lane.trouble, "one bad file is no trouble of the place"
    # Asked for again, it goes.
    bench.place.answer = lambda row: None
    assert bench.ledger.deliveries.again("place") == 1
    wait_for(lambda: bench.states() == {"delivered": 6})


def test_who_refuses_everything_is_left_in_peace(bench: Bench) -> None:
    """D146: what says yes to all and keeps nothing costs a try now and then."""
    tries: list[float] = []

    def answer(row: DeliveryRow) -> None:
        tries.append(time.monotonic())
        raise RefusedError("it is not there")

    bench.place.answer = answer
    bench.plan(*(f"{n}" for n in range(30)))
    limits = Limits(concurrency=3, timeout=2.0, retries=1, backoff=0.05, longest=0.3, in_a_row=6)
    lane = bench.start(limits)
    wait_for(lambda: "in a row" in lane.trouble)
    begun = time.monotonic()
    time.sleep(2.0)
    assert len([one for one in tries if one > begun + 0.5]) <= 12, "it goes on as fast as it can"
    bench.place.answer = lambda row: None
    wait_for(lambda: not bench.states().get("queued") and not bench.states().get("sending"))
    assert not lane.trouble
    assert bench.states()["delivered"] > 15


def test_a_conflict_is_kept_as_one(bench: Bench) -> None:
    def answer(row: DeliveryRow) -> None:
        raise ConflictError("another content")

    bench.place.answer = answer
    bench.plan("one")
    bench.start()
    wait_for(lambda: bench.states() == {"conflict": 1})
    time.sleep(0.2)
    assert [one.state for one in bench.told] == ["conflict"], "it was tried again"


def test_an_outage_gives_nothing_up(bench: Bench) -> None:
    """F02, N32: a place that is away for long delays its files and loses none, whatever the limit of
    tries."""
    bench.place.down = True

    def answer(row: DeliveryRow) -> None:
        if bench.place.down:
            raise OutageError("nobody there")

    bench.place.answer = answer
    bench.plan(*(f"{n}" for n in range(20)))
    lane = bench.start()
    wait_for(lambda: bench.place.probed >= 8)
    assert bench.states() == {"queued": 20}
    assert "down" in lane.trouble
    attempts = [row.attempts for row in bench.ledger.deliveries.of(bench.image(1))]
    assert sum(attempts) <= 3 + 1, "files were tried though the place was known to be away"
    bench.place.down = False
    wait_for(lambda: bench.states() == {"delivered": 20})
    assert not lane.trouble


def test_what_hangs_is_given_up_and_holds_nobody(bench: Bench) -> None:
    """A place that hangs is left; what wakes up later changes nothing."""
    release = threading.Event()
    woken: list[str] = []

    def answer(row: DeliveryRow) -> None:
        if not release.is_set():
            release.wait(20)
            woken.append(row.path)

    bench.place.answer = answer
    bench.plan(*(f"{n}" for n in range(4)))
    other = Place()
    bench.plan("x", to="other")
    lane = bench.start(Limits(concurrency=2, timeout=0.3, retries=3, backoff=0.02, longest=0.05))
    bench.start(name="other", place=other)
    wait_for(lambda: bench.states("other") == {"delivered": 1}, 2.0)
    wait_for(lambda: lane.status()["left_behind"] == 4)
    time.sleep(0.5)
    assert lane.status()["left_behind"] == 4, "threads that hang are not bounded"
    assert "hang" in lane.trouble
    release.set()
    wait_for(lambda: bench.states() == {"delivered": 4})
    wait_for(lambda: len(woken) == 4)
    wait_for(lambda: lane.status()["left_behind"] == 0)
    wait_for(lambda: sum(one.state == "delivered" for one in bench.told) == 5, 5)  # with that of `other`
    time.sleep(0.2)
    assert sum(one.state == "delivered" for one in bench.told) == 5


def test_a_probe_that_hangs_holds_nobody(bench: Bench) -> None:
    release = threading.Event()
    bench.place.probe = lambda: release.wait(20)  # type: ignore[method-assign, assignment, return-value]
    calls: list[str] = []

    def answer(row: DeliveryRow) -> None:
        calls.append(row.path)
        if len(calls) == 1:
            raise OutageError("gone")

    bench.place.answer = answer
    bench.plan("a")
    lane = bench.start(Limits(concurrency=1, timeout=0.2, retries=3, backoff=0.02, longest=0.05))
    wait_for(lambda: "does not answer" in lane.trouble)
    assert bench.tasks[0].alive
    release.set()
    wait_for(lambda: bench.states() == {"delivered": 1})


def test_who_is_not_active_takes_nothing(bench: Bench) -> None:
    bench.active = False
    bench.plan("a")
    lane = bench.start()
    time.sleep(0.3)
    assert bench.states() == {"queued": 1}
    bench.active = True
    lane.poke()
    wait_for(lambda: bench.states() == {"delivered": 1})


def test_an_error_of_ours_is_one_file_and_no_more(bench: Bench) -> None:
    """D080: what nobody thought of is an outcome too."""

    def answer(row: DeliveryRow) -> None:
        if row.path == "bug":
            raise ZeroDivisionError("oh")

    bench.place.answer = answer
    bench.plan("bug", "a", "b")
    bench.start(Limits(concurrency=1, timeout=2.0, retries=1, backoff=0.01, longest=0.02))
    wait_for(lambda: bench.states() == {"delivered": 2, "failed": 1})
    (row,) = [row for row in bench.ledger.deliveries.of(bench.image(1)) if row.state == "failed"]
    assert row.reason == "ZeroDivisionError: oh"


def test_two_lanes_of_two_processes_send_each_file_once(bench: Bench, tmp_path: Path) -> None:
    """D055: a delivery is one sender's at a time."""
    bench.plan(*(f"{n}" for n in range(60)))
    other = Bench(open_ledger(tmp_path / "ledger.db"))
    other.place = bench.place
    try:
        bench.start()
        other.start()
        wait_for(lambda: bench.states() == {"delivered": 60})
        assert Counter(bench.place.sent) == Counter(str(n) for n in range(60))
    finally:
        other.stop()
        other.ledger.close()


def test_a_ledger_that_is_locked_delays_and_loses_nothing(bench: Bench, tmp_path: Path) -> None:
    """F18: the end of a delivery is written once the ledger can be; until then no more is taken on."""
    import sqlite3

    slow = open_ledger(tmp_path / "ledger.db", busy=0.05)
    mine = Bench(slow)
    gate = threading.Event()
    mine.place.answer = lambda row: gate.wait(10) and None  # type: ignore[assignment, func-returns-value]
    mine.plan("a", "b", "c", "d", "e")
    mine.start()
    wait_for(lambda: mine.place.now == 3)
    lock = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    gate.set()
    wait_for(lambda: len(mine.place.sent) == 3)
    wait_for(lambda: "ledger" in mine.lanes[0].trouble)
    assert len(mine.place.sent) == 3
    lock.execute("ROLLBACK")
    lock.close()
    wait_for(lambda: mine.states() == {"delivered": 5})
    assert Counter(mine.place.sent) == Counter("abcde")
    mine.stop()
    slow.close()


def test_a_ledger_that_is_away_for_longer_than_a_file_may_take(bench: Bench, tmp_path: Path) -> None:
    """F18: files that arrived meanwhile do not count as hanging, and their ends are written once."""
    import sqlite3

    slow = open_ledger(tmp_path / "ledger.db", busy=0.05)
    mine = Bench(slow)
    mine.plan("a", "b", "c", "d", "e")
    gate = threading.Event()
    mine.place.answer = lambda row: gate.wait(10) and None  # type: ignore[assignment, func-returns-value]
    lane = mine.start(Limits(concurrency=3, timeout=0.4, retries=3, backoff=0.02, longest=0.1))
    wait_for(lambda: mine.place.now == 3)
    lock = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    gate.set()
    wait_for(lambda: "ledger" in lane.trouble)
    time.sleep(1.0)
    lock.execute("ROLLBACK")
    lock.close()
    wait_for(lambda: mine.states() == {"delivered": 5})
    assert lane.status()["left_behind"] == 0
    assert not lane.trouble
    assert Counter(mine.place.sent) == Counter("abcde")
    mine.stop()
    slow.close()


def test_a_trouble_of_the_ledger_ends_with_it(bench: Bench, tmp_path: Path) -> None:
    """Nothing waits any more, and nobody says that something is wrong."""
    import sqlite3

    slow = open_ledger(tmp_path / "ledger.db", busy=0.05)
    mine = Bench(slow)
    gate = threading.Event()
    mine.place.answer = lambda row: gate.wait(10) and None  # type: ignore[assignment, func-returns-value]
    mine.plan("a")
    lane = mine.start()
    wait_for(lambda: mine.place.now == 1)
    lock = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    gate.set()
    wait_for(lambda: "ledger" in lane.trouble)
    lock.execute("ROLLBACK")
    lock.close()
    wait_for(lambda: mine.states() == {"delivered": 1})
    wait_for(lambda: not lane.trouble, 3.0)
    mine.stop()
    slow.close()


def test_tries_that_met_an_outage_do_not_count(bench: Bench) -> None:
    """F02: after an outage with more tries than a file has, it may still be refused as often as stated."""
    said: list[str] = []

    def answer(row: DeliveryRow) -> None:
        said.append("outage" if len(said) < 6 else "refused")
        if len(said) <= 6:
            raise OutageError("nobody there")
        if len(said) <= 8:
            raise RefusedError("it is not liked")

    bench.place.answer = answer
    bench.plan("a")
    bench.start(Limits(concurrency=1, timeout=2.0, retries=3, backoff=0.01, longest=0.02))
    wait_for(lambda: bench.states() == {"delivered": 1}, 10.0, bench.states)
    assert len(said) == 9


def test_what_only_one_file_meets_holds_no_other(bench: Bench) -> None:
    """D054: where the answer to one file looks like an outage of the place, the others go all the same."""

    def answer(row: DeliveryRow) -> None:
        if row.path == "poison":
            raise OutageError("500 InternalError")

    bench.place.answer = answer
    bench.plan("poison", priority=0)
    bench.plan(*(f"{n}" for n in range(10)), priority=1)
    bench.start(Limits(concurrency=1, timeout=2.0, retries=3, backoff=0.02, longest=0.5))
    wait_for(lambda: bench.states().get("delivered") == 10, 5.0, bench.states)
    assert bench.states() in ({"delivered": 10, "queued": 1}, {"delivered": 10, "sending": 1})
