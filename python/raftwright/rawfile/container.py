"""Containers: all files of an image in one zip that is not compressed, with what is in it.

    members                   in the order of their names, as they are in the archive
    _metadata_index.json      the headers of the raw files, as `lsst.obs.base` reads them from a zip
    _butler_zip_index.json    where that is wanted: the raw files as a Butler takes them from a zip
    _raftwright_index.json    of each member: where it begins, bytes, CRC-32C, Adler-32
    the directory of the zip

The same files give the same bytes. Each member is a range of the file, so it is read and verified without the
others. Whatever a container says of itself is checked against the others of its three lists.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

import msgspec

from raftwright import _core
from raftwright.errors import FormatError, NotFoundError, StorageError
from raftwright.rawfile.findings import Finding
from raftwright.rawfile.names import ImageName, container_version

__all__ = [
    "FORMAT",
    "INDEX",
    "METADATA_INDEX",
    "Checked",
    "Container",
    "ContainerIndex",
    "Member",
    "adler32_combine",
    "check_container",
    "check_member_name",
    "is_container",
    "open_container",
    "verify_container",
]

METADATA_INDEX: Final = "_metadata_index.json"
INDEX: Final = "_raftwright_index.json"
FORMAT: Final = "raftwright container 1"
PIECE: Final = 1 << 20
LOCAL: Final = struct.Struct("<4s5H3L2H")
"""Header of a member: signature, version, flags, method, time, date, CRC-32, two sizes, two lengths."""
END: Final = struct.Struct("<4s4H2LH")
"""Of a zip: signature, two disks, two counts, bytes and place of the directory, bytes of a comment."""
END_64: Final = struct.Struct("<4sQ2H2L4Q")
LOCATOR: Final = struct.Struct("<4sLQL")
"""Before it where counts or places are large; it follows `END_64`, which has the directory's bytes."""
LONGEST_INDEX: Final = 64 << 20
_MOST: Final = 100_000
_LONGEST_NAME: Final = 200
_AGAIN: Final = "pack the image again, with `raftwright handoff pack`"
_Adler: Final = 65521
_LARGE: Final = 0xFFFFFFFF
_LONGEST_DIRECTORY: Final = _MOST * (46 + _LONGEST_NAME + 28)


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A file in a container."""

    name: str
    offset: int
    """Of its first byte in the container."""
    bytes: int
    crc32c: str
    adler32: str


class ContainerIndex(msgspec.Struct, frozen=True, kw_only=True):
    """What `_raftwright_index.json` says."""

    format: str
    image: str
    members: tuple[Member, ...]


_DECODER: Final = msgspec.json.Decoder(ContainerIndex)


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What a container is found to be, read from its first byte to its last."""

    bytes: int
    crc32c: str
    adler32: str
    members: tuple[Member, ...]
    wrong: tuple[tuple[str, str], ...]
    """Members that are not what they should be, and why; without a name what is wrong with all of it."""


def adler32_combine(first: int, second: int, length: int) -> int:
    """Adler-32 of two pieces from those of each; `length` is that of the second."""
    rest = length % _Adler
    low = ((first & 0xFFFF) + (second & 0xFFFF) - 1) % _Adler
    high = ((first >> 16) + (second >> 16) + rest * ((first & 0xFFFF) - 1)) % _Adler
    return high << 16 | low


def is_container(path: str | os.PathLike[str]) -> bool:
    """Whether a name says that it is one."""
    return os.fspath(path).endswith(".zip")


def check_member_name(name: str) -> None:
    """Raises FormatError for a name that no file of an image has, or that leaves a directory."""
    if (
        not name.isascii()
        or not name.isprintable()
        or not 0 < len(name) <= _LONGEST_NAME
        or "/" in name
        or "\\" in name
        or name.startswith(".")
    ):
        raise FormatError(f"{ascii(name)[:200]} cannot be the name of a member of a container")


class Container:
    """A container that is open; `open_container` makes it. For one thread."""

    def __init__(self, path: Path, stream: IO[bytes], index: ContainerIndex, bytes: int) -> None:
        self.path = path
        self.bytes = bytes
        self.image = ImageName.parse(index.image)
        self.members: Mapping[str, Member] = {member.name: member for member in index.members}
        """By name."""
        self._stream = stream

    def pieces(self, name: str) -> Iterator[bytes]:
        """The bytes of a member, in pieces, unchecked. Raises NotFoundError, FormatError, StorageError."""
        member = self._member(name)
        yield from _range(self._stream, self.path, member.offset, member.bytes)

    def read(self, name: str, longest: int = LONGEST_INDEX) -> bytes:
        """A member as a whole, whose sum holds. Raises NotFoundError, FormatError (also for one of more bytes
        than `longest`), StorageError."""
        member = self._member(name)
        if member.bytes > longest:
            raise FormatError(f"{self.path}: {name} has {member.bytes:,} bytes, more than {longest:,}")
        data = b"".join(self.pieces(name))
        if f"{_core.crc32c(data):08x}" != member.crc32c:
            raise FormatError(f"{self.path}: the CRC-32C of {name} does not hold; {_AGAIN}")
        return data

    def verify(self, name: str) -> str:
        """Why a member is not what it should be, or nothing. Raises NotFoundError, StorageError."""
        member = self._member(name)
        crc, adler = 0, 1
        for piece in self.pieces(name):
            crc, adler = _core.crc32c(piece, crc), _core.adler32(piece, adler)
        if (f"{crc:08x}", f"{adler:08x}") == (member.crc32c, member.adler32):
            return ""
        return (
            f"has the CRC-32C {crc:08x} and the Adler-32 {adler:08x}, not {member.crc32c} and "
            f"{member.adler32}"
        )

    def extract(self, name: str, path: Path) -> str:
        """Copies a member into a new file, which is synced; its CRC-32C, which holds. Raises NotFoundError,
        FormatError, StorageError; then there is no such file, but for one that was there before."""
        member = self._member(name)
        crc = 0
        try:
            with path.open("xb") as out:
                try:
                    for piece in self.pieces(name):
                        crc = _core.crc32c(piece, crc)
                        out.write(piece)
                    if f"{crc:08x}" != member.crc32c:
                        raise FormatError(f"{self.path}: the CRC-32C of {name} does not hold; {_AGAIN}")
                    out.flush()
                    os.fsync(out.fileno())
                except BaseException:
                    path.unlink(missing_ok=True)
                    raise
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            raise StorageError(error.errno, f"cannot be written ({error.strerror})", str(path)) from error
        return member.crc32c

    def _member(self, name: str) -> Member:
        member = self.members.get(name)
        if member is None:
            raise NotFoundError(f"{self.path}: has no member {ascii(name)[:200]}")
        return member


@contextmanager
def open_container(path: str | os.PathLike[str]) -> Iterator[Container]:
    """Opens a container and checks its lists against one another; members are not read.

    Raises FormatError (no container, cut short, with lists that contradict one another), StorageError.
    """
    where = Path(path)
    try:
        stream = where.open("rb")
    except OSError as error:
        raise StorageError(error.errno, f"cannot read it: {error.strerror}", str(where)) from error
    with stream:
        yield _opened(where, stream)


def _opened(where: Path, stream: IO[bytes]) -> Container:
    try:
        size = os.fstat(stream.fileno()).st_size
        _check_end(where, stream, size)
        with zipfile.ZipFile(stream) as listed:
            infos = listed.infolist()
    except _NO_ZIP as error:
        raise FormatError(f"{where}: is no whole zip: {str(error)[:200]}; {_AGAIN}") from None
    except (OSError, EOFError) as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(
            getattr(error, "errno", None) or 5, f"cannot read it: {str(error)[:200]}", str(where)
        ) from error
    if not infos or infos[-1].filename != INDEX:
        raise FormatError(f"{where}: is no container of an image, its last member is not {INDEX}")
    if len(infos) > _MOST:
        raise FormatError(f"{where}: has {len(infos):,} members, a container has at most {_MOST:,}")
    places: dict[str, tuple[int, int]] = {}
    for info in infos:
        check_member_name(info.filename)
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise FormatError(f"{where}: {info.filename} is compressed or encrypted; {_AGAIN}")
        if info.filename in places or info.file_size != info.compress_size or info.file_size > size:
            raise FormatError(f"{where}: {info.filename} is there twice, or with two sizes; {_AGAIN}")
        if not 0 <= info.header_offset < size:
            raise FormatError(f"{where}: {info.filename} begins outside of it; {_AGAIN}")
        places[info.filename] = _place(where, stream, info), info.file_size
    offset, length = places.pop(INDEX)
    if length > LONGEST_INDEX:
        raise FormatError(f"{where}: {INDEX} has {length:,} bytes; {_AGAIN}")
    text = b"".join(_range(stream, where, offset, length))
    if zlib.crc32(text) != infos[-1].CRC:
        raise FormatError(f"{where}: the sum of {INDEX} does not hold; {_AGAIN}")
    try:
        index = _DECODER.decode(text)
        ImageName.parse(index.image)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise FormatError(f"{where}: {INDEX} cannot be read: {str(error)[:200]}; {_AGAIN}") from None
    if index.format != FORMAT:
        raise FormatError(f"{where}: is of the format {ascii(index.format)[:80]}; this one reads {FORMAT}")
    if places != {member.name: (member.offset, member.bytes) for member in index.members}:
        raise FormatError(f"{where}: {INDEX} lists other members than the zip has; {_AGAIN}")
    return Container(where, stream, index, size)


_NO_ZIP: Final = (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError, OverflowError)


def _check_end(where: Path, stream: IO[bytes], size: int) -> None:
    """Whether it ends with the end of a zip, whose directory is not so large that it could fill the memory:
    `zipfile` looks for an end further up, and reads what that says."""
    end = _head(where, stream, size - END.size, END.size)
    if end[:4] != b"PK\x05\x06" or end[-2:] != b"\0\0":
        raise FormatError(f"{where}: is no whole zip: it does not end as one; {_AGAIN}")
    length = int(END.unpack(end)[5])
    before = _head(where, stream, size - END.size - LOCATOR.size, LOCATOR.size)
    if before[:4] == b"PK\x06\x07":
        large = _head(where, stream, size - END.size - LOCATOR.size - END_64.size, END_64.size)
        if large[:4] == b"PK\x06\x06":
            length = int(END_64.unpack(large)[8])
    if length > _LONGEST_DIRECTORY:
        raise FormatError(f"{where}: has a directory of {length:,} bytes, more than any container; {_AGAIN}")


def _place(where: Path, stream: IO[bytes], info: zipfile.ZipInfo) -> int:
    """Where the bytes of a member begin, as its own header says."""
    head = _head(where, stream, info.header_offset, LOCAL.size)
    if len(head) < LOCAL.size or head[:4] != b"PK\x03\x04":
        raise FormatError(f"{where}: {info.filename} does not begin where the zip says; {_AGAIN}")
    _, _, flags, method, _, _, crc, *sizes, name, extra = LOCAL.unpack(head)
    size = min(info.file_size, _LARGE)
    if (
        _head(where, stream, info.header_offset + LOCAL.size, name) != info.filename.encode("ascii")
        or (flags, method, crc) != (info.flag_bits, info.compress_type, info.CRC)
        or any(each not in (size, _LARGE) for each in sizes)
    ):
        raise FormatError(f"{where}: {info.filename} has another header than the zip lists; {_AGAIN}")
    return info.header_offset + LOCAL.size + int(name) + int(extra)


def _head(where: Path, stream: IO[bytes], offset: int, length: int) -> bytes:
    """Bytes at a place; fewer, or none, where there are none."""
    try:
        return os.pread(stream.fileno(), length, offset) if offset >= 0 else b""
    except OSError as error:
        raise StorageError(error.errno, f"cannot read it: {error.strerror}", str(where)) from error


def _range(stream: IO[bytes], where: Path, offset: int, length: int) -> Iterator[bytes]:
    while length:
        try:
            piece = os.pread(stream.fileno(), min(PIECE, length), offset)
        except OSError as error:
            raise StorageError(error.errno, f"cannot read it: {error.strerror}", str(where)) from error
        if not piece:
            raise FormatError(f"{where}: ends before it should; {_AGAIN}")
        yield piece
        offset, length = offset + len(piece), length - len(piece)


# -- all of it


def check_container(
    path: str | os.PathLike[str],
    *,
    going_on: Callable[[], bool] = lambda: True,
    sums: bool = True,
) -> Checked:
    """Reads a container once, from its first byte to its last: its own sums, and whether those of its members
    hold. With `sums` also their Adler-32.

    Raises FormatError for what is no container, or where it is not to go on; StorageError.
    """
    with open_container(path) as container:
        stream, where = container._stream, container.path
        crc, adler, at = 0, 1, 0
        wrong: list[tuple[str, str]] = []

        def take(offset: int, length: int) -> tuple[int, int]:
            mine, other = 0, 1
            for piece in _range(stream, where, offset, length):
                if not going_on():
                    raise FormatError(f"{where}: was not read to its end")
                mine = _core.crc32c(piece, mine)
                other = _core.adler32(piece, other) if sums else 1
            return mine, other

        def add(sum_of: tuple[int, int], length: int) -> None:
            nonlocal crc, adler, at
            crc = _core.crc32c_combine(crc, sum_of[0], length)
            adler = adler32_combine(adler, sum_of[1], length)
            at += length

        for member in sorted(container.members.values(), key=lambda one: one.offset):
            if member.offset < at:
                raise FormatError(f"{where}: {member.name} begins within another member; {_AGAIN}")
            add(take(at, member.offset - at), member.offset - at)
            found = take(member.offset, member.bytes)
            add(found, member.bytes)
            said = f"{found[0]:08x}", f"{found[1]:08x}" if sums else member.adler32
            if said != (member.crc32c, member.adler32):
                sums_were = f"{member.crc32c} and {member.adler32}"
                wrong.append(
                    (member.name, f"has the sums {said[0]} and {said[1]}, and had {sums_were} when packed")
                )
        add(take(at, container.bytes - at), container.bytes - at)
        return Checked(
            bytes=container.bytes,
            crc32c=f"{crc:08x}",
            adler32=f"{adler:08x}" if sums else "",
            members=tuple(container.members.values()),
            wrong=tuple(wrong),
        )


def verify_container(path: str | os.PathLike[str]) -> tuple[Checked | None, list[Finding]]:
    """Reads all of a container; what is wrong with it, for `raftwright verify`."""
    said: list[Finding] = []
    try:
        found = check_container(path)
        with open_container(path) as container:
            image = container.image
    except (FormatError, StorageError) as error:
        return None, [Finding("error", os.fspath(path), "", "", str(error), _AGAIN)]
    said += [Finding("error", os.fspath(path), "", name, why, _AGAIN) for name, why in found.wrong]
    try:
        named: ImageName | None = container_version(os.fspath(path))[0]
    except FormatError:
        named = None
    if named != image:
        said.append(
            Finding("warning", os.fspath(path), "", "", f"is a container of {image}", "give it back its name")
        )
    return found, said
