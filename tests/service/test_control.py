"""The control socket: who asks is answered, once, whatever was asked."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import pytest
import zmq
from odd import Odd, wait_for

from raftwright.errors import NotFoundError, UsageError
from raftwright.service.control import FORMAT, ask
from raftwright.stream.keys import KeyStore


@pytest.fixture
def odd(endpoint: str) -> Iterator[Odd]:
    with Odd(control=endpoint, drain=0.5) as service:
        yield service


class Asker:
    """A REQ or DEALER socket that sends what it is given."""

    def __init__(self, endpoint: str, kind: int = zmq.REQ) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(kind)
        self.socket.linger = 0
        self.socket.connect(endpoint)

    def send(self, body: bytes) -> None:
        self.socket.send(body)

    def answer(self, seconds: float = 5.0) -> dict[str, Any]:
        assert self.socket.poll(int(seconds * 1000)), "no answer"
        return dict(json.loads(self.socket.recv_multipart()[-1]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.destroy(linger=0)


def test_a_command_and_its_answer(odd: Odd, endpoint: str) -> None:
    answer = ask(endpoint, "disable")
    assert (answer.ok, answer.state, answer.service, answer.reason) == (True, "DISABLED", "odd", "")
    assert answer.data["version"]
    answer = ask(endpoint, "disable")
    assert (answer.ok, answer.state) == (False, "DISABLED")
    assert answer.reason == "disable is for ENABLED, and the state is DISABLED"


def test_d015_health_without_any_optional_field(odd: Odd, endpoint: str) -> None:
    for kind in (zmq.REQ, zmq.DEALER):
        with Asker(endpoint, kind) as asker:
            asker.send(b'{"command":"health"}')
            answer = asker.answer()
            assert answer["ok"]
            assert answer["data"]["healthy"] is True
            assert answer["format"] == FORMAT


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no request"),
        (b"\xff\xfe", "no request"),
        (b"[1]", "no request"),
        (b"{}", "command"),
        (b'{"command":""}', "command"),
        (b'{"command":5}', "command"),
        (b'{"command":"health","arguments":[]}', "arguments"),
        (b'{"command":"health","target":"other"}', "target"),
        (b'{"command":"health","format":"raftwright-control/9"}', "raftwright-control/9"),
        (b'{"command":"' + b"x" * 70 + b'"}', "command"),
        (b'{"command":"nonsense"}', "no command 'nonsense'"),
        (b"[" * 5000, "no request"),
    ],
)
def test_d014_what_is_no_request_is_answered_too(odd: Odd, endpoint: str, body: bytes, said: str) -> None:
    with Asker(endpoint) as asker:
        asker.send(body)
        answer = asker.answer()
        assert answer["ok"] is False
        assert said in answer["reason"]
    assert ask(endpoint, "health").ok, "and the next one as well"


def test_d014_answers_say_whether_it_was_done(odd: Odd, endpoint: str) -> None:
    assert ask(endpoint, "fail").reason == "not today"
    assert ask(endpoint, "burst").reason == "RuntimeError: a bug"
    assert not ask(endpoint, "reload").ok


def test_d014_arguments_are_checked_before_anything_is_done(odd: Odd, endpoint: str) -> None:
    """D014: and nothing is half made."""
    for command, arguments, said in (
        ("bring", {"detector": "R22_S11", "raft": "R22"}, "bring takes no 'raft'; it takes detector"),
        ("bring", {"detector": ["R22_S11"]}, "detector has to be text, a number, or true or false"),
        ("bring", {"detector": None}, "detector has to be text"),
        ("disable", {"why": "just so"}, "disable takes no 'why'"),
        ("fetch", {}, "no command 'fetch'; there are hang, fail, burst, bring"),
    ):
        answer = ask(endpoint, command, arguments)
        assert not answer.ok
        assert said in answer.reason
    assert odd.brought == []
    assert odd.enabled
    assert ask(endpoint, "bring", {"detector": "R22_S11"}).data == {"brought": 1}


def test_d004_health_is_answered_while_a_command_hangs(odd: Odd, endpoint: str) -> None:
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(ask, endpoint, "hang")
        time.sleep(0.1)
        for command in ("health", "status", "faults"):
            begun = time.monotonic()
            assert ask(endpoint, command).ok
            assert time.monotonic() - begun < 1.0
        odd.release.set()
        assert hanging.result(5).data == {"hung": True}


def test_d075_the_answer_comes_when_it_is_done(odd: Odd, endpoint: str) -> None:
    odd.busy = {"one"}
    threading.Timer(0.3, odd.busy.clear).start()
    begun = time.monotonic()
    assert ask(endpoint, "disable").state == "DISABLED"
    assert time.monotonic() - begun > 0.25


def test_d076_everyone_gets_his_own_answers(odd: Odd, endpoint: str) -> None:
    def many(who: int) -> None:
        with Asker(endpoint, zmq.DEALER) as asker:
            asked = {f"{who}-{n}": ("health", "status", "nonsense")[n % 3] for n in range(30)}
            for number, command in asked.items():
                asker.send(json.dumps({"command": command, "id": number}).encode())
                if command != "health":
                    time.sleep(0.01)  # more than eight at a time are refused
            got = [asker.answer() for _ in asked]
            assert {answer["id"]: answer["command"] for answer in got} == asked

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(many, range(4)))


def test_too_many_at_a_time_are_refused_and_not_kept(odd: Odd, endpoint: str) -> None:
    with Asker(endpoint, zmq.DEALER) as asker:
        for _ in range(12):
            asker.send(b'{"command":"hang"}')
        refused = [asker.answer() for _ in range(4)]
        assert {answer["ok"] for answer in refused} == {False}
        assert "8 commands are under way" in refused[0]["reason"]
        odd.release.set()
        assert [asker.answer()["ok"] for _ in range(8)] == [True] * 8


def test_d065_a_thousand_commands_leave_nothing(odd: Odd, endpoint: str) -> None:
    with Asker(endpoint) as asker:

        def some(n: int) -> None:
            for _ in range(n):
                asker.send(b'{"command":"faults"}')
                assert asker.answer()["ok"]

        some(20)
        before = len(os.listdir("/proc/self/fd"))
        some(1000)
        wait_for(lambda: not [t for t in threading.enumerate() if t.name == "odd faults"])
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_huge_message_is_not_taken(odd: Odd, endpoint: str) -> None:
    with Asker(endpoint, zmq.DEALER) as asker:
        asker.send(b'{"command":"health","id":"' + b"x" * 100_000 + b'"}')
        assert not asker.socket.poll(300)
    assert ask(endpoint, "health").ok


def test_who_goes_away_harms_nobody(odd: Odd, endpoint: str) -> None:
    for _ in range(5):
        with Asker(endpoint, zmq.DEALER) as asker:
            asker.send(b'{"command":"hang"}')
            time.sleep(0.02)
    odd.release.set()
    assert ask(endpoint, "health").ok


def test_commands_under_way_are_answered_at_the_end(endpoint: str) -> None:
    service = Odd(control=endpoint).start()
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(ask, endpoint, "hang")
        time.sleep(0.2)
        threading.Timer(0.2, service.release.set).start()
        service.stop()
        assert hanging.result(5).data == {"hung": True}


def test_nobody_there_is_known_at_once(endpoint: str) -> None:
    begun = time.monotonic()
    for place in (endpoint, "tcp://127.0.0.1:1"):
        with pytest.raises(NotFoundError, match="nobody listens"):
            ask(place, "health")
    assert time.monotonic() - begun < 4
    with pytest.raises(UsageError, match="no endpoint"):
        ask("nonsense", "health")


# -- keys


def test_beyond_this_machine_it_wants_keys(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"life\.keys"):
        Odd(control="tcp://0.0.0.0:0").start()
    with pytest.raises(NotFoundError):
        Odd(control="tcp://127.0.0.1:0", keys="nobody", key_store=str(tmp_path)).start()


def test_only_clients_that_are_allowed_command(tmp_path: Path) -> None:
    store = KeyStore(tmp_path / "keys")
    server, friend, stranger = (store.new(name) for name in ("archive", "friend", "stranger"))
    store.allow("friend", friend.public)
    with Odd(control="tcp://127.0.0.1:0", keys="archive", key_store=str(store.directory)) as service:
        assert service.control is not None
        place = service.control.endpoint
        assert ask(place, "health", keys=friend, server_key=server.public).ok
        for pair, key in ((stranger, server.public), (friend, stranger.public), (None, "")):
            with pytest.raises(NotFoundError):
                ask(place, "disable", keys=pair, server_key=key, timeout=0.5)
        assert service.enabled
