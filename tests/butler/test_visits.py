"""Visits, one to one and by counter, as the observatory's own software groups them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_raws import BIAS, SKY, Raws

pytest.importorskip("lsst.daf.butler")

from raftwright.butler import Incoming, Ingester, Repository, define_visits

Open = Callable[..., Repository]
FIRST = 2026112200347


def put(archive: Raws, repository: Repository, number: int, **header: Any) -> int:
    """An exposure of one CCD."""
    name = f"AT_O_20261122_{number:06}"
    paths = archive.image(name, "LATISS", ["00/0"], header={**SKY, **header})
    (outcome,) = Ingester(repository).ingest([Incoming.of(str(path)) for path in paths])
    assert outcome.good
    return outcome.exposure


def definitions(repository: Repository) -> dict[int, set[int]]:
    found = defaultdict(set)
    for record in repository.butler.query_dimension_records(
        "visit_definition", instrument="LATISS", explain=False, limit=None
    ):
        found[record.visit].add(record.exposure)
    return dict(found)


def systems(repository: Repository) -> dict[int, set[int]]:
    found = defaultdict(set)
    for record in repository.butler.query_dimension_records(
        "visit_system_membership", instrument="LATISS", explain=False, limit=None
    ):
        found[record.visit].add(record.visit_system)
    return dict(found)


def test_one_snap_is_a_visit(archive: Raws, opened: Open) -> None:
    repository = opened()
    number = put(archive, repository, 347)
    (outcome,) = define_visits(repository, [("LATISS", number)])
    assert (outcome.state, outcome.visits) == ("defined", (number,))
    assert definitions(repository) == {number: {number}}
    assert systems(repository) == {number: {0, 2}}
    (visit,) = repository.butler.query_dimension_records("visit", instrument="LATISS")
    assert (visit.name, visit.seq_num, visit.day_obs) == ("AT_O_20261122_000347", 347, 20261122)
    assert (visit.exposure_time, visit.zenith_angle, visit.physical_filter) == (30.125, 29.0, "r_57")
    assert visit.timespan.begin.tai.isot[:23] == SKY["DATE-BEG"]
    (again,) = define_visits(repository, [("LATISS", number)])
    assert (again.state, again.visits) == ("unchanged", (number,))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_snaps_that_come_one_by_one(order: tuple[int, ...], archive: Raws, opened: Open) -> None:
    """Whatever comes first, in the end all is as if they had come together."""
    repository = opened()
    snaps = [
        {"CURINDEX": 1, "MAXINDEX": 1},
        {"CURINDEX": 1, "MAXINDEX": 2, "AZSTART": 359.0},
        {"CURINDEX": 2, "MAXINDEX": 2, "AZSTART": 1.0, "DATE-END": "2026-11-23T01:03:33.956"},
    ]
    for index in order:
        number = put(archive, repository, 347 + index, **snaps[index])
        (outcome,) = define_visits(repository, [("LATISS", number)])
        assert outcome.state == "defined"
    wanted = {
        FIRST: {FIRST},
        FIRST + 1: {FIRST + 1, FIRST + 2},
        FIRST + 2: {FIRST + 2},
        int(f"9{FIRST + 1}"): {FIRST + 1},
    }
    assert definitions(repository) == wanted
    assert systems(repository) == {
        FIRST: {0, 2},
        FIRST + 1: {2},
        FIRST + 2: {0},
        int(f"9{FIRST + 1}"): {0},
    }
    (visit,) = repository.butler.query_dimension_records("visit", instrument="LATISS", visit=FIRST + 1)
    assert visit.exposure_time == 60.25
    assert min(visit.azimuth, 360 - visit.azimuth) < 1e-9  # the mean of 359 and 1
    assert visit.timespan.end.tai.isot[:23] == "2026-11-23T01:03:33.956"
    all_of = define_visits(repository, [("LATISS", FIRST + index) for index in range(3)])
    assert [outcome.state for outcome in all_of] == ["unchanged"] * 3


def test_what_did_not_look_at_the_sky_is_none(archive: Raws, opened: Open) -> None:
    repository = opened()
    bias = put(archive, repository, 1, **BIAS)
    azel = put(archive, repository, 2, TRACKSYS="AZEL")
    dark = put(archive, repository, 3, VIGN_MIN="FULLY")
    outcomes = define_visits(repository, [("LATISS", each) for each in (bias, azel, dark)])
    assert [outcome.state for outcome in outcomes] == ["none"] * 3
    assert definitions(repository) == {}


def test_a_visit_appears_when_its_cause_is_there(archive: Raws, opened: Open, tmp_path: Path) -> None:
    """D133: what cannot be defined says so, and is defined when it is tried again after the cause is gone."""
    repository = opened()
    (outcome,) = define_visits(repository, [("LATISS", FIRST)])
    assert (outcome.state, outcome.exposure) == ("failed", FIRST)
    assert "not in the repository" in outcome.reason
    put(archive, repository, 347)
    (outcome,) = Ingester(repository).define_visits([("LATISS", FIRST)])
    assert outcome.state == "defined"
    assert define_visits(repository, []) == []
