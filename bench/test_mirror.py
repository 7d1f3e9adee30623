"""A mirror of 200 000 small files that do not change, against rsync: `pytest bench/test_mirror.py -s`.

Both look at the same trees, which the page cache holds. A *pass* is the walk that a running mirror makes
every few seconds: it looks at the times of directories. A content that changes in place leaves those as
they are; it is
found by notices, and otherwise by the *full* pass, which looks at every file, on a slower schedule and at
each start. Both are measured. The right result is looked at as well: one file that is new, one that is gone
and one that changed in place are found among the others.

RAFTWRIGHT_BENCH_FILES (200000). RAFTWRIGHT_BENCH_DISK: where the trees are.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from raftwright.mirror import Mirror, Settings, TreeSettings
from raftwright.mirror.finding import Finder
from raftwright.mirror.manifest import Manifest
from raftwright.mirror.mirroring import TreeMirror
from raftwright.mirror.tree import Tree
from raftwright.service.inotify import Inotify
from raftwright.transfer.place import Place

FILES = int(os.environ.get("RAFTWRIGHT_BENCH_FILES", "200000"))
IN_A_DIRECTORY = 100
FASTER = 5.0
"""A pass, against rsync with nothing to do."""
FULL = 3.0
"""A full pass, which looks at every file, against the same."""
LESS = 1.5
"""The same in seconds of processors: both use several."""
SOON = 1.0
"""Seconds from a file that is closed to its verified copy."""
ROUNDS = 5


@pytest.fixture(scope="module")
def disk() -> Iterator[Path]:
    name = Path(tempfile.mkdtemp(dir=os.environ.get("RAFTWRIGHT_BENCH_DISK")))
    try:
        yield name
    finally:
        shutil.rmtree(name)


@pytest.fixture(scope="module")
def tree(disk: Path) -> Path:
    """Nights of images of 100 files each."""
    if shutil.which("rsync") is None:
        pytest.skip("there is no rsync here")
    source = disk / "source"
    for number in range(FILES // IN_A_DIRECTORY):
        directory = source / f"2026{1122 + number // 100}" / f"MC_C_{number:06d}"
        directory.mkdir(parents=True)
        for one in range(IN_A_DIRECTORY):
            file = os.open(directory / f"MC_C_{number:06d}_R22_S{one:02d}.fits", os.O_CREAT | os.O_WRONLY)
            os.write(file, b"%d %d" % (number, one))
            os.close(file)
    subprocess.run(["rsync", "-a", f"{source}/", f"{disk}/far/"], check=True, timeout=1200)
    return source


def settings(disk: Path, **more: object) -> TreeSettings:
    place = Place(name="far", kind="directory", root=str(disk / "far"))
    values = {"source": str(disk / "source"), "to": place, "manifest": str(disk / "manifest.db"), **more}
    return TreeSettings(name="tree", **values)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def mirrored(tree: Path, disk: Path) -> TreeSettings:
    """Every file looked at, read at both sides and found to be the same: as after a first full mirror."""
    found = settings(disk, settle=0.5)
    begun = time.monotonic()
    with Mirror(Settings(trees=[found]), disk, once=True) as mirror:
        while not mirror.idle:
            time.sleep(0.1)
        counts = mirror.trees["tree"].manifest.counts()
    print(f"\n{FILES} files that were there already, read and compared in {time.monotonic() - begun:.1f} s")
    assert counts["files"] == {"mirrored": FILES}
    return found


def taken(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and seconds of processors, of us and of those that we started."""
    begun, before = time.perf_counter(), os.times()
    work()
    after = os.times()
    return time.perf_counter() - begun, sum(after[:4]) - sum(before[:4])


@pytest.mark.timeout(1800)
def test_a_pass_over_files_that_do_not_change(mirrored: TreeSettings, disk: Path) -> None:
    source = disk / "source"
    rsync = ["rsync", "-a", f"{source}/", f"{disk}/far/"]
    manifest = Manifest(disk / "manifest.db")
    tree = Tree(str(source))
    tree.open()
    watches = Inotify()
    with contextlib.closing(manifest), contextlib.closing(watches), contextlib.closing(tree):
        for how, watched in (("passes alone", None), ("with notices", watches)):
            begun = time.perf_counter()
            finder = Finder(tree, manifest, mirrored, watches=watched)
            first = finder.pass_(full=True)
            started = time.perf_counter() - begun
            assert (first.files, first.new, first.changed, first.gone) == (FILES, 0, 0, 0)
            time.sleep(2.1)
            finder.pass_(full=False)  # trusts what it has read twice
            rounds = [  # in turn, so that whatever else runs here is the same for all
                (
                    taken(lambda: subprocess.run(rsync, check=True, timeout=600)),
                    taken(lambda finder=finder: finder.pass_(full=True)),  # type: ignore[misc]
                    taken(lambda finder=finder: finder.pass_(full=False)),  # type: ignore[misc]
                )
                for _ in range(ROUNDS)
            ]
            last = finder.last
            assert last is not None
            assert (last.read, last.new, last.changed, last.gone) == (0, 0, 0, 0)
            assert not manifest.waiting()
            (theirs, their_cpu), (full, full_cpu), (quick, _) = (
                (min(seconds for seconds, _ in one), min(cpu for _, cpu in one))
                for one in zip(*rounds, strict=True)
            )
            print(
                f"\n{FILES} files in {len(finder.directories)} directories, {how}: rsync -a {theirs:.3f} s"
                f" ({their_cpu:.2f} s of processors); a pass {quick * 1e3:.1f} ms ({theirs / quick:.0f}"
                f" x); a full pass"
                f" {full:.3f} s ({theirs / full:.2f} x; {full_cpu:.2f} s), the first of a process"
                f" {started:.3f} s"
            )
            assert theirs >= FASTER * quick
            assert theirs >= FULL * full
            assert their_cpu >= LESS * full_cpu
            _finds(finder, manifest, source)


def _finds(finder: Finder, manifest: Manifest, source: Path) -> None:
    """The passes that are so fast do see what is there to be seen."""
    directory = next(source.glob("*/*"))
    new, gone, changed = directory / "new", directory / "gone", sorted(directory.glob("*.fits"))[7]
    gone.write_bytes(b"gone")
    finder.pass_(full=False)
    before = changed.read_bytes()
    new.write_bytes(b"new")
    gone.unlink()
    changed.write_bytes(before[::-1])
    finder.pass_(full=False)
    for path, state in ((new, "waiting"), (gone, "gone"), (changed, "waiting")):
        entry = manifest.at(os.path.relpath(path, source))
        assert entry is not None
        assert entry.state == state, path
    other = sorted(directory.parent.glob("*/*.fits"))[-1]  # in place, in a directory whose times stay
    content = other.read_bytes()
    other.write_bytes(content[::-1])
    assert finder.pass_(full=True).changed == 1
    changed.write_bytes(before)
    other.write_bytes(content)
    new.unlink()
    finder.pass_(full=True)
    manifest.all_again("gone")
    with manifest.transaction() as run:  # as if it had been mirrored, which is not what is measured
        run("DELETE FROM entry WHERE name IN ('new', 'gone', X'6e6577', X'676f6e65')")
        run("UPDATE entry SET state = 'mirrored' WHERE state <> 'mirrored'")


@pytest.mark.timeout(600)
def test_a_new_file_is_seen_and_verified(mirrored: TreeSettings, disk: Path) -> None:
    """Beside all the others, with the settings as they are by default."""
    tree = settings(disk)
    waits = []
    with Mirror(Settings(trees=[tree]), disk) as mirror:
        one: TreeMirror = mirror.trees["tree"]
        while not mirror.idle:
            time.sleep(0.05)
        time.sleep(0.5)
        directory = Path(tree.source) / "20261122" / "MC_C_999999"
        for number in range(30):
            if number % 10 == 0:
                directory = directory.with_name(f"MC_C_99999{number // 10}")
                directory.mkdir()  # as a camera makes one for each image
            path = directory / f"MC_C_999999_R22_S{number:02d}.fits"
            path.write_bytes(os.urandom(1_000_000))
            begun = time.perf_counter()
            name = os.path.relpath(path, tree.source)
            while (entry := one.manifest.at(name)) is None or entry.state != "mirrored":
                assert time.perf_counter() - begun < 30.0
                time.sleep(0.002)
            waits.append(time.perf_counter() - begun)
            assert (disk / "far" / name).read_bytes() == path.read_bytes()
            time.sleep(0.05)
        for number in range(3):
            shutil.rmtree(directory.with_name(f"MC_C_99999{number}"))
    print(
        f"\na new file of 1 MB beside {FILES} others: closed to verified at the far side median"
        f" {statistics.median(waits):.3f} s, most {max(waits):.3f} s"
    )
    assert max(waits) <= SOON
