"""Two hundred who write files into the ledger at the camera's pace, and one OODS that brings them into a
Butler: `pytest bench/test_writers.py -s`.

An image of 205 CCDs every 3.5 s; each file, with its sidecar, is entered by one of 200 producers in some
moment of the readout's 2 s. They are threads of eight processes: of one ledger a process, as services have
it, or each with a connection of its own. A commit is synced; its time is from the call to its return. Ledger
and registry are in SQLite, or in PostgreSQL. Nothing else runs but the OODS, on the same processors.

RAFTWRIGHT_BENCH_IMAGES (12): images. RAFTWRIGHT_BENCH_DISK: where archive, ledger and repository are.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

pytest.importorskip("lsst.daf.butler")

PROJECT = Path(__file__).resolve().parent.parent
sys.path += [str(PROJECT / "tests"), str(PROJECT / "tests" / "oods")]

from oods_stand import Site, wait_for  # noqa: E402
from producers import PRODUCERS, facts_of, produce  # noqa: E402

import postgres_server  # noqa: E402
from raftwright.butler import make_repository, open_repository  # noqa: E402
from raftwright.ledger import IngestRow, open_ledger  # noqa: E402

IMAGES = int(os.environ.get("RAFTWRIGHT_BENCH_IMAGES", "12"))
EVERY, READOUT = 3.5, 2.0
PROMISED = 0.5
"""Seconds, of 98 % of the commits."""


@pytest.fixture(scope="module")
def disk() -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="raftwright-bench-", dir=os.environ.get("RAFTWRIGHT_BENCH_DISK")))
    yield place
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(scope="module")
def empty(disk: Path) -> Path:
    make_repository(disk / "empty", cameras=["LSSTCam"]).close()
    return disk / "empty"


@pytest.fixture(params=["sqlite", "postgresql"])
def site(request: pytest.FixtureRequest, disk: Path, empty: Path) -> Iterator[Site]:
    place = Path(tempfile.mkdtemp(dir=disk))
    made = Site(place, empty)
    server = None
    if request.param == "postgresql":
        server = postgres_server.start(pytest.skip, durable=True, connections=2 * PRODUCERS + 60)
        made.ledger.close()
        made.url = server.new_database()
        made.ledger = open_ledger(made.url)
        made.repo = place / "second"
        make_repository(made.repo, db_url=server.new_database(), cameras=["LSSTCam"]).close()
    yield made
    made.close()
    if server is not None:
        server.stop()


@pytest.mark.timeout(300 + IMAGES * (EVERY + 10))
@pytest.mark.parametrize("own", [False, True], ids=["services", "own connections"])
def test_d163_two_hundred_write_and_one_ingests(site: Site, own: bool) -> None:
    """D163."""
    names = [f"MC_O_20261122_{number:06d}" for number in range(1, IMAGES + 1)]
    images = [site.raws.all_of(name) for name in names]
    for name in names:
        site.ledger.images.announce(facts_of(name))
    service = site.oods()
    wait_for(lambda: service.active)
    commits = produce(site.url, images, every=EVERY, spread=READOUT, own=own)
    rows = {row.path: row for row in _all(site, 205 * IMAGES)}
    with open_repository(site.repo) as repository:
        known = {str(ref.id) for ref in repository.find("LSSTCam")}
    assert {row.dataset_id for row in rows.values()} == known
    assert len(known) == 205 * IMAGES
    times = [commit.seconds for commit in commits]
    waits = [(rows[commit.path].ingested_tai or 0.0) - commit.ended for commit in commits]
    print(
        f"\n{site.url.partition(':')[0]}, {'200 connections' if own else 'eight ledgers'}:"
        f" {len(commits)} commits {_said(times)}; in the Butler after {_said(waits)}"
    )
    assert _part(times, 0.98) < PROMISED


def _all(site: Site, number: int) -> list[IngestRow]:
    """Rows of all that is ingested, once it is."""

    def counted() -> bool:
        return site.ledger.ingests.counts("oods").get("oods", {}).get("ingested", 0) >= number

    wait_for(counted, 120.0)
    return site.ledger.ingests.select(repository="oods", states=["ingested"], limit=number + 1)


def _part(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def _said(values: Sequence[float]) -> str:
    middle = statistics.median(values)
    return f"median {middle:.3f} s, 98 % {_part(values, 0.98):.3f} s, most {max(values):.3f} s"
