"""Containers of images: what is in them, and which images lack one that has all of their files.

A container is a file of the kind `container`; `member` has the files that are in it, with the sums that they
have there. A name has one content for ever: what comes later is in the next version, which has everything."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from raftwright.errors import ConflictError, NotFoundError, UsageError
from raftwright.ledger.database import Transaction, parts
from raftwright.ledger.files import FILE_FIELDS, FILE_FROM, FILE_SELECT
from raftwright.ledger.rows import FileRow

if TYPE_CHECKING:
    from raftwright.ledger.database import Database
    from raftwright.ledger.files import Files

__all__ = ["CONTAINER", "ContainerUnit", "Containers"]

CONTAINER: Final = "container"
_SOUND: Final = frozenset({"written", "unchanged", "kept"})
_GOOD: Final = "file.status IN ('written', 'unchanged', 'kept')"
_UNITS: Final = (
    "SELECT image.id, image.obsid, image.daq_id, image.instrument, image.state, image.header_state,"
    " image.settled_tai, count(*), max(file.written_tai),"
    " sum(CASE WHEN file.kind = 'raw' THEN 1 ELSE 0 END),"
    " sum(CASE WHEN file.verified_tai IS NULL THEN 1 ELSE 0 END),"
    " sum(CASE WHEN EXISTS (SELECT 1 FROM member JOIN file AS box ON box.id = member.container_id"
    " WHERE member.file_id = file.id AND member.crc32c = file.crc32c AND member.bytes = file.bytes"
    " AND box.replaced_by = '') THEN 0 ELSE 1 END)"
    f" FROM image JOIN file ON file.image_id = image.id AND file.kind <> '{CONTAINER}' AND {_GOOD}"
    " WHERE {} GROUP BY image.id ORDER BY image.id"
)


class ContainerUnit(msgspec.Struct, frozen=True, kw_only=True):
    """An image, and how its containers stand to its files."""

    image_id: int
    obsid: str
    daq_id: str
    instrument: str
    state: str
    """Of the image."""
    header_state: str
    settled_tai: float | None
    files: int
    """Sound ones that belong into a container."""
    written_tai: float
    """When the last of them was written."""
    raws: int
    unverified: int
    """Of the files: those that nobody has found to hold."""
    lacking: int
    """Of the files: those that are not in the newest container as they are now."""
    containers: tuple[FileRow, ...]
    """By version."""
    replicas: Mapping[str, str]
    """Of the newest container: its state by endpoint."""

    @property
    def newest(self) -> FileRow | None:
        """The newest container, whatever became of it."""
        return self.containers[-1] if self.containers else None

    def standing(self, endpoints: Collection[str] = ()) -> str:
        """`whole`: the newest container has every file, and is in the archive, or was removed and is at all
        of these endpoints. `missing`: there is none. `old`: files came or were repaired since. `damaged`,
        `lost`: what the ledger says of it, or of a replica of one that was removed."""
        newest = self.newest
        if newest is None:
            return "missing"
        if self.lacking:
            return "old"
        if newest.status in _SOUND:
            return "whole"
        if newest.status != "removed":
            return newest.status
        for endpoint in endpoints:
            state = self.replicas.get(endpoint, "")
            if state not in ("verified", "removed"):
                return state or "missing"
        return "whole"


class Containers:
    """Thread-safe; raises StorageError when the ledger cannot be read or written."""

    def __init__(self, database: Database, files: Files) -> None:
        self._database = database
        self._files = files

    def enter(self, row: FileRow, members: Mapping[int, tuple[int, str]]) -> bool:
        """Enters a container with the numbers of the files that are in it, and the bytes and the CRC-32C that
        each has there; whether it is new, or back. All of it is one commit.

        Raises ConflictError where the name has another content in the ledger, NotFoundError (the image),
        UsageError.
        """
        if row.kind != CONTAINER or not members:
            raise UsageError(f"{row.path}: is no container with something in it")

        def work(transaction: Transaction) -> bool:
            image = transaction.one(
                "SELECT id, dayobs FROM image WHERE obsid = ? AND daq_id = ?", (row.image, row.daq_id)
            )
            if image is None:
                raise NotFoundError(f"{row.image}: the ledger does not know this image; announce it first")
            before = transaction.one("SELECT bytes, crc32c FROM file WHERE path = ?", (row.path,))
            if before is not None and tuple(before) != (row.bytes, row.crc32c):
                raise ConflictError(
                    f"{row.path}: the ledger has another container of that name, of {before[0]} bytes with "
                    f"the CRC-32C {before[1]}"
                )
            new = self._files.enter_in(transaction, image[0], row.image, image[1], [row])
            found = transaction.one("SELECT id FROM file WHERE path = ?", (row.path,))
            assert found is not None
            transaction.insert(
                "member",
                ("container_id", "file_id", "bytes", "crc32c"),
                [(found[0], file_id, *what) for file_id, what in sorted(members.items())],
            )
            return bool(new)

        return self._database.change(work)

    def members(self, container_id: int) -> dict[int, tuple[int, str]]:
        """Numbers of the files that are in a container, with the bytes and the CRC-32C that they have
        there."""
        return {
            row[0]: (row[1], row[2])
            for row in self._database.read(
                "SELECT file_id, bytes, crc32c FROM member WHERE container_id = ?", (container_id,)
            )
        }

    def ids(
        self, after: int = 0, limit: int = 200, *, dayobs: int | None = None, instruments: Iterable[str] = ()
    ) -> list[int]:
        """Numbers of images that are settled, the next ones after `after`."""
        where = ["image.id > ?", "image.state IN ('complete', 'incomplete', 'lost')"]
        values: list[Any] = [after]
        if dayobs is not None:
            where.append("image.dayobs = ?")
            values.append(dayobs)
        with self._database.reading() as transaction:
            listed = sorted(set(instruments))
            if listed:
                among, more = transaction.among("image.instrument", listed)
                where.append(among)
                values += more
            found = transaction.rows(
                f"SELECT image.id FROM image WHERE {' AND '.join(where)} ORDER BY image.id LIMIT ?",
                (*values, limit),
            )
        return [int(row[0]) for row in found]

    def units(self, image_ids: Iterable[int], *, bare: bool = False) -> list[ContainerUnit]:
        """How the containers of images stand to their files, by the number of the image; images without a
        sound raw file are left out, but with `bare` for those that have a container."""
        found: list[ContainerUnit] = []
        with self._database.reading() as transaction:
            for part in parts(sorted(set(image_ids)), 200):
                found += _units(transaction, part)
        return [unit for unit in found if unit.raws or (bare and unit.containers)]


def _units(transaction: Transaction, image_ids: list[int]) -> list[ContainerUnit]:
    among, values = transaction.among("image.id", image_ids)
    rows = transaction.rows(_UNITS.format(among), values)
    among, values = transaction.among("file.image_id", image_ids)
    containers: dict[int, list[FileRow]] = {}
    for each in transaction.rows(
        f"SELECT {FILE_SELECT} {FILE_FROM} WHERE {among} AND file.kind = '{CONTAINER}' ORDER BY file.version",
        values,
    ):
        box = FileRow(**dict(zip(FILE_FIELDS, each, strict=True)))
        containers.setdefault(box.image_id, []).append(box)
    newest = sorted(some[-1].id for some in containers.values())
    replicas: dict[int, dict[str, str]] = {}
    for part in parts(newest):
        among, values = transaction.among("file_id", part)
        for file_id, endpoint, state in transaction.rows(
            f"SELECT file_id, endpoint, state FROM replica WHERE {among}", values
        ):
            replicas.setdefault(file_id, {})[endpoint] = state
    units = []
    for row in rows:
        boxes = tuple(containers.get(row[0], ()))
        units.append(
            ContainerUnit(
                **dict(zip(_NAMES, row, strict=True)),
                containers=boxes,
                replicas=replicas.get(boxes[-1].id, {}) if boxes else {},
            )
        )
    return units


_NAMES: Final = (
    *("image_id", "obsid", "daq_id", "instrument", "state", "header_state", "settled_tai"),
    *("files", "written_tai", "raws", "unverified", "lacking"),
)
