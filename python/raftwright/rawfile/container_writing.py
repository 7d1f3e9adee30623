"""A container is made: written without a name, synced, read back from the disk, and then named once.

Whoever dies in between leaves nothing, or a name that begins with a point where the file system has no files
without names."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import secrets
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from raftwright import _core
from raftwright.errors import FormatError, RaftwrightError, StorageError
from raftwright.rawfile.container import (
    END,
    END_64,
    FORMAT,
    INDEX,
    LOCAL,
    LOCATOR,
    PIECE,
    ContainerIndex,
    Member,
    adler32_combine,
    check_container,
    check_member_name,
)
from raftwright.rawfile.publishing import sync_directory
from raftwright.rawfile.sidecar import CONTENT, read_json

__all__ = ["Source", "StagedContainer", "metadata_index", "stage_container"]

_log = logging.getLogger("raftwright.rawfile")

_CENTRAL: Final = struct.Struct("<4s6H3L5H2L")
_DAY: Final = 1 << 5 | 1  # 1980-01-01, the first that a zip can say
_MODE: Final = 0o100444 << 16
_LARGE: int = 0xFFFFFFFF
"""From this on sizes and offsets have 64 bits."""
_MANY: Final = 0xFFFF
_COMMON: Final = "__COMMON__"
_NO_NAMELESS: Final = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT})


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A file that goes into a container."""

    name: str
    path: Path
    bytes: int
    crc32c: str


def metadata_index(sidecars: Mapping[str, Path]) -> bytes:
    """The index that `lsst.obs.base` reads from a zip: headers of raw files by the names of the members, what
    all have in common once. `sidecars` are by the same names; one that cannot be read is left out."""
    headers: dict[str, dict[str, Any]] = {}
    for name, path in sorted(sidecars.items()):
        try:
            content = read_json(path)
        except RaftwrightError as error:
            _log.warning("%s: is not in the index of headers: %s", name, error)
            continue
        if content.get(CONTENT) != "metadata":
            _log.warning("%s: is not in the index of headers: its sidecar has none", name)
            continue
        headers[name] = {key: value for key, value in content.items() if not key.startswith("__")}
    common: dict[str, Any] = {}
    if headers:
        first, *others = headers.values()
        common = {
            key: value for key, value in first.items() if all(_has(other, key, value) for other in others)
        }
    index: dict[str, Any] = {CONTENT: "metadata", _COMMON: common}
    for name, header in headers.items():
        index[name] = {key: value for key, value in header.items() if key not in common}
    return json.dumps(index, indent=1, ensure_ascii=True).encode("ascii")


def _has(header: Mapping[str, Any], key: str, value: object) -> bool:
    if key not in header:
        return False
    other = header[key]
    return type(other) is type(value) and bool(other == value)


class _Part(msgspec.Struct):
    """A member that was written."""

    name: bytes
    at: int
    """Of its header."""
    size: int
    crc32: int

    @property
    def large(self) -> bool:
        return self.size >= _LARGE

    def local(self) -> bytes:
        extra = struct.pack("<2H2Q", 1, 16, self.size, self.size) if self.large else b""
        size = _LARGE_FIELD if self.large else self.size
        return (
            LOCAL.pack(
                *(b"PK\x03\x04", 45 if self.large else 20, 0, 0, 0, _DAY, self.crc32, size, size),
                *(len(self.name), len(extra)),
            )
            + self.name
            + extra
        )

    def central(self) -> bytes:
        wide = [self.size, self.size] if self.large else []
        far = self.at >= _LARGE
        if far:
            wide.append(self.at)
        extra = struct.pack(f"<2H{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
        size, need = _LARGE_FIELD if self.large else self.size, 45 if wide else 20
        return (
            _CENTRAL.pack(
                *(b"PK\x01\x02", 3 << 8 | need, need, 0, 0, 0, _DAY, self.crc32, size, size),
                *(len(self.name), len(extra), 0, 0, 0, _MODE, _LARGE_FIELD if far else self.at),
            )
            + self.name
            + extra
        )


_LARGE_FIELD: Final = 0xFFFFFFFF


class StagedContainer:
    """A container that is on the disk and was read back from there, and has no name yet. What is never named
    vanishes with `close`."""

    def __init__(self, directory: Path) -> None:
        self.bytes = 0
        self.crc32c = ""
        self.adler32 = ""
        self.members: tuple[Member, ...] = ()
        self._directory = directory
        self._hidden = ""
        try:
            try:
                self._file = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o644)
            except OSError as error:
                if error.errno not in _NO_NAMELESS:
                    raise
                chance = secrets.token_hex(4)
                hidden = directory / f".container.{os.getpid()}-{chance}-0.tmp"
                self._file = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
                self._hidden = str(hidden)
        except OSError as error:
            raise StorageError(
                error.errno, f"a container cannot be made ({error.strerror})", str(directory)
            ) from error

    @property
    def readable_path(self) -> str:
        """A path by which this process can read it."""
        return self._hidden or f"/proc/self/fd/{self._file}"

    def name(self, path: Path) -> bool:
        """Gives it a name in its directory, replacing nothing: False when that is taken. Durable when it
        returns. Raises StorageError."""
        try:
            if self._hidden:
                os.link(self._hidden, path)
                os.unlink(self._hidden)
                self._hidden = ""
            else:
                folder = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    os.link(self.readable_path, path.name, dst_dir_fd=folder, follow_symlinks=True)
                finally:
                    os.close(folder)
            sync_directory(self._directory)
        except FileExistsError:
            return False
        except OSError as error:
            raise StorageError(
                error.errno, f"the container cannot have its name ({error.strerror})", str(path)
            ) from error
        return True

    def close(self) -> None:
        """May be called again."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if self._hidden:
            with contextlib.suppress(OSError):
                os.unlink(self._hidden)
            self._hidden = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def stage_container(
    directory: Path,
    image: str,
    sources: Iterable[Source],
    indexes: Mapping[str, bytes],
    *,
    going_on: Callable[[], bool] = lambda: True,
) -> StagedContainer:
    """Writes a container into a directory, without a name, syncs it, and reads it back.

    Parameters
    ----------
    directory
        Where it is going to be named.
    image
        Name of the image.
    sources
        The files; each has to have the bytes and the CRC-32C that are said of it.
    indexes
        By their names, which begin with `_`: `METADATA_INDEX`, `metadata_index` of the files, and others.
    going_on
        Asked between pieces; where it says no, the work is given up.

    Raises FormatError (a file is not what was said of it; given up), NotFoundError, StorageError.
    """
    listed = sorted(sources, key=lambda one: one.name)
    names = [one.name for one in listed]
    for name in names:
        check_member_name(name)
        if name.startswith("_"):
            raise FormatError(f"{image}: {name} cannot be the name of a file of an image")
    if len(set(names)) < len(names):
        raise FormatError(f"{image}: two of its files have one name, so that they cannot be in one container")
    staged = StagedContainer(directory)
    try:
        writer = _Writer(staged, going_on)
        for one in listed:
            writer.add_file(one)
        for name, text in indexes.items():
            writer.add_text(name, text)
        index = ContainerIndex(format=FORMAT, image=image, members=tuple(writer.members))
        staged.members = index.members
        writer.add_text(INDEX, msgspec.json.format(msgspec.json.encode(index), indent=1))
        writer.end()
        _read_back(staged, directory, going_on)
    except OSError as error:
        staged.close()
        if isinstance(error, StorageError):
            raise
        raise StorageError(
            error.errno, f"a container cannot be written ({error.strerror})", str(directory)
        ) from error
    except BaseException:
        staged.close()
        raise
    return staged


def _read_back(staged: StagedContainer, directory: Path, going_on: Callable[[], bool]) -> None:
    """From the disk, where the kernel can be made to forget what it wrote."""
    os.fsync(staged._file)
    with contextlib.suppress(OSError):
        os.posix_fadvise(staged._file, 0, 0, os.POSIX_FADV_DONTNEED)
    found = check_container(staged.readable_path, going_on=going_on, sums=False)
    if (found.bytes, found.crc32c) != (staged.bytes, staged.crc32c) or found.wrong:
        raise StorageError(
            errno.EIO,
            f"a container of {staged.bytes} bytes and the CRC-32C {staged.crc32c} was written, and "
            f"{found.bytes} bytes with {found.crc32c} are read back; look at this disk",
            str(directory),
        )


class _Writer:
    """Writes a container from its beginning to its end, and its sums with it."""

    def __init__(self, staged: StagedContainer, going_on: Callable[[], bool]) -> None:
        self._staged = staged
        self._file = staged._file
        self._going_on = going_on
        self._at = 0
        self._crc, self._adler = 0, 1
        self._parts: list[_Part] = []
        self._buffer = memoryview(bytearray(PIECE))
        self.members: list[Member] = []

    def add_file(self, source: Source) -> None:
        part = _Part(source.name.encode("ascii"), self._at, source.bytes, 0)
        begin = self._at + len(part.local())
        length, crc32, crc, adler = 0, 0, 0, 1
        try:
            file = os.open(source.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError as error:
            raise StorageError(error.errno, f"cannot be read ({error.strerror})", str(source.path)) from error
        try:
            while count := os.readv(file, [self._buffer]):
                if not self._going_on():
                    raise FormatError(f"{source.path}: packing was given up")
                piece = self._buffer[:count]
                crc32 = zlib.crc32(piece, crc32)
                crc, adler = _core.crc32c(piece, crc), _core.adler32(piece, adler)
                self._write(piece, begin + length)
                length += count
                if length > source.bytes:
                    break
        finally:
            os.close(file)
        if (length, f"{crc:08x}") != (source.bytes, source.crc32c):
            raise FormatError(
                f"{source.path}: has {length} bytes and the CRC-32C {crc:08x}, the ledger says "
                f"{source.bytes} and {source.crc32c}; let `raftwright audit --digests` look at it"
            )
        part.crc32 = crc32
        self._member(part, crc, adler)

    def add_text(self, name: str, text: bytes) -> None:
        part = _Part(name.encode("ascii"), self._at, len(text), zlib.crc32(text))
        self._write(text, self._at + len(part.local()))
        self._member(part, _core.crc32c(text), _core.adler32(text))

    def _member(self, part: _Part, crc: int, adler: int) -> None:
        head = part.local()
        self._write(head, self._at)
        self._add(_core.crc32c(head), _core.adler32(head), len(head))
        self.members.append(
            Member(
                name=part.name.decode(),
                offset=self._at,
                bytes=part.size,
                crc32c=f"{crc:08x}",
                adler32=f"{adler:08x}",
            )
        )
        self._add(crc, adler, part.size)
        self._parts.append(part)

    def _add(self, crc: int, adler: int, length: int) -> None:
        self._crc = _core.crc32c_combine(self._crc, crc, length)
        self._adler = adler32_combine(self._adler, adler, length)
        self._at += length

    def _write(self, data: memoryview | bytes, at: int) -> None:
        left = memoryview(data)
        while left:
            count = os.pwrite(self._file, left, at)
            left, at = left[count:], at + count

    def end(self) -> None:
        """The directory of the zip."""
        begin, count = self._at, len(self._parts)
        directory = b"".join(part.central() for part in self._parts)
        end = b""
        if count >= _MANY or begin >= _LARGE or len(directory) >= _LARGE:
            versions = (3 << 8 | 45, 45)
            end += END_64.pack(
                b"PK\x06\x06", END_64.size - 12, *versions, 0, 0, count, count, len(directory), begin
            )
            end += LOCATOR.pack(b"PK\x06\x07", 0, begin + len(directory), 1)
        few = min(count, _MANY)
        size = len(directory) if len(directory) < _LARGE else _LARGE_FIELD
        where = begin if begin < _LARGE else _LARGE_FIELD
        end += END.pack(b"PK\x05\x06", 0, 0, few, few, size, where, 0)
        tail = directory + end
        self._write(tail, begin)
        self._add(_core.crc32c(tail), _core.adler32(tail), len(tail))
        self._staged.bytes = self._at
        self._staged.crc32c, self._staged.adler32 = f"{self._crc:08x}", f"{self._adler:08x}"
