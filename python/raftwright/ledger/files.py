"""Files of images: written, found, verified, repaired, lost; and what that means for their detectors."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from raftwright.errors import NotFoundError, UsageError
from raftwright.ledger.clock import tai
from raftwright.ledger.database import Change, Row, Transaction, clean, marks, parts, quoted
from raftwright.ledger.rows import FileRow, plain_id, plain_path
from raftwright.ledger.states import EDGES, sources_of

if TYPE_CHECKING:
    from raftwright.ledger.database import Database
    from raftwright.ledger.images import Images

__all__ = ["FILE_FIELDS", "FILE_FROM", "FILE_SELECT", "Files"]

FILE_SELECT: Final = (
    "image.obsid, image.daq_id, file.location, file.detector, file.version, file.path, file.bytes, "
    "file.adler32, file.crc32c, file.missing, file.status, file.replaces, file.replaced_by, "
    "file.written_tai, file.kind, file.verified_tai, file.id, file.image_id"
)
FILE_FIELDS: Final = (
    *("image", "daq_id", "location", "detector", "version", "path", "bytes", "adler32", "crc32c", "missing"),
    *("status", "replaces", "replaced_by", "written", "kind", "verified", "id", "image_id"),
)
FILE_FROM: Final = "FROM file JOIN image ON image.id = file.image_id"
_COLUMNS: Final = (
    *("image_id", "kind", "detector", "location", "version", "path", "bytes", "adler32", "crc32c", "missing"),
    *("status", "replaces", "written_tai", "verified_tai"),
)
_BAD: Final = frozenset({"lost", "damaged"})
_AWAY: Final = frozenset({*_BAD, "removed"})
"""What may be entered again."""
_KINDS: Final = frozenset({"raw", "sidecar", "manifest", "header", "container"})


class Files:
    """Thread-safe; raises StorageError when the ledger cannot be read or written."""

    def __init__(self, database: Database, images: Images) -> None:
        self._database = database
        self._images = images

    # -- entering

    def enter(self, rows: Iterable[FileRow]) -> int:
        """Enters files of announced images, and moves their detectors; how many were new. A file that is
        known keeps its row, unless it was lost or damaged.

        Raises NotFoundError for one of an image that the ledger does not know, UsageError.
        """
        listed = list(rows)
        for row in listed:
            if row.kind not in _KINDS:
                raise UsageError(f"{row.path}: {row.kind!a} is no kind of file; there are {sorted(_KINDS)}")

        def work(transaction: Transaction) -> int:
            new = 0
            of_image: dict[tuple[str, str], list[FileRow]] = {}
            for row in listed:
                of_image.setdefault((row.image, plain_id(row.daq_id)), []).append(row)
            for (obsid, daq_id), some in of_image.items():
                found = transaction.one(
                    "SELECT id, dayobs FROM image WHERE obsid = ? AND daq_id = ?", (obsid, daq_id)
                )
                if found is None:
                    raise NotFoundError(f"{obsid}: the ledger does not know this image; announce it first")
                new += self.enter_in(transaction, found[0], obsid, found[1], some)
            return new

        return self._database.change(work)

    def enter_in(
        self, transaction: Transaction, image_id: int, obsid: str, dayobs: int, rows: Sequence[FileRow]
    ) -> int:
        """The same for one image, within a transaction."""
        moment = tai()
        rows = [_plain(row) for row in rows]
        known = self._known_in(transaction, rows)
        new: dict[str, FileRow] = {}
        again: dict[str, FileRow] = {}
        for row in rows:
            if row.path not in known:
                new.setdefault(row.path, row)
            elif known[row.path] in _AWAY and row.status not in _AWAY:
                again.setdefault(row.path, row)
        values = [self._values(image_id, row, moment) for row in new.values()]
        transaction.insert("file", _COLUMNS, values, new=True)
        transaction.update(
            "file",
            ("status", "bytes", "adler32", "crc32c", "missing", "written_tai", "verified_tai"),
            ("path",),
            [
                (
                    *(row.status, row.bytes, row.adler32, row.crc32c, row.missing, row.written or moment),
                    *(row.verified, row.path),
                )
                for row in again.values()
            ],
            "status IN ('lost', 'damaged', 'removed')",
        )
        transaction.update(
            "file",
            ("replaced_by",),
            ("path",),
            [(row.path, row.replaces) for row in new.values() if row.replaces],
        )
        for row in (*new.values(), *again.values()):
            detail: dict[str, Any] = {
                "kind": row.kind,
                "detector": row.detector,
                "location": row.location,
                "version": row.version,
                "bytes": row.bytes,
                "crc32c": row.crc32c,
                "missing": row.missing,
            }
            if row.replaces:
                detail["replaces"] = row.replaces
            transaction.note(
                Change("file", row.path, known.get(row.path, ""), row.status, image_id, obsid, dayobs, detail)
            )
        raws = [row for row in rows if row.kind == "raw" and row.status not in ("conflict", *_AWAY)]
        if raws:
            self._detectors_in(transaction, image_id, obsid, dayobs, raws)
        return len(new) + len(again)

    @staticmethod
    def _known_in(transaction: Transaction, rows: Sequence[FileRow]) -> dict[str, str]:
        """The states of those that are there already."""
        known: dict[str, str] = {}
        for part in parts(sorted({row.path for row in rows})):
            among, values = transaction.among("path", part)
            known.update(transaction.rows(f"SELECT path, status FROM file WHERE {among}", values))
        return known

    @staticmethod
    def _values(image_id: int, row: FileRow, moment: float) -> Row:
        return (
            *(image_id, row.kind, row.detector, row.location, row.version, clean(row.path), row.bytes),
            *(row.adler32, row.crc32c, row.missing, row.status, row.replaces, row.written or moment),
            row.verified,
        )

    def _detectors_in(
        self, transaction: Transaction, image_id: int, obsid: str, dayobs: int, rows: Sequence[FileRow]
    ) -> None:
        """What files mean for their detectors: the newest version counts."""
        newest: dict[str, FileRow] = {}
        for row in rows:
            if row.detector not in newest or newest[row.detector].version < row.version:
                newest[row.detector] = row
        names = sorted(newest)
        among, values = transaction.among("detector", names)
        query = (
            "SELECT detector, state, missing_pixels FROM detector"
            f" WHERE image_id = ? AND {among} ORDER BY detector{transaction.lock}"
        )
        states = {row[0]: row[1:] for row in transaction.rows(query, (image_id, *values))}
        unknown = [newest[name] for name in names if name not in states]
        if unknown:
            transaction.insert(
                "detector",
                ("image_id", "detector", "location", "purpose"),
                [(image_id, row.detector, row.location, "SCIENCE") for row in unknown],
            )
            self._images.count_in(transaction, image_id)
            states |= {row.detector: ("expected", 0) for row in unknown}
        updates: dict[str, list[Row]] = {"present": [], "incomplete": []}
        for name in names:
            old, lacked = states[name]
            missing = newest[name].missing
            new = "incomplete" if missing else "present"
            if new != old and new not in EDGES["detector"][old]:
                continue  # an older version of what is there
            if new == old and missing >= lacked:
                continue
            updates[new].append((new, "", missing, image_id, name))
            transaction.note(
                Change(
                    *("detector", name, old, new, image_id, obsid, dayobs),
                    {"version": newest[name].version, **({"missing_pixels": missing} if missing else {})},
                )
            )
        for new, some in updates.items():
            transaction.update(
                "detector",
                ("state", "reason", "missing_pixels"),
                ("image_id", "detector"),
                some,
                f"state IN ({quoted(sources_of('detector', new))})",
            )

    def gone_in(
        self, transaction: Transaction, image_id: int, obsid: str, dayobs: int, location: str, reason: str
    ) -> None:
        """The DAQ has a source no more: detectors of it that have no file will have none."""
        self._miss(
            transaction,
            transaction.rows(
                "SELECT detector, state FROM detector WHERE image_id = ? AND location = ?"
                " AND state = 'expected'",
                (image_id, location),
            ),
            (image_id, obsid, dayobs),
            clean(reason) or "the DAQ has it no more",
        )

    @staticmethod
    def _miss(
        transaction: Transaction, rows: Iterable[Row], image: tuple[int, str, int], reason: str
    ) -> None:
        leads = quoted(sources_of("detector", "missing"))
        for detector, old in rows:
            transaction.run(
                f"UPDATE detector SET state = 'missing', reason = ? WHERE image_id = ? AND detector = ?"
                f" AND state IN ({leads})",
                (reason, image[0], detector),
            )
            transaction.note(Change("detector", detector, old, "missing", *image, {"reason": reason}))

    # -- what became of them

    def verified(self, path: str, ok: bool = True, reason: str = "") -> bool:
        """The sums of a file were found to hold, or not: then it is `damaged`, as good as lost. False where
        the ledger does not know it."""
        if not ok:
            return self._spoilt(path, "damaged", reason or "its sums do not hold")
        return self.all_verified([path]) == 1

    def all_verified(self, paths: Iterable[str]) -> int:
        """The sums of these files were found to hold; how many of them the ledger knows."""
        listed = list(paths)
        return self._database.change(lambda transaction: self.all_verified_in(transaction, listed))

    @staticmethod
    def all_verified_in(transaction: Transaction, paths: Iterable[str]) -> int:
        """The same within a transaction."""
        moment, known = tai(), 0
        for part in parts(plain_path(path) for path in paths):
            among, values = transaction.among("path", part)
            known += transaction.run(f"UPDATE file SET verified_tai = ? WHERE {among}", (moment, *values))
        return known

    def lost(self, path: str, reason: str = "") -> bool:
        """A file is not there any more: its detector is missing, its source is to be fetched again. False
        where the ledger does not know it, or knows this already."""
        return self._spoilt(path, "lost", reason or "it is not there any more")

    def removed(self, paths: Iterable[str], reason: str) -> list[str]:
        """Files are taken away on purpose, because good copies of them are elsewhere: their detectors stay as
        they are, and nobody fetches them again. Those that were in the archive until now."""
        listed, said = [plain_path(path) for path in paths], clean(reason)

        def work(transaction: Transaction) -> list[str]:
            gone: list[str] = []
            for part in parts(sorted(set(listed))):
                among, values = transaction.among("file.path", part)
                for path, kind, old, image_id, obsid, dayobs in transaction.rows(
                    "SELECT file.path, file.kind, file.status, image.id, image.obsid, image.dayobs"
                    f" {FILE_FROM} WHERE {among} AND file.status NOT IN ('removed', 'lost')"
                    f" ORDER BY file.id{transaction.lock.replace('UPDATE', 'UPDATE OF file')}",
                    values,
                ):
                    detail = {"reason": said, "kind": kind}
                    transaction.note(Change("file", path, old, "removed", image_id, obsid, dayobs, detail))
                    gone.append(path)
            transaction.update("file", ("status",), ("path",), [("removed", path) for path in gone])
            return gone

        return self._database.change(work)

    def _spoilt(self, path: str, status: str, reason: str) -> bool:
        path, reason = plain_path(path), clean(reason)

        def work(transaction: Transaction) -> bool:
            row = transaction.one(
                "SELECT file.image_id, image.obsid, image.dayobs, file.status, file.detector, file.location,"
                f" file.kind, file.replaced_by {FILE_FROM} WHERE file.path = ?",
                (path,),
            )
            if row is None or row[3] in (status, "removed"):
                return False
            image_id, obsid, dayobs, old, detector, location, kind, replaced_by = row
            image = (image_id, obsid, dayobs)
            transaction.run(
                "UPDATE file SET status = ?, verified_tai = NULL WHERE path = ? AND status = ?",
                (status, path, old),
            )
            transaction.note(Change("file", path, old, status, *image, {"reason": reason, "kind": kind}))
            if kind != "raw" or replaced_by or old == "conflict":
                return True  # the pixels are elsewhere too
            there = transaction.one(
                f"SELECT state FROM detector WHERE image_id = ? AND detector = ?{transaction.lock}",
                (image_id, detector),
            )
            if there is not None and there[0] in ("present", "incomplete"):
                self._miss(transaction, [(detector, there[0])], image, reason)
            self._open_again(transaction, image, location, reason)
            state = transaction.one("SELECT state FROM image WHERE id = ?", (image_id,))
            if state is not None and state[0] == "complete":
                self._images.move_in(
                    transaction, image_id, "incomplete", f"{detector}: {reason}", {"missing": [detector]}
                )
            return True

        return self._database.change(work)

    def open_again(self, image_id: int, location: str, reason: str) -> bool:
        """A source that has ended is to be fetched again; False where it has not, or is open already."""

        def work(transaction: Transaction) -> bool:
            image = transaction.one("SELECT id, obsid, dayobs FROM image WHERE id = ?", (image_id,))
            if image is None:
                return False
            return self._open_again(transaction, (image[0], image[1], image[2]), location, clean(reason))

        return self._database.change(work)

    @staticmethod
    def _open_again(
        transaction: Transaction, image: tuple[int, str, int], location: str, reason: str
    ) -> bool:
        row = transaction.one(
            f"SELECT state FROM source WHERE image_id = ? AND location = ?{transaction.lock}",
            (image[0], location),
        )
        if row is None or "open" not in EDGES["source"][row[0]] or row[0] == "claimed":
            return False
        leads = quoted(state for state in sources_of("source", "open") if state != "claimed")
        transaction.run(
            "UPDATE source SET state = 'open', reason = ?, next_try = 0 WHERE image_id = ? AND location = ?"
            f" AND state IN ({leads})",
            (reason, image[0], location),
        )
        transaction.note(Change("source", location, row[0], "open", *image, {"reason": reason}))
        return True

    # -- asking

    def of(self, image_id: int, kind: str | None = None) -> list[FileRow]:
        """The files of an image, by detector and version."""
        return list(self._rows("WHERE image.id = ?", (image_id,), kind))

    def of_images(self, images: Collection[str] | None = None, kind: str | None = "raw") -> Iterator[FileRow]:
        """The files of all images, or of some by name."""
        if images is None:
            yield from self._rows("WHERE 1 = 1", (), kind)
            return
        for part in parts(sorted(images)):
            yield from self._rows(f"WHERE image.obsid IN ({marks(part)})", part, kind)

    def by_path(self, path: str) -> FileRow | None:
        """A file by its path."""
        return next(iter(self._rows("WHERE file.path = ?", (plain_path(path),), None)), None)

    def _rows(self, where: str, values: Sequence[Any], kind: str | None) -> Iterator[FileRow]:
        if kind is not None:
            where, values = f"{where} AND file.kind = ?", (*values, kind)
        for row in self._database.read(
            f"SELECT {FILE_SELECT} {FILE_FROM} {where}"
            " ORDER BY image.obsid, file.detector, file.version, file.path",
            values,
        ):
            yield FileRow(**dict(zip(FILE_FIELDS, row, strict=True)))


def _plain(row: FileRow) -> FileRow:
    """With absolute paths."""
    if row.path.startswith("/") and (not row.replaces or row.replaces.startswith("/")):
        return row
    replaces = plain_path(row.replaces) if row.replaces else ""
    return msgspec.structs.replace(row, path=plain_path(row.path), replaces=replaces)
