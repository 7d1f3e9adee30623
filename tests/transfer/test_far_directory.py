"""Tricks and troubles of a directory somewhere else: links, full disks, files that share a disk with ours."""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from far_places import far_place, job, made

from raftwright.errors import ConflictError, StorageError
from raftwright.transfer import directory as module
from raftwright.transfer import tree
from raftwright.transfer.directory import DirectorySender
from raftwright.transfer.outcome import OutageError, RefusedError, UnreadableError
from raftwright.transfer.place import Place


def sender(root: Path, **more: object) -> DirectorySender:
    values = {"link": "never", "verify": "read", **more}
    return DirectorySender(Place(name="far", kind="directory", root=str(root), **values))  # type: ignore[arg-type]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return made(tmp_path / "from" / "x.fits", os.urandom(200_000))


@pytest.mark.parametrize("kind", ["directory", "command"])
@pytest.mark.parametrize("where", ["a", "a/b"])
def test_a_link_out_of_the_tree(kind: str, where: str, source: Path, tmp_path: Path) -> None:
    """Nothing is written, read, moved or listed through a link below the root; it stays for people to see."""
    outside = tmp_path / "outside"
    made(outside / "b" / "x.fits", b"not ours")
    made(outside / "x.fits", b"not ours")
    with far_place(kind, tmp_path, link="never") as far:
        root = tmp_path / "far"
        (root / where).parent.mkdir(exist_ok=True)
        (root / where).symlink_to(outside if where == "a" else outside / "b")
        with pytest.raises(RefusedError, match="link"):
            far.sender.send(job(source, "a/b/y.fits"))
        assert list(far.sender.walk()) == []
        if kind == "directory":
            for call in (far.sender.crc32c, far.sender.remove, far.sender.protect):
                with pytest.raises(RefusedError, match="link"):
                    call("a/b/x.fits")
            with pytest.raises(RefusedError, match="link"):
                far.sender.set_aside("a/b/x.fits", "damaged")
    assert sorted(str(path.relative_to(outside)) for path in outside.rglob("*.fits")) == [
        "b/x.fits",
        "x.fits",
    ]


@pytest.mark.parametrize("kind", ["directory", "command"])
def test_a_file_that_is_a_link(kind: str, source: Path, tmp_path: Path) -> None:
    """A link to the archive's file under the name is no copy of it."""
    with far_place(kind, tmp_path, link="never") as far:
        (tmp_path / "far" / "x.fits").symlink_to(source)
        with pytest.raises(ConflictError):
            far.sender.send(job(source, "x.fits"))
        assert list(far.sender.walk()) == []


def test_a_hard_link_is_no_copy(source: Path, tmp_path: Path) -> None:
    root = tmp_path / "far"
    root.mkdir()
    os.link(source, root / "x.fits")
    with pytest.raises(RefusedError, match="no copy"):
        sender(root).send(job(source, "x.fits"))


def test_a_root_that_is_a_link(source: Path, tmp_path: Path) -> None:
    """That is the operator's own doing."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "far").symlink_to(tmp_path / "disk")
    sender(tmp_path / "far").send(job(source, "d/x.fits"))
    assert (tmp_path / "disk" / "d" / "x.fits").is_file()


def test_a_file_where_a_directory_should_be(source: Path, tmp_path: Path) -> None:
    root = tmp_path / "far"
    made(root / "d", b"a file")
    with pytest.raises(RefusedError, match="no directory"):
        sender(root).send(job(source, "d/x.fits"))
    assert (root / "d").read_bytes() == b"a file"


def test_a_directory_that_is_swapped_for_a_link(source: Path, tmp_path: Path) -> None:
    """Somebody swaps a directory for a link and back while files are sent: none comes out."""
    root, outside = tmp_path / "far", tmp_path / "outside"
    (root / "d").mkdir(parents=True)
    outside.mkdir()
    there = sender(root)
    ended = threading.Event()

    def swap() -> None:
        for number in itertools.count():
            if ended.is_set():
                return
            with contextlib.suppress(OSError):  # the sender made it anew
                (root / "d").rename(root / f"kept{number}")
                (root / "d").symlink_to(outside)
                time.sleep(0.0005)
                (root / "d").unlink()
                (root / f"kept{number}").rename(root / "d")

    thread = threading.Thread(target=swap)
    thread.start()
    sent = 0
    try:
        until = time.monotonic() + 20
        for number in itertools.count():
            if number >= 300 and sent >= 20:
                break
            assert time.monotonic() < until, sent
            try:
                there.send(job(source, f"d/{number}.fits"))
                sent += 1
            except (RefusedError, OutageError):
                continue
    finally:
        ended.set()
        thread.join()
    assert os.listdir(outside) == []


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    root = tmp_path / "small"
    root.mkdir()
    mounted = (
        shutil.which("mount")
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(root)], capture_output=True, check=False
        ).returncode
    )
    if not mounted:
        pytest.skip("nothing can be mounted here: a small file system wants root")
    yield root
    subprocess.run(["umount", str(root)], check=True)


@pytest.mark.parametrize("resumable", [5 << 20, 64 << 20])
def test_a_disk_that_is_full(resumable: int, small: Path, tmp_path: Path) -> None:
    """F40, D148: an outage; nothing is under a name, and with room again the file goes."""
    source = made(tmp_path / "from" / "x.fits", os.urandom(6 << 20))
    there = sender(small, resumable=resumable)
    with pytest.raises(OutageError, match="No space"):
        there.send(job(source, "d/x.fits"))
    assert list(there.walk()) == []
    subprocess.run(["mount", "-o", "remount,size=20m", str(small)], check=True)
    there.send(job(source, "d/x.fits"))
    assert (small / "d" / "x.fits").read_bytes() == source.read_bytes()


_LIMITED = """
import resource, signal, sys
from raftwright.transfer.directory import DirectorySender
from raftwright.transfer.outcome import Job, OutageError, RefusedError
from raftwright.transfer.place import Place
path, root, size, crc = sys.argv[1:]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
place = Place(name="far", kind="directory", root=root, link="never")
try:
    DirectorySender(place).send(Job(path=path, target="d/x.fits", bytes=int(size), crc32c=crc))
except (OutageError, RefusedError) as error:
    print(type(error).__name__, error)
"""


def test_a_file_that_may_not_be_so_large(source: Path, tmp_path: Path) -> None:
    """A limit (RLIMIT_FSIZE) in the way: told, and nothing is left."""
    root = tmp_path / "far"
    root.mkdir()
    wanted = job(source)
    ended = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(source), str(root), str(wanted.bytes), wanted.crc32c],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ended.stdout.startswith("RefusedError")
    assert "File too large" in ended.stdout
    assert [path for path in root.rglob("*") if path.is_file()] == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_a_disk_that_flips_a_bit(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D136: what was written is read back, and not named where it is not what was sent."""
    root = tmp_path / "far"
    root.mkdir()
    real = os.fsync

    def flip(file: int) -> None:
        real(file)
        if os.fstat(file).st_size == 200_000:
            byte = os.pread(file, 1, 100_000)
            os.pwrite(file, bytes([byte[0] ^ 4]), 100_000)

    with monkeypatch.context() as patched:
        patched.setattr(module.os, "fsync", flip)
        with pytest.raises(RefusedError, match="not kept"):
            sender(root).send(job(source, "d/x.fits"))
    assert os.listdir(root / "d") == []
    assert sender(root).send(job(source, "d/x.fits")).how == "copied"


def test_a_source_that_changes_while_it_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D139: the same length, other bytes, after the copy began: refused, told as such, nothing
    published."""
    source = made(tmp_path / "from" / "x.fits", os.urandom(9 << 20))
    root = tmp_path / "far"
    root.mkdir()
    real = os.sendfile
    calls: list[int] = []

    def meddle(out: int, into: int, offset: int | None, count: int) -> int:
        calls.append(count)
        if len(calls) == 2:
            with source.open("r+b") as stream:
                stream.seek(8 << 20)
                stream.write(b"changed")
        return real(out, into, offset, count)

    monkeypatch.setattr("raftwright.transfer.pouring.os.sendfile", meddle)
    for resumable in (5 << 20, 64 << 20):
        wanted = job(source, "d/x.fits")
        calls.clear()
        with pytest.raises(RefusedError, match="changed while it was sent"):
            sender(root, resumable=resumable).send(wanted)
        assert os.listdir(root / "d") == []
        made(source, os.urandom(9 << 20))


def test_without_hard_links_and_renameat2(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File systems that know neither: names are still never given twice."""
    root = tmp_path / "far"
    root.mkdir()

    def no_link(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    real = os.open

    def no_nameless(path: object, flags: int, *more: object, **named: object) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(95, "Operation not supported")
        return real(path, flags, *more, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(tree, "_renameat2", None)
    monkeypatch.setattr(tree.os, "link", no_link)
    monkeypatch.setattr(module.os, "open", no_nameless)
    there = sender(root)
    assert there.send(job(source, "d/x.fits")).how == "copied"
    assert there.set_aside("d/x.fits", "damaged") == ".damaged/d/x.fits.1"
    there.send(job(source, "d/x.fits"))
    assert there.set_aside("d/x.fits", "damaged") == ".damaged/d/x.fits.2"
    made(root / "d" / "x.fits", b"other")
    with pytest.raises(ConflictError):
        there.send(job(source, "d/x.fits"))
    assert os.listdir(root / "d") == ["x.fits"]


def test_a_tree_that_is_too_deep(tmp_path: Path) -> None:
    root = tmp_path / "far"
    (root / "/".join(["d"] * 80)).mkdir(parents=True)
    with pytest.raises(RefusedError, match="deep"):
        list(sender(root).walk())


def test_pipes_and_devices_are_no_files(source: Path, tmp_path: Path) -> None:
    """Nothing waits for the other end of a pipe."""
    root = tmp_path / "far"
    root.mkdir()
    os.mkfifo(root / "pipe")
    there = sender(root)
    with pytest.raises(ConflictError):
        there.send(job(source, "pipe"))
    with pytest.raises(RefusedError):
        there.crc32c("pipe")
    assert list(there.walk()) == []


def test_a_sector_that_cannot_be_read(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F28: one bad file is no outage of its place; a place that cannot be written either is one."""
    root = tmp_path / "far"
    root.mkdir()
    there = sender(root)
    there.send(job(source, "d/x.fits"))

    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(module.os, "preadv", fail)
        with pytest.raises(UnreadableError, match="cannot read it"):
            there.crc32c("d/x.fits")
        with pytest.raises(OutageError):
            there.fetch("d/x.fits", tmp_path / "back")
        assert not (tmp_path / "back").exists()
        patched.setattr(there, "probe", lambda: fail())
        with pytest.raises(OutageError):
            there.crc32c("d/x.fits")
    assert there.set_aside("d/x.fits", "damaged")


def test_a_copy_for_a_repair_that_has_no_room(source: Path, small: Path, tmp_path: Path) -> None:
    """The local disk is at fault, and that is told."""
    root = tmp_path / "far"
    root.mkdir()
    there = sender(root)
    large = made(tmp_path / "from" / "large.fits", os.urandom(3 << 20))
    there.send(job(large, "x.fits"))
    with pytest.raises(StorageError, match="No space"):
        there.fetch("x.fits", small / "back")
    assert os.listdir(small) == []
