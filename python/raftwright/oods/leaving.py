"""How datasets leave: marked in the ledger, out of the registry, off the archive's list, off the disk, done.

After each step the process may die: what was marked is found again at the next start and ended. The registry
never has a dataset whose file was deleted here."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from raftwright.errors import StorageError
from raftwright.rawfile.names import sidecar_path

if TYPE_CHECKING:
    from raftwright.butler import Repository
    from raftwright.ledger import Ledger
    from raftwright.ledger.rows import IngestRow

__all__ = ["Leaving"]

_log = logging.getLogger("raftwright.oods")

BATCH: Final = 200


class Leaving:
    """Removes what was chosen, and ends what somebody began who died."""

    def __init__(self, ledger: Ledger, name: str, repository: Repository, *, empty_directories: bool) -> None:
        self._ledger = ledger
        self._name = name
        self._repository = repository
        self._empty_directories = empty_directories

    def remove(self, rows: Sequence[IngestRow], reason: str) -> list[IngestRow]:
        """Those that left; one that was pinned, tagged or taken meanwhile stays. Raises StorageError."""
        gone: list[IngestRow] = []
        for begin in range(0, len(rows), BATCH):
            marked = self._ledger.ingests.leave(rows[begin : begin + BATCH], reason)
            gone += self._end(marked, reason)
        return gone

    def resume(self) -> int:
        """Ends what was marked by somebody who died; how many left. Raises StorageError."""
        ended = 0
        while rows := self._ledger.ingests.leaving(self._name, BATCH):
            done = self._end(rows, "its removal is ended")
            ended += len(done)
            if not done and len(self._ledger.ingests.leaving(self._name, BATCH)) >= len(rows):
                break
        return ended

    def _end(self, rows: Sequence[IngestRow], reason: str) -> list[IngestRow]:
        if not rows:
            return []
        refs = self._repository.datasets([row.dataset_id for row in rows if row.dataset_id])
        uris = self._repository.uris(refs)
        # A dataset that has a newer file by now stays; the older file goes alone.
        theirs = {row.dataset_id for row in rows if uris.get(row.dataset_id) in (None, row.uri)}
        left = {str(ref.id) for ref in refs if str(ref.id) in theirs}
        left -= {str(ref.id) for ref in self._repository.remove([r for r in refs if str(r.id) in theirs])}
        stay = [row for row in rows if row.dataset_id in left]  # tagged since it was chosen
        if stay:
            self._ledger.ingests.unleave(stay, "it was tagged meanwhile")
        going = [row for row in rows if row.dataset_id not in left]
        direct = [row for row in going if self._is_direct(row)]
        for row in direct:
            beside = str(sidecar_path(Path(row.path)))
            self._ledger.files.removed([row.path, beside], reason)
            self._unlink(row.path, beside)
        self._ledger.ingests.removed(going, reason)
        return going

    def _is_direct(self, row: IngestRow) -> bool:
        """Whether its file is where it was, and not the repository's own, which is gone by now."""
        uri = row.uri or Path(row.path).as_uri()
        return uri == Path(row.path).as_uri() and not self._repository.owns(uri)

    def _unlink(self, *paths: str) -> None:
        for path in paths:
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass  # somebody was faster
            except OSError as error:
                raise StorageError(
                    error.errno, f"cannot be deleted ({error.strerror}); it is tried again", path
                ) from error
        if self._empty_directories:
            directory = Path(paths[0]).parent
            for _ in range(2):  # that of the image, that of the night
                try:
                    directory.rmdir()
                except OSError:
                    return
                directory = directory.parent
