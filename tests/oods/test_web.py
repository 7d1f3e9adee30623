"""The OODS over HTTP: what it answers, whom, and whatever it is asked."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from oods_stand import Site, wait_for

from raftwright.errors import FormatError, StorageError
from raftwright.oods.inputs import Directory
from raftwright.oods.web import previews, serving
from raftwright.oods.web.catalogue import Catalogue
from raftwright.oods.web.previews import BusyError, Previews
from raftwright.oods.web.serving import WebServer
from raftwright.oods.web.settings import Web
from raftwright.rawfile.standing import digest

OBSID = "MC_O_20261122_000123"
TOKEN = "a-token-of-some-length"


class Answer:
    """Of the server."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Asks a server."""

    def __init__(self, server: WebServer) -> None:
        self.server = server
        self.host = server.url.removeprefix("http://")

    def get(self, path: str, method: str = "GET", **headers: str) -> Answer:
        connection = http.client.HTTPConnection(self.host, timeout=30)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, headers=named)
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()


@pytest.fixture
def filled(site: Site) -> Site:
    """With an image that is ingested."""
    site.image()
    site.ingested(3)
    return site


@pytest.fixture
def client(filled: Site) -> Iterator[Client]:
    server = WebServer(filled.ledger, "oods", Web())
    yield Client(server)
    server.close()


def test_images_are_listed_in_pages(site: Site) -> None:
    for number in (1, 2, 3):
        site.image(number)
    site.ingested(9)
    server = WebServer(site.ledger, "oods", Web())
    client = Client(server)
    first = client.get("/images?limit=2").json
    assert [one["seqnum"] for one in first["images"]] == [3, 2]
    assert {(one["expected"], one["ingested"]) for one in first["images"]} == {(3, 3)}
    second = client.get(f"/images?limit=2&before={first['before']}").json
    assert [one["seqnum"] for one in second["images"]] == [1]
    assert second["before"] is None
    assert len(client.get("/images?instrument=lsstcam&dayobs=20261122").json["images"]) == 3
    assert client.get("/images?dayobs=20261121").json["images"] == []
    server.close()


def test_files_headers_and_the_file_itself(client: Client, filled: Site) -> None:
    listed = client.get(f"/images/{OBSID}").json
    assert [one["detector"] for one in listed] == ["R22_S10", "R22_S11", "R22_S12"]
    one = client.get(f"/images/{OBSID}/R22_S11").json
    assert one == listed[1]
    path = Path(one["uri"].removeprefix("file://"))
    got = client.get(f"/images/{OBSID}/R22_S11/file")
    assert got.body == path.read_bytes()
    assert got.headers["content-type"] == "application/fits"
    assert got.headers["x-crc32c"] == one["crc32c"]
    part = client.get(f"/images/{OBSID}/R22_S11/file", Range="bytes=10-19")
    assert (part.status, part.body) == (206, got.body[10:20])
    header = client.get(f"/images/{OBSID}/R22_S11/header").json
    assert (header["OBSID"], header["EXPTIME"], header["RAFTBAY"]) == (OBSID, 30, "R22")
    path.with_suffix(".json").unlink()
    assert client.get(f"/images/{OBSID}/R22_S11/header").json["OBSID"] == OBSID, "then that of the file"


def test_pictures_show_the_pixels(client: Client) -> None:
    from PIL import Image

    one = client.get(f"/images/{OBSID}/R22_S11/preview.png?side=200")
    assert one.headers["content-type"] == "image/png"
    picture = Image.open(io.BytesIO(one.body))
    picture.load()
    assert 10 < max(picture.size) < 700
    assert len(np.unique(np.asarray(picture.convert("L")))) > 8, "it is not blank"
    whole = Image.open(io.BytesIO(client.get(f"/images/{OBSID}/preview.png").body))
    assert whole.size != picture.size
    begun = time.monotonic()
    again = client.get(f"/images/{OBSID}/R22_S11/preview.png?side=200")
    assert again.body == one.body
    assert time.monotonic() - begun < 1.0, "remembered"


def test_presence_has_the_shape_that_prompt_processing_asks_for(client: Client, filled: Site) -> None:
    """D165: reads change nothing; spelling of the instrument does not matter; snaps count from 0."""
    group = quote("2026-11-23T01:01:55.123", safe="")
    for _ in range(2):
        found = client.get(f"/presence/lsstcam/{group}/0/R22_S11").json
        assert set(found) == {"error", "present", "uri"}
        assert (found["error"], found["present"]) == (False, True)
        assert Path(found["uri"].removeprefix("file://")).is_file()
    absent = client.get(f"/presence/LSSTCam/{group}/1/R22_S11")
    assert (absent.status, absent.json) == (200, {"error": False, "present": False})
    assert client.get(f"/presence/LSSTCam/{group}/0/R01_S11").json == {"error": False, "present": False}
    for path in (f"/presence/LSSTCam/{group}/0/R22_S99", f"/presence/nocam/{group}/0/R22_S11"):
        bad = client.get(path)
        assert (bad.status, bad.json["error"]) == (400, True)
        assert bad.json["message"]


def test_presence_knows_all_205_detectors(client: Client) -> None:
    """D165: corner sensors are asked for like the others."""
    from raftwright.camera import camera

    names = [detector.name for detector in camera("LSSTCam").detectors]
    assert len(names) == 205
    assert {client.get(f"/presence/LSSTCam/g/0/{name}").status for name in names} == {200}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/images/MC_O_20261122_000999", 404),
        (f"/images/{OBSID}/R01_S11/file", 404),
        ("/images/../../etc/passwd", 404),
        ("/images/..%2f..%2fetc%2fpasswd", 404),
        ("/images/x", 400),
        (f"/images/{OBSID}/R22_S11/preview.png?side=1000000", 400),
        ("/images?limit=100000", 400),
        ("/images?instrument=%00", 400),
        ("/nothing", 404),
    ],
)
def test_what_is_not_there_is_one_sentence(client: Client, path: str, status: int) -> None:
    answer = client.get(path)
    assert answer.status == status
    assert answer.json["error"] is True
    assert "\n" not in answer.json["message"]


def test_it_changes_nothing(client: Client) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        answer = client.get(f"/images/{OBSID}/R22_S11/file", method)
        assert (answer.status, answer.json["error"]) == (405, True)


def test_a_file_that_is_gone(client: Client, filled: Site) -> None:
    for path in filled.raws.root.rglob("*R22_S11*"):
        path.unlink()
    for what in ("file", "header", "preview.png"):
        assert client.get(f"/images/{OBSID}/R22_S11/{what}").status == 404
    group = quote("2026-11-23T01:01:55.123", safe="")
    assert client.get(f"/presence/lsstcam/{group}/0/R22_S11").json == {"error": False, "present": False}
    assert client.get(f"/presence/lsstcam/{group}/0/R22_S10").json["present"] is True


def test_heads(client: Client) -> None:
    """What has a size is asked for it before it is fetched."""
    for path in ("/", "/images", f"/images/{OBSID}/R22_S11/file", "/openapi.json"):
        whole, head = client.get(path), client.get(path, "HEAD")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == str(len(whole.body))
        assert head.headers["content-type"] == whole.headers["content-type"]
    assert client.get(f"/images/{OBSID}/R01_S11/file", "HEAD").status == 404
    assert client.get("/images?limit=0", "HEAD").status == 400


def test_a_parameter_that_there_is_not(client: Client) -> None:
    """It would be no filter, and the answer a wrong one."""
    for path in ("/images?day_obs=20261122", "/?x=1", f"/images/{OBSID}?detector=R22_S11"):
        answer = client.get(path)
        assert (answer.status, answer.json["error"]) == (400, True)
        assert "is no parameter" in answer.json["message"]
    assert client.get("/images?limit=1&limit=2").json["message"] == "limit is given twice; give it once"
    assert client.get("/images/x").json["message"].endswith("write it as MC_O_20261122_000123")
    assert "'R22_S99'" in client.get(f"/images/{OBSID}/R22_S99").json["message"]
    assert "/openapi.json" in client.get("/nothing").json["message"]


def test_ranges(client: Client) -> None:
    """One that is none is as good as none, as HTTP has it; many small ones are not answered one by one."""
    where = f"/images/{OBSID}/R22_S11/file"
    for asked, status, size in (
        ("bytes=0-9", 206, 10),
        ("bytes=-7", 206, 7),
        ("bytes= 0-0 , 2-3", 206, None),
        ("bytes=99999999999-", 416, 0),
        ("bytes=abc", 200, None),
        ("bytes=-", 200, None),
        ("items=0-1", 200, None),
        ("bytes=1-99999999999999999999999999", 200, None),
        ("bytes=" + ",".join(f"{n}-{n}" for n in range(0, 2000, 2)), 200, None),
    ):
        answer = client.get(where, Range=asked)
        assert answer.status == status, asked[:40]
        assert size is None or len(answer.body) == size, asked
        assert status != 200 or answer.body[:9] == b"SIMPLE  ="


def test_a_guider_has_a_file_too(site: Site) -> None:
    site.image()
    guider = site.raws.guider()
    shutil.copy(guider, site.path / guider.name)
    drop = site.path / "drop"
    drop.mkdir()
    guider.rename(drop / guider.name)
    site.ingested(4, directories=[Directory(path=str(drop), settle=0.1, every=0.1)])
    server = WebServer(site.ledger, "oods", Web())
    client = Client(server)
    where = f"/images/{OBSID}/R00_SG0"
    assert client.get(f"{where}/file?kind=guider").body == (site.path / guider.name).read_bytes()
    assert client.get(f"{where}/header?kind=guider").json["N_STAMPS"] == 3
    assert client.get(where).status == 404
    assert client.get(f"{where}?kind=guider").json["kind"] == "guider"
    assert client.get(f"{where}?kind=other").status == 400
    server.close()


def test_the_newest_version_whatever_came_first(site: Site) -> None:
    """A later version that was found before the first one is what is read, listed and sent."""
    (first, *_) = site.image()
    second = first.with_name(first.name.replace(".fits", ".v2.fits"))
    drop = site.path / "drop"
    drop.mkdir()
    (later, *_) = site.raws.image(OBSID, seed=8, root=site.path / "later")
    later.rename(drop / second.name)
    for path in site.raws.root.rglob(f"{first.stem}*"):
        path.rename(site.path / path.name)
    service = site.oods(directories=[Directory(path=str(drop), settle=0.1, every=0.1)], archive=False)
    site.ingested(1, service)
    (site.path / first.with_suffix(".json").name).rename(drop / first.with_suffix(".json").name)
    (site.path / first.name).rename(drop / first.name)
    site.ingested(2, service)
    server = WebServer(site.ledger, "oods", Web())
    client = Client(server)
    (one,) = client.get(f"/images/{OBSID}").json
    assert one["uri"].endswith(".v2.fits")
    content = (drop / second.name).read_bytes()
    assert client.get(f"/images/{OBSID}/{one['detector']}/file").body == content
    assert one["crc32c"] == digest(drop / second.name).crc32c
    group = quote("2026-11-23T01:01:55.123", safe="")
    found = client.get(f"/presence/lsstcam/{group}/0/{one['detector']}").json
    assert found == {"error": False, "present": True, "uri": one["uri"]}
    server.close()


def test_a_file_of_another_size_is_not_given(client: Client, filled: Site) -> None:
    (path,) = filled.raws.root.rglob("*R22_S11.fits")
    with path.open("ab") as stream:
        stream.write(b" ")
    answer = client.get(f"/images/{OBSID}/R22_S11/file")
    assert (answer.status, answer.json["error"]) == (500, True)
    assert "that were ingested" in answer.json["message"]


def test_a_file_that_is_broken(client: Client, filled: Site) -> None:
    (path,) = filled.raws.root.rglob("*R22_S11.fits")
    path.write_bytes(path.read_bytes()[:5000])
    answer = client.get(f"/images/{OBSID}/R22_S11/preview.png")
    assert answer.status == 500
    assert "R22_S11" in answer.json["message"]


def test_tokens(filled: Site) -> None:
    """None, a wrong one, another scheme, the right one."""
    server = WebServer(filled.ledger, "oods", Web(tokens=[TOKEN]))
    client = Client(server)
    for headers in ({}, {"Authorization": "Bearer no"}, {"Authorization": f"Basic {TOKEN}"}):
        answer = client.get("/images", **headers)
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert TOKEN not in answer.body.decode()
    assert client.get("/images", Authorization="Bearer \xff\xfe").status == 401
    assert client.get("/images", Authorization=f"Bearer {TOKEN}").status == 200
    assert client.get("/openapi.json").status == 401
    told = client.get("/openapi.json", Authorization=f"Bearer {TOKEN}").json
    assert told["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    server.close()


def test_settings_that_would_answer_everybody() -> None:
    with pytest.raises(FormatError, match="tokens, or say open"):
        Web(listen="0.0.0.0:8080")
    with pytest.raises(FormatError, match="no HOST:PORT"):
        Web(listen="8080")
    with pytest.raises(FormatError, match="16 printable"):
        Web(tokens=["short"])
    assert Web(listen="0.0.0.0:8080", tokens=[TOKEN]).address == ("0.0.0.0", 8080)
    assert Web(listen="[::1]:80").address == ("::1", 80)


def test_an_address_that_is_taken(filled: Site) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(StorageError, match=r"oods\.web\.listen"):
            WebServer(filled.ledger, "oods", Web(listen=f"127.0.0.1:{other.getsockname()[1]}"))


def test_clients_that_say_nothing_hold_nobody_up(client: Client) -> None:
    host, _, port = client.host.partition(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(40)]
    for one in silent[:20]:
        one.sendall(b"GET /images HTT")
    assert client.get("/images").status == 200
    for one in silent:
        one.close()


def test_the_server_ends_with_the_service(filled: Site) -> None:
    filled.started[0].stop()
    service = filled.oods(web=Web())
    assert service.web is not None
    url = service.report()["web"]
    assert Client(service.web).get("/").json["repository"] == "oods"
    service.stop()
    with pytest.raises(OSError):  # noqa: PT011 - refused, reset: whatever the system says
        http.client.HTTPConnection(url.removeprefix("http://"), timeout=2).request("GET", "/")
    assert not [thread for thread in threading.enumerate() if thread.name == "oods web"]


def test_pictures_are_drawn_a_few_at_a_time_and_bounded(
    filled: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raftwright.oods.web import previews as module

    monkeypatch.setattr(module, "_WAIT", 0.05)
    drawn, go = threading.Event(), threading.Event()

    def slow(paths: Any, title: str, side: int) -> bytes:
        drawn.set()
        go.wait(10)
        return bytes(600)

    monkeypatch.setattr(module, "_draw", slow)
    paths = sorted(filled.raws.root.rglob("*.fits"))
    pictures = Previews(1, 1000)
    thread = threading.Thread(target=pictures.png, args=([paths[0]], "a", 100))
    thread.start()
    drawn.wait(10)
    with pytest.raises(BusyError, match="come again"):
        pictures.png([paths[1]], "b", 100)
    go.set()
    thread.join()
    for number in range(5):
        pictures.png([paths[0]], str(number), 100)
    assert pictures.bytes <= 1000


def test_instruments_by_any_name(filled: Site) -> None:
    catalogue = Catalogue(filled.ledger, "oods")
    assert catalogue.instrument("COMCAM") == catalogue.instrument("LSSTComCam") == "LSSTComCam"
    assert catalogue.instrument(" latiss ") == "LATISS"


def test_whatever_is_asked(filled: Site) -> None:
    """Every operation of its own OpenAPI document, with what fits and what does not."""
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    from raftwright.oods.web.app import make_app

    app = make_app(Catalogue(filled.ledger, "oods"), Previews(2, 1 << 20), Web())
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    asked: dict[str, int] = {}
    most = int(os.environ.get("RAFTWRIGHT_FUZZ_EXAMPLES", "25"))

    for operation in schema.get_all_operations():
        _run(operation.ok(), most, asked)
    assert set(asked) >= {"/", "/images", "/images/{obsid}", "/images/{obsid}/{detector}/file"}
    assert min(asked.values()) > 0


def _run(operation: Any, most: int, asked: dict[str, int]) -> None:
    from hypothesis import HealthCheck, Phase, given, settings
    from schemathesis.specs.openapi.checks import positive_data_acceptance  # an unknown instrument is 400

    @settings(
        max_examples=most,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
        database=None,
    )
    @given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        asked[operation.path] = asked.get(operation.path, 0) + 1
        case.call_and_validate(excluded_checks=[positive_data_acceptance])

    ask()


def test_a_link_leads_nowhere(client: Client, filled: Site) -> None:
    """Whoever can write into the archive cannot have files of others read."""
    secret = filled.path / "secret.json"
    secret.write_text('{"password": "x"}')
    path = Path(filled.rows("ingested")[0].path)
    path.with_suffix(".json").unlink()
    path.with_suffix(".json").symlink_to(secret)
    where = f"/images/{OBSID}/R22_S10"
    assert "password" not in client.get(f"{where}/header").json
    path.unlink()
    path.symlink_to(secret)
    for what in ("file", "header", "preview.png"):
        answer = client.get(f"{where}/{what}")
        assert (answer.status, answer.json["error"]) == (404, True)
        assert b"password" not in answer.body


def test_who_connects_and_asks_nothing_holds_no_place(filled: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_HEAD", 1.0)
    monkeypatch.setattr(serving, "_LOOK", 0.1)
    server = WebServer(filled.ledger, "oods", Web(requests=4))
    client = Client(server)
    host, port = client.host.split(":")
    held = [socket.create_connection((host, int(port)), timeout=10) for _ in range(6)]
    held[0].sendall(b"GET / HTTP/1.1\r\n")  # and never a second line
    assert client.get("/").status == 503
    for one in held:
        while one.recv(1000):
            pass
        one.close()
    assert client.get("/").status == 200
    server.close()
    alone = WebServer(filled.ledger, "oods", Web(requests=1))
    assert Client(alone).get("/").status == 200, "one at a time is one"
    alone.close()


def test_who_does_not_take_the_answer_is_let_go(filled: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_UNREAD", 1.0)
    monkeypatch.setattr(serving, "_LOOK", 0.1)
    path = Path(filled.rows("ingested")[0].path)
    with path.open("ab") as stream:
        stream.truncate(100_000_000)
    server = WebServer(filled.ledger, "oods", Web())
    client = Client(server)
    host, port = client.host.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as held:
        held.sendall(f"GET /images/{OBSID}/R22_S10/file HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        time.sleep(2.5)
        got = 0
        with contextlib.suppress(ConnectionResetError):
            while piece := held.recv(1 << 20):
                got += len(piece)
        assert got < 100_000_000
    server.close()


def test_a_header_that_is_no_json_of_the_rules(client: Client, filled: Site) -> None:
    path = Path(filled.rows("ingested")[0].path).with_suffix(".json")
    for content in ('{"A": NaN}', '{"A": 1e999}', "[1]", "{", "[" * 100_000, '{"A": "\\ud800"}'):
        path.write_text(content)
        answer = client.get(f"/images/{OBSID}/R22_S10/header")
        assert answer.headers["content-type"] == "application/json", content[:20]
        assert answer.status == 200 or answer.json["error"], content[:20]


def test_pictures_hold_no_lists_up(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for a picture holds a thread that answers others: few may."""
    ends = threading.Event()

    def slow(*_: Any) -> bytes:
        ends.wait(20)
        return b""

    monkeypatch.setattr(previews, "_draw", slow)
    codes: list[int] = []
    asking = [
        threading.Thread(
            target=lambda n=n: codes.append(
                client.get(f"/images/{OBSID}/R22_S10/preview.png?side={100 + n}").status
            )
        )
        for n in range(50)
    ]
    for one in asking:
        one.start()
    wait_for(lambda: len(codes) >= 40, 8.0)
    began = time.monotonic()
    assert client.get(f"/images/{OBSID}").status == 200
    assert time.monotonic() - began < 5.0
    ends.set()
    for one in asking:
        one.join(30)
    assert sorted(set(codes)) == [200, 503]
