"""Ingests: the queue of a Butler repository, what waits in it, and what leaves it again."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from night import facts_of, take, wait_for

from raftwright.errors import NotFoundError, UsageError
from raftwright.ledger import IngestPlan, IngestRow, Ledger, tai
from raftwright.ledger.checking import check_ledger, counts_of

Open = Callable[..., Ledger]

REPO = "/repo/oods"
LATER = 3e9


def plans_of(ledger: Ledger, image_id: int, repository: str = REPO, **more: Any) -> list[IngestPlan]:
    found = []
    for file in ledger.files.of(image_id):
        values = {"image_id": image_id, "file_id": file.id, "repository": repository, "path": file.path}
        values |= {"detector": file.detector, "crc32c": file.crc32c, "bytes": file.bytes, **more}
        found.append(IngestPlan(**values))
    return found


def guider_of(image_id: int, number: int = 0, **more: Any) -> IngestPlan:
    values = {
        "image_id": image_id,
        "repository": REPO,
        "path": f"/g/{image_id}/{number}",
        "kind": "guider",
        "priority": 30,
        **more,
    }
    return IngestPlan(**values)


def ingested(ledger: Ledger, number: int = 1, **more: Any) -> list[IngestRow]:
    """The raws of an image, in the repository."""
    image_id = take(ledger, facts_of(number))
    plans = plans_of(ledger, image_id, **more)
    assert ledger.ingests.plan(plans) == 9
    rows = ledger.ingests.claim(plans[0].repository, 9)
    assert {row.image_id for row in rows} == {image_id}
    assert all(ledger.ingests.end_many([(row, "ingested", "", 0.0, {"dataset_id": "d"}) for row in rows]))
    return ledger.ingests.of(image_id)


def states_of(ledger: Ledger, image_id: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in ledger.ingests.of(image_id):
        found[row.state] = found.get(row.state, 0) + 1
    return found


# -- the queue


def test_a_file_is_ingested(ledger: Ledger) -> None:
    image_id = take(ledger, facts_of())
    plans = plans_of(ledger, image_id)
    assert ledger.ingests.plan(plans) == 9
    assert ledger.ingests.plan([*plans, *plans_of(ledger, image_id, "other")]) == 9, "planned once each"
    rows = ledger.ingests.claim(REPO, 7)
    assert [row.path for row in rows] == [plan.path for plan in plans[:7]]
    assert {(row.state, row.attempts, row.obsid, row.instrument) for row in rows} == {
        ("ingesting", 1, facts_of().obsid, "LSSTComCam")
    }
    known = {"uri": "file:///a", "dataset_id": "0-1", "run": "r", "dataset_type": "raw", "code": 0}
    begun = tai()
    assert ledger.ingests.end(rows[0], "ingested", **known)
    assert ledger.ingests.end(rows[0], "ingested", **known), "an answer may have been lost"
    assert not ledger.ingests.end(rows[0], "failed")
    assert ledger.ingests.end(rows[1], "queued", "registry locked", retry_after=0.3)
    assert ledger.ingests.end(rows[2], "failed", "no FITS file", code=7)
    assert ledger.ingests.end(rows[3], "conflict", "another content is there")
    assert ledger.ingests.end(rows[4], "unsupported", "what is this")
    first = ledger.ingests.by_path(REPO, rows[0].path)[0]
    assert (first.uri, first.dataset_id, first.run, first.dataset_type) == ("file:///a", "0-1", "r", "raw")
    assert first.ingested_tai is not None
    assert begun <= first.ingested_tai <= tai()
    assert ledger.ingests.by_path(REPO, rows[2].path)[0].code == 7
    assert ledger.ingests.counts(REPO) == {
        REPO: {"conflict": 1, "failed": 1, "ingested": 1, "ingesting": 2, "queued": 3, "unsupported": 1}
    }
    assert "ingested" not in ledger.ingests.counts(REPO, done=False)[REPO]
    assert ledger.ingests.counts(dayobs=20261122)["other"] == {"queued": 9}
    assert ledger.ingests.counts(dayobs=20261123) == {}
    assert [row.path for row in ledger.ingests.claim(REPO, 9)] == [plan.path for plan in plans[7:]]
    time.sleep(0.31)
    (again,) = ledger.ingests.claim(REPO, 9)
    assert (again.path, again.attempts) == (rows[1].path, 2)
    assert ledger.ingests.again(REPO) == 1
    assert ledger.ingests.again(REPO, states=["conflict", "unsupported", "failed"], ids=[rows[3].id]) == 1
    assert ledger.ingests.again(REPO, image_id, states=["ingested"]) == 1
    assert ledger.ingests.again(ids=[]) == 0
    with pytest.raises(UsageError, match="no step from leaving to queued"):
        ledger.ingests.again(states=["leaving"])
    with pytest.raises(UsageError, match="does not end"):
        ledger.ingests.end(again, "ingesting")
    with pytest.raises(UsageError, match="no facts"):
        ledger.ingests.end(again, "ingested", colour="red")
    with pytest.raises(UsageError, match="no image of the number"):
        ledger.ingests.plan([guider_of(99)])
    story = [
        (event.old, event.new)
        for event in ledger.events.of(image_id)
        if event.thing == "ingest" and event.subject == f"{REPO} {rows[1].path}"
    ]
    assert story == [("queued", "ingesting"), ("ingesting", "queued"), ("queued", "ingesting")]
    assert check_ledger(ledger) == []
    assert counts_of(ledger)["ingest"]["queued"] == 12


def test_wavefront_before_science_before_guider_and_the_oldest_first(ledger: Ledger) -> None:
    """D135."""
    images = [take(ledger, facts_of(number)) for number in (1, 2, 3)]
    for priority in (20, 30, 10):
        for image_id in reversed(images):
            plan = guider_of(image_id, priority, priority=priority)
            assert ledger.ingests.plan([plan]) == 1
    found = [(row.priority, row.image_id) for _ in range(5) for row in ledger.ingests.claim(REPO, 2)]
    assert found == [(priority, image_id) for priority in (10, 20, 30) for image_id in images]


def test_a_file_of_no_image(ledger: Ledger) -> None:
    """What a scan finds may be anything: it is kept, and told."""
    plan = IngestPlan(image_id=0, repository=REPO, path="/in/notes\udcff.txt", crc32c="1")
    assert ledger.ingests.plan([plan]) == 1
    assert ledger.ingests.plan([plan]) == 0
    (row,) = ledger.ingests.claim(REPO, 9)
    assert (row.image_id, row.obsid, row.path) == (0, "", "/in/notes\\udcff.txt")
    assert ledger.ingests.end(row, "unsupported", "no FITS file")
    other = IngestPlan(image_id=0, repository=REPO, path="/in/notes\udcff.txt", crc32c="2")
    assert ledger.ingests.plan([other]) == 1, "the same name with another content is another file"
    assert [each.state for each in ledger.ingests.by_path(REPO, plan.path)] == ["unsupported", "queued"]
    assert [event.new for event in ledger.events.after(0, things=["ingest"])] == [
        *("queued", "ingesting", "unsupported", "queued")
    ]
    assert check_ledger(ledger) == []


_WORKER = """
import sys
from raftwright.ledger import open_ledger
ledger = open_ledger(sys.argv[1])
ends, mine = [], []
while True:
    done, rows = ledger.ingests.turn(sys.argv[2], ends, 5)
    assert all(done)
    if not rows:
        break
    mine += [str(row.id) for row in rows]
    ends = [(row, "ingested", "", 0.0, {}) for row in rows]
ledger.close()
print(" ".join(mine))
"""


def test_two_processes_ingest_nothing_twice(ledger: Ledger, url: str) -> None:
    for number in range(1, 9):
        ledger.ingests.plan(plans_of(ledger, take(ledger, facts_of(number))))
    workers = [
        subprocess.Popen([sys.executable, "-c", _WORKER, url, REPO], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    found = [worker.communicate(timeout=60)[0].split() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    assert len(found[0] + found[1]) == len({*found[0], *found[1]}) == 72
    assert ledger.ingests.counts() == {REPO: {"ingested": 72}}


_KILLED = """
import os, signal, sys
from raftwright.ledger import open_ledger
ledger = open_ledger(sys.argv[1])
rows = ledger.ingests.claim(sys.argv[2], 4)
assert len(rows) == 4
assert ledger.ingests.end(rows[0], "ingested")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_the_dead_were_ingesting_is_ingested(ledger: Ledger, url: str, opened: Open) -> None:
    image_id = take(ledger, facts_of())
    ledger.ingests.plan(plans_of(ledger, image_id))
    done = subprocess.run([sys.executable, "-c", _KILLED, url, REPO], timeout=60, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    rows: list[IngestRow] = []
    wait_for(lambda: rows.extend(ledger.ingests.claim(REPO, 9)) or len(rows) == 8, 15)
    assert sorted(row.attempts for row in rows) == [1] * 5 + [2] * 3
    other = opened(url)
    assert other.ingests.claim(REPO, 9) == []
    ledger.close()
    assert len(other.ingests.claim(REPO, 9)) == 8, "given back at the end"
    assert not other.ingests.end_many([(rows[0], "ingested", "", 0.0, {})])[0]


# -- guiders wait for their exposure


def test_an_object_that_was_written_anew_before_it_was_ingested(ledger: Ledger) -> None:
    """What is there now is ingested; what failed gets another chance, what is ingested stays what it is."""
    image_id = take(ledger, facts_of())
    plan = IngestPlan(image_id=image_id, repository=REPO, path="s3://a/b.fits", bytes=3, stored="one")
    assert ledger.ingests.plan([plan]) == 1
    (row,) = ledger.ingests.by_paths(REPO, ["s3://a/b.fits", "s3://a/c.fits"])["s3://a/b.fits"]
    assert (row.bytes, row.stored) == (3, "one")
    assert ledger.ingests.rewritten(row, 4, "two")
    (claimed,) = ledger.ingests.claim(REPO, 9)
    assert (claimed.bytes, claimed.stored) == (4, "two")
    assert not ledger.ingests.rewritten(row, 5, "three")
    assert ledger.ingests.end(claimed, "failed", "is cut")
    assert ledger.ingests.rewritten(row, 5, "three")
    (claimed,) = ledger.ingests.claim(REPO, 9)
    assert (claimed.bytes, claimed.stored) == (5, "three")
    assert ledger.ingests.end(claimed, "ingested")
    assert not ledger.ingests.rewritten(row, 6, "four")
    (row,) = ledger.ingests.by_path(REPO, "s3://a/b.fits")
    assert (row.state, row.bytes, row.stored) == ("ingested", 5, "three")


def test_a_guider_waits_for_its_exposure(ledger: Ledger) -> None:
    """F38: in the ledger, not in memory: whoever ingests the exposure lets it go on."""
    one, two = (take(ledger, facts_of(number)) for number in (1, 2))
    ledger.ingests.plan([guider_of(one), guider_of(two), guider_of(one, 1, repository="other")])
    rows = [*ledger.ingests.claim(REPO, 9), *ledger.ingests.claim("other", 9)]
    assert all(
        ledger.ingests.end_many([(row, "waiting", "no exposure yet", 100.0, {"code": 1}) for row in rows])
    )
    assert ledger.ingests.claim(REPO, 9) == []
    ledger.ingests.plan(plans_of(ledger, one)[:2])
    raws = ledger.ingests.claim(REPO, 9)
    assert ledger.ingests.end(raws[0], "failed")
    assert states_of(ledger, one) == {"failed": 1, "ingesting": 1, "waiting": 2}
    assert ledger.ingests.end(raws[1], "ingested")
    assert states_of(ledger, one) == {"failed": 1, "ingested": 1, "queued": 1, "waiting": 1}
    assert states_of(ledger, two) == {"waiting": 1}, "another image, or another repository, waits on"
    (guider,) = ledger.ingests.claim(REPO, 9)
    assert (guider.image_id, guider.kind, guider.attempts) == (one, "guider", 2)
    assert ledger.ingests.release(REPO, [one]) == 0
    assert ledger.ingests.release(REPO, [one, two]) == 1
    assert ledger.ingests.release("other", [one]) == 1


def test_a_guider_whose_exposure_came_meanwhile_does_not_wait(ledger: Ledger) -> None:
    image_id = take(ledger, facts_of())
    ledger.ingests.plan([guider_of(image_id)])
    (guider,) = ledger.ingests.claim(REPO, 1)
    ledger.ingests.plan(plans_of(ledger, image_id)[:1])
    (raw,) = ledger.ingests.claim(REPO, 9)
    ends = [(guider, "waiting", "no exposure yet", 100.0, {}), (raw, "ingested", "", 0.0, {})]
    assert ledger.ingests.end_many(ends) == [True, True]
    assert states_of(ledger, image_id) == {"ingested": 1, "queued": 1}, "in one commit"
    wait_for(lambda: ledger.ingests.again(states=["waiting"]) == 0)
    rows: list[IngestRow] = []
    wait_for(lambda: rows.extend(ledger.ingests.claim(REPO, 9)) or rows, 5)
    assert ledger.ingests.end(rows[0], "waiting", "no exposure yet", 100.0)
    assert states_of(ledger, image_id) == {"ingested": 1, "queued": 1}
    (row,) = (row for row in ledger.ingests.of(image_id) if row.kind == "guider")
    assert 0.5 < row.next_try - tai() <= 100, "tried again, but not at once"


def test_no_guider_waits_beside_its_exposure(url: str, opened: Open) -> None:
    """Two processes end them at the same moment, many times: none sees what the other has not committed."""
    one, two = opened(url), opened(url)
    barrier = threading.Barrier(2)

    def end(ledger: Ledger, row: IngestRow, state: str) -> None:
        barrier.wait(10)
        assert ledger.ingests.end(row, state, retry_after=500.0)

    for number in range(1, 16):
        image_id = take(one, facts_of(number))
        one.ingests.plan(plans_of(one, image_id)[:1])
        two.ingests.plan([guider_of(image_id, repository=REPO)])
        (raw,) = one.ingests.claim(REPO, 1)
        (guider,) = two.ingests.claim(REPO, 1)
        threads = [
            threading.Thread(target=end, args=(one, raw, "ingested")),
            threading.Thread(target=end, args=(two, guider, "waiting")),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert states_of(one, image_id) == {"ingested": 1, "queued": 1}, number


def test_who_waits_too_long_has_failed(ledger: Ledger) -> None:
    """F38: and that is an event."""
    image_id = take(ledger, facts_of())
    ledger.ingests.plan([guider_of(image_id), guider_of(image_id, 1)])
    rows = ledger.ingests.claim(REPO, 9)
    assert ledger.ingests.end(rows[0], "waiting", "no exposure yet", 0.2)
    assert ledger.ingests.end(rows[1], "waiting", "no exposure yet")
    assert ledger.ingests.claim(REPO, 9) == []
    assert states_of(ledger, image_id) == {"waiting": 2}
    time.sleep(0.21)
    assert ledger.ingests.claim(REPO, 9) == []
    assert states_of(ledger, image_id) == {"failed": 1, "waiting": 1}
    (failed,) = ledger.ingests.select(states=["failed"])
    assert "did not come in time" in failed.reason
    event = ledger.events.of(image_id)[-1]
    assert (event.thing, event.old, event.new) == ("ingest", "waiting", "failed")
    assert ledger.ingests.again(REPO) == 1


# -- leaving


def test_what_leaves_goes_in_two_steps(ledger: Ledger) -> None:
    rows = ingested(ledger)
    going = ledger.ingests.leave(rows[:6], "high water")
    assert [row.id for row in going] == [row.id for row in rows[:6]]
    assert ledger.ingests.leave(rows[:7]) == rows[6:7], "each goes once"
    assert [row.id for row in ledger.ingests.leaving(REPO)] == [row.id for row in rows[:7]]
    assert ledger.ingests.claim(REPO, 9) == []
    assert ledger.ingests.find("LSSTComCam", "x") == []
    gone = ledger.ingests.removed(rows[:3])
    assert [row.id for row in gone] == [row.id for row in rows[:3]]
    assert ledger.ingests.removed([rows[0], rows[8]]) == [], "what did not leave first stays"
    assert [row.id for row in ledger.ingests.unleave(rows)] == [row.id for row in rows[3:7]]
    assert states_of(ledger, rows[0].image_id) == {"ingested": 6, "removed": 3}
    now = ledger.ingests.of(rows[0].image_id)
    assert now[0].removed_tai is not None
    assert now[3].removed_tai is None
    assert now[3].ingested_tai == rows[3].ingested_tai
    assert ledger.ingests.plan(plans_of(ledger, rows[0].image_id)) == 0, "what was removed is not found anew"
    assert ledger.ingests.again(REPO, states=["removed"]) == 3
    assert ledger.ingests.of(rows[0].image_id)[0].removed_tai is None


def test_two_retentions_take_nothing_twice(url: str, opened: Open) -> None:
    first = opened(url)
    rows = [row for number in range(1, 5) for row in ingested(first, number)]
    taken: list[list[int]] = [[], [], []]

    def work(ledger: Ledger, mine: list[int]) -> None:
        for _ in range(20):
            mine += [
                row.id for row in ledger.ingests.leave(ledger.ingests.oldest(REPO, "observed", LATER, 7))
            ]

    threads = [threading.Thread(target=work, args=(opened(url), mine)) for mine in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    everything = [number for mine in taken for number in mine]
    assert sorted(everything) == sorted(row.id for row in rows)


def test_what_is_pinned_or_tagged_stays(ledger: Ledger) -> None:
    one, two = ingested(ledger, 1), ingested(ledger, 2)
    image_id, other = one[0].image_id, two[0].image_id
    assert ledger.ingests.pin("for the press", image_ids=[image_id], detectors=[one[0].detector]) == 1
    assert ledger.ingests.pin(ids=[one[0].id, one[1].id]) == 1
    assert ledger.tags.tag("calib", [image_id], [one[2].detector], "flat") == 1
    assert ledger.tags.tag("calib", [image_id], [one[2].detector]) == 0
    assert ledger.tags.tag("whole", [other]) == 1
    stays = {one[0].id, one[1].id, one[2].id}
    oldest = ledger.ingests.oldest(REPO, "ingested", LATER)
    assert {row.id for row in oldest} == {row.id for row in one} - stays
    assert len(ledger.ingests.leave([*one, *two])) == 6
    assert ledger.ingests.unpin(obsids=[one[0].obsid]) == 2
    assert ledger.tags.names() == {"calib": 1, "whole": 1}
    assert [(row.name, row.detector, row.reason) for row in ledger.tags.of(image_id)] == [
        ("calib", one[2].detector, "flat")
    ]
    assert [row.image_id for row in ledger.tags.named("whole")] == [other]
    assert ledger.tags.untag("whole", [image_id]) == 0
    assert ledger.tags.untag("whole") == 1
    assert ledger.tags.untag("whole") == 0
    assert len(ledger.ingests.leave([*one, *two])) == 11
    story = [(event.subject, event.old, event.new) for event in ledger.events.after(0, things=["tag"])]
    assert story == [("calib", "", "calib"), ("whole", "", "whole"), ("whole", "whole", "")]
    for nothing in ({}, {"dayobs": None, "ids": None}):
        with pytest.raises(UsageError, match="nothing is selected"):
            ledger.ingests.pin(**nothing)
    with pytest.raises(UsageError, match="no name for a tag"):
        ledger.tags.tag(" \n", [image_id])
    with pytest.raises(NotFoundError):
        ledger.tags.tag("x", [99])
    assert ledger.ingests.pin(dayobs=20261123) == 0


def test_what_comes_later_of_a_pinned_image_is_pinned(ledger: Ledger) -> None:
    """A repaired file has the dataset of the one that it replaces: with it the pinned one would go."""
    one, two = ingested(ledger, 1), ingested(ledger, 2)
    ledger.ingests.pin(image_ids=[one[0].image_id])
    ledger.ingests.pin(ids=[two[0].id])

    def later(row: IngestRow, detector: str) -> int:
        plan = IngestPlan(
            image_id=row.image_id, repository=REPO, path=f"{row.path}.{detector}.v2", detector=detector
        )
        assert ledger.ingests.plan([plan]) == 1
        return ledger.ingests.by_path(REPO, plan.path)[0].pinned

    assert later(one[0], one[0].detector) == 1
    assert later(one[0], "R99_S99") == 1, "all of it is pinned"
    assert later(two[0], two[0].detector) == 1
    assert later(two[1], two[1].detector) == 0
    assert later(two[1], "R99_S99") == 0


def test_the_oldest_by_observation_and_by_ingest(ledger: Ledger) -> None:
    """D132: an image of long ago that is ingested now is old, or new, as is asked for."""
    old, new = take(ledger, facts_of(1)), take(ledger, facts_of(2))
    ledger.ingests.plan(plans_of(ledger, new, observed_tai=2000.0))
    for row in ledger.ingests.claim(REPO, 9):
        assert ledger.ingests.end(row, "ingested")
    time.sleep(0.01)
    between = tai()
    ledger.images.times(facts_of(1).obsid, begin_tai=1000.0)
    ledger.ingests.plan(plans_of(ledger, old))
    for row in ledger.ingests.claim(REPO, 9):
        assert ledger.ingests.end(row, "ingested")
    by_observation = ledger.ingests.oldest(REPO, "observed", LATER)
    assert [row.image_id for row in by_observation] == [old] * 9 + [new] * 9
    assert {row.observed_tai for row in by_observation} == {1000.0, 2000.0}
    assert [row.image_id for row in ledger.ingests.oldest(REPO, "observed", 1500.0)] == [old] * 9
    assert [row.image_id for row in ledger.ingests.oldest(REPO, "ingested", LATER)] == [new] * 9 + [old] * 9
    assert [row.image_id for row in ledger.ingests.oldest(REPO, "ingested", between)] == [new] * 9
    assert ledger.ingests.oldest("elsewhere", "observed", LATER) == []
    for by in ("observed", "ingested"):
        pages: list[IngestRow] = []
        while True:
            after = (getattr(pages[-1], f"{by}_tai"), pages[-1].id) if pages else (0.0, 0)
            page = ledger.ingests.oldest(REPO, by, LATER, 4, after)  # type: ignore[arg-type]
            if not page:
                break
            pages += page
        assert pages == ledger.ingests.oldest(REPO, by, LATER)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="age is counted"):
        ledger.ingests.oldest(REPO, "size", 1.0)  # type: ignore[arg-type]


# -- asking


def test_presence_of_all_detectors(ledger: Ledger) -> None:
    """D165: corner sensors are there as the others are, and asking changes nothing."""
    facts = [facts_of(number, of="LSSTCam") for number in (1, 2)]
    for number, one in enumerate(facts):
        image_id = take(ledger, one)
        ledger.images.facts(one.obsid, group_id="2026-11-22T02:34:56.976", cur_index=number + 1)
        ledger.ingests.plan(plans_of(ledger, image_id))
    rows = ledger.ingests.claim(REPO, 500)
    assert len(rows) == 410
    assert all(ledger.ingests.end_many([(row, "ingested", "", 0.0, {"uri": "u"}) for row in rows[:-1]]))
    group, before = "2026-11-22T02:34:56.976", ledger.events.last()
    found = ledger.ingests.find("LSSTCam", group, 0)
    assert {row.detector for row in found} == {each.detector for each in facts[0].detectors}
    assert len(found) == 205
    assert {row.obsid for row in found} == {facts[0].obsid}
    for row in found[::17]:
        assert ledger.ingests.find("LSSTCam", group, 0, row.detector) == [row]
        assert ledger.ingests.find("LSSTCam", group, 0, row.detector) == [row]
    assert len(ledger.ingests.find("LSSTCam", group, 1)) == 204
    assert ledger.ingests.find("LSSTCam", group, 1, rows[-1].detector) == []
    assert len(ledger.ingests.find("LSSTCam", group, 1, rows[-1].detector, states=())) == 0
    (other,) = ledger.ingests.find("LSSTCam", group, 1, rows[-1].detector, states=("ingesting",))
    assert other.id == rows[-1].id
    assert len(ledger.ingests.find("LSSTCam", group)) == 409
    for nothing in (("LATISS", group), ("LSSTCam", "x"), ("LSSTCam", group, 2), ("LSSTCam", group, -1)):
        assert ledger.ingests.find(*nothing) == []
    assert ledger.ingests.find("LSSTCam", group, 0, "R22_S11", "elsewhere") == []
    assert ledger.events.last() == before


def test_an_image_whose_header_has_no_index_is_the_first(ledger: Ledger) -> None:
    rows = ingested(ledger)
    ledger.images.facts(facts_of().obsid, group_id="g", cur_index="first")
    assert ledger.images.get(facts_of().obsid)[0].cur_index is None
    assert ledger.ingests.find("LSSTComCam", "g", 0) == rows
    assert ledger.ingests.find("LSSTComCam", "g", 1) == []


def test_selections_are_what_they_say(ledger: Ledger) -> None:
    """Random ones, page by page, against a list."""
    generator = random.Random(5)
    images: list[tuple[int, int]] = []
    for number in range(1, 13):
        day = 20261122 + number % 2
        image_id = take(ledger, facts_of(number, day=day, of="LATISS" if number % 5 == 0 else "LSSTComCam"))
        plans = plans_of(ledger, image_id, generator.choice([REPO, "other"]))
        ledger.ingests.plan(generator.sample(plans, min(len(plans), 5)))
        ledger.ingests.plan([guider_of(image_id, 1, repository=plans[0].repository)])
        for row in ledger.ingests.claim(plans[0].repository, 9):
            state = generator.choice(["ingested", "ingested", "waiting", "failed", "unsupported"])
            assert ledger.ingests.end(row, state, retry_after=600.0)
        images.append((day, image_id))
    known = [(day, row) for day, image_id in images for row in ledger.ingests.of(image_id)]
    assert len({row.state for _, row in known}) > 3
    for _ in range(60):
        asked: dict[str, Any] = {}
        everything = {
            "repository": lambda row, day: row.repository,
            "instrument": lambda row, day: row.instrument,
            "dayobs": lambda row, day: day,
        }
        lists = {
            "image_ids": lambda row: row.image_id,
            "ids": lambda row: row.id,
            "obsids": lambda row: row.obsid,
            "detectors": lambda row: row.detector,
            "kinds": lambda row: row.kind,
            "states": lambda row: row.state,
        }
        for name, one in everything.items():
            if generator.random() < 0.3:
                day, row = generator.choice(known)
                asked[name] = one(row, day)
        for name, some in lists.items():
            if generator.random() < 0.25:
                size = generator.choice([0, 1, 3, 20])
                asked[name] = [some(row) for _, row in generator.choices(known, k=size)]
        expected = sorted(
            (
                row
                for day, row in known
                if all(one(row, day) == asked[name] for name, one in everything.items() if name in asked)
                and all(some(row) in asked[name] for name, some in lists.items() if name in asked)
            ),
            key=ledger.ingests.cursor_of,
        )
        found: list[IngestRow] = []
        limit = generator.choice([1, 7, 1000])
        while True:
            after = ledger.ingests.cursor_of(found[-1]) if found else None
            page = ledger.ingests.select(limit=limit, after=after, **asked)
            assert len(page) <= limit
            if not page:
                break
            found += page
        assert [row.id for row in found] == [row.id for row in expected], asked
    with pytest.raises(UsageError, match="is no state"):
        ledger.ingests.select(states=["'; DROP TABLE ingest; --"])
