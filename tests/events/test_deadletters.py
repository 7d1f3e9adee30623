"""Messages that could not be dealt with are kept, with the reason, and within bounds."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from raftwright.errors import FormatError, NotFoundError, StorageError
from raftwright.events import DeadLetters


def test_they_are_kept_and_can_be_listed(tmp_path: Path) -> None:
    dead = DeadLetters(tmp_path / "a" / "dead")
    assert dead.names() == []
    first = dead.put(b'{"x": 1}', "no event", "topic/0/17")
    second = dead.put(b"\xff\x00", "binary", "tcp://x")
    assert dead.names() == [first, second]
    letter = dead.read(first)
    assert (letter.reason, letter.source, letter.body, letter.text) == (
        *("no event", "topic/0/17", b'{"x": 1}'),
        '{"x": 1}',
    )
    assert dead.read(second).body == b"\xff\x00"
    assert stat.S_IMODE(os.stat(dead.directory / first).st_mode) == 0o600
    dead.remove(first)
    dead.remove(first)
    assert dead.names() == [second]
    assert sorted(os.listdir(dead.directory)) == [second]


def test_the_directory_is_bounded(tmp_path: Path) -> None:
    dead = DeadLetters(tmp_path, limit=20_000)
    names = [dead.put(b"x" * 1000, "r", "s") for _ in range(100)]
    left = dead.names()
    assert left == names[-len(left) :]
    assert 10 <= len(left) <= 20
    assert sum(os.stat(tmp_path / name).st_size for name in left) <= 20_000
    assert dead.forgotten == 100 - len(left)
    long = dead.put(b"y" * (3 << 20), "r", "s")  # longer than all that is allowed: it alone stays
    assert dead.names() == [long]
    assert dead.read(long).length == 3 << 20
    assert len(dead.read(long).body) == 1 << 20


def test_names_and_contents_are_looked_at(tmp_path: Path) -> None:
    dead = DeadLetters(tmp_path / "dead")
    name = dead.put(b"x", "r", "s")
    (tmp_path / "secret").write_text("{}")
    for strange in ("../secret", "x", "", name + "\n", f"{'0' * 19}-000000-1.json"):
        with pytest.raises(NotFoundError, match="is no dead letter"):
            dead.read(strange)
    for content in (b"", b"\xff", b"[]", b'{"format": "other/2"}'):
        (dead.directory / name).write_bytes(content)
        with pytest.raises(FormatError, match="dead letter"):
            dead.read(name)
    (dead.directory / "stranger").write_text("")
    assert dead.names() == [name]


def test_a_disk_that_refuses(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    dead = DeadLetters(tmp_path / "file")
    with pytest.raises(StorageError, match="cannot be kept"):
        dead.put(b"x", "r", "s")
    with pytest.raises(StorageError):
        dead.names()


def test_many_threads_and_processes(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom raftwright.events import DeadLetters\n"
        "dead = DeadLetters(sys.argv[1])\nfor n in range(50): dead.put(b'p%d' % n, 'r', 's')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    dead = DeadLetters(tmp_path)
    threads = [
        threading.Thread(target=lambda n=n: [dead.put(b"t%d-%d" % (n, k), "r", "s") for k in range(20)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert process.wait(30) == 0
    assert {dead.read(name).body for name in dead.names()} == {
        *(b"p%d" % n for n in range(50)),
        *(b"t%d-%d" % (n, k) for n in range(4) for k in range(20)),
    }
