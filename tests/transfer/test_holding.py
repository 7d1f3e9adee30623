"""Files that are held: mode bits, the immutable flag, and legal holds of buckets."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from far_places import far_place, job, made
from s3_servers import Bucket

from raftwright.errors import NotFoundError
from raftwright.transfer import holding
from raftwright.transfer.directory import DirectorySender
from raftwright.transfer.outcome import OutageError, RefusedError
from raftwright.transfer.place import Place
from raftwright.transfer.s3 import S3Sender


def directory(root: Path, **more: str | bool) -> DirectorySender:
    return DirectorySender(Place(name="far", kind="directory", root=str(root), **more))  # type: ignore[arg-type]


@pytest.fixture
def flagged(tmp_path: Path) -> Iterator[Path]:
    """A directory where we may use `chattr +i`; nothing stays held in it."""
    folder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not holding.can_be_immutable(folder):
            pytest.skip("chattr +i is not allowed here: it wants root and a file system that has it")
    finally:
        os.close(folder)
    root = tmp_path / "held"
    root.mkdir()
    yield root
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            file = os.open(path, os.O_RDONLY)
            holding.let_go(file, str(path))
            os.close(file)


@pytest.mark.parametrize("kind", ["directory", "command"])
def test_files_are_read_only(kind: str, tmp_path: Path) -> None:
    """They are when they get their name, and a link of the archive's file is none of them."""
    source = made(tmp_path / "from" / "x.fits", os.urandom(1000))
    with far_place(kind, tmp_path, readonly=True) as far:
        sent = far.sender.send(job(source, "d/x.fits"))
        assert (sent.how, sent.held) == ("copied", "read-only")
        assert stat.S_IMODE((tmp_path / "far" / "d" / "x.fits").stat().st_mode) & 0o222 == 0
        assert source.stat().st_mode & 0o200
        # One that was there with more rights is settled too.
        (tmp_path / "far" / "d" / "x.fits").chmod(0o666)
        assert far.sender.send(job(source, "d/x.fits")).held == "read-only"
        assert stat.S_IMODE((tmp_path / "far" / "d" / "x.fits").stat().st_mode) & 0o222 == 0


@pytest.mark.parametrize("immutable", ["auto", "required"])
def test_files_are_immutable(immutable: str, flagged: Path, tmp_path: Path) -> None:
    """Nobody writes, renames or removes one by mistake, not even we; and a repair lets go of it first."""
    source = made(tmp_path / "from" / "x.fits", os.urandom(1000))
    sender = directory(flagged, immutable=immutable, readonly=True)
    sender.probe()
    assert sender.send(job(source, "d/x.fits")).held == "immutable"
    there = flagged / "d" / "x.fits"
    with pytest.raises(PermissionError):
        there.open("r+b")
    with pytest.raises(PermissionError):
        there.rename(flagged / "d" / "y.fits")
    with pytest.raises(PermissionError):
        there.unlink()
    with pytest.raises(RefusedError, match="unprotect"):
        sender.remove("d/x.fits")
    assert sender.send(job(source, "d/x.fits")).how == "there already"
    assert sender.protect("d/x.fits") == "immutable"
    sender.unprotect("d/x.fits")
    sender.unprotect("d/x.fits")
    assert sender.remove("d/x.fits") is True
    sender.send(job(source, "d/x.fits"))
    assert sender.set_aside("d/x.fits", "damaged") == ".damaged/d/x.fits.1"
    assert not there.exists()


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTTY, errno.EOPNOTSUPP])
def test_where_files_cannot_be_immutable(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`auto` is content with less and says so; `required` takes nothing, and tells why."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(holding.fcntl, "ioctl", refuse)
    source = made(tmp_path / "from" / "x.fits", os.urandom(1000))
    root = tmp_path / "far"
    root.mkdir()
    sender = directory(root, immutable="auto")
    sender.probe()
    assert sender.send(job(source, "x.fits")).held == "read-only"
    strict = directory(root, immutable="required")
    with pytest.raises(OutageError, match="immutable"):
        strict.probe()
    with pytest.raises(RefusedError, match="chattr"):
        strict.protect("x.fits")


@pytest.mark.parametrize("immutable", ["auto", "required"])
def test_a_command_holds_files(immutable: str, flagged: Path, tmp_path: Path) -> None:
    source = made(tmp_path / "from" / "x.fits", os.urandom(1000))
    with far_place("command", flagged, immutable=immutable) as far:
        far.sender.probe()
        assert far.sender.send(job(source, "d/x.fits")).held == "immutable"
        with pytest.raises(PermissionError):
            (flagged / "far" / "d" / "x.fits").unlink()
        with pytest.raises(RefusedError):
            far.sender.remove("d/x.fits")
        far.sender.unprotect("d/x.fits")
        assert far.sender.remove("d/x.fits")


@pytest.mark.parametrize("staged", [False, True])
@pytest.mark.parametrize("immutable", ["auto", "required"])
def test_objects_under_a_legal_hold(immutable: str, staged: bool, s3_url: str, tmp_path: Path) -> None:
    """The server refuses to remove the version; the retention and a repair let go of it first."""
    source = made(tmp_path / "from" / "x.fits", os.urandom(1000))
    plain = Bucket(s3_url, f"plain-{immutable}-{staged}".lower())
    name = f"locked-{immutable}-{staged}".lower()
    plain.client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    place = msgspec.structs.replace(
        plain.to(), root=f"s3://{name}/raw", immutable=immutable, staged=staged, timeout=20.0
    )
    sender = S3Sender(place)
    sender.probe()
    sent = sender.send(job(source, "d/x.fits"))
    assert sent.held == "legal hold"
    head = plain.client.head_object(Bucket=name, Key="raw/d/x.fits")
    hold = plain.client.get_object_legal_hold(Bucket=name, Key="raw/d/x.fits", VersionId=head["VersionId"])
    assert hold["LegalHold"]["Status"] == "ON"
    with pytest.raises(plain.client.exceptions.ClientError):
        plain.client.delete_object(Bucket=name, Key="raw/d/x.fits", VersionId=head["VersionId"])
    with pytest.raises(RefusedError, match="unprotect"):
        sender.remove("d/x.fits")
    versions = plain.client.list_object_versions(Bucket=name)
    assert [one["Key"] for one in versions["Versions"]] == ["raw/d/x.fits"]
    assert "DeleteMarkers" not in versions
    assert sender.protect("d/x.fits") == "legal hold"
    assert sender.set_aside("d/x.fits", "damaged") == ".damaged/d/x.fits.1"
    sender.send(job(source, "d/x.fits"))
    sender.unprotect("d/x.fits")
    assert sender.remove("d/x.fits") is True
    assert list(sender.walk()) == []
    with pytest.raises(NotFoundError):
        sender.protect("d/x.fits")


def test_a_bucket_without_a_lock(s3_url: str, tmp_path: Path) -> None:
    source = made(tmp_path / "from" / "x.fits", os.urandom(1000))
    bucket = Bucket(s3_url, "no-lock-at-all")
    assert S3Sender(bucket.to(immutable="auto")).send(job(source, "x.fits")).held == ""
    strict = S3Sender(bucket.to(immutable="required"))
    with pytest.raises(OutageError, match="no object lock"):
        strict.probe()
    with pytest.raises(RefusedError, match="no object lock"):
        strict.protect("x.fits")


def test_webdav_holds_nothing(tmp_path: Path, s3_url: str) -> None:
    source = made(tmp_path / "from" / "x.fits")
    with far_place("webdav", tmp_path, immutable="auto") as far:
        assert far.sender.send(job(source, "x.fits")).held == ""
    with (
        far_place("webdav", tmp_path / "from", immutable="required") as far,
        pytest.raises(OutageError, match="ask for less"),
    ):
        far.sender.probe()
