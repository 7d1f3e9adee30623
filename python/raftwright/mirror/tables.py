"""The tables of a manifest, and their rows as the parts of a mirror see them."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from raftwright.mirror.listing import Facts
from raftwright.mirror.tree import join, shown

__all__ = [
    "APPLICATION",
    "DDL",
    "ENTRY",
    "VERSION",
    "VERSION_COLUMNS",
    "Directory",
    "Entry",
    "Version",
    "entry_of",
    "read_only",
    "read_status",
    "version_of",
]

APPLICATION: Final = 0x52574D31
VERSION: Final = 1

DDL: Final = """
CREATE TABLE word(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE directory(
  id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE, dev INTEGER NOT NULL,
  inode INTEGER NOT NULL, mtime INTEGER NOT NULL, ctime INTEGER NOT NULL, print BLOB NOT NULL,
  trusted INTEGER NOT NULL);
CREATE TABLE entry(
  id INTEGER PRIMARY KEY, directory INTEGER NOT NULL REFERENCES directory(id), name BLOB NOT NULL,
  kind TEXT NOT NULL, inode INTEGER NOT NULL, bytes INTEGER NOT NULL, mtime INTEGER NOT NULL,
  ctime INTEGER NOT NULL,
  state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '', priority INTEGER NOT NULL, due REAL NOT NULL,
  tries INTEGER NOT NULL DEFAULT 0, busy INTEGER NOT NULL DEFAULT 0, still REAL NOT NULL DEFAULT 0,
  changed REAL NOT NULL,
  crc32c TEXT NOT NULL DEFAULT '', far TEXT NOT NULL DEFAULT '', far_bytes INTEGER NOT NULL DEFAULT 0,
  staged TEXT NOT NULL DEFAULT '', sent TEXT NOT NULL DEFAULT '',
  found_tai REAL NOT NULL, mirrored_tai REAL, gone_tai REAL, gone REAL,
  ingest TEXT NOT NULL DEFAULT '', ingest_reason TEXT NOT NULL DEFAULT '',
  ingest_tries INTEGER NOT NULL DEFAULT 0, ingest_due REAL NOT NULL DEFAULT 0,
  UNIQUE(directory, name));
CREATE INDEX entry_due ON entry(priority, due) WHERE state = 'waiting';
CREATE INDEX entry_state ON entry(state);
CREATE INDEX entry_inode ON entry(inode) WHERE state = 'gone';
CREATE INDEX entry_gone ON entry(gone) WHERE state = 'gone' AND far = 'there';
CREATE INDEX entry_changed ON entry(changed);
CREATE INDEX entry_ingest ON entry(ingest, ingest_due) WHERE ingest <> '';
CREATE TABLE version(
  id INTEGER PRIMARY KEY, entry INTEGER NOT NULL, number INTEGER NOT NULL, target BLOB NOT NULL,
  bytes INTEGER NOT NULL, crc32c TEXT NOT NULL, why TEXT NOT NULL, state TEXT NOT NULL,
  kept_tai REAL NOT NULL, kept REAL NOT NULL,
  removed_tai REAL, UNIQUE(entry, number));
CREATE INDEX version_kept ON version(why, state, kept);
CREATE TABLE log(path BLOB PRIMARY KEY, offset INTEGER NOT NULL, head BLOB NOT NULL) WITHOUT ROWID;
"""
# entry.state: waiting (to be settled and brought), sending, mirrored, skipped, failed, conflict, gone.
# entry.far:   '' (nothing of it there), there, moved (renamed with another entry), marked, removed.
# version.state: wanted (about to be made), kept, removed.


class Directory(msgspec.Struct, kw_only=True):
    """A directory as it was read last."""

    id: int
    path: str
    times: tuple[int, int, int, int]
    """Device, inode, mtime and ctime in nanoseconds."""
    print: bytes
    trusted: bool
    """It was read again some time after its times had changed for the last time."""
    names: set[str]
    """Directories in it."""
    read: float = 0.0
    """When these times were seen first, on the monotonic clock."""


class Entry(msgspec.Struct, kw_only=True):
    """A file or link as it stands."""

    id: int
    directory: int
    path: str
    facts: Facts
    state: str
    tries: int
    busy: int
    still: float
    changed: float
    crc32c: str
    """Of what is verified there."""
    far: str
    far_bytes: int
    staged: str
    """Where at the far side a new content may lie that is to take the place of another."""
    sent: str
    """Sums of what was about to be sent since it was mirrored last: it may be there, and is ours."""
    ingest: str
    ingest_tries: int
    priority: int
    """0: it changed lately; 1: it was found by a first pass."""


class Version(msgspec.Struct, kw_only=True):
    """A content that is kept at the far side under another name."""

    id: int
    entry: int
    number: int
    target: str
    bytes: int
    crc32c: str
    why: str
    """changed, deleted, strange, in the way."""
    state: str


ENTRY: Final = (
    "entry.id, entry.directory, directory.path, entry.name, entry.kind, entry.inode, entry.bytes,"
    " entry.mtime, entry.ctime, entry.state, entry.tries, entry.busy, entry.still, entry.changed,"
    " entry.crc32c, entry.far, entry.far_bytes, entry.staged, entry.ingest, entry.ingest_tries,"
    " entry.priority, entry.sent"
    " FROM entry JOIN directory ON directory.id = entry.directory"
)


def entry_of(row: Sequence[Any]) -> Entry:
    return Entry(
        id=row[0],
        directory=row[1],
        path=join(os.fsdecode(row[2]), os.fsdecode(row[3])),
        facts=Facts(*row[4:9]),
        state=row[9],
        tries=row[10],
        busy=row[11],
        still=row[12],
        changed=row[13],
        crc32c=row[14],
        far=row[15],
        far_bytes=row[16],
        staged=row[17],
        ingest=row[18],
        ingest_tries=row[19],
        priority=row[20],
        sent=row[21],
    )


VERSION_COLUMNS: Final = "id, entry, number, target, bytes, crc32c, why, state"


def version_of(row: Sequence[Any]) -> Version:
    return Version(
        id=row[0], entry=row[1], number=row[2], target=os.fsdecode(row[3]), bytes=row[4], crc32c=row[5],
        why=row[6], state=row[7],
    )  # fmt: skip


@contextmanager
def read_only(path: Path) -> Iterator[sqlite3.Connection]:
    """A manifest that a mirror may be working with. Raises sqlite3.Error."""
    connection = sqlite3.connect(path.absolute().as_uri() + "?mode=ro", uri=True, timeout=10.0)
    try:
        yield connection
    finally:
        connection.close()


_UNWELL: Final = (
    "(entry.state IN ('failed', 'conflict', 'skipped') OR (entry.state = 'waiting' AND entry.reason <> ''))"
)


def read_status(path: Path, most: int) -> dict[str, Any]:
    """How a mirror stands, whether it runs or not: counts, and the first of what is not well. Raises
    sqlite3.Error."""
    with read_only(path) as run:
        states = run.execute(
            "SELECT state, count(*), coalesce(sum(bytes), 0) FROM entry GROUP BY state"
        ).fetchall()
        listed = run.execute(
            f"SELECT directory.path, entry.name, CASE WHEN {_UNWELL} THEN entry.state ELSE entry.ingest END,"
            f" CASE WHEN {_UNWELL} THEN entry.reason ELSE entry.ingest_reason END"
            " FROM entry JOIN directory ON directory.id = entry.directory"
            f" WHERE {_UNWELL} OR entry.ingest IN ('failed', 'conflict', 'unsupported', 'waiting')"
            " OR (entry.ingest = 'queued' AND entry.ingest_reason <> '') LIMIT ?",
            (most,),
        ).fetchall()
        return {
            "files": {state: number for state, number, _ in states},
            "bytes": {state: octets for state, _, octets in states},
            "versions": run.execute("SELECT count(*) FROM version WHERE state = 'kept'").fetchone()[0],
            "ingest": dict(
                run.execute(
                    "SELECT ingest, count(*) FROM entry WHERE ingest <> '' GROUP BY ingest"
                ).fetchall()
            ),
            "listed": [
                {
                    "path": shown(join(os.fsdecode(path), os.fsdecode(name))),
                    "state": state,
                    "reason": reason,
                }
                for path, name, state, reason in listed
            ],
        }
