"""Files entered in a repository, many at once, each with an outcome of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import unquote, urlsplit

import msgspec

from raftwright.butler.examining import Found, examine, identify
from raftwright.butler.exposures import Exposures
from raftwright.butler.incoming import Incoming, Outcome, Transfer, path_of, uri_of
from raftwright.butler.placing import Placer, kept_aside, restore
from raftwright.butler.software import (
    ConflictingDefinitionError,
    DatasetRef,
    FileDataset,
    ResourcePath,
)
from raftwright.butler.troubles import is_contention, is_refusal, storage_error
from raftwright.butler.visits import VisitOutcome, define_visits, without_visits
from raftwright.errors import (
    ConflictError,
    FormatError,
    NotFoundError,
    RaftwrightError,
    StorageError,
    UsageError,
)
from raftwright.events.codes import OodsStatus
from raftwright.rawfile.names import FileName
from raftwright.rawfile.standing import Digest, digest

if TYPE_CHECKING:
    from raftwright.butler.repository import Repository

__all__ = ["Ingester"]

T = TypeVar("T")


_THREADS: Final = 4
"""That look into files."""
_PAUSE: Final = 0.05
_FILE_TROUBLE: Final = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)


class _Entry(msgspec.Struct, eq=False):
    """A file on its way into the registry."""

    found: Found
    ref: DatasetRef
    transfer: Transfer
    uri: str
    """Of the file to be entered."""
    owned: bool = False
    """It is in the repository's own store."""


class Ingester:
    """Enters files. One for a thread; the repository has to be writeable.

    Parameters
    ----------
    repository
        See `make_repository`, `open_repository`. A registry that others have locked is waited for once as
        long as `open_repository` was told, and then for as long again at most.
    """

    def __init__(self, repository: Repository) -> None:
        if not repository.butler.isWriteable():
            raise UsageError(f"{repository.root}: is open for reading only; open it writeable")
        self._repository = repository
        self._butler = repository.butler
        self._exposures = Exposures(repository)
        store = repository.store
        self._placer = None if store is None else Placer(store)
        self._patiently(repository.mend)

    def ingest(self, files: Sequence[Incoming], transfer: Transfer = "direct") -> list[Outcome]:
        """Enters files; gives an outcome for each, in their order.

        With `direct` the files stay where they are and the repository reads them there; with the others they
        come into its own store. May be called again with the same files, also by others at the same time, and
        after a crash at any moment.

        Raises `StorageError` where it is the repository that fails, and no file: then any part of the files
        may be in it, and all of them may be given again.
        """
        if transfer not in ("direct", "hardlink", "copy", "move"):
            raise UsageError(f"{transfer[:40]!r} is no way to ingest; say direct, hardlink, copy or move")
        outcomes: list[Outcome | None] = [None] * len(files)
        rest: list[Found] = []
        for number, incoming in enumerate(files):
            named = identify(self._repository, number, incoming)
            if isinstance(named, Outcome):
                outcomes[number] = named
            else:
                rest.append(named)
        while rest:  # of several files of one detector, one after the other, older versions first
            batch: dict[tuple[str, str, int, int], Found] = {}
            later: list[Found] = []
            for found in sorted(rest, key=lambda each: each.version):
                if found.key in batch:
                    later.append(found)
                else:
                    batch[found.key] = found
            chosen = sorted(batch.values(), key=lambda each: each.number)
            for number, outcome in self._batch(chosen, transfer):
                outcomes[number] = outcome
            rest = later
        return [outcome for outcome in outcomes if outcome is not None]

    def moved(self, incoming: Incoming) -> Outcome | None:
        """After a move whose end nobody wrote down: the outcome of a file that is where it was going to;
        None where it is not there. Raises StorageError."""
        found = identify(self._repository, 0, incoming)
        if isinstance(found, Outcome):
            return None
        kind = incoming.kind
        refs = self._repository.find(
            found.camera.name, exposures=[found.exposure], detectors=[found.detector.id], kind=kind
        )
        for ref in refs:
            uri = self._repository.uris([ref]).get(str(ref.id), "")
            path = path_of(uri)
            if path is None or path.name != incoming.name or not path.exists():
                continue
            if not incoming.crc32c or digest(path).crc32c == incoming.crc32c:
                return self._outcome(_Entry(found, ref, "move", uri, True), "duplicate")
        return None

    def correct(self, files: Sequence[Incoming]) -> set[tuple[str, int]]:
        """After later sidecars came beside files that are ingested: (instrument, exposure) of those of which
        more is known now. Raises StorageError."""
        named = [identify(self._repository, number, incoming) for number, incoming in enumerate(files)]
        found = [one for one in named if isinstance(one, Found)]
        try:
            return self._patiently(lambda: self._exposures.correct(found))
        except BaseException:
            self._exposures.forget()
            raise

    def define_visits(self, exposures: Iterable[tuple[str, int]]) -> list[VisitOutcome]:
        """See `visits.define_visits`."""
        wanted = list(exposures)
        return self._patiently(lambda: define_visits(self._repository, wanted))

    def without_visits(self, exposures: Iterable[tuple[str, int]]) -> set[tuple[str, int]]:
        """See `visits.without_visits`."""
        wanted = list(exposures)
        return self._patiently(lambda: without_visits(self._repository, wanted))

    def known(self, dataset_ids: Iterable[str]) -> set[str]:
        """Those of some ids that the registry has. Raises StorageError."""
        wanted = list(dataset_ids)
        return {str(ref.id) for ref in self._patiently(lambda: self._repository.datasets(wanted))}

    def close(self) -> None:
        """Closes the repository."""
        self._repository.close()

    # -- one batch of different detectors

    def _batch(self, files: list[Found], transfer: Transfer) -> Iterable[tuple[int, Outcome]]:
        done: dict[int, Outcome] = {}
        good: list[Found] = []
        for found, trouble in zip(files, _examined(files), strict=True):
            if trouble is not None:
                done[found.number] = trouble
            else:
                good.append(found)
        known = self._patiently(lambda: self._exposures.learn(good))
        ready: list[Found] = []
        for found in good:
            if (found.camera.name, found.exposure) not in known:
                reason = f"{found.incoming.name}: its exposure {found.image} is not in the repository yet"
                done[found.number] = Outcome(state="waiting", reason=reason, again=True)
                continue
            ready.append(found)
        refs = self._patiently(lambda: self._exposures.refs(ready))
        entries = [_Entry(found, ref, transfer, found.uri) for found, ref in zip(ready, refs, strict=True)]
        there = self._patiently(lambda: self._there(entries))
        new: list[_Entry] = []
        for entry in entries:
            if entry.ref.id in there:
                done[entry.found.number] = self._again(entry, there[entry.ref.id])
            else:
                brought = self._bring(entry)
                if isinstance(brought, Outcome):
                    done[entry.found.number] = brought
                else:
                    new.append(brought)
        self._enter(new, done)
        self._patiently(self._settle)
        if transfer == "move" and self._placer is not None:
            for entry in entries:
                outcome = done[entry.found.number]
                if outcome.good and not outcome.older and self._repository.owns(outcome.uri):
                    self._placer.left(entry.found)
        return done.items()

    def _settle(self) -> None:
        """What a header told of exposures that are there already, though none of their files is new."""
        keys = self._exposures.fuller()
        if keys:
            with self._butler.transaction():
                self._exposures.insert(keys)
            self._exposures.inserted(keys)

    def _there(self, entries: Iterable[_Entry]) -> dict[object, str]:
        """URIs of those that the registry has, by dataset id; empty for one that has no file."""
        ids = [entry.ref.id for entry in entries]
        refs = self._butler.get_many_datasets(ids) if ids else []
        uris = self._repository.uris(refs) if refs else {}
        return {ref.id: uris.get(str(ref.id), "") for ref in refs}

    def _bring(self, entry: _Entry) -> _Entry | Outcome:
        """Into the store, where it has to go there."""
        if entry.transfer == "direct":
            return entry
        if self._placer is None:
            raise UsageError(f"{self._repository.root}: has no local store; ingest direct")
        try:
            path = self._placer.bring(entry.found, entry.ref.run, entry.transfer)
        except ConflictError as error:
            return self._outcome(entry, "conflict", str(error))
        except (FormatError, NotFoundError) as error:
            return self._outcome(entry, "failed", str(error))
        except StorageError as error:
            if error.filename != entry.found.local:
                raise
            return self._unreadable(entry, error)
        return msgspec.structs.replace(entry, uri=uri_of(path), owned=True)

    # -- the registry

    def _enter(self, entries: list[_Entry], done: dict[int, Outcome], *, mended: bool = False) -> None:
        """All at once; in halves where that is refused, so that what is bad fails alone."""
        if not entries:
            return
        try:
            self._patiently(lambda: self._ingest(entries))
        except StorageError:
            raise
        except Exception as error:  # `_patiently` lets through only what was refused
            self._exposures.forget()
            self._enter_rest(entries, done, error, mended)
            return
        for entry in entries:
            done[entry.found.number] = self._outcome(entry, "ingested")

    def _ingest(self, entries: Sequence[_Entry]) -> None:
        """In one transaction, with what the registry has to learn of their exposures."""
        keys = {(entry.found.camera.name, entry.found.exposure) for entry in entries}
        with self._butler.transaction():
            self._exposures.insert(keys)
            for owned in (False, True):
                datasets = [
                    FileDataset(path=self._path(entry), refs=[entry.ref])
                    for entry in entries
                    if entry.owned is owned
                ]
                if datasets:
                    self._butler.ingest(*datasets, transfer=None if owned else "direct")
        self._exposures.inserted(keys)

    def _path(self, entry: _Entry) -> ResourcePath | str:
        if not entry.owned:
            return ResourcePath(entry.uri)
        store = self._repository.store
        assert store is not None
        return os.path.relpath(path_of(entry.uri) or "", store)

    def _enter_rest(
        self, entries: list[_Entry], done: dict[int, Outcome], error: Exception, mended: bool
    ) -> None:
        there = self._patiently(lambda: self._there(entries))
        rest = [entry for entry in entries if entry.ref.id not in there]
        if len(rest) < len(entries):  # somebody else was faster with some
            for entry in entries:
                if entry.ref.id in there:
                    done[entry.found.number] = self._again(entry, there[entry.ref.id])
            self._enter(rest, done, mended=mended)
        elif isinstance(error, ConflictingDefinitionError) and not mended:
            self._enter(self._brought_again(entries, done), done, mended=True)
        elif len(rest) > 1:
            middle = len(rest) // 2
            self._enter(rest[:middle], done, mended=mended)
            self._enter(rest[middle:], done, mended=mended)
        else:
            said = " ".join(str(error).split())[:300] or type(error).__name__
            reason = f"{rest[0].found.incoming.name}: the repository refuses it ({said})"
            again = isinstance(error, _FILE_TROUBLE)
            done[rest[0].found.number] = self._outcome(rest[0], "failed", reason, again=again)

    def _brought_again(self, entries: list[_Entry], done: dict[int, Outcome]) -> list[_Entry]:
        """Something may be left of datasets that are gone, because whoever removed them died on the way: that
        is ended now. What is left may have the very names that files were just given, which go with it."""
        self._patiently(self._repository.mend)
        ready = []
        for entry in entries:
            brought = self._bring(entry)
            if isinstance(brought, Outcome):
                done[entry.found.number] = brought
            else:
                ready.append(brought)
        return ready

    # -- what is there already

    def _again(self, entry: _Entry, there: str) -> Outcome:
        """A dataset that the registry has: the same content, an older version, or a conflict."""
        path = path_of(there)
        if path is not None:
            restore(path.parent)
        if path is not None and not path.exists():
            return self._replace(entry, there, "the file that it read is gone")
        if there == entry.uri:
            return self._same_file(entry, path)
        version, standing = entry.found.version, _version(there)
        if version > standing:
            return self._replace(entry, there, "")
        if version < standing:
            reason = f"version {standing} of it is there"
            return self._outcome(entry, "duplicate", reason, uri=there, older=True)
        return self._compare(entry, there, path)

    def _same_file(self, entry: _Entry, path: Path | None) -> Outcome:
        wanted = entry.found.incoming.crc32c
        if not wanted or path is None:
            return self._outcome(entry, "duplicate", uri=entry.uri)
        try:
            found = digest(path).crc32c
        except StorageError as error:
            return self._unreadable(entry, error)
        if found == wanted:
            return self._outcome(entry, "duplicate", uri=entry.uri)
        reason = f"{path}: has CRC-32C {found} and not {wanted} as announced; it was changed"
        return self._outcome(entry, "conflict", reason, uri=entry.uri)

    def _compare(self, entry: _Entry, there: str, path: Path | None) -> Outcome:
        """Two files of one version under different names."""
        mine = entry.found.path
        try:
            same = path is not None and mine is not None and path.samefile(mine)
            if not same:
                wanted = entry.found.incoming.crc32c or _digest(entry.uri).crc32c
                same = _digest(there).crc32c == wanted
        except OSError as error:
            return self._unreadable(entry, error)
        if same:
            return self._outcome(entry, "duplicate", uri=there)
        reason = f"{entry.found.incoming.path}: another content of it is in the repository: {there}"
        return self._outcome(entry, "conflict", reason, uri=there)

    def _unreadable(self, entry: _Entry, error: OSError) -> Outcome:
        reason = f"{error.filename or entry.found.incoming.path}: {error.strerror}"
        return self._outcome(entry, "failed", reason, again=True)

    def _replace(self, entry: _Entry, there: str, why: str) -> Outcome:
        """The registry reads another file from now on. The one that it read stays where it is."""
        brought = self._bring(entry)
        if isinstance(brought, Outcome):
            return brought
        path = path_of(there)
        owned = path is not None and self._repository.owns(there) and path.exists()
        aside = kept_aside(path) if owned and path is not None else None

        def change() -> None:
            with self._butler.transaction():
                self._butler.pruneDatasets([brought.ref], disassociate=True, unstore=True, purge=True)
                self._ingest([brought])

        try:
            self._patiently(change)
        except StorageError:
            raise
        except Exception as error:
            self._exposures.forget()
            said = " ".join(str(error).split())[:300] or type(error).__name__
            return self._outcome(entry, "failed", f"{there} cannot be replaced ({said})", again=True)
        finally:
            if aside is not None:
                restore(aside.parent)
        return self._outcome(brought, "ingested", why, replaced=there)

    # --

    def _outcome(
        self,
        entry: _Entry,
        state: str,
        reason: str = "",
        *,
        uri: str | None = None,
        again: bool = False,
        replaced: str = "",
        older: bool = False,
    ) -> Outcome:
        good = state in ("ingested", "duplicate")
        return Outcome(
            state=state,  # type: ignore[arg-type]
            code=OodsStatus.INGESTED if good else OodsStatus.INGEST_FAILURE,
            reason=reason,
            again=again,
            dataset_id=str(entry.ref.id),
            dataset_type=entry.ref.datasetType.name,
            run=entry.ref.run,
            uri=entry.uri if uri is None else uri,
            instrument=entry.found.camera.name,
            exposure=entry.found.exposure,
            replaced=replaced,
            older=older,
        )

    def _patiently(self, work: Callable[[], T]) -> T:
        """Does what the registry may have to be waited for. Raises StorageError where that takes too long,
        and whatever else the registry raises where it refuses something."""
        until = time.monotonic() + self._repository.busy
        while True:
            try:
                return work()
            except RaftwrightError:
                raise
            except Exception as error:
                if not is_contention(error):
                    if is_refusal(error) or isinstance(error, _FILE_TROUBLE):
                        raise
                    raise storage_error(error, self._repository.root, "written") from error
                if time.monotonic() >= until:
                    raise storage_error(error, self._repository.root, "written") from error
                time.sleep(_PAUSE)


def _examined(files: Sequence[Found]) -> list[Outcome | None]:
    """Looks at all files, several at a time."""
    if all(found.local and found.incoming.crc32c for found in files):
        return [examine(found) for found in files]  # a glance each
    parts = [files[begin::_THREADS] for begin in range(min(_THREADS, len(files)))]
    with ThreadPoolExecutor(len(parts), thread_name_prefix="examine") as pool:
        done = list(pool.map(lambda part: [examine(found) for found in part], parts))
    return [done[number % _THREADS][number // _THREADS] for number in range(len(files))]


def _digest(uri: str) -> Digest:
    """Sums of a file anywhere. Raises StorageError."""
    path = path_of(uri)
    if path is not None:
        return digest(path)
    try:
        with ResourcePath(uri).as_local() as here:
            return digest(Path(here.ospath))
    except StorageError:
        raise
    except Exception as error:  # each protocol has its own
        raise StorageError(5, f"cannot be read: {str(error)[:200]}", uri) from error


def _version(uri: str) -> int:
    try:
        return FileName.parse(unquote(urlsplit(uri).path)).version
    except FormatError:
        return 1
