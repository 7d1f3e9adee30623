"""What happens to registry, disk and clock while the OODS works."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from oods_stand import Site, wait_for
from test_service import each_once, visits

from raftwright.butler import open_repository
from raftwright.butler.repository import Repository
from raftwright.ledger import tai
from raftwright.oods.inputs import Directory
from raftwright.oods.scanning import Scanning
from raftwright.oods.settings import Retention, Rule


def drop_of(site: Site) -> Path:
    place = site.path / "drop"
    place.mkdir(exist_ok=True)
    return place


def test_f42_a_registry_that_is_locked_for_long(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """F42: ten minutes, where each wait for the lock is half a minute; here twenty waits of 0.3 s. Intake
    goes on, no file loses a try to it, and what waited is in soon after."""
    real = Repository.__init__

    def impatient(self: Repository, *given: Any) -> None:
        real(self, *given)
        self.busy = 0.3
        from raftwright.butler.repository import bound_waits

        bound_waits(self.butler, 0.3)

    monkeypatch.setattr(Repository, "__init__", impatient)
    site.image(1)
    service = site.oods(retries=1, backoff=0.05, longest=0.2)
    site.ingested(3, service)
    with closing(sqlite3.connect(site.repo / "gen3.sqlite3", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        until = time.monotonic() + 6.0
        for number in range(2, 6):
            site.image(number)
            wait_for(lambda number=number: len(site.rows()) == 3 * number)
        wait_for(lambda: "locked" in " ".join(service.problems()))
        time.sleep(max(0.0, until - time.monotonic()))
        assert len(site.rows("ingested")) == 3
        other.execute("ROLLBACK")
    begun = time.monotonic()
    site.ingested(15, service)
    assert time.monotonic() - begun < 10.0
    assert site.rows("failed") == []
    assert service.problems() == []
    each_once(site, 15)


def registry(site: Site) -> dict[str, Any]:
    """What is in it, but for when it was entered."""
    with open_repository(site.repo) as repository:
        refs = [*repository.find("LSSTCam"), *repository.find("LSSTCam", kind="guider")]
        query = repository.butler.query_dimension_records
        return {
            "datasets": {(str(ref.id), ref.run, str(sorted(ref.dataId.required.items()))) for ref in refs},
            "uris": repository.uris(refs),
            "exposures": [r.toDict() for r in query("exposure", instrument="LSSTCam", order_by="exposure")],
            "visits": [r.toDict() for r in query("visit", instrument="LSSTCam", order_by="visit")],
        }


@pytest.mark.parametrize(("transfer", "what"), [("direct", "all"), ("hardlink", "all"), ("move", "registry")])
def test_f43_a_registry_that_is_lost(site: Site, transfer: str, what: str, tmp_path: Path) -> None:
    """F43: made anew from files and sidecars, and equal to before, by nothing but a start of the service."""
    drop = drop_of(site)
    wanted: dict[str, Any] = {"directories": [Directory(path=str(drop), settle=0.1, transfer=transfer)]}
    service = site.oods(**wanted)
    for number in (1, 2):
        site.raws.image(f"MC_O_20261122_{number:06d}", root=drop, locations=("22/1",))
    shutil.move(site.raws.guider("MC_O_20261122_000001"), drop / "20261122" / "MC_O_20261122_000001")
    site.ingested(7, service)
    wait_for(lambda: len(visits(site)) == 2)
    before = registry(site)
    ids = {row.path: row.dataset_id for row in site.rows()}
    service.stop()
    if what == "all":
        shutil.rmtree(site.repo)
    else:
        (site.repo / "gen3.sqlite3").unlink()
        (site.repo / "butler.yaml").unlink()
    again = site.oods(**wanted)
    wait_for(lambda: len(site.rows("ingested")) == 7 and again.idle and len(visits(site)) == 2)
    assert registry(site) == before
    assert {row.path: row.dataset_id for row in site.rows()} == ids
    assert again.problems() == []


def test_f43_an_older_registry_that_is_put_back(site: Site) -> None:
    """F43: what it lacks is ingested once more, and nothing else is touched."""
    site.image(1)
    service = site.oods()
    site.ingested(3, service)
    service.stop()
    shutil.copy(site.repo / "gen3.sqlite3", site.path / "backup")
    site.image(2)
    site.ingested(6)
    site.started.pop().stop()
    shutil.copy(site.path / "backup", site.repo / "gen3.sqlite3")
    first = {row.id: row.attempts for row in site.rows() if row.obsid.endswith("1")}
    again = site.oods()
    wait_for(lambda: sum(row.attempts for row in site.rows()) == 9)
    site.ingested(6, again)
    assert {row.id: row.attempts for row in site.rows() if row.id in first} == first
    each_once(site, 6)


def test_f46_a_file_that_vanishes_during_the_scan(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """F46: between the list of the directory and the look at the file: the next goes on."""
    drop = drop_of(site)
    paths = site.raws.image(root=drop, locations=("22/0", "22/1"))
    real = Scanning._whole
    gone = sorted(paths)[:2]

    def whole(self: Scanning, path: str, *given: Any) -> Any:
        if path == str(gone[0]):
            os.unlink(path)
        return real(self, path, *given)

    monkeypatch.setattr(Scanning, "_whole", whole)
    gone[1].unlink()
    service = site.oods(directories=[Directory(path=str(drop), settle=0.1)])
    rows = site.ingested(len(paths) - 2, service)
    assert {row.path for row in rows} == {str(path) for path in paths} - {str(path) for path in gone}
    assert service.problems() == []


def test_f46_a_file_that_vanishes_before_it_is_ingested(site: Site) -> None:
    """F46: it fails alone, and that is told."""
    paths = site.image(locations=("22/0", "22/1"))
    paths[0].unlink()
    service = site.oods(retries=1, backoff=0.05, longest=0.1)
    wait_for(lambda: len(site.rows("ingested")) == len(paths) - 1)
    (row,) = wait_for(lambda: site.rows("failed"))
    assert row.path == str(paths[0])
    assert service.state == "ENABLED"


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_f50_a_step_of_the_clock(site: Site, monkeypatch: pytest.MonkeyPatch, step: float) -> None:
    """F50: nothing that waits expires because of it, what comes is ingested, nothing leaves before its time,
    and what waits in vain fails when its own time is over."""
    real = time.time
    drop = drop_of(site)
    guider = site.raws.guider("MC_O_20261122_000001")
    site.raws.guider("MC_O_20261122_000009").rename(drop / "MC_O_20261122_000009_R00_SG0_guider.fits")
    shutil.move(guider, drop / guider.name)
    rules = Retention(rules=[Rule(older_than=7200.0, by="ingested")], copies=0, unprotected=True, every=0.2)
    wanted = {"directories": [Directory(path=str(drop), settle=0.1)], "guider_wait": 6.0, "retention": rules}
    service = site.oods(**wanted)
    wait_for(lambda: len(site.rows("waiting")) == 2)
    begun = time.monotonic()
    monkeypatch.setattr(time, "time", lambda: real() + step)
    site.image(1)
    wait_for(lambda: len(site.rows("ingested")) == 4)
    assert time.monotonic() - begun < 5.0
    assert len(site.rows("waiting")) == 1
    (row,) = wait_for(lambda: site.rows("failed"))
    assert row.obsid == "MC_O_20261122_000009"
    assert 4.0 < time.monotonic() - begun < 20.0
    monkeypatch.setattr(time, "time", real)
    site.image(2)
    site.ingested(7, service)
    assert site.rows("removed", "leaving") == []
    assert all(abs((row.ingested_tai or 0.0) - tai()) < 3700 for row in site.rows("ingested"))
    assert service.faults.count == 0
