"""The forwarder: takes images off a DAQ as they are read out and writes their raw files."""

from __future__ import annotations

from raftwright.forwarder.journal import Claim, FileRow, Journal, Outcome, Unit, UnitKey
from raftwright.forwarder.sqlite_journal import SqliteJournal, open_journal

__all__ = ["Claim", "FileRow", "Journal", "Outcome", "SqliteJournal", "Unit", "UnitKey", "open_journal"]
