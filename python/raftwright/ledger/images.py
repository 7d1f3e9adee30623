"""Images: what the DAQ announced, what each must have, and how far it is."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from raftwright.errors import NotFoundError, UsageError
from raftwright.ledger.clock import tai
from raftwright.ledger.database import Change, Row, Transaction, clean, marks, parts
from raftwright.ledger.history import decoded
from raftwright.ledger.judging import judge_in
from raftwright.ledger.rows import DetectorRow, ImageFacts, ImageRow, SourceRow, plain_id
from raftwright.ledger.states import check, sources_of
from raftwright.rawfile.names import ImageName

if TYPE_CHECKING:
    from raftwright.ledger.database import Database

__all__ = ["Images", "exposure_id"]

_IMAGE: Final = ", ".join(ImageRow.__struct_fields__)
_SOURCE: Final = ", ".join(SourceRow.__struct_fields__)
_DETECTOR: Final = ", ".join(DetectorRow.__struct_fields__)
_CONTROLLERS: Final = "OCHPQS"
_SETTLED: Final = frozenset({"complete", "incomplete", "lost"})
_TIMES: Final = ("trigger_tai", "begin_tai", "end_tai", "end_readout_tai")
_FACTS: Final[Mapping[str, type]] = {
    "image_type": str,
    "exposure_time": float,
    "physical_filter": str,
    "target": str,
    "group_id": str,
    "ra": float,
    "dec": float,
    "cur_index": int,
}


def exposure_id(name: ImageName) -> int:
    """The number that the Gen3 exposure dimension has for an image; 0 where there is none."""
    dayobs = int(name.dayobs)
    if name.seqnum >= 100_000 or name.controller not in _CONTROLLERS:
        return 0
    shifted = not (
        (name.controller == "C" and dayobs > 20231004) or (name.controller in "PQS" and dayobs > 20250417)
    )
    year = 1000 * _CONTROLLERS.index(name.controller) if shifted else 0
    return (dayobs + year * 10_000) * 100_000 + name.seqnum


class Images:
    """Thread-safe; raises StorageError when the ledger cannot be read or written."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- announcing

    def announce(self, facts: ImageFacts) -> int:
        """Enters an image with the sources and detectors that it must have; its number in the ledger.

        Again is nothing new; what was not known before is added. Raises FormatError for a name that is none.
        """
        return int(self._database.change(lambda transaction: self.announce_in(transaction, facts))[0])

    def announce_in(self, transaction: Transaction, facts: ImageFacts) -> Row:
        """The same within a transaction: number, dayobs, state."""
        name = ImageName.parse(facts.obsid)
        dayobs, daq_id = int(name.dayobs), plain_id(facts.daq_id)
        query = (
            "SELECT id, state, camera, expected_sources, expected_detectors FROM image"
            " WHERE obsid = ? AND daq_id = ?"
        )
        fresh = False
        known = transaction.one(query, (facts.obsid, daq_id))
        if known is None and daq_id and self._name_alone_in(transaction, facts.obsid, daq_id):
            known = transaction.one(query, (facts.obsid, daq_id))
        if known is None:
            new = transaction.insert(
                "image",
                (
                    *("obsid", "daq_id", "camera", "instrument", "folder", "dayobs", "seqnum", "controller"),
                    *("exposure_id", "trigger_tai", "announced_tai", "header_state"),
                ),
                [
                    (
                        *(facts.obsid, daq_id, facts.camera, facts.instrument, facts.folder, dayobs),
                        *(name.seqnum, name.controller, exposure_id(name), facts.trigger_tai),
                        facts.announced_tai or tai(),
                        self._header_state(transaction, facts.obsid),
                    )
                ],
            )
            known = transaction.one(query, (facts.obsid, daq_id))
            if known is None:
                raise NotFoundError(f"{facts.obsid}: it was entered and is not there")
            fresh = bool(new)
            if new:
                self._take_over_early(transaction, facts.obsid, known[0])
                detail = {
                    "daq_id": daq_id,
                    "camera": facts.camera,
                    "instrument": facts.instrument,
                    "sources": len(facts.sources),
                    "detectors": len(facts.detectors),
                }
                transaction.note(
                    Change("image", facts.obsid, "", "announced", known[0], facts.obsid, dayobs, detail)
                )
        image_id, state, camera, sources, detectors = known
        if facts.camera and not camera:
            transaction.run(
                "UPDATE image SET camera = ?, instrument = ?, folder = ?,"
                " trigger_tai = coalesce(trigger_tai, ?) WHERE id = ?",
                (facts.camera, facts.instrument, facts.folder, facts.trigger_tai, image_id),
            )
        if len(facts.sources) > sources or len(facts.detectors) > detectors:
            transaction.insert(
                "source",
                ("image_id", "location", "kind", "expected"),
                [
                    (image_id, source.location, source.kind, source.bytes)
                    for source in {each.location: each for each in facts.sources}.values()
                ],
                new=fresh,
            )
            if sources:
                transaction.update(
                    "source",
                    ("kind",),
                    ("image_id", "location"),
                    [(source.kind, image_id, source.location) for source in facts.sources],
                    "kind = ''",
                )
            transaction.insert(
                "detector",
                ("image_id", "detector", "location", "purpose"),
                [
                    (image_id, each.detector, each.location, each.purpose)
                    for each in {each.detector: each for each in facts.detectors}.values()
                ],
                new=fresh,
            )
            self.count_in(transaction, image_id)
        return image_id, dayobs, state

    @staticmethod
    def _name_alone_in(transaction: Transaction, obsid: str, daq_id: str) -> bool:
        """An image of which only the name was known, from a manifest without files, gets its id."""
        return bool(
            transaction.run(
                "UPDATE image SET daq_id = ? WHERE obsid = ? AND daq_id = '' AND NOT EXISTS"
                " (SELECT 1 FROM file WHERE file.image_id = image.id AND file.kind = 'raw')",
                (daq_id, obsid),
            )
        )

    @staticmethod
    def _take_over_early(transaction: Transaction, obsid: str, image_id: int) -> None:
        """What was told of it before it was announced."""
        row = transaction.one("SELECT facts FROM early WHERE obsid = ?", (obsid,))
        if row is None:
            return
        facts = {name: value for name, value in decoded(row[0]).items() if name in (*_FACTS, *_TIMES)}
        if facts:
            sets = ", ".join(f"{name} = ?" for name in facts)
            transaction.run(f"UPDATE image SET {sets} WHERE id = ?", (*facts.values(), image_id))
        transaction.run("DELETE FROM early WHERE obsid = ?", (obsid,))

    @staticmethod
    def _header_state(transaction: Transaction, obsid: str) -> str:
        row = transaction.one(
            "SELECT state FROM header WHERE obsid = ?"
            " ORDER BY CASE state WHEN 'complete' THEN 0 ELSE 1 END LIMIT 1",
            (obsid,),
        )
        return "expected" if row is None else str(row[0])

    @staticmethod
    def count_in(transaction: Transaction, image_id: int) -> None:
        """Counts the sources and detectors of an image anew."""
        transaction.run(
            "UPDATE image SET expected_sources = (SELECT count(*) FROM source WHERE image_id = image.id),"
            " expected_detectors = (SELECT count(*) FROM detector WHERE image_id = image.id) WHERE id = ?",
            (image_id,),
        )

    # -- asking

    def by_id(self, image_id: int) -> ImageRow:
        """An image by its number. Raises NotFoundError."""
        rows = self._database.read(f"SELECT {_IMAGE} FROM image WHERE id = ?", (image_id,))
        if not rows:
            raise NotFoundError(f"the ledger has no image of the number {image_id}")
        return _image(rows[0])

    def get(self, obsid: str, daq_id: str | None = None) -> list[ImageRow]:
        """Images of a name: usually one, none where the ledger does not know it."""
        if daq_id is None:
            rows = self._database.read(f"SELECT {_IMAGE} FROM image WHERE obsid = ? ORDER BY id", (obsid,))
        else:
            rows = self._database.read(
                f"SELECT {_IMAGE} FROM image WHERE obsid = ? AND daq_id = ?", (obsid, plain_id(daq_id))
            )
        return [_image(row) for row in rows]

    def select(
        self,
        dayobs: int | None = None,
        states: Collection[str] | None = None,
        instrument: str | None = None,
        since_tai: float | None = None,
        after_id: int = 0,
        limit: int = 1000,
    ) -> list[ImageRow]:
        """Images by what is asked for, oldest first; the next ones follow `after_id`."""
        where, values = ["id > ?"], [after_id]  # type: tuple[list[str], list[Any]]
        for column, value in (("dayobs", dayobs), ("instrument", instrument)):
            if value is not None:
                where.append(f"{column} = ?")
                values.append(value)
        if states is not None:
            where.append(f"state IN ({marks(list(states))})" if states else "1 = 0")
            values += states
        if since_tai is not None:
            where.append("announced_tai >= ?")
            values.append(since_tai)
        rows = self._database.read(
            f"SELECT {_IMAGE} FROM image WHERE {' AND '.join(where)} ORDER BY id LIMIT ?", (*values, limit)
        )
        return [_image(row) for row in rows]

    def sources(self, image_id: int) -> list[SourceRow]:
        """The sources of an image."""
        rows = self._database.read(
            f"SELECT {_SOURCE} FROM source WHERE image_id = ? ORDER BY location", (image_id,)
        )
        return [SourceRow(**dict(zip(SourceRow.__struct_fields__, row, strict=True))) for row in rows]

    def detectors(self, image_id: int) -> list[DetectorRow]:
        """The detectors that an image must have."""
        rows = self._database.read(
            f"SELECT {_DETECTOR} FROM detector WHERE image_id = ? ORDER BY detector", (image_id,)
        )
        return [DetectorRow(**dict(zip(DetectorRow.__struct_fields__, row, strict=True))) for row in rows]

    def states(self, obsids: Collection[str]) -> dict[tuple[str, str], str]:
        """The states of images by name and id of the DAQ."""
        found: dict[tuple[str, str], str] = {}
        for part in parts(sorted(obsids)):
            for obsid, daq_id, state in self._database.read(
                f"SELECT obsid, daq_id, state FROM image WHERE obsid IN ({marks(part)})", part
            ):
                found[obsid, daq_id] = state
        return found

    # -- changing

    def move(
        self, image_id: int, new: str, reason: str = "", detail: Mapping[str, Any] | None = None
    ) -> bool:
        """Takes a step along an edge; False where it is so already, and for the same reason.

        Raises UsageError where there is no such step, NotFoundError.
        """
        return self._database.change(
            lambda transaction: self.move_in(transaction, image_id, new, reason, detail)
        )

    def move_in(
        self,
        transaction: Transaction,
        image_id: int,
        new: str,
        reason: str = "",
        detail: Mapping[str, Any] | None = None,
        at: float | None = None,
    ) -> bool:
        """The same within a transaction."""
        row = transaction.one(
            f"SELECT obsid, dayobs, state, reason FROM image WHERE id = ?{transaction.lock}", (image_id,)
        )
        if row is None:
            raise NotFoundError(f"the ledger has no image of the number {image_id}")
        obsid, dayobs, old, before = row
        check("image", old, new, obsid)
        reason = clean(reason)
        if old == new and reason == before:
            return False
        moment = at or tai()
        leads = sources_of("image", new)
        transaction.run(
            "UPDATE image SET state = ?, reason = ?, settled_tai = ?,"
            " complete_tai = CASE WHEN ? = 'complete' THEN coalesce(complete_tai, ?) ELSE complete_tai END"
            f" WHERE id = ? AND state IN ({marks(leads)})",
            (new, reason, moment if new in _SETTLED else None, new, moment, image_id, *leads),
        )
        said = {**(detail or {}), **({"reason": reason} if reason else {})}
        transaction.note(Change("image", obsid, old, new, image_id, obsid, dayobs, said))
        return True

    def judge(
        self, image_id: int, *, late: bool = False, verified: bool = False, at: float | None = None
    ) -> ImageRow:
        """Finds from sources, detectors and files what an image is, and moves it there: complete, incomplete,
        lost; or it stays what it is while work on it goes on.

        With `late` what is still worked on counts as missing. With `verified` only files count whose sums
        were found to hold (`files.verified`). `at` is when it became so, TAI, if it was not now.

        Raises NotFoundError.
        """
        self._database.change(
            lambda transaction: self.judge_in(transaction, image_id, late=late, verified=verified, at=at)
        )
        return self.by_id(image_id)

    def judge_in(
        self,
        transaction: Transaction,
        image_id: int,
        *,
        late: bool = False,
        verified: bool = False,
        at: float | None = None,
    ) -> None:
        """The same within a transaction."""
        verdict = judge_in(transaction, image_id, late=late, verified=verified)
        if verdict is not None:
            self.move_in(transaction, image_id, verdict.state, verdict.reason, verdict.detail, at)

    def times(
        self,
        obsid: str,
        *,
        begin_tai: float | None = None,
        end_tai: float | None = None,
        end_readout_tai: float | None = None,
        trigger_tai: float | None = None,
    ) -> int:
        """Enters when something was; how many images of that name there are. What is told before the DAQ
        announces an image is kept until it does. Raises FormatError for a name that is none."""
        given = dict(zip(_TIMES, (trigger_tai, begin_tai, end_tai, end_readout_tai), strict=True))
        return self._enter(obsid, {name: value for name, value in given.items() if value is not None})

    def facts(self, obsid: str, **facts: Any) -> int:
        """Enters what the header knows: image_type, exposure_time, physical_filter, target, group_id, ra,
        dec, cur_index; how many images of that name there are, as `times`. What is None, or no number where
        one is due, is left out."""
        unknown = set(facts) - set(_FACTS)
        if unknown:
            raise UsageError(f"{obsid}: {sorted(unknown)} are no facts; there are {', '.join(_FACTS)}")
        return self._enter(obsid, {name: value for name, value in facts.items() if value is not None})

    def _enter(self, obsid: str, given: Mapping[str, Any]) -> int:
        ImageName.parse(obsid)
        values: dict[str, Any] = {}
        for name, value in given.items():
            if _FACTS.get(name, float) is str:
                values[name] = clean(str(value), 200)
            elif _FACTS.get(name, float) is int:
                if isinstance(value, int) and 0 <= value < 1 << 31:
                    values[name] = int(value)
            elif isinstance(value, int | float) and math.isfinite(value):
                values[name] = float(value)
        if not values:
            return len(self.get(obsid))
        sets = ", ".join(f"{name} = ?" for name in values)

        def work(transaction: Transaction) -> int:
            changed = transaction.run(f"UPDATE image SET {sets} WHERE obsid = ?", (*values.values(), obsid))
            if not changed:
                row = transaction.one(f"SELECT facts FROM early WHERE obsid = ?{transaction.lock}", (obsid,))
                merged = {**(decoded(row[0]) if row is not None else {}), **values}
                told = (msgspec.json.encode(merged).decode(), tai(), obsid)
                if row is None:
                    transaction.insert("early", ("facts", "told_tai", "obsid"), [told])
                else:
                    transaction.run("UPDATE early SET facts = ?, told_tai = ? WHERE obsid = ?", told)
            return changed

        return self._database.change(work)


def _image(row: Sequence[Any]) -> ImageRow:
    return ImageRow(**dict(zip(ImageRow.__struct_fields__, row, strict=True)))
