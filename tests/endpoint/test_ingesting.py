"""Ingesters: results of single files, retries, leases, plug-ins of others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from endpoint_stand import Stand, wait_for

from raftwright.backbone.receiving import Ingest, Item, Register, Result
from raftwright.backbone.receiving.ingesting import Ingester
from raftwright.backbone.receiving.plugins import Where, make_plugin
from raftwright.errors import FormatError, NotFoundError
from raftwright.transfer.outcome import OutageError


class Hand:
    """A plug-in that does what the test says."""

    sums: frozenset[str] = frozenset()
    files: Sequence[str] = ("*",)

    def __init__(self, *, bad: Sequence[str] = (), raising: bool = False) -> None:
        self.bad = set(bad)
        self.raising = raising
        self.batches: list[list[str]] = []
        self.outage = ""
        self.silent = False
        self.verdict: Any = "failure"

    def ingest(self, items: Sequence[Item]) -> Sequence[Result]:
        self.batches.append([item.name for item in items])
        if self.outage:
            raise OutageError(self.outage)
        if self.raising and any(item.name in self.bad for item in items):
            raise ValueError("a plug-in that knows no results")
        if self.silent:
            return []
        return [
            Result(id=item.id, verdict=self.verdict if item.name in self.bad else "success", message="bad")
            for item in reversed(items)
        ]

    def tend(self) -> None:
        pass

    def problems(self) -> list[str]:
        return []

    def close(self) -> None:
        pass


@pytest.fixture
def register(tmp_path: Path) -> Any:
    (tmp_path / "storage").mkdir()
    with Register(tmp_path / "register.db", tmp_path / "storage", lease=1.0) as made:
        yield made


def enter(register: Register, *names: str, ingester: str = "hand") -> list[int]:
    return [
        register.enter(
            relpath=name.rpartition("/")[0],
            filename=name.rpartition("/")[2],
            crc32c=f"{hash(name) & 0xFFFFFFFF:08x}",
            adler32="00000001",
            size=1,
            ingesters=[ingester],
        )[0]
        for name in names
    ]


def ingester(register: Register, plugin: Hand, **more: Any) -> Ingester:
    values = {"backoff": 0.01, "longest": 0.02, **more}
    return Ingester(Ingest(plugin="hand", **values), register, plugin)


def worked(one: Ingester, register: Register, timeout: float = 10.0) -> None:
    """Until nothing is left that is tried by itself."""
    until = time.monotonic() + timeout
    while register.waiting("hand")[0]:
        one.work()
        assert time.monotonic() < until
        time.sleep(0.002)


@pytest.mark.parametrize("raising", [False, True])
def test_only_the_bad_file_of_a_batch_fails(register: Register, raising: bool) -> None:
    """D155: a plug-in says it file by file; one that only raises is asked again with halves."""
    ids = enter(register, *(f"{n}.txt" for n in range(20)))
    plugin = Hand(bad=["13.txt"], raising=raising)
    worked(ingester(register, plugin, retries=2), register)
    assert register.counts() == {"hand": {"SUCCESS": 19, "FAILURE": 1}}
    assert len(plugin.batches[0]) == 20
    for number, file_id in enumerate(ids):
        tries = sum(each.state == "PENDING" for each in register.events(file_id))
        assert tries == (3 if number == 13 else 1)
    ((row, _, state, why),) = register.dead_letters()
    assert (row.name, state) == ("13.txt", "FAILURE")
    assert "a plug-in that knows no results" in why if raising else why == "bad"


def test_failures_are_tried_again_and_then_by_rerun(register: Register) -> None:
    """D152: by itself with growing pauses, then only when asked; every attempt is in the history."""
    (file_id,) = enter(register, "x.txt")
    plugin = Hand(bad=["x.txt"])
    one = ingester(register, plugin, retries=3, backoff=0.02, longest=0.1)
    worked(one, register)
    assert len(plugin.batches) == 4
    time.sleep(0.15)
    assert one.work() == 0
    assert register.rerun("hand") == 1
    plugin.bad.clear()
    worked(one, register)
    states = [each.state for each in register.events(file_id) if each.ingester == "hand"]
    assert states == ["UNTRIED", *["PENDING", "FAILURE"] * 4, "RERUN", "PENDING", "SUCCESS"]
    pending = [each.begun_tai for each in register.events(file_id) if each.state == "PENDING"]
    assert pending == sorted(pending)
    assert register.rerun("hand") == 0
    with pytest.raises(NotFoundError, match="no file"):
        register.rerun(names=["nothing.txt"])


def test_an_outage_counts_against_no_file(register: Register) -> None:
    """Nothing is given up while nothing can be ingested, and one file finds out when it can."""
    ids = enter(register, *(f"{n}.txt" for n in range(30)))
    plugin = Hand()
    plugin.outage = "the server is away"
    one = ingester(register, plugin, retries=0)
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        one.work()
        time.sleep(0.002)
    assert len(plugin.batches) > 3
    assert all(len(each) == 1 for each in plugin.batches[1:])
    assert one.problems() == ["the server is away"]
    plugin.outage = ""
    worked(one, register)
    assert register.counts() == {"hand": {"SUCCESS": 30}}
    assert one.problems() == []
    assert {register.events(each)[-1].attempt for each in ids} == {1}


def test_what_a_plugin_says_nothing_of_is_unknown(register: Register) -> None:
    (file_id,) = enter(register, "x.txt")
    plugin = Hand()
    plugin.silent = True
    worked(ingester(register, plugin, retries=1), register)
    assert [each.state for each in register.events(file_id)][-1] == "UNKNOWN"
    assert register.counts() == {"hand": {"UNKNOWN": 1}}


def test_other_verdicts(register: Register) -> None:
    for name, verdict, state in (("a", "invalid", "INVALID"), ("b", "ignored", "IGNORED")):
        (file_id,) = enter(register, name)
        plugin = Hand(bad=[name])
        plugin.verdict = verdict
        worked(ingester(register, plugin), register)
        assert register.states(file_id) == {"hand": state}
    (file_id,) = enter(register, "c")
    plugin = Hand(bad=["c"])
    plugin.verdict = "waiting"
    one = ingester(register, plugin, retries=0)
    for _ in range(5):
        one.work()
        time.sleep(0.03)
    assert len(plugin.batches) > 2
    assert register.waiting("hand")[0] == 1, "it waits without end"


def test_patterns_choose(register: Register) -> None:
    enter(register, "a.fits", "a.json", "a_guider.fits")
    plugin = Hand()
    worked(ingester(register, plugin, files=["*.fits"], skip=["*_guider.fits"]), register)
    assert plugin.batches == [["a.fits"]]
    assert register.counts() == {"hand": {"IGNORED": 2, "SUCCESS": 1}}


def test_the_dead_lose_their_files_at_once_and_the_silent_after_their_lease(register: Register) -> None:
    """D151: nobody works on what somebody who lives works on."""
    enter(register, "x.txt")
    other = Register(register.path, register.storage, lease=1.0)
    assert len(other.claim("hand", 10)) == 1
    assert register.claim("hand", 10) == []
    code = (
        "import sys; from raftwright.backbone.receiving import Register\n"
        "print(len(Register(*sys.argv[1:]).claim('hand', 10)))"
    )
    enter(register, "y.txt")
    done = subprocess.run(
        [sys.executable, "-c", code, str(register.path), str(register.storage)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "1"
    (item,) = register.claim("hand", 10)
    assert (item.name, item.attempt) == ("y.txt", 2)
    assert "died at it" in next(each.message for each in register.events(item.id) if each.state == "UNKNOWN")
    time.sleep(1.2)  # the other lives, but has said nothing for longer than its lease
    (item,) = register.claim("hand", 10)
    assert item.name == "x.txt"
    other.close()


_WORKER = """
import json, sys, time
from pathlib import Path
from raftwright.backbone.receiving import Ingest, Register, Result
from raftwright.backbone.receiving.ingesting import Ingester

class Slow:
    sums, files = frozenset(), ("*",)
    def __init__(self, log): self.log = log
    def ingest(self, items):
        for item in items:
            time.sleep(0.02)
            with open(self.log, "a") as log: log.write(json.dumps([item.name, item.attempt]) + "\\n")
        return [Result(id=item.id, verdict="success") for item in items]
    def tend(self): pass
    def problems(self): return []
    def close(self): pass

path, storage, log = sys.argv[1:]
register = Register(path, storage, lease=1.0)
worker = Ingester(Ingest(plugin="hand", batch=4), register, Slow(log))
print("ready", flush=True)
while True:
    if not worker.work():
        time.sleep(0.01)
"""


def test_two_workers_and_kills(register: Register, tmp_path: Path) -> None:
    """D151, F12: each file is ingested once, but for those in the hands of one that was killed."""
    count = 300
    enter(register, *(f"{n:03}.txt" for n in range(count)))
    log = tmp_path / "log"
    workers: list[subprocess.Popen[str]] = []

    def begin() -> None:
        process = subprocess.Popen(
            [sys.executable, "-c", _WORKER, str(register.path), str(register.storage), str(log)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        workers.append(process)

    kills = 0
    try:
        begin()
        begin()
        until = time.monotonic() + 40
        while register.waiting("hand")[0]:
            assert time.monotonic() < until, register.counts()
            if kills < 4 and register.counts()["hand"].get("SUCCESS", 0) > 30 * (kills + 1):
                victim = workers.pop(0)
                os.kill(victim.pid, signal.SIGKILL)
                victim.wait()
                victim.stdout.close()  # type: ignore[union-attr]
                kills += 1
                begin()
            time.sleep(0.01)
    finally:
        for process in workers:
            process.kill()
            process.wait()
            process.stdout.close()  # type: ignore[union-attr]
    assert kills == 4
    assert register.counts() == {"hand": {"SUCCESS": count}}
    ended = Counter(name for name, attempt in map(json.loads, log.read_text().splitlines()))
    assert len(ended) == count
    again = [name for name, times in ended.items() if times > 1]
    assert len(again) <= 4 * kills, "only what was in the hands of the killed"


def test_a_plugin_of_somebody_else(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an entry point, as an installed package brings it."""
    package = stand.path / "site"
    info = package / "theirs-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[raftwright.endpoint]\ntheirs = theirs_plugin:make\n")
    (package / "theirs_plugin.py").write_text(
        "from raftwright.backbone.receiving import Result\n"
        "class Theirs:\n"
        "    sums, files = frozenset({'md5'}), ('*.txt',)\n"
        "    def __init__(self, options): self.options = options\n"
        "    def ingest(self, items):\n"
        "        with open(self.options['log'], 'a') as log:\n"
        "            for item in items: log.write(f'{item.name} {item.md5}\\n')\n"
        "        return [Result(id=item.id, verdict='success') for item in items]\n"
        "    def tend(self): pass\n"
        "    def problems(self): return ['one thing']\n"
        "    def close(self): pass\n"
        "def make(options, where): return Theirs(options)\n"
    )
    monkeypatch.syspath_prepend(str(package))
    log = stand.path / "log"
    endpoint = stand.start(Ingest(plugin="theirs", options={"log": str(log)}), settle=0)
    stand.hand_over("d/x.txt", b"x")
    stand.hand_over("d/x.json", b"{}")
    wait_for(lambda: endpoint.taken == 2 and endpoint.idle)
    assert log.read_text() == "d/x.txt 9dd4e461268c8034f5c8564e155c67a6\n"
    assert "theirs: one thing" in endpoint.problems()


def test_plugins_that_are_not_there(tmp_path: Path) -> None:
    where = Where(storage=tmp_path, name="x")
    with pytest.raises(NotFoundError, match=r"no plug-in 'nothing'; there are butler, null, rucio"):
        make_plugin("nothing", {}, where)
    with pytest.raises(FormatError, match="ingester x: options"):
        make_plugin("null", {"a": 1}, where)
    with pytest.raises(FormatError, match="ingester x: options"):
        make_plugin("rucio", {"rse": "x y"}, where)
    fine = {"rse": "X", "scope": "raw", "pfn": "davs://host/", "rules": [{"rses": "Y", "lifetime": "365 d"}]}
    made = make_plugin("rucio", fine, where)
    assert made.settings.rules[0].lifetime == 365 * 86_400  # type: ignore[attr-defined]


def test_an_ingester_that_comes_later_gets_what_was_stored_before(stand: Stand) -> None:
    first = stand.start(settle=0)
    stand.hand_over("x.txt", b"x")
    wait_for(lambda: first.taken == 1)
    first.stop(5.0)
    second = stand.start(Ingest(plugin="null"), settle=0)
    wait_for(lambda: second.idle)
    with stand.register() as register:
        assert register.counts() == {"null": {"SUCCESS": 1}}


def test_overdue_files_are_told(stand: Stand) -> None:
    """D158, D159: what waits for too long is said, not only logged."""
    endpoint = stand.start(
        Ingest(
            plugin="rucio",
            overdue=0.2,
            options={"rse": "X", "scope": "raw", "pfn": "davs://host/", "host": "http://127.0.0.1:9"},
        ),
        settle=0,
    )
    stand.hand_over("x.txt", b"x")
    wait_for(
        lambda: any("files wait, the oldest for" in each for each in endpoint.problems()),
        said=endpoint.problems,
    )
