"""What waits in a manifest, as the deliveries of a lane: what is due goes out, and what became of it is
written down."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from raftwright.errors import ConflictError, StorageError
from raftwright.ledger.rows import DeliveryRow
from raftwright.mirror.bringing import Bringer, Brought
from raftwright.mirror.manifest import Manifest
from raftwright.mirror.settings import TreeSettings
from raftwright.mirror.tables import Entry
from raftwright.mirror.tree import shown
from raftwright.transfer import OutageError, Sent
from raftwright.transfer.outcome import outage_of

__all__ = ["Outbox"]

_Key: TypeAlias = tuple[int, int]
"""Number and try of the first entry."""
_SMALL: Final = 1 << 20
_MOST_ALONE: Final = 1000
_TOGETHER: Final = 32
"""Small files of a first copy that are one delivery of the lane: a thread for each would cost more than they
do."""


class Outbox:
    """The `Queue` of a lane, and its `send`.

    Parameters
    ----------
    news
        Told what became of an entry.
    ingest
        What the column of that name says of a path that is mirrored: `queued` or nothing.
    """

    def __init__(
        self,
        manifest: Manifest,
        bringer: Bringer,
        settings: TreeSettings,
        *,
        news: Callable[[Mapping[str, Any]], None],
        ingest: Callable[[str], str],
    ) -> None:
        self._manifest = manifest
        self._bringer = bringer
        self._settings = settings
        self._news = news
        self._ingest = ingest
        self._together = settings.to.kind == "directory"
        self._taken: dict[_Key, list[Entry]] = {}
        self._results: dict[_Key, dict[int, Brought | Exception]] = {}
        self._alone: set[int] = set()
        """Entries that failed among others: the lane counts their tries one by one."""

    def send(self, row: DeliveryRow) -> Sent:
        """In a thread of its own. Raises as `Bringer.bring`."""
        key = row.id, row.attempts
        entries = self._taken[key]
        results: dict[int, Brought | Exception] = {}
        if key in self._taken:
            self._results[key] = results
        for entry in entries:
            try:
                results[entry.id] = self._bring(entry)
            except Exception as error:
                if len(entries) == 1 or isinstance(error, OutageError):
                    raise
                results[entry.id] = error
        moved = sum(one.bytes for one in results.values() if isinstance(one, Brought))
        return Sent(how="brought", bytes=moved, place=row.target)

    def _bring(self, entry: Entry) -> Brought:
        try:
            return self._bringer.bring(entry)
        except StorageError as error:  # of the tree: what concerns all files there is no trouble of this one
            raise outage_of(error, shown(entry.path)) or error from None

    def turn(
        self, destination: str, ends: Sequence[tuple[DeliveryRow, str, str, float, int]], most: int
    ) -> tuple[list[bool], list[DeliveryRow]]:
        """Writes down what ended and takes on what is due, in one commit. Raises StorageError."""
        told: list[Mapping[str, Any]] = []
        ended = {(row.id, row.attempts) for row, *_ in ends}
        with self._manifest.transaction():
            for row, state, reason, after, _ in ends:
                key = row.id, row.attempts
                results = self._results.get(key, {})
                entries = self._taken[key]
                for entry in entries:
                    result = results.get(entry.id)
                    if isinstance(result, ConflictError):
                        told.append(self._end(entry, None, "conflict", str(result), 0.0))
                    elif isinstance(result, Exception):
                        told.append(self._end(entry, None, "queued", str(result), 0.0))
                        self._alone.add(entry.id)
                    else:
                        told.append(self._end(entry, result, "delivered" if result else state, reason, after))
            flying = {entry.id for key, some in self._taken.items() if key not in ended for entry in some}
            groups = self._claim(most, flying)
        for key in ended:
            del self._taken[key]
            self._results.pop(key, None)
        rows = [self._row(destination, group) for group in groups]
        for facts in told:
            self._news(facts)
        return [True] * len(ends), rows

    def _claim(self, most: int, flying: set[int]) -> list[list[Entry]]:
        """So many entries that are due; each small one of a first copy with some of its like."""
        groups = []
        for _ in range(max(0, most)):
            first = self._manifest.claim(1, flying)
            if not first:
                break
            flying.add(first[0].id)
            group = first
            small = first[0].facts.bytes <= _SMALL and first[0].id not in self._alone
            if self._together and first[0].priority and small and len(self._alone) < _MOST_ALONE:
                group = first + self._manifest.claim(_TOGETHER - 1, flying | self._alone, most_bytes=_SMALL)
                flying |= {entry.id for entry in group}
            self._alone.difference_update(entry.id for entry in first)
            groups.append(group)
        return groups

    def _row(self, destination: str, group: list[Entry]) -> DeliveryRow:
        for entry in group:
            entry.tries += 1
        first = group[0]
        self._taken[first.id, first.tries] = group
        return DeliveryRow(
            id=first.id, image_id=0, obsid="", destination=destination, path=first.path, target=first.path,
            bytes=first.facts.bytes, crc32c="", priority=first.priority, rank=0, state="sending", reason="",
            attempts=first.tries, owner="", next_try=0.0, queued_tai=0.0, delivered_tai=None,
        )  # fmt: skip

    def _end(
        self, entry: Entry, brought: Brought | None, state: str, reason: str, after: float
    ) -> Mapping[str, Any]:
        now = time.monotonic()
        how = ""
        if state != "delivered" or brought is None:
            if state == "queued":
                self._manifest.put_off(entry, now + after, reason)
            else:
                self._manifest.ended(entry, state, reason)
        elif brought.verdict == "mirrored":
            state, how = "mirrored", brought.how
            self._manifest.mirrored(entry, brought.crc32c, self._ingest(entry.path))
        elif brought.verdict == "skipped":
            state, reason = "skipped", brought.reason
            self._manifest.ended(entry, state, reason)
        elif brought.verdict == "gone":
            state = "gone"
            if (standing := self._manifest.one(entry.id)) is not None and standing.state == "sending":
                self._manifest.gone([entry])
        else:
            state, reason = "waiting", brought.reason or "changed while it was looked at"
            pause = max(
                self._settings.settle, min(self._settings.longest, self._settings.calm * (1 << entry.busy))
            )
            if brought.verdict == "changed" and brought.facts is not None:
                self._manifest.changed(entry, brought.facts, now + pause, 1, entry.busy)
            else:
                self._manifest.put_off(entry, now + pause, reason, still=entry.still + pause)
        return {
            "tree": self._settings.name,
            "path": shown(entry.path),
            "state": state,
            "how": how,
            "bytes": brought.bytes if brought is not None else 0,
            "crc32c": brought.crc32c if brought is not None else "",
            "reason": reason,
        }
