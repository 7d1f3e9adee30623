"""A place that programs reach: what they are told, what becomes of it when they fail."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from far_places import REMOTE, far_place, job, made

from raftwright.errors import ConflictError, NotFoundError
from raftwright.transfer.batching import Batches
from raftwright.transfer.command import CommandSender
from raftwright.transfer.outcome import OutageError, RefusedError
from raftwright.transfer.place import Place, Templates

COPY = ["cp", "--", "{file}", "{dest}"]

_REMOTE = """
import shlex, subprocess, sys
# In the place of ssh, where the far side has no shell: each command is a list of arguments.
log, command = sys.argv[1:]
with open(log, "a") as stream:
    stream.write(repr(shlex.split(command)) + "\\n")
sys.exit(subprocess.run(shlex.split(command)).returncode)
"""


def program(path: Path, text: str) -> list[str]:
    return [sys.executable, str(made(path, text.encode()))]


def place(tmp_path: Path, transfer: list[str] = COPY, remote: list[str] = REMOTE, **more: Any) -> Place:
    root = tmp_path / "far"
    root.mkdir(exist_ok=True)
    values = {"timeout": 10.0, **more}
    return Place(
        name="far",
        kind="command",
        root=str(root),
        commands=Templates(transfer=transfer, remote=remote),
        **values,
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return made(tmp_path / "from" / "x.fits", os.urandom(100_000))


def test_a_far_side_without_a_shell(source: Path, tmp_path: Path) -> None:
    """D009: what is run there are argument lists; the odd name is one argument of each, or none."""
    log = tmp_path / "log"
    remote = [*program(tmp_path / "remote.py", _REMOTE), str(log), "{command}"]
    sender = CommandSender(place(tmp_path, remote=remote))
    sender.warm()
    target = "a b; touch x/it's $(this).fits"
    sender.send(job(source, target))
    assert sender.crc32c(target) == job(source).crc32c
    assert list(sender.walk()) == [(target, 100_000)]
    runs = [eval(line) for line in log.read_text().splitlines()]
    known = {"test", "find", "sha256sum", "mkdir", "realpath", "mv", "cat"}
    assert {arguments[0] for arguments in runs} <= known
    assert sum(str(tmp_path / "far" / target) in arguments for arguments in runs) >= 4
    assert not list(tmp_path.rglob("x"))


def test_words_are_whole_words(source: Path, tmp_path: Path) -> None:
    """D144: `file` inside other words stays; `{file}` is filled in wherever it stands, once."""
    seen = tmp_path / "seen"
    text = (
        f"import sys, shutil; open({str(seen)!r}, 'w').write(repr(sys.argv[1:])); shutil.copy(*sys.argv[1:3])"
    )
    odd = made(tmp_path / "from" / "{dest}{user} profile.fits", b"content")
    sender = CommandSender(
        place(
            tmp_path,
            [
                *program(tmp_path / "copy.py", text),
                *("{file}", "{dest}", "-i", "/home/{user}/profile/file/batch", "{key}", "x{file}y"),
                *("{ file}", "{File}", "{}", "--o={user}"),
            ],
            user="mover",
            parameters={"key": "{file} {user}"},
        )
    )
    sender.send(job(odd, "d/x.fits"))
    arguments = eval(seen.read_text())
    assert arguments[0] == str(odd)
    assert arguments[1].startswith(str(tmp_path / "far" / ".raftwright-stage" / ".raftwright-"))
    assert arguments[2:5] == ["-i", "/home/mover/profile/file/batch", "{file} {user}"]
    assert arguments[5:] == [f"x{odd}y", "{ file}", "{File}", "{}", "--o=mover"]


def test_two_services_never_write_into_one_file(tmp_path: Path) -> None:
    """Of two hand-offs that bring the same file, each has a hidden name of its own, and finds it again."""
    seen = tmp_path / "seen"
    text = (
        f"import sys; print(sys.argv[2], file=open({str(seen)!r}, 'a'));"
        " open(sys.argv[2], 'w').write('torn'); sys.exit(1)"
    )
    transfer = [*program(tmp_path / "copy.py", text), "{file}", "{dest}"]
    for folder in ("one", "one", "other"):
        source = made(tmp_path / folder / "x.fits", b"content")
        sender = CommandSender(place(tmp_path, transfer))
        with pytest.raises(RefusedError):
            sender.send(job(source, "d/x.fits"))
        sender.close()
    first, again, other = seen.read_text().split()
    assert first == again != other


def test_several_files_in_one_call(tmp_path: Path) -> None:
    """`{batch}` is an argument for each of the files that wait; names that are alike do not meet."""
    log = tmp_path / "log"
    text = f"""
import shutil, sys, time
with open({str(log)!r}, "a") as stream:
    stream.write(f"{{len(sys.argv) - 2}}\\n")
time.sleep(0.3)
for path in sys.argv[1:-1]:
    shutil.copy(path, sys.argv[-1])
"""
    sender = CommandSender(place(tmp_path, [*program(tmp_path / "copy.py", text), "{batch}", "{dest}"]))
    sources = [made(tmp_path / f"from{n}" / f"{n // 2}.fits", os.urandom(1000 + n)) for n in range(12)]
    errors: list[Exception] = []

    def work(path: Path) -> None:
        try:
            sender.send(job(path, f"d/{path.parent.name}/{path.name}"))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(path,)) for path in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for path in sources:
        assert (tmp_path / "far" / "d" / path.parent.name / path.name).read_bytes() == path.read_bytes()
    counts = [int(line) for line in log.read_text().split()]
    assert sum(counts) == 12
    assert len(counts) < 12, "each went alone"
    assert dict(sender.walk()).keys() == {f"d/from{n}/{n // 2}.fits" for n in range(12)}


def test_a_batch_that_fails_is_told_to_each() -> None:
    """And the next one goes."""
    calls: list[list[str]] = []

    def transfer(paths: Any) -> int:
        calls.append(list(paths))
        time.sleep(0.1)
        if len(calls) == 1:
            raise OutageError("nobody there")
        return len(paths)

    batches = Batches(transfer)
    ends: list[Any] = []

    def work(path: str) -> None:
        try:
            ends.append(batches.bring(path))
        except OutageError as error:
            ends.append(error)

    threads = [threading.Thread(target=work, args=(f"/d/{n}",)) for n in range(5)]
    for thread in threads:
        thread.start()
        time.sleep(0.01)
    for thread in threads:
        thread.join(10)
    assert len(ends) == 5
    assert len(calls) == 2
    assert sum(isinstance(end, OutageError) for end in ends) == len(calls[0])
    assert sorted(path for call in calls for path in call) == [f"/d/{n}" for n in range(5)]


@pytest.mark.parametrize(
    ("transfer", "remote", "error", "said"),
    [
        (["/no/such/program", "{file}", "{dest}"], REMOTE, OutageError, "cannot be run"),
        (["/", "{file}", "{dest}"], REMOTE, OutageError, "cannot be run"),
        (["false", "{file}", "{dest}"], REMOTE, RefusedError, "without a word"),
        (["sh", "-c", "echo no >&2; exit 7", "{file}", "{dest}"], REMOTE, RefusedError, "ended with 7: no"),
        (["sh", "-c", "kill -9 $$", "{file}", "{dest}"], REMOTE, RefusedError, "ended with -9"),
        (["true", "{file}", "{dest}"], REMOTE, RefusedError, "ended with 0"),
        (COPY, ["/no/such/ssh", "{command}"], OutageError, "cannot be run"),
        (COPY, ["sh", "-c", "echo lost >&2; exit 255", "{command}"], OutageError, "255: lost"),
        (COPY, ["sh", "-c", "kill -9 $$", "{command}"], OutageError, "-9"),
    ],
)
def test_programs_that_fail(
    transfer: list[str], remote: list[str], error: type[Exception], said: str, source: Path, tmp_path: Path
) -> None:
    """D142: a program that is not there or says nothing ends the try with a reason, and not the thread."""
    sender = CommandSender(place(tmp_path, transfer, remote))
    with pytest.raises(error, match=said):
        sender.send(job(source, "d/x.fits"))
    assert [path for path in (tmp_path / "far").rglob("*") if path.is_file()] == []


def test_programs_that_do_not_end(source: Path, tmp_path: Path) -> None:
    """They are killed with all that they started."""
    pid = tmp_path / "pid"
    hang = ["sh", "-c", f"sleep 100 & echo $! > {pid}; wait", "{file}", "{dest}"]
    sender = CommandSender(place(tmp_path, hang, timeout=1.0))
    begun = time.monotonic()
    with pytest.raises(OutageError, match="did not end within 1 s"):
        sender.send(job(source, "d/x.fits"))
    assert time.monotonic() - begun < 6
    until = time.monotonic() + 5
    while Path(f"/proc/{pid.read_text().strip()}").exists():
        state = Path(f"/proc/{pid.read_text().strip()}/stat").read_text().rpartition(")")[2].split()[0]
        if state == "Z":
            break
        assert time.monotonic() < until
        time.sleep(0.02)


def test_the_end_of_the_service_ends_programs(source: Path, tmp_path: Path) -> None:
    sender = CommandSender(place(tmp_path, ["sleep", "100", "{file}", "{dest}"], timeout=60.0))
    threading.Timer(0.7, sender.close).start()
    begun = time.monotonic()
    with pytest.raises((OutageError, RefusedError)):
        sender.send(job(source, "d/x.fits"))
    assert time.monotonic() - begun < 10


def test_a_program_that_brings_something_else(source: Path, tmp_path: Path) -> None:
    """D136: summed there before it is named; what is wrong is not kept, and the next try begins anew."""
    flip = "import sys\nd = bytearray(open(sys.argv[1], 'rb').read())\nd[77] ^= 1\n"
    flip += "open(sys.argv[2], 'wb').write(d)\n"
    bad = CommandSender(place(tmp_path, [*program(tmp_path / "flip.py", flip), "{file}", "{dest}"]))
    with pytest.raises(RefusedError, match="not kept"):
        bad.send(job(source, "d/x.fits"))
    assert [path for path in (tmp_path / "far").rglob("*") if path.is_file()] == []
    CommandSender(place(tmp_path)).send(job(source, "d/x.fits"))


def test_a_source_that_changes_while_it_is_sent(source: Path, tmp_path: Path) -> None:
    """D139."""
    text = "import shutil, sys; open(sys.argv[1], 'r+b').write(b'changed'); shutil.copy(*sys.argv[1:3])"
    sender = CommandSender(place(tmp_path, [*program(tmp_path / "change.py", text), "{file}", "{dest}"]))
    with pytest.raises(RefusedError, match="is not what the ledger says"):
        sender.send(job(source, "d/x.fits"))
    assert [path for path in (tmp_path / "far").rglob("*") if path.is_file()] == []


def test_somebody_takes_the_name_meanwhile(source: Path, tmp_path: Path) -> None:
    """D149: between the first look and the move; theirs stays, ours is not left over."""
    there = str(tmp_path / "far" / "d" / "x.fits")
    text = f"import shutil, sys; shutil.copy(*sys.argv[1:3]); open({there!r}, 'w').write('theirs')"
    sender = CommandSender(place(tmp_path, [*program(tmp_path / "copy.py", text), "{file}", "{dest}"]))
    with pytest.raises(ConflictError):
        sender.send(job(source, "d/x.fits"))
    assert (tmp_path / "far" / "d" / "x.fits").read_text() == "theirs"
    assert [path.name for path in (tmp_path / "far").rglob("*") if path.is_file()] == ["x.fits"]


def test_what_was_left_long_ago_is_cleared_away(source: Path, tmp_path: Path) -> None:
    sender = CommandSender(place(tmp_path))
    old = made(tmp_path / "far" / ".raftwright-stage" / ".raftwright-old.part")
    young = made(tmp_path / "far" / ".raftwright-stage" / ".raftwright-young.part")
    os.utime(old, (1, 1))
    sender.warm()
    assert not old.exists()
    assert young.exists()


def test_a_connection_that_is_lost_is_no_loss_of_files(source: Path, tmp_path: Path) -> None:
    """D148: `cat` fails because ssh does, or because the file is gone: these are told apart."""
    good = CommandSender(place(tmp_path))
    good.send(job(source, "d/x.fits"))
    bad = CommandSender(place(tmp_path, remote=["sh", "-c", "exit 255", "{command}"]))
    for call in (bad.crc32c, bad.remove, bad.protect, lambda target: list(bad.walk())):
        with pytest.raises(OutageError):
            call("d/x.fits")
    with pytest.raises(NotFoundError):
        good.crc32c("d/y.fits")


def test_what_a_program_leaves_running(source: Path, tmp_path: Path) -> None:
    """As ssh does with a master connection: it holds our pipes, and we do not wait for it."""
    leaves = ["sh", "-c", 'setsid sleep 3 & cp -- "$1" "$2"', "sh", "{file}", "{dest}"]
    begun = time.monotonic()
    CommandSender(place(tmp_path, leaves)).send(job(source, "d/x.fits"))
    assert time.monotonic() - begun < 2.5


def test_output_without_end(source: Path, tmp_path: Path) -> None:
    """A program that complains without end is killed; what it says is bounded."""
    noisy = ["sh", "-c", "yes complaint >&2", "{file}", "{dest}"]
    sender = CommandSender(place(tmp_path, noisy, timeout=2.0))
    with pytest.raises((OutageError, RefusedError)) as caught:
        sender.send(job(source, "d/x.fits"))
    assert len(str(caught.value)) < 3000


def test_many_files_with_rsync(tmp_path: Path) -> None:
    """An image of nine CCDs by four threads, as a lane does it."""
    with far_place("command", tmp_path) as far:
        sources = [made(tmp_path / "from" / f"{n}.fits", os.urandom(200_000)) for n in range(9)]
        queue = list(sources)

        def work() -> None:
            while True:
                try:
                    path = queue.pop()
                except IndexError:
                    return
                far.sender.send(job(path, f"20261122/IMG/{path.name}"))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert far.files() == {f"20261122/IMG/{path.name}": path.read_bytes() for path in sources}
