"""Several services in one process: `raftwright up`, and the runner beneath it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from odd import wait_for

from raftwright.errors import NotFoundError, RaftwrightError, UsageError
from raftwright.service import State
from raftwright.service.config import load
from raftwright.service.control import ask
from raftwright.service.runner import Runner, registered

SMALL = """
site: {{camera: LSSTComCam, run: {run}}}
archive: {{root: {root}}}
simulator: {{size: 24x32, every: 300 ms, readout: 100 ms, images: {images}, day: '20261122', rafts: [R22]}}
forwarder: {{sweep: 300 ms, durable: false, header_wait: 0}}
"""

Text = Callable[..., str]


@pytest.fixture
def text(run: Path, tmp_path: Path) -> Text:
    def make(images: int = 3, more: str = "") -> str:
        return SMALL.format(run=run, root=tmp_path / "archive", images=images) + more

    return make


@pytest.fixture
def site(text: Text, tmp_path: Path) -> Callable[..., Path]:
    def make(**options: Any) -> Path:
        path = tmp_path / "site.yaml"
        path.write_text(text(**options))
        return path

    return make


def files_of(tmp_path: Path) -> int:
    return len(list((tmp_path / "archive").rglob("*.fits")))


class Told:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.all: list[tuple[str, Mapping[str, Any]]] = []

    def __call__(self, what: str, facts: Mapping[str, Any]) -> None:
        self.all.append((what, facts))

    def of(self, what: str) -> list[Mapping[str, Any]]:
        return [facts for kind, facts in list(self.all) if kind == what]


# -- the runner


def test_images_go_from_the_camera_into_files(text: Text, tmp_path: Path) -> None:
    told = Told()
    threads = threading.active_count()
    config = load(environment={}, text=text())
    with Runner(config, observer=told) as runner:
        assert list(runner.services) == ["simulator", "forwarder"]
        assert set(registered(config.common)) == {"simulator", "forwarder"}
        entry = config.common.run / "forwarder.json"
        facts = json.loads(entry.read_text())
        entry.write_text(json.dumps({**facts, "started": facts["started"] - 1}))
        assert set(registered(config.common)) == {"simulator"}, "its number is another's by now"
        wait_for(lambda: runner.idle and len(told.of("image")) == 3, 30)
    assert files_of(tmp_path) == 27
    assert registered(config.common) == {}
    ours = [thread.name for thread in threading.enumerate() if "GarbageCollector" not in repr(thread)]
    assert len(ours) <= threads, ours  # that one is pyzmq's


def test_d072_f19_what_was_taken_while_nothing_was_enabled_is_archived_without_command(
    text: Text, tmp_path: Path
) -> None:
    config = load(environment={}, text=text(10, "life: {initial: STANDBY}\n"))
    with Runner(config) as runner:
        wait_for(lambda: files_of(tmp_path) == 90, 30)
        assert runner.services["forwarder"].state is State.STANDBY


def test_f19_in_fault_too(text: Text, tmp_path: Path) -> None:
    config = load(environment={}, text=text(4))
    with Runner(config) as runner:
        forwarder = runner.services["forwarder"]
        from raftwright.service import FaultCode

        forwarder.fault(FaultCode.NO_PROGRESS, "made by the test", "test")
        wait_for(lambda: files_of(tmp_path) == 36, 30)
        assert forwarder.state is State.FAULT


def test_one_service_that_fails_holds_no_other(text: Text, tmp_path: Path) -> None:
    """And is started again by itself: D069, D081."""
    told = Told()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        config = load(environment={}, text=text(), options=[f"forwarder.metrics={address}"])
        with Runner(config, observer=told) as runner:
            assert list(runner.services) == ["simulator"]
            assert address in runner.failed["forwarder"]
            assert not runner.idle
            wait_for(lambda: runner.services["simulator"].idle)
            taken.close()
            wait_for(lambda: "forwarder" in runner.services, 10)
            assert not runner.failed
            wait_for(lambda: files_of(tmp_path) == 27, 20)
    assert [facts["service"] for facts in told.of("failed")] == ["forwarder"], "told once"


def test_a_bug_in_one_holds_no_other(text: Text, monkeypatch: pytest.MonkeyPatch) -> None:
    from raftwright.forwarder.service import Forwarder

    def burst(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Forwarder, "__init__", burst)
    with Runner(load(environment={}, text=text())) as runner:
        assert runner.failed == {"forwarder": "ZeroDivisionError: a bug"}
        assert runner.services["simulator"].state is State.ENABLED


def test_d081_a_daq_that_goes_is_no_fault_and_one_that_comes_back_is_used(text: Text) -> None:
    told = Told()
    config = load(environment={}, text=text(0))
    with Runner(config, only=["forwarder"], observer=told) as runner:
        forwarder = runner.services["forwarder"]
        for _ in range(2):
            with Runner(config, only=["simulator"]):
                before = len(told.of("image"))
                wait_for(lambda before=before: len(told.of("image")) > before, 40)
            time.sleep(1.0)
        wait_for(lambda: forwarder.status()["problems"], 20)
        assert (forwarder.state, forwarder.faults.count) == (State.ENABLED, 0)


def test_d108_the_same_ports_again(text: Text) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        first = probe.getsockname()[1]
    if first > 65_000:
        pytest.skip("no room above the free port")
    more = f"life: {{pages: '127.0.0.1:{first}', control: 'tcp://127.0.0.1:{first + 10}'}}\n"
    config = load(environment={}, text=text(0, more))
    for _ in range(5):
        with Runner(config) as runner:
            assert not runner.failed
            assert ask(f"tcp://127.0.0.1:{first + 10}", "health").service == "forwarder"


def test_f60_a_reload_is_for_all_or_for_none(text: Text) -> None:
    now = text()
    held = {"text": now}
    config = load(environment={}, text=now)
    with Runner(config, reread=lambda: load(environment={}, text=held["text"])) as runner:
        forwarder = runner.services["forwarder"]
        for change, said in (
            (("sweep: 300 ms", "sweep: soon"), "line 5: forwarder.sweep: 'soon' is no time"),
            (("sweep: 300 ms", "sweeep: 1 s"), "is sweep meant"),
            (("durable: false", "durable: true, sweep2: 1"), "is sweep meant"),
            (("durable: false", "durable: true"), "forwarder.durable cannot change while it runs"),
            (("every: 300 ms", "every: 3 s"), "simulator.every cannot change while it runs"),
            (("site: {", "site: {name: other, "), "site.name cannot change while services run"),
            (("forwarder:", "header: {}\nforwarder:"), "services cannot come or go"),
        ):
            held["text"] = now.replace(*change)
            with pytest.raises(RaftwrightError) as caught:
                runner.reload()
            assert said in str(caught.value)
            assert forwarder.settings.sweep == 0.3
            assert runner.config is config
        held["text"] = now.replace("sweep: 300 ms", "sweep: 1 s, rafts: [R22]") + "log: {level: debug}\n"
        assert runner.reload() == {"forwarder": ["rafts", "sweep"]}
        assert (forwarder.settings.sweep, forwarder.settings.rafts) == (1.0, ["R22"])
        assert runner.reload() == {}


def test_boards_move_by_reload(text: Text, tmp_path: Path) -> None:
    """What another was in charge of, and nobody took, is taken once it is ours."""
    now = text(3).replace("header_wait: 0", "header_wait: 0, locations: [22/0]")
    held = {"text": now}
    with Runner(
        load(environment={}, text=now), reread=lambda: load(environment={}, text=held["text"])
    ) as runner:
        wait_for(lambda: files_of(tmp_path) == 9, 20)
        held["text"] = now.replace("[22/0]", "[22/0, 22/1]")
        endpoint = runner.services["forwarder"].control.endpoint  # type: ignore[union-attr]
        answer = ask(endpoint, "reload")
        assert (answer.ok, answer.data) == (True, {"changed": ["locations"]})
        wait_for(lambda: files_of(tmp_path) == 18, 20)


def test_services_that_are_not_there(text: Text) -> None:
    config = load(environment={}, text=text())
    with pytest.raises(NotFoundError, match="no section header"):
        Runner(config, only=["header"])
    with pytest.raises(NotFoundError, match="no section of a service"):
        Runner(load(environment={}, text="archive: {root: /a}"))
    with Runner(config) as runner, pytest.raises(UsageError, match="no files"):
        runner.reload()


# -- the command


class Up:
    """`raftwright up --json` as a process."""

    def __init__(self, *words: str, cwd: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "raftwright", "up", *words, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env={key: value for key, value in os.environ.items() if not key.startswith("RAFTWRIGHT_")},
        )
        self.lines: list[dict[str, Any]] = []
        self.errors: list[str] = []
        self._readers = [threading.Thread(target=self._read), threading.Thread(target=self._complain)]
        for reader in self._readers:
            reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def _complain(self) -> None:
        assert self.process.stderr is not None
        self.errors.extend(self.process.stderr)

    def of(self, event: str) -> list[dict[str, Any]]:
        return [line for line in list(self.lines) if line.get("event") == event]

    def wait_for(self, event: str, number: int = 1, seconds: float = 30.0) -> dict[str, Any]:
        wait_for(lambda: len(self.of(event)) >= number or self.process.poll() is not None, seconds)
        assert len(self.of(event)) >= number, f"it ended: {self.errors}"
        return self.of(event)[number - 1]

    def end(self, number: int | None = signal.SIGTERM, seconds: float = 30.0) -> int:
        try:
            if number is not None and self.process.poll() is None:
                self.process.send_signal(number)
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end: {self.lines[-5:]} {self.errors[-20:]}") from None
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait(10)
            for reader in self._readers:
                reader.join(5)
            for pipe in (self.process.stdout, self.process.stderr):
                assert pipe is not None
                pipe.close()


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    started: list[Up] = []

    def make(*words: object) -> Up:
        started.append(Up(*map(str, words), cwd=tmp_path))
        return started[-1]

    yield make
    for one in started:
        if one.process.poll() is None:
            one.end(signal.SIGKILL)


def test_up_takes_so_many_images_and_ends(
    up: Callable[..., Up], site: Callable[..., Path], tmp_path: Path
) -> None:
    program = up(site(), "--images", 2, "--until-idle", "500ms")
    assert program.end(None, 60) == 0
    assert program.of("stopped")[0]["images"] == 2
    assert files_of(tmp_path) == 18
    ready = program.of("ready")[0]
    assert set(ready["services"]) == {"simulator", "forwarder"}
    assert ready["failed"] == {}
    assert all(" forwarder" in line or " simulator" in line for line in program.errors), program.errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_up_is_commanded_reloaded_and_ended(
    up: Callable[..., Up], site: Callable[..., Path], tmp_path: Path, number: int
) -> None:
    path = site(images=0)
    program = up(path)
    control = program.wait_for("ready")["services"]["forwarder"]["control"]
    assert ask(control, "disable").state == "DISABLED"
    path.write_text(path.read_text().replace("sweep: 300 ms", "sweep: often"))
    program.process.send_signal(signal.SIGHUP)
    told = program.wait_for("reload")
    assert told["ok"] is False
    assert told["reason"].startswith(f"{path}, line 5: forwarder.sweep: 'often' is no time")
    answer = ask(control, "reload")
    assert (answer.ok, "often" in answer.reason) == (False, True)
    path.write_text(path.read_text().replace("sweep: often", "sweep: 400 ms"))
    program.process.send_signal(signal.SIGHUP)
    assert program.wait_for("reload", 2)["changed"] == {"forwarder": ["sweep"]}
    assert ask(control, "enable").state == "ENABLED"
    program.wait_for("image")
    begun = time.monotonic()
    assert program.end(number) == 0
    assert time.monotonic() - begun < 15
    assert program.of("stopped")


def test_up_that_is_killed_goes_on(up: Callable[..., Up], site: Callable[..., Path], tmp_path: Path) -> None:
    """D013: what was under way is finished by the next, once."""
    path = site(images=25)
    words = (path, "--set", f"simulator.epoch={tmp_path / 'epoch'}")
    for _ in range(2):
        program = up(*words)
        program.wait_for("image", 2)
        program.end(signal.SIGKILL)
    program = up(*words, "--until-idle", "500ms")
    assert program.end(None, 60) == 0
    names = [file.name for file in (tmp_path / "archive").rglob("*.fits")]
    assert not [name for name in names if "conflict" in name or ".v2" in name]
    assert len(names) == 9 * 25
    assert {int(name.rsplit("_R", 1)[0][-6:]) for name in names} == set(range(1, 26))


# -- what is said before anything runs


@pytest.fixture
def cli(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Any]:
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> tuple[int, str, str]:
        from raftwright.cli import main

        code = main([str(word) for word in words])
        done = capsys.readouterr()
        return code, done.out, done.err

    return call


def test_a_dry_run_touches_nothing(
    cli: Callable[..., Any], site: Callable[..., Path], tmp_path: Path
) -> None:
    code, out, _ = cli("up", site(), "--dry-run", "--json")
    told = json.loads(out)
    assert (code, told["dry_run"], set(told["services"])) == (0, True, {"simulator", "forwarder"})
    assert not (tmp_path / "archive").exists()
    code, out, _ = cli("up", site(), "--dry-run", "--without", "simulator")
    assert "forwarder" in out
    assert "simulator" not in out
    assert cli("up", site(), "--only", "header")[0] == 1
    code, _, err = cli("up", site(), "--set", "forwarder.memroy=1GB")
    assert (code, "is memory meant?" in err) == (1, True)


def test_config_check_tells_all(cli: Callable[..., Any], site: Callable[..., Path], tmp_path: Path) -> None:
    assert cli("config", "check", site())[0] == 0
    path = tmp_path / "bad.yaml"
    path.write_text("archive: {root: /a}\nforwarder:\n  memroy: 1\n  fill: x\nlog: {level: loud}\n")
    code, out, _ = cli("config", "check", path, "--json")
    faults = json.loads(out)["faults"]
    assert code == 5
    assert len(faults) == 1, "shared sections first: the others are read with them"
    path.write_text("archive: {root: /a}\nforwarder:\n  memroy: 1\n  files: x\n")
    code, out, _ = cli("config", "check", path)
    assert (code, out.count("there is no such key"), out.count("is missing")) == (5, 2, 1)


def test_control_by_name(
    cli: Callable[..., Any], text: Text, site: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = site()
    code, _, err = cli("control", "forwarder", "health", "--config", path)
    assert (code, "nobody listens" in err) == (1, True)
    monkeypatch.setenv("RAFTWRIGHT_CONFIG", str(path))
    with Runner(load([path], environment={}), only=["forwarder"]):
        code, out, _ = cli("control", "forwarder", "health", "--json")
        assert (code, json.loads(out)["data"]["healthy"]) == (0, True)
        code, out, _ = cli("control", "forwarder", "look", "image=CC_S_20261122_000001")
        assert (code, out.splitlines()[0]) == (0, "forwarder: ENABLED")
        code, _, err = cli("control", "forwarder", "enable")
        assert code == 1
        assert "forwarder (ENABLED) refuses enable: enable is for DISABLED" in err
        assert cli("control", "nobody", "health")[0] == 2
        assert cli("control", "forwarder", "look", "image")[0] == 2
