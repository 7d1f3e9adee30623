"""Odd servers, odd images, odd clocks, and the ways to stop."""

from __future__ import annotations

import logging
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
from stand import (
    BYTES,
    LOCATIONS,
    ROW,
    Forward,
    Run,
    Serve,
    attempts_of,
    check_archive,
    states_of,
    units_of,
    wait_for,
)

import raftwright
from hand_daq import HandStore, free_port, name_of
from raftwright.daq import Registers
from raftwright.errors import FormatError, NotFoundError, RaftwrightError, StorageError
from raftwright.forwarder import Forwarder, Settings, read_settings
from raftwright.ledger import open_ledger
from raftwright.stream import KeyStore
from raftwright.stream.wire import Header, Type, pack


def errors_in(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    return [
        record.message
        for record in caplog.records
        if record.levelno >= logging.ERROR and text in record.message
    ]


# -- servers


class Babbler:
    """Answers whatever comes with what it was given."""

    def __init__(self, answer: Any, endpoint: str = "tcp://127.0.0.1:*") -> None:
        self._context: zmq.Context[Any] = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.bind(endpoint)
        self.endpoint = self._socket.getsockopt(zmq.LAST_ENDPOINT).decode()
        self._answer = answer
        self._over = threading.Event()
        self.asked = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            if self._socket.poll(50):
                identity, header, *_ = self._socket.recv_multipart()
                self.asked += 1
                self._socket.send_multipart([identity, *self._answer(header)])

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self._context.destroy(linger=0)


NOISE = random.Random(79)


def garbage(_header: bytes) -> list[bytes]:
    return [NOISE.randbytes(64), NOISE.randbytes(100)]


def another_version(header: bytes) -> list[bytes]:
    request = int.from_bytes(header[8:16], "little")
    body = b'{"code": "version", "message": "too old", "spoken": [7], "got": 1}'
    return [pack(Header(Type.ERROR, request), body), body]


@pytest.mark.parametrize(("answer", "said"), [(garbage, "not of the protocol"), (another_version, "[7]")])
def test_a_wrong_server_is_refused_until_the_right_one_is_there(
    answer: Any,
    said: str,
    daq: HandStore,
    serve: Serve,
    forward: Forward,
    out: Path,
    ledger: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """F17: another version is refused and said once, with the versions of both; then it goes on."""
    monkeypatch.setattr("raftwright.stream.connection._PATIENCE", 0.5)
    daq.add(1)
    wrong = Babbler(answer, f"tcp://127.0.0.1:{free_port()}")
    try:
        forwarder = forward(wrong.endpoint)
        forwarder.store.connection.timeout = 1.0
        wait_for(lambda: any(said in problem for problem in forwarder.problems()), 15)
        asked = wrong.asked
        time.sleep(1.5)
        assert wrong.asked > asked, "it gave up"
        assert wrong.asked < asked + 40, "it hammers"
    finally:
        wrong.close()
    told = errors_in(caplog, "the DAQ cannot be asked")
    assert len(told) <= 2, caplog.text
    assert answer is garbage or ("speaks versions [7]" in told[-1] and "here it is [1]" in told[-1])
    serve(wrong.endpoint)
    wait_for(lambda: states_of(ledger) == {"done": 3}, 15)
    wait_for(lambda: not forwarder.problems())
    check_archive(out, ledger, daq.all)


def test_a_wrong_key_is_said(
    daq: HandStore,
    serve: Serve,
    forward: Forward,
    out: Path,
    ledger: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("raftwright.stream.connection._PATIENCE", 0.5)
    store = KeyStore(tmp_path / "keys")
    for name in ("server", "mine", "stranger"):
        store.new(name)
    keys = {"server_key": store.public("server"), "key_store": str(tmp_path / "keys")}
    server = serve(keys=store.secret("server"), allowed=[store.public("mine")])
    daq.add(1)
    stranger = forward(server.endpoint, keys="stranger", **keys)
    stranger.store.connection.timeout = 1.0
    wait_for(lambda: any("key" in problem for problem in stranger.problems()), 15)
    assert not states_of(ledger)
    stranger.stop()
    forward(server.endpoint, keys="mine", **keys)
    wait_for(lambda: states_of(ledger) == {"done": 3})
    check_archive(out, ledger, daq.all)


def test_a_server_that_is_started_anew(
    daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path
) -> None:
    first = serve(f"tcp://127.0.0.1:{free_port()}")
    endpoint = first.endpoint
    image = daq.make(1)
    image.hold(5 * ROW)
    daq.put(image)
    forward(endpoint)
    wait_for(lambda: states_of(ledger) == {"claimed": 3})
    time.sleep(0.3)
    first.stop()
    time.sleep(0.3)
    image.mend()
    daq.add(2)
    serve(endpoint)
    wait_for(lambda: states_of(ledger) == {"done": 6}, 20)
    check_archive(out, ledger, daq.all)
    assert {source.read_bytes for source in image.sources.values()} == {BYTES}, (
        "what came was asked for again"
    )


# -- images


def test_what_cannot_be_taken_is_set_aside(
    daq: HandStore, serve: Serve, forward: Forward, ledger: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve()
    odd_name = daq.make(1)
    odd_name.base = msgspec.structs.replace(odd_name.base, name="focus_sweep_7")
    odd_camera = daq.make(2)
    odd_camera.base = msgspec.structs.replace(odd_camera.base, camera="NoSuchCam")
    odd_source = daq.make(3)
    wrong = odd_source.sources["22/1"]
    wrong.base = msgspec.structs.replace(wrong.base, location="77/1")
    odd_source.sources = {**{k: v for k, v in odd_source.sources.items() if k != "22/1"}, "77/1": wrong}
    odd_registers = daq.make(4)
    wrong = odd_registers.sources["22/2"]
    wrong.base = msgspec.structs.replace(
        wrong.base, registers=Registers.parse([3, 0, 20, 0, 0, 5, 0, 13, 0, 2, 1])
    )
    unreadable = daq.make(5)
    unreadable.trouble = FormatError("its file is damaged")
    daq.all = {
        image.base.name: image for image in (odd_name, odd_camera, odd_source, odd_registers, unreadable)
    }
    daq.add(6)
    forwarder = forward(server.endpoint)
    wait_for(lambda: states_of(ledger) == {"done": 7})
    wait_for(lambda: len(forwarder.lookout.strange) == 5)
    strange = forwarder.lookout.strange
    assert set(strange) == {
        *("focus_sweep_7", name_of(2), name_of(5)),
        *(f"{name_of(3)} 77/1", f"{name_of(4)} 22/2"),
    }
    assert "NoSuchCam" in strange[name_of(2)]
    assert "damaged" in strange[name_of(5)]
    assert any("5 images or sources" in problem for problem in forwarder.problems())
    time.sleep(0.7)
    assert len(errors_in(caplog, "cannot be taken")) == 5, "each is said once"
    unreadable.trouble = None
    wait_for(lambda: states_of(ledger) == {"done": 10})
    assert name_of(5) not in forwarder.lookout.strange


def test_memory_that_is_not_enough_for_one_is_said(
    daq: HandStore, serve: Serve, forward: Forward, ledger: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve()
    daq.add(1)
    forwarder = forward(server.endpoint, memory=1 << 20)
    wait_for(lambda: any("--memory" in problem for problem in forwarder.problems()))
    time.sleep(1.0)
    assert not states_of(ledger)
    assert len(errors_in(caplog, "--memory")) == 1
    assert any("--memory" in problem for problem in forwarder.problems())


# -- clocks


def test_steps_of_the_clock(
    daq: HandStore,
    serve: Serve,
    forward: Forward,
    out: Path,
    ledger: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = serve()
    waits = daq.make(1)
    waits.lose(0, ROW, "22/0")
    daq.put(waits)
    image = daq.make(2)
    image.hold(4 * ROW)
    daq.put(image)
    forwarder = forward(server.endpoint, retry=1.0)
    other = forward(server.endpoint, retry=1.0)  # would take over what expired
    wait_for(lambda: states_of(ledger) == {"done": 2, "incomplete": 1, "claimed": 3})
    real = time.time
    for step in (3600.0, -3600.0, 7200.0):
        monkeypatch.setattr(time, "time", lambda step=step: real() + step)
        daq.add(round(abs(step)) + (1 if step < 0 else 0))
        time.sleep(0.7)
        assert forwarder.lookout.swept
    tries = units_of(ledger)[name_of(1), "22/0"].attempts
    assert tries <= 5, "a storm"
    assert states_of(ledger)["claimed"] >= 3, "a deadline came early"
    assert attempts_of(ledger)["taken over"] == 0
    image.mend()
    waits.mend()
    wait_for(lambda: states_of(ledger) == {"done": 15}, 20)
    forwarder.stop()
    other.stop()
    check_archive(out, ledger, daq.all)


# -- slow readers


def test_a_forwarder_that_is_stopped_for_a_while(
    daq: HandStore, serve: Serve, run: Run, out: Path, ledger: Path
) -> None:
    server = serve()
    program = run(server.endpoint)
    daq.add(1)
    wait_for(lambda: states_of(ledger)["done"] == 3, 20, [program])
    image = daq.make(2)
    image.hold(2 * ROW)
    daq.put(image)
    wait_for(lambda: states_of(ledger)["claimed"] == 3, 10, [program])
    program.send(signal.SIGSTOP)
    image.mend()
    for number in range(3, 13):
        daq.add(number)
        time.sleep(0.2)
        data = server.status()["data"]
        assert data["in_flight"] <= 32 << 20
        assert data["buffers"] <= server.memory
    time.sleep(1.0)
    program.send(signal.SIGCONT)
    wait_for(lambda: states_of(ledger) == {"done": 36}, 20, [program])
    assert program.end() == 0
    assert len(check_archive(out, ledger, daq.all)) == 108


def test_readers_that_hold_all_of_the_shared_memory(
    daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path, pool: str
) -> None:
    server = serve()
    forwarder = forward(server.endpoint, prompt=pool, prompt_memory=1 << 20)
    daq.add(1)
    wait_for(lambda: states_of(ledger) == {"done": 3})
    watching = raftwright.watch(pool, since="all", timeout=1.0)
    ccds = list(watching)
    assert ccds
    daq.add(*range(2, 8))
    wait_for(lambda: states_of(ledger) == {"done": 21})
    lost = forwarder.metrics.snapshot()["drops"]
    assert lost["pixels"] == {}
    assert sum(entry["count"] for entry in lost["preview"].values()) > 0
    for ccd in ccds:
        ccd.release()
    watching.close()
    forwarder.stop()
    check_archive(out, ledger, daq.all)


def test_shared_memory_is_made_before_the_first_image_comes(
    daq: HandStore, serve: Serve, forward: Forward, pool: str
) -> None:
    """An image that is in the DAQ already says how large boards are."""
    daq.add(1)
    forwarder = forward(serve().endpoint, prompt=pool, prompt_memory=16 << 20)
    wait_for(lambda: forwarder.pool.status()["slabs"] >= 6)
    wait_for(lambda: forwarder.pool.status()["published"] == 3)
    time.sleep(0.3)
    assert forwarder.pool.status()["slabs"] <= 9


# -- the end


def test_what_is_under_way_is_finished_when_it_is_asked_to_stop(
    daq: HandStore, serve: Serve, run: Run, out: Path, ledger: Path
) -> None:
    server = serve()
    image = daq.make(1)
    image.hold(9 * ROW)
    program = run(server.endpoint)
    wait_for(lambda: program.ready, 20, [program])
    daq.put(image)
    wait_for(lambda: states_of(ledger)["claimed"] == 3, 10, [program])
    program.send(signal.SIGTERM)
    time.sleep(0.5)
    program.send(signal.SIGTERM)
    daq.add(2)  # not taken any more
    time.sleep(0.3)
    assert program.process.poll() is None
    image.mend()
    assert program.end() == 0
    assert [one["image"] for one in program.images] == [name_of(1)]
    assert program.lines[-1]["event"] == "stopped"
    assert states_of(ledger) == {"done": 3}
    assert len(check_archive(out, ledger, daq.all)) == 9


def test_what_does_not_end_in_time_is_given_back(
    daq: HandStore, serve: Serve, forward: Forward, ledger: Path
) -> None:
    server = serve()
    image = daq.make(1)
    image.hold(9 * ROW)
    daq.put(image)
    forwarder = forward(server.endpoint, drain=0.3)
    wait_for(lambda: states_of(ledger)["claimed"] == 3)
    begun = time.monotonic()
    forwarder.stop()
    assert time.monotonic() - begun < 8
    assert states_of(ledger) == {"open": 3}
    forwarder.stop()  # is nothing
    with open_ledger(ledger) as opened:
        wanted = [(unit.key, unit.folder, unit.expected) for unit in opened.claims.units()]
        assert len(opened.claims.claim(wanted)) == 3, "they can be had at once"


def test_a_start_that_fails_leaves_nothing_open(
    daq: HandStore, serve: Serve, out: Path, forward: Forward, tmp_path: Path
) -> None:
    server = serve()
    busy = forward(server.endpoint, metrics="127.0.0.1:0", ledger=str(tmp_path / "one.db"))
    taken = busy.page.url.removeprefix("http://")
    forwarder = Forwarder(Settings(endpoint=server.endpoint, out=str(out), metrics=taken))
    with pytest.raises(RaftwrightError, match="status page"):
        forwarder.start()
    forwarder.stop()
    forwarder.stop()
    with pytest.raises(RaftwrightError):
        Forwarder(Settings(endpoint="nowhere", out=str(out)))
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        Forwarder(Settings(endpoint=server.endpoint, out=str(tmp_path / "file" / "archive")))
    assert not daq.all


# -- settings


def test_settings_come_from_a_file_and_options_go_before_it(tmp_path: Path) -> None:
    path = tmp_path / "forward.yaml"
    path.write_text("endpoint: tcp://daq:5570\nout: /archive\nmemory: 4194304\nrafts: [R22]\ndeadline: 5\n")
    settings = read_settings(path, {"memory": 8 << 20, "deadline": None, "locations": ["22/0"]})
    assert (settings.endpoint, settings.memory, settings.deadline) == ("tcp://daq:5570", 8 << 20, 5.0)
    assert (settings.rafts, settings.locations) == (["R22"], ["22/0"])
    assert settings.ledger_url == "/archive/ledger.db"
    assert read_settings(None, {"endpoint": "ipc://x", "out": "a"}).ledger_url == "a/ledger.db"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("memroy: 1", "memroy"),
        ("memory: 1000", "memory"),
        ("deadline: 0", "deadline"),
        ("receivers: 0", "receivers"),
        ("writers: two", "writers"),
        ("rafts: []", "rafts"),
        ("fill: 3000000000", "fill"),
        ("retry: .inf", "retry"),
        ("- a list", "key: value"),
        ("a: [", "YAML"),
        ("1: 2", "no such key"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "forward.yaml"
    path.write_text(text)
    with pytest.raises(FormatError, match=named) as caught:
        read_settings(path, {"endpoint": "tcp://daq:5570", "out": "/archive"})
    assert str(path) in str(caught.value)


def test_settings_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        read_settings(tmp_path / "no.yaml", {})
    with pytest.raises(StorageError):
        read_settings(tmp_path, {})
    with pytest.raises(FormatError, match="endpoint"):
        read_settings(None, {"out": "/archive"})
    assert LOCATIONS
