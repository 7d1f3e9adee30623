"""Watching a pool: each CCD once, in the order of completion."""

from __future__ import annotations

import fcntl
import fnmatch
import os
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, Self

import zmq

from raftwright import _core
from raftwright.errors import FormatError, UsageError
from raftwright.prompt.ccd import PromptCcd
from raftwright.prompt.layout import META_OFFSET, RING, BoardMeta, PoolState, decode_meta, read_header
from raftwright.prompt.place import SLAB, STATE, hints, pool_directory, slab_name

if TYPE_CHECKING:
    from raftwright.camera import Camera

__all__ = ["Watch", "watch"]

_POLL: Final = 0.2
"""Seconds between looks where no hint comes."""
_LOCK_WAIT: Final = 1.0


def watch(
    name: str | os.PathLike[str] = "default",
    *,
    images: str | Iterable[str] | None = None,
    detectors: str | int | Iterable[str | int] | None = None,
    timeout: float | None = None,
    since: Literal["new", "all"] = "new",
    camera: Camera | str | os.PathLike[str] | None = None,
) -> Watch:
    """CCDs as the forwarder of this machine completes them: an iterator of `PromptCcd`.

    for ccd in raftwright.watch(detectors=["R22_S11"]):
        with ccd:
            look(ccd.segments["Segment10"])

    Parameters
    ----------
    name
        Name of the pool (`--prompt` of `raftwright forward`), or its directory. It need not be there yet.
    images
        Only images of these names; `*` and `?` stand for anything.
    detectors
        Only these, by name or number.
    timeout
        End after so many seconds without a CCD; None: never.
    since
        ``new``: what is completed from now on. ``all``: first what is still there.
    camera
        A camera that is not built in, or its file.

    Raises
    ------
    UsageError
        A name that is none, or a filter that lets nothing through.
    """
    return Watch(name, images=images, detectors=detectors, timeout=timeout, since=since, camera=camera)


class Watch(Iterator[PromptCcd]):
    """What `watch` gives. It belongs to one thread; `close` may come from another."""

    def __init__(
        self,
        name: str | os.PathLike[str] = "default",
        *,
        images: str | Iterable[str] | None = None,
        detectors: str | int | Iterable[str | int] | None = None,
        timeout: float | None = None,
        since: Literal["new", "all"] = "new",
        camera: Camera | str | os.PathLike[str] | None = None,
    ) -> None:
        if since not in ("new", "all"):
            raise UsageError(f"since is 'new' or 'all', not {since!r}")
        self.directory = pool_directory(name)
        self.missed = 0
        """Boards that were gone before they could be leased: all slabs were held, or this reader was slow.
        Boards that were not asked for may be among them."""
        self._images = [images] if isinstance(images, str) else None if images is None else list(images)
        wanted = [detectors] if isinstance(detectors, str | int) else detectors
        self._detectors = None if wanted is None else {str(detector) for detector in wanted}
        if self._images == [] or self._detectors == set():
            raise UsageError("no image or no detector is asked for; name some, or leave it out for all")
        self._timeout = timeout
        if isinstance(camera, str | os.PathLike):
            from raftwright.camera import camera as find_camera

            camera = find_camera(camera)
        self._camera = camera
        self._ready: deque[PromptCcd] = deque()
        self._pending: deque[int] = deque()
        self._known: dict[int, int] = {}  # serial -> slab, of the last look at all of them
        self._closed = False
        self._last = 0
        self._state: PoolState | None = None
        self._inode: tuple[int, int] | None = None
        self._hints: zmq.Socket[bytes] | None = None
        self._hints_of = 0
        if self._look():
            assert self._state is not None
            self._last = self._state.serial
            if since == "all":
                self._pending.extend(self._present(self._last))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> PromptCcd:
        """The next CCD. Raises StopIteration at the timeout and when it is closed."""
        end = None if self._timeout is None else time.monotonic() + self._timeout
        self._listen()
        while not self._closed:
            if self._ready:
                return self._ready.popleft()
            if self._pending:
                self._lease(self._pending.popleft())
            elif not self._news():
                left = _POLL if end is None else min(_POLL, end - time.monotonic())
                if left <= 0:
                    break
                self._wait(left)
        raise StopIteration

    def close(self) -> None:
        """Ends it. CCDs that were given out stay; from another thread it takes up to 0.2 s. Twice is once."""
        self._closed = True
        while self._ready:
            try:
                self._ready.popleft().release()
            except IndexError:
                break

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- what is new -------------------------------------------------------------------------------------

    def _look(self) -> bool:
        """Finds the pool's state, again where its file is another one; False while there is none."""
        path = self.directory / STATE
        try:
            found = os.stat(path)
            if self._state is not None and (found.st_dev, found.st_ino) == self._inode:
                return True
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return self._state is not None
        try:
            state = PoolState(fd, writable=False)
            found = os.fstat(fd)
        except (FormatError, OSError):
            return self._state is not None
        finally:
            os.close(fd)
        if self._state is not None:
            self._state.close()
        self._state, self._inode = state, (found.st_dev, found.st_ino)
        self._last = 0  # a pool that was not there before: everything in it is new
        return True

    def _news(self) -> bool:
        if not self._look():
            return False
        assert self._state is not None
        serial = self._state.serial
        if serial < self._last:  # cannot be; but never wait for ever for a number to come back
            self._last = serial
        if serial == self._last:
            return False
        first = self._last + 1
        if serial - first >= RING // 2:  # so far behind that only a look at every slab tells what is left
            present = self._present(serial, first)
            self.missed += serial - first + 1 - len(present)
            self._pending.extend(present)
        else:
            self._pending.extend(range(first, serial + 1))
        self._last = serial
        return True

    def _present(self, newest: int, first: int = 1) -> list[int]:
        """Serial numbers of the boards that lie in slabs."""
        found = []
        try:
            entries = list(os.scandir(self.directory))
        except OSError:
            return []
        for entry in entries:
            if not SLAB.match(entry.name):
                continue
            try:
                fd = os.open(entry.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError:
                continue
            try:
                header = read_header(fd)
            finally:
                os.close(fd)
            if (
                header is not None
                and header.generation % 2 == 0
                and first <= header.generation // 2 <= newest
            ):
                found.append((header.generation // 2, int(entry.name[5:])))
        self._known = dict(found)
        return sorted(self._known)

    # --- leases ------------------------------------------------------------------------------------------

    def _lease(self, serial: int) -> None:
        """Takes the CCDs of a board that are wanted, all of them before the first is handed out."""
        assert self._state is not None
        number = self._known.pop(serial, None)
        if number is None:
            number = self._state.slab_of(serial)
        fd = _locked(self.directory / slab_name(number), serial)
        if fd is None:
            self.missed += 1
            return
        try:
            board = _described(fd)
            if self._images is not None and not any(
                fnmatch.fnmatchcase(board.image, pattern) for pattern in self._images
            ):
                return
            self._ready.extend(
                PromptCcd(fd, board, meta, self._camera)
                for meta in board.detectors
                if self._detectors is None or self._detectors & {meta.name, str(meta.id)}
            )
        except (FormatError, OSError, ValueError):
            self.missed += 1
        finally:
            os.close(fd)

    # --- hints -------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        if self._hints_of == os.getpid():
            return
        self._hints_of = os.getpid()
        self._hints = None  # after a fork the socket is the parent's
        endpoint = hints(self.directory)
        if endpoint is None:
            return
        context = zmq.Context()
        socket = context.socket(zmq.SUB)
        socket.linger = 0
        socket.rcvhwm = 1000
        socket.maxmsgsize = 64
        socket.reconnect_ivl = 100
        socket.subscribe(b"")
        try:
            socket.connect(endpoint)
        except zmq.ZMQError:
            context.destroy(linger=0)
            return
        self._hints = socket
        weakref.finalize(self, _end, context, os.getpid())

    def _wait(self, seconds: float) -> None:
        if self._hints is None:
            time.sleep(min(seconds, 0.05))
            return
        if self._hints.poll(max(1, int(seconds * 1000))):
            try:
                while True:
                    self._hints.recv(zmq.NOBLOCK)
            except zmq.ZMQError:
                pass


def _end(context: zmq.Context[zmq.Socket[bytes]], process: int) -> None:
    if process == os.getpid():  # in the child of a fork it is the parent's
        context.destroy(linger=0)


def _locked(path: Path, serial: int) -> int | None:
    """A descriptor of the slab with a shared lock, if that board still lies in it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    end = time.monotonic() + _LOCK_WAIT
    while _holds(fd, serial):
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            # The pool looks whether it is held, or begins to write; then the header will say so.
            if time.monotonic() > end:
                break
            time.sleep(0.0005)
            continue
        if _holds(fd, serial):
            return fd
        break
    os.close(fd)
    return None


def _holds(fd: int, serial: int) -> bool:
    header = read_header(fd)
    return header is not None and header.generation == 2 * serial


def _described(fd: int) -> BoardMeta:
    header = read_header(fd)
    if header is None:
        raise FormatError("no slab")
    body = os.pread(fd, header.meta_bytes, META_OFFSET)
    if len(body) != header.meta_bytes or _core.crc32c(body) != header.meta_crc:
        raise FormatError("the description of a slab is damaged")
    return decode_meta(body, header.capacity)
