"""Rows and tables of an endpoint's register."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

__all__ = ["APPLICATION", "INTAKE", "STATES", "TABLES", "VERSION", "End", "EventRow", "FileRow", "State"]

State: TypeAlias = Literal[
    "UNTRIED", "RERUN", "PENDING", "SUCCESS", "FAILURE", "UNKNOWN", "IGNORED", "INVALID", "BACKFILL"
]

STATES: Final[tuple[State, ...]] = (
    *("UNTRIED", "RERUN", "PENDING", "SUCCESS", "FAILURE", "UNKNOWN", "IGNORED", "INVALID", "BACKFILL"),
)
INTAKE: Final = "intake"
"""What events of the taking in are filed under, where those of an ingester have its name."""
APPLICATION: Final = 0x52574E44  # "RWND"
VERSION: Final = 1
TABLES: Final = f"""
CREATE TABLE file (
    id INTEGER PRIMARY KEY, relpath TEXT NOT NULL, filename TEXT NOT NULL, crc32c TEXT NOT NULL,
    adler32 TEXT NOT NULL, md5 TEXT NOT NULL, bytes INTEGER NOT NULL, added_tai REAL NOT NULL,
    place TEXT NOT NULL, alias_of INTEGER REFERENCES file (id), kept_as TEXT NOT NULL,
    UNIQUE (relpath, filename, crc32c, adler32, bytes, place));
CREATE INDEX file_content ON file (crc32c, adler32, bytes);
CREATE TABLE event (
    id INTEGER PRIMARY KEY, file_id INTEGER NOT NULL REFERENCES file (id), ingester TEXT NOT NULL,
    attempt INTEGER NOT NULL, state TEXT NOT NULL, begun_tai REAL NOT NULL, duration REAL,
    message TEXT NOT NULL, version TEXT NOT NULL, owner TEXT NOT NULL);
CREATE INDEX event_file ON event (file_id, id);
CREATE TABLE work (
    file_id INTEGER NOT NULL REFERENCES file (id), ingester TEXT NOT NULL, state TEXT NOT NULL,
    attempts INTEGER NOT NULL, since_tai REAL NOT NULL, begun_tai REAL NOT NULL, next_try REAL NOT NULL,
    owner TEXT NOT NULL, message TEXT NOT NULL,
    PRIMARY KEY (ingester, file_id)) WITHOUT ROWID;
CREATE INDEX work_next ON work (ingester, state, file_id);
CREATE TABLE owner (
    name TEXT PRIMARY KEY, host TEXT NOT NULL, boot TEXT NOT NULL, pid INTEGER NOT NULL,
    started INTEGER NOT NULL, renewed REAL NOT NULL) WITHOUT ROWID;
CREATE TRIGGER event_kept BEFORE DELETE ON event BEGIN SELECT raise(ABORT, 'history is kept'); END;
CREATE TRIGGER event_fixed BEFORE UPDATE ON event BEGIN SELECT raise(ABORT, 'history is kept'); END;
CREATE TRIGGER file_kept BEFORE DELETE ON file BEGIN SELECT raise(ABORT, 'history is kept'); END;
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION}
"""


class FileRow(msgspec.Struct, frozen=True):
    """A file that came: its name below the root and its content are its identity."""

    id: int
    relpath: str
    filename: str
    crc32c: str
    adler32: str
    md5: str
    bytes: int
    added_tai: float
    place: str
    """`storage`, `conflict` or `refused`."""
    alias_of: int | None
    """The file that has the same content under another name."""
    kept_as: str
    """Its path, where it is not in the storage under its name."""

    @property
    def name(self) -> str:
        """Directory and name."""
        return f"{self.relpath}/{self.filename}" if self.relpath else self.filename


class EventRow(msgspec.Struct, frozen=True):
    """An attempt at a file, or a step of one. Rows are only added."""

    id: int
    file_id: int
    ingester: str
    attempt: int
    state: str
    begun_tai: float
    duration: float | None
    message: str
    version: str
    owner: str


class End(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt ended."""

    file_id: int
    state: State
    message: str = ""
    retry_after: float | None = None
    """Seconds to the next try; None: none by itself."""
    counts: bool = True
    """Whether it counts as a try."""
