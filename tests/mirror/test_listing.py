"""What the core says a directory holds, against what Python says of it."""

from __future__ import annotations

import errno
import os
import random
import stat
from pathlib import Path

import pytest

from raftwright.mirror.listing import Facts, Listing, Seen, kind_of, listings


def reference(path: Path) -> tuple[set[Seen], set[str]]:
    """The same, name by name."""
    files, directories = set(), set()
    with os.scandir(path) as entries:
        for entry in entries:
            s = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(s.st_mode):
                directories.add(entry.name)
                continue
            facts = Facts(kind_of(s.st_mode), s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
            files.add(Seen(entry.name, facts, s.st_uid))
    return files, directories


def read(*paths: Path, threads: int = 2) -> list[Listing | OSError]:
    descriptors = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in paths]
    try:
        return listings(descriptors, threads)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_it_says_what_python_says(tmp_path: Path, threads: int) -> None:
    chance = random.Random(20261123)
    names = [b"plain.fits", b"two\nlines", b"\xff\xfe", b"x" * 255, "ü".encode(), b" ", b"-rf", b".hidden"]
    tops = [tmp_path / str(number) for number in range(20)]
    for top in tops:
        top.mkdir()
        for name in chance.sample(names, chance.randrange(len(names))):
            path = os.path.join(os.fsencode(top), name)
            what = chance.randrange(4)
            if what == 0:
                os.mkdir(path)
            elif what == 1:
                os.symlink(b"/etc", path)
            elif what == 2:
                os.mkfifo(path)
            else:
                Path(os.fsdecode(path)).write_bytes(bytes(chance.randrange(5000)))
                os.utime(path, ns=(0, chance.randrange(-(10**18), 2 * 10**18)))
    for top, listing in zip(tops, read(*tops, threads=threads), strict=True):
        assert isinstance(listing, Listing)
        files, directories = reference(top)
        assert (set(listing.files()), set(listing.directories())) == (files, directories)
        assert listing.count == len(files)


def test_its_print_is_that_of_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    path = tmp_path / "x.fits"
    path.write_bytes(b"12345")

    def now() -> bytes:
        (listing,) = read(tmp_path)
        assert isinstance(listing, Listing)
        return listing.print

    prints = [now()]
    (tmp_path / "below" / "deep").write_bytes(b"1")
    assert now() == prints[0], "what goes on below is seen there"
    changes = (
        lambda: os.utime(path, ns=(0, 5)),
        lambda: os.utime(path, ns=(0, 6)),
        lambda: path.write_bytes(b"123456"),
        lambda: path.rename(tmp_path / "y.fits"),
        lambda: (tmp_path / "below").rename(tmp_path / "under"),
        lambda: (tmp_path / "y.fits").unlink(),
    )
    for change in changes:
        change()
        prints.append(now())
    assert len(set(prints)) == len(prints)


def test_what_is_no_directory_is_an_error_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"1")
    file, good = os.open(tmp_path / "x", os.O_RDONLY), os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        bad, well = listings([file, good], 2)
    finally:
        os.close(file)
        os.close(good)
    assert isinstance(bad, OSError)
    assert bad.errno == errno.ENOTDIR
    assert isinstance(well, Listing)
    assert well.count == 1
