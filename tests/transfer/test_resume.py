"""Tries that were cut are gone on with (D137)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from far_places import REMOTE, far_place, job, made
from s3_servers import Bucket

from raftwright.transfer import pouring
from raftwright.transfer.directory import DirectorySender
from raftwright.transfer.outcome import OutageError, RefusedError
from raftwright.transfer.place import Place, Templates
from raftwright.transfer.targets import partial

SIZE = 24 << 20
LEAST = 5 << 20

_COPIER = """
import sys
from raftwright.transfer.place import Place
from raftwright.transfer.outcome import Job
from raftwright.transfer.directory import DirectorySender
path, root, size, crc, rate = sys.argv[1:]
place = Place(name="far", kind="directory", root=root, link="never", resumable=5 << 20, bandwidth=int(rate))
print("ready", flush=True)
print(DirectorySender(place).send(Job(path=path, target="d/x.fits", bytes=int(size), crc32c=crc)).bytes)
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return made(tmp_path / "from" / "x.fits", os.urandom(SIZE))


def directory(root: Path) -> DirectorySender:
    root.mkdir(exist_ok=True)
    return DirectorySender(
        Place(name="far", kind="directory", root=str(root), link="never", resumable=LEAST, verify="read")
    )


def test_a_sender_that_is_killed_half_way(source: Path, tmp_path: Path) -> None:
    """D137: SIGKILL at about half: the next try moves the rest alone, less than 60 % more in all."""
    root = tmp_path / "far"
    root.mkdir()
    wanted = job(source, "d/x.fits")
    process = subprocess.Popen(
        [sys.executable, "-c", _COPIER, str(source), str(root), str(SIZE), wanted.crc32c, str(SIZE // 2)],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    part = root / "d" / partial(wanted)
    until = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size > SIZE * 0.5):
        assert time.monotonic() < until
        time.sleep(0.01)
    process.kill()
    process.wait()
    process.stdout.close()
    there = part.stat().st_size
    assert SIZE * 0.4 < there < SIZE
    assert not (root / "d" / "x.fits").exists()
    sent = directory(root).send(wanted)
    assert sent.how == "resumed"
    assert sent.bytes == SIZE - there
    assert sent.bytes < 0.6 * SIZE
    assert os.listdir(root / "d") == ["x.fits"]
    assert (root / "d" / "x.fits").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("left", ["other", "longer", "link", "directory"])
def test_what_was_left_is_looked_at(left: str, source: Path, tmp_path: Path) -> None:
    """F44: a part that is not the beginning of the file is not gone on with, whatever it is."""
    root = tmp_path / "far"
    wanted = job(source, "d/x.fits")
    sender = directory(root)
    part = root / "d" / partial(wanted)
    content = bytearray(source.read_bytes())
    if left == "other":
        content[1 << 20] ^= 1
        made(part, bytes(content[: SIZE // 2]))
    elif left == "longer":
        made(part, bytes(content) + b"more")
    elif left == "link":
        outside = made(tmp_path / "outside", bytes(content[: SIZE // 2]))
        part.parent.mkdir()
        part.symlink_to(outside)
    else:
        part.mkdir(parents=True)
    if left in ("link", "directory"):
        with pytest.raises(RefusedError):
            sender.send(wanted)
        assert not (root / "d" / "x.fits").exists()
        assert left != "link" or (tmp_path / "outside").stat().st_size == SIZE // 2
        return
    sent = sender.send(wanted)
    assert (sent.how, sent.bytes) == ("copied", SIZE)
    assert (root / "d" / "x.fits").read_bytes() == source.read_bytes()
    assert os.listdir(root / "d") == ["x.fits"]


def test_a_part_that_another_works_on(source: Path, tmp_path: Path) -> None:
    """It is left alone; the file goes by another way."""
    import fcntl

    root = tmp_path / "far"
    wanted = job(source, "d/x.fits")
    part = made(root / "d" / partial(wanted), b"theirs")
    with part.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert directory(root).send(wanted).how == "copied"
    assert part.read_bytes() == b"theirs"
    assert (root / "d" / "x.fits").read_bytes() == source.read_bytes()


def test_a_part_that_looks_old_and_is_worked_on_stays(source: Path, tmp_path: Path) -> None:
    """A clock that steps, or a disk that hung for days: who works on it would name what another has begun."""
    import fcntl

    root = tmp_path / "far"
    theirs, old = made(root / "d" / ".raftwright-0.part"), made(root / "d" / ".raftwright-1.part")
    for each in (theirs, old):
        os.utime(each, (1, 1))
    with theirs.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        directory(root).send(job(source, "d/x.fits"))
    assert sorted(os.listdir(root / "d")) == [theirs.name, "x.fits"]


def test_what_is_named_is_what_was_looked_at(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody cleans up and begins anew while a try is under way: nothing torn gets the name."""
    root = tmp_path / "far"
    wanted = job(source, "d/x.fits")
    part = root / "d" / partial(wanted)
    real = os.fchmod

    def meanwhile(file: int, mode: int) -> None:
        real(file, mode)
        part.unlink()
        part.write_bytes(b"begun anew")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fchmod", meanwhile)
        with pytest.raises(RefusedError, match="not what was written"):
            directory(root).send(wanted)
    assert os.listdir(root / "d") == [part.name]
    directory(root).send(wanted)
    assert (root / "d" / "x.fits").read_bytes() == source.read_bytes()


def test_a_disk_that_fills_half_way(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D148: an outage; with room again it is gone on with."""
    real = os.sendfile
    moved = 0

    def full(out: int, into: int, offset: int | None, count: int) -> int:
        nonlocal moved
        if moved > SIZE // 2:
            raise OSError(28, "No space left on device")
        done = real(out, into, offset, min(count, 1 << 20))
        moved += done
        return done

    sender = directory(tmp_path / "far")
    wanted = job(source, "d/x.fits")
    with monkeypatch.context() as patched:
        patched.setattr(pouring.os, "sendfile", full)
        with pytest.raises(OutageError, match="No space"):
            sender.send(wanted)
    assert not (tmp_path / "far" / "d" / "x.fits").exists()
    sent = sender.send(wanted)
    assert sent.how == "resumed"
    assert sent.bytes < 0.6 * SIZE


def test_parts_of_an_object(
    source: Path, tmp_path: Path, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D137: cut after half of the parts: only what lacks is sent again, and what is bad."""
    from raftwright.transfer.s3 import S3Sender

    bucket = Bucket(s3_url, "parts-of-an-object")
    sender = S3Sender(bucket.to(resumable=LEAST, timeout=20.0))
    wanted = job(source, "d/x.fits")
    real = sender._bucket.client.upload_part
    sent_parts: list[int] = []

    def cut(**named: object) -> object:
        if len(sent_parts) >= 3:
            raise OutageError("the connection is gone")
        sent_parts.append(int(str(named["PartNumber"])))
        return real(**named)

    monkeypatch.setattr(sender._bucket.client, "upload_part", cut)
    with pytest.raises(OutageError):
        sender.send(wanted)
    assert bucket.keys() == []
    monkeypatch.undo()
    upload = bucket.client.list_multipart_uploads(Bucket=bucket.name)["Uploads"][0]["UploadId"]
    bucket.client.upload_part(
        Bucket=bucket.name, Key="raw/d/x.fits", UploadId=upload, PartNumber=2, Body=bytes(LEAST)
    )
    sent = S3Sender(sender._place).send(wanted)
    assert sent.how == "resumed"
    assert sent.bytes == SIZE - 2 * LEAST
    assert bucket.get("raw/d/x.fits") == source.read_bytes()
    assert "Uploads" not in bucket.client.list_multipart_uploads(Bucket=bucket.name)
    again = S3Sender(sender._place).send(wanted)
    assert (again.how, again.bytes) == ("there already", 0)


_SHELL = """
import os, subprocess, sys, threading
# In the place of ssh: `shell host command`; counts what goes there, and ends after so many bytes.
log, most = sys.argv[1], int(sys.argv[2])
process = subprocess.Popen(["/bin/sh", "-c", " ".join(sys.argv[4:])], stdin=subprocess.PIPE)
count = 0

def copy():
    global count
    while piece := os.read(0, 65536):
        count += len(piece)
        if most and count > most:
            process.kill()
            return
        process.stdin.write(piece)
        process.stdin.flush()
    process.stdin.close()

threading.Thread(target=copy, daemon=True).start()
status = process.wait()
with open(log, "a") as stream:
    print(count, file=stream)
os._exit(status & 255)
"""


@pytest.mark.skipif(not shutil.which("rsync"), reason="rsync is not installed")
def test_rsync_goes_on(source: Path, tmp_path: Path) -> None:
    """D137: the connection is cut at half; the second try costs the other half, counted on the line."""
    shell = made(tmp_path / "shell.py", _SHELL.encode())
    log = tmp_path / "log"

    def templates(most: int) -> Templates:
        rsh = f"{sys.executable} {shell} {log} {most}"
        return Templates(
            transfer=["rsync", "-s", "--partial", "--append-verify", "-e", rsh, "{file}", "{host}:{dest}"],
            remote=REMOTE,
        )

    with far_place("command", tmp_path, host="far", commands=templates(SIZE // 2)) as far:
        with pytest.raises(RefusedError, match="rsync ended with"):
            far.sender.send(job(source, "d/x.fits"))
        assert "d/x.fits" not in far.files()
        place = far.place
    import msgspec

    from raftwright.transfer.command import CommandSender

    second = CommandSender(msgspec.structs.replace(place, commands=templates(0)))
    second.send(job(source, "d/x.fits"))
    first_bytes, second_bytes = map(int, log.read_text().split())
    assert (tmp_path / "far" / "d" / "x.fits").read_bytes() == source.read_bytes()
    assert first_bytes + second_bytes < 1.6 * SIZE
    assert second_bytes < 0.75 * SIZE
