"""Programs with a list of arguments, a limit of time, and an end that is known. Nothing goes through a
shell."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Final

from raftwright.transfer.outcome import OutageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["Programs", "Said"]

_TOLD: Final = 4000
"""Bytes of what a program complained of that are kept: the last ones."""
_LOOK: Final = 0.05
"""Seconds between two looks whether it ended, where the kernel does not say so."""
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
        process = self._start(arguments)
        try:
            complaint, late = _listen(process, time.monotonic() + timeout, to)
        finally:
            _kill(process)
            rc = process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
            with self._lock:
                self._running.discard(process)
        if late:
            raise OutageError(f"{arguments[0]}: did not end within {timeout:g} s, and was killed")
        return Said(rc, complaint.decode("utf-8", "replace").strip())

    def _start(self, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._closed:
                raise OutageError(f"{self._name}: nothing more is sent: the service ends")
            try:
                process = subprocess.Popen(
                    arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
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


def _listen(
    process: subprocess.Popen[bytes], until: float, to: Callable[[bytes], object] | None
) -> tuple[bytes, bool]:
    """Until a program ended; what it left running may hold its pipes for longer. The end of what it
    complained of, and whether it was late."""
    assert process.stdout is not None
    assert process.stderr is not None
    complaint = b""
    open_pipes = {process.stdout.fileno(), process.stderr.fileno()}
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
        for pipe in open_pipes:
            os.set_blocking(pipe, False)
            selector.register(pipe, selectors.EVENT_READ)
        look = _LOOK
        with contextlib.suppress(OSError, AttributeError):
            ended = os.pidfd_open(process.pid)
            stack.callback(os.close, ended)
            selector.register(ended, selectors.EVENT_READ)
            look = 1.0
        while True:
            left = until - time.monotonic()
            if left <= 0:
                return complaint, True
            selector.select(min(left, look))
            is_over = process.poll() is not None  # asked before the pipes are: then all is in them
            for pipe in sorted(open_pipes):
                for piece in _pieces(pipe):
                    if not piece:
                        open_pipes.discard(pipe)
                        selector.unregister(pipe)
                    elif pipe == process.stderr.fileno():
                        complaint = (complaint + piece)[-_TOLD:]
                    elif to is not None:
                        to(piece)
                    if time.monotonic() > until:
                        return complaint, True
            if is_over:
                return complaint, False


def _pieces(pipe: int) -> Iterator[bytes]:
    """What is in a pipe now; nothing at its end, which comes last."""
    while True:
        try:
            piece = os.read(pipe, _STEP)
        except BlockingIOError:
            return
        yield piece
        if not piece:
            return


def _kill(process: subprocess.Popen[bytes]) -> None:
    """It and all that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
