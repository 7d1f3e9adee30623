"""A Rucio server that is away, slow or read-only: registrations wait, and none is given up on."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from endpoint_stand import Stand, raws, wait_for
from rucio_server import SCOPE, Server

from raftwright.backbone.receiving import Ingest, Register
from raftwright.backbone.rucio import Entry, Registrar, RucioSettings

numbers = itertools.count(50_001)


def options(server: Server, **more: Any) -> dict[str, Any]:
    return {
        "rse": "SUMMIT",
        "scope": SCOPE,
        "pfn": f"file://localhost:0{server.home}/SUMMIT",
        "config": str(server.config),
        "timeout": 2.0,
        **more,
    }


def ingest(server: Server, **more: Any) -> Ingest:
    return Ingest(plugin="rucio", backoff=0.1, longest=0.5, retries=0, options=options(server), **more)


def obsid() -> str:
    return f"MN_O_20261122_{next(numbers):06}"


def registered(server: Server, image: str, content: dict[str, bytes]) -> None:
    client = server.client()
    dataset = f"Dataset/MiniCam/raw/Obs/20261122/{image}"
    assert {each["name"] for each in client.list_content(SCOPE, dataset)} == set(content)
    assert client.get_did(SCOPE, dataset)["open"] is False


def test_a_server_that_is_away(server: Server, stand: Stand) -> None:
    """D159: files are stored meanwhile; registrations wait in the register, through a new start too, and are
    told when they are old."""
    image = obsid()
    content = raws(image)
    server.stop()
    endpoint = stand.start(ingest(server, overdue=0.3), settle=0)
    for name, data in content.items():
        stand.hand_over(name, data)
    wait_for(lambda: len(stand.stored()) == len(content))
    wait = f"{len(content)} files wait, the oldest for"
    wait_for(lambda: any(wait in each for each in endpoint.problems()), said=endpoint.problems)
    assert any("ConnectionError" in each for each in endpoint.problems())
    endpoint.stop(5.0)
    with stand.register() as register:
        assert register.waiting("rucio")[0] == len(content)
        assert register.dead_letters() == []
    again = stand.start(ingest(server), settle=0)
    time.sleep(0.5)
    server.start()
    wait_for(lambda: again.idle, 30.0, again.status)
    registered(server, image, content)
    with stand.register() as register:
        assert register.counts() == {"rucio": {"SUCCESS": len(content)}}


def test_a_server_that_stops_answering(server: Server, stand: Stand) -> None:
    """D159: nothing waits for it without end, and it goes on where it was."""
    image = obsid()
    content = raws(image)
    endpoint = stand.start(ingest(server), settle=0)
    server.pause()
    try:
        for name, data in content.items():
            stand.hand_over(name, data)
        wait_for(
            lambda: any("imed out" in each or "imeout" in each for each in endpoint.problems()),
            20.0,
            endpoint.problems,
        )
    finally:
        server.go_on()
    wait_for(lambda: endpoint.idle, 30.0, endpoint.status)
    registered(server, image, content)


def test_a_server_that_is_read_only(server: Server, stand: Stand) -> None:
    """D159: each request that writes is refused; no file is given up on, though none may be tried twice."""
    image = obsid()
    content = raws(image)
    server.client().whoami()  # a token, which a server that is read-only cannot give
    server.stop()
    text = server.config.read_text()
    server.config.write_text(
        text.replace("/rucio.db", "/rucio.db?mode=ro&uri=true").replace("sqlite:///", "sqlite:///file:")
    )
    try:
        server.start()
        endpoint = stand.start(ingest(server), settle=0)
        for name, data in content.items():
            stand.hand_over(name, data)
        wait_for(lambda: len(stand.stored()) == len(content))
        wait_for(lambda: any("rucio:" in each for each in endpoint.problems()), 20.0, endpoint.status)
        time.sleep(1.0)
        with stand.register() as register:
            assert register.waiting("rucio")[0] == len(content), (register.counts(), register.dead_letters())
    finally:
        server.stop()
        server.config.write_text(text)
        server.start()
    wait_for(lambda: endpoint.idle, 30.0, endpoint.status)
    registered(server, image, content)


@pytest.mark.parametrize("broken", ["all", "writing"])
def test_a_server_that_fails_without_a_word(tmp_path: Path, broken: str) -> None:
    """D159: 500, and no word of what is wrong. No file is given up on, not one that comes alone either."""
    pytest.importorskip("rucio.client", reason="rucio-clients are not installed")
    (tmp_path / "alone.dat").write_bytes(b"content")
    with failing_server(writing_only=broken == "writing") as url:
        config = tmp_path / "rucio.cfg"
        config.write_text(
            f"[client]\nrucio_host = {url}\nauth_host = {url}\nauth_type = userpass\nusername = root\n"
            f"password = x\naccount = root\nrequest_retries = 0\nauth_token_file_path = {tmp_path}/token\n"
        )
        options = tmp_path / "options.yaml"
        options.write_text(f"rse: S\nscope: raw\npfn: file://localhost:0/S\nconfig: {config}\n")
        words = ["register", "--options", options, "--root", tmp_path, "alone.dat", "--patience", "4s"]
        done = subprocess.run(
            [sys.executable, "-m", "raftwright", "rucio", *map(str, words), "--json"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 5, done.stderr
    found = json.loads(done.stdout)
    assert (found["left"], found["failed"]) == (1, []), found
    with Register(str(tmp_path / ".rucio" / "register.db"), str(tmp_path)) as register:
        assert register.dead_letters() == []
        said = [(each.state, each.message) for each in register.events(1)]
        assert any("http status code: 500" in message for _, message in said), said


@contextlib.contextmanager
def failing_server(*, writing_only: bool) -> Iterator[str]:
    """Gives tokens; 500 for all else, or for what writes."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(200 if self.path.startswith("/auth") else 500)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._answer(200 if writing_only and "/dids/bulkmeta" in self.path else 500)

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("X-Rucio-Auth-Token", "root-token")
            self.send_header("Content-Type", "application/x-json-stream")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5.0)


def test_killed_while_it_registers(server: Server, stand: Stand) -> None:
    """F12: whatever step was reached, the next process takes all of them again; nothing is there twice."""
    image = obsid()
    content = raws(image)
    for name, data in content.items():
        path = stand.storage / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    options_file = stand.path / "rucio.yaml"
    options_file.write_text(json.dumps(options(server, chunk=1, rules=[{"rses": "USDF"}])))
    command = [
        *(sys.executable, "-m", "raftwright", "rucio", "register", "--options", str(options_file)),
        *("--root", str(stand.storage), "20261122", "--json"),
    ]
    for pause in (1.0, 1.4, 1.8):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(pause)
        process.kill()
        process.wait()
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    registered(server, image, content)
    assert len(list(server.client().list_did_rules(SCOPE, f"Dataset/MiniCam/raw/Obs/20261122/{image}"))) == 1
    with Register(stand.storage / ".rucio" / "register.db", stand.storage) as register:
        assert register.counts() == {"rucio": {"SUCCESS": len(content)}}


def test_rules_that_are_not_satisfied_are_told_with_their_age(server: Server, stand: Stand) -> None:
    """D159: nothing transfers in this test, so the rule stands; an operator sees it."""
    name = f"stuck-{next(numbers)}"
    dataset = f"Dataset/X/raw/Obs/20261122/{name}"
    registrar = Registrar(msgspec.convert(options(server, rules=[{"rses": "USDF"}]), RucioSettings))
    registrar.register([Entry(id=1, scope=SCOPE, name=name, bytes=1, adler32="00000001", dataset=dataset)])
    (found,) = [each for each in registrar.pending() if each.dataset == dataset]
    assert (found.state, found.rses, found.left) == ("REPLICATING", "USDF", 1)
    assert 0 <= found.age < 100
    assert not [each for each in registrar.pending(3600.0) if each.dataset == dataset]

    options_file = stand.path / "rucio.yaml"
    options_file.write_text(json.dumps(options(server)))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "raftwright", "rucio", "status", "--options", str(options_file)),
            *("--root", str(stand.storage), "--json"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert dataset in {each["dataset"] for each in told["rules"]}
    assert told["server"].startswith("41")
