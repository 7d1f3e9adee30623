"""Bringing files to places: queues that never hold one another, and ways that look at what arrived.

    Lane ─▶ Sender ─▶ directory | bucket | WebDAV server | program

A name at a place appears at once and whole, and never in place of another. What a sender can do stands in
`sender.Sender`, what is said of a place in `place.Place`.
"""

from __future__ import annotations

from raftwright.transfer.outcome import Job, OutageError, RefusedError, Sent

__all__ = ["Job", "OutageError", "RefusedError", "Sent"]
