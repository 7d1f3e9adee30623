"""The OODS as a whole: kills, locks, stops, backlogs, and what is missing."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from oods_stand import Site, wait_for
from small_raws import SKY, document, ended, forked
from typer.testing import CliRunner

from raftwright.butler import Ingester, open_repository
from raftwright.butler.visits import VisitOutcome
from raftwright.cli.oods import app as oods
from raftwright.errors import NotFoundError
from raftwright.ledger import open_ledger
from raftwright.ledger.rebuilding import rebuild
from raftwright.oods import Oods, Places
from raftwright.oods.inputs import Directory


def run(site: Site, wanted: Any) -> None:
    """An OODS in this process, until it is killed."""
    Oods(wanted, Places(ledger=site.url, camera="LSSTCam")).start()
    time.sleep(60)


def each_once(site: Site, number: int) -> None:
    """Every file is one dataset and one ingest."""
    rows = site.rows()
    assert Counter(row.state for row in rows) == {"ingested": number}
    assert len({row.dataset_id for row in rows}) == number
    with open_repository(site.repo) as repository:
        refs = repository.find("LSSTCam")
        assert {str(ref.id) for ref in refs} == {row.dataset_id for row in rows}
        for uri in repository.uris(refs).values():
            assert Path(uri.removeprefix("file://")).is_file()


@pytest.mark.parametrize("transfer", ["direct", "hardlink"])
def test_killed_at_any_time(site: Site, transfer: str) -> None:
    """F09: whenever it dies, the next one goes on, and each file is ingested once."""
    numbers = range(1, 7)
    for number in numbers:
        site.raws.image(f"MC_O_20261122_{number:06d}")
    rebuild(site.ledger, site.raws.root)
    wanted = site.settings(transfer=transfer, batch=2)
    site.ledger.close()
    seeded = random.Random(transfer)
    for _ in range(5):
        pid = forked(lambda: run(site, wanted))
        time.sleep(0.3 + 0.7 * seeded.random())
        os.kill(pid, signal.SIGKILL)
        assert ended(pid) == -signal.SIGKILL
    site.ledger = open_ledger(site.url)
    site.ingested(18, transfer=transfer, batch=2)
    each_once(site, 18)


@pytest.mark.parametrize("step", ["claimed", "registry", "written down"])
def test_killed_between_registry_and_ledger(site: Site, step: str) -> None:
    site.image()
    wanted = site.settings()
    site.ledger.close()

    def work() -> None:
        from raftwright.ledger.ingests import Ingests

        real_turn, real_ingest = Ingests.turn, Ingester.ingest

        def turn(self: Any, name: str, ends: Any, *more: Any) -> Any:
            found = real_turn(self, name, ends, *more)
            if (step == "claimed" and found[1]) or (step == "written down" and ends):
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        def ingest(self: Any, *given: Any) -> Any:
            real_ingest(self, *given)
            if step == "registry":
                os.kill(os.getpid(), signal.SIGKILL)

        Ingests.turn, Ingester.ingest = turn, ingest  # type: ignore[method-assign, assignment]
        run(site, wanted)

    assert ended(forked(work)) == -signal.SIGKILL
    site.ledger = open_ledger(site.url)
    site.ingested(3)
    each_once(site, 3)


def test_stopped_and_started_again(site: Site) -> None:
    """D116: ten times, with everything that it has."""
    drop = site.path / "drop"
    drop.mkdir()
    from raftwright.oods.web.settings import Web

    for number in range(1, 11):
        site.image(number)
        web = Web() if number % 3 == 0 else None
        service = site.oods(directories=[Directory(path=str(drop))], web=web)
        if number % 2:
            site.ingested(3 * number, service)
        service.stop()
        assert service.phase == "stopped"
        assert service.problems() == []
        site.started.remove(service)
    site.ingested(30)
    each_once(site, 30)


def test_the_registry_is_locked_for_five_seconds(site: Site) -> None:
    """D125, F42: files go on becoming ingests meanwhile, and go in when it is free again."""
    site.image(1)
    service = site.oods()
    site.ingested(3, service)
    with closing(sqlite3.connect(site.repo / "gen3.sqlite3", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        until = time.monotonic() + 5.0
        for number in (2, 3, 4):
            begun = time.monotonic()
            site.image(number)
            wait_for(lambda number=number: len(site.rows()) == 3 * number)
            assert time.monotonic() - begun < 4.0
        time.sleep(max(0.0, until - time.monotonic()))
        assert len(site.rows("ingested")) == 3
        other.execute("ROLLBACK")
    site.ingested(12, service)
    assert site.rows("failed") == []
    each_once(site, 12)


def test_two_for_one_repository(site: Site) -> None:
    """One works; when it ends the other does, and nothing is done twice."""
    first, second = site.oods(), site.oods()
    wait_for(lambda: first.active)
    assert not second.active
    site.image(1)
    site.ingested(3, first)
    first.stop()
    site.image(2)
    wait_for(lambda: second.active)
    site.ingested(6, second)
    each_once(site, 6)


def test_wavefront_goes_first_under_a_backlog(site: Site) -> None:
    """D135: then science, then guiders, in one service."""
    for number in (1, 2, 3):
        site.image(number, locations=("22/1", "00/0", "00/1"))
    service = site.oods(batch=4)
    rows = site.ingested(len(site.rows()) or 1, service)
    wait_for(lambda: not site.rows("queued", "ingesting"))
    rows = sorted(site.rows("ingested"), key=lambda row: (row.ingested_tai or 0.0, row.id))
    order = [
        {"SW": "wavefront", "SG": "guider"}.get(row.detector.partition("_")[2][:2], "science") for row in rows
    ]
    wavefront = [at for at, kind in enumerate(order) if kind == "wavefront"]
    guiders = [at for at, kind in enumerate(order) if kind == "guider"]
    science = [at for at, kind in enumerate(order) if kind == "science"]
    assert min(len(wavefront), len(guiders), len(science)) > 0
    moments = [row.ingested_tai or 0.0 for row in rows]
    assert max(moments[at] for at in wavefront) <= min(moments[at] for at in guiders)
    assert max(moments[at] for at in wavefront) <= max(moments[at] for at in science)
    assert max(moments[at] for at in science) <= max(moments[at] for at in guiders)
    assert moments[wavefront[0]] == moments[0]


def test_visits_appear_when_their_cause_is_gone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """D133: what went wrong is told, and tried again."""
    real, broken = Ingester.define_visits, [True]

    def define(self: Ingester, exposures: Any) -> list[VisitOutcome]:
        if broken[0]:
            return [
                VisitOutcome(instrument=name, exposure=number, state="failed", reason="no regions")
                for name, number in exposures
            ]
        return real(self, exposures)

    monkeypatch.setattr(Ingester, "define_visits", define)
    site.image()
    service = site.oods()
    wait_for(lambda: len(site.rows("ingested")) == 3)
    wait_for(lambda: any("no regions" in one for one in service.problems()))
    assert not service.idle
    broken[0] = False
    wait_for(lambda: service.idle)
    assert service.problems() == []
    assert len(visits(site)) == 1


def visits(site: Site) -> list[Any]:
    with open_repository(site.repo) as repository:
        return list(repository.butler.query_dimension_records("visit", instrument="LSSTCam", explain=False))


def test_visits_of_one_that_was_killed(site: Site) -> None:
    """D133: ingested, written down, and dead before the visit was defined."""
    site.image()
    wanted = site.settings()
    site.ledger.close()

    def work() -> None:
        def die(*_: Any) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        Ingester.define_visits = die  # type: ignore[method-assign, assignment]
        run(site, wanted)

    assert ended(forked(work)) == -signal.SIGKILL
    site.ledger = open_ledger(site.url)
    assert visits(site) == []
    site.ingested(3)
    wait_for(lambda: visits(site))


def test_no_repository_and_none_is_to_be_made(site: Site) -> None:
    """D126: one clear error, and nothing is left half made."""
    where = site.path / "nowhere"
    service = Oods(site.settings(repository=str(where), create=False), Places(ledger=site.url))
    with pytest.raises(NotFoundError, match="oods init"):
        service.start()
    service.stop()
    assert not where.exists()
    config = site.path / "site.yaml"
    config.write_text(f"oods: {{repository: {where}, create: false}}\n")
    done = CliRunner().invoke(
        oods, ["run", "--config", str(config), "--ledger", site.url, "--out", str(site.raws.root)]
    )
    assert isinstance(done.exception, NotFoundError)  # which is one line and an exit code
    assert str(where) in str(done.exception)


def test_a_repository_is_made_where_there_is_none(site: Site) -> None:
    where = site.path / "new" / "repo"
    site.image()
    service = site.oods(repository=str(where))
    site.ingested(3, service)
    with open_repository(where) as repository:
        assert len(repository.find("LSSTCam")) == 3


def test_a_bad_file_in_the_archive_fails_alone(site: Site, heard: Callable[..., Any]) -> None:
    """D119, D120: it was cut after the ledger had it; the others of its image are in, and it is told."""
    paths = site.image(locations=("22/0", "22/1"))
    os.truncate(paths[2], 2880)
    url, events = heard()
    site.oods(publish=url, retries=1, backoff=0.05, longest=0.1)
    wait_for(lambda: len(site.rows("ingested")) == 5)
    (row,) = wait_for(lambda: site.rows("failed"))
    assert row.path == str(paths[2])
    wait_for(lambda: len(events) == 6)
    (bad,) = [one for one in events if one["statusCode"] != 0]
    raft, sensor = row.detector.split("_")
    assert (bad["obsid"], bad["raft"], bad["sensor"]) == (row.obsid, raft, sensor)
    assert {one["sensor"] for one in events} == {path.stem.rpartition("_")[2] for path in paths}


def test_dead_letters_are_queued_again_by_word(site: Site) -> None:
    """D117."""
    paths = site.image()
    content = paths[0].read_bytes()
    os.truncate(paths[0], 2880)
    service = site.oods(retries=0, backoff=0.05, longest=0.1)
    wait_for(lambda: site.rows("failed"))
    paths[0].write_bytes(content)
    assert service.obey("again", {}) == {"queued": 1, "set_aside": 0}
    site.ingested(3, service)


def test_a_header_that_came_late(site: Site) -> None:
    """What the registry knows of an exposure by its name only it learns from the later sidecars, and then it
    has a visit."""
    from raftwright.rawfile.document import read_header_document
    from raftwright.rawfile.later import write_later_sidecar

    paths = site.image(header=None)
    service = site.oods()
    site.ingested(3, service)
    before = exposure(site)
    assert before.timespan is None
    assert visits(site) == []
    source = site.path / "header.yaml"
    source.write_bytes(document(SKY))
    for path in paths:
        write_later_sidecar(path, read_header_document(source), source)
    rebuild(site.ledger, site.raws.root)
    wait_for(lambda: exposure(site).timespan is not None)
    assert exposure(site).target_name == "ECDFS"
    wait_for(lambda: visits(site))
    each_once(site, 3)


def exposure(site: Site) -> Any:
    with open_repository(site.repo) as repository:
        (found,) = repository.butler.query_dimension_records("exposure", instrument="LSSTCam")
        return found
