"""States, commands and faults of a service."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from odd import Odd, wait_for

from raftwright.errors import RaftwrightError, UsageError
from raftwright.service import Command, FaultCode, State
from raftwright.service.states import EDGES

WAYS = [(command, state) for command in EDGES for state in State]


@pytest.fixture
def odd() -> Iterator[Odd]:
    with Odd(drain=0.5) as service:
        yield service


def bring(service: Odd, state: State) -> None:
    """By stated edges only."""
    way = {
        State.ENABLED: [],
        State.DISABLED: ["disable"],
        State.STANDBY: ["disable", "standby"],
        State.FAULT: [],
    }
    for command in way[state]:
        service.command(command)
    if state is State.FAULT:
        service.fault(FaultCode.NO_PROGRESS, "made", "test")
    assert service.state is state


@pytest.mark.parametrize(("command", "state"), WAYS)
def test_only_stated_edges_are_gone(odd: Odd, command: Command, state: State) -> None:
    bring(odd, state)
    to = EDGES[command].get(state)
    if to is None:
        with pytest.raises(UsageError, match=f"{command.value} is for .* and the state is {state.value}"):
            odd.command(command)
        assert odd.state is state
    else:
        assert odd.command(command)["state"] == to
        assert odd.state is to


def test_the_way_up_and_down(odd: Odd) -> None:
    for command in ("disable", "standby", "start", "enable"):
        odd.command(command)
    states = [before for before, _ in odd.seen] + [odd.state]
    assert states == ["STANDBY", "ENABLED", "DISABLED", "STANDBY", "DISABLED", "ENABLED"]
    assert all(one[1] == other[0] for one, other in pairwise(odd.seen))
    assert [facts["state"] for what, facts in odd.told if what == "state"][-1] == "ENABLED"


def test_a_site_that_commands_its_components_finds_it_in_standby() -> None:
    with Odd(initial=State.STANDBY) as service:
        assert service.state is State.STANDBY
        assert not service.enabled
        wait_for(lambda: service.turns > 2)  # D072: its work goes on whatever the state is


def test_d072_its_work_goes_on_in_every_state(odd: Odd) -> None:
    for state in (State.DISABLED, State.FAULT):
        bring(odd, state)
        turns = odd.turns
        wait_for(lambda turns=turns: odd.turns > turns + 2)
        odd.command("standby")
        odd.command("start")
        odd.command("enable")


def test_d073_fault_standby_enabled_a_hundred_times_clears_all(odd: Odd) -> None:
    for n in range(100):
        odd.fault(FaultCode.NO_PROGRESS, f"fault {n}", "one")
        odd.fault(FaultCode.TASK_DIED, f"another {n}", "two")
        assert odd.state is State.FAULT
        odd.command("resetFault" if n % 2 else "standby")
        assert (odd.state, odd.illness(), odd.faults.lasting()) == (State.STANDBY, [], [])
        odd.command("start")
        odd.command("enable")
    assert odd.faults.count == 200
    assert all(fault["ended"] == "cleared" for fault in odd.faults.all())


def test_d074_all_faults_are_kept_in_order(odd: Odd) -> None:
    odd.fault(FaultCode.NO_PROGRESS, "first", "a")
    odd.fault(FaultCode.TASK_DIED, "second", "b")
    odd.fault(FaultCode.NO_PROGRESS, "first, again", "a")
    odd.fault(FaultCode.NO_PROGRESS, "third", "c")
    told = odd.command("faults")["faults"]
    assert [(fault["number"], fault["code"], fault["key"]) for fault in told] == [
        (1, 102, "a"),
        (2, 101, "b"),
        (3, 102, "c"),
    ]
    assert odd.seen[-1] == (State.ENABLED, State.FAULT)
    assert len([1 for _, to in odd.seen if to is State.FAULT]) == 1


def test_a_fault_that_is_over_leads_back_to_where_it_was(odd: Odd) -> None:
    """D069: without a command."""
    bring(odd, State.DISABLED)
    odd.fault(FaultCode.NO_PROGRESS, "one", "a")
    odd.fault(FaultCode.NO_PROGRESS, "two", "b")
    odd.recovered(FaultCode.NO_PROGRESS, "a")
    assert odd.state is State.FAULT
    odd.recovered(FaultCode.NO_PROGRESS, "b")
    assert odd.state is State.DISABLED
    assert [fault["ended"] for fault in odd.faults.all()] == ["recovered", "recovered"]


def test_a_site_may_want_faults_to_wait_for_its_command() -> None:
    with Odd(recovery=False) as service:
        service.fault(FaultCode.NO_PROGRESS, "one", "a")
        service.recovered(FaultCode.NO_PROGRESS, "a")
        assert service.state is State.FAULT
        service.command("standby")


def test_f63_disable_waits_for_what_is_under_way_and_for_nothing_else(odd: Odd) -> None:
    odd.busy = {"one"}
    done: list[float] = []
    thread = threading.Thread(target=lambda: (odd.command("disable"), done.append(time.monotonic())))
    thread.start()
    time.sleep(0.1)
    assert odd.state is State.ENABLED
    assert not odd.enabled, "nothing more is taken on meanwhile"
    with pytest.raises(UsageError, match="busy with another command"):
        odd.command("standby")
    odd.busy = {"two"}  # came later
    ended = time.monotonic()
    thread.join()
    assert odd.state is State.DISABLED
    assert done[0] - ended < 0.2


def test_d075_disable_that_cannot_finish_is_no_success(odd: Odd) -> None:
    """D033: and its half second is one."""
    odd.busy = {"one", "two"}
    begun = time.monotonic()
    with pytest.raises(UsageError, match=r"2 are under way after 0\.5 s"):
        odd.command("disable")
    assert 0.5 <= time.monotonic() - begun < 0.6
    assert odd.enabled


def test_commands_of_its_own_need_enabled(odd: Odd) -> None:
    with pytest.raises(UsageError, match="not today"):
        odd.command("fail")
    odd.command("disable")
    with pytest.raises(UsageError, match="needs ENABLED, and the state is DISABLED"):
        odd.command("fail")


def test_a_service_that_does_not_run_takes_no_commands() -> None:
    service = Odd()
    with pytest.raises(UsageError, match="is new and takes no commands"):
        service.command("disable")
    assert service.health()["state"] == "STANDBY"
    service.start()
    service.stop()
    with pytest.raises(UsageError, match="is stopped"):
        service.command("disable")


def test_d068_codes_are_unique_and_documented(project_root: Path) -> None:
    text = (project_root / "docs" / "howto" / "run-the-archive.md").read_text(encoding="utf-8")
    members = FaultCode.__members__
    assert len({int(code) for code in members.values()}) == len(members), (
        "aliases are two names of one number"
    )
    for name, code in members.items():
        assert text.count(f"| {int(code)} | `{name}` |") == 1


def test_settings_are_taken_all_or_none() -> None:
    """F60."""
    with Odd() as service:
        before = service.settings
        for every, place, said in ((11.0, "here", "at most 10 s"), (1.0, "there", "odd.place cannot change")):
            with pytest.raises(RaftwrightError, match=said):
                service.reload(type(before)(every=every, place=place))
            assert service.settings is before
        service.refuse = UsageError("half way")
        with pytest.raises(UsageError, match="half way"):
            service.reload(type(before)(every=0.5))
        assert service.settings is before
        assert service.applied == [before.every], "what was taken on in half is undone"
        service.refuse = None
        assert service.reload(type(before)(every=0.5)) == {"changed": ["every"]}
        assert service.settings.every == 0.5


def test_start_takes_the_configuration_of_the_files(odd: Odd) -> None:
    """A bad one: refused, and the state is the old one."""
    bring(odd, State.STANDBY)
    odd.reloader = lambda: type(odd.settings)(every=11.0)
    with pytest.raises(UsageError, match="at most 10 s"):
        odd.command("start")
    assert odd.state is State.STANDBY
    odd.reloader = lambda: type(odd.settings)(every=0.3)
    assert odd.command("start")["changed"] == ["every"]
    assert (odd.state, odd.settings.every) == (State.DISABLED, 0.3)


def test_changes_of_state_are_announced(run: Path) -> None:
    from raftwright.events import open_publisher, open_subscriber

    class Loud(Odd):
        def open(self) -> None:
            super().open()
            self.publisher = open_publisher(f"ipc://{run}/events", name="odd")

        def close(self) -> None:
            super().close()
            self.publisher.close()

    with open_subscriber(f"ipc://{run}/events", kinds=["serviceState"]) as subscriber, Loud() as service:
        heard: list[tuple[str, int]] = []
        listener = threading.Thread(
            target=lambda: heard.extend(
                (event["state"], event.fields.get("code", 0))
                for event in subscriber.events(timeout=2.0)
                if event.kind == "serviceState"
            )
        )
        listener.start()
        time.sleep(0.5)
        service.command("disable")
        service.fault(FaultCode.NO_PROGRESS, "made", "a")
        service.recovered(FaultCode.NO_PROGRESS, "a")
        listener.join(20)
    assert heard[-3:] == [("DISABLED", 0), ("FAULT", 102), ("DISABLED", 0)]
