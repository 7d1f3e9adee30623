"""Programs that are run for what was written."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import pytest
from archive_stand import Archive, wait_for

from raftwright.archiver import Command
from raftwright.errors import FormatError
from raftwright.events import Event, open_subscriber
from raftwright.transfer.words import fill, words_of

ECHO = "import sys, os; open(sys.argv[1], 'a').write(repr(sys.argv[2:]) + chr(10))"


def python(name: str, code: str, *arguments: str, **more: object) -> Command:
    values = {"timeout": 5.0, "backoff": 0.05, "longest": 0.2, **more}
    return Command(name=name, run=[sys.executable, "-c", code, *arguments], **values)  # type: ignore[arg-type]


def states(archive: Archive, name: str) -> dict[str, int]:
    return archive.counts().get(f"command:{name}", {})


def test_each_file_and_each_image_once(archive: Archive, tmp_path: Path) -> None:
    """D009: argument lists, and whole words in braces only (D144)."""
    files, images = tmp_path / "files", tmp_path / "images"
    archive.archiver(
        commands=[
            python(
                "files",
                ECHO,
                str(files),
                "{file}",
                "x{obsid}_{detector}y",
                "{raft} {sensor}",
                "{nothing",
                "file",
            ),
            python(
                "images", ECHO, str(images), "{directory}", "{obsid}", "{dayobs}", "{instrument}", per="image"
            ),
        ]
    )
    (image,) = archive.take(1)
    wait_for(lambda: states(archive, "files") == {"delivered": 9})
    wait_for(lambda: states(archive, "images") == {"delivered": 1})
    name = image.base.name
    directory = archive.root / "20261122" / name
    expected = []
    for path in sorted(directory.glob("*.fits")):
        raft, sensor = path.stem.removeprefix(f"{name}_").split("_")
        expected.append(
            repr([str(path), f"x{name}_{raft}_{sensor}y", f"{raft} {sensor}", "{nothing", "file"])
        )
    assert sorted(files.read_text().splitlines()) == expected
    assert images.read_text().splitlines() == [repr([str(directory), name, "20261122", "LSSTComCam"])]


def test_nothing_goes_through_a_shell(tmp_path: Path) -> None:
    """D009: an archive in a directory with any name is only a name."""
    out = tmp_path / "said"
    archive = Archive(tmp_path / "a b'c\"; touch pwned;\nnew $(touch pwned)")
    try:
        archive.archiver(commands=[python("echo", ECHO, str(out), "{file}")])
        archive.take(1)
        wait_for(lambda: states(archive, "echo") == {"delivered": 9})
        expected = [repr([str(path)]) for path in sorted(archive.root.rglob("*.fits"))]
        assert sorted(out.read_text().splitlines()) == expected
    finally:
        archive.close()
    assert not list(tmp_path.rglob("pwned"))
    assert not Path("pwned").exists()


def test_a_failure_is_an_event_with_code_and_words(archive: Archive, tmp_path: Path) -> None:
    """D050, D054: the real exit code is told; retried where that is said; the service goes on."""
    endpoint = f"ipc://{tmp_path}/events"
    code = "import sys; print('hello'); print('no room', file=sys.stderr); sys.exit(7)"
    archiver = archive.archiver(
        commands=[python("once", code), python("thrice", code, retries=2), python("good", "pass")],
        publish=endpoint,
    )
    heard: list[Event] = []
    with open_subscriber(endpoint, kinds=["fileCommandExecution", "commandRun"]) as subscriber:
        next(subscriber.events(timeout=0.3), None)
        (image,) = archive.take(1)
        wait_for(lambda: states(archive, "once") == {"failed": 9})
        wait_for(lambda: states(archive, "thrice") == {"failed": 9})
        wait_for(lambda: states(archive, "good") == {"delivered": 9})
        heard += subscriber.events(timeout=0.5)
    runs = [event for event in heard if event.kind == "commandRun"]
    executions = [event for event in heard if event.kind == "fileCommandExecution"]
    assert sorted(event["rc"] for event in executions) == [0] * 9 + [7] * 36
    assert {event["imageName"] for event in executions} == {image.base.name}
    bad = [event for event in runs if event["rc"] == 7]
    assert len(bad) == 36
    assert all("no room" in event["output"] and "hello" in event["output"] for event in bad)
    assert {(event["raft"], event["sensor"]) for event in bad} == {
        ("R22", f"S{x}{y}") for x in "012" for y in "012"
    }
    attempts = [
        row.attempts for row in archive.ledger.deliveries.of(1) if row.destination == "command:thrice"
    ]
    assert attempts == [3] * 9
    reason = next(row.reason for row in archive.ledger.deliveries.of(1) if row.destination == "command:once")
    assert "exit code 7" in reason
    assert archiver.state == "ENABLED"


def test_what_takes_too_long_is_killed_with_all_that_it_started(archive: Archive, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    code = (
        "import os, sys, subprocess, time; "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        "open(sys.argv[1] + '/' + str(os.getpid()), 'w').write(str(child.pid)); time.sleep(60)"
    )
    archive.archiver(commands=[python("slow", code, str(marks), timeout=1.0, per="image")])
    archive.take(1)
    wait_for(lambda: states(archive, "slow") == {"failed": 1})
    (row,) = [row for row in archive.ledger.deliveries.of(1) if row.destination == "command:slow"]
    assert "killed after 1 s" in row.reason
    (mark,) = marks.iterdir()
    for pid in (int(mark.name), int(mark.read_text())):
        wait_for(lambda pid=pid: not _lives(pid), 2.0)  # type: ignore[misc]


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_slow_commands_hold_neither_deliveries_nor_each_other(archive: Archive) -> None:
    """D054: they run in parallel, within their limit."""
    archive.archiver(
        archive.to("oods"),
        commands=[python("slow", "import time; time.sleep(1.5)", concurrency=2), python("quick", "pass")],
    )
    archive.take(1)
    begun = time.monotonic()
    wait_for(lambda: archive.counts().get("oods") == {"delivered": 19})
    assert time.monotonic() - begun < 1.4
    wait_for(lambda: states(archive, "quick") == {"delivered": 9})
    running = states(archive, "slow").get("sending", 0)
    assert running <= 2
    archive.started[0].stop(0.0)


def test_a_program_that_is_not_there(archive: Archive) -> None:
    archive.archiver(commands=[Command(name="none", run=["/no/such/program", "{file}"])])
    archive.take(1)
    wait_for(lambda: states(archive, "none") == {"failed": 9})
    reasons = {row.reason for row in archive.ledger.deliveries.of(1)}
    assert all("cannot be run" in reason for reason in reasons)


def test_the_end_kills_what_runs_and_the_next_one_runs_it_again(archive: Archive, tmp_path: Path) -> None:
    done = tmp_path / "done"
    gate = tmp_path / "gate"
    code = (
        "import os, sys, time\n"
        "while not os.path.exists(sys.argv[1]): time.sleep(0.02)\n"
        "open(sys.argv[2], 'a').write('x')"
    )
    archiver = archive.archiver(commands=[python("wait", code, str(gate), str(done), per="image", retries=1)])
    archive.take(1)
    wait_for(lambda: states(archive, "wait") == {"sending": 1})
    archiver.stop(0.1)
    assert states(archive, "wait") == {"queued": 1}
    gate.touch()
    time.sleep(0.2)
    assert not done.exists(), "it was not killed"
    archive.archiver(commands=[python("wait", code, str(gate), str(done), per="image", retries=1)])
    wait_for(lambda: states(archive, "wait") == {"delivered": 1})
    assert done.read_text() == "x"


def test_only_whole_words_are_replaced() -> None:
    """D144."""
    assert fill("{file}", {"file": "{obsid}", "obsid": "no"}) == "{obsid}"
    assert fill("profile {file {File} { file } file}", {"file": "x"}) == "profile {file {File} { file } file}"
    assert words_of("a{b}c{d1}{E}{}") == ["b", "d1"]


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (["cp", "{file}", "{there}"], "{there} is unknown"),
        (["{file}"], "the program itself"),
    ],
)
def test_commands_that_cannot_be(run: list[str], said: str) -> None:
    with pytest.raises(FormatError, match=said.replace("{", r"\{").replace("}", r"\}")):
        Command(name="x", run=run)


def test_much_output_is_bounded(archive: Archive) -> None:
    code = "import sys; sys.stdout.write('x' * 3000000); sys.stderr.write('the end'); sys.exit(1)"
    archive.archiver(commands=[python("chatty", code, per="image")])
    archive.take(1)
    wait_for(lambda: states(archive, "chatty") == {"failed": 1})
    (row,) = archive.ledger.deliveries.of(1)
    assert row.reason.endswith("the end")
    assert len(row.reason) < 2001


def test_nobody_answers_a_program(archive: Archive, tmp_path: Path) -> None:
    """Standard input is empty: a program that asks gets no answer and does not wait for one."""
    out = tmp_path / "out"
    code = "import sys; open(sys.argv[1], 'w').write(repr(sys.stdin.read()))"
    archive.archiver(commands=[python("asks", code, str(out), per="image")])
    archive.take(1)
    wait_for(lambda: states(archive, "asks") == {"delivered": 1})
    assert out.read_text() == "''"


def test_a_full_disk_of_the_host_costs_no_try(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """F41: where nothing can be run at all, commands wait; they are no dead letters."""
    full = [True]
    make = tempfile.TemporaryFile

    def odd(*arguments: object, **more: object) -> object:
        if full[0]:
            raise OSError(28, "No space left on device")
        return make(*arguments, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(tempfile, "TemporaryFile", odd)
    archiver = archive.archiver(commands=[Command(name="touch", run=["true"], backoff=0.1, longest=0.3)])
    archive.take(1)
    wait_for(lambda: any("no room" in one for one in archiver.problems()))
    time.sleep(1.0)
    assert "failed" not in archive.counts()["command:touch"]
    full[0] = False
    wait_for(lambda: archive.counts() == {"command:touch": {"delivered": 9}}, 10, archive.counts)
