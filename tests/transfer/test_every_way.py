"""What every way to a place does, whatever its kind: the real thing stands behind each."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from far_places import KINDS, Far, far_place, job, made

from raftwright.errors import ConflictError, NotFoundError, StorageError
from raftwright.transfer.outcome import Job, OutageError, RefusedError

ODD = [
    "a b.fits",
    'it\'s "quoted".fits',
    "x;touch executed.fits",
    "$(touch executed).fits",
    "`touch executed`.fits",
    "new\nline.fits",
    "back\\slash.fits",
    "-rf.fits",
    "{file}{dest}{command}.fits",
    "100%41+&=#?.fits",
    "*.fits",
    "ü€.fits",
    "host:name.fits",
    "x" * 250 + ".fits",
]


@pytest.fixture(params=KINDS)
def far(request: pytest.FixtureRequest, tmp_path: Path, s3_url: str) -> Iterator[Far]:
    with far_place(request.param, tmp_path, s3_url, link="never") as found:
        yield found


def test_a_file_is_brought_and_looked_at(far: Far, tmp_path: Path) -> None:
    """D016, D136: the content is under its name and nothing else is left; the same again moves nothing."""
    far.sender.warm()
    far.sender.probe()
    source = made(tmp_path / "from" / "x.fits", os.urandom(300_000))
    sent = far.sender.send(job(source, "a/b/x.fits"))
    assert sent.bytes == 300_000
    assert far.files() == {"a/b/x.fits": source.read_bytes()}
    again = far.sender.send(job(source, "a/b/x.fits"))
    assert (again.how, again.bytes) == ("there already", 0)
    empty = made(tmp_path / "from" / "empty", b"")
    far.sender.send(job(empty, "a/empty"))
    assert far.files()["a/empty"] == b""


def test_what_is_there_is_never_overwritten(far: Far, tmp_path: Path) -> None:
    """D143, D149: the same name with other content is a conflict, and both stay as they are."""
    source = made(tmp_path / "from" / "x.fits", b"one content")
    for content in (b"", b"two content", b"a longer content"):
        far.put("d/x.fits", content)
        with pytest.raises(ConflictError, match="another content"):
            far.sender.send(job(source, "d/x.fits"))
        assert far.files() == {"d/x.fits": content}


def test_names_are_bytes_and_run_nothing(far: Far, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D009, D144: no name is taken for anything else, at either side."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(ODD):
        source = made(tmp_path / "from" / name, os.urandom(1000 + number))
        target = f"{name[:40]}/{name}"
        if set(name) & set({"s3": "\n", "webdav": "\n;?#%"}.get(far.place.kind, "")):
            with pytest.raises(RefusedError, match="control"):
                far.sender.send(job(source, target))
            assert far.files() == {}
            continue
        far.sender.send(job(source, target))
        assert far.files() == {target: source.read_bytes()}
        assert far.sender.crc32c(target) == job(source).crc32c
        assert list(far.sender.walk()) == [(target, 1000 + number)]
        assert far.sender.sizes(name[:40]) == {name: 1000 + number}
        back = tmp_path / f"back{number}"
        assert far.sender.fetch(target, back) == job(source).crc32c
        aside = far.sender.set_aside(target, "damaged")
        assert list(far.files()) == [aside]
        far.clear()
    assert not list(tmp_path.rglob("executed*"))


NONE = [
    *("../x", "a/../../x", "/x", "a//x", "a/./x", "a/", "", "..", "a\0b", "x" * 256, "y/" * 2000 + "x"),
    *(".raftwright-x", "a/.raftwright-x.part", ".damaged/x", ".conflict/x"),
]


def test_names_that_are_none(far: Far, tmp_path: Path) -> None:
    """D009: a name that leads out of the root, or is ours, is refused before anything is done."""
    source = made(tmp_path / "from" / "x.fits")
    outside = sorted(os.listdir(tmp_path))
    for target in NONE:
        wanted = Job(path=str(source), target=target, bytes=10, crc32c=job(source).crc32c)
        calls: list[Callable[[], object]] = [
            functools.partial(far.sender.send, wanted),
            functools.partial(far.sender.crc32c, target),
            functools.partial(far.sender.set_aside, target, "conflict"),
            functools.partial(far.sender.remove, target),
            functools.partial(far.sender.protect, target),
            functools.partial(far.sender.unprotect, target),
            functools.partial(far.sender.fetch, target, tmp_path / "back"),
        ]
        for call in calls:
            with pytest.raises(RefusedError):
                call()
    assert far.files() == {}
    assert sorted(os.listdir(tmp_path)) == outside


def test_a_name_that_is_no_unicode(far: Far, tmp_path: Path) -> None:
    """A directory and a command take every byte; what cannot is asked to refuse."""
    target = os.fsdecode(b"d/\xff\xfe.fits")
    source = made(tmp_path / "from" / os.fsdecode(b"\xff\xfe.fits"), b"content")
    wanted = Job(path=str(source), target=target, bytes=7, crc32c=job(source).crc32c)
    if far.place.kind in ("directory", "command"):
        far.sender.send(wanted)
        assert far.files() == {target: b"content"}
        assert list(far.sender.walk()) == [(target, 7)]
    else:
        with pytest.raises(RefusedError, match="UTF-8"):
            far.sender.send(wanted)
        assert far.files() == {}


def test_a_source_that_changed_is_refused(far: Far, tmp_path: Path) -> None:
    """D139: what is not what the ledger says does not go; nothing is left of it there."""
    source = made(tmp_path / "from" / "x.fits", os.urandom(5000))
    wanted = job(source, "d/x.fits")
    for content in (bytes(5000), os.urandom(4999), os.urandom(5001)):
        source.write_bytes(content)
        with pytest.raises(RefusedError):
            far.sender.send(wanted)
    source.unlink()
    with pytest.raises(RefusedError, match="cannot be read"):
        far.sender.send(wanted)
    source.mkdir()
    with pytest.raises(RefusedError):
        far.sender.send(wanted)
    assert far.files() == {}


def test_looking(far: Far, tmp_path: Path) -> None:
    """The walk of the audit: all files, and not what was set aside or is not ready."""
    source = made(tmp_path / "from" / "x.fits", os.urandom(2000))
    names = ["a/1.fits", "a/b/2.fits", "a/b/3.fits", "c/4.fits"]
    for name in names:
        far.sender.send(job(source, name))
    far.put("a/.raftwright-0123.part", b"not ready")
    assert sorted(far.sender.walk()) == [(name, 2000) for name in names]
    assert sorted(far.sender.walk("a/b")) == [("a/b/2.fits", 2000), ("a/b/3.fits", 2000)]
    assert dict(far.sender.sizes("a/b/")) == {"2.fits": 2000, "3.fits": 2000}
    assert far.sender.sizes("a").keys() >= {"1.fits"}
    assert list(far.sender.walk("nothing")) == []
    assert not far.sender.sizes("nothing")
    far.sender.set_aside("a/1.fits", "damaged")
    assert sorted(far.sender.walk()) == [(name, 2000) for name in names[1:]]


def test_a_replica_goes_bad_and_is_replaced(far: Far, tmp_path: Path) -> None:
    """A flipped bit is found by reading back; the damaged one is set aside, and the name is free again."""
    content = os.urandom(5000)
    source = made(tmp_path / "from" / "x.fits", content)
    wanted = job(source, "d/x.fits")
    bad = bytes([content[0] ^ 1]) + content[1:]
    for number in (1, 2, 3):
        far.sender.send(wanted)
        assert far.sender.crc32c("d/x.fits") == wanted.crc32c
        far.put("d/x.fits", bad)
        assert far.sender.crc32c("d/x.fits") != wanted.crc32c
        assert far.sender.set_aside("d/x.fits", "damaged") == f".damaged/d/x.fits.{number}"
        assert far.files()[f".damaged/d/x.fits.{number}"] == bad
        assert "d/x.fits" not in far.files()
    far.sender.send(wanted)
    assert far.sender.set_aside("d/x.fits", "conflict") == ".conflict/d/x.fits.1"


def test_a_copy_for_a_repair(far: Far, tmp_path: Path) -> None:
    """Fetched into a new file alone, and nothing is left where it fails."""
    source = made(tmp_path / "from" / "x.fits", os.urandom(3_000_000))
    far.sender.send(job(source, "d/x.fits"))
    back = tmp_path / "back"
    assert far.sender.fetch("d/x.fits", back) == job(source).crc32c
    assert back.read_bytes() == source.read_bytes()
    with pytest.raises(StorageError):
        far.sender.fetch("d/x.fits", back)
    assert back.read_bytes() == source.read_bytes()
    with pytest.raises(NotFoundError):
        far.sender.fetch("d/none.fits", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_what_is_not_there(far: Far) -> None:
    """D131: a file that somebody lost is told from a place that does not answer."""
    for call in (far.sender.crc32c, far.sender.protect, far.sender.unprotect):
        with pytest.raises(NotFoundError):
            call("d/none.fits")
    with pytest.raises(NotFoundError):
        far.sender.set_aside("d/none.fits", "damaged")
    assert far.sender.remove("d/none.fits") is False


def test_removing(far: Far, tmp_path: Path) -> None:
    source = made(tmp_path / "from" / "x.fits")
    far.sender.send(job(source, "d/x.fits"))
    far.sender.send(job(source, "d/y.fits"))
    assert far.sender.remove("d/x.fits") is True
    assert far.sender.remove("d/x.fits") is False
    assert list(far.files()) == ["d/y.fits"]


def test_a_root_that_went(far: Far, tmp_path: Path) -> None:
    """D148: an outage, not a loss: nothing is made in its place, and no file is told to be lost."""
    source = made(tmp_path / "from" / "x.fits")
    far.sender.send(job(source, "d/x.fits"))
    if far.place.kind == "s3":
        pytest.skip("a bucket does not go by itself")
    (tmp_path / "far").rename(tmp_path / "gone")
    with pytest.raises(OutageError):
        far.sender.probe()
    with pytest.raises(OutageError):
        far.sender.send(job(source, "e/y.fits"))
    with pytest.raises((OutageError, NotFoundError)) as caught:
        far.sender.crc32c("d/x.fits")
    if far.place.kind != "webdav":
        assert caught.type is OutageError
    with pytest.raises(OutageError):
        list(far.sender.walk())
    assert not (tmp_path / "far").exists()
    (tmp_path / "gone").rename(tmp_path / "far")
    far.sender.send(job(source, "e/y.fits"))


def test_many_at_once(far: Far, tmp_path: Path) -> None:
    """Several threads bring several contents under one name: one wins, the others are told, none is torn."""
    import threading

    sources = [made(tmp_path / f"from{n}" / "x.fits", bytes([n]) * 100_000) for n in range(3)]
    ends: list[str] = []

    def work(path: Path) -> None:
        for _ in range(20):
            try:
                ends.append(far.sender.send(job(path, "d/x.fits")).how)
                return
            except ConflictError:
                ends.append("conflict")
                return
            except (RefusedError, OutageError):  # wsgidav says 500 where two move at once
                continue

    threads = [threading.Thread(target=work, args=(path,)) for path in (*sources, *sources)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ends) == 6
    assert ends.count("conflict") == 4, ends
    assert list(far.files()) == ["d/x.fits"]
    assert far.files()["d/x.fits"] in [path.read_bytes() for path in sources]
