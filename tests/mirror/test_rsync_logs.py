"""What rsync's own logs tell of a tree."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some
from mirror_stand import Stand, wait_for

from raftwright.mirror.rsynclog import named_in


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (b"<f+++++++++ a/b.fits", "a/b.fits"),
        (b">f.st...... with spaces in it.fits", "with spaces in it.fits"),
        (b"2026/11/22 03:04:05 [1234] >f+++++++++ a b", "a b"),
        (b"2026/11/22 03:04:05 [1234] >fcst...... changed", "changed"),
        (b"*deleting   gone/file", "gone/file"),
        (b"2026/11/22 03:04:05 [7] *deleting   a b", "a b"),
        (b"deleting x", "x"),
        (b"cd+++++++++ new/directory/", "new/directory"),
        (b"cL+++++++++ link -> /etc/passwd", "link"),
        (b"hf+++++++++ second => first", "second"),
        (b">f+++++++++ a => b", "a => b"),
        (rb">f+++++++++ new\#012line", "new\nline"),
        (rb">f+++++++++ byte\#377", "byte\udcff"),
        (b".d..t...... ./", None),
        (b">f+++++++++ ../../etc/passwd", None),
        (b">f+++++++++ /etc/passwd", None),
        (b"sent 123 bytes  received 35 bytes", None),
        (b"2026/11/22 03:04:05 [1234] building file list", None),
        (b"", None),
    ],
)
def test_lines(line: bytes, name: str | None) -> None:
    """D153: updates and deletions, names with spaces."""
    assert named_in(line) == name


@given(some.binary(max_size=300))
def test_any_bytes(line: bytes) -> None:
    name = named_in(b">f+++++++++ " + line)
    assert name is None or not any(part in ("", ".", "..") for part in name.split("/"))
    named_in(line)


def test_logs_are_all_there_is(stand: Stand, require_tool: Callable[[str], str]) -> None:
    """D153: rsync brings a tree and says what it did; what is in the logs is mirrored, without passes."""
    rsync = require_tool("rsync")
    stand_far, logs = stand.path / "stand", stand.path / "logs"
    stand_far.mkdir()
    logs.mkdir()
    number = 0

    def bring() -> None:
        nonlocal number
        number += 1
        subprocess.run(
            [rsync, "-a", "--delete", f"--log-file={logs}/rsync{number % 2}.log", f"{stand_far}/",
            f"{stand.source}/in/"], check=True,
        )  # fmt: skip

    def write(name: str, content: bytes) -> None:
        path = stand_far / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    write("20261121/old", b"old")
    (stand.source / "in").mkdir()
    with stand.mirror(
        watch="never",
        full=600.0,
        logs=[f"{logs}/rsync*.log"],
        logs_below="in",
        logs_only=True,
        deleted="mark",
    ) as mirror:
        wait_for(lambda: mirror.idle)
        bring()
        wait_for(stand.same, why=mirror.status)
        write("20261122/name with spaces.fits", b"one")
        write("20261122/new\nline", b"two")
        write(os.fsdecode(b"20261122/\xff\xfe"), b"three")
        bring()
        wait_for(stand.same, why=mirror.status)
        assert len(stand.there()) == 4
        time.sleep(1.0)
        write("20261122/name with spaces.fits", b"one, updated")
        (stand_far / "20261121/old").unlink()
        bring()
        wait_for(stand.same, why=mirror.status)
    assert stand.versions()["in/20261122/name with spaces.fits"] == [b"one"]
    # What rsync did while no mirror ran is read on from where it was left; a log that was cut begins anew.
    (logs / "rsync0.log").write_bytes(b"")
    write("20261122/late", b"late")
    bring()
    before = mirror.trees["tree"]._logs
    assert before is not None
    assert before.lines
    with stand.mirror(
        watch="never", full=600.0, logs=[f"{logs}/rsync*.log"], logs_below="in", logs_only=True
    ) as mirror:
        wait_for(stand.same, why=mirror.status)
        reader = mirror.trees["tree"]._logs
        assert reader is not None
        wait_for(lambda: reader.lines)
        assert reader.lines < before.lines
        assert mirror.problems() == []


def test_the_rest_of_a_line_has_yet_to_come(stand: Stand, tmp_path: Path) -> None:
    """A log that is being written: half a name is no name."""
    from raftwright.mirror.manifest import Manifest
    from raftwright.mirror.rsynclog import RsyncLogs

    log = tmp_path / "rsync.log"
    manifest = Manifest(stand.manifest)
    logs = RsyncLogs(manifest, [str(log)])
    log.write_bytes(b">f+++++++++ one\n>f+++++++++ tw")
    assert list(logs.read()) == [["one"]]
    assert list(logs.read()) == []
    with log.open("ab") as stream:
        stream.write(b"o\n")
    assert list(logs.read()) == [["two"]]
    log.unlink()
    log.write_bytes(b"2026/11/22 03:04:05 [1] >f+++++++++ anew\n")
    assert list(logs.read()) == [["anew"]]
    manifest.close()
