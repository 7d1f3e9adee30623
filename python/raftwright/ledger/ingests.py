"""Ingests: what is in which Butler repository, what is to go there, and what may leave."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from raftwright.errors import UsageError
from raftwright.ledger.database import Transaction, clean, parts, quoted
from raftwright.ledger.ingesting import UNDER_WAY, IngestQueue, lock_images_in, move_in, note, select_in
from raftwright.ledger.rows import IngestRow
from raftwright.ledger.states import check

__all__ = ["Ingests"]

_GOES_FIRST: Final = "ingest.state = 'ingested' AND ingest.pinned = 0"  # as the indexes of retention have it
_UNTAGGED: Final = (
    "NOT EXISTS (SELECT 1 FROM tag WHERE tag.image_id = ingest.image_id"
    " AND tag.detector IN ('', ingest.detector))"
)
_AGE: Final = {"observed": "ingest.observed_tai", "ingested": "ingest.ingested_tai"}


_FIRST_IMAGES: Final = 8
_MOST_IMAGES: Final = 500
"""Images, or files, that are looked up at a time."""


class Ingests(IngestQueue):
    """Thread-safe; raises StorageError when the ledger cannot be read or written."""

    # -- leaving

    def oldest(
        self,
        repository: str,
        by: Literal["observed", "ingested"],
        before_tai: float,
        limit: int = 1000,
        after: tuple[float, int] = (0.0, 0),
    ) -> list[IngestRow]:
        """Ingested files that retention may look at, oldest first: neither pinned nor tagged, and observed or
        ingested before some time. The next ones follow `after`: that time, and `id`, of the last row.

        Whether they may go decides `Replicas.safe`. Raises UsageError.
        """
        column = _age(by)
        return self._select(
            f"WHERE ingest.repository = ? AND {_GOES_FIRST} AND {column} < ? AND {column} >= ?"
            f" AND ({column} > ? OR ingest.id > ?) AND {_UNTAGGED} ORDER BY {column}, ingest.id LIMIT ?",
            (repository, before_tai, after[0], after[0], after[1], limit),
        )

    def kept(self, rows: Iterable[IngestRow]) -> dict[int, str]:
        """What keeps those that somebody has pinned or tagged, whatever their state, by their number."""
        ids = sorted({row.id for row in rows})
        return {number: why for part in parts(ids) for number, why in self._kept("ingest.id", part)}

    def held(
        self, repository: str, by: Literal["observed", "ingested"], before_tai: float
    ) -> list[tuple[IngestRow, str]]:
        """What `oldest` leaves out because it is pinned or tagged, oldest first, and what keeps it. Raises
        UsageError."""
        column = _age(by)
        rows = self._select(
            "WHERE ingest.repository = ? AND ingest.state = 'ingested' AND ingest.pinned = 1"
            f" AND {column} < ?",
            (repository, before_tai),
        )
        rows += self._select(  # by way of the tags, however many files there are
            "WHERE ingest.image_id IN (SELECT image_id FROM tag) AND ingest.repository || '' = ?"
            f" AND ingest.state || '' = 'ingested' AND ingest.pinned = 0 AND {column} < ?"
            f" AND NOT {_UNTAGGED}",
            (repository, before_tai),
        )
        rows.sort(
            key=lambda row: ((row.observed_tai if by == "observed" else row.ingested_tai) or 0.0, row.id)
        )
        why = self.kept(rows)
        return [(row, why[row.id]) for row in rows if row.id in why]

    def leave(self, rows: Iterable[IngestRow], reason: str = "") -> list[IngestRow]:
        """The first step of a removal: those that are going now, and nobody else takes away. What is no
        longer `ingested`, or was pinned or tagged meanwhile, stays."""
        return self._step(rows, "leaving", reason, f"{_GOES_FIRST} AND {_UNTAGGED}")

    def leaving(self, repository: str, limit: int = 1000) -> list[IngestRow]:
        """What was on its way out, when whoever removed it died: to be ended with `removed` or `unleave`."""
        return self._select(
            f"WHERE ingest.repository = ? AND ingest.state = 'leaving' AND {UNDER_WAY}"
            " ORDER BY ingest.id LIMIT ?",
            (repository, limit),
        )

    def removed(
        self, rows: Iterable[IngestRow], reason: str = "", *, instead: Iterable[IngestRow] = ()
    ) -> list[IngestRow]:
        """The last step: they are in the repository no more, nor are their files. `instead`: other files of
        the same datasets, which stay and are ingested once more; queued in the same commit."""
        return self._step(rows, "removed", reason, "ingest.state = 'leaving'", instead)

    def unleave(self, rows: Iterable[IngestRow], reason: str = "") -> list[IngestRow]:
        """They stay after all, and are whole."""
        return self._step(rows, "ingested", reason, "ingest.state = 'leaving'")

    def _step(
        self,
        rows: Iterable[IngestRow],
        new: str,
        reason: str,
        where: str,
        instead: Iterable[IngestRow] = (),
    ) -> list[IngestRow]:
        listed, others = list(rows), sorted({row.id for row in instead})

        def work(transaction: Transaction) -> list[IngestRow]:
            done: list[IngestRow] = []
            if new == "leaving":
                lock_images_in(transaction, {row.image_id for row in listed})  # whoever tags does so too
            lock = transaction.lock.replace("UPDATE", "UPDATE OF ingest")
            for part in parts(sorted({row.id for row in listed})):
                among, values = transaction.among("ingest.id", part)
                found = select_in(transaction, f"WHERE {where} AND {among} ORDER BY ingest.id{lock}", values)
                move_in(transaction, found, new, reason)
                done += found
            for part in parts(others):
                among, values = transaction.among("ingest.id", part)
                where_there = f"WHERE ingest.state = 'ingested' AND {among} ORDER BY ingest.id{lock}"
                there = select_in(transaction, where_there, values)
                move_in(transaction, there, "queued", "the file that was read of it has left")
            return done

        return self._database.change(work)

    # -- keeping

    def pin(self, reason: str = "", **selection: Any) -> int:
        """Keeps what is selected (as `select`) from retention until `unpin`; how many were not before."""
        return self._pin(1, reason, selection)

    def unpin(self, reason: str = "", **selection: Any) -> int:
        """Gives it free again; how many were pinned."""
        return self._pin(0, reason, selection)

    def _pin(self, pinned: int, reason: str, selection: Mapping[str, Any]) -> int:
        if all(asked is None for asked in selection.values()):
            raise UsageError("nothing is selected to be pinned or unpinned; name images, a night or ids")

        def work(transaction: Transaction) -> int:
            rows = [
                row
                for some in _found_in(transaction, _Selection(**selection), None, lock=True)
                for row in some
                if row.pinned != pinned
            ]
            transaction.update("ingest", ("pinned",), ("id",), [(pinned, row.id) for row in rows])
            detail: dict[str, Any] = {"pinned": bool(pinned), **({"reason": reason} if reason else {})}
            for row in rows:
                note(transaction, row, row.state, row.state, detail)
            return len(rows)

        return self._database.change(work)

    # -- asking

    def of(self, image_id: int, repository: str | None = None) -> list[IngestRow]:
        """The ingests of an image, by repository and detector."""
        where, values = "WHERE ingest.image_id = ?", [image_id]  # type: tuple[str, list[Any]]
        if repository is not None:
            where += " AND ingest.repository = ?"
            values.append(repository)
        return self._select(f"{where} ORDER BY ingest.repository, ingest.detector, ingest.id", values)

    def by_path(self, repository: str, path: str) -> list[IngestRow]:
        """What the ledger knows of a path: more than one where its content changed."""
        return self._select(
            "WHERE ingest.repository = ? AND ingest.path = ? ORDER BY ingest.id", (repository, clean(path))
        )

    def by_paths(self, repository: str, paths: Collection[str]) -> dict[str, list[IngestRow]]:
        """The same for many, by path; those that the ledger does not know are left out."""
        found: dict[str, list[IngestRow]] = {}
        with self._database.reading() as transaction:
            for part in parts(sorted({clean(path) for path in paths})):
                among, values = transaction.among("ingest.path", part)
                where = f"WHERE ingest.repository = ? AND {among} ORDER BY ingest.id"
                for row in select_in(transaction, where, (repository, *values)):
                    found.setdefault(row.path, []).append(row)
        return found

    def find(
        self,
        instrument: str,
        group: str,
        snap: int | None = None,
        detector: str | None = None,
        repository: str | None = None,
        states: Collection[str] = ("ingested",),
    ) -> list[IngestRow]:
        """The presence query: ingested files of an exposure of a group, `snap` counted from 0 (CURINDEX - 1;
        an image whose header has none is the first), `detector` as `R22_S11`."""
        where, values = ["group_id = ?", "instrument = ?"], [group, instrument]  # type: tuple[list[str], list[Any]]
        if snap is not None:
            where.append("coalesce(cur_index, 1) = ?")
            values.append(snap + 1)
        query = f"SELECT id FROM image WHERE {' AND '.join(where)} ORDER BY id"
        with self._database.reading() as transaction:
            images = [row[0] for row in transaction.rows(query, values)]
            selection = _Selection(
                repository=repository,
                image_ids=images,
                detectors=None if detector is None else [detector],
                states=states,
            )
            return [row for some in _found_in(transaction, selection, None) for row in some]

    def select(
        self, *, limit: int = 1000, after: tuple[int, str, int] | None = None, **selection: Any
    ) -> list[IngestRow]:
        """What is selected, by image, detector and number; the next ones follow `after`: `cursor_of` the last
        row. A page is quick, but where `detectors`, `kinds` or `states` leave out nearly everything.

        Of: repository, instrument (str), dayobs (int), image_ids, obsids, ids, detectors, kinds, states
        (collections).
        """
        asked = _Selection(**selection)
        with self._database.reading() as transaction:
            found: list[IngestRow] = []
            for some in _found_in(transaction, asked, after, limit):
                found += some
                if len(found) >= limit and asked.ids is None:
                    break
            return sorted(found, key=self.cursor_of)[:limit]

    @staticmethod
    def cursor_of(row: IngestRow) -> tuple[int, str, int]:
        """For `select(after=…)`."""
        return row.image_id, row.detector, row.id

    def counts(
        self, repository: str | None = None, dayobs: int | None = None, *, done: bool = True
    ) -> dict[str, dict[str, int]]:
        """How many files of each repository are in each state; of one night only, if that is asked for.
        Without `done` only what is neither `ingested` nor `removed`, which is quick however long the history
        is."""
        where, values = ["1 = 1"], []  # type: tuple[list[str], list[Any]]
        if repository is not None:
            where.append("ingest.repository = ?")
            values.append(repository)
        if dayobs is not None:
            where.append("ingest.image_id IN (SELECT id FROM image WHERE dayobs = ?)")
            values.append(dayobs)
        if not done:
            where.append(UNDER_WAY)
        found: dict[str, dict[str, int]] = {}
        for name, state, count in self._database.read(
            f"SELECT repository, state, count(*) FROM ingest WHERE {' AND '.join(where)}"
            " GROUP BY repository, state ORDER BY repository, state",
            values,
        ):
            found.setdefault(name, {})[state] = count
        return found

    def _kept(self, column: str, part: Sequence[int]) -> list[tuple[int, str]]:
        with self._database.reading() as transaction:
            among, values = transaction.among(column, part)
            tags: dict[int, list[str]] = {}
            for number, name in transaction.rows(
                "SELECT ingest.id, tag.name FROM ingest JOIN tag ON tag.image_id = ingest.image_id"
                f" AND tag.detector IN ('', ingest.detector) WHERE {among} ORDER BY tag.name",
                values,
            ):
                tags.setdefault(number, []).append(str(name))
            pinned = transaction.rows(
                f"SELECT ingest.id FROM ingest WHERE ingest.pinned <> 0 AND {among}", values
            )
        found = {number: f"is tagged {', '.join(dict.fromkeys(names))}" for number, names in tags.items()}
        return [*{**found, **{row[0]: "is pinned" for row in pinned}}.items()]

    def _select(self, where: str, values: Sequence[Any]) -> list[IngestRow]:
        with self._database.reading() as transaction:
            return select_in(transaction, where, values)


def _age(by: str) -> str:
    if by not in _AGE:
        raise UsageError(f"age is counted from `observed` or `ingested`, not {by!a}")
    return _AGE[by]


class _Selection(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for; None: whatever it is."""

    repository: str | None = None
    instrument: str | None = None
    dayobs: int | None = None
    image_ids: Collection[int] | None = None
    obsids: Collection[str] | None = None
    ids: Collection[int] | None = None
    detectors: Collection[str] | None = None
    kinds: Collection[str] | None = None
    states: Collection[str] | None = None


def _found_in(
    transaction: Transaction,
    selection: _Selection,
    after: tuple[int, str, int] | None,
    limit: int = -1,
    *,
    lock: bool = False,
) -> Iterator[list[IngestRow]]:
    """What is selected, some at a time: images are looked up first and then their files, so that no database
    may choose to look at all files instead. In order, unless `ids` are given."""
    where, values = ["1 = 1"], []  # type: tuple[list[str], list[Any]]
    for column, some in (("detector", selection.detectors), ("kind", selection.kinds)):
        if some is not None:
            among, more = transaction.among(f"ingest.{column}", sorted(set(some)))
            where.append(among if some else "1 = 0")
            values += more if some else []
    if selection.instrument is not None:
        where.append("image.instrument = ?")
        values.append(selection.instrument)
    states = None if selection.states is None else _known(selection.states)
    if states is not None:
        where.append(f"ingest.state IN ({quoted(sorted(states))})" if states else "1 = 0")
    if after is not None:
        where.append("(ingest.image_id, ingest.detector, ingest.id) > (?, ?, ?)")
        values += after
    # Few are on their way: they are looked up by that, whatever has the order. All else goes image by image,
    # and what would lead elsewhere is hidden.
    few = bool(states) and not set(states or ()) & {"ingested", "removed"}
    size = _FIRST_IMAGES if not selection.detectors else max(limit // len(selection.detectors), _FIRST_IMAGES)
    images = _image_parts(transaction, selection, after[0] if after is not None else 0, size)
    few = few and images is None and selection.ids is None
    if few:
        where.append(UNDER_WAY)
    if selection.repository is not None:
        where.append("ingest.repository = ?" if few else "ingest.repository || '' = ?")
        values.append(selection.repository)
    order = "+ingest.image_id" if few else "ingest.image_id"
    end = f"ORDER BY {order}, ingest.detector, ingest.id"
    last = []
    if limit >= 0:
        end, last = f"{end} LIMIT ?", [limit]
    if lock:
        end += transaction.lock.replace("UPDATE", "UPDATE OF ingest")
    if selection.ids is not None:
        if images is not None:
            among, more = transaction.among(
                "ingest.image_id", [each for part in images for each in part] or [-1]
            )
            where.append(among)
            values += more
        column, chosen = "ingest.id", parts(sorted(set(selection.ids)))
    elif images is not None:
        column, chosen = "ingest.image_id", images
    else:
        yield select_in(transaction, f"WHERE {' AND '.join(where)} {end}", (*values, *last))
        return
    for part in chosen:
        among, more = transaction.among(column, part)
        yield select_in(
            transaction, f"WHERE {' AND '.join(where)} AND {among} {end}", (*values, *more, *last)
        )


def _image_parts(
    transaction: Transaction, selection: _Selection, first: int, size: int
) -> Iterator[list[int]] | None:
    """The images of a selection from one on, in their order, `size` at first; None: it says nothing of
    them."""
    told = (selection.dayobs, selection.obsids, selection.image_ids)
    if selection.instrument is not None and all(each is None for each in told):
        return _images_of_instrument(transaction, selection.instrument, first, size)
    found: set[int] | None = None
    if selection.image_ids is not None:
        found = {image_id for image_id in selection.image_ids if image_id >= first}
    if selection.dayobs is not None:
        rows = transaction.rows(
            "SELECT id FROM image WHERE dayobs = ? AND id >= ?", (selection.dayobs, first)
        )
        night = {row[0] for row in rows}
        found = night if found is None else found & night
    if selection.obsids is not None:
        named: set[int] = set()
        for part in parts(sorted(set(selection.obsids))):
            among, values = transaction.among("obsid", part)
            rows = transaction.rows(f"SELECT id FROM image WHERE {among} AND id >= ?", (*values, first))
            named.update(row[0] for row in rows)
        found = named if found is None else found & named
    return None if found is None else _growing(sorted(found), size)


def _growing(listed: list[int], size: int) -> Iterator[list[int]]:
    begin, size = 0, min(size, _MOST_IMAGES)
    while begin < len(listed):
        yield listed[begin : begin + size]
        begin, size = begin + size, min(4 * size, _MOST_IMAGES)


def _images_of_instrument(
    transaction: Transaction, instrument: str, first: int, size: int
) -> Iterator[list[int]]:
    while True:
        rows = transaction.rows(
            "SELECT id FROM image WHERE instrument = ? AND id >= ? ORDER BY id LIMIT ?",
            (instrument, first, _MOST_IMAGES),
        )
        yield from _growing([row[0] for row in rows], size)
        if len(rows) < _MOST_IMAGES:
            return
        first = rows[-1][0] + 1


def _known(states: Collection[str]) -> Collection[str]:
    for state in states:
        check("ingest", state, state)
    return states
