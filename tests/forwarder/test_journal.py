"""The journal: claims that die with their owner, states, files and versions, history."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from raftwright.errors import FormatError, NotFoundError
from raftwright.forwarder import FileRow, Outcome, SqliteJournal, UnitKey, open_journal

A = UnitKey("CC_O_20261122_000001", "1f", "22/0")
B = UnitKey("CC_O_20261122_000001", "1f", "22/1")


def row(key: UnitKey, path: str = "/archive/a.fits", **more: object) -> FileRow:
    values: dict[str, object] = {
        "image": key.image,
        "daq_id": key.daq_id,
        "location": key.location,
        "detector": "R22_S00",
        "version": 1,
        "path": path,
        "bytes": 10,
        "adler32": "00000001",
        "crc32c": "00000002",
        "missing": 0,
        "status": "written",
        **more,
    }
    return FileRow(**values)  # type: ignore[arg-type]


def want(*keys: UnitKey) -> list[tuple[UnitKey, str, int]]:
    return [(key, "raw", 1000) for key in keys]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def test_a_unit_goes_its_way(path: Path) -> None:
    with open_journal(path) as journal:
        first, second = journal.claim(want(A, B))
        assert (first.key, first.attempt, first.taken_over) == (A, 1, False)
        assert journal.claim(want(A, B)) == [], "claimed twice"
        assert journal.settled([A.image]) == {A, B}
        assert journal.holds(first)
        assert journal.end(first, Outcome(state="done", received=1000, files=(row(A),)))
        assert not journal.holds(first)
        assert journal.claim(want(A), again=True) == [], "what is done is never done again"
        journal.end(second, Outcome(state="incomplete", reason="a gap", received=900, retry_after=0.05))
        assert journal.claim(want(B)) == [], "its time has not come"
        assert B in journal.settled([B.image])
        time.sleep(0.06)
        assert B not in journal.settled([B.image])
        (again,) = journal.claim(want(B))
        assert (again.attempt, again.created) == (2, second.created)
        states = {unit.location: (unit.state, unit.received, unit.attempts) for unit in journal.units()}
        assert states == {"22/0": ("done", 1000, 1), "22/1": ("claimed", 900, 2)}
        kinds = [(entry.kind, entry.location) for entry in journal.history()]
        assert kinds == [
            *(("claimed", "22/0"), ("claimed", "22/1"), ("done", "22/0")),
            *(("incomplete", "22/1"), ("claimed", "22/1")),
        ]
    with open_journal(path, read_only=True) as journal:
        assert {unit.state for unit in journal.units([A.image])} == {"done", "open"}, "given back at the end"
        assert journal.counts() == {"done": 1, "open": 1}


def test_versions_name_each_other(path: Path) -> None:
    with open_journal(path) as journal:
        (claim,) = journal.claim(want(A))
        journal.end(claim, Outcome(state="incomplete", files=(row(A, missing=5),)))
        (claim,) = journal.claim(want(A), again=True)
        repaired = row(A, "/archive/a.v2.fits", version=2, replaces="/archive/a.fits")
        assert journal.end(claim, Outcome(state="done", files=(repaired,)))
        old, new = journal.files([A.image])
        assert (old.replaced_by, new.replaces, old.missing) == (new.path, old.path, 5)


def test_the_same_name_with_another_id_is_another_unit(path: Path) -> None:
    other = UnitKey(A.image, "2e", A.location)
    with open_journal(path) as journal:
        assert [claim.key for claim in journal.claim(want(A, other))] == [A, other]


def test_two_take_no_unit_twice(path: Path) -> None:
    keys = [UnitKey(f"CC_O_20261122_{number:06d}", "", "22/0") for number in range(200)]
    taken: list[list[UnitKey]] = [[], [], []]

    def work(mine: list[UnitKey]) -> None:
        with open_journal(path) as journal:
            for key in keys:
                for claim in journal.claim(want(key)):
                    mine.append(claim.key)
                    journal.end(claim, Outcome(state="done"))

    threads = [threading.Thread(target=work, args=(mine,)) for mine in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(key for mine in taken for key in mine) == keys


def test_a_process_that_is_killed_loses_its_claims_at_once(path: Path) -> None:
    program = (
        "import sys, time\n"
        "from raftwright.forwarder import UnitKey, open_journal\n"
        f"journal = open_journal({str(path)!r})\n"
        f"assert journal.claim([(UnitKey({A.image!r}, '1f', '22/0'), 'raw', 1000)])\n"
        "print('claimed', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"claimed\n"
        with open_journal(path) as journal:
            assert journal.claim(want(A)) == []
            assert journal.settled([A.image]) == {A}
            os.kill(process.pid, signal.SIGKILL)
            process.wait(10)
            assert journal.settled([A.image]) == set()
            (claim,) = journal.claim(want(A))
            assert claim.taken_over
            assert [entry.kind for entry in journal.history()] == ["claimed", "taken over"]


def test_a_silent_owner_loses_its_claims_when_the_lease_ends(path: Path) -> None:
    with SqliteJournal(path, lease=0.3) as one, SqliteJournal(path, lease=0.3) as two:
        (claim,) = one.claim(want(A))
        time.sleep(0.2)
        one.renew()
        time.sleep(0.2)
        assert two.claim(want(A)) == [], "it was renewed"
        time.sleep(0.2)
        (taken,) = two.claim(want(A))
        assert taken.taken_over
        assert not one.holds(claim)
        assert not one.end(claim, Outcome(state="done", files=(row(A),))), "it was no longer its to end"
        assert next(two.units()).state == "claimed"
        assert [file.path for file in two.files()] == ["/archive/a.fits"], "what is on disk is in the journal"


def test_steps_of_the_clock_change_no_lease(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    with open_journal(path) as one, open_journal(path) as two:
        (claim,) = one.claim(want(A))
        one.claim(want(B))
        for step in (3600.0, -3600.0):
            monkeypatch.setattr(time, "time", lambda step=step: real() + step)
            assert two.claim(want(A)) == []
            assert one.holds(claim)
        monkeypatch.setattr(time, "time", lambda: real() + 7200)
        one.end(claim, Outcome(state="incomplete", retry_after=300))
        monkeypatch.setattr(time, "time", real)
        assert two.claim(want(A)), "nobody waits two hours because the clock was wrong"


def test_what_is_no_journal_is_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        open_journal(path, read_only=True)
    path.write_bytes(b"not a database, but long enough to be looked at as one" * 100)
    with pytest.raises(FormatError, match="journal"):
        open_journal(path)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as database:
        database.execute("CREATE TABLE t (x)")
    database.close()
    with pytest.raises(FormatError, match="no journal of a forwarder"):
        open_journal(other)
    newer = tmp_path / "newer.db"
    open_journal(newer).close()
    with sqlite3.connect(newer) as database:
        database.execute("PRAGMA user_version = 9")
    database.close()
    with pytest.raises(FormatError, match="version 9"):
        open_journal(newer)
