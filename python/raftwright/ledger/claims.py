"""What forwarders share: who works on which source of which image, and what came of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from raftwright.errors import UsageError
from raftwright.ledger.clock import LONGEST_WAIT, tai, waits
from raftwright.ledger.database import Change, Row, Transaction, clean, marks, parts, quoted
from raftwright.ledger.history import decoded
from raftwright.ledger.rows import FileRow, ImageFacts
from raftwright.ledger.states import EDGES, check, sources_of
from raftwright.ledger.units import ENDED, Claim, Entry, Outcome, State, Unit, UnitKey

if TYPE_CHECKING:
    from raftwright.ledger.database import Database
    from raftwright.ledger.files import Files
    from raftwright.ledger.images import Images
    from raftwright.ledger.leases import Leases

__all__ = ["ENDED", "Claim", "Claims", "Entry", "FileRow", "Outcome", "State", "Unit", "UnitKey"]

_CLAIMABLE: Final = sources_of("source", "claimed")
_UNIT: Final = (
    "image.obsid, image.daq_id, source.location, image.folder, source.state, source.reason, source.expected, "
    "source.received, source.attempts, source.owner, source.created, source.next_try"
)
_ATTEMPT: Final = ("image_id", "subject", "number")
_FROM: Final = "FROM source JOIN image ON image.id = source.image_id"


class _Known(msgspec.Struct, frozen=True):
    """An image, as far as claims need it."""

    id: int
    obsid: str
    dayobs: int
    state: str


class Claims:
    """Thread-safe; raises StorageError when the ledger cannot be read or written."""

    def __init__(self, database: Database, leases: Leases, images: Images, files: Files) -> None:
        self._database = database
        self._leases = leases
        self._images = images
        self._files = files

    @property
    def owner(self) -> str:
        """By what name claims are ours."""
        return self._leases.me.name

    def renew(self) -> None:
        """Says that we are alive; called more often than leases last."""
        self._leases.renew()

    # -- taking

    def claim(self, keys: Iterable[tuple[UnitKey, str, int]], *, again: bool = False) -> list[Claim]:
        """Takes units (key, folder, bytes of the stream) that nobody works on and that have not ended;
        returns those that are ours now. With `again` also those whose time for another try has not come.

        An image that was not announced is, as far as it is known. Raises FormatError for a name that is none.
        """
        wanted = list({each[0]: each for each in keys}.values())
        if not wanted:
            return []
        held: list[tuple[UnitKey, int]] = []

        def work(transaction: Transaction) -> list[Claim]:
            self._leases.let_go(held)
            held.clear()
            claims = self._claim_in(transaction, wanted, again)
            held.extend((claim.key, claim.attempt) for claim in claims)
            self._leases.hold(held)
            return claims

        try:
            return self._database.change(work)
        except BaseException:
            self._leases.let_go(held)
            raise

    def _claim_in(
        self, transaction: Transaction, wanted: list[tuple[UnitKey, str, int]], again: bool
    ) -> list[Claim]:
        self._leases.renew_in(transaction)
        images = self._known(transaction, [(key, folder) for key, folder, _ in wanted], announce=True)
        rows = self._rows_to_claim(transaction, wanted, images)
        living: frozenset[str] | None = None
        moment = tai()
        me = self.owner
        claims: list[Claim] = []
        updates: list[Row] = []
        attempts: list[Row] = []
        deserted: list[Row] = []
        for key, _, expected in wanted:
            image = images[key.image, key.daq_id]
            row = rows.get((image.id, key.location))
            if row is None:
                continue  # somebody else is taking it this moment
            state, owner, created, tried, next_try = row
            if state in ENDED:
                continue
            if state == "claimed":
                if living is None:
                    # After the rows: whoever has entered himself in one is among the owners too.
                    living = self._leases.living(transaction)
                if self._leases.busy(owner, living, (key, tried)):
                    continue
            if state not in ("claimed", "expected") and not again and waits(next_try, moment):
                continue
            taken = state == "claimed"
            created = created or int(moment * 1000) * 1_000_000
            updates.append(("claimed", me, tried + 1, expected, created, 0.0, image.id, key.location))
            attempts.append((image.id, "source", key.location, tried + 1, me, moment))
            if taken:
                deserted.append((moment, "taken over", image.id, key.location, tried))
            transaction.note(
                Change(
                    *("source", key.location, state, "claimed", image.id, image.obsid, image.dayobs),
                    {"attempt": tried + 1, **({"from": owner} if taken else {})},
                )
            )
            claims.append(Claim(key, created, tried + 1, taken, owner if taken else ""))
        if not claims:
            return []
        transaction.update(
            "source",
            ("state", "owner", "attempts", "expected", "created", "next_try"),
            ("image_id", "location"),
            updates,
            f"state IN ({quoted(_CLAIMABLE)})",
            exact=True,
        )
        transaction.update(
            "attempt", ("ended_tai", "outcome"), _ATTEMPT, deserted, "ended_tai IS NULL AND thing = 'source'"
        )
        transaction.insert(
            "attempt", ("image_id", "thing", "subject", "number", "owner", "began_tai"), attempts, new=True
        )
        for image in {images[claim.key.image, claim.key.daq_id] for claim in claims}:
            if image.state in ("announced", "lost"):
                self._images.move_in(transaction, image.id, "capturing")
        return claims

    def _rows_to_claim(
        self,
        transaction: Transaction,
        wanted: list[tuple[UnitKey, str, int]],
        images: dict[tuple[str, str], _Known],
    ) -> dict[tuple[int, str], Row]:
        locations: dict[int, dict[str, int]] = {}
        for key, _, expected in wanted:
            locations.setdefault(images[key.image, key.daq_id].id, {})[key.location] = expected
        found: dict[tuple[int, str], Row] = {}
        for image_id in sorted(locations):
            listed = sorted(locations[image_id])
            among, values = transaction.among("location", listed)
            query = (
                "SELECT location, state, owner, created, attempts, next_try FROM source"
                f" WHERE image_id = ? AND {among} ORDER BY location{transaction.skip}"
            )
            rows = transaction.rows(query, (image_id, *values))
            if len(rows) < len(listed):  # some are not known yet, or somebody is taking them
                new = transaction.insert(
                    "source",
                    ("image_id", "location", "expected"),
                    [(image_id, location, locations[image_id][location]) for location in listed],
                )
                if new:
                    self._images.count_in(transaction, image_id)
                    rows = transaction.rows(query, (image_id, *values))
            found.update(((image_id, row[0]), row[1:]) for row in rows)
        return found

    def _known(
        self, transaction: Transaction, wanted: Sequence[tuple[UnitKey, str]], *, announce: bool
    ) -> dict[tuple[str, str], _Known]:
        found: dict[tuple[str, str], _Known] = {}
        for part in parts(sorted({key.image for key, _ in wanted})):
            for image_id, obsid, daq_id, dayobs, state in transaction.rows(
                f"SELECT id, obsid, daq_id, dayobs, state FROM image WHERE obsid IN ({marks(part)})", part
            ):
                found[obsid, daq_id] = _Known(image_id, obsid, dayobs, state)
        for key, folder in wanted:
            if announce and (key.image, key.daq_id) not in found:
                facts = ImageFacts(
                    *(),
                    obsid=key.image,
                    daq_id=key.daq_id,
                    camera="",
                    instrument="",
                    folder=folder,
                    sources=(),
                    detectors=(),
                )
                row = self._images.announce_in(transaction, facts)
                found[key.image, key.daq_id] = _Known(row[0], key.image, row[1], row[2])
        return found

    def holds(self, claim: Claim) -> bool:
        """Whether a claim is still ours."""
        key = claim.key
        rows = self._database.read(
            f"SELECT 1 {_FROM} WHERE image.obsid = ? AND image.daq_id = ? AND source.location = ?"
            " AND source.state = 'claimed' AND source.owner = ? AND source.attempts = ?",
            (key.image, key.daq_id, key.location, self.owner, claim.attempt),
        )
        return bool(rows)

    # -- ending

    def end(self, claim: Claim, outcome: Outcome) -> bool:
        """Writes what became of a unit, all at once: source, files, detectors, attempt, events. False, and
        nothing but the files is written, where the claim is no longer ours."""
        return self.end_many([(claim, outcome)])[0]

    def end_many(self, ends: Sequence[tuple[Claim, Outcome]]) -> list[bool]:
        """The same for several, in one commit."""
        for claim, outcome in ends:
            check("source", "claimed", outcome.state, f"{claim.key.image} {claim.key.location}")
            if outcome.state == "claimed":
                raise UsageError(
                    f"{claim.key.image} {claim.key.location}: an attempt does not end in `claimed`"
                )
        done = self._database.change(lambda transaction: self._end_in(transaction, ends))
        self._leases.let_go((claim.key, claim.attempt) for claim, _ in ends)
        return done

    def _end_in(self, transaction: Transaction, ends: Sequence[tuple[Claim, Outcome]]) -> list[bool]:
        moment = tai()
        me = self.owner
        images = self._known(transaction, [(claim.key, "") for claim, _ in ends], announce=True)
        rows = self._rows_to_end(transaction, ends, images)
        results: list[bool] = []
        updates: list[Row] = []
        attempts: list[Row] = []
        for claim, outcome in ends:
            key = claim.key
            image = images[key.image, key.daq_id]
            state, owner, tried = rows.get((image.id, key.location), ("", "", 0))
            ours = owner == me and tried == claim.attempt
            if ours and state == outcome.state:
                results.append(True)  # written already; the answer of that commit was lost
                continue
            ours = ours and state == "claimed"
            results.append(ours)
            reason = clean(outcome.reason)
            detail: dict[str, Any] = {"attempt": claim.attempt, "received": outcome.received}
            if reason:
                detail["reason"] = reason
            if outcome.files:
                detail["files"] = len(outcome.files)
            new = outcome.state if ours else state
            if not ours:
                detail |= {"late": True, "outcome": outcome.state}
            else:
                next_try = 0.0 if outcome.state in ENDED else moment + min(outcome.retry_after, LONGEST_WAIT)
                updates.append(
                    (
                        outcome.state,
                        reason,
                        outcome.received,
                        next_try,
                        image.id,
                        key.location,
                        me,
                        claim.attempt,
                    )
                )
            attempts.append(
                (
                    *(moment, outcome.state if ours else f"{outcome.state}, late", reason, outcome.received),
                    *(image.id, key.location, claim.attempt, me),
                )
            )
            transaction.note(
                Change("source", key.location, state, new, image.id, image.obsid, image.dayobs, detail)
            )
        transaction.update(
            "source",
            ("state", "reason", "received", "next_try"),
            ("image_id", "location", "owner", "attempts"),
            updates,
            "state = 'claimed'",
            exact=True,
        )
        transaction.update(
            "attempt",
            ("ended_tai", "outcome", "reason", "bytes"),
            (*_ATTEMPT, "owner"),
            attempts,
            "thing = 'source'",
        )
        files: dict[int, list[FileRow]] = {}
        for claim, outcome in ends:
            if outcome.files:
                files.setdefault(images[claim.key.image, claim.key.daq_id].id, []).extend(outcome.files)
        known = {image.id: (image.obsid, image.dayobs) for image in images.values()}
        for image_id, listed in files.items():
            self._files.enter_in(transaction, image_id, *known[image_id], listed)
        for (claim, outcome), ours in zip(ends, results, strict=True):
            if ours and outcome.state == "gone":
                image = images[claim.key.image, claim.key.daq_id]
                self._files.gone_in(
                    transaction, image.id, image.obsid, image.dayobs, claim.key.location, outcome.reason
                )
        return results

    def _rows_to_end(
        self,
        transaction: Transaction,
        ends: Sequence[tuple[Claim, Outcome]],
        images: dict[tuple[str, str], _Known],
    ) -> dict[tuple[int, str], Row]:
        locations: dict[int, set[str]] = {}
        for claim, _ in ends:
            locations.setdefault(images[claim.key.image, claim.key.daq_id].id, set()).add(claim.key.location)
        found: dict[tuple[int, str], Row] = {}
        for image_id in sorted(locations):
            among, values = transaction.among("location", sorted(locations[image_id]))
            for row in transaction.rows(
                "SELECT location, state, owner, attempts FROM source WHERE image_id = ?"
                f" AND {among} ORDER BY location{transaction.lock}",
                (image_id, *values),
            ):
                found[image_id, row[0]] = row[1:]
        return found

    def give_back(self) -> None:
        """Opens everything that is claimed by us, at the end."""

        def work(transaction: Transaction) -> None:
            rows = transaction.rows(
                "SELECT image.id, image.obsid, image.dayobs, source.location, source.attempts"
                f" {_FROM} WHERE source.state = 'claimed' AND source.owner = ?",
                (self.owner,),
            )
            moment = tai()
            for image_id, obsid, dayobs, location, tried in rows:
                transaction.note(
                    Change(
                        *("source", location, "claimed", "open", image_id, obsid, dayobs),
                        {"reason": "given back", "attempt": tried},
                    )
                )
            transaction.update(
                "source",
                ("state", "reason"),
                ("image_id", "location", "owner"),
                [("open", "given back", row[0], row[3], self.owner) for row in rows],
                "state = 'claimed'",
            )
            transaction.update(
                "attempt",
                ("ended_tai", "outcome", "reason"),
                _ATTEMPT,
                [(moment, "open", "given back", row[0], row[3], row[4]) for row in rows],
                "thing = 'source'",
            )

        self._database.change(work)

    # -- asking

    def settled(self, images: Collection[str]) -> set[UnitKey]:
        """Units of these images of which nothing is to be done now: ended, claimed by the living, or waiting
        for their next try."""
        found: set[UnitKey] = set()
        with self._database.reading() as transaction:
            living = self._leases.living(transaction)
            moment = tai()
            for part in parts(sorted(images)):
                for obsid, daq_id, location, state, owner, tried, next_try in transaction.rows(
                    "SELECT image.obsid, image.daq_id, source.location, source.state, source.owner,"
                    f" source.attempts, source.next_try {_FROM} WHERE image.obsid IN ({marks(part)})",
                    part,
                ):
                    key = UnitKey(obsid, daq_id, location)
                    if state == "claimed":
                        busy = self._leases.busy(owner, living, (key, tried))
                    else:
                        busy = state != "expected" and waits(next_try, moment)
                    if state in ENDED or busy:
                        found.add(key)
        return found

    def units(self, images: Collection[str] | None = None) -> Iterator[Unit]:
        """All of them, or those of some images, by name; those that nobody has begun (`expected`) too."""
        for row in self._of_images(f"SELECT {_UNIT} {_FROM}", "image.obsid, source.location", images):
            yield Unit(**dict(zip(Unit.__struct_fields__, row, strict=True)))

    def files(self, images: Collection[str] | None = None) -> Iterator[FileRow]:
        """Raw files of all images, or of some by name."""
        yield from self._files.of_images(images)

    def _of_images(self, query: str, order: str, images: Collection[str] | None) -> Iterator[Row]:
        if images is None:
            yield from self._database.read(f"{query} ORDER BY {order}")
            return
        for part in parts(sorted(images)):
            yield from self._database.read(
                f"{query} WHERE image.obsid IN ({marks(part)}) ORDER BY {order}", part
            )

    def history(self, after: int = 0) -> Iterator[Entry]:
        """What happened to units, from a number on."""
        for number, at, obsid, location, old, new, owner, detail in self._database.read(
            "SELECT number, at_tai, obsid, subject, old, new, owner, detail FROM event"
            " WHERE number > ? AND thing = 'source' ORDER BY number",
            (after,),
        ):
            said = decoded(detail)
            kind = (
                "taken over" if old == new == "claimed" and "from" in said else str(said.get("outcome", new))
            )
            yield Entry(number, at, kind, obsid, location, owner, said)

    def unfinished(self, most: int) -> list[Unit]:
        """Some units that were tried and are not ended, those first whose next try comes first."""
        rows = self._database.read(
            f"SELECT {_UNIT} {_FROM} WHERE source.state IN ('incomplete', 'failed')"
            " ORDER BY source.next_try LIMIT ?",
            (most,),
        )
        return [Unit(**dict(zip(Unit.__struct_fields__, row, strict=True))) for row in rows]

    def counts(self) -> dict[str, int]:
        """How many units are in each state. What is done is not counted one by one: it is most of all."""
        others = quoted(state for state in EDGES["source"] if state != "done")
        with self._database.reading() as transaction:
            found: dict[str, int] = dict(
                transaction.rows(
                    f"SELECT state, count(*) FROM source WHERE state IN ({others}) GROUP BY state"
                )
            )
            (total,) = transaction.rows("SELECT coalesce(sum(expected_sources), 0) FROM image")[0]
        if done := int(total) - sum(found.values()):
            found["done"] = done
        return found
