"""Visits: which exposures were one observation, as the observatory's own grouping by counters has it
(`one-to-one-and-by-counter`).

Every exposure of the sky is a visit of its own. Snaps that were counted together are also one visit, which
has the number of the first of them; the first one's own visit then has a 9 before its number. Regions on the
sky are left empty: they take the telescope's optics, which are not ours to know.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from raftwright.butler.software import DimensionRecord, Timespan
from raftwright.butler.troubles import is_refusal

if TYPE_CHECKING:
    from raftwright.butler.repository import Repository

__all__ = ["VisitOutcome", "VisitState", "define_visits", "without_visits"]

VisitState: TypeAlias = Literal["defined", "unchanged", "none", "failed"]

_ONE_TO_ONE = 0
_BY_COUNTER = 2


class VisitOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the visits of one exposure."""

    instrument: str
    exposure: int
    state: VisitState
    """`none`: it did not look at the sky, so that there is no visit; `failed`: worth another try."""
    visits: tuple[int, ...] = ()
    reason: str = ""


class _Visit(msgspec.Struct):
    number: int
    name: str
    exposures: list[DimensionRecord]
    systems: tuple[int, ...]


def define_visits(repository: Repository, exposures: Iterable[tuple[str, int]]) -> list[VisitOutcome]:
    """Defines the visits of some exposures (instrument and number), or completes them: may be called as each
    snap comes, and again.

    One outcome an exposure, ordered by instrument and number. Raises `StorageError` where the registry fails.
    """
    by_instrument: dict[str, set[int]] = {}
    for instrument, number in exposures:
        by_instrument.setdefault(instrument, set()).add(number)
    return [
        outcome
        for instrument in sorted(by_instrument)
        for outcome in _of_instrument(repository, instrument, sorted(by_instrument[instrument]))
    ]


def _of_instrument(repository: Repository, instrument: str, wanted: Sequence[int]) -> list[VisitOutcome]:
    with repository.reading():
        listed = ", ".join(str(int(each)) for each in wanted)
        found = {
            record.id: record
            for record in repository.butler.query_dimension_records(
                "exposure",
                where=f"instrument = chosen AND exposure IN ({listed})",
                bind={"chosen": instrument},
                explain=False,
                limit=None,
            )
        }
    outcomes: dict[int, VisitOutcome] = {}
    groups: dict[tuple[int, int, int], list[DimensionRecord]] = {}
    for number in wanted:
        record = found.get(number)
        if record is None:
            reason = f"exposure {number} is not in the repository"
            outcomes[number] = VisitOutcome(
                instrument=instrument, exposure=number, state="failed", reason=reason
            )
        elif not _sees_sky(record):
            outcomes[number] = VisitOutcome(instrument=instrument, exposure=number, state="none")
        else:
            groups.setdefault((record.day_obs, record.seq_start, record.seq_end), []).append(record)
    for records in groups.values():
        with repository.reading():
            visits = _visits(_with_others(repository, instrument, records))
        for outcome in _define(repository, instrument, visits, [record.id for record in records]):
            outcomes[outcome.exposure] = outcome
    return [outcomes[number] for number in wanted]


def without_visits(repository: Repository, exposures: Iterable[tuple[str, int]]) -> set[tuple[str, int]]:
    """Those of some exposures that look at the sky and are of no visit yet. Raises `StorageError`."""
    by_instrument: dict[str, set[int]] = {}
    for instrument, number in exposures:
        by_instrument.setdefault(instrument, set()).add(number)
    lacking: set[tuple[str, int]] = set()
    for instrument, numbers in by_instrument.items():
        among = f"instrument = chosen AND exposure IN ({', '.join(str(int(each)) for each in numbers)})"
        asked: dict[str, Any] = {"where": among, "bind": {"chosen": instrument}}
        with repository.reading():
            query = repository.butler.query_dimension_records
            records = query("exposure", **asked, explain=False, limit=None)
            defined = {
                record.exposure for record in query("visit_definition", **asked, explain=False, limit=None)
            }
        lacking |= {
            (instrument, record.id) for record in records if record.id not in defined and _sees_sky(record)
        }
    return lacking


def _sees_sky(record: DimensionRecord) -> bool:
    pointed = (record.tracking_ra, record.tracking_dec, record.sky_angle)
    return None not in pointed and record.can_see_sky is not False and record.timespan is not None


def _with_others(
    repository: Repository, instrument: str, records: Sequence[DimensionRecord]
) -> list[DimensionRecord]:
    """All known snaps of the group that these are of, in their order."""
    first = records[0]
    if first.seq_start == first.seq_end:
        return list(records)
    others = repository.butler.query_dimension_records(
        "exposure",
        where="instrument = chosen AND exposure.day_obs = night"
        " AND exposure.seq_start = first_snap AND exposure.seq_end = last_snap",
        bind={
            "chosen": instrument,
            "night": first.day_obs,
            "first_snap": first.seq_start,
            "last_snap": first.seq_end,
        },
        explain=False,
        limit=None,
    )
    return sorted((record for record in others if _sees_sky(record)), key=lambda each: each.seq_num)


def _visits(snaps: Sequence[DimensionRecord]) -> list[_Visit]:
    first = snaps[0]
    several = first.seq_start != first.seq_end
    begins = first.seq_num == first.seq_start
    """Without the first snap nobody knows the number of the visit of all."""
    made = []
    for snap in snaps:
        number, name = snap.id, snap.obs_id
        systems: tuple[int, ...] = (_ONE_TO_ONE,)
        if not several:
            systems = (_ONE_TO_ONE, _BY_COUNTER)
        elif begins and snap is first:
            number, name = int(f"9{snap.id}"), f"{name}_first"
        made.append(_Visit(number, name, [snap], systems))
    if several and begins:
        made.append(_Visit(first.id, first.obs_id, list(snaps), (_BY_COUNTER,)))
    return made


def _define(
    repository: Repository, instrument: str, visits: Sequence[_Visit], asked: Sequence[int]
) -> list[VisitOutcome]:
    changed: set[int] = set()
    failed: dict[int, str] = {}
    for visit in visits:
        members = [snap.id for snap in visit.exposures]
        try:
            with repository.writing():
                if _enter(repository, instrument, visit):
                    changed |= set(members)
        except Exception as error:
            if not is_refusal(error) or isinstance(error, OSError):
                raise
            said = " ".join(str(error).split())[:300]
            failed |= dict.fromkeys(members, f"visit {visit.number} cannot be defined ({said})")
    outcomes = []
    for number in asked:
        mine = tuple(v.number for v in visits if any(snap.id == number for snap in v.exposures))
        state: VisitState = "failed" if number in failed else "defined" if number in changed else "unchanged"
        outcomes.append(
            VisitOutcome(
                instrument=instrument,
                exposure=number,
                state=state,
                visits=mine,
                reason=failed.get(number, ""),
            )
        )
    return outcomes


def _enter(repository: Repository, instrument: str, visit: _Visit) -> bool:
    """Whether the registry did not have it so."""
    registry = repository.butler.registry
    definition = [
        {"instrument": instrument, "visit": visit.number, "exposure": snap.id} for snap in visit.exposures
    ]
    membership = [
        {"instrument": instrument, "visit": visit.number, "visit_system": system} for system in visit.systems
    ]
    with repository.butler.transaction():
        changed = registry.syncDimensionData("visit", _record(instrument, visit), update=True)
        if changed:
            registry.insertDimensionData("visit_definition", *definition, skip_existing=True)
            registry.insertDimensionData("visit_system_membership", *membership, skip_existing=True)
    return bool(changed)


def _record(instrument: str, visit: _Visit) -> dict[str, Any]:
    snaps = visit.exposures
    times = [snap.exposure_time for snap in snaps]
    zeniths = [snap.zenith_angle for snap in snaps]
    azimuths = [snap.azimuth for snap in snaps]
    return {
        "instrument": instrument,
        "id": visit.number,
        "name": visit.name,
        "physical_filter": _common(snap.physical_filter for snap in snaps) or snaps[0].physical_filter,
        "day_obs": min(snap.day_obs for snap in snaps),
        "seq_num": min(snap.seq_num for snap in snaps),
        "exposure_time": None if None in times else sum(times),
        "target_name": _common(snap.target_name for snap in snaps),
        "observation_reason": _common(snap.observation_reason for snap in snaps) or "various",
        "science_program": _common(snap.science_program for snap in snaps),
        "azimuth": None if None in azimuths else _mean_angle(azimuths),
        "zenith_angle": None if None in zeniths else sum(zeniths) / len(zeniths),
        "timespan": Timespan(
            min(snap.timespan.begin for snap in snaps), max(snap.timespan.end for snap in snaps)
        ),
    }


def _common(values: Iterable[str | None]) -> str | None:
    found = set(values)
    return found.pop() if len(found) == 1 else None


def _mean_angle(degrees: Sequence[float]) -> float:
    if len(degrees) == 1:
        return degrees[0]
    mean = sum(cmath.rect(1.0, math.radians(each)) for each in degrees)
    return math.degrees(cmath.phase(mean)) % 360.0
