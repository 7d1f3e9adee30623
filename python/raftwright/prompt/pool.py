"""The pool of slabs that a forwarder assembles boards into."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import weakref
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import zmq

from raftwright.errors import FormatError, StorageError, UsageError
from raftwright.prompt.board import describe
from raftwright.prompt.layout import (
    BoardMeta,
    PoolState,
    encode_meta,
)
from raftwright.prompt.place import SLAB, STATE, hints, make_private, own, pool_directory, slab_name
from raftwright.prompt.slabs import SlabFile, file_bytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from raftwright.assembly import AssembledSource
    from raftwright.metrics import Metrics

__all__ = ["Pool", "Slab"]

_MOST_SLABS: Final = 256


class Slab:
    """Room for one board, lent by a pool. Publish it or discard it; who forgets it discards it."""

    def __init__(self, pool: Pool, file: SlabFile, nbytes: int) -> None:
        self._pool = pool
        self._file: SlabFile | None = file
        self._memory: NDArray[np.uint8] | None = file.memory(nbytes)
        self.nbytes = nbytes

    @property
    def memory(self) -> NDArray[np.uint8]:
        """`nbytes` writable bytes that begin on a page: for `_core.Readout(memory=…)`.

        The slab is not used again while anybody has a reference to it, so nobody's planes change under him.
        Raises UsageError once it is published or discarded.
        """
        if self._memory is None:
            raise UsageError("this slab was published or discarded; lend another one")
        return self._memory

    def publish_source(self, image: str, camera: str, source: AssembledSource) -> bool:
        """Announces a finished source whose planes lie in `memory`. True unless the pool is closed.

        Raises UsageError where the planes are not in this slab.
        """
        return self.publish(describe(image, camera, source, self.memory))

    def publish(self, meta: BoardMeta) -> bool:
        """Announces what lies in `memory`, and gives the slab up. True unless the pool is closed.

        Raises FormatError for planes outside of it; the slab is then discarded.
        """
        self.memory  # noqa: B018 - raises when it is too late
        file, self._file, self._memory = self._file, None, None
        assert file is not None
        return self._pool._publish(file, meta)

    def discard(self) -> None:
        """Gives it back; nobody will see what lies in it. Twice, or after `publish`, is nothing."""
        file, self._file, self._memory = self._file, None, None
        if file is not None:
            self._pool._discard(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.discard()


class Pool:
    """Slabs in shared memory, at most so many bytes of them. Thread-safe; one process has it open at a time.

    Files are made when they are first needed, and used again, the oldest first, when nobody holds them. What
    a process that died left there is taken over: serial numbers go on, and what readers hold stays theirs.

    Parameters
    ----------
    name
        Its name (`default`), or a directory.
    bytes
        Most bytes of all files.
    metrics
        Where losses and levels are counted.

    Raises
    ------
    StorageError
        Another process has this pool open, or the directory cannot be had.
    """

    def __init__(
        self,
        name: str | os.PathLike[str] = "default",
        bytes: int = 2 << 30,
        *,
        metrics: Metrics | None = None,
        slabs: int = _MOST_SLABS,
    ) -> None:
        if bytes < file_bytes(1) or not 1 <= slabs <= 4096:
            raise UsageError(f"a pool of {bytes} bytes and {slabs} slabs holds nothing; give it more")
        self.directory = pool_directory(name)
        self.limit = bytes
        self.problem = ""
        """Why the last slab could not be had, in a sentence; empty while they can."""
        self._most = slabs
        self._lock = (
            threading.RLock()
        )  # a slab may be given back by the garbage collector within our own calls
        self._files: dict[int, SlabFile] = {}
        self._total = 0
        self._lent = 0
        self._lost = 0
        self._closed = False
        self._elsewhere = False
        self._next = 0
        self._metrics = metrics
        make_private(self.directory)
        self._owner = own(self.directory)
        try:
            self._state = self._open_state()
            self._take_over()
        except BaseException:
            os.close(self._owner)
            raise
        self._socket = self._open_hints()
        if metrics is not None:
            metrics.gauge("prompt_bytes", "Shared memory of the prompt pool", read=lambda: self._total)
            metrics.gauge("prompt_limit_bytes", "What the prompt pool may have", read=lambda: self.limit)
            metrics.gauge("prompt_slabs", "Slabs of the prompt pool", read=lambda: len(self._files))
            metrics.gauge("prompt_lent", "Slabs that are being filled", read=lambda: self._lent)
        _OPEN.add(self)

    def lend(self, nbytes: int) -> Slab | None:
        """Room for so many bytes, never waiting for a reader.

        None where all slabs are held, or shared memory has no more: the loss of a preview, counted as such,
        with the reason in `problem`. Raises UsageError when the pool is closed.
        """
        if nbytes < 1:
            raise UsageError(f"a slab of {nbytes} bytes holds nothing")
        need = file_bytes(nbytes)
        number = 0
        with self._lock:
            if self._closed:
                raise UsageError("the pool is closed")
            if need > self.limit:
                self._lose(
                    nbytes, "too large", f"a board of {nbytes} bytes does not fit into a pool of {self.limit}"
                )
                return None
            file = self._reuse(need)
            if file is None:
                if not self._room(need):
                    said = (
                        f"readers hold all of the pool's {self.limit} bytes; give it more, or them less to do"
                    )
                    self._lose(nbytes, "slabs held", said)
                    return None
                number = self._new_number()
                self._total += need
            self._lent += 1
        if file is None:
            # Outside of the lock: to clear 226 MB takes a tenth of a second.
            file = self._create(number, need, nbytes)
            with self._lock:
                if file is None:
                    self._lent -= 1
                    return None
                if not self._keep(file):
                    self._lent -= 1
                    raise UsageError("the pool is closed")
        self.problem = ""
        return Slab(self, file, nbytes)

    def prepare(self, nbytes: int, count: int) -> int:
        """Makes slabs of a size ahead of their use, until there are so many empty ones, as far as there is
        room; returns how many. In a thread of its own it holds up nobody, and the first boards come sooner.
        """
        need = file_bytes(nbytes)
        made = 0
        while True:
            with self._lock:
                empty = sum(1 for file in self._files.values() if not file.serial and file.fits(need))
                if self._closed or empty >= count or not self._room(need):
                    break
                number = self._new_number()
                self._total += need
            file = self._create(number, need, nbytes)
            if file is None:
                break
            with self._lock:
                if not self._keep(file):
                    break
                file.discard()
            made += 1
        return made

    @property
    def serial(self) -> int:
        """Of the board that was published last; it counts all since the pool was first made."""
        return self._state.serial

    def status(self) -> dict[str, Any]:
        """For people: path, bytes, slabs, what is lent, what readers hold, losses."""
        with self._lock:
            if self._closed:
                return {"path": os.fspath(self.directory), "closed": True}
            held = 0
            for file in self._files.values():
                if file.serial and file.idle:
                    if file.try_lock():
                        file.unlock()
                    else:
                        held += 1
            return {
                "path": os.fspath(self.directory),
                "limit": self.limit,
                "used": self._total,
                "slabs": len(self._files),
                "lent": self._lent,
                "held_by_readers": held,
                "published": self._state.serial,
                "lost": self._lost,
                "problem": self.problem,
            }

    def close(self) -> None:
        """Ends it: what nobody holds is removed. What readers hold stays theirs. Twice is once."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for file in list(self._files.values()):
                if not file.lent:
                    if file.try_lock():
                        self._remove(file)
                    else:
                        file.forget()
            self._files.clear()
            if self._socket is not None:
                self._socket.context.destroy(linger=100)
                self._socket = None
                with contextlib.suppress(OSError):
                    os.unlink(self.directory / "notices")
            self._state.close()
            os.close(self._owner)
            _OPEN.discard(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _create(self, number: int, need: int, nbytes: int) -> SlabFile | None:
        """A new slab, for which room was set aside; None where shared memory has no more."""
        try:
            return SlabFile.create(self.directory / slab_name(number), number, need)
        except OSError as error:
            with self._lock:
                self._total -= need
                said = (
                    f"{self.directory} has no room for {need} bytes ({error.strerror}); see raftwright doctor"
                )
                self._lose(nbytes, "shared memory full", said)
            return None

    def _keep(self, file: SlabFile) -> bool:
        """Takes a new slab into the pool; False, and it is gone, where the pool was closed meanwhile."""
        self._files[file.number] = file
        if self._closed:
            self._remove(file)
        return not self._closed

    # --- slabs come back ---------------------------------------------------------------------------------

    def _publish(self, file: SlabFile, meta: BoardMeta) -> bool:
        if self._elsewhere:
            return False
        try:
            meta.check(file.capacity)
            body = encode_meta(meta)
        except BaseException:
            self._discard(file)
            raise
        with self._lock:
            self._lent -= 1
            if self._closed:
                self._remove(file)
                return False
            serial = self._state.serial + 1
            file.publish(body, serial)
            self._state.note(serial, file.number)
            self._state.announce(serial)
            if self._socket is not None:
                with contextlib.suppress(
                    zmq.ZMQError
                ):  # a hint: without it, readers look five times a second
                    self._socket.send(serial.to_bytes(8, "little"), zmq.NOBLOCK)
            return True

    def _discard(self, file: SlabFile) -> None:
        if self._elsewhere:
            return
        with self._lock:
            self._lent -= 1
            if self._closed:
                self._remove(file)
            else:
                file.discard()

    def _lose(self, nbytes: int, reason: str, said: str) -> None:
        self._lost += 1
        self.problem = said
        if self._metrics is not None:
            self._metrics.drops(f"prompt: {reason}", kind="preview", bytes=nbytes)

    # --- which slab is next ------------------------------------------------------------------------------

    def _room(self, need: int) -> bool:
        return self._total + need <= self.limit and len(self._files) < self._most

    def _reuse(self, need: int) -> SlabFile | None:
        """A slab that nobody holds, locked; None where there is room now to make one, or where all are held.

        First what is empty, then a new one if there is room; then the oldest board goes. A slab of the right
        size is taken if it is among the older half; else old ones of other sizes are removed, and so are
        those that were passed over for long. So a few slabs of a rare size are not used over and over again
        while boards of another size stay for ages.
        """
        idle = sorted((file for file in self._files.values() if file.idle), key=lambda file: file.serial)
        for file in sorted(idle, key=lambda file: file.capacity):
            if file.serial == 0 and file.fits(need) and file.try_lock():
                file.begin()
                return file
        if self._room(need):
            return None
        spare: list[SlabFile] = []
        chosen = None
        for place, file in enumerate(idle, 1):
            if not file.try_lock():
                continue
            if file.fits(need):
                chosen = file
                break
            spare.append(file)
            freed = sum(other.file_bytes for other in spare)
            if place * 2 >= len(idle) and self._total - freed + need <= self.limit:
                break
        ancient = self._state.serial - 2 * len(self._files)
        for file in spare:
            if file.serial < ancient or (chosen is None and not self._room(need)):
                self._remove(file)
            else:
                file.unlock()
        if chosen is not None:
            chosen.begin()
        return chosen

    def _new_number(self) -> int:
        while True:
            self._next = (self._next + 1) % 1_000_000
            if self._next not in self._files and not (self.directory / slab_name(self._next)).exists():
                return self._next

    def _remove(self, file: SlabFile) -> None:
        """A slab that is locked by us goes."""
        self._files.pop(file.number, None)
        self._total -= file.file_bytes
        file.remove()

    # --- the beginning -----------------------------------------------------------------------------------

    def _open_state(self) -> PoolState:
        path = self.directory / STATE
        for _ in range(2):
            try:
                fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                pass
            else:
                try:
                    return PoolState(fd, writable=True)
                except FormatError:  # of another version: begin anew
                    pass
                finally:
                    os.close(fd)
            hidden = self.directory / f".{STATE}"
            try:
                hidden.touch(mode=0o600)
                hidden.write_bytes(PoolState.empty())
                hidden.replace(path)
            except OSError as error:
                raise StorageError(
                    error.errno, f"{path} cannot be written ({error.strerror}); see raftwright doctor"
                ) from None
        raise StorageError(errno.EIO, f"{path} is not what was written there; name another pool")

    def _take_over(self) -> None:
        newest = self._state.serial
        for entry in os.scandir(self.directory):
            match = SLAB.match(entry.name)
            if not match:
                continue
            file = SlabFile.adopt(self.directory / entry.name, int(match[1]))
            if file is None:
                continue
            self._files[file.number] = file
            self._total += file.file_bytes
            if file.serial:
                self._state.note(file.serial, file.number)
                newest = max(newest, file.serial)
        # It may have died between the two: what has a header is published.
        if newest != self._state.serial:
            self._state.announce(newest)
        for file in sorted(self._files.values(), key=lambda file: file.serial):
            if self._total > self.limit and file.try_lock():
                self._remove(file)

    def _open_hints(self) -> zmq.Socket[bytes] | None:
        endpoint = hints(self.directory)
        if endpoint is None:
            return None
        context = zmq.Context()
        socket = context.socket(zmq.PUB)
        socket.sndhwm = 16
        socket.linger = 0
        try:
            socket.bind(endpoint)
        except zmq.ZMQError:
            context.destroy(linger=0)
            return None
        return socket

    def _forked(self) -> None:
        """In the child of a fork: the pool stays the parent's, also when the parent ends before."""
        self._lock = threading.RLock()
        self._closed = self._elsewhere = True
        os.close(self._owner)
        for file in self._files.values():
            file.forget()
        self._files.clear()


_OPEN: weakref.WeakSet[Pool] = weakref.WeakSet()


def _after_fork() -> None:
    for pool in list(_OPEN):
        pool._forked()
    _OPEN.clear()


os.register_at_fork(after_in_child=_after_fork)
