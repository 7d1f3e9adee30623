"""Ways to places. Each is a class with the methods of `Sender`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from raftwright.transfer.outcome import Job, Sent
    from raftwright.transfer.place import Place

__all__ = ["Sender", "sender_of"]


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


def sender_of(place: Place) -> Sender:
    """The way to a place; goes nowhere yet. Raises UsageError where a package lacks."""
    if place.kind == "directory":
        from raftwright.transfer.directory import DirectorySender

        return DirectorySender(place)
    from raftwright.transfer.s3 import S3Sender

    return S3Sender(place)
