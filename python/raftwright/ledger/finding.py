"""What the files of an image say of it: the source of a ledger that is made anew."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from raftwright.camera import camera as find_camera
from raftwright.camera import camera_names
from raftwright.errors import FormatError, NotFoundError, RaftwrightError
from raftwright.ledger.rows import DetectorFacts, FileRow, ImageFacts, SourceFacts, plain_id
from raftwright.rawfile.names import FileName, ImageName, container_version, manifest_name, sidecar_path
from raftwright.rawfile.times import TAI_MINUS_UTC, parse_iso

if TYPE_CHECKING:
    from raftwright.camera import Camera, Detector
    from raftwright.rawfile.read import RawFile

__all__ = ["Found", "FoundHeader", "FoundImage", "image_directories", "look_at", "row_of"]

_DAY: Final = re.compile(r"[0-9]{8}\Z")
_CONFLICT: Final = re.compile(r"(.+\.fits)\.conflict-([0-9a-f]{8})\Z")
_HEADER: Final = re.compile(r"_header(?:\.v([1-9][0-9]{0,3}))?\.yaml\Z")
_HEAD_LINE: Final = re.compile(
    rb"# *header of [A-Z]{2}_[A-Z]_[0-9]{8}_[0-9]{6}, (partial|complete), version "
)
_BESIDE: Final = re.compile(r"\.(json|yaml|yml|lock)(\.conflict-[0-9a-f]{8})?\Z")
_ASIDE: Final = re.compile(r"\.damaged-[0-9a-f]{8}(-[0-9]{1,3})?\Z")
"""Files that were moved aside because their sums did not hold."""
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
_LONGEST_MANIFEST: Final = 4096


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A raw file, as its name and its header have it. Its sums are not taken yet."""

    path: Path
    version: int
    detector: str
    location: str
    missing: int
    conflict: bool
    replaces: str
    size: int
    written: float
    """Change of the file, TAI."""
    stream: int
    """Bytes of the stream of its board."""
    beside: tuple[Path, ...]
    """Its sidecars."""


class FoundHeader(msgspec.Struct, frozen=True, kw_only=True):
    """A header document."""

    path: Path
    version: int
    state: str


class FoundImage(msgspec.Struct, frozen=True, kw_only=True):
    """An image of the DAQ, as a directory has it."""

    facts: ImageFacts
    files: tuple[Found, ...]
    headers: tuple[FoundHeader, ...]
    manifest: Path | None
    containers: tuple[Path, ...]
    """By version."""
    known: Mapping[str, Any]
    """For `images.facts`."""
    begin_tai: float | None
    end_tai: float | None


def image_directories(archive: Path, strange: list[tuple[Path, str]]) -> Iterator[Path]:
    """Directories of images, in the order of their names; what has no name of one goes to `strange`."""
    for day in _entries(archive):
        if not _DAY.match(day.name) or not day.is_dir():
            continue  # of the services, or of somebody else: an archive may hold more than images
        for entry in _entries(Path(day.path)):
            try:
                if ImageName.parse(entry.name).dayobs != day.name:
                    raise FormatError(f"is an image of another day than {day.name}")
            except FormatError as error:
                if not entry.name.startswith("."):
                    strange.append((Path(entry.path), str(error)))
                continue
            if entry.is_dir():
                yield Path(entry.path)


def _entries(directory: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as found:
            return sorted(found, key=lambda entry: entry.name)
    except NotADirectoryError:
        return []


def look_at(directory: Path, strange: list[tuple[Path, str]]) -> list[FoundImage]:
    """The images in a directory: one as a rule, more where the DAQ gave a name twice. What cannot be read
    goes to `strange`, and holds up nothing else."""
    name = ImageName.parse(directory.name)
    raws: dict[str, list[tuple[Found, RawFile]]] = {}
    headers: list[FoundHeader] = []
    manifest: Path | None = None
    containers: list[tuple[int, Path]] = []
    for entry in _entries(directory):
        path = Path(entry.path)
        if entry.name.startswith(".") or _ASIDE.search(entry.name):
            continue
        if entry.name == manifest_name(name):
            manifest = path
        elif (match := _HEADER.search(entry.name)) and entry.name.startswith(str(name)):
            headers.append(FoundHeader(path=path, version=int(match[1] or 1), state=_state_of(path)))
        elif entry.name.endswith(".zip"):
            try:
                containers.append((_container(path, name), path))
            except FormatError as error:
                strange.append((path, str(error)))
        elif not _BESIDE.search(entry.name):
            try:
                found, raw = _raw(path, name, entry.stat())
                raws.setdefault(plain_id(raw.file_header.string("IMAGETAG") or ""), []).append((found, raw))
            except (RaftwrightError, OSError) as error:
                strange.append((path, str(error)))
    boxes = tuple(path for _, path in sorted(containers))
    if not raws and (manifest is not None or headers):
        raws[""] = []
    images = []
    owner = _owner(raws)
    for daq_id, some in raws.items():
        mine = daq_id == owner
        camera = some[0][1].camera if some else _camera_of(name)
        image = _image(name, daq_id, camera, some, headers, manifest if mine else None, strange)
        images.append(msgspec.structs.replace(image, containers=boxes if mine else ()))
    return images


def _container(path: Path, name: ImageName) -> int:
    image, version = container_version(path)
    if image != name:
        raise FormatError(f"{path}: is of {image}, but stands with {name}")
    return version


def _owner(raws: Mapping[str, list[tuple[Found, RawFile]]]) -> str:
    """Whose the names are: of the image with files that are no conflicts."""
    return max(raws, key=lambda daq_id: sum(not found.conflict for found, _ in raws[daq_id]), default="")


def _camera_of(name: ImageName) -> Camera | None:
    for known in map(find_camera, camera_names()):
        if known.code == name.source:
            return known
    return None


def _raw(path: Path, name: ImageName, status: os.stat_result) -> tuple[Found, RawFile]:
    from raftwright.rawfile.read import open_raw

    match = _CONFLICT.match(path.name)
    plain = path if match is None else path.with_name(match[1])
    parts = FileName.parse(plain.name)
    if parts.image != name:
        raise FormatError(f"{path}: is of {parts.image}, but stands with {name}")
    raw = open_raw(path, 1)
    if raw.file_header.string("OBSID") not in (None, str(name)):
        raise FormatError(f"{path}: its header says that it is of {raw.file_header.string('OBSID')}")
    detector = raw.detector
    if detector.file_stem != f"{parts.raft}_{parts.slot}":
        raise FormatError(f"{path}: its header says that it shows {detector.name}")
    found = Found(
        path=path,
        version=parts.version,
        detector=detector.name,
        location=detector.location,
        missing=raw.missing_pixels,
        conflict=match is not None,
        replaces=_replaces(plain) if parts.version > 1 and match is None else "",
        size=status.st_size,
        written=status.st_mtime + TAI_MINUS_UTC,
        stream=_stream_bytes(raw, detector),
        beside=tuple(_sidecars(plain)) if match is None else (),
    )
    return found, raw


def _sidecars(raw: Path) -> Iterator[Path]:
    from raftwright.rawfile.newest import later_path, newest_sidecar

    version, _ = newest_sidecar(raw)
    for number in range(1, version + 1):
        path = later_path(raw, number)
        if path.is_file():
            yield path


def _replaces(path: Path) -> str:
    """The version before, as the sidecar names it."""
    from raftwright.rawfile.sidecar import REPLACES, read_json

    try:
        before = read_json(sidecar_path(path)).get(REPLACES)
    except RaftwrightError:
        return ""
    name = before.get("file") if isinstance(before, dict) else None
    if not isinstance(name, str) or "/" in name:
        return ""
    return str(path.with_name(name))


def _stream_bytes(raw: RawFile, detector: Detector) -> int:
    try:
        geometry = raw.geometry
        return geometry.width * geometry.height * raw.camera.board(detector.location).sample_bytes
    except RaftwrightError:
        return 0


def _state_of(path: Path) -> str:
    """As the first line of a header document says."""
    try:
        with path.open("rb") as stream:
            match = _HEAD_LINE.match(stream.readline(500))
    except OSError:
        match = None
    return "partial" if match is None else match[1].decode()


def _image(
    name: ImageName,
    daq_id: str,
    camera: Camera | None,
    some: list[tuple[Found, RawFile]],
    headers: Iterable[FoundHeader],
    manifest: Path | None,
    strange: list[tuple[Path, str]],
) -> FoundImage:
    detectors: dict[str, Detector] = {}
    if camera is not None:
        for stem in _stems(manifest, strange):
            try:
                detector = camera.detector(stem)
                detectors[detector.name] = detector
            except NotFoundError as error:
                assert manifest is not None
                strange.append((manifest, str(error)))
        for found, raw in some:
            detectors.setdefault(found.detector, raw.detector)
    streams: dict[str, int] = {}
    for found, _ in some:
        streams[found.location] = max(streams.get(found.location, 0), found.stream)
    likely = max(streams.values(), default=0)
    boards = {detector.location for detector in detectors.values()}
    header = min(some, key=lambda each: (each[0].conflict, each[0].path.name))[1].header if some else None
    trigger = _tai(header.string("DATE-TRG")) if header is not None else None
    said = _said(sorted(headers, key=lambda each: each.version), strange)
    if header is not None and not said and header.get("HDRSTATE") != "missing":
        keywords = (*_FACTS.values(), "DATE-BEG", "DATE-END")
        said = _plain({keyword: header.get(keyword) for keyword in keywords})
    return FoundImage(
        facts=ImageFacts(
            obsid=str(name),
            daq_id=daq_id,
            camera="" if camera is None else camera.name,
            instrument="" if camera is None else camera.name,
            folder=(header.string("DAQFOLD") or "") if header is not None else "",
            trigger_tai=trigger,
            announced_tai=trigger or min((found.written for found, _ in some), default=None),
            sources=tuple(
                SourceFacts(location, camera.board(location).kind, streams.get(location, likely))
                for location in sorted(boards)
                if camera is not None
            ),
            detectors=tuple(
                DetectorFacts(each.name, each.location, "SCIENCE")
                for each in sorted(detectors.values(), key=lambda each: each.name)
            ),
        ),
        files=tuple(found for found, _ in some),
        headers=tuple(sorted(headers, key=lambda each: each.version)),
        manifest=manifest,
        containers=(),
        known={column: said[keyword] for column, keyword in _FACTS.items() if keyword in said},
        begin_tai=_tai(said.get("DATE-BEG")),
        end_tai=_tai(said.get("DATE-END")),
    )


def _said(headers: list[FoundHeader], strange: list[tuple[Path, str]]) -> dict[str, Any]:
    """What the newest header document says of the image."""
    from raftwright.rawfile.document import read_header_document

    for header in reversed(headers):
        try:
            records = read_header_document(header.path).section("PRIMARY")
        except RaftwrightError as error:
            strange.append((header.path, str(error)))
            continue
        return _plain({keyword: record.value for keyword, record in records.items()})
    return {}


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        keyword: value
        for keyword, value in values.items()
        if isinstance(value, str | int | float) and not isinstance(value, bool)
    }


def _stems(manifest: Path | None, strange: list[tuple[Path, str]]) -> list[str]:
    from raftwright.rawfile.sidecar import read_json

    if manifest is None:
        return []
    try:
        expected = read_json(manifest).get("expectedSensors")
    except RaftwrightError as error:
        strange.append((manifest, str(error)))
        return []
    if not isinstance(expected, dict) or len(expected) > _LONGEST_MANIFEST:
        strange.append((manifest, "lists no sensors"))
        return []
    return list(expected)


def _tai(text: object) -> float | None:
    try:
        return parse_iso(text) / 1e9 if isinstance(text, str) else None
    except FormatError:
        return None


def row_of(found: Found, facts: ImageFacts, crc32c: str, adler32: str) -> FileRow:
    """As the ledger enters it."""
    return FileRow(
        image=facts.obsid,
        daq_id=facts.daq_id,
        location=found.location,
        detector=found.detector,
        version=found.version,
        path=str(found.path),
        bytes=found.size,
        adler32=adler32,
        crc32c=crc32c,
        missing=found.missing,
        status="conflict" if found.conflict else "written",
        replaces=found.replaces,
        written=found.written,
    )
