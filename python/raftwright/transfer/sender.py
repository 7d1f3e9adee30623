"""Ways to places. Each is a class with the methods of `Sender`.

    directory   a path, NFS too          directory.py
    s3          a bucket                 s3.py
    webdav      a WebDAV server          webdav.py
    command     rsync, scp, ssh          command.py

Where an endpoint takes away what comes to a place, received.py looks for it in its storage too.

A name at a place is a *target*: relative, parts divided by `/`, none of them empty, `.` or `..`, none longer
than 255 bytes. What is none is refused (`RefusedError`) and nothing there is touched. Names that a sender
makes for itself, `.raftwright-…`, `.conflict/…` and `.damaged/…`, are no targets, and are not walked.

Whatever a method does there, it raises OutageError where nothing goes there now, whatever the file, and
RefusedError for trouble with this file. All that is read there is read anew: nothing is remembered between
calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from raftwright.transfer.outcome import Job, Sent
    from raftwright.transfer.place import Place

__all__ = ["Sender", "Why", "sender_of"]

Why: TypeAlias = Literal["conflict", "damaged"]
"""Why a file is set aside: it is another content than the one that belongs there, or no content of ours any
more."""


class Sender(Protocol):
    """Brings files to a place. Called by many threads at once; a call may be left behind and end much
    later."""

    # -- the place

    def warm(self) -> str:
        """Makes connections, finds out how the place works, and says that in a few words. Raises
        OutageError."""
        ...

    def probe(self) -> None:
        """Whether anything would go there now; where `immutable` is `required`, also whether it would be
        held. Raises OutageError."""
        ...

    def close(self) -> None:
        """Lets go of connections, ends programs, and ends every wait: what is under way fails with
        OutageError."""
        ...

    # -- bringing

    def send(self, job: Job) -> Sent:
        """Brings a file there and makes sure that it is. The same content under the name is as good.

        It goes there under a name of its own, is read back there and compared with the CRC-32C of the job,
        made read-only where the place says so, and only then gets its name, in one step and never in place of
        another; then it is protected where the place says so. What was left by a try that was cut is
        continued where `resumable` says so; nothing else is left by a try that fails.

        Raises ConflictError for another content under the name, OutageError where nothing goes there now,
        RefusedError and OSError for trouble with this file."""
        ...

    def protect(self, target: str) -> str:
        """Holds a file there against change and removal, as strongly as the place can and may; says how:
        `immutable` (`chattr +i`), `legal hold` (S3 object lock), `read-only` (mode bits), or nothing where
        the place knows no protection. May be called again. Raises NotFoundError, OutageError, RefusedError;
        the last also where `immutable` is `required` and the place cannot."""
        ...

    def unprotect(self, target: str) -> None:
        """Lets go of a file that is held: before a repair or a removal. May be called again. Raises
        NotFoundError, OutageError, RefusedError."""
        ...

    # -- looking

    def walk(self, folder: str = "") -> Iterator[tuple[str, int]]:
        """Targets and bytes of all files there, or of those in a folder and below; in no order. What is no
        regular file is none; a folder that is not there is empty. Raises OutageError, RefusedError."""
        ...

    def sizes(self, folder: str) -> Mapping[str, int]:
        """Bytes of the files right below a folder, by the last part of their names. Raises OutageError,
        RefusedError."""
        ...

    def has(self, target: str) -> bool:
        """Whether anything has this name, or this is a directory. Raises OutageError, RefusedError."""
        ...

    def crc32c(self, target: str) -> str:
        """CRC-32C of what is there, eight hexadecimal digits: read back, from the disk where that can be had,
        and not from what a server remembers. Raises NotFoundError, OutageError, RefusedError; of the last
        UnreadableError where a disk there cannot read this file."""
        ...

    def fetch(self, target: str, path: Path) -> str:
        """Copies a file from there into a new local one, which must not be there yet, and gives the CRC-32C
        of what was written. Where it fails, there is no such file. Raises NotFoundError, OutageError,
        RefusedError, StorageError for the local file."""
        ...

    # -- changing

    def set_aside(self, target: str, why: Why) -> str:
        """Moves what has a name to `.conflict/TARGET.N` or `.damaged/TARGET.N` below the root, so that the
        name is free; nothing is removed or overwritten. It is let go of first where it is held. Gives the new
        name. Raises NotFoundError, OutageError, RefusedError."""
        ...

    def remove(self, target: str) -> bool:
        """Removes a file: for the retention alone. False where there is none. What is held is not removed:
        `unprotect` it first. Raises OutageError, RefusedError."""
        ...


def sender_of(place: Place) -> Sender:
    """The way to a place; goes nowhere yet. Raises MissingExtraError where a package lacks."""
    if place.storage:
        from raftwright.transfer.received import ReceivedSender

        return ReceivedSender(place, sender_of)
    if place.kind == "directory":
        from raftwright.transfer.directory import DirectorySender

        return DirectorySender(place)
    if place.kind == "s3":
        from raftwright.transfer.s3 import S3Sender

        return S3Sender(place)
    if place.kind == "webdav":
        from raftwright.transfer.webdav import WebdavSender

        return WebdavSender(place)
    from raftwright.transfer.command import CommandSender

    return CommandSender(place)
