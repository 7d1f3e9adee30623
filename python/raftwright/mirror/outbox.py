"""What waits in a manifest, as the deliveries of a lane: what is due goes out, and what became of it is
written down."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from raftwright.errors import StorageError
from raftwright.ledger.rows import DeliveryRow
from raftwright.mirror.bringing import Bringer, Brought
from raftwright.mirror.manifest import Manifest
from raftwright.mirror.settings import TreeSettings
from raftwright.mirror.tables import Entry
from raftwright.mirror.tree import shown
from raftwright.transfer import Sent
from raftwright.transfer.outcome import outage_of

__all__ = ["Outbox"]


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
        self._taken: dict[tuple[int, int], Entry] = {}
        self._brought: dict[tuple[int, int], Brought] = {}

    def send(self, row: DeliveryRow) -> Sent:
        """In a thread of its own. Raises as `Bringer.bring`."""
        key = row.id, row.attempts
        try:
            brought = self._bringer.bring(self._taken[key])
        except StorageError as error:  # of the tree: what concerns all files there is no trouble of this one
            raise outage_of(error, row.path) or error from None
        if key in self._taken:
            self._brought[key] = brought
        return Sent(how=brought.how or brought.verdict, bytes=brought.bytes, place=row.target)

    def turn(
        self, destination: str, ends: Sequence[tuple[DeliveryRow, str, str, float, int]], most: int
    ) -> tuple[list[bool], list[DeliveryRow]]:
        """Writes down what ended and takes on what is due, in one commit. Raises StorageError."""
        told: list[Mapping[str, Any]] = []
        with self._manifest.transaction():
            for row, state, reason, after, _ in ends:
                key = row.id, row.attempts
                told.append(self._end(self._taken[key], self._brought.get(key), state, reason, after))
            ended = {row.id for row, *_ in ends}
            without = [id for id, _ in self._taken if id not in ended]
            rows = (
                [self._row(destination, entry) for entry in self._manifest.claim(most, without)]
                if most > 0
                else []
            )
        for row, *_ in ends:
            self._taken.pop((row.id, row.attempts), None)
            self._brought.pop((row.id, row.attempts), None)
        for facts in told:
            self._news(facts)
        return [True] * len(ends), rows

    def _row(self, destination: str, entry: Entry) -> DeliveryRow:
        entry.tries += 1
        self._taken[entry.id, entry.tries] = entry
        return DeliveryRow(
            id=entry.id, image_id=0, obsid="", destination=destination, path=entry.path, target=entry.path,
            bytes=entry.facts.bytes, crc32c="", priority=0, rank=0, state="sending", reason="",
            attempts=entry.tries, owner="", next_try=0.0, queued_tai=0.0, delivered_tai=None,
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
