"""Programs that are run for what was written: an argument list each, a limit of time, and an end that is
known."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from raftwright.archiver.telling import parts_of
from raftwright.transfer.outcome import OutageError, RefusedError, Sent
from raftwright.transfer.words import fill

if TYPE_CHECKING:
    from collections.abc import Callable

    from raftwright.archiver.settings import Command
    from raftwright.ledger.rows import DeliveryRow, ImageRow

__all__ = ["CommandError", "Runner"]

_TOLD: Final = 4000
"""Bytes of what a program said that are kept: the last ones."""
_MOST_SAID: Final = 64 << 20
"""Bytes on the disk that a program may say, before it is killed."""
_LOOK: Final = 0.05


class CommandError(RefusedError):
    """A program failed; `rc` is its exit code, negative for a signal, `output` what it said."""

    def __init__(self, message: str, rc: int, output: str) -> None:
        super().__init__(message)
        self.rc = rc
        self.output = output


class Runner:
    """Runs one configured command. Thread-safe.

    `image_of` gives the image of a delivery.
    """

    def __init__(self, command: Command, image_of: Callable[[int], ImageRow]) -> None:
        self._command = command
        self._image_of = image_of
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    def arguments(self, row: DeliveryRow) -> list[str]:
        """What is run for a delivery."""
        image = self._image_of(row.image_id)
        raft, sensor = parts_of(row.target)
        path = Path(row.path)
        values = {
            "file": row.path,
            "directory": str(path if self._command.per == "image" else path.parent),
            "obsid": image.obsid,
            "dayobs": f"{image.dayobs:08d}",
            "instrument": image.instrument,
            "detector": row.target,
            "raft": raft,
            "sensor": sensor,
            "crc32c": row.crc32c,
        }
        return [fill(argument, values) for argument in self._command.run]

    def send(self, row: DeliveryRow) -> Sent:
        """Runs it to its end. Raises CommandError, OutageError where programs cannot be run at all."""
        arguments = self.arguments(row)
        try:
            said = tempfile.TemporaryFile()  # noqa: SIM115 - closed below, whatever happens
        except OSError as error:
            place = tempfile.gettempdir()
            raise OutageError(f"{place}: no room for what programs say ({error.strerror})") from None
        with said:
            try:
                process = self._start(arguments, said.fileno())
            except (FileNotFoundError, PermissionError, NotADirectoryError, ValueError) as error:
                raise CommandError(f"{arguments[0]}: cannot be run ({error})", 127, str(error)) from None
            except OSError as error:
                raise OutageError(f"{arguments[0]}: cannot be run now ({error.strerror})") from None
            try:
                rc, why = self._wait(process, said.fileno())
            finally:
                self._kill(process)
                with self._lock:
                    self._running.discard(process)
            output = _last(said.fileno())
        if rc or why:
            raise CommandError(
                f"{arguments[0]}: {why or f'exit code {rc}'}: {output[-500:].strip()}", rc, output
            )
        return Sent(how="run", place=" ".join(arguments))

    def _start(self, arguments: list[str], said: int) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._closed:
                raise OutageError(f"{self._command.name}: the archiver ends")
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,  # a group of its own, so that all of it can be killed
                close_fds=True,
            )
            self._running.add(process)
            return process

    def _wait(self, process: subprocess.Popen[bytes], said: int) -> tuple[int, str]:
        until = time.monotonic() + self._command.timeout
        while True:
            left = until - time.monotonic()
            with contextlib.suppress(subprocess.TimeoutExpired):
                rc = process.wait(max(0.0, min(left, 1.0)))
                return rc, f"killed by signal {-rc}" if rc < 0 else ""
            if left <= 0:
                self._kill(process)
                return process.wait(), f"killed after {self._command.timeout:g} s"
            if os.fstat(said).st_size > _MOST_SAID:
                self._kill(process)
                return process.wait(), f"killed: it said more than {_MOST_SAID >> 20} MiB"

    @staticmethod
    def _kill(process: subprocess.Popen[bytes]) -> None:
        """It and all that it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)

    def probe(self) -> None:
        """Programs can always be tried."""

    def warm(self) -> str:
        """Nothing to warm."""
        return f"command {self._command.name}: {' '.join(self._command.run)[:200]}"

    def close(self) -> None:
        """Kills what runs: it is run again later."""
        with self._lock:
            self._closed = True
            for process in self._running:
                self._kill(process)


def _last(said: int) -> str:
    size = os.fstat(said).st_size
    return os.pread(said, _TOLD, max(0, size - _TOLD)).decode("utf-8", "replace")
