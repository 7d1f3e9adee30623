"""Ways to destinations. Each is a class with the four methods of `Sender`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from raftwright.archiver.destinations.outcome import Job, OutageError, RefusedError, Sent

if TYPE_CHECKING:
    from raftwright.archiver.settings import Destination

__all__ = ["Job", "OutageError", "RefusedError", "Sender", "Sent", "sender_of"]


class Sender(Protocol):
    """Brings files to a place. Called by many threads at once; a call may be left behind and end much
    later."""

    def warm(self) -> str:
        """Makes connections, finds out how the place works, and says that in a few words. Raises
        OutageError."""
        ...

    def send(self, job: Job) -> Sent:
        """Brings a file there and makes sure that it is. The same content under the name is as good.

        Raises ConflictError for another content under the name, OutageError where nothing goes there now,
        RefusedError and OSError for trouble with this file."""
        ...

    def probe(self) -> None:
        """Whether anything would go there now. Raises OutageError."""
        ...

    def close(self) -> None:
        """Lets go of connections."""
        ...


def sender_of(destination: Destination) -> Sender:
    """The way to a destination; goes nowhere yet. Raises UsageError where a package lacks."""
    if destination.kind == "directory":
        from raftwright.archiver.destinations.directory import DirectorySender

        return DirectorySender(destination)
    from raftwright.archiver.destinations.s3 import S3Sender

    return S3Sender(destination)
