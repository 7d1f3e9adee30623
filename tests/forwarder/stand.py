"""What the tests of the forwarder share: judges of an archive, and forwarders as processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import raftwright
from hand_daq import HandImage
from raftwright import _core
from raftwright.errors import NotFoundError, StorageError
from raftwright.ledger import FileRow, Unit, open_ledger
from raftwright.stream.server import Limits, Server

SAMPLE = 108
"""Bytes in which each of the 48 segments of a board has one pixel."""
ROW = 28 * SAMPLE
BYTES = 16 * ROW
ROWS = Limits(chunk=(1024, ROW + 8))
"""Each row is a chunk."""
LOCATIONS = ("22/0", "22/1", "22/2")


def wait_for(what: Callable[[], Any], timeout: float = 10.0, programs: Iterable[Program] = ()) -> Any:
    """The first true answer; without one it is said what programs did."""
    until = time.monotonic() + timeout
    while True:
        if answer := what():
            return answer
        if time.monotonic() > until:
            said = [(program.process.poll(), program.lines[-5:], program.log[-20:]) for program in programs]
            raise AssertionError(f"waited {timeout} s in vain {said}")
        time.sleep(0.02)


def units_of(ledger: Path) -> dict[tuple[str, str], Unit]:
    """(image, location) -> unit."""
    if not ledger.is_file():
        return {}
    try:
        with open_ledger(ledger, read_only=True) as opened:
            return {(unit.image, unit.location): unit for unit in opened.claims.units()}
    except (StorageError, NotFoundError):
        return {}


def states_of(ledger: Path) -> Counter[str]:
    """Of what was begun."""
    if not ledger.is_file():
        return Counter()
    try:
        with open_ledger(ledger, read_only=True) as opened:
            return Counter(unit.state for unit in opened.claims.units() if unit.state != "expected")
    except (StorageError, NotFoundError):
        return Counter()


def rows_of(ledger: Path) -> list[FileRow]:
    with open_ledger(ledger, read_only=True) as opened:
        return list(opened.claims.files())


def attempts_of(ledger: Path) -> Counter[str]:
    """Kinds in the history."""
    with open_ledger(ledger, read_only=True) as opened:
        return Counter(entry.kind for entry in opened.claims.history())


def fits_in(out: Path) -> set[Path]:
    return {path for path in out.rglob("*.fits*") if path.is_file()}


def check_archive(out: Path, ledger: Path, images: Mapping[str, HandImage]) -> list[FileRow]:
    """Every file is whole, is in the ledger as it is, and each of its pixels is the DAQ's or marked."""
    rows = rows_of(ledger)
    told = {Path(row.path): row for row in rows}
    assert len(told) == len(rows), "a file is in the ledger twice"
    assert set(told) == fits_in(out), "ledger and disk do not have the same files"
    hidden = [path for path in out.rglob(".*") if path.is_file()]
    assert not hidden, f"left behind: {hidden}"
    truths: dict[str, Any] = {}
    for path, row in told.items():
        data = path.read_bytes()
        assert (len(data), f"{_core.crc32c(data):08x}") == (row.bytes, row.crc32c), (
            f"{path} is not the ledger's"
        )
        assert f"{_core.adler32(data):08x}" == row.adler32
        if row.image not in truths:
            truths[row.image] = raftwright.assemble(images[row.image].simulated, threads=1)
        if row.status != "conflict":
            check_pixels(path, row, truths[row.image])
    for row in rows:
        if row.replaces:
            assert told[Path(row.replaces)].replaced_by == row.path, "versions do not name each other"
    return rows


def check_pixels(path: Path, row: FileRow, truth: Any) -> None:
    sidecar = json.loads(path.with_suffix(".json").read_bytes())
    missing = sidecar.get("__MISSING__", {})
    raw = raftwright.open_raw(path, threads=1)
    assert raw.detector.name == row.detector
    marked = 0
    for segment, pixels in raw.segments.items():
        flat, right = pixels.ravel().copy(), truth[row.detector].segments[segment].ravel()
        for first, count in missing.get(segment, ()):
            assert (flat[first : first + count] == -1).all(), f"{path}: a marked pixel is not filled"
            flat[first : first + count] = right[first : first + count]
            marked += count
        assert (flat == right).all(), f"{path}: {segment} has a wrong pixel that is not marked"
    assert (marked, raw.missing_pixels) == (row.missing, row.missing), f"{path}: other pixels are marked"


class Program:
    """`raftwright forward` as a process; its lines of JSON are kept."""

    def __init__(self, endpoint: str, out: Path, *options: str, env: Mapping[str, str] | None = None) -> None:
        self.lines: list[dict[str, Any]] = []
        self.log: list[str] = []
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "raftwright", "forward", endpoint, "--out", str(out), "--json"),
                *("--sweep", "300ms", "--retry", "300ms", *options),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read, daemon=True),
            threading.Thread(target=self._read_log, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                self.lines.append(json.loads(line))
            except ValueError:
                self.log.append(line.rstrip())  # of an error, which is told in many

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line.rstrip())

    @property
    def images(self) -> list[dict[str, Any]]:
        return [line for line in self.lines if line.get("event") == "image"]

    @property
    def ready(self) -> bool:
        return any(line.get("event") == "ready" for line in self.lines)

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self, number: int = signal.SIGTERM, patience: float = 20.0) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
            raise
        finally:
            for reader in self._readers:
                reader.join(5)
            for stream in (self.process.stdout, self.process.stderr):
                if stream is not None:
                    stream.close()
        return code

    def memory(self) -> int:
        """Bytes of its own."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no RssAnon")


Serve = Callable[..., Server]
Forward = Callable[..., Any]
Run = Callable[..., Program]
