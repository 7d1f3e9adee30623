"""Claims: they die with their owner; states, files and versions, history."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest
from night import A, B, facts_of, files_of, keys_of, name_of, row, take, want

from raftwright.errors import FormatError, UsageError
from raftwright.ledger import Ledger, Outcome, UnitKey

Open = Callable[..., Ledger]


def test_a_unit_goes_its_way(url: str, opened: Open) -> None:
    ledger = opened(url)
    claims = ledger.claims
    first, second = claims.claim(want(A, B))
    assert (first.key, first.attempt, first.taken_over) == (A, 1, False)
    assert claims.claim(want(A, B)) == [], "claimed twice"
    assert claims.settled([A.image]) == {A, B}
    assert claims.holds(first)
    assert claims.end(first, Outcome(state="done", received=1000, files=(row(A),)))
    assert not claims.holds(first)
    assert claims.claim(want(A), again=True) == [], "what is done is never done again"
    claims.end(second, Outcome(state="incomplete", reason="a gap", received=900, retry_after=0.3))
    assert claims.claim(want(B)) == [], "its time has not come"
    assert B in claims.settled([B.image])
    time.sleep(0.31)
    assert B not in claims.settled([B.image])
    (again,) = claims.claim(want(B))
    assert (again.attempt, again.created) == (2, second.created)
    assert [unit.key for unit in claims.unfinished(5)] == []
    states = {unit.location: (unit.state, unit.received, unit.attempts) for unit in claims.units()}
    assert states == {"22/0": ("done", 1000, 1), "22/1": ("claimed", 900, 2)}
    kinds = [(entry.kind, entry.location) for entry in claims.history()]
    assert kinds == [
        *(("claimed", "22/0"), ("claimed", "22/1"), ("done", "22/0")),
        *(("incomplete", "22/1"), ("claimed", "22/1")),
    ]
    ledger.close()
    after = opened(url, read_only=True)
    assert {unit.state for unit in after.claims.units([A.image])} == {"done", "open"}, "given back at the end"
    assert after.claims.counts() == {"done": 1, "open": 1}
    (image,) = after.images.get(A.image)
    outcomes = [(each.subject, each.number, each.outcome) for each in after.attempts.of(image.id)]
    assert sorted(outcomes) == [("22/0", 1, "done"), ("22/1", 1, "incomplete"), ("22/1", 2, "open")]
    assert all(each.ended_tai is not None for each in after.attempts.of(image.id))
    with pytest.raises(UsageError, match="reading only"):
        after.claims.claim(want(B))


def test_versions_name_each_other(ledger: Ledger) -> None:
    (claim,) = ledger.claims.claim(want(A))
    ledger.claims.end(claim, Outcome(state="incomplete", files=(row(A, missing=5),)))
    (claim,) = ledger.claims.claim(want(A), again=True)
    repaired = row(A, "/archive/a.v2.fits", version=2, replaces="/archive/a.fits")
    assert ledger.claims.end(claim, Outcome(state="done", files=(repaired,)))
    old, new = ledger.claims.files([A.image])
    assert (old.replaced_by, new.replaces, old.missing) == (new.path, old.path, 5)
    (image,) = ledger.images.get(A.image)
    assert [(each.state, each.missing_pixels) for each in ledger.images.detectors(image.id)] == [
        ("present", 0)
    ]


def test_versions_entered_in_one_go_count_by_the_newest(ledger: Ledger) -> None:
    """A writer that died between versions enters both: the older one does not undo the newer."""
    (claim,) = ledger.claims.claim(want(A))
    repaired = row(A, "/archive/a.v2.fits", version=2, replaces="/archive/a.fits")
    assert ledger.claims.end(claim, Outcome(state="done", files=(row(A, missing=5), repaired)))
    (image,) = ledger.images.get(A.image)
    assert [(each.state, each.missing_pixels) for each in ledger.images.detectors(image.id)] == [
        ("present", 0)
    ]
    assert ledger.files.by_path("/archive/a.fits").replaced_by == repaired.path  # type: ignore[union-attr]


def test_the_same_name_with_another_id_is_another_unit(ledger: Ledger) -> None:
    other = UnitKey(A.image, "2e", A.location)
    assert [claim.key for claim in ledger.claims.claim(want(A, other))] == [A, other]
    assert len(ledger.images.get(A.image)) == 2


def test_a_name_that_is_none_gets_no_identity(ledger: Ledger) -> None:
    """D009: nothing is made up for what cannot be parsed."""
    for name in ("", "CC_O_20261322_000001", "../../etc/passwd", "CC_O_20261122_000001\n", "MC_O_2026\0122"):
        with pytest.raises(FormatError):
            ledger.claims.claim(want(UnitKey(name, "1f", "22/0")))
    assert ledger.images.select() == []


def test_two_take_no_unit_twice(url: str, opened: Open) -> None:
    """D179."""
    keys = [UnitKey(name_of(number), "", f"22/{board}") for number in range(60) for board in range(3)]
    taken: list[list[UnitKey]] = [[], [], []]

    def work(ledger: Ledger, mine: list[UnitKey]) -> None:
        for begin in range(0, len(keys), 6):
            for claim in ledger.claims.claim(want(*keys[begin : begin + 6])):
                mine.append(claim.key)
                assert ledger.claims.end(claim, Outcome(state="done"))

    threads = [threading.Thread(target=work, args=(opened(url), mine)) for mine in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(key for mine in taken for key in mine) == keys


def test_a_process_that_is_killed_loses_its_claims_at_once(url: str, ledger: Ledger) -> None:
    program = (
        "import time\n"
        "from raftwright.ledger import UnitKey, open_ledger\n"
        f"ledger = open_ledger({url!r})\n"
        f"assert ledger.claims.claim([(UnitKey({A.image!r}, '1f', '22/0'), 'raw', 1000)])\n"
        "assert ledger.roles.take('archiver:LSSTComCam')\n"
        "print('claimed', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"claimed\n"
        assert ledger.claims.claim(want(A)) == []
        assert ledger.claims.settled([A.image]) == {A}
        assert not ledger.roles.take("archiver:LSSTComCam")
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
        assert ledger.claims.settled([A.image]) == set()
        (claim,) = ledger.claims.claim(want(A))
        assert claim.taken_over
        assert str(process.pid) in claim.previous
        assert [entry.kind for entry in ledger.claims.history()] == ["claimed", "taken over"]
        assert ledger.roles.take("archiver:LSSTComCam")
        (image,) = ledger.images.get(A.image)
        tries = [(each.number, each.outcome) for each in ledger.attempts.of(image.id)]
        assert tries == [(1, "taken over"), (2, "")]


def test_a_silent_owner_loses_its_claims_when_the_lease_ends(url: str, opened: Open) -> None:
    one, two = opened(url, lease=0.6), opened(url, lease=0.6)
    (claim,) = one.claims.claim(want(A))
    time.sleep(0.4)
    one.renew()
    time.sleep(0.4)
    assert two.claims.claim(want(A)) == [], "it was renewed"
    time.sleep(0.4)
    (taken,) = two.claims.claim(want(A))
    assert taken.taken_over
    assert not one.claims.holds(claim)
    assert not one.claims.end(claim, Outcome(state="done", files=(row(A),))), "it was no longer its to end"
    assert next(two.claims.units()).state == "claimed"
    assert [file.path for file in two.claims.files()] == ["/archive/a.fits"], (
        "what is on disk is in the ledger"
    )
    last = list(two.claims.history())[-1]
    assert (last.kind, last.detail["late"]) == ("done", True)


def test_steps_of_the_clock_change_no_lease(url: str, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """F50."""
    real = time.time
    one, two = opened(url), opened(url)
    (claim,) = one.claims.claim(want(A))
    one.claims.claim(want(B))
    for step in (3600.0, -3600.0):
        monkeypatch.setattr(time, "time", lambda step=step: real() + step)
        assert two.claims.claim(want(A)) == []
        assert one.claims.holds(claim)
    monkeypatch.setattr(time, "time", lambda: real() + 7200)
    one.claims.end(claim, Outcome(state="incomplete", retry_after=300))
    monkeypatch.setattr(time, "time", real)
    assert two.claims.claim(want(A)), "nobody waits two hours because the clock was wrong"


def test_a_claim_of_which_the_answer_was_lost_is_not_ours_for_ever(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit was done, but the connection went away before that was said: nobody works on the unit,
    though the ledger says that we do."""
    change = ledger.database.change

    def and_then_it_breaks(work: Callable[..., object]) -> object:
        change(work)
        raise OSError("the answer was lost")

    monkeypatch.setattr(ledger.database, "change", and_then_it_breaks)
    with pytest.raises(OSError, match="lost"):
        ledger.claims.claim(want(A))
    monkeypatch.undo()
    assert ledger.claims.settled([A.image]) == set()
    (claim,) = ledger.claims.claim(want(A))
    assert claim.attempt == 2
    monkeypatch.setattr(ledger.database, "change", and_then_it_breaks)
    with pytest.raises(OSError, match="lost"):
        ledger.claims.end(claim, Outcome(state="done", files=(row(A),)))
    monkeypatch.undo()
    before = ledger.events.last()
    assert ledger.claims.end(claim, Outcome(state="done", files=(row(A),))), (
        "it is done already, and was ours"
    )
    assert ledger.events.last() == before


def test_what_the_ledger_forgot_is_ended_all_the_same(ledger: Ledger) -> None:
    """A ledger that was lost and made anew: the files are entered all the same."""
    (claim,) = ledger.claims.claim(want(A))
    with ledger.database.reading() as transaction:
        assert transaction.rows("SELECT 1 FROM source")
    ledger.database.change(
        lambda transaction: [
            transaction.run(f"DELETE FROM {table}") for table in ("event", "attempt", "source", "image")
        ]
    )
    assert not ledger.claims.holds(claim)
    assert not ledger.claims.end(claim, Outcome(state="done", files=(row(A),)))
    assert [file.path for file in ledger.claims.files()] == ["/archive/a.fits"]
    (again,) = ledger.claims.claim(want(A))
    assert again.attempt == 1


def test_a_whole_image_in_a_few_transactions(ledger: Ledger) -> None:
    facts = facts_of()
    image_id = ledger.images.announce(facts)
    claims = ledger.claims.claim(want(*keys_of(facts)))
    assert len(claims) == 3
    assert ledger.images.by_id(image_id).state == "capturing"
    done = ledger.claims.end_many(
        [
            (each, Outcome(state="done", received=1000, files=files_of(facts, each.key.location)))
            for each in claims
        ]
    )
    assert done == [True] * 3
    assert {each.state for each in ledger.images.detectors(image_id)} == {"present"}
    assert {each.state for each in ledger.images.sources(image_id)} == {"done"}
    assert len(ledger.files.of(image_id, "raw")) == 9
    assert [claim.key for claim in ledger.claims.claim(want(*keys_of(facts)), again=True)] == []


def test_a_source_that_is_gone_leaves_its_detectors_missing(ledger: Ledger) -> None:
    facts = facts_of()
    image_id = take(ledger, facts, "22/0", "22/1")
    (claim,) = ledger.claims.claim(want(keys_of(facts)[2]))
    assert ledger.claims.end(claim, Outcome(state="gone", reason="the DAQ has it no more", retry_after=1))
    states = {each.detector: (each.state, each.reason) for each in ledger.images.detectors(image_id)}
    assert {states[name] for name in ("R22_S20", "R22_S21", "R22_S22")} == {
        ("missing", "the DAQ has it no more")
    }
    assert ledger.images.judge(image_id).state == "lost"
    (claim,) = ledger.claims.claim(want(keys_of(facts)[2]), again=True)
    assert ledger.images.by_id(image_id).state == "capturing", "if it is there again, it goes on"
    assert ledger.claims.end(claim, Outcome(state="done", files=files_of(facts, "22/2")))
    assert ledger.images.judge(image_id).state == "complete"


def test_an_attempt_does_not_end_in_a_state_that_there_is_not(ledger: Ledger) -> None:
    (claim,) = ledger.claims.claim(want(A))
    for state in ("expected", "claimed", "finished", ""):
        with pytest.raises(UsageError):
            ledger.claims.end(claim, Outcome(state=state))  # type: ignore[arg-type]
    assert ledger.claims.holds(claim)


def test_hostile_text_is_kept_and_harms_nothing(ledger: Ledger) -> None:
    (claim,) = ledger.claims.claim(want(A))
    reason = "'; DROP TABLE image; -- \0 \udcff %s ? \x1b[31m" + "x" * 10_000
    assert ledger.claims.end(claim, Outcome(state="failed", reason=reason, retry_after=1))
    (unit,) = ledger.claims.units()
    assert unit.reason.startswith("'; DROP TABLE image; -- \\0 ")
    assert len(unit.reason) < 5000
    assert list(ledger.claims.history())[-1].detail["reason"] == unit.reason
