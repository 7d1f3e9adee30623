"""Deliveries, roles, and the relay of events."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from night import facts_of, take

from raftwright.errors import UsageError
from raftwright.ledger import DeliveryPlan, DeliveryRow, Ledger
from raftwright.ledger.database import Transaction
from raftwright.ledger.leases import Leases

Open = Callable[..., Ledger]


def plans_of(ledger: Ledger, image_id: int, destination: str = "oods", **more: object) -> list[DeliveryPlan]:
    return [
        DeliveryPlan(
            image_id=image_id,
            destination=destination,
            path=file.path,
            bytes=file.bytes,
            crc32c=file.crc32c,
            **more,
        )  # type: ignore[arg-type]
        for file in ledger.files.of(image_id)
    ]


def test_a_delivery_goes_its_way(ledger: Ledger) -> None:
    image_id = take(ledger, facts_of())
    plans = plans_of(ledger, image_id)
    assert ledger.deliveries.plan(plans) == 9
    assert ledger.deliveries.plan(plans) == 0, "planned twice"
    rows = ledger.deliveries.claim("oods", 4)
    assert [row.path for row in rows] == [plan.path for plan in plans[:4]]
    assert {(row.state, row.attempts, row.obsid) for row in rows} == {("sending", 1, facts_of().obsid)}
    under_way = [each for each in ledger.attempts.of(image_id) if each.thing == "delivery"]
    assert [(each.subject, each.number, each.owner, each.ended_tai) for each in under_way] == [
        (f"oods {row.path}", 1, ledger.owner, None) for row in rows
    ]
    assert ledger.deliveries.end(rows[0], "delivered", bytes=10)
    assert ledger.deliveries.end(rows[0], "delivered"), "the answer may have been lost"
    assert not ledger.deliveries.end(rows[0], "failed")
    assert ledger.deliveries.end(rows[1], "queued", "no answer", retry_after=0.3)
    assert ledger.deliveries.end(rows[2], "failed", "given up")
    assert ledger.deliveries.end(rows[3], "conflict", "another file is there")
    assert ledger.deliveries.counts() == {"oods": {"conflict": 1, "delivered": 1, "failed": 1, "queued": 6}}
    rest = ledger.deliveries.claim("oods", 100)
    assert [row.path for row in rest] == [plan.path for plan in plans[4:]], "one waits"
    time.sleep(0.31)
    (again,) = ledger.deliveries.claim("oods", 100)
    assert (again.path, again.attempts) == (rows[1].path, 2)
    assert (
        ledger.deliveries.end_many([(row, "delivered", "", 0.0, 10) for row in (*rest, again)]) == [True] * 6
    )
    assert ledger.deliveries.counts("oods", delivered=False) == {"oods": {"conflict": 1, "failed": 1}}
    assert ledger.deliveries.counts(dayobs=20261122)["oods"]["delivered"] == 7
    assert ledger.deliveries.counts(dayobs=20261123) == {}
    assert ledger.deliveries.again() == 1
    assert ledger.deliveries.again("oods", image_id, states=("conflict", "delivered")) == 8
    assert ledger.deliveries.counts() == {"oods": {"queued": 9}}
    with pytest.raises(UsageError):
        ledger.deliveries.again(states=("lost",))
    with pytest.raises(UsageError):
        ledger.deliveries.end(again, "sending")
    story = [
        (each.old, each.new)
        for each in ledger.events.of(image_id)
        if each.thing == "delivery" and each.subject == f"oods {rows[1].path}"
    ]
    assert story == [
        *(("queued", "sending"), ("sending", "queued"), ("queued", "sending"), ("sending", "delivered")),
        ("delivered", "queued"),
    ]
    tries = [each for each in ledger.attempts.of(image_id) if each.thing == "delivery"]
    assert len(tries) == 10
    assert {each.outcome for each in tries} == {"delivered", "queued", "failed", "conflict"}
    assert all(each.ended_tai is not None and each.began_tai <= each.ended_tai for each in tries)
    assert {each.began_tai for each in tries} >= {each.began_tai for each in under_way}


def test_the_order_of_a_queue(ledger: Ledger) -> None:
    one, two = take(ledger, facts_of(1)), take(ledger, facts_of(2))
    for image_id, number in ((two, 2), (one, 1)):
        for rank, name in ((2, "raw"), (0, "manifest"), (1, "sidecar")):
            for priority in (1, 0):
                path = f"{priority}/{number}/{name}"
                plan = DeliveryPlan(
                    image_id=image_id, destination="s3", path=path, priority=priority, rank=rank
                )
                assert ledger.deliveries.plan([plan]) == 1
    paths = [row.path for _ in range(4) for row in ledger.deliveries.claim("s3", 3)]
    assert paths == [
        f"{priority}/{number}/{name}"
        for priority in (0, 1)
        for number in (1, 2)
        for name in ("manifest", "sidecar", "raw")
    ]
    assert ledger.deliveries.claim("oods", 10) == []


def test_what_the_dead_were_sending_is_sent(url: str, opened: Open) -> None:
    one, two = opened(url, lease=0.5), opened(url, lease=0.5)
    image_id = take(one, facts_of())
    one.deliveries.plan(plans_of(one, image_id))
    mine = one.deliveries.claim("oods", 5)
    assert len(two.deliveries.claim("oods", 2)) == 2
    time.sleep(0.6)
    two.renew()
    rows = two.deliveries.claim("oods", 100)
    assert len(rows) == 7
    assert {row.attempts for row in rows if row.path in {each.path for each in mine}} == {2}
    assert one.deliveries.end_many([(row, "delivered", "", 0.0, 0) for row in mine]) == [False] * 5
    outcomes = [each.outcome for each in two.attempts.of(image_id) if each.thing == "delivery"]
    assert outcomes.count("queued") == 5
    two.close()
    assert one.deliveries.counts() == {"oods": {"queued": 9}}, "given back at the end"


def test_who_comes_while_the_dead_are_forgotten_is_not_forgotten(
    postgres_url: str, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each question of a transaction sees what was committed until then: that may be more each time."""
    first, second = opened(postgres_url), opened(postgres_url)
    image_id = take(first, facts_of())
    first.deliveries.plan(plans_of(first, image_id))
    living = Leases.living
    came: list[DeliveryRow] = []

    def living_and_one_more(self: Leases, transaction: Transaction) -> frozenset[str]:
        found = living(self, transaction)
        if self is third.leases and not came:
            came.extend(second.deliveries.claim("oods", 4))
        return found

    third = opened(postgres_url)
    monkeypatch.setattr(Leases, "living", living_and_one_more)
    third.renew()
    assert len(came) == 4
    names = {name for (name,) in first.read("SELECT name FROM owner")}
    assert {second.owner, third.owner} <= names
    assert len(third.deliveries.claim("oods", 9)) == 5, "nobody takes what he sends"
    assert all(second.deliveries.end_many([(row, "delivered", "", 0.0, 1) for row in came]))


def test_two_archivers_deliver_nothing_twice(url: str, opened: Open) -> None:
    first = opened(url)
    ids = [take(first, facts_of(number)) for number in range(1, 6)]
    for image_id in ids:
        first.deliveries.plan(plans_of(first, image_id))
    sent: list[list[str]] = [[], [], []]

    def work(ledger: Ledger, mine: list[str]) -> None:
        while rows := ledger.deliveries.claim("oods", 4):
            mine += [row.path for row in rows]
            assert all(ledger.deliveries.end_many([(row, "delivered", "", 0.0, 0) for row in rows]))

    ledgers = [opened(url) for _ in sent]
    threads = [threading.Thread(target=work, args=pair) for pair in zip(ledgers, sent, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    everything = [path for mine in sent for path in mine]
    assert len(everything) == len(set(everything)) == 45
    assert first.deliveries.counts() == {"oods": {"delivered": 45}}


def test_a_role_has_one_holder(url: str, opened: Open) -> None:
    one, two = opened(url, lease=0.5), opened(url, lease=0.5)
    assert one.roles.take("archiver:LSSTComCam")
    assert one.roles.take("archiver:LSSTComCam")
    assert not two.roles.take("archiver:LSSTComCam")
    assert two.roles.take("archiver:LATISS")
    assert one.roles.holds("archiver:LSSTComCam")
    assert not two.roles.holds("archiver:LSSTComCam")
    assert two.roles.holder("archiver:LSSTComCam") == one.owner
    time.sleep(0.6)
    assert not one.roles.holds("archiver:LSSTComCam"), "our lease has ended, whether anybody noticed or not"
    assert two.roles.take("archiver:LSSTComCam")
    one.renew()
    assert not one.roles.holds("archiver:LSSTComCam")
    two.roles.give_up("archiver:LSSTComCam")
    assert one.roles.take("archiver:LSSTComCam")
    story = [(each.old, each.new) for each in one.events.after(0, things=["role"])][-3:]
    assert story == [(one.owner, two.owner), (two.owner, ""), ("", one.owner)]


def test_a_lease_is_kept_alive(url: str, opened: Open) -> None:
    """D164: who is busy for longer than a lease keeps what it has."""
    one, two = opened(url, lease=0.6), opened(url, lease=0.6)
    one.keep_alive(0.1)
    assert one.roles.take("x")
    time.sleep(1.0)
    assert not two.roles.take("x")


def test_no_event_is_overtaken_by_a_cursor(url: str, opened: Open) -> None:
    """Writers in many connections: who reads on from the last number he has seen misses none."""
    writers = [opened(url) for _ in range(4)]
    reader = opened(url, read_only=True)
    stop = threading.Event()
    seen: list[int] = []

    def write(ledger: Ledger, base: int) -> None:
        for number in range(25):
            take(ledger, facts_of(base + number), "22/0")

    def read() -> None:
        last = False
        while True:
            events = reader.events.after(seen[-1] if seen else 0, limit=7)
            seen.extend(event.number for event in events)
            if not events:
                if last:
                    return
                last = stop.is_set()

    threads = [threading.Thread(target=write, args=(each, 100 * n)) for n, each in enumerate(writers, 1)]
    watcher = threading.Thread(target=read)
    watcher.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    watcher.join()
    there = [number for (number,) in reader.read("SELECT number FROM event ORDER BY number")]
    assert seen == there
    assert len(there) == 100 * 10, "image twice, source twice, 3 files, 3 detectors"


def test_cursors_go_on_only(ledger: Ledger) -> None:
    assert ledger.events.cursor("zmq") == 0
    ledger.events.move_cursor("zmq", 5)
    ledger.events.move_cursor("zmq", 3)
    assert ledger.events.cursor("zmq") == 5
    ledger.events.move_cursor("zmq", 8)
    assert (ledger.events.cursor("zmq"), ledger.events.cursor("kafka")) == (8, 0)


def test_the_night_can_be_told_again(ledger: Ledger) -> None:
    take(ledger, facts_of(1))
    take(ledger, facts_of(1, day=20261121))
    night = ledger.events.of_night(20261122)
    assert [event.number for event in night] == sorted(event.number for event in night)
    assert {event.dayobs for event in night} == {20261122}
    assert {event.obsid for event in night} == {facts_of(1).obsid}
    assert {event.thing for event in night} == {"image", "source", "detector", "file"}
    assert [event.new for event in ledger.events.of_night(20261122, ["image"])] == ["announced", "capturing"]
