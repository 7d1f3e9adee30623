"""A WebDAV server as a place, in good and in bad health."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from far_places import Far, far_place, job, made, webdav_server
from s3_servers import closed_port, silent

from raftwright.errors import ConflictError, NotFoundError
from raftwright.transfer.outcome import OutageError, RefusedError
from raftwright.transfer.place import Place
from raftwright.transfer.sender import sender_of

pytest.importorskip(
    "lsst.resources", reason="lsst-resources is not installed: pip install 'raftwright[webdav]'"
)


class Health:
    """What a server does with requests of one method, after some of them."""

    def __init__(self) -> None:
        self.method = ""
        self.what: Callable[[dict[str, Any], Callable[..., Any]], Any] | None = None
        self.seen: list[str] = []

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        self.seen.append(environ["REQUEST_METHOD"])
        if environ["REQUEST_METHOD"] != self.method or self.what is None:
            return None
        return self.what(environ, start_response)


def answer(status: str, body: bytes = b"") -> Callable[..., Any]:
    def what(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        with contextlib.suppress(Exception):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start_response(status, [("Content-Length", str(len(body)))])
        return [body]

    return what


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def far(tmp_path: Path, health: Health) -> Iterator[Far]:
    with far_place("webdav", tmp_path, twist=health, timeout=1.0) as found:
        yield found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return made(tmp_path / "from" / "x.fits", os.urandom(3_000_000))


@pytest.mark.parametrize(
    ("method", "status", "error"),
    [
        ("PUT", "500 Internal Server Error", OutageError),
        ("PUT", "503 Service Unavailable", OutageError),
        ("PUT", "507 Insufficient Storage", OutageError),
        ("PUT", "403 Forbidden", OutageError),
        ("PUT", "409 Conflict", RefusedError),
        ("PUT", "413 Request Entity Too Large", RefusedError),
        ("PROPFIND", "500 Internal Server Error", OutageError),
        ("MKCOL", "507 Insufficient Storage", OutageError),
        ("MOVE", "502 Bad Gateway", OutageError),
        ("MOVE", "423 Locked", RefusedError),
        ("GET", "503 Service Unavailable", OutageError),
        ("OPTIONS", "500 Internal Server Error", OutageError),
        ("OPTIONS", "200 OK", OutageError),
    ],
)
def test_a_server_in_trouble(
    method: str, status: str, error: type[Exception], far: Far, health: Health, source: Path
) -> None:
    """F47, D148: nothing is published, the lane tries again and not the client, and then the file goes."""
    health.method, health.what = method, answer(status)
    with pytest.raises(error) as caught:
        far.sender.send(job(source, "d/x.fits"))
    assert len(str(caught.value)) < 1500
    assert "d/x.fits" not in far.files()
    assert health.seen.count(method) <= 1
    health.what = None
    assert far.sender.send(job(source, "d/x.fits")).how == "put"
    assert far.files() == {"d/x.fits": source.read_bytes()}


def test_a_server_that_flips_a_bit(far: Far, health: Health, source: Path, tmp_path: Path) -> None:
    """D136: what is read back is not what was sent: it is not published, and nothing is left."""
    content = source.read_bytes()

    def flip(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        if environ.get("CONTENT_LENGTH") == str(len(content)):
            environ["wsgi.input"].read(len(content))
            name = environ["PATH_INFO"].rpartition("/")[2]
            made(tmp_path / "far" / "d" / name, content[:777] + bytes([content[777] ^ 1]) + content[778:])
            start_response("201 Created", [("Content-Length", "0")])
            return [b""]
        return None

    health.method, health.what = "PUT", flip
    with pytest.raises(RefusedError, match="not kept"):
        far.sender.send(job(source, "d/x.fits"))
    assert far.files() == {}
    health.what = None
    assert far.sender.send(job(source, "d/x.fits")).how == "put"


def test_a_connection_that_drops_half_way(far: Far, health: Health, source: Path) -> None:
    """D137: WebDAV knows no parts: nothing is published, and the file is sent anew."""

    def drop(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        if int(environ.get("CONTENT_LENGTH") or 0) > 1000:
            environ["wsgi.input"].read(1_500_000)
            raise ConnectionResetError("gone")
        return None

    health.method, health.what = "PUT", drop
    with pytest.raises(OutageError):
        far.sender.send(job(source, "d/x.fits"))
    assert "d/x.fits" not in far.files()
    health.what = None
    assert far.sender.send(job(source, "d/x.fits")).bytes == 3_000_000


def test_an_answer_that_ends_too_early(far: Far, health: Health, source: Path, tmp_path: Path) -> None:
    """What is read back short, or is fetched short, is no file."""
    far.sender.send(job(source, "d/x.fits"))

    def short(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        start_response("200 OK", [("Content-Length", "3000000")])
        return [source.read_bytes()[:1_000_000]]

    health.method, health.what = "GET", short
    with pytest.raises(OutageError):
        far.sender.crc32c("d/x.fits")
    with pytest.raises(OutageError):
        far.sender.fetch("d/x.fits", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_server_that_stalls(far: Far, health: Health, source: Path) -> None:
    """F47: every wait has an end."""
    ended = threading.Event()

    def stall(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        ended.wait(5)
        return answer("503 Service Unavailable")(environ, start_response)

    for method in ("PROPFIND", "MOVE", "GET"):
        health.method, health.what = method, stall
        begun = time.monotonic()
        with pytest.raises(OutageError):
            far.sender.send(job(source, f"d/{method}.fits"))
        assert time.monotonic() - begun < 8
    ended.set()


def test_nobody_there(source: Path, tmp_path: Path) -> None:
    for endpoint in (closed_port(), "http://127.0.0.1:1"):
        sender = sender_of(Place(name="far", kind="webdav", root=f"{endpoint}/x", timeout=2.0))
        with pytest.raises(OutageError):
            sender.probe()
        with pytest.raises(OutageError):
            sender.send(job(source, "x.fits"))
    with silent() as endpoint:
        begun = time.monotonic()
        with pytest.raises(OutageError):
            sender_of(Place(name="far", kind="webdav", root=f"{endpoint}/x", timeout=1.0)).send(
                job(source, "x")
            )
        assert time.monotonic() - begun < 5


def test_a_move_that_is_lied_about(far: Far, health: Health, source: Path) -> None:
    """The server says that it has moved it, and did not."""
    health.method, health.what = "MOVE", answer("201 Created")
    with pytest.raises(RefusedError, match="moved there a moment ago"):
        far.sender.send(job(source, "d/x.fits"))
    assert "d/x.fits" not in far.files()


def test_somebody_takes_the_name_meanwhile(far: Far, health: Health, source: Path) -> None:
    """D149: `Overwrite: F` is what keeps theirs; nothing of ours is left."""

    def taken(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        far.put("d/x.fits", b"theirs")
        return None

    health.method, health.what = "MOVE", taken
    with pytest.raises(ConflictError):
        far.sender.send(job(source, "d/x.fits"))
    assert far.files() == {"d/x.fits": b"theirs"}


@pytest.mark.parametrize(
    "href",
    ["/etc/passwd", "/far/../x", "/far/a/b", "/far/%2e%2e", "http://example.org/other/x", "/far/a%2fb"],
)
def test_a_list_of_what_is_elsewhere(href: str, far: Far, health: Health) -> None:
    """Names that a server makes up lead nowhere."""
    body = (
        '<?xml version="1.0"?><D:multistatus xmlns:D="DAV:"><D:response><D:href>'
        f"{href}</D:href><D:propstat><D:prop><D:getcontentlength>3</D:getcontentlength><D:resourcetype/>"
        "</D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response></D:multistatus>"
    ).encode()
    health.method, health.what = "PROPFIND", answer("207 Multi-Status", body)
    with pytest.raises(RefusedError, match="not in it"):
        list(far.sender.walk())


@pytest.mark.parametrize("body", [b"", b"not xml", b"<a/>", b"\xff\xfe", b'<D:multistatus xmlns:D="DAV:"/>'])
def test_a_list_that_is_none(body: bytes, far: Far, health: Health, source: Path) -> None:
    health.method, health.what = "PROPFIND", answer("207 Multi-Status", body)
    with pytest.raises((OutageError, RefusedError)):
        far.sender.send(job(source, "x.fits"))


def test_tokens_and_passwords(tmp_path: Path, health: Health, source: Path) -> None:
    """They are sent as they are, `$` and all, and shown nowhere."""
    seen: set[str] = set()

    def look(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        seen.add(environ.get("HTTP_AUTHORIZATION", ""))
        if environ.get("HTTP_AUTHORIZATION") not in wanted:
            return answer("401 Unauthorized")(environ, start_response)
        environ.pop("HTTP_AUTHORIZATION")
        return None

    word = "p$HOME:ss"
    wanted = {"Bearer tok$HOMEen", "Basic " + base64.b64encode(f"mover:{word}".encode()).decode()}
    (tmp_path / "far").mkdir()
    with webdav_server(tmp_path, look) as url:
        for number, more in enumerate(({"token": "tok$HOMEen"}, {"user": "mover", "password": word})):
            sender = sender_of(Place(name="far", kind="webdav", root=f"{url}/far", **more))  # type: ignore[arg-type]
            sender.send(job(source, f"{number}.fits"))
            sender.close()
        assert seen == wanted
        for more in ({}, {"token": "wrong"}):
            sender = sender_of(Place(name="far", kind="webdav", root=f"{url}/far", **more))  # type: ignore[arg-type]
            with pytest.raises(OutageError, match="401") as caught:
                sender.send(job(source, "9.fits"))
            assert "wrong" not in str(caught.value)
            sender.close()


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
def test_certificates_are_checked(tmp_path: Path, source: Path) -> None:
    """D147: a server that cannot prove who it is gets nothing."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=127.0.0.1",
            ),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    (tmp_path / "far").mkdir()
    with webdav_server(tmp_path, certificate=str(certificate), key=str(key)) as url:
        assert url.startswith("https:")
        stranger = sender_of(Place(name="far", kind="webdav", root=f"{url}/far"))
        with pytest.raises(OutageError, match=r"(?i)certificate"):
            stranger.send(job(source, "x.fits"))
        known = sender_of(Place(name="far", kind="webdav", root=f"{url}/far", authority=str(certificate)))
        assert known.send(job(source, "x.fits")).how == "put"
        for sender in (stranger, known):
            sender.close()


def test_a_file_that_went(far: Far, source: Path, tmp_path: Path) -> None:
    """It was there and verified; later it is not: that is told, and it is brought anew."""
    far.sender.send(job(source, "d/x.fits"))
    (tmp_path / "far" / "d" / "x.fits").unlink()
    with pytest.raises(NotFoundError):
        far.sender.crc32c("d/x.fits")
    shutil.rmtree(tmp_path / "far" / "d")
    with contextlib.suppress(RefusedError):  # the directory was known to be there
        far.sender.send(job(source, "d/x.fits"))
    far.sender.send(job(source, "d/x.fits"))
    assert far.files() == {"d/x.fits": source.read_bytes()}
