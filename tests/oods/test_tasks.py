"""Tasks of the OODS that die: they go on, leave nothing in hand, and who dies again and again is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from oods_stand import Site, wait_for
from test_service import each_once, visits

from raftwright.butler import Ingester
from raftwright.oods import Oods
from raftwright.oods.inputs import Directory
from raftwright.oods.telling import Teller
from raftwright.service import State, Task


def task_of(service: Oods, name: str) -> Task:
    (found,) = [task for task in service.tasks if task.name == name]
    return found


def dying(task: Task, monkeypatch: pytest.MonkeyPatch, times: int = 1_000_000) -> None:
    """Wherever it says next that it did something."""
    real, left = task.beat, [times]

    def beat() -> None:
        if left[0] > 0:
            left[0] -= 1
            raise RuntimeError("a bug")
        real()

    monkeypatch.setattr(task, "beat", beat)


def test_d115_every_task_may_die_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """D115: each is started again and does what it did, and that is no fault."""
    drop = site.path / "drop"
    drop.mkdir()
    service = site.oods(directories=[Directory(path=str(drop))])
    site.image(1)
    site.ingested(3, service)
    names = {task.name for task in service.tasks}
    assert names == {"role", "ingest", "chronicle", "sweep", "scan 1", "visits", "retention"}
    for task in service.tasks:
        dying(task, monkeypatch, 1)
    wait_for(lambda: all(task.restarts == 1 for task in service.tasks), 30.0)
    site.image(2)
    site.raws.image("MC_O_20261122_000003", root=drop)
    site.ingested(9, service)
    each_once(site, 9)
    wait_for(lambda: len(visits(site)) == 3)
    assert (service.state, service.faults.count, service.problems()) == (State.ENABLED, 0, [])


@pytest.mark.parametrize("name", ["ingest", "chronicle"])
def test_d115_who_dies_again_and_again_is_a_fault_until_it_lives(
    site: Site, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """D115: FAULT says which and why; the flag is cleared when it recovers, and what came meanwhile is in."""
    service = site.oods()
    wait_for(lambda: service.active)
    with monkeypatch.context() as patch:
        dying(task_of(service, name), patch)
        wait_for(lambda: service.state is State.FAULT)
        (said,) = service.illness()
        assert name in said
        assert "a bug" in said
        site.image(1)
    wait_for(lambda: service.state is State.ENABLED, 30.0)
    assert [fault["ended"] for fault in service.faults.all()] == ["recovered"]
    assert service.illness() == []
    site.ingested(3, service)
    each_once(site, 3)


@pytest.mark.parametrize("where", ["telling", "ingesting"])
def test_d115_what_it_had_in_hand_is_ingested(
    site: Site, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """D115: claimed by one that lives on, though the task that claimed it died."""
    left = [1]

    def once(real: Callable[..., Any]) -> Callable[..., Any]:
        def work(*given: Any) -> Any:
            if left[0]:
                left[0] -= 1
                raise SystemExit("a bug")  # which nobody catches but the task itself
            return real(*given)

        return work

    kind, method = (Teller, "of") if where == "telling" else (Ingester, "ingest")
    monkeypatch.setattr(kind, method, once(getattr(kind, method)))
    site.image(1)
    service = site.oods(batch=1)
    site.ingested(3, service)
    assert task_of(service, "ingest").deaths == 1
    each_once(site, 3)


def test_d115_visits_that_it_had_in_hand_are_defined(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """D115."""
    real, left = Ingester.define_visits, [1]

    def define(self: Ingester, exposures: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise RuntimeError("a bug")
        return real(self, exposures)

    monkeypatch.setattr(Ingester, "define_visits", define)
    site.image(1)
    service = site.oods()
    site.ingested(3, service)
    wait_for(lambda: len(visits(site)) == 1)
    assert task_of(service, "visits").deaths == 1
