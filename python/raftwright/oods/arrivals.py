"""Files that came from elsewhere than the archive: their images are entered in the ledger, and they become
ingests. What is not in the ledger yet was not taken: whoever hands it over may forget it after that."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import msgspec

from raftwright.errors import FormatError, RaftwrightError
from raftwright.ledger.rows import ImageFacts, IngestPlan
from raftwright.rawfile.names import FileName, sidecar_path
from raftwright.rawfile.newest import newest_sidecar
from raftwright.rawfile.sidecar import read_json
from raftwright.rawfile.times import parse_iso
from raftwright.transfer.naming import priority
from raftwright.transfer.outcome import OutageError

if TYPE_CHECKING:
    from raftwright.camera import Camera
    from raftwright.ledger import Ledger
    from raftwright.oods.settings import Settings

__all__ = ["Arrivals", "Arrived", "is_raw_name"]

_log = logging.getLogger("raftwright.oods")

_FACTS: Final[Mapping[str, str]] = {
    "image_type": "IMGTYPE",
    "exposure_time": "EXPTIME",
    "physical_filter": "FILTER",
    "target": "OBJECT",
    "group_id": "GROUPID",
    "cur_index": "CURINDEX",
    "ra": "RA",
    "dec": "DEC",
}
_REMEMBERED: Final = 1000
_TRIES: Final = 3
"""Files of an image whose sidecars are looked for."""
_ENDS: Final = (".fits", ".fits.fz", ".fits.gz")


class Arrived(msgspec.Struct, frozen=True, kw_only=True):
    """A file whose name is one of a raw or of a guider's file."""

    path: str
    """Absolute, or a URI."""
    bytes: int
    crc32c: str = ""
    """Of a local file."""
    stored: str = ""
    """Of an object: what its store tells of it, as the ledger keeps that."""


class Arrivals:
    """One for all inputs; thread-safe, as the ledger is."""

    def __init__(
        self, ledger: Ledger, settings: Settings, cameras: Sequence[Camera], planned: Callable[[], None]
    ) -> None:
        self._ledger = ledger
        self._settings = settings
        self._cameras = {camera.code: camera for camera in cameras}
        self.planned = planned
        self.remote: Callable[[str], bytes] | None = None
        """Gives the content of a URI, for the sidecars of objects. Raises RaftwrightError."""
        self._told: OrderedDict[str, int] = OrderedDict()
        """Images, and how many of their sidecars were looked for in vain; -1: one has told."""

    def take(self, files: Sequence[Arrived]) -> int:
        """Plans them; how many are new. What came before, with the same content, is nothing new. Raises
        StorageError, and then any of them may be given again."""
        plans = [plan for file in files if (plan := self._plan(file)) is not None]
        new = self._ledger.ingests.plan(plans) if plans else 0
        if new:
            self.planned()
        return new

    def changed(self, path: str, size: int, crc32c: str = "") -> str:
        """Why a file that is in the repository may not be taken once more: it has another content now, and
        data are never overwritten. Empty where all is well."""
        for row in self._ledger.ingests.by_path(self._settings.name, path):
            other = row.bytes != size or (row.crc32c and crc32c and row.crc32c != crc32c)
            if row.state == "ingested" and other:
                return "another content of that name was ingested before; the file was changed since"
        return ""

    def wants(self, path: str) -> bool:
        """Whether it is of an instrument that is ingested here. Raises FormatError."""
        camera = self._cameras.get(FileName.parse(path).image.source)
        return camera is None or not self._settings.instruments or camera.name in self._settings.instruments

    def _plan(self, file: Arrived) -> IngestPlan | None:
        name = FileName.parse(file.path)
        camera = self._cameras.get(name.image.source)
        wanted = self._settings
        if not self.wants(file.path):
            return None
        stem = f"{name.raft}_{name.slot}"
        row = None if "://" in file.path else self._ledger.files.by_path(file.path)
        image_id = self._image(str(name.image), camera, file.path)
        return IngestPlan(
            image_id=image_id,
            repository=wanted.name,
            path=file.path,
            file_id=0 if row is None else self._number(file.path),
            detector=stem,
            kind="guider" if name.guider else "raw",
            crc32c=file.crc32c,
            bytes=file.bytes,
            stored=file.stored,
            priority=priority(wanted.order, "" if camera is None else camera.name, stem),
        )

    def _number(self, path: str) -> int:
        rows = self._ledger.read("SELECT id FROM file WHERE path = ?", (path,))
        return int(rows[0][0]) if rows else 0

    def _image(self, obsid: str, camera: Camera | None, path: str) -> int:
        """Number of the image, which is announced by its name alone where nobody has done so."""
        known = self._ledger.images.get(obsid)
        label = "" if camera is None else camera.name
        image_id = (
            known[-1].id
            if known
            else self._ledger.images.announce(
                ImageFacts(obsid=obsid, daq_id="", camera=label, instrument=label, sources=(), detectors=())
            )
        )
        if not known or not known[-1].group_id:
            self._tell_of(obsid, path)
        return image_id

    def _tell_of(self, obsid: str, path: str) -> None:
        """What the sidecar says of the image, so that it is found by its group and told by its night."""
        tries = self._told.get(obsid, 0)
        if not 0 <= tries < _TRIES:
            return
        try:
            said = self._said(path)
        except OutageError:
            return  # the next file of it may be luckier
        if said.get("OBSID") == obsid:
            tries = -1
            facts = {name: said[key] for name, key in _FACTS.items() if _is_plain(said.get(key))}
            self._ledger.images.facts(obsid, **facts)
            self._ledger.images.times(
                obsid, begin_tai=_tai(said.get("DATE-BEG")), end_tai=_tai(said.get("DATE-END"))
            )
        else:
            tries += 1
        self._told[obsid] = tries
        while len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)

    def _said(self, path: str) -> Mapping[str, Any]:
        """The sidecar of a file; empty where there is none that can be read. Raises OutageError."""
        try:
            if "://" not in path:
                return read_json(newest_sidecar(Path(path))[1])
            if self.remote is None:
                return {}
            folder, _, name = path.rpartition("/")
            content = msgspec.json.decode(self.remote(f"{folder}/{quote(sidecar_path(Path(name)).name)}"))
            return content if isinstance(content, dict) else {}
        except OutageError:
            raise
        except (RaftwrightError, OSError, ValueError) as error:
            _log.debug("%s: its sidecar says nothing: %s", path, error)
        return {}


def is_raw_name(name: str) -> bool:
    """Whether it ends as the name of a raw does. Others are of no interest: sidecars, lists, headers."""
    return name.endswith(_ENDS)


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _tai(text: object) -> float | None:
    try:
        return parse_iso(text) / 1e9 if isinstance(text, str) else None
    except FormatError:
        return None
