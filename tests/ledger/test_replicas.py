"""Replicas: written with the delivery that brought them, scrubbed, and counted before anything is deleted."""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from night import facts_of, take, wait_for

from raftwright.errors import UsageError
from raftwright.ledger import ENDPOINT, DeliveryPlan, DeliveryRow, FileRow, Ledger, tai
from raftwright.ledger.checking import check_ledger, counts_of
from raftwright.ledger.replicas import ReplicaQueue

Open = Callable[..., Ledger]


def whole(ledger: Ledger, number: int = 1, **more: object) -> list[FileRow]:
    """The files of an image, verified in the archive."""
    image_id = take(ledger, facts_of(number), **more)  # type: ignore[arg-type]
    assert ledger.files.all_verified([file.path for file in ledger.files.of(image_id)]) == 9
    return ledger.files.of(image_id)


def plans_of(files: Iterable[FileRow]) -> list[DeliveryPlan]:
    return [
        DeliveryPlan(
            image_id=file.image_id,
            destination="",
            path=file.path,
            target=Path(file.path).name,
            bytes=file.bytes,
            crc32c=file.crc32c,
        )
        for file in files
    ]


def bring(ledger: Ledger, endpoint: str, files: Iterable[FileRow], *, custodial: bool = False) -> None:
    """All of them to an endpoint."""
    plans = plans_of(files)
    assert ledger.replicas.plan(endpoint, plans) == len(plans)
    queue = ledger.replicas.queue(endpoint, custodial=custodial)
    rows = queue.claim(ENDPOINT + endpoint, len(plans))
    assert len(rows) == len(plans)
    assert all(queue.end_many([(row, "delivered", "", 0.0, row.bytes) for row in rows]))


def test_a_replica_is_written_with_its_delivery(ledger: Ledger) -> None:
    files = whole(ledger)
    missing = ledger.replicas.missing("usdf")
    assert missing == files
    assert {(file.image_id, file.id > 0) for file in missing} == {(files[0].image_id, True)}
    assert ledger.replicas.plan("usdf", plans_of(missing)) == 9
    assert ledger.replicas.plan("usdf", plans_of(missing)) == 0
    assert ledger.replicas.missing("usdf") == [], "they are on their way"
    queue = ledger.replicas.queue("usdf")
    rows = queue.claim(ENDPOINT + "usdf", 5)
    begun = tai()
    ends = ("delivered", "delivered", "failed", "conflict", "queued")
    assert queue.end_many(
        [(row, end, "because", 100.0, 10) for row, end in zip(rows, ends, strict=True)]
    ) == ([True] * 5)
    assert queue.end_many([(rows[0], "delivered", "", 0.0, 10)]) == [True], "an answer may have been lost"
    assert queue.end_many([(rows[1], "queued", "", 0.0, 0)]) == [False]
    replicas = ledger.replicas.of(files[0].image_id)
    assert [(row.path, row.file_id) for row in replicas] == [(file.path, file.id) for file in files[:2]]
    for row, file in zip(replicas, files, strict=False):
        assert (row.endpoint, row.target, row.state) == ("usdf", Path(file.path).name, "verified")
        assert (row.bytes, row.crc32c, row.adler32) == (file.bytes, file.crc32c, file.adler32)
        assert begun <= row.verified_tai == row.checked_tai <= tai()
        assert (row.custodial, row.obsid) == (0, file.image)
    assert ledger.replicas.missing("usdf") == [], "what failed waits for somebody to ask for it again"
    assert len(ledger.replicas.missing("tape")) == 9
    assert ledger.deliveries.again(ENDPOINT + "usdf", states=("failed", "conflict")) == 2
    story = [(event.subject, event.old, event.new) for event in ledger.events.after(0, things=["replica"])]
    assert story == [(f"usdf {Path(file.path).name}", "", "verified") for file in files[:2]]
    assert ledger.replicas.counts() == {"usdf": {"verified": 2}}
    assert ledger.replicas.of_files(file.id for file in files) == replicas
    assert ledger.replicas.at("usdf", replicas[0].id, 10) == replicas[1:]
    assert check_ledger(ledger) == []
    assert counts_of(ledger)["replica"] == {"verified": 2}


def test_what_is_missing_at_an_endpoint(ledger: Ledger) -> None:
    files = whole(ledger)
    other = take(ledger, facts_of(2))
    unverified = ledger.files.of(other)
    replicas = ledger.replicas
    assert replicas.missing("usdf") == files, "whose sums were not looked at may be damaged"
    assert replicas.missing("usdf", verified=False) == [*files, *unverified]
    assert replicas.missing("usdf", limit=4) == files[:4]
    assert replicas.missing("usdf", limit=4, after_file_id=files[3].id) == files[4:8]
    assert replicas.missing("usdf", after_file_id=files[3].id, until_file_id=files[5].id) == files[4:6]
    assert replicas.missing("usdf", image_ids=[other]) == []
    assert replicas.missing("usdf", image_ids=[files[0].image_id, other]) == files
    assert replicas.missing("usdf", image_ids=[]) == []
    assert replicas.missing("usdf", ["sidecar"]) == []
    assert replicas.missing("usdf", instruments=["LATISS"]) == []
    assert replicas.missing("usdf", instruments=["LATISS", "LSSTComCam"]) == files
    assert replicas.last_file() == unverified[-1].id
    ledger.files.verified(files[8].path, False)
    assert replicas.missing("usdf") == files[:8], "a damaged file is not handed on"
    bring(ledger, "usdf", files[:8])
    rows = replicas.of(files[0].image_id)
    assert replicas.lost(rows[0], "it is not there")
    assert replicas.damaged(rows[1], "a flipped bit")
    assert replicas.removed(rows[2], "retention")
    ledger.database.change(
        lambda transaction: transaction.run(
            "UPDATE file SET crc32c = 'other' WHERE id = ?", (rows[3].file_id,)
        )
    )
    found = replicas.missing("usdf")
    assert [file.id for file in found] == [row.file_id for row in (rows[0], rows[1], rows[3])]
    assert len(replicas.missing("usdf", removed=True)) == 4
    assert replicas.plan("usdf", plans_of(found)) == 3, "delivered once, and queued again"
    assert replicas.missing("usdf") == []
    queue = replicas.queue("usdf", custodial=True)
    rows_again = queue.claim(ENDPOINT + "usdf", 9)
    assert len(rows_again) == 3
    assert all(queue.end_many([(row, "delivered", "", 0.0, 1) for row in rows_again]))
    assert replicas.missing("usdf") == []
    now = {row.id: row for row in replicas.of(files[0].image_id)}
    assert len(now) == 8, "one row for each file and endpoint, however often it is brought"
    assert [now[row.id].state for row in rows[:4]] == ["verified", "verified", "removed", "verified"]
    assert now[rows[3].id].crc32c == "other"
    assert [now[row.id].custodial for row in rows[:5]] == [1, 1, 0, 1, 0]
    assert now[rows[0].id].verified_tai == rows[0].verified_tai < now[rows[0].id].checked_tai


_KILLED = """
import os, signal, sys
from raftwright.ledger import open_ledger
from raftwright.ledger.replicas import ReplicaQueue
before = ReplicaQueue._delivered_in
def enter(self, transaction, rows):
    if sys.argv[2] == "after":
        before(self, transaction, rows)
    transaction.rows("SELECT 1")  # all that was sent is done, and nothing is committed
    os.kill(os.getpid(), signal.SIGKILL)
ReplicaQueue._delivered_in = enter
ledger = open_ledger(sys.argv[1])
queue = ledger.replicas.queue("usdf")
rows = queue.claim("endpoint:usdf", 4)
assert len(rows) == 4
queue.end_many([(row, "delivered", "", 0.0, 10) for row in rows])
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_between_the_delivery_and_its_replica(url: str, opened: Open, when: str) -> None:
    """One commit: there is no moment at which one is there without the other."""
    ledger = opened(url)
    files = whole(ledger)
    ledger.replicas.plan("usdf", plans_of(files))
    done = subprocess.run([sys.executable, "-c", _KILLED, url, when], timeout=60, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert ledger.replicas.of(files[0].image_id) == []
    assert ledger.deliveries.counts() == {ENDPOINT + "usdf": {"queued": 5, "sending": 4}}
    assert check_ledger(ledger) == []
    queue = ledger.replicas.queue("usdf")
    rows: list[DeliveryRow] = []
    wait_for(lambda: rows.extend(queue.claim(ENDPOINT + "usdf", 9)) or len(rows) == 9, 15)
    assert sorted(row.attempts for row in rows) == [1] * 5 + [2] * 4
    assert all(queue.end_many([(row, "delivered", "", 0.0, 10) for row in rows]))
    assert ledger.replicas.counts() == {"usdf": {"verified": 9}}


def test_a_delivery_without_its_replica_is_a_contradiction(ledger: Ledger) -> None:
    """As a program of before would leave it, or a hand in the ledger."""
    files = whole(ledger)
    bring(ledger, "usdf", files)
    ledger.database.change(lambda transaction: transaction.run("DELETE FROM replica WHERE file_id < 3"))
    ledger.database.change(
        lambda transaction: transaction.run("UPDATE replica SET file_id = 77 WHERE id = 9")
    )
    faults = {fault.what: fault.count for fault in check_ledger(ledger)}
    assert faults["files were delivered to endpoints, and no replica of them is known"] == 3
    assert faults["rows of replica belong to files that are not there"] == 1
    assert len(ledger.replicas.missing("usdf")) == 3
    assert ledger.replicas.plan("usdf", plans_of(ledger.replicas.missing("usdf"))) == 3


def test_two_hand_offs_bring_nothing_twice(url: str, opened: Open) -> None:
    first = opened(url)
    files = [file for number in range(1, 5) for file in whole(first, number)]
    first.replicas.plan("usdf", plans_of(files))
    sent: list[list[str]] = [[], [], []]

    def work(ledger: Ledger, mine: list[str]) -> None:
        queue: ReplicaQueue = ledger.replicas.queue("usdf")
        ends: list[tuple[DeliveryRow, str, str, float, int]] = []
        while True:
            done, rows = queue.turn(ENDPOINT + "usdf", ends, 4)
            assert all(done)
            if not rows:
                return
            mine += [row.path for row in rows]
            ends = [(row, "delivered", "", 0.0, 10) for row in rows]

    ledgers = [opened(url) for _ in sent]
    threads = [threading.Thread(target=work, args=pair) for pair in zip(ledgers, sent, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    everything = [path for mine in sent for path in mine]
    assert len(everything) == len(set(everything)) == 36
    assert first.replicas.counts() == {"usdf": {"verified": 36}}
    assert first.replicas.missing("usdf") == []


# -- the rule of retention


def test_safe_is_what_has_enough_good_copies_elsewhere(ledger: Ledger) -> None:
    """D131. Made-up files with copies in all states, against the rule as one would say it."""
    generator = random.Random(20261122)
    places = ("usdf", "tape", "frdf", "ukdf")
    images = [take(ledger, facts_of(number)) for number in range(1, 5)]
    files = [file for image_id in images for file in ledger.files.of(image_id)]
    copies = []
    for file, place in itertools.product(files, places):
        if generator.random() < 0.6:
            state = generator.choice(["verified"] * 5 + ["damaged", "lost", "removed"])
            crc32c = generator.choice([file.crc32c] * 9 + ["other"])
            size = generator.choice([file.bytes] * 9 + [file.bytes + 1])
            checked = generator.choice([100.0, 200.0])
            copies.append((file, place, state, crc32c, size, generator.randint(0, 1), checked))
    columns = ("image_id", "file_id", "endpoint", "target", "state", "crc32c", "bytes", "custodial")
    ledger.database.change(
        lambda transaction: transaction.insert(
            "replica",
            (*columns, "verified_tai", "checked_tai"),
            [
                (file.image_id, file.id, place, file.path, *rest, checked, checked)
                for file, place, *rest, checked in copies
            ],
        )
    )
    ids = [file.id for file in files]
    seen = set()
    for _ in range(60):
        named = generator.sample(places, generator.randint(0, 3))
        least, custodial = generator.randint(0, 3), generator.randint(0, 2)
        but = generator.sample(places, generator.choice([0, 0, 1]))
        since = generator.choice([0.0, 150.0])
        good: dict[int, dict[str, int]] = {file.id: {} for file in files}
        for file, place, state, crc32c, size, kept, checked in copies:
            same = crc32c == file.crc32c and size == file.bytes
            if state == "verified" and same and place not in but and checked >= since:
                good[file.id][place] = kept
        expected = {
            number
            for number, there in good.items()
            if all(name in there for name in named)
            and len(there) >= least
            and sum(there.values()) >= custodial
        }
        found = ledger.replicas.safe(
            [*ids, 0, -1, 99_999], named, custodial, least=least, but=but, checked_since=since
        )
        assert found == expected, (named, least, custodial, but, since)
        if not named:
            assert ledger.replicas.safe(ids, least, custodial, but=but, checked_since=since) == expected
        seen.add(len(expected))
    assert len(seen) > 8, "it is not always all or nothing"


def test_two_deliveries_to_an_endpoint_count_once(ledger: Ledger) -> None:
    """D131: where a file has two names at one endpoint, that is one place."""
    files = whole(ledger)
    bring(ledger, "usdf", files)
    ids = {file.id for file in files}
    queue = ledger.replicas.queue("usdf")
    assert ledger.deliveries.again(ENDPOINT + "usdf", states=["delivered"]) == 9
    for row in queue.claim(ENDPOINT + "usdf", 9):
        assert queue.end(row, "delivered")
    assert ledger.replicas.safe(ids, 1) == ids
    assert ledger.replicas.safe(ids, 2) == set()
    assert ledger.replicas.safe(ids, ["usdf"], 1) == set(), "not custodial"
    bring(ledger, "tape", files[:3], custodial=True)
    assert ledger.replicas.safe(ids, 2) == {file.id for file in files[:3]}
    assert ledger.replicas.safe(ids, ["usdf"], 1) == {file.id for file in files[:3]}
    assert ledger.replicas.safe(ids, ["usdf", "tape", "frdf"]) == set()
    assert ledger.replicas.safe(ids, 1, but=["usdf"]) == {file.id for file in files[:3]}
    assert ledger.replicas.safe([], 1) == set()
    with pytest.raises(UsageError, match="list of names"):
        ledger.replicas.safe(ids, "usdf")
    with pytest.raises(UsageError, match="less than no copy"):
        ledger.replicas.safe(ids, -1)


def test_scrubbing(ledger: Ledger) -> None:
    files = whole(ledger)
    bring(ledger, "usdf", files)
    bring(ledger, "tape", files[:1])
    later = tai() + 1
    due = ledger.replicas.due("usdf", later)
    assert [row.file_id for row in due] == [file.id for file in files]
    assert ledger.replicas.due("usdf", later - 1000) == []
    time.sleep(0.01)
    assert ledger.replicas.checked(due[:3]) == 3
    again = ledger.replicas.due("usdf", later)
    assert [row.id for row in again[:6]] == [row.id for row in due[3:]], "the oldest first"
    assert ledger.replicas.due("usdf", later, 2) == again[:2]
    before = ledger.events.last()
    bad, gone, away = again[:3]
    assert ledger.replicas.damaged(bad, "CRC-32C is 1, not 2")
    assert not ledger.replicas.damaged(bad, "again")
    sent = ledger.deliveries.of(bad.image_id)
    ends = [(row, "delivered", "", 0.0, 10) for row in sent if row.destination == ENDPOINT + "usdf"]
    assert all(ledger.replicas.queue("usdf").end_many(ends)), "told twice, since an answer was lost"
    assert ledger.replicas.counts("usdf", verified=False) == {"usdf": {"damaged": 1}}
    assert ledger.replicas.lost(gone, "not there\0\ud800")
    assert ledger.replicas.removed(away)
    assert len(ledger.replicas.due("usdf", later)) == 6
    assert ledger.replicas.checked([bad, gone, away]) == 0, "that is to be healed"
    assert ledger.replicas.counts("usdf", verified=False) == {"usdf": {"damaged": 1, "lost": 1, "removed": 1}}
    assert ledger.replicas.counts(dayobs=20261122) == {
        "tape": {"verified": 1},
        "usdf": {"damaged": 1, "lost": 1, "removed": 1, "verified": 6},
    }
    assert ledger.replicas.counts(dayobs=20261123) == {}
    assert [row.state for row in ledger.replicas.at("usdf", states=["lost", "damaged"])] == [
        "damaged",
        "lost",
    ]
    assert ledger.replicas.healed(bad, "copied from tape")
    assert not ledger.replicas.healed(bad, "copied from tape")
    with pytest.raises(UsageError, match="no step from removed to lost"):
        ledger.replicas.lost(away, "x")
    (row,) = ledger.replicas.of_files([bad.file_id])[-1:]
    assert (row.state, row.reason) == ("verified", "")
    assert row.checked_tai > bad.checked_tai
    story = [(event.old, event.new, event.detail) for event in ledger.events.after(before)]
    assert story == [
        ("verified", "damaged", {"reason": "CRC-32C is 1, not 2"}),
        ("verified", "lost", {"reason": "not there\\0\\ud800"}),
        ("verified", "removed", {}),
        ("damaged", "verified", {"reason": "copied from tape"}),
    ]


def test_what_was_read_in_the_future_is_due(ledger: Ledger) -> None:
    """A clock was wrong, and is right again: it would not be read for as long as it was ahead."""
    bring(ledger, "usdf", whole(ledger))
    ahead = tai() + 1e7
    ledger.database.change(
        lambda transaction: transaction.run("UPDATE replica SET checked_tai = ? WHERE id <= 4", (ahead,))
    )
    assert [row.checked_tai for row in ledger.replicas.due("usdf", tai() - 1000)] == [ahead] * 4
    assert len(ledger.replicas.due("usdf", tai() + 1)) == 9
    assert len(ledger.replicas.due("usdf", tai() + 1, 7)) == 7
    assert ledger.replicas.checked(ledger.replicas.due("usdf", tai() - 1000)) == 4
    assert ledger.replicas.due("usdf", tai() - 1000) == []
