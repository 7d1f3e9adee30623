"""Programs with a list of arguments, a limit of time, and an end that is known. Nothing goes through a
shell."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from typing import TYPE_CHECKING, Final

from raftwright.transfer.outcome import OutageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Programs", "Said"]

_TOLD: Final = 4000
"""Bytes of what a program complained of that are kept: the last ones."""
_MOST_SAID: Final = 64 << 20
"""Bytes on the disk that a program may complain of, before it is killed."""
_STEP: Final = 1 << 20


class Said:
    """How a program ended: its exit code, negative for a signal, and the end of what it complained of."""

    def __init__(self, rc: int, complaint: str) -> None:
        self.rc = rc
        self.complaint = complaint


class Programs:
    """Those that run for one place. Thread-safe."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    def run(
        self, arguments: Sequence[str], timeout: float, to: Callable[[bytes], object] | None = None
    ) -> Said:
        """Runs one to its end; `to` is given what it writes, piece by piece. After `timeout` seconds it and
        all that it started is killed.

        Raises OutageError where it does not end or cannot be run."""
        with tempfile.TemporaryFile() as complaints:
            process = self._start(arguments, complaints.fileno())
            late = threading.Timer(timeout, _kill, (process,))
            late.daemon = True
            until = time.monotonic() + timeout
            late.start()
            try:
                assert process.stdout is not None
                while piece := process.stdout.read1(_STEP):  # type: ignore[attr-defined]
                    if to is not None:
                        to(piece)
                    if os.fstat(complaints.fileno()).st_size > _MOST_SAID:
                        break
                rc = process.wait()
            finally:
                late.cancel()
                _kill(process)
                process.wait()
                if process.stdout is not None:
                    process.stdout.close()
                with self._lock:
                    self._running.discard(process)
            size = os.fstat(complaints.fileno()).st_size
            complaint = os.pread(complaints.fileno(), _TOLD, max(0, size - _TOLD)).decode("utf-8", "replace")
        if rc < 0 and time.monotonic() >= until:
            raise OutageError(f"{arguments[0]}: did not end within {timeout:g} s, and was killed")
        return Said(rc, complaint.strip())

    def _start(self, arguments: Sequence[str], complaints: int) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._closed:
                raise OutageError(f"{self._name}: nothing more is sent: the service ends")
            try:
                process = subprocess.Popen(
                    arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=complaints,
                    start_new_session=True,  # a group of its own, so that all of it can be killed
                    close_fds=True,
                )
            except (FileNotFoundError, PermissionError, NotADirectoryError, ValueError) as error:
                raise OutageError(
                    f"{arguments[0]}: cannot be run ({error}); install it, or name another"
                ) from None
            except OSError as error:
                raise OutageError(f"{arguments[0]}: cannot be run now ({error.strerror})") from None
            self._running.add(process)
            return process

    def close(self) -> None:
        """Kills what runs."""
        with self._lock:
            self._closed = True
            for process in self._running:
                _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """It and all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
