"""Two hundred who write files into a ledger at the camera's pace, in some processes.

    python producers.py URL TASKS PROCESS PROCESSES OWN

Each producer is a thread; with OWN each has a connection of its own, else those of a process share its
ledger, as the threads of a service do. It says `ready`, reads from stdin when the first image begins
(`CLOCK_MONOTONIC`, one for all), and prints for each commit how long it lasted and when it had ended (TAI).
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from raftwright.camera import camera
from raftwright.ledger import DetectorFacts, FileRow, ImageFacts, Ledger, SourceFacts, open_ledger, tai
from raftwright.rawfile.names import FileName, sidecar_path
from raftwright.rawfile.standing import digest

__all__ = ["PRODUCERS", "Commit", "facts_of", "produce"]

PRODUCERS = 200
_PROCESSES = 8


class Commit(msgspec.Struct, frozen=True):
    """Of one producer: seconds, its end, and the path of the raw."""

    seconds: float
    ended: float
    path: str


class Task(msgspec.Struct, frozen=True):
    """What a producer writes, and when: seconds after the begin."""

    at: float
    rows: list[FileRow]


def facts_of(obsid: str) -> ImageFacts:
    """A whole image of LSSTCam."""
    model = camera("LSSTCam")
    return ImageFacts(
        obsid=obsid,
        daq_id="1f",
        camera=model.name,
        instrument=model.name,
        folder="raw",
        sources=tuple(SourceFacts(board.location, board.kind, 1000) for board in model.boards.values()),
        detectors=tuple(
            DetectorFacts(detector.name, board.location, "SCIENCE")
            for board in model.boards.values()
            for detector in board.detectors
        ),
    )


def _rows(path: Path) -> list[FileRow]:
    """Of a raw and its sidecar."""
    name = FileName.parse(path.name)
    detector = f"{name.raft}_{name.slot}"
    rows = []
    for kind, one in (("sidecar", sidecar_path(path)), ("raw", path)):
        sums = digest(one)
        rows.append(
            FileRow(
                image=str(name.image),
                daq_id="1f",
                location="",
                detector=detector,
                path=str(one),
                bytes=sums.bytes,
                adler32=sums.adler32,
                crc32c=sums.crc32c,
                status="written",
                kind=kind,
            )
        )
    return rows


def produce(
    url: str, images: Sequence[Sequence[Path]], *, every: float, spread: float, own: bool, seed: int = 1
) -> list[Commit]:
    """Lets them write the files of images, whose facts the ledger knows: an image all `every` seconds, each
    file at some moment of the `spread` seconds that its readout lasts."""
    seeded = random.Random(seed)
    tasks: list[list[Task]] = [[] for _ in range(PRODUCERS)]
    for number, paths in enumerate(images):
        for place, path in enumerate(paths):
            moment = number * every + seeded.uniform(0.0, spread)
            tasks[(place + number) % PRODUCERS].append(Task(moment, _rows(path)))
    for some in tasks:
        some.sort(key=lambda task: task.at)
    with ExitStack() as stack:
        file = images[0][0].parent / "tasks.json"
        file.write_bytes(msgspec.json.encode(tasks))
        stack.callback(file.unlink)
        programs = [_program(stack, url, file, number, own) for number in range(_PROCESSES)]
        for program in programs:
            assert program.stdout is not None
            assert program.stdout.readline() == "ready\n"
        begin = time.monotonic() + 0.5
        commits: list[Commit] = []
        for program in programs:
            assert program.stdin is not None
            program.stdin.write(f"{begin}\n")
            program.stdin.flush()
        for program in programs:
            said, _ = program.communicate(timeout=len(images) * every + 60)
            assert program.returncode == 0, said
            commits += msgspec.json.decode(said, type=list[Commit])
    assert len(commits) == sum(len(paths) for paths in images)
    return commits


def _program(stack: ExitStack, url: str, file: Path, number: int, own: bool) -> subprocess.Popen[str]:
    program = subprocess.Popen(
        [sys.executable, __file__, url, str(file), str(number), str(_PROCESSES), str(int(own))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    stack.callback(program.wait)
    stack.callback(program.kill)
    return program


def _work(ledger: Ledger, tasks: list[Task], begin: float, commits: list[Commit]) -> None:
    for task in tasks:
        time.sleep(max(0.0, begin + task.at - time.monotonic()))
        begun = time.monotonic()
        assert ledger.files.enter(task.rows) == len(task.rows)
        commits.append(Commit(time.monotonic() - begun, tai(), task.rows[-1].path))


def _main(url: str, file: str, number: int, processes: int, own: bool) -> None:
    tasks = msgspec.json.decode(Path(file).read_bytes(), type=list[list[Task]])[number::processes]
    with ExitStack() as stack:
        shared = None if own else stack.enter_context(open_ledger(url))
        ledgers = [shared or stack.enter_context(open_ledger(url)) for _ in tasks]
        for ledger in ledgers:
            ledger.renew()  # so that its connection is there
        print("ready", flush=True)
        begin = float(sys.stdin.readline())
        commits: list[Commit] = []
        failed: list[BaseException] = []

        def guarded(*given: Any) -> None:
            try:
                _work(*given, begin, commits)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=guarded, args=given) for given in zip(ledgers, tasks, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]
        print(json.dumps(msgspec.to_builtins(commits)))


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5] == "1")
