"""What the OODS has, as the ledger tells it: pages of images, files of an image, presence."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from raftwright.camera import camera, camera_names
from raftwright.errors import FormatError, NotFoundError, UsageError
from raftwright.rawfile.names import FileName

if TYPE_CHECKING:
    from raftwright.ledger import Ledger
    from raftwright.ledger.rows import IngestRow

__all__ = ["Catalogue", "described", "header_of", "path_of"]

_IMAGES: Final = (
    "SELECT image.id, image.obsid, image.instrument, image.dayobs, image.seqnum, image.exposure_id,"
    " image.state, image.group_id, image.cur_index, image.image_type,"
    " image.physical_filter, image.exposure_time,"
    " image.expected_detectors, (SELECT count(*) FROM ingest WHERE ingest.image_id = image.id"
    " AND ingest.repository = ? AND ingest.state = 'ingested') FROM image"
    # The page first: what is counted for each image is not for those that are on no page.
    " WHERE image.id IN (SELECT image.id FROM image WHERE {where} ORDER BY image.id DESC LIMIT ?)"
    " ORDER BY image.id DESC"
)
_FIELDS: Final = (
    *("number", "obsid", "instrument", "dayobs", "seqnum", "exposure", "state", "group", "cur_index"),
    *("image_type", "physical_filter", "exposure_time", "expected", "ingested"),
)
_MOST_GROUP: Final = 100


class Catalogue:
    """Thread-safe. Raises StorageError where the ledger cannot be read."""

    def __init__(self, ledger: Ledger, repository: str) -> None:
        self._ledger = ledger
        self._repository = repository
        self._names = {
            alias.lower(): found.name
            for found in (camera(name) for name in camera_names())
            for alias in (*found.aliases, found.name, found.instrume)
        }

    @property
    def repository(self) -> str:
        """What the ledger calls it."""
        return self._repository

    def instrument(self, text: str) -> str:
        """As the ledger has it, whatever the case or alias. Raises UsageError for one that is unknown."""
        try:
            return self._names[text.strip().lower()]
        except KeyError:
            have = ", ".join(sorted(set(self._names.values())))
            raise UsageError(f"{text[:64]!a} is no instrument; there are {have}") from None

    def images(
        self, *, instrument: str | None, dayobs: int | None, before: int | None, limit: int
    ) -> list[dict[str, Any]]:
        """The newest images first; the next ones have a `number` below `before`."""
        where, values = ["1 = 1"], []  # type: tuple[list[str], list[Any]]
        for condition, value in (
            ("image.instrument = ?", instrument),
            ("image.dayobs = ?", dayobs),
            ("image.id < ?", before),
        ):
            if value is not None:
                where.append(condition)
                values.append(value)
        rows = self._ledger.read(
            _IMAGES.format(where=" AND ".join(where)), (self._repository, *values, limit)
        )
        return [dict(zip(_FIELDS, row, strict=True)) for row in rows]

    def files(self, obsid: str) -> list[IngestRow]:
        """What is there of an image, by detector: of several versions the one that is read. Raises
        NotFoundError."""
        images = self._ledger.images.get(obsid)
        if not images:
            raise NotFoundError(f"{obsid[:100]!a}: no such image is known")
        newest: dict[tuple[int, str, str], IngestRow] = {}
        for image in images:
            for row in self._ledger.ingests.of(image.id, self._repository):
                key = (row.image_id, row.detector, row.kind)
                if row.state == "ingested" and (key not in newest or _age(newest[key]) < _age(row)):
                    newest[key] = row
        return list(newest.values())

    def file(self, obsid: str, detector: str, kind: str = "raw") -> IngestRow:
        """The newest that is there of a detector. Raises NotFoundError."""
        rows = [row for row in self.files(obsid) if row.detector == detector and row.kind == kind]
        if not rows:
            raise NotFoundError(f"{obsid} {detector[:40]!a}: no {kind} of it is in the repository")
        return max(rows, key=_age)

    def presence(self, instrument: str, group: str, snap: int, detector: str) -> IngestRow | None:
        """The file of an exposure of a group; snaps count from 0. One that is gone from this machine's disk,
        whatever the ledger says, is not there. Raises UsageError."""
        found = self._ledger.ingests.find(
            self.instrument(instrument), group, snap, detector, self._repository
        )
        raws = [row for row in found[-_MOST_GROUP:] if row.kind == "raw"]
        newest = max(raws, key=lambda row: (row.image_id, *_age(row)), default=None)
        return None if newest is None or _is_gone(newest) else newest


def _age(row: IngestRow) -> tuple[int, int]:
    """Grows with the versions of a file, in whatever order they came."""
    try:
        return FileName.parse(row.path.rpartition("/")[2]).version, row.id
    except FormatError:
        return 1, row.id


def path_of(row: IngestRow) -> Path:
    """The file itself. Raises NotFoundError where it is no file of this machine, or gone."""
    uri = row.uri or Path(row.path).as_uri()
    parts = urlsplit(uri)
    if parts.scheme not in ("", "file") or parts.netloc not in ("", "localhost"):
        raise NotFoundError(f"{uri}: is not on this machine; read it there")
    path = Path(unquote(parts.path))
    if not _is_file(path):
        raise NotFoundError(f"{path}: is not there any more")
    return path


def _is_gone(row: IngestRow) -> bool:
    try:
        path_of(row)
    except NotFoundError:
        return urlsplit(row.uri or row.path).scheme in ("", "file")
    return False


def _is_file(path: Path) -> bool:
    """Not so for a link, which may lead anywhere."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False


def header_of(row: IngestRow) -> Mapping[str, Any]:
    """The header as the newest sidecar has it; without one that of the file.

    Raises NotFoundError, FormatError, StorageError.
    """
    from raftwright.rawfile import open_raw
    from raftwright.rawfile.newest import newest_sidecar
    from raftwright.rawfile.sidecar import read_json

    path = path_of(row)
    _, beside = newest_sidecar(path)
    if _is_file(beside):
        return read_json(beside)
    return dict(open_raw(path, threads=1).header)


def described(row: IngestRow) -> dict[str, Any]:
    """A file as it is listed."""
    return {
        "obsid": row.obsid,
        "detector": row.detector,
        "kind": row.kind,
        "bytes": row.bytes,
        "crc32c": row.crc32c,
        "uri": row.uri,
        "dataset_id": row.dataset_id,
        "dataset_type": row.dataset_type,
        "run": row.run,
        "ingested_tai": row.ingested_tai,
    }
