"""Tasks that die, tasks that stand still, starts and ends."""

from __future__ import annotations

import os
import socket
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from odd import Odd, wait_for

from raftwright.errors import StorageError, UsageError
from raftwright.service import FaultCode, State, Task
from raftwright.service.tasks import Pulse


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.parametrize("death", [ValueError("x"), SystemExit(1), MemoryError()])
def test_d115_a_task_that_dies_is_started_again(death: BaseException) -> None:
    with Odd() as service:
        wait_for(lambda: service.turns)
        service.mood = death
        wait_for(lambda: next(iter(service.tasks)).deaths)
        service.mood = None
        turns = service.turns
        wait_for(lambda: service.turns > turns)
        assert service.state is State.ENABLED, "once is no fault"


def test_d115_f15_a_task_that_dies_again_and_again_is_a_fault_until_it_lives() -> None:
    """D070: code 101 fires."""
    with Odd(page="127.0.0.1:0") as service:
        assert service.page is not None
        begun = time.monotonic()
        service.mood = ValueError("the disk is on fire")
        wait_for(lambda: service.state is State.FAULT)
        assert time.monotonic() - begun < 10
        assert "the disk is on fire" in service.illness()[0]
        assert get(service.page.url + "/health")[0] == 503
        assert get(service.page.url + "/ready")[0] == 200, "it runs"
        service.mood = None
        wait_for(lambda: service.turns > 5)
        assert service.state is State.FAULT, "not well before it has lived for a while"
        wait_for(lambda: service.state is State.ENABLED, 15)
        assert get(service.page.url + "/health") == (200, "ok\n")
        [fault] = service.faults.all()
        assert (fault["code"], fault["key"], fault["ended"]) == (101, "turn", "recovered")
        assert fault["over"] > fault["since"]


def test_a_task_that_returns_is_one_that_died() -> None:
    class Short(Odd):
        def _turn(self, task: Task) -> None:
            self.turns += 1

    with Short() as service:
        wait_for(lambda: service.state is State.FAULT)
        assert "it returned" in service.illness()[0]
        assert service.turns >= 3


def test_a_task_may_come_to_its_end() -> None:
    class Once(Odd):
        def open(self) -> None:
            self.task("once", lambda task: None, once=True)

    with Once() as service:
        wait_for(lambda: next(iter(service.tasks)).ended)
        time.sleep(0.7)
        assert (service.state, service.illness()) == (State.ENABLED, [])


def test_d175_no_progress_is_told() -> None:
    """D070: code 102 fires."""
    with Odd(page="127.0.0.1:0") as service:
        assert service.page is not None
        wait_for(lambda: service.turns)
        service.stuck = True
        time.sleep(1.2)
        assert service.state is State.ENABLED, "nothing waits"
        service.backlog = 7
        wait_for(lambda: service.state is State.FAULT, 5)
        assert service.faults.lasting()[0].code is FaultCode.NO_PROGRESS
        assert "work waits" in get(service.page.url + "/health")[1]
        assert "raftwright_odd_healthy 0.0" in get(service.page.url + "/metrics")[1]
        service.stuck = False
        wait_for(lambda: service.state is State.ENABLED, 5)
        assert service.turns


def test_a_pulse_counts_what_others_count() -> None:
    done = 0
    pulse = Pulse("p", lambda: 1.0, patience=1.0, count=lambda: done)
    pulse.standing()
    time.sleep(0.1)
    assert pulse.standing() >= 0.1
    done = 1
    assert pulse.standing() == 0.0
    time.sleep(0.05)
    pulse.beat()
    assert pulse.standing() < 0.05


def test_a_pulse_that_cannot_be_felt_is_no_alarm() -> None:
    def burst() -> float:
        raise RuntimeError("no idea")

    assert Pulse("p", burst, patience=1.0).standing() == 0.0


def test_a_dead_thread_of_its_parts_is_a_fault() -> None:
    class Parts(Odd):
        def open(self) -> None:
            self.part = threading.Thread(target=lambda: self.release.wait(20), name="engine", daemon=True)
            self.part.start()

        def threads(self) -> list[threading.Thread]:
            return [self.part]

    with Parts() as service:
        time.sleep(0.6)
        assert not service.illness()
        service.release.set()
        wait_for(lambda: service.state is State.FAULT, 5)
        assert "engine is dead" in service.illness()[0]


def test_a_name_stands_for_one_task() -> None:
    with Odd() as service, pytest.raises(UsageError, match="turn already"):
        service.task("turn", lambda task: None)


# -- starts and ends


def test_d108_d116_fifty_starts_at_the_same_ports(run: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        page = f"127.0.0.1:{probe.getsockname()[1]}"
    before = None
    for _ in range(50):
        with Odd(page=page, control=f"ipc://{run}/c") as service:
            assert service.state is State.ENABLED
        assert (service.closed, service.phase) == (1, "stopped")
        now = len(os.listdir("/proc/self/fd")), threading.active_count()
        before = before or now
        assert now == before, "something stays open"


def test_d108_a_start_that_fails_leaves_nothing(run: Path) -> None:
    class Poor(Odd):
        def open(self) -> None:
            super().open()
            raise StorageError(28, "no space", "/archive")

    threads = threading.active_count()
    for _ in range(3):
        service = Poor(page="127.0.0.1:0", control=f"ipc://{run}/c")
        with pytest.raises(StorageError, match="no space"):
            service.start()
        assert (service.closed, service.phase, threading.active_count()) == (1, "stopped", threads)
    with pytest.raises(UsageError, match="started once"):
        service.start()


def test_d108_a_control_socket_that_is_taken(endpoint: str) -> None:
    with Odd(control=endpoint):
        other = Odd(control=endpoint)
        with pytest.raises(StorageError, match="another"):
            other.start()
        assert other.closed == 1
    with Odd(control=endpoint):
        pass


def test_the_end_waits_for_what_is_under_way() -> None:
    service = Odd(drain=5.0).start()
    service.busy = {"one"}
    threading.Timer(0.3, service.busy.clear).start()
    begun = time.monotonic()
    service.stop()
    assert 0.25 < time.monotonic() - begun < 1.5
    assert service.closed == 1
    service.stop()
    assert service.closed == 1


def test_the_end_does_not_wait_for_ever() -> None:
    service = Odd(drain=0.3).start()
    service.busy = {"one"}
    begun = time.monotonic()
    service.stop()
    assert 0.3 <= time.monotonic() - begun < 1.5


def test_what_fails_at_the_end_holds_up_nothing() -> None:
    class Clumsy(Odd):
        def close(self) -> None:
            super().close()
            raise RuntimeError("dropped it")

    service = Clumsy(page="127.0.0.1:0").start()
    assert service.page is not None
    url = service.page.url
    service.stop()
    with pytest.raises(urllib.error.URLError):
        get(url + "/health")


def test_the_watch_itself_is_watched() -> None:
    with Odd() as service:
        service._looked -= 60
        assert "nobody has looked" in service.illness()[0]
        wait_for(lambda: not service.illness())


def test_f50_steps_of_the_clock_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time
    with Odd(drain=0.3) as service:
        service.backlog = 1
        for step in (3600.0, -3600.0):
            monkeypatch.setattr(time, "time", lambda step=step: now() + step)
            time.sleep(0.8)
            assert (service.state, service.illness()) == (State.ENABLED, [])
        service.busy = {"one"}
        begun = time.monotonic()
        with pytest.raises(UsageError):
            service.command("disable")
        assert time.monotonic() - begun < 0.6


def test_every_code_fires_in_a_test() -> None:
    """D070: a code more needs a test more, and a line in the manual."""
    assert {code.name for code in FaultCode} == {"TASK_DIED", "NO_PROGRESS"}
