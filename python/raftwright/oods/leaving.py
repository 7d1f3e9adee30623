"""How datasets leave: marked in the ledger, out of the registry, off the archive's list, off the disk, done.

After each step the process may die: what was marked is found again at the next start and ended. The registry
never has a dataset whose file was deleted here. What keeps a file is asked once more right before it goes:
between choosing and removing, or since somebody died, a copy may have been found damaged."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from raftwright.errors import StorageError
from raftwright.oods.onsite import beside, in_place, local_path

if TYPE_CHECKING:
    from raftwright.butler import Repository
    from raftwright.ledger import Ledger
    from raftwright.ledger.rows import IngestRow
    from raftwright.oods.retention import Chooser

__all__ = ["BATCH", "Leaving"]

BATCH: Final = 200


class Leaving:
    """Removes what was chosen by `chooser`, which is asked again, and ends what somebody began who died."""

    def __init__(
        self,
        ledger: Ledger,
        name: str,
        repository: Repository,
        chooser: Chooser,
        *,
        empty_directories: bool,
    ) -> None:
        self._ledger = ledger
        self._name = name
        self._repository = repository
        self._chooser = chooser
        self._empty_directories = empty_directories
        self.stuck: dict[int, str] = {}
        """Why ingests that are marked could not be ended now, by number; they are tried again."""

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Of several who clean a repository one does at a time. Raises StorageError."""
        role = f"retention:{self._name}"
        if not self._ledger.roles.take(role):
            raise StorageError(
                16, "another retention is at work; come again when it has ended", f"repository {self._name}"
            )
        try:
            yield
        finally:
            self._ledger.roles.give_up(role)

    def remove(self, rows: Sequence[IngestRow], reason: str) -> list[IngestRow]:
        """Those that left; one that was pinned, tagged or taken meanwhile stays, and so does one whose copies
        are not known any more. Raises StorageError."""
        return [row for gone in self.remove_all([(row, reason) for row in rows]) for row in gone]

    def remove_all(self, going: Iterable[tuple[IngestRow, str]]) -> Iterator[list[IngestRow]]:
        """The same, each for its reason: gives those of each batch when they have left. Files of one dataset
        leave together, so that none of them is ingested anew on the way."""
        of_reason: dict[str, list[list[IngestRow]]] = {}
        of_dataset: dict[str, list[IngestRow]] = {}
        for row, why in going:
            some = of_dataset.get(row.dataset_id) if row.dataset_id else None
            if some is None:
                some = of_dataset[row.dataset_id] = []
                of_reason.setdefault(why, []).append(some)
            some.append(row)
        for why, datasets in of_reason.items():
            for begin in range(0, len(datasets), BATCH):
                rows = [row for some in datasets[begin : begin + BATCH] for row in some]
                yield self._end(self._ledger.ingests.leave(rows, why), why)

    def resume(self) -> int:
        """Ends what was marked by somebody who died; how many left. What cannot be ended is `stuck`. Raises
        StorageError."""
        ended = 0
        while True:
            found = self._ledger.ingests.leaving(self._name, BATCH + len(self.stuck))
            rows = [row for row in found if row.id not in self.stuck][:BATCH]
            if not rows:
                return ended
            ended += len(self._end(rows, "its removal is ended"))
            left = {row.id for row in self._ledger.ingests.leaving(self._name, BATCH + len(self.stuck))}
            for row in rows:
                if row.id in left:
                    self.stuck.setdefault(row.id, f"{row.path}: could not be removed")

    @property
    def trouble(self) -> str:
        """What is stuck, in one sentence; empty where nothing is."""
        if not self.stuck:
            return ""
        more = f", and {len(self.stuck) - 1} more" if len(self.stuck) > 1 else ""
        return f"{next(iter(self.stuck.values()))}{more}"

    def _end(self, rows: Sequence[IngestRow], reason: str) -> list[IngestRow]:
        if not rows:
            return []
        rows = self._kept_back(rows)
        refs = self._repository.datasets([row.dataset_id for row in rows if row.dataset_id])
        uris = self._repository.uris(refs)
        theirs = self._theirs(rows, uris)
        self._repository.remove([ref for ref in refs if str(ref.id) in theirs], at=uris)
        # What is there still was tagged since it was chosen, or has got another file.
        left = {str(ref.id) for ref in self._repository.datasets(sorted(theirs))} if theirs else set()
        stay = [row for row in rows if row.dataset_id in left]
        if stay:
            self._ledger.ingests.unleave(stay, "it was tagged, or got another file, meanwhile")
        going = [row for row in rows if row.dataset_id not in left]
        shared, later = self._held_elsewhere(going)
        ended: list[IngestRow] = []
        for row in going:
            if row.id in later:
                self.stuck[row.id] = f"{row.path}: another repository is letting go of it too"
            elif (
                row.id in shared
                or not self._chooser.file_goes(row)
                or self._repository.owns(row.uri)
                or self._delete(row, reason)
            ):
                ended.append(row)
        self._ledger.ingests.removed(ended, reason, instead=self._instead(ended, theirs - left))
        return ended

    def _instead(self, ended: Sequence[IngestRow], gone: set[str]) -> list[IngestRow]:
        """Other files of datasets that are gone: what stays is what the repository has from now on."""
        mine = {row.id for row in ended}
        return [
            other
            for image_id in sorted({row.image_id for row in ended if row.image_id})
            for other in self._ledger.ingests.of(image_id, self._name)
            if other.id not in mine and other.state == "ingested" and other.dataset_id in gone
        ]

    def _kept_back(self, rows: Sequence[IngestRow]) -> list[IngestRow]:
        """Those that may go still; the others go back to where they were."""
        free: list[IngestRow] = []
        back: dict[str, list[IngestRow]] = {}
        for row, why in self._chooser.hindered(rows):
            if not why or (self._chooser.file_goes(row) and not os.path.lexists(row.path)):
                free.append(row)  # or its file is gone already
            else:
                back.setdefault(why, []).append(row)
        for why, some in back.items():
            there = {str(ref.id) for ref in self._repository.datasets([row.dataset_id for row in some])}
            self._ledger.ingests.unleave([row for row in some if row.dataset_id in there], why)
            out = [row for row in some if row.dataset_id not in there]
            if out:  # the registry has it no more: it is ingested anew
                self._ledger.ingests.removed(out, why)
                self._ledger.ingests.again(
                    self._name, states=("removed",), reason=why, ids=[row.id for row in out]
                )
        return free

    def _theirs(self, rows: Sequence[IngestRow], uris: dict[str, str]) -> set[str]:
        """Datasets that go with these files: not one that has another file by now, that of an ingest which
        stays."""
        ids = {row.dataset_id for row in rows if row.dataset_id}
        mine = {row.id for row in rows}
        needed = {
            other.dataset_id
            for image_id in sorted({row.image_id for row in rows if row.image_id})
            for other in self._ledger.ingests.of(image_id, self._name)
            if other.id not in mine and other.state in ("ingested", "leaving") and other.dataset_id in ids
        }
        paths = {row.path for row in rows}
        found: set[str] = set()
        for row in rows:
            uri = uris.get(row.dataset_id)
            if uri is None or local_path(uri) in paths or (uri == row.uri and row.dataset_id not in needed):
                found.add(row.dataset_id)
        return found - {""}

    def _held_elsewhere(self, rows: Sequence[IngestRow]) -> tuple[set[int], set[int]]:
        """Numbers of those whose file another repository reads where it is, so that it stays; and of those
        that wait for another which is letting go of the same file. The last one deletes."""
        by_path: dict[str, list[IngestRow]] = {}
        for image_id in sorted({row.image_id for row in rows}):
            for other in self._ledger.ingests.of(image_id) if image_id else ():
                if other.repository != self._name and other.state in _HOLDS and in_place(other):
                    by_path.setdefault(other.path, []).append(other)
        shared: set[int] = set()
        later: set[int] = set()
        for row in rows:
            others = by_path.get(row.path, [])
            if any(other.state != "leaving" or other.id > row.id for other in others):
                shared.add(row.id)
            elif others:
                later.add(row.id)
        return shared, later

    def _delete(self, row: IngestRow, reason: str) -> bool:
        """Takes it and its sidecars away; False, and it is `stuck`, where that fails."""
        paths = [row.path, *beside(row.path)]
        self._ledger.files.removed(paths, reason)
        for path in paths:
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass  # somebody was faster
            except OSError as error:
                self.stuck[row.id] = f"{path}: cannot be deleted ({error.strerror}); it is tried again"
                return False
        if self._empty_directories:
            _empty(Path(row.path).parent, row.obsid)
        return True


_HOLDS: Final = frozenset({"queued", "ingesting", "waiting", "ingested", "leaving"})


def _empty(directory: Path, obsid: str) -> None:
    """Removes the directory of an image, and then that of its night, where nothing is left in them."""
    for name in (obsid, obsid.split("_")[2] if obsid.count("_") == 3 else ""):
        if not name or directory.name != name:
            return
        try:
            directory.rmdir()
        except OSError:
            return
        directory = directory.parent
