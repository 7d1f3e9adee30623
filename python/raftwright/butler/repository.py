"""An open repository: what it is made of, what is in it, and how datasets leave it."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self
from uuid import UUID

import msgspec

from raftwright.butler.formatter import remember_cameras
from raftwright.butler.incoming import path_of
from raftwright.butler.software import (
    Butler,
    CollectionType,
    DatasetIdGenEnum,
    DatasetRef,
    DatasetType,
    MissingDatasetTypeError,
    SQLAlchemyError,
)
from raftwright.butler.troubles import bound_waits, storage_error
from raftwright.camera import camera as find_camera
from raftwright.errors import FormatError, NotFoundError, RaftwrightError, StorageError

if TYPE_CHECKING:
    from raftwright.butler.incoming import Kind
    from raftwright.camera import Camera
    from raftwright.rawfile.names import ImageName

__all__ = ["SHEET", "Entry", "Repository", "Sheet", "open_repository"]

SHEET: Final = "raftwright.json"
"""Beside `butler.yaml`: what raftwright has to know of the repository."""
BUSY: Final = 30.0
_MANY: Final = 500
"""Exposures of one query."""
FORMAT: Final = "raftwright-repository/1"


class Entry(msgspec.Struct, frozen=True):
    """A camera of a repository."""

    name: str
    file: str = ""
    """Camera file within the repository; empty for a built-in camera."""


class Sheet(msgspec.Struct, frozen=True):
    """Contents of `raftwright.json`."""

    format: str
    cameras: tuple[Entry, ...]
    raw: str = "{instrument}/raw/all"
    """RUN collection of the raws of an instrument."""
    guider: str = "{instrument}/raw/guider"
    chain: str = "{instrument}/defaults"
    """CHAINED collection of both."""


_sheet = msgspec.json.Decoder(Sheet)


class Repository:
    """For one thread: `clone` makes another for another thread. Ends with `close`."""

    def __init__(
        self, root: str, butler: Butler, sheet: Sheet, cameras: Sequence[Camera], busy: float
    ) -> None:
        self.root = root
        self.busy = busy
        """Seconds."""
        self.butler = butler
        self.sheet = sheet
        self.cameras = tuple(cameras)
        self.types: dict[str, DatasetType] = {
            kind: DatasetType(
                kind,
                ("instrument", "exposure", "detector"),
                storage,
                universe=butler.dimensions,
            )
            for kind, storage in (("raw", "RaftwrightRaw"), ("guider", "RaftwrightGuider"))
        }
        self._by_code = {camera.code: camera for camera in self.cameras}
        self._by_name = {
            name.lower(): camera
            for camera in self.cameras
            for name in (*camera.aliases, camera.instrume, camera.name)
        }

    # -- what it is

    def camera_of(self, name: ImageName) -> Camera | None:
        """The camera that makes images of this name; None where it is none of the repository's."""
        return self._by_code.get(name.source)

    def camera(self, instrument: str) -> Camera:
        """A camera by its name or what INSTRUME says. Raises `NotFoundError`."""
        try:
            return self._by_name[instrument.strip().lower()]
        except KeyError:
            have = ", ".join(camera.name for camera in self.cameras)
            raise NotFoundError(
                f"{self.root}: has no camera {instrument[:40]!r}, only {have}; "
                "add it with `raftwright oods init --camera`"
            ) from None

    def run_of(self, kind: Kind, instrument: str) -> str:
        """Name of the RUN collection."""
        pattern = self.sheet.guider if kind == "guider" else self.sheet.raw
        return pattern.format(instrument=instrument)

    def chain_of(self, instrument: str) -> str:
        """Name of the collection to read from."""
        return self.sheet.chain.format(instrument=instrument)

    @property
    def store(self) -> Path | None:
        """Directory of files that the repository owns; None where that is no local one."""
        (place, *others) = self.butler.get_datastore_roots().values()
        return Path(place.ospath) if place is not None and place.isLocal and not others else None

    def ref(self, kind: Kind, instrument: str, exposure: int, detector: int) -> DatasetRef:
        """The dataset of a detector: its id is the same whoever computes it."""
        data_id = self.butler.registry.expandDataId(
            instrument=instrument, exposure=exposure, detector=detector
        )
        return self.ref_of(kind, data_id)

    def ref_of(self, kind: Kind, data_id: Any) -> DatasetRef:
        """Likewise, where the data id is known to be true."""
        return DatasetRef(
            self.types[kind],
            data_id,
            run=self.run_of(kind, data_id["instrument"]),
            id_generation_mode=DatasetIdGenEnum.DATAID_TYPE_RUN,
            conform=False,
        )

    # -- what is in it

    def datasets(self, dataset_ids: Iterable[str]) -> list[DatasetRef]:
        """Those of some ids that are in it."""
        with self.reading():
            return list(self.butler.get_many_datasets([UUID(each) for each in dataset_ids]))

    def find(
        self,
        instrument: str,
        *,
        exposures: Sequence[int] = (),
        detectors: Sequence[int] = (),
        dayobs: int | None = None,
        kind: Kind = "raw",
        limit: int | None = None,
    ) -> list[DatasetRef]:
        """Datasets, ordered by exposure and detector."""
        where, bind = ["instrument = chosen"], {"chosen": instrument}
        for name, values in (("exposure", exposures), ("detector", detectors)):
            if values:
                where.append(f"{name} IN ({', '.join(str(int(value)) for value in values)})")
        if dayobs is not None:
            where.append(f"exposure.day_obs = {int(dayobs)}")
        with self.reading():
            try:
                return list(
                    self.butler.query_datasets(
                        kind,
                        self.run_of(kind, instrument),
                        where=" AND ".join(where),
                        bind=bind,
                        order_by=["exposure", "detector"],
                        limit=limit,
                        explain=False,
                        find_first=False,
                    )
                )
            except MissingDatasetTypeError:
                return []

    def uris(self, refs: Iterable[DatasetRef]) -> dict[str, str]:
        """Where the files of datasets are, by dataset id; what has no file is not among them."""
        with self.reading():
            found = self.butler.get_many_uris(list(refs), allow_missing=True)
        return {str(ref.id): str(each.primaryURI) for ref, each in found.items() if each.primaryURI}

    def tagged(self, refs: Sequence[DatasetRef]) -> set[str]:
        """Ids of those that are in a TAGGED collection, or in a CALIBRATION one: somebody means to keep
        them."""
        wanted = {str(ref.id) for ref in refs}
        with self.reading():
            kept = [
                info.name
                for info in self.butler.collections.query_info("*")
                if info.type in (CollectionType.TAGGED, CollectionType.CALIBRATION)
            ]
            if not kept or not refs:
                return set()
            found: set[str] = set()
            by_kind: dict[tuple[str, str], set[int]] = {}
            for ref in refs:
                key = (ref.datasetType.name, str(ref.dataId["instrument"]))
                by_kind.setdefault(key, set()).add(int(ref.dataId["exposure"]))
            parts = [
                (name, instrument, sorted(exposures)[begin : begin + _MANY])
                for (name, instrument), exposures in by_kind.items()
                for begin in range(0, len(exposures), _MANY)
            ]
            for name, instrument, exposures_there in parts:
                listed = ", ".join(map(str, exposures_there))
                try:
                    refs_there = self.butler.query_datasets(
                        name,
                        kept,
                        where=f"instrument = chosen AND exposure IN ({listed})",
                        bind={"chosen": instrument},
                        limit=None,
                        explain=False,
                        find_first=False,
                    )
                except MissingDatasetTypeError:
                    continue
                found |= {str(ref.id) for ref in refs_there}
            return wanted & found

    # -- how datasets leave

    def remove(
        self, refs: Sequence[DatasetRef], *, tagged: bool = False, at: Mapping[str, str] | None = None
    ) -> list[DatasetRef]:
        """Takes datasets out of the registry, all at once or not at all; those that are tagged stay, unless
        `tagged`, and so do those that have another file by now than `at` says (as `uris`). Gives back those
        that went. What is not there any more is none that goes.

        A file that was ingested `direct` stays where it is: it is the caller's to delete, afterwards. One
        that the repository owns goes with its sidecars. Raises `StorageError`.
        """
        with self.writing("cleaned"):
            with self.butler.transaction():
                known = {ref.id: ref for ref in self.butler.get_many_datasets([ref.id for ref in refs])}
                there = [known[ref.id] for ref in refs if ref.id in known]
                kept = set() if tagged else self.tagged(there)
                going = [ref for ref in there if str(ref.id) not in kept]
                now = self.uris(going)
                if at is not None:
                    going = [ref for ref in going if now.get(str(ref.id)) == at.get(str(ref.id))]
                places = [now[str(ref.id)] for ref in going if self.owns(now.get(str(ref.id), ""))]
                # As `pruneDatasets` does it, but in the transaction in which it was seen what is tagged.
                self.butler._datastore.trash(going)
                self.butler.registry.removeDatasets(going)
            if going:  # only now, after the commit: the registry never has what has no file
                self.butler._datastore.emptyTrash(refs=going)
        for uri in places:
            if (path := path_of(uri)) is not None:
                _unlink_sidecars(path)
        return going

    def owns(self, uri: str) -> bool:
        """Whether a file is in the repository's own store, and deleted by it."""
        store, path = self.store, path_of(uri)
        return store is not None and path is not None and path.is_relative_to(store)

    def mend(self) -> int:
        """Ends what a process that died while it removed datasets has begun: their files in the store go.
        Gives how many. Raises `StorageError`."""
        with self.writing("mended"):
            return len(self.butler._datastore.emptyTrash())

    # -- itself

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """What goes wrong with the registry within is a `StorageError`."""
        with self._said("read"):
            yield

    @contextlib.contextmanager
    def writing(self, what: str = "written") -> Iterator[None]:
        """Likewise."""
        with self._said(what):
            yield

    @contextlib.contextmanager
    def _said(self, what: str) -> Iterator[None]:
        try:
            yield
        except RaftwrightError:
            raise
        except SQLAlchemyError as error:
            raise storage_error(error, self.root, what) from error

    def clone(self) -> Repository:
        """The same for another thread."""
        return Repository(self.root, self.butler.clone(), self.sheet, self.cameras, self.busy)

    def close(self) -> None:
        """Gives the database back."""
        self.butler.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _unlink_sidecars(raw: Path) -> None:
    from raftwright.rawfile.names import sidecar_path

    stem = sidecar_path(raw).name.removesuffix(".json")
    with contextlib.suppress(OSError):
        for path in raw.parent.glob(f"{stem}.json"):
            path.unlink(missing_ok=True)
        for path in raw.parent.glob(f"{stem}.sidecar*.json"):
            path.unlink(missing_ok=True)
        raw.parent.rmdir()  # when it was the last


def read_sheet(root: str) -> Sheet:
    """What `raftwright.json` says. Raises FormatError, NotFoundError, StorageError."""
    path = Path(root, SHEET)
    try:
        sheet = _sheet.decode(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(
            f"{root}: is no repository of raftwright; make one with `raftwright oods init --repo {root}`"
        ) from None
    except OSError as error:
        raise StorageError(error.errno, f"cannot be read: {error.strerror}", str(path)) from error
    except (msgspec.DecodeError, ValueError) as error:
        raise FormatError(f"{path}: is no description of a repository ({str(error)[:100]})") from None
    if sheet.format != FORMAT:
        raise FormatError(f"{path}: is {sheet.format[:40]!r}; this release reads {FORMAT}")
    return sheet


def cameras_of(root: str, sheet: Sheet) -> list[Camera]:
    """The cameras of a repository. Raises CameraError, NotFoundError, StorageError."""
    return [find_camera(Path(root, entry.file) if entry.file else entry.name) for entry in sheet.cameras]


def open_repository(
    root: str | os.PathLike[str], *, writeable: bool = False, busy: float = BUSY
) -> Repository:
    """A repository that `make_repository` made. `busy`: seconds for which a lock of others is waited for.

    Raises NotFoundError (there is none), FormatError (something else), StorageError (its registry cannot be
    reached).
    """
    place = os.path.abspath(os.fspath(root))
    sheet = read_sheet(place)
    cameras = cameras_of(place, sheet)
    try:
        butler = Butler.from_config(os.path.join(place, "butler.yaml"), writeable=writeable)
    except FileNotFoundError as error:
        raise NotFoundError(f"{place}: there is no butler.yaml in it ({error})") from None
    except OSError as error:
        raise StorageError(error.errno or errno.EIO, f"cannot be opened: {error}", place) from error
    except Exception as error:
        raise storage_error(error, place, "opened") from error
    bound_waits(butler, busy)
    remember_cameras(cameras)
    return Repository(place, butler, sheet, cameras, busy)
