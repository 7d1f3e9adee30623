"""A mirror that runs: what is written appears at the far side as it is, and what it replaces is kept."""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from mirror_stand import Stand, wait_for


def test_only_what_was_brought_is_marked_and_removed(stand: Stand) -> None:
    """Something else that has got the name of a file that is gone is none of the mirror's, and stays."""
    for name in ("a", "b", "c"):
        stand.write(name, name.encode() * 100)
    (stand.source / "link").symlink_to("a")
    how: dict[str, Any] = {
        "deleted": "remove-after",
        "remove_after": 0.5,
        "gone_after": 0.2,
        "watch": "always",
    }
    with stand.mirror(**how) as mirror:
        wait_for(stand.same, why=mirror.status)
        (stand.far / "a").write_bytes(b"somebody's own")
        (stand.far / "b").unlink()
        (stand.far / "b").mkdir()
        (stand.far / "link").unlink()
        (stand.far / "link").symlink_to("c")
        for name in ("a", "b", "c", "link"):
            (stand.source / name).unlink()
        wait_for(lambda: not (stand.far / "c").exists(), why=mirror.status)
        wait_for(lambda: not list((stand.far / ".versions").rglob("v1-*")), why=mirror.status)
        time.sleep(0.5)
    assert (stand.far / "a").read_bytes() == b"somebody's own"
    assert (stand.far / "b").is_dir()
    assert os.readlink(stand.far / "link") == "c"


@pytest.mark.parametrize("watch", ["always", "never"])
def test_new_changed_renamed_and_deleted(stand: Stand, watch: str) -> None:
    """D173, N37: each is found within moments, with notices and without; what changed is kept."""
    stand.write("20261122/a.fits", b"first")
    stand.write("20261122/b.fits", b"b" * 3000)
    with stand.mirror(watch=watch, deleted="mark", gone_after=2.0) as mirror:
        wait_for(stand.same, why=mirror.status)
        stand.write("20261122/late/c.fits", b"c")
        wait_for(stand.same, why=mirror.status)
        stand.write("20261122/a.fits", b"second")
        wait_for(stand.same, why=mirror.status)
        assert stand.versions() == {"20261122/a.fits": [b"first"]}
        os.rename(stand.source / "20261122/b.fits", stand.source / "20261122/d.fits")
        wait_for(stand.same, why=mirror.status)
        os.rename(stand.source / "20261122", stand.source / "20261123")
        wait_for(stand.same, why=mirror.status)
        (stand.source / "20261123/d.fits").unlink()
        wait_for(stand.same, why=mirror.status)
    moved = [item["path"] for item in stand.news if item.get("how") == "renamed"]
    assert sorted(moved) == [
        "20261122/d.fits",
        "20261123/a.fits",
        "20261123/d.fits",
        "20261123/late/c.fits",
    ]
    assert stand.versions() == {"20261122/a.fits": [b"first"], "20261123/d.fits": [b"b" * 3000]}


def test_a_slow_writer_is_never_brought_early(stand: Stand) -> None:
    """D129, D139: a file that is held open for writing is not whole, however long nothing comes."""
    with stand.mirror() as mirror, (stand.source / "slow.fits").open("wb") as stream:
        for piece in range(4):
            stream.write(b"%d" % piece * 1000)
            stream.flush()
            time.sleep(0.5)  # more than twice what settles a file
            assert stand.there() == {}
        stream.close()
        wait_for(stand.same, why=mirror.status)
    assert stand.versions() == {}


@pytest.mark.parametrize("watch", ["always", "never"])
def test_a_writer_that_opens_it_again_and_again(stand: Stand, watch: str) -> None:
    """D129: pieces that come with the file closed in between, as over a network: what is brought of it is
    never a mixture, and the end is the whole."""
    pieces = [bytes([n]) * 10_000 for n in range(20)]
    with stand.mirror(watch=watch, settle=0.4, calm=0.3) as mirror:
        for piece in pieces:
            with (stand.source / "appended.fits").open("ab") as stream:
                stream.write(piece)
            time.sleep(0.05)
        wait_for(stand.same, why=mirror.status)
    assert stand.versions() == {}, "it was brought before it was whole"


def test_a_hidden_name_that_is_renamed_at_the_end(stand: Stand) -> None:
    """D129: as rsync and many others write. The content is brought once, and has the final name."""
    with stand.mirror(watch="always", exclude=[".*"]) as mirror:
        hidden = stand.write(".x.fits.Ab3dEf", os.urandom(100_000))
        time.sleep(0.4)
        assert stand.there() == {}
        os.rename(hidden, stand.source / "x.fits")
        begun = time.monotonic()
        wait_for(lambda: "x.fits" in stand.there(), why=mirror.status)
        assert time.monotonic() - begun < 1.0
        assert stand.same()


def test_a_new_file_is_there_within_a_second(stand: Stand) -> None:
    """N37: seen by its notice, and verified; passes are too far apart to find it."""
    stand.write("deep/down/old", b"old")
    with stand.mirror(every=60.0, settle=5.0, calm=0.2) as mirror:
        wait_for(stand.same, 15, mirror.status)
        for number in range(5):
            begun = time.monotonic()
            stand.write(f"deep/down/{number}.fits", os.urandom(50_000))
            wait_for(stand.same, why=mirror.status)
            assert time.monotonic() - begun < 1.0
        begun = time.monotonic()
        stand.write("deep/new/directory/x.fits", b"in a directory that is new")
        wait_for(lambda: "deep/new/directory/x.fits" in stand.there(), why=mirror.status)
        assert time.monotonic() - begun < 1.0


def test_content_that_changes_in_place_without_notices(stand: Stand) -> None:
    """The directory's times stay: what changed lately is looked at in quick passes, the rest in full ones."""
    path = stand.write("a/in-place", b"one")
    other = stand.write("a/cold", b"one")
    with stand.mirror(watch="never", hot=0.0, full=1.5) as mirror:
        wait_for(stand.same, why=mirror.status)
        time.sleep(0.5)
        for one in (path, other):
            with one.open("r+b") as stream:
                stream.write(b"two")
        assert stand.there()["a/cold"] == b"one"
        wait_for(stand.same, why=mirror.status)
    assert stand.versions() == {"a/in-place": [b"one"], "a/cold": [b"one"]}
    with stand.mirror(watch="never", hot=60.0, full=600.0) as mirror:
        wait_for(lambda: mirror.idle)
        with path.open("r+b") as stream:
            stream.write(b"six")
        wait_for(stand.same, why=mirror.status)
    assert stand.versions()["a/in-place"] == [b"one", b"two"]


def test_what_changed_just_before_the_first_pass_is_looked_at_too(stand: Stand) -> None:
    """It is as likely to change in place as what changed just after it."""
    path = stand.write("a/fresh", b"one")
    with stand.mirror(watch="never", hot=60.0, full=600.0) as mirror:
        wait_for(stand.same, why=mirror.status)
        with path.open("r+b") as stream:
            stream.write(b"two")
        wait_for(stand.same, why=mirror.status)
    assert stand.versions() == {"a/fresh": [b"one"]}


def test_same_size_and_times_but_another_content(stand: Stand) -> None:
    """Who sets the times back is given away by the time of the change itself."""
    path = stand.write("a.fits", b"AAAA")
    before = path.stat()
    stand.once()
    with path.open("r+b") as stream:
        stream.write(b"BBBB")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    stand.once()
    assert stand.there() == {"a.fits": b"BBBB"}
    assert stand.versions() == {"a.fits": [b"AAAA"]}


def test_a_content_that_no_time_gives_away_is_found_by_its_sum(stand: Stand) -> None:
    """What is remembered of the file is made to be that of the new content: as with a clock that was set."""
    from raftwright.mirror.manifest import Manifest
    from raftwright.mirror.tree import facts_of

    path = stand.write("a.fits", b"AAAA")
    stand.once()
    path.write_bytes(b"BBBB")
    manifest = Manifest(stand.manifest)
    with manifest.transaction() as run:
        now = facts_of(path.stat())
        run("UPDATE entry SET mtime = ?, ctime = ?, inode = ?", (now.mtime, now.ctime, now.inode))
    manifest.close()
    stand.once()
    assert stand.there() == {"a.fits": b"AAAA"}
    stand.once(checksum=True)
    assert stand.there() == {"a.fits": b"BBBB"}
    assert stand.versions() == {"a.fits": [b"AAAA"]}


def test_touched_is_not_changed(stand: Stand) -> None:
    """D140: other times and modes are looked at once; nothing is brought, and an idle pass reads no data."""
    path = stand.write("a.fits", b"content")
    stand.once()
    os.utime(path, ns=(1, 1))
    path.chmod(0o600)
    assert [item["how"] for item in stand.once()] == ["same"]
    assert (stand.far / "a.fits").stat().st_mtime_ns == 1
    assert stand.once() == []
    assert stand.versions() == {}


def test_contents_that_go_back_and_forth(stand: Stand) -> None:
    """D143: each is a version of its own, in order, and none takes the place of another."""
    contents = [b"A", b"B", b"A", b"B", b"A"]
    for content in contents:
        stand.write("a.fits", content)
        stand.once()
    assert stand.there() == {"a.fits": b"A"}
    assert stand.versions() == {"a.fits": contents[:-1]}


def test_one_content_under_several_names(stand: Stand) -> None:
    """D150: hard links and equal contents are files of their own there, and cause no loop."""
    path = stand.write("a/x.fits", b"content")
    os.link(path, stand.source / "y.fits")
    stand.write("b/x.fits", b"content")
    with stand.mirror(watch="always") as mirror:
        wait_for(stand.same, why=mirror.status)
        inodes = {(stand.far / name).stat().st_ino for name in ("a/x.fits", "y.fits", "b/x.fits")}
        assert len(inodes) == 3
        path.write_bytes(b"changed, under both names")
        wait_for(stand.same, why=mirror.status)
        (stand.source / "y.fits").unlink()  # one name less: the other is no renamed one
        time.sleep(0.5)
        assert mirror.idle
    assert stand.there()["a/x.fits"] == b"changed, under both names"
    assert stand.once() == []


def test_files_with_holes(stand: Stand) -> None:
    path = stand.source / "sparse"
    with path.open("wb") as stream:
        stream.truncate(20_000_000)
        stream.seek(10_000_000)
        stream.write(b"in the middle")
    stand.once()
    assert stand.same()
    assert (stand.far / "sparse").stat().st_mtime_ns == path.stat().st_mtime_ns


def test_a_name_becomes_a_directory_and_back(stand: Stand) -> None:
    """Whatever stood there is kept as a version; nothing is written through what is in the way."""
    stand.write("name", b"a file")
    stand.once()
    (stand.source / "name").unlink()
    stand.write("name/below/file", b"in a directory")
    for number in range(20):
        stand.write(f"name/{number}", b"many are brought at a time")
    assert {item["state"] for item in stand.once()} == {"mirrored"}
    assert stand.same()
    assert stand.versions() == {"name": [b"a file"]}
    shutil.rmtree(stand.source / "name")
    os.symlink("elsewhere", stand.source / "name")
    stand.once()
    assert stand.there() == {"name": b"elsewhere"}
    (stand.source / "name").unlink()
    stand.write("name", b"a file again")
    stand.once()
    assert stand.there() == {"name": b"a file again"}
    kept = stand.far / ".versions" / "name"
    assert os.listdir(kept / "below" / "file")
    assert any(entry.is_symlink() for entry in kept.iterdir())


def test_a_directory_that_goes_while_it_is_walked(stand: Stand) -> None:
    """Trees are made, renamed and removed all the time; at the end both sides are the same."""
    chance = random.Random(20261122)
    stop = threading.Event()

    def churn() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            top = stand.source / f"t{number % 5}"
            for sub in range(3):
                stand.write(f"{top.name}/s{sub}/f{number % 7}", os.urandom(chance.randrange(100)))
            try:
                os.rename(top, stand.source / f"r{number % 3}")
            except OSError:
                os.rename(top / "s0", stand.source / f"x{number}")
            if number % 4 == 0:
                shutil.rmtree(stand.source / f"r{number % 3}", ignore_errors=True)

    with stand.mirror(watch="always", deleted="mark", brake=1.0) as mirror:
        thread = threading.Thread(target=churn)
        thread.start()
        time.sleep(2.5)
        stop.set()
        thread.join()
        wait_for(stand.same, 20, lambda: (mirror.status(), set(stand.files()) ^ set(stand.there())))
        assert mirror.faults.count == 0


def test_a_file_that_changes_while_it_is_sent(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has a name there was once the whole file, never a mixture of two."""
    from raftwright.transfer import directory

    path = stand.write("big.fits", b"a" * 3_000_000)
    real = directory.pour
    changed: list[bool] = []

    def pour(*arguments: object) -> int:
        if not changed:
            changed.append(True)
            path.write_bytes(b"b" * 3_000_000)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(directory, "pour", pour)
    stand.once()
    assert stand.there() == {"big.fits": b"b" * 3_000_000}
    assert stand.versions() == {}


def test_the_first_mirror_goes_on_where_it_was_stopped(stand: Stand) -> None:
    for number in range(300):
        stand.write(f"{number % 10}/{number}", os.urandom(1000))
    with stand.mirror(once=True) as mirror:
        wait_for(lambda: len(stand.there()) > 50)
        mirror.stop(0.0)
    there = set(stand.there())
    assert 50 < len(there) < 300
    done = stand.once()
    assert stand.same()
    brought = {item["path"] for item in done if item["how"] == "new"}
    assert len(brought & there) <= 4, "what was there was brought again"


def test_a_manifest_that_is_lost_costs_no_transfer(stand: Stand) -> None:
    for number in range(20):
        stand.write(f"{number}", os.urandom(1000))
    stand.once()
    for path in stand.path.glob("manifest.db*"):
        path.unlink()
    assert {item["how"] for item in stand.once()} == {"same"}
    assert stand.once() == []


def test_two_mirrors_do_not_share_a_manifest(stand: Stand) -> None:
    from raftwright.errors import UsageError

    with stand.mirror(), pytest.raises(UsageError, match="another mirror works with it"), stand.mirror():
        pass


def test_a_full_queue_of_notices(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the kernel says that notices were lost a full pass finds what they were of."""
    from raftwright.service import inotify

    path = stand.write("a", b"one")
    with stand.mirror(every=0.2, full=600.0, hot=0.0, watch="always") as mirror:
        wait_for(stand.same, why=mirror.status)
        time.sleep(0.3)
        real = inotify.Inotify.read

        def lost(self: inotify.Inotify, seconds: float) -> list[inotify.Notice]:
            found = real(self, seconds)
            return [inotify.Notice(-1, 0x4000, "")] if found else []

        monkeypatch.setattr(inotify.Inotify, "read", lost)
        with path.open("r+b") as stream:
            stream.write(b"two")
        wait_for(stand.same, why=mirror.status)


def test_no_watches_to_be_had(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told, and passes do the work."""
    import errno

    from raftwright.errors import StorageError
    from raftwright.service import inotify

    def none(self: inotify.Inotify, directory: int) -> int:
        raise StorageError(
            errno.ENOSPC, "no more watches can be had; raise fs.inotify.max_user_watches", "inotify"
        )

    monkeypatch.setattr(inotify.Inotify, "add", none)
    path = stand.write("a/b", b"one")
    with stand.mirror(watch="always") as mirror:
        wait_for(stand.same, why=mirror.status)
        assert any("max_user_watches" in problem for problem in mirror.status()["problems"])
        path.write_bytes(b"two")
        stand.write("c", b"new")
        wait_for(stand.same, why=mirror.status)


def test_a_tree_that_is_not_mounted(stand: Stand) -> None:
    """Nothing is taken as deleted; it goes on when the tree is back."""
    stand.write("a", b"a")
    stand.write("b", b"b")
    with stand.mirror(deleted="mark", watch="always") as mirror:
        wait_for(stand.same, why=mirror.status)
        away = stand.path / "away"
        os.rename(stand.source, away)
        wait_for(lambda: any("mounted" in problem for problem in mirror.status()["problems"]))
        stand.source.mkdir()  # the empty directory that a file system is mounted on
        time.sleep(1.0)
        assert any("mounted" in problem for problem in mirror.status()["problems"])
        assert stand.there() == {"a": b"a", "b": b"b"}
        stand.source.rmdir()
        os.rename(away, stand.source)
        stand.write("c", b"c")
        wait_for(stand.same, why=mirror.status)
        assert mirror.status()["problems"] == []


def test_what_cannot_be_read_is_told_and_holds_nothing(stand: Stand) -> None:
    if os.getuid() == 0:
        pytest.skip("root reads all")
    stand.write("closed/a", b"a")
    stand.write("open/b", b"b")
    os.chmod(stand.source / "closed", 0)
    try:
        with stand.mirror() as mirror:
            wait_for(lambda: "open/b" in stand.there())
            assert any("closed" in problem for problem in mirror.status()["problems"])
    finally:
        os.chmod(stand.source / "closed", 0o755)


def test_clocks_that_are_set(stand: Stand) -> None:
    """Times of files far in the past and in the future mean nothing but that they are others."""
    old, new = stand.write("old", b"old"), stand.write("new", b"new")
    os.utime(old, (0, 0))
    os.utime(new, (4_000_000_000, 4_000_000_000))
    with stand.mirror(watch="never") as mirror:
        wait_for(stand.same, why=mirror.status)
        for path in (old, new):
            path.write_bytes(b"another")
            os.utime(path, (1_000_000_000, 1_000_000_000))
        wait_for(stand.same, why=mirror.status)
    assert (stand.far / "new").stat().st_mtime == 1_000_000_000
    assert stand.versions() == {"old": [b"old"], "new": [b"new"]}


def test_reserved_names_are_told(stand: Stand) -> None:
    """A tree that is a far side itself: what it keeps is not mixed with what we keep."""
    stand.write(".versions/a/v1-00000000", b"theirs")
    stand.write("a", b"ours")
    done = stand.once()
    assert stand.there() == {"a": b"ours"}
    assert stand.versions() == {}
    assert {item["state"] for item in done if item["path"].startswith(".versions")} == {"conflict"}


def test_the_source_is_never_written(stand: Stand) -> None:
    stand.write("d/a", b"a")
    before = {
        path: path.stat().st_mtime_ns for path in (stand.source, stand.source / "d", stand.source / "d/a")
    }
    with stand.mirror(watch="always") as mirror:
        wait_for(stand.same, why=mirror.status)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert [p.name for p in Path(stand.source).rglob("*")] == ["d", "a"]


def test_a_tree_that_is_not_there_yet(stand: Stand) -> None:
    """It is waited for, and watched once it is there."""
    stand.source.rmdir()
    with stand.mirror(every=1.0, full=600.0, hot=0.0, watch="always") as mirror:
        wait_for(lambda: any("mounted" in problem for problem in mirror.status()["problems"]))
        path = stand.write("a", b"one")
        wait_for(stand.same, why=mirror.status)
        with path.open("r+b") as stream:
            stream.write(b"two")
        wait_for(stand.same, why=mirror.status)
        assert mirror.status()["trees"]["tree"]["watched"]
