"""`raftwright serve` and `raftwright keys` as programs."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from raftwright.cli import main
from raftwright.daq import simulate_image, write_recording
from raftwright.stream import KeyStore
from raftwright.stream.keys import is_key
from raftwright.stream.wire import Type

SIZE = 48384
SMALL = [3, 0, 20, 0, 0, 5, 0, 14, 0, 2, 1]
REGISTERS = ",".join(map(str, SMALL))

Connect = Callable[..., Any]


class Program:
    """A running `raftwright serve --json`."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "raftwright", "serve", *arguments, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.ready = self.line()

    def line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        text = self.process.stdout.readline()
        assert text, self.process.stderr.read() if self.process.stderr else ""
        found: dict[str, Any] = json.loads(text)
        return found

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err


@pytest.fixture
def program() -> Iterator[Callable[..., Program]]:
    started: list[Program] = []

    def start(*arguments: str) -> Program:
        started.append(Program("--bind", "tcp://127.0.0.1:0", *arguments))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the program in this process."""

    def call(*arguments: str) -> Done:
        code = main(arguments)
        return Done(code, *capsys.readouterr())

    return call


def camera(*more: str) -> tuple[str, ...]:
    return ("--camera", "LSSTComCam", "--registers", REGISTERS, "--pattern", "coordinates", *more)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_camera_on_a_cadence(program: Callable[..., Program], plain: Connect, number: int) -> None:
    server = program(
        *camera("--every", "200ms", "--readout", "100ms", "--seed", "9", "--metrics", "127.0.0.1:0")
    )
    assert server.ready["event"] == "ready"
    assert server.ready["pid"] == server.process.pid
    first = server.line()
    assert first["event"] == "image"
    assert first["sources"] == 3
    assert first["bytes"] == 3 * SIZE
    data, _ = plain(server.ready["endpoints"]["data"][0]).fetch(
        first["image"], "22/0", 0, SIZE, chunk=1 << 20
    )
    expected = simulate_image("LSSTComCam", first["image"], seed=9, registers=SMALL, pattern="coordinates")
    assert data == expected.source("22/0").read(0, SIZE)
    with urllib.request.urlopen(server.ready["metrics"] + "/status", timeout=5) as page:
        status = json.load(page)
    assert status["service"] == "server"
    assert status["data"]["chunks"] == 1
    with urllib.request.urlopen(server.ready["metrics"] + "/metrics", timeout=5) as page:
        assert b"raftwright_server_bytes" in page.read()
    begun = time.monotonic()
    code, out, err = server.end(number)
    assert (code, err) == (0, "")
    assert time.monotonic() - begun < 5
    last = json.loads(out.splitlines()[-1])
    assert last["event"] == "stopped"
    assert last["data"]["bytes"] == SIZE


def test_a_server_that_is_killed_goes_on_where_it_was(
    program: Callable[..., Program], plain: Connect, tmp_path: Path
) -> None:
    arguments = camera(
        "--every", "100ms", "--readout", "50ms", "--epoch", str(tmp_path / "epoch"), "--keep", "999"
    )
    first = program(*arguments)
    names = [first.line()["image"] for _ in range(3)]
    was = plain(first.ready["endpoint"]).query("image", image=names[1])
    first.process.kill()
    first.process.wait()
    second = program(*arguments)
    assert second.ready["epoch"] == first.ready["epoch"]
    assert second.ready["session"] != first.ready["session"]
    assert second.ready["images"] >= 3
    client = plain(second.ready["endpoint"])
    assert client.query("images")["images"][:3] == names
    assert client.query("image", image=names[1]) == was


def test_recordings_that_appear(program: Callable[..., Program], plain: Connect, tmp_path: Path) -> None:
    server = program(str(tmp_path), "--for", "60s")
    assert server.ready["images"] == 0
    image = simulate_image("LSSTComCam", "CC_O_20261122_000007", registers=SMALL)
    write_recording(tmp_path / image.info.name, image, durable=False)
    told = server.line()
    assert (told["event"], told["image"]) == ("image", image.info.name)
    data, end = plain(server.ready["endpoints"]["data"][1]).fetch(
        image.info.name, "22/2", 0, SIZE, chunk=1 << 20
    )
    assert data == image.source("22/2").read(0, SIZE)
    assert end["crc32c"]
    frames = program("--frames", str(tmp_path), "--every", "10s", "--readout", "0", "--day", "20270101")
    assert frames.line()["image"] == "CC_S_20270101_000001"


def test_it_ends_by_itself_and_speaks_to_people(run: Run) -> None:
    done = run("serve", "simulated:LSSTComCam?count=2", "--bind", "tcp://127.0.0.1:0", "--for", "300ms")
    assert done.returncode == 0
    assert done.stdout.startswith("serving simulated:LSSTComCam?count=2 at tcp://127.0.0.1:")
    assert "2 images" in done.stdout
    assert done.stderr == ""


def test_faults_of_the_command_line_happen(program: Callable[..., Program], plain: Connect) -> None:
    server = program(*camera("--every", "50ms", "--readout", "0", "--faults", "die=1", "--fault-seed", "2"))
    name = server.line()["image"]
    client = plain(server.ready["endpoints"]["data"][0])
    client.pull(name, "22/0", 0, SIZE, chunk=1 << 20)
    assert server.process.wait(20) == 70


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give one of"),
        (("a", "--camera", "LSSTCam"), "give one of"),
        (("no/such/directory",), "no such directory"),
        (("--camera", "NoCam"), "NoCam"),
        (("--camera", "LSSTComCam", "--rafts", "R99"), "R99"),
        (("--camera", "LSSTComCam", "--every", "soon"), "no time"),
        (("--camera", "LSSTComCam", "--memory", "much"), "no size"),
        (("--camera", "LSSTComCam", "--registers", "1,2"), "registers"),
        (("--camera", "LSSTComCam", "--registers", "a"), "--registers"),
        (("--camera", "LSSTComCam", "--faults", "flood=1"), "flood"),
        (("--camera", "LSSTComCam", "--day", "x"), "day"),
        (("simulated:LSSTComCam", "--bind", "nowhere"), "no endpoint"),
        (("simulated:LSSTComCam", "--bind", "tcp://192.0.2.1:5570"), "cannot be bound"),
        (("simulated:LSSTComCam", "--allowed"), "--keys"),
        (("simulated:LSSTComCam", "--keys", "nobody"), "nobody"),
        (("simulated:LSSTComCam", "--data-sockets", "0"), "data-sockets"),
    ],
)
def test_what_cannot_be_served(run: Run, arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = run(
        "serve",
        *arguments,
        "--for",
        "100ms",
        *(["--key-store", str(tmp_path)] if "--keys" in arguments else []),
    )
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1, "one line, no traceback"


@pytest.mark.parametrize(
    "key",
    [
        "-Wf37^SE6-Ny=XqiUhv?2kWJ:XuXcrMAi15M5-:C",
        "--jsonh=json-h--key-store=/a----V(&5$%$R",
        "-hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh-",
    ],
)
def test_a_key_that_looks_like_options_is_a_key(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """One key in 85 begins with `-`."""
    store = f"--key-store={tmp_path}"
    for at, command in enumerate(("add", "allow")):
        words = ["keys", command, "--json", f"dc0{at}", key]
        done = run(*words, store)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["public"] == key
        assert run("keys", command, store, f"dc1{at}", "--", key).returncode == 0
        assert run("keys", command, store, "--jason", "dc20", key).returncode == 2
    assert run("keys", "show", "dc00", store).stdout.strip() == key
    monkeypatch.chdir(tmp_path)
    option = "--key-store=" + "x" * 28
    assert is_key(option)
    assert run("keys", "add", "dc00", key, option).returncode == 0
    assert run("keys", "show", "dc00", option).stdout.strip() == key


def test_keys_from_making_them_to_using_them(
    program: Callable[..., Program], run: Run, plain: Connect, tmp_path: Path
) -> None:
    store = ("--key-store", str(tmp_path))
    for name in ("server", "client"):
        assert run("keys", "new", name, *store).returncode == 0
    public = run("keys", "show", "client", *store).stdout.strip()
    assert run("keys", "allow", "dc01", public, *store).returncode == 0
    listed = json.loads(run("keys", "list", *store, "--json").stdout)
    assert [entry["name"] for entry in listed["keys"]] == ["client", "server"]
    assert listed["allowed"] == {"dc01": public}
    assert "secret" not in json.dumps(listed).replace('"secret": true', "")
    server = program(*camera("--keys", "server", "--allowed", *store))
    pair, server_key = KeyStore(tmp_path).secret("client"), KeyStore(tmp_path).public("server")
    client = plain(
        server.ready["endpoint"],
        CURVE_PUBLICKEY=pair.public.encode(),
        CURVE_SECRETKEY=pair.secret.encode(),
        CURVE_SERVERKEY=server_key.encode(),
    )
    assert client.ask(Type.PING)[0].type is Type.PONG
    assert run("keys", "add", "summit", server_key, *store).returncode == 0
    assert run("keys", "show", "summit", *store).stdout.strip() == server_key
    assert run("keys", "add", "client", server_key, *store).returncode == 4
    assert run("keys", "revoke", "dc01", *store).returncode == 0
    assert run("keys", "revoke", "dc01", *store).returncode == 1
    assert run("keys", "new", "server", *store).returncode == 4
    assert run("keys", "new", "../x", *store).returncode == 2
    os.chmod(tmp_path / "server.secret", 0o644)
    done = run("serve", "simulated:LSSTComCam", "--keys", "server", *store)
    assert done.returncode == 1
    assert "chmod 600" in done.stderr


def test_too_few_files_may_be_open() -> None:
    """libzmq would end the process in the middle of something."""
    command = f"ulimit -n 40 && exec {shlex.quote(sys.executable)} -m raftwright serve"
    done = subprocess.run(
        ["sh", "-c", f"{command} simulated:LSSTComCam --bind tcp://127.0.0.1:0 --for 1s"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "raftwright: error: only 40 files can be open, 128 are needed; raise it (ulimit -n)\n"
    )
