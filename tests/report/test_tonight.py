"""Tonight at a glance: `raftwright status` with a ledger."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nights import TONIGHT, Archive

from raftwright.report.book import open_book
from raftwright.report.latency import BUCKETS, histogram, percentile
from raftwright.report.times import clock, dayobs_of, iso, span
from raftwright.report.tonight import Tonight, tonight

Run = Callable[..., Any]


def seen(archive: Archive, now: float, **more: Any) -> Tonight:
    with open_book(str(archive.root / "ledger.db")) as book:
        return tonight(book, now=now, **more)


def test_figures_of_the_night(busy: Archive, late_evening: float) -> None:
    found = seen(busy, late_evening)
    night = found.night
    assert (found.dayobs, found.current) == (TONIGHT, True)
    assert (night.images, night.complete, night.incomplete, night.waiting, night.lost) == (20, 17, 1, 1, 1)
    # The one of 14 s, and the one that is not settled 20 s after its readout.
    assert night.late == 2
    assert night.latency_p99_s == pytest.approx(14.0)
    assert night.latency_p50_s == pytest.approx(0.62, abs=0.05)
    assert night.last_hour == 20
    assert night.cadence_s == pytest.approx(17.0)
    headers = found.headers
    assert (headers.complete, headers.partial, headers.missing, headers.expected) == (17, 1, 1, 1)
    assert found.last is not None
    assert (found.last.obsid, found.last.present, found.last.expected) == ("CC_O_20261122_000020", 0, 9)
    assert found.last.age_s == pytest.approx(20.0)
    assert [(image.state, image.present) for image in found.open_images] == [
        ("announced", 0),
        ("lost", 7),
        ("incomplete", 8),
    ]
    assert found.earlier == {"incomplete": 1}
    assert found.quarantined == 1


def test_queues_of_destinations(busy: Archive, late_evening: float) -> None:
    busy.run(
        "UPDATE delivery SET state = 'failed' WHERE id ="
        " (SELECT min(id) FROM delivery WHERE state = 'queued')"
    )
    oods, usdf = seen(busy, late_evening).destinations
    assert (oods.name, oods.queued, oods.failed, oods.oldest_s) == ("oods", 0, 0, None)
    assert oods.last_delivered_s == pytest.approx(20 + 17 - 0.69 - 1.5)
    assert (usdf.name, usdf.queued, usdf.failed, usdf.conflict) == ("usdf", 18, 1, 0)
    assert usdf.waiting_bytes == 9 * (2048 + 500)
    assert usdf.oldest_s == pytest.approx(20 + 17 - 0.69)


def test_services_and_problems(busy: Archive, late_evening: float) -> None:
    busy.run(
        "UPDATE source SET state = 'claimed', owner = 'dc02:815:99' WHERE image_id = 22 AND location = '22/0'"
    )
    found = seen(busy, late_evening + 100)
    alive = {service.owner: service.alive for service in found.services}
    assert sorted(alive.values()) == [False, True]
    assert not alive["dc02:815:99"]
    for expected in (
        "1 image of this night cannot be had any more",
        "1 image without an end, for 2 min 00 s now",
        "1 image of this night incomplete",
        "usdf: 19 deliveries in the queue, the oldest for 2 min 16 s",
        "dc02:815:99 does not live any more and holds catchup",
        "1 image without a header document",
        "1 header document without all that is mandatory",
        "1 image of earlier nights not complete",
        "1 thing in quarantine",
    ):
        assert expected in found.problems


def test_a_ledger_without_images(archive: Archive, run: Run) -> None:
    found = seen(archive, 1e9)
    assert found.night.images == 0
    assert found.last is None
    assert found.problems == ()
    done = run("status", archive.root)
    assert done.code == 0
    assert "no image yet" in done.out
    assert "no problem" in done.out


def test_clocks_that_are_wrong_make_no_latency(archive: Archive, late_evening: float) -> None:
    """D168: an end of readout after the files (37 s, TAI taken for UTC) is not a latency below zero."""
    archive.nights.image(TONIGHT, 1, took=-36.5)
    archive.nights.image(TONIGHT, 2, took=0.7)
    archive.nights.image(TONIGHT, 3, took=86_400.0)
    night = seen(archive, late_evening).night
    assert night.latency_p50_s == pytest.approx(0.7)
    assert night.latency_p99_s == pytest.approx(86_400.0)  # and there is no upper cut
    assert night.late == 1


def test_for_people_within_100_columns(busy: Archive, run: Run) -> None:
    done = run("status", busy.root)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].startswith("Night 2026-11-22")
    assert "TAI" in lines[0]
    assert max(map(len, lines)) <= 100
    words = [" ".join(line.split()) for line in lines]
    assert any(line.startswith("20 17 1 1 1 ") for line in words)
    assert any(line.startswith("CC_O_20261122_000009 lost") for line in words)
    assert any(line.startswith("oods 0 0 ") for line in words)
    assert "problem: 1 image of this night incomplete" in words


def test_for_machines_and_other_nights(busy: Archive, run: Run) -> None:
    answer = run("status", "--ledger", busy.root / "ledger.db", "--night", 20261121, "--json").json
    assert (answer["command"], answer["status"]) == ("status", "ok")
    assert answer["dayobs"] == 20261121
    assert answer["night"]["images"] == 2
    assert answer["night"]["incomplete"] == 1
    assert answer["current"] is False


def test_where_the_ledger_is_found(busy: Archive, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Night 2026-11-22" in run("status").out  # ./archive
    monkeypatch.chdir(busy.root)
    assert "Night 2026-11-22" in run("status").out  # here
    monkeypatch.chdir("/")
    monkeypatch.setenv("RAFTWRIGHT_LEDGER__URL", f"sqlite:///{busy.root / 'ledger.db'}")
    assert "Night 2026-11-22" in run("status").out
    monkeypatch.delenv("RAFTWRIGHT_LEDGER__URL")
    site = busy.root / "site.yaml"
    site.write_text(f"archive: {{root: {busy.root}}}\n")
    assert "Night 2026-11-22" in run("status", "--config", site).out
    assert "incomplete" in run("image", "CC_O_20261122_000007", "--config", site).out
    assert run("audit", "--config", site, "--night", 20261121, "--json").json["images"] == 2
    monkeypatch.setenv("RAFTWRIGHT_CONFIG", str(site))
    assert "Night 2026-11-22" in run("status").out


def test_what_is_no_ledger(run: Run, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("hello, this is no database at all " * 100)
    done = run("status", "--ledger", "text.db")
    assert done.code == 1
    assert "text.db: is no ledger" in done.err
    done = run("status", tmp_path)
    assert (done.code, "there is no ledger" in done.err) == (1, True)
    assert run("status", "--ledger", "mysql://host/name").code == 2


def test_it_writes_nothing(busy: Archive, run: Run) -> None:
    busy.nights.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = (busy.root / "ledger.db").read_bytes()
    assert run("status", busy.root).code == 0
    assert (busy.root / "ledger.db").read_bytes() == before


def test_watching_goes_on_while_others_write(busy: Archive, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "raftwright",
            "status",
            str(busy.root),
            "--watch",
            "--every",
            "50ms",
            "--json",
        ],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ},
    )
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["night"]["images"] == 20
        busy.nights.image(TONIGHT, 21)
        numbers = [json.loads(process.stdout.readline())["night"]["images"] for _ in range(20)]
        assert numbers[-1] == 21
    finally:
        process.terminate()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


def test_it_loads_nothing_heavy(busy: Archive) -> None:
    code = (
        "import sys; from raftwright.cli import main; main(['status', sys.argv[1]]); "
        "heavy = {'sqlalchemy', 'alembic', 'numpy', 'astropy', 'rich', 'msgspec', 'zmq', 'asyncio'}; "
        "bad = heavy & set(sys.modules); "
        "sys.exit(f'loaded: {bad}' if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(busy.root)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_times() -> None:
    assert iso(0.0) == "1970-01-01T00:00:00.000"
    assert iso(1795359237.6789) == "2026-11-22T14:53:57.678"
    assert (iso(None), iso(float("nan")), iso(-5.0), iso(1e15)) == ("-",) * 4
    assert clock(1795359237.6789) == "14:53:57.678"
    # 12:00:36 UTC less the leap seconds is still the day before; D168's 37 s do not shift the night.
    assert dayobs_of(1795348800.0 + 36.9) == 20261121
    assert dayobs_of(1795348800.0 + 37.1) == 20261122
    assert [span(value) for value in (0.4, 12.34, 185, 18_720, 273_600, -1.5, None)] == [
        *("0.40 s", "12.3 s", "3 min 05 s", "5 h 12 min", "3 d 4 h", "-1.50 s", "-")
    ]


def test_bins_are_those_of_late_files() -> None:
    """N07: 3 5 6 7 8 9 10 12 14 16 18 20 25 30 45 60 s, and nothing is left out above (D168)."""
    assert BUCKETS == (3, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 25, 30, 45, 60)
    counts = histogram([0.5, 3.0, 3.01, 11.0, 59.0, 61.0, 4000.0])
    assert counts[0] == 2
    assert counts[1] == 1
    assert counts[7] == 1
    assert counts[-2:] == [1, 2]
    assert sum(counts) == 7
    assert percentile([], 0.5) is None
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.0
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.99) == 4.0


def test_the_form_of_ledgers_is_that_of_the_services() -> None:
    from raftwright.ledger import version
    from raftwright.report import book

    assert book._APPLICATION == version.APPLICATION
    assert book._VERSION == version.VERSION


def test_a_ledger_in_a_place_that_cannot_be_written(busy: Archive, run: Run) -> None:
    """Nobody has it open, and the file that readers share cannot be made."""
    busy.nights.connection.close()
    path = busy.root / "ledger.db"
    assert not (busy.root / "ledger.db-wal").exists()
    # In its place, as root, whom no permission stops: a directory where SQLite wants to make the file.
    (busy.root / "ledger.db-shm").mkdir()
    with open_book(str(path)) as book:
        assert book.value("SELECT count(*) FROM image") == 22
    assert "Night 2026-11-22" in run("status", busy.root).out
