"""A directory as a destination."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from raftwright.archiver import Destination
from raftwright.errors import ConflictError
from raftwright.rawfile.standing import digest
from raftwright.transfer import directory as module
from raftwright.transfer.directory import DirectorySender
from raftwright.transfer.outcome import Job, OutageError, RefusedError

NAMES = [
    "plain.fits",
    "a b.fits",
    "it's.fits",
    "x;touch y.fits",
    "new\nline.fits",
    '"quoted" $HOME.fits',
    "-rf.fits",
]


def sender(root: Path, **more: str) -> DirectorySender:
    return DirectorySender(Destination(name="place", kind="directory", root=str(root), **more))  # type: ignore[arg-type]


def job(path: Path, target: str = "") -> Job:
    found = digest(path)
    return Job(path=str(path), target=target or path.name, bytes=found.bytes, crc32c=found.crc32c)


def made(path: Path, content: bytes = b"\r\n\x1a content") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A directory on another file system."""
    for base in ("/dev/shm", "/var/tmp", "/tmp"):
        if (
            os.path.isdir(base)
            and os.access(base, os.W_OK)
            and os.stat(base).st_dev != os.stat(tmp_path).st_dev
        ):
            with TemporaryDirectory(dir=base) as found:
                yield Path(found)
            return
    pytest.skip("there is one file system only")


@pytest.mark.parametrize("link", ["auto", "never"])
@pytest.mark.parametrize("name", NAMES)
def test_files_whatever_they_are_called(name: str, link: str, tmp_path: Path) -> None:
    """D009, D079: no name goes through a shell, and bytes are bytes."""
    source = made(tmp_path / "from" / name)
    to = tmp_path / "to"
    to.mkdir()
    there = sender(to, link=link)
    sent = there.send(job(source, f"a/b/{name}"))
    assert sent.how == ("linked" if link == "auto" else "copied")
    assert [path.name for path in (to / "a" / "b").iterdir()] == [name]
    assert (to / "a" / "b" / name).read_bytes() == source.read_bytes()
    assert (to / "a" / "b" / name).samefile(source) == (link == "auto")
    assert there.send(job(source, f"a/b/{name}")).how == "there already"


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    """D017, D063, F23, F24: equal content is success and no new copy; another is left as it is."""
    source = made(tmp_path / "from" / "x.fits")
    for link in ("auto", "never"):
        to = tmp_path / link
        there = sender(to, link=link)
        twin = made(to / "x.fits", source.read_bytes())
        before = twin.stat()
        assert there.send(job(source)).how == "there already"
        assert twin.stat().st_ino == before.st_ino
        for content in (b"", b"\r\n\x1a Content", b"much longer than the other one"):
            other = made(to / "other.fits", content)
            with pytest.raises(ConflictError, match="another content"):
                there.send(job(source, "other.fits"))
            assert other.read_bytes() == content
        (to / "dir.fits").mkdir()
        with pytest.raises(ConflictError, match="no file"):
            there.send(job(source, "dir.fits"))
        (to / "dangling.fits").symlink_to("nowhere")
        with pytest.raises(ConflictError, match="no file"):
            there.send(job(source, "dangling.fits"))
        assert sorted(p.name for p in to.iterdir()) == ["dangling.fits", "dir.fits", "other.fits", "x.fits"]


def test_two_file_systems_are_found_at_the_start(elsewhere: Path, tmp_path: Path) -> None:
    """F45: nothing can be linked there, so it is copied, looked at and named."""
    source = made(tmp_path / "from" / "x.fits", os.urandom(300_000))
    there = sender(elsewhere)
    assert there.links_from(tmp_path / "from") is False
    assert list(elsewhere.iterdir()) == []
    assert os.listdir(tmp_path / "from") == ["x.fits"]
    assert there.send(job(source, "d/x.fits")).how == "copied"
    assert (elsewhere / "d" / "x.fits").read_bytes() == source.read_bytes()
    assert stat.S_IMODE((elsewhere / "d" / "x.fits").stat().st_mode) == stat.S_IMODE(source.stat().st_mode)
    # Not known before: it is found out with the first file.
    assert sender(elsewhere).send(job(source, "e/x.fits")).how == "copied"


def test_a_root_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """What is not mounted is an outage, and nothing is written in its place."""
    source = made(tmp_path / "from" / "x.fits")
    there = sender(tmp_path / "mnt")
    with pytest.raises(OutageError, match="no such directory"):
        there.probe()
    with pytest.raises(OutageError, match="no such directory"):
        there.send(job(source, "d/x.fits"))
    assert not (tmp_path / "mnt").exists()
    (tmp_path / "mnt").mkdir()
    there.probe()
    assert there.send(job(source, "d/x.fits")).how == "linked"
    assert os.listdir(tmp_path / "mnt") == ["d"]


def test_a_source_that_changed_is_refused(tmp_path: Path) -> None:
    """D016, F28: a flipped bit between the ledger and the place is found, and nothing is left there."""
    source = made(tmp_path / "from" / "x.fits", os.urandom(5000))
    wanted = job(source, "d/x.fits")
    content = bytearray(source.read_bytes())
    content[777] ^= 4
    source.write_bytes(content)
    to = tmp_path / "to"
    to.mkdir()
    with pytest.raises(RefusedError, match="CRC-32C"):
        sender(to, link="never").send(wanted)
    source.write_bytes(content[:-1])
    with pytest.raises(RefusedError, match="4999 bytes"):
        sender(to).send(wanted)
    source.unlink()
    with pytest.raises(RefusedError, match="cannot be read"):
        sender(to).send(wanted)
    assert [path for path in to.rglob("*") if path.is_file()] == []


def test_sizes_beyond_32_bits(tmp_path: Path) -> None:
    """D145."""
    source = tmp_path / "from.fits"
    with source.open("wb") as stream:
        stream.truncate((4 << 30) + 5)
    to = tmp_path / "to"
    to.mkdir()
    size = source.stat().st_size
    assert (
        sender(to).send(Job(path=str(source), target="x.fits", bytes=size, crc32c="00000000")).how == "linked"
    )
    assert (to / "x.fits").stat().st_size == (4 << 30) + 5


def test_without_files_that_have_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File systems without O_TMPFILE: a hidden name, and what others left there is cleared away in time."""
    real = os.open

    def refusing(path: object, flags: int, *more: object, **named: object) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(95, "Operation not supported")
        return real(path, flags, *more, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(module.os, "open", refusing)
    source = made(tmp_path / "from" / "x.fits")
    to = tmp_path / "to"
    old, young = made(to / ".raftwright-old"), made(to / ".raftwright-young")
    os.utime(old, (1, 1))
    assert sender(to, link="never").send(job(source)).how == "copied"
    assert sorted(os.listdir(to)) == [".raftwright-young", "x.fits"]
    assert young.exists()


def test_many_at_once_under_one_name(tmp_path: Path) -> None:
    """One of several contents wins, the others are told; the name never has anything torn."""
    to = tmp_path / "to"
    to.mkdir()
    sources = [made(tmp_path / f"from{n}" / "x.fits", bytes([n]) * 200_000) for n in range(4)]
    outcomes: list[str] = []

    def work(path: Path) -> None:
        try:
            outcomes.append(sender(to, link="never").send(job(path)).how)
        except ConflictError:
            outcomes.append("conflict")

    threads = [threading.Thread(target=work, args=(path,)) for path in (*sources, *sources)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["conflict"] * 6 + ["copied", "there already"]
    assert os.listdir(to) == ["x.fits"]
    assert (to / "x.fits").read_bytes() in [path.read_bytes() for path in sources]


_COPIER = """
import sys
from raftwright.archiver import Destination
from raftwright.transfer.outcome import Job
from raftwright.transfer.directory import DirectorySender
path, root, size, crc = sys.argv[1:]
sender = DirectorySender(Destination(name="place", kind="directory", root=root, link="never"))
print("ready", flush=True)
for n in range(1000):
    sender.send(Job(path=path, target=f"d/{n}.fits", bytes=int(size), crc32c=crc))
"""


def test_a_sender_that_is_killed_leaves_nothing_torn(tmp_path: Path) -> None:
    """D010, D007: no reader ever sees a short file, and nothing is left over."""
    source = made(tmp_path / "from.fits", os.urandom(3_000_000))
    to = tmp_path / "to"
    to.mkdir()
    wanted = job(source)
    for pause in (0.0, 0.02, 0.05, 0.11):
        process = subprocess.Popen(
            [sys.executable, "-c", _COPIER, str(source), str(to), str(wanted.bytes), wanted.crc32c],
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(pause)
        process.kill()
        process.wait()
        process.stdout.close()
        for path in to.rglob("*"):
            if path.is_file():
                assert not path.name.startswith("."), "it left something"
                assert path.stat().st_size == wanted.bytes
    assert any(path.is_file() for path in to.rglob("*"))
