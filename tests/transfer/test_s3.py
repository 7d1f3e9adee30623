"""A bucket as a destination."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from archive_stand import Archive, wait_for
from s3_servers import Bucket, Odd, closed_port, s3, silent, true_server

from raftwright.errors import ConflictError
from raftwright.rawfile.standing import digest
from raftwright.transfer.outcome import Job, OutageError, RefusedError
from raftwright.transfer.s3 import S3Sender
from raftwright.transfer.targets import partial

pytest.importorskip("moto", reason="moto is not installed: pip install 'raftwright[test]'")
pytest.importorskip("lsst.resources", reason="lsst-resources is not installed: pip install 'raftwright[s3]'")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with true_server() as url:
        yield url


@pytest.fixture
def bucket(server: str, request: pytest.FixtureRequest) -> Bucket:
    return Bucket(server, f"raws-{abs(hash(request.node.nodeid)) % 10**8}")


def job(path: Path, target: str) -> Job:
    found = digest(path)
    return Job(path=str(path), target=target, bytes=found.bytes, crc32c=found.crc32c)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "it's a file.fits"
    path.write_bytes(b"\r\n\x1a" + os.urandom(100_000))
    return path


@pytest.mark.parametrize("verify", ["auto", "read", "checksum"])
def test_an_object_is_put_and_looked_at(verify: str, bucket: Bucket, source: Path) -> None:
    """D016, D017, D079, D171: looked at by a sum that the server made, or read back; never overwritten."""
    sender = S3Sender(bucket.to(verify=verify))
    sender.warm()
    key = f"raw/LSSTComCam/20261122/CC/{source.name}"
    assert sender.send(job(source, f"LSSTComCam/20261122/CC/{source.name}")).how == "put"
    assert bucket.keys() == [key]
    assert bucket.get(key) == source.read_bytes()
    assert sender.send(job(source, f"LSSTComCam/20261122/CC/{source.name}")).how == "there already"
    for content in (b"", source.read_bytes()[:-1] + b"?", b"longer" * 50_000):
        bucket.put("raw/other", content)
        with pytest.raises(ConflictError, match="another content"):
            sender.send(job(source, "other"))
        assert bucket.get("raw/other") == content


def test_odd_names(bucket: Bucket, source: Path) -> None:
    sender = S3Sender(bucket.to(prefix="a b"))
    for name in ("x y.fits", "it's.fits", "100%.fits", "a+b=c&d.fits", "ü.fits"):
        assert sender.send(job(source, f"d/{name}")).how == "put"
        assert bucket.get(f"a b/d/{name}") == source.read_bytes()
        assert sender.send(job(source, f"d/{name}")).how == "there already"


def test_without_a_prefix(bucket: Bucket, source: Path) -> None:
    sender = S3Sender(s3("s3", bucket.endpoint, f"s3://{bucket.name}"))
    sender.send(job(source, "LATISS/x"))
    assert bucket.keys() == ["LATISS/x"]


def test_a_source_that_changed_is_refused(bucket: Bucket, source: Path) -> None:
    wanted = job(source, "x")
    source.write_bytes(source.read_bytes()[:-1] + b"?")
    with pytest.raises(RefusedError, match="is not what the ledger says"):
        S3Sender(bucket.to()).send(wanted)
    assert bucket.keys() == []


def test_nobody_there(source: Path, server: str) -> None:
    for endpoint, root in ((closed_port(), "s3://raws"), (server, "s3://no-such-bucket/x")):
        sender = S3Sender(s3("s3", endpoint, root))
        with pytest.raises(OutageError):
            sender.probe()
        with pytest.raises(OutageError):
            sender.send(job(source, "x"))
    with silent() as endpoint:
        begun = time.monotonic()
        with pytest.raises(OutageError):
            S3Sender(s3("s3", endpoint, "s3://raws", timeout=1.0)).send(job(source, "x"))
        assert time.monotonic() - begun < 4.0


def test_one_that_says_yes_and_wrote_nothing(source: Path) -> None:
    with Odd(lambda key, body: None) as odd, pytest.raises(RefusedError, match="is not there"):
        S3Sender(s3("s3", odd.endpoint)).send(job(source, "x"))


@pytest.mark.parametrize("etag", [True, False])
def test_one_that_keeps_something_else(etag: bool, source: Path) -> None:
    """D171: no part size is guessed from an ETag; what has none of MD5 is read back."""
    with (
        Odd(lambda key, body: body[:-1] + bytes([body[-1] ^ 1]), etag=etag) as odd,
        pytest.raises(RefusedError, match="not what was sent"),
    ):
        S3Sender(s3("s3", odd.endpoint)).send(job(source, "x"))
    with Odd(lambda key, body: body, etag=etag) as odd:
        assert S3Sender(s3("s3", odd.endpoint)).send(job(source, "x")).how == "put"


@pytest.mark.parametrize("status", [500, 503, 403])
def test_errors_of_the_server_are_outages(status: int, source: Path) -> None:
    """F47."""
    with Odd(lambda key, body: status) as odd:
        with pytest.raises(OutageError, match=str(status)):
            S3Sender(s3("s3", odd.endpoint)).send(job(source, "x"))
        assert len(odd.puts) == 1, "the queue tries again, not the client"


def test_a_server_that_knows_no_conditions(source: Path) -> None:
    tries: list[str] = []

    def put(key: str, body: bytes) -> bytes | int:
        tries.append(key)
        return 501 if len(tries) == 1 else body

    with Odd(put) as odd:
        sender = S3Sender(s3("s3", odd.endpoint))
        assert sender.send(job(source, "x")).how == "put"
        assert sender.send(job(source, "y")).how == "put"
        assert len(tries) == 3


def test_connections_are_warm_and_kept(source: Path) -> None:
    """D058, N24: no file pays for a connection of its own, the first one neither."""
    with Odd(lambda key, body: body) as odd:
        sender = S3Sender(s3("s3", odd.endpoint, concurrency=3))
        sender.warm()
        made = odd.connections
        assert made >= 1
        for n in range(20):
            sender.send(job(source, f"{n}"))
        assert odd.connections == made


def test_where_lsst_resources_is_told(bucket: Bucket, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = bucket.endpoint.removeprefix("http://")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("LSST_RESOURCES_S3_PROFILE_summit", f"http://ke%2Fy:secret@{host}")
    from raftwright.archiver import Destination

    by_profile = Destination(name="x", kind="s3", root=f"s3://summit@{bucket.name}/p")
    assert S3Sender(by_profile).send(job(source, "one")).how == "put"
    monkeypatch.setenv("S3_ENDPOINT_URL", bucket.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    plain = Destination(name="x", kind="s3", root=f"s3://{bucket.name}/p")
    assert S3Sender(plain).send(job(source, "two")).how == "put"
    assert bucket.keys() == ["p/one", "p/two"]
    # What it wrote, lsst.resources reads.
    from lsst.resources import ResourcePath

    assert ResourcePath(f"s3://{bucket.name}/p/two").read() == source.read_bytes()


def test_a_mistyped_bucket_is_said_at_start(
    archive: Archive, bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    """D169: in one line, with what was asked for and what may be meant, before any image; it goes away when
    somebody makes the bucket."""
    wrong = f"{bucket.name}s"
    service = archive.archiver(s3("far", bucket.endpoint, f"s3://{wrong}/raw"))
    (said,) = wait_for(service.problems)
    for part in ("far: ", f"no bucket '{wrong}'", bucket.endpoint, f"(is '{bucket.name}'"):
        assert part in said
    assert "\n" not in said
    assert said.removeprefix("far: ") in caplog.text
    bucket.client.create_bucket(Bucket=wrong)
    wait_for(lambda: not service.problems(), 15.0)


def test_plain_http_by_the_environment(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D169: what is not encrypted is not spoken to beyond this host, wherever that was said, unless it is
    wanted."""
    from raftwright.archiver import Destination

    monkeypatch.setenv("S3_ENDPOINT_URL", "http://198.51.100.7:1")
    place = Destination(name="x", kind="s3", root="s3://raws/p", timeout=1.0)
    with pytest.raises(OutageError, match=r"198\.51\.100\.7.*not encrypted.*insecure: true"):
        S3Sender(place).send(job(source, "one"))
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    wanted = Destination(name="x", kind="s3", root="s3://raws/p", timeout=1.0, insecure=True)
    assert S3Sender(wanted)._bucket.client.meta.endpoint_url == "http://198.51.100.7:1"


def test_an_image_in_a_bucket(archive: Archive, bucket: Bucket) -> None:
    """D166: the list of sensors first, and for each CCD the sidecar before the file."""
    archive.archiver(bucket.to(concurrency=3))

    (image,) = archive.take(1)
    wait_for(lambda: archive.counts() == {"s3": {"delivered": 19}}, 20, archive.counts)
    name = image.base.name
    directory = archive.root / "20261122" / name
    expected = {f"raw/LSSTComCam/20261122/{name}/{path.name}": path for path in directory.iterdir()}
    assert bucket.keys() == sorted(expected)
    for key, path in expected.items():
        assert bucket.get(key) == path.read_bytes()
    events = archive.ledger.events.of(1)
    ended = [event for event in events if event.thing == "delivery" and event.new == "delivered"]
    order = [Path(event.subject).name for event in ended]
    for fits in [entry for entry in order if entry.endswith(".fits")]:
        assert order.index(fits) > order.index(fits.replace(".fits", ".json"))


def test_staged_objects(bucket: Bucket, source: Path) -> None:
    """D136: under a hidden name first, read back, then copied where its own is free; nothing is left."""
    sender = S3Sender(bucket.to(staged=True, verify="read", timeout=20.0))
    assert sender.send(job(source, "d/x.fits")).how == "put"
    assert bucket.keys() == ["raw/d/x.fits"]
    assert bucket.get("raw/d/x.fits") == source.read_bytes()
    assert sender.send(job(source, "d/x.fits")).how == "there already"
    bucket.put("raw/d/y.fits", b"other")
    with pytest.raises(ConflictError):
        sender.send(job(source, "d/y.fits"))
    assert bucket.get("raw/d/y.fits") == b"other"


def test_a_staged_object_that_goes_bad(bucket: Bucket, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D136: what is read back is not what was sent: never under its name, not kept, and sent anew."""
    sender = S3Sender(bucket.to(staged=True, verify="read", timeout=20.0))
    real = sender._put

    def corrupt(one: Job, key: str) -> tuple[str, int]:
        done = real(one, key)
        content = bucket.get(key)
        bucket.put(key, bytes([content[0] ^ 1]) + content[1:])
        return done

    with monkeypatch.context() as patched:
        patched.setattr(sender, "_put", corrupt)
        with pytest.raises(RefusedError, match="not kept"):
            sender.send(job(source, "d/x.fits"))
    assert bucket.keys() == []
    assert sender.send(job(source, "d/x.fits")).how == "put"


def test_a_staged_object_that_somebody_left(bucket: Bucket, source: Path) -> None:
    """D137: killed after the upload: the next try looks at it and copies it; a bad one is put anew."""
    sender = S3Sender(bucket.to(staged=True, verify="read", timeout=20.0))
    wanted = job(source, "d/x.fits")
    hidden = f"raw/d/{partial(wanted)}"
    bucket.put(hidden, source.read_bytes())
    sent = sender.send(wanted)
    assert (sent.how, sent.bytes) == ("resumed", 0)
    assert sender.remove("d/x.fits")
    bucket.put(hidden, source.read_bytes()[:-1] + b"?")
    assert sender.send(wanted).how == "put"
    assert bucket.keys() == ["raw/d/x.fits"]
    assert bucket.get("raw/d/x.fits") == source.read_bytes()


def test_a_copy_by_the_server_that_is_none(
    bucket: Bucket, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is set aside, so that the name is free for the next try."""
    sender = S3Sender(bucket.to(staged=True, verify="read", timeout=20.0))
    real = sender._parts.copy

    def spoil(origin: str, key: str, size: int) -> None:
        real(origin, key, size)
        if key.endswith("/x.fits"):
            bucket.put(key, bytes(size))

    with monkeypatch.context() as patched:
        patched.setattr(sender._parts, "copy", spoil)
        with pytest.raises(RefusedError, match="not what it copied"):
            sender.send(job(source, "d/x.fits"))
    assert bucket.keys() == ["raw/.damaged/d/x.fits.1"]
    assert sender.send(job(source, "d/x.fits")).how == "put"


def test_large_copies_by_the_server(
    bucket: Bucket, source: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is too large for one copy goes in parts."""
    from raftwright.transfer import bucket_parts

    large = tmp_path / "large.fits"
    large.write_bytes(os.urandom(12 << 20))
    monkeypatch.setattr(bucket_parts, "LARGEST", 6 << 20)
    monkeypatch.setattr(bucket_parts, "_COPIED", 5 << 20)
    sender = S3Sender(bucket.to(staged=True, verify="read", timeout=20.0))
    assert sender.send(job(large, "d/x.fits")).how == "put"
    assert bucket.get("raw/d/x.fits") == large.read_bytes()
    assert sender.set_aside("d/x.fits", "damaged") == ".damaged/d/x.fits.1"
    assert bucket.get("raw/.damaged/d/x.fits.1") == large.read_bytes()
