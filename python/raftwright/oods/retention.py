"""What leaves a repository: chosen by age, by water marks, by quota; and why what could not leave stayed.

Choosing changes nothing: a dry run and the real one choose by the same code."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from raftwright.errors import StorageError
from raftwright.ledger import tai
from raftwright.oods.onsite import (
    beside,
    frees_nothing,
    in_place,
    local_path,
    other_name,
    stands,
    strange,
)

if TYPE_CHECKING:
    from raftwright.butler import Repository
    from raftwright.ledger import Ledger
    from raftwright.ledger.rows import IngestRow
    from raftwright.oods.settings import Age, Retention, Rule, Settings

__all__ = ["Choice", "Chooser", "Need", "Space"]

_PAGE: Final = 500
_KEPT: Final = 10_000
"""Files that stay of which a choice tells one by one; the others are counted."""


@dataclass(frozen=True, slots=True)
class Space:
    """Of a file system, in bytes."""

    total: int
    used: int

    @classmethod
    def of(cls, directory: str) -> Space:
        """As its users have it. Raises StorageError."""
        try:
            found = os.statvfs(directory)
        except OSError as error:
            raise StorageError(error.errno, f"cannot be looked at ({error.strerror})", directory) from error
        used = (found.f_blocks - found.f_bfree) * found.f_frsize
        return cls(used + found.f_bavail * found.f_frsize, used)

    @property
    def share(self) -> float:
        """Of it that is used."""
        return self.used / self.total if self.total else 0.0


@dataclass(frozen=True, slots=True)
class Need:
    """What has to be freed, whatever the age of what is there."""

    bytes: int
    why: str
    disk: str = ""
    """A directory on the file system that is too full; empty where it is something else that asks."""


@dataclass(slots=True)
class Choice:
    """What is to leave, and what stays although it should."""

    going: list[tuple[IngestRow, str]] = field(default_factory=list)
    """With the reason."""
    staying: list[tuple[IngestRow, str]] = field(default_factory=list)
    stayed: int = 0
    """All that stay although they should leave."""
    bytes: int = 0
    """Of what is to leave."""
    lacking: int = 0
    """Bytes that should be freed and cannot be."""
    why: str = ""
    """What asks for room, where something does."""

    def keep(self, row: IngestRow, why: str) -> None:
        """It stays."""
        self.stayed += 1
        if len(self.staying) < _KEPT:
            self.staying.append((row, why))


class Chooser:
    """Chooses. `repository` is asked what is tagged."""

    def __init__(self, ledger: Ledger, settings: Settings, repository: Repository) -> None:
        assert settings.retention is not None
        self._ledger = ledger
        self._settings = settings
        self._rules: Retention = settings.retention
        self._repository = repository

    def choose(
        self,
        space: Space | None = None,
        now: float | None = None,
        *,
        most: int | None = None,
        held: bool = False,
    ) -> Choice:
        """What is to leave now; `space` and `now` (TAI) for those who ask what would be. No more than `most`
        and a page of it: then there may be more, and what is lacking is not told. With `held` it tells of
        what is pinned or tagged too.

        Raises StorageError.
        """
        at = tai() if now is None else now
        choice = Choice()
        chosen: set[int] = set()
        looked: set[int] = set()
        for number, rule in enumerate(self._rules.rules):
            self._by_age(choice, chosen, looked, rule, self._rules.rules[:number], at, most)
            if most is not None and len(choice.going) >= most:
                return choice
        need = self._need(space, choice.bytes)
        if need is not None:
            choice.why = need.why
            self._by_room(choice, chosen, looked, need, at, most)
        if held:
            self._held(choice, at)
        return choice

    def _held(self, choice: Choice, at: float) -> None:
        """What is pinned or tagged, and would be looked at otherwise."""
        told: set[int] = set()
        rules = self._rules.rules
        for number, rule in enumerate(rules):
            for row, why in self._ledger.ingests.held(self._settings.name, rule.by, at - rule.older_than):
                if row.id not in told and _says(rule, row) and not any(_says(r, row) for r in rules[:number]):
                    told.add(row.id)
                    choice.keep(row, why)
        if choice.lacking:
            for row, why in self._ledger.ingests.held(self._settings.name, self._rules.by, at):
                if row.id not in told:
                    choice.keep(row, why)

    # -- by age

    def _by_age(
        self,
        choice: Choice,
        chosen: set[int],
        looked: set[int],
        rule: Rule,
        before: Sequence[Rule],
        at: float,
        most: int | None,
    ) -> None:
        for page in self._pages(rule.by, at - rule.older_than):
            if most is not None and len(choice.going) >= most:
                return
            mine = [row for row in page if _says(rule, row) and not any(_says(one, row) for one in before)]
            looked.update(row.id for row in mine)
            why = f"{rule.by} more than {_time(rule.older_than)} ago"
            for row, hindrance in self.hindered(mine):
                if hindrance:
                    choice.keep(row, hindrance)
                else:
                    chosen.add(row.id)
                    choice.going.append((row, why))
                    choice.bytes += row.bytes

    def _pages(self, by: Age, before: float) -> Iterator[list[IngestRow]]:
        after = (-1e300, 0)
        while True:
            page = self._ledger.ingests.oldest(self._settings.name, by, before, _PAGE, after)
            if page:
                yield page
                last = page[-1]
                after = ((last.observed_tai if by == "observed" else last.ingested_tai or 0.0), last.id)
            if len(page) < _PAGE:
                return

    # -- by room

    def _need(self, space: Space | None, going: int) -> Need | None:
        rules = self._rules
        needs: list[Need] = []
        if rules.high_water < 1.0:
            now = Space.of(self.disk) if space is None else space
            if now.share > rules.high_water:
                bytes = now.used - int(rules.low_water * now.total) - going
                needs.append(
                    Need(
                        bytes,
                        f"the disk is {100 * now.share:.1f} % full, above {100 * rules.high_water:g} %",
                        self.disk,
                    )
                )
        if rules.quota:
            (total,) = self._ledger.read(
                "SELECT coalesce(sum(bytes), 0) FROM ingest WHERE repository = ? AND state = 'ingested'",
                (self._settings.name,),
            )
            if total[0] - going > rules.quota:
                why = f"{total[0] / 1e9:.4g} GB are more than the quota of {rules.quota / 1e9:.4g} GB"
                needs.append(Need(int(total[0]) - going - rules.quota, why))
        needs = [need for need in needs if need.bytes > 0]
        return max(needs, key=lambda need: need.bytes, default=None)

    @property
    def disk(self) -> str:
        """Directory whose file system the water marks mean."""
        return self._rules.disk or self._settings.repository

    def _by_room(
        self,
        choice: Choice,
        chosen: set[int],
        looked: set[int],
        need: Need,
        at: float,
        most: int | None,
    ) -> None:
        left = need.bytes
        for page in self._pages(self._rules.by, at):
            mine = [row for row in page if row.id not in chosen and row.id not in looked]
            for row, hindrance in self.hindered(mine):
                if not hindrance and need.disk:
                    going = row.path if self.file_goes(row) else local_path(row.uri or row.path)
                    hindrance = frees_nothing(going, need.disk)
                if hindrance:
                    choice.keep(row, hindrance)
                elif left > 0:
                    chosen.add(row.id)
                    choice.going.append((row, need.why))
                    choice.bytes += row.bytes
                    left -= row.bytes
            if left <= 0 or (most is not None and len(choice.going) >= most):
                return
        choice.lacking = max(0, left)

    # -- what must stay

    def hindered(self, rows: Sequence[IngestRow]) -> list[tuple[IngestRow, str]]:
        """Each with what keeps it; nothing where it may leave. Also asked right before it leaves."""
        if not rows:
            return []
        safe = self.safe(rows)
        kept = self._ledger.ingests.kept(rows)
        free = [row for row in rows if row.id in safe and row.id not in kept]
        refs = self._repository.datasets([row.dataset_id for row in free if row.dataset_id])
        tagged = self._repository.tagged(refs)
        unknown = self._unknown_beside(free)
        said = []
        for row in rows:
            if row.id in kept:
                said.append((row, kept[row.id]))
            elif row.id not in safe:
                said.append((row, self._lacks()))
            elif row.dataset_id in tagged:
                said.append((row, "is in a TAGGED collection"))
            elif row.id in unknown:
                said.append((row, "a sidecar stands beside it that the ledger does not know"))
            else:
                said.append((row, strange(row) if self.file_goes(row) else ""))
        return said

    def file_goes(self, row: IngestRow) -> bool:
        """Whether the file goes from where it was found: the repository reads it there, or would, did it not
        read the same content, or a newer version, from elsewhere. Files that it has in its own store are
        copies of what stays."""
        if in_place(row):
            return True
        return (
            row.path.startswith("/")
            and self._settings.transfer_of(row.path) == "direct"
            and not self._repository.owns(row.uri)
            and not other_name(row)
        )

    def _lacks(self) -> str:
        rules = self._rules
        parts = [f"{rules.copies} verified copies"] if rules.copies else []
        parts += [f"one at {name}" for name in rules.endpoints]
        if rules.custodial:
            parts.append(f"{rules.custodial} custodial")
        return f"the ledger does not know {', '.join(parts)} of it"

    def safe(self, rows: Sequence[IngestRow]) -> set[int]:
        """Numbers of those ingests whose files have the copies that are required: the file and all its
        sidecars that the ledger has. What is none of the ledger's files is never safe, unless no copy is
        required."""
        rules = self._rules
        if not self._protected:
            return {row.id for row in rows}
        files = {row.file_id for row in rows if row.file_id}
        sidecars = self._sidecars(files)
        since = tai() - rules.checked_within if rules.checked_within else 0.0
        of_all = files.union(*sidecars.values())
        good = self._ledger.replicas.safe(
            of_all, rules.endpoints, rules.custodial, least=rules.copies, checked_since=since
        )
        if self._settings.transfer in ("hardlink", "copy") and rules.copies:
            kept = self._in_archive(of_all)
            good |= self._ledger.replicas.safe(
                kept, rules.endpoints, rules.custodial, least=rules.copies - 1, checked_since=since
            )
        return {row.id for row in rows if row.file_id in good and sidecars.get(row.file_id, set()) <= good}

    @property
    def _protected(self) -> bool:
        """Whether any copy is required."""
        return bool(self._rules.copies or self._rules.endpoints or self._rules.custodial)

    def _unknown_beside(self, rows: Sequence[IngestRow]) -> set[int]:
        """Numbers of those that have a sidecar on the disk of which the ledger knows nothing, so no copy."""
        if not self._protected:
            return set()
        there = {path: row.id for row in rows if self.file_goes(row) for path in beside(row.path)}
        listed, known = sorted(there), set()
        for begin in range(0, len(listed), 400):
            some = listed[begin : begin + 400]
            marks = ", ".join("?" * len(some))
            known |= {
                path
                for (path,) in self._ledger.read(
                    "SELECT path FROM file WHERE kind = 'sidecar' AND status <> 'conflict'"
                    f" AND path IN ({marks})",
                    some,
                )
            }
        return {number for path, number in there.items() if path not in known}

    def _sidecars(self, files: set[int]) -> dict[int, set[int]]:
        """Of raw files, by number: the first and the later ones."""
        found: dict[int, set[int]] = {}
        listed = sorted(files)
        for begin in range(0, len(listed), 400):
            some = listed[begin : begin + 400]
            marks = ", ".join("?" * len(some))
            for raw, sidecar in self._ledger.read(
                "SELECT raw.id, sidecar.id FROM file AS raw JOIN file AS sidecar"
                " ON sidecar.image_id = raw.image_id AND sidecar.detector = raw.detector"
                " AND sidecar.kind = 'sidecar' AND sidecar.version = raw.version"
                " AND sidecar.status NOT IN ('lost', 'conflict', 'removed')"
                f" WHERE raw.id IN ({marks})",
                some,
            ):
                found.setdefault(int(raw), set()).add(int(sidecar))
        return found

    def _in_archive(self, files: set[int]) -> set[int]:
        """Those that the archive has found sound, and still has as far as a look tells."""
        found: set[int] = set()
        listed = sorted(files)
        for begin in range(0, len(listed), 400):
            some = listed[begin : begin + 400]
            found.update(
                int(number)
                for number, path, bytes in self._ledger.read(
                    "SELECT id, path, bytes FROM file WHERE status IN ('written', 'unchanged', 'kept')"
                    f" AND verified_tai IS NOT NULL AND id IN ({', '.join('?' * len(some))})",
                    some,
                )
                if stands(path, bytes)
            )
        return found


def _time(seconds: float) -> str:
    """`30 d`, `12 h`, `90 s`: in the largest unit of which it has a whole number."""
    for unit, name in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= unit and seconds % unit == 0:
            return f"{seconds / unit:g} {name}"
    return f"{seconds:g} s"


def _says(rule: Rule, row: IngestRow) -> bool:
    return (
        (not rule.dataset_types or row.dataset_type in rule.dataset_types)
        and (not rule.instruments or row.instrument in rule.instruments)
        and (not rule.collections or any(fnmatch.fnmatchcase(row.run, one) for one in rule.collections))
    )
