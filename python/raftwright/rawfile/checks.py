"""The checks of one raw file, one after another: sums, identity, structure, pixels, sidecar, gaps,
recording."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from raftwright import _core, assembly
from raftwright.camera import camera as find_camera
from raftwright.camera import detsize
from raftwright.errors import FormatError, NotFoundError, RaftwrightError
from raftwright.rawfile.conditions import NAMES as CONDITIONS
from raftwright.rawfile.findings import Finding, Findings, VerifiedFile
from raftwright.rawfile.header import Header
from raftwright.rawfile.names import FileName, ImageName, sidecar_path
from raftwright.rawfile.read import RawFile, open_raw
from raftwright.rawfile.segments import expected_cards
from raftwright.rawfile.sidecar import (
    CONTENT,
    MISSING,
    REPLACES,
    VERSION,
    Runs,
    as_runs,
    read_json,
    run_mask,
    sidecar,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from raftwright.assembly import AssembledImage, Ccd
    from raftwright.camera import Camera, Detector
    from raftwright.daq import DaqImage

__all__ = ["AGAIN", "Recording", "check_file"]

AGAIN: Final = "fetch or assemble it again"
_WANTED: Final[dict[str, type]] = {
    "OBSID": str,
    "INSTRUME": str,
    "CAMCODE": str,
    "CONTRLLR": str,
    "DAYOBS": str,
    "SEQNUM": int,
    "RAFTBAY": str,
    "CCDSLOT": str,
}
_OF_THE_FILE: Final = frozenset(
    ["XTENSION", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "PCOUNT", "GCOUNT", "CHECKSUM", "DATASUM", "EXTNAME"]
)


def check_file(
    path: Path, camera: Camera | None, recording: Recording | None, threads: int | None
) -> tuple[VerifiedFile, list[Finding]]:
    found = Findings(str(path))
    check = _Check(path, found)
    try:
        check.raw = open_raw(path, threads, camera=camera or (recording.camera if recording else None))
        check.run(recording)
    except RaftwrightError as error:
        found.error("", "", str(error).removeprefix(f"{path}: "), AGAIN)
    return check.result(), list(found)


class Recording:
    """The image that files are compared with; one board of it at a time is in memory."""

    def __init__(self, image: DaqImage, camera: Camera | None, threads: int | None) -> None:
        self.image = image
        self.camera = camera if camera is not None else find_camera(image.info.camera)
        self._threads = threads
        self._board: tuple[str, AssembledImage] | None = None

    def location(self, path: Path) -> str:
        """Location of the board that a file is of, by its name; empty where the name does not say."""
        try:
            name = FileName.parse(path)
            return self.camera.detector(f"{name.raft}_{name.slot}").location
        except RaftwrightError:
            return ""

    def ccd(self, detector: Detector) -> Ccd:
        """A CCD of the recording. Raises what assembling its board raises."""
        if self._board is None or self._board[0] != detector.location:
            self._board = None
            assembled = assembly.assemble(
                self.image, camera=self.camera, locations=[detector.location], threads=self._threads
            )
            self._board = (detector.location, assembled)
        return self._board[1][detector.name]


class _Check:
    """The verification of one file."""

    raw: RawFile

    def __init__(self, path: Path, found: Findings) -> None:
        self._path = path
        self._found = found
        self._detector: Detector | None = None
        self._segments = self._pixels = self._compared = self._missing = 0

    def result(self) -> VerifiedFile:
        raw = getattr(self, "raw", None)
        return VerifiedFile(
            path=self._path,
            image=raw.file_header.string("OBSID") if raw is not None else None,
            detector=self._detector.name if self._detector is not None else None,
            segments=self._segments,
            pixels=self._pixels,
            missing_pixels=self._missing,
            compared=self._compared,
            ok=self._found.ok,
        )

    def run(self, recording: Recording | None) -> None:
        raw = self.raw
        self._missing = raw.missing_pixels
        self._sums()
        stamps = "N_STAMPS" in raw.file_header
        try:
            self._detector = raw.detector
        except NotFoundError as error:
            self._found.warning("primary", "", str(error).removeprefix(f"{self._path}: "), "name its camera")
        self._identity()
        if self._detector is not None and not stamps:
            self._structure(self._detector)
        pixels = self._decode()
        self._segments, self._pixels = len(pixels), sum(array.size for array in pixels.values())
        missing = self._sidecar()
        if stamps:
            return
        self._gaps(pixels, missing)
        if recording is not None:
            self._compare(recording, pixels, missing)

    def _sums(self) -> None:
        fits = self.raw.fits
        if fits.trailing:
            self._found.error("", "", f"{fits.trailing} bytes follow the last HDU", AGAIN)
        for hdu in range(len(fits)):
            name = self._hdu_name(hdu)
            for card, holds in zip(("CHECKSUM", "DATASUM"), fits.sums(hdu), strict=True):
                if holds is None:
                    self._found.warning(name, card, "is not there", "nothing protects this HDU")
                elif not holds:
                    self._found.error(name, card, "does not hold: header or data changed since", AGAIN)

    def _hdu_name(self, hdu: int) -> str:
        return str(self.raw.fits.info(hdu)["name"]) or ("primary" if hdu == 0 else f"HDU {hdu}")

    def _identity(self) -> None:
        header = self.raw.file_header
        for keyword, kind in _WANTED.items():
            value = header.get(keyword)
            if value is None:
                self._found.warning("primary", keyword, "is not there or undefined", "readers want it")
            elif not isinstance(value, kind) or isinstance(value, bool):
                problem = f"is {ascii(value)[:40]}, which is no {'text' if kind is str else 'integer'}"
                self._found.error("primary", keyword, problem, AGAIN)
        obsid = header.string("OBSID")
        if obsid is None:
            return
        try:
            name = ImageName.parse(obsid)
        except FormatError as error:
            self._found.error("primary", "OBSID", str(error), AGAIN)
            return
        parts = {
            "CONTRLLR": name.controller,
            "DAYOBS": name.dayobs,
            "SEQNUM": name.seqnum,
            "CAMCODE": name.source,
        }
        self._differ(
            "primary", {key: value for key, value in parts.items() if key in header}, header, "OBSID says"
        )
        try:
            file = FileName.parse(self._path)
        except FormatError:
            return
        parts = {"OBSID": str(file.image), "RAFTBAY": file.raft, "CCDSLOT": file.slot}
        self._differ("primary", parts, header, "the file's name says")
        version = header.get("FILEVERS", 1)
        if version != file.version:
            problem = f"is {ascii(version)[:40]}, but the file's name says {file.version}"
            self._found.error("primary", "FILEVERS", problem, AGAIN)

    def _differ(self, hdu: str, expected: dict[str, Any], header: Header, who: str) -> None:
        for keyword, value in expected.items():
            have = header.get(keyword)
            if have is not None and have != value:
                problem = f"is {ascii(have)[:40]}, but {who} {ascii(value)[:40]}"
                self._found.error(hdu, keyword, problem, AGAIN)

    def _structure(self, detector: Detector) -> None:
        raw, fits = self.raw, self.raw.fits
        names = [self._hdu_name(hdu) for hdu in range(len(fits))]
        expected = [segment.name for segment in detector.segments]
        if names[1 : len(expected) + 1] != expected:
            got = next(
                (n for n, pair in enumerate(zip(names[1:], expected, strict=False)) if pair[0] != pair[1]),
                None,
            )
            at = len(names) if got is None else got + 1
            have = f"is {names[at][:40]!r}" if at < len(names) else "is not there"
            problem = f"{have}, but {detector.name} has {expected[min(at, len(expected)) - 1]} at this place"
            self._found.error(f"HDU {at}", "EXTNAME", problem, AGAIN)
            return
        rest = names[len(expected) + 1 :]
        if rest != list(CONDITIONS):
            problem = f"after the images come {', '.join(rest[:4]) or 'no HDUs'}, not {', '.join(CONDITIONS)}"
            if "MISSPIX" in raw.file_header:  # one of ours: it had them
                self._found.error("", "HDUs", problem, AGAIN)
            else:
                self._found.warning("", "HDUs", problem, "as in files of before 2020")
        geometry = raw.geometry
        if raw.file_header.get("DETSIZE") is not None:
            self._differ(
                "primary",
                {"DETSIZE": detsize(detector.type, geometry)},
                raw.file_header,
                "the camera says",
            )
        for index, name in enumerate(expected):
            info = fits.info(index + 1)
            size = (geometry.height, geometry.width)
            if info["kind"] not in ("image", "compressed") or info["bitpix"] != 32 or info["shape"] != size:
                problem = (
                    f"{info['kind']} of BITPIX {info['bitpix']}, shape {info['shape']}; expected 32, {size}"
                )
                self._found.error(name, "NAXIS", problem, AGAIN)
            self._cards(name, Header(fits.cards(index + 1)), detector, index)

    def _cards(self, name: str, header: Header, detector: Detector, index: int) -> None:
        absent, expected = [], {}
        for card in expected_cards(self.raw.camera, detector, index, self.raw.geometry):
            if not card.has_value or card.keyword in _OF_THE_FILE:
                continue
            if card.keyword in header:
                expected[card.keyword] = card.value
            else:
                absent.append(card.keyword)
        if absent:
            listed = ", ".join(absent[:8]) + (f" and {len(absent) - 8} more" if len(absent) > 8 else "")
            self._found.warning(
                name, "cards", f"{listed} not there", "as in files of before 2024, or of others"
            )
        self._differ(name, expected, header, "the camera says")

    def _decode(self) -> dict[str, NDArray[Any]]:
        """Pixels of all images that decode, with their ZDATASUM checked."""
        raw = self.raw
        decoded = {}
        with contextlib.suppress(FormatError):  # then one by one, to know which
            raw.segments.read()
        for name, hdu in raw.segments.hdus.items():
            try:
                decoded[name] = raw.segments[name]
            except FormatError as error:
                self._found.error(name, "", str(error).removeprefix(f"{self._path}: "), AGAIN)
                continue
            stated = Header(raw.fits.cards(hdu)).string("ZDATASUM")
            # Stamps of guiders have '0' there: their sums were never computed.
            if stated is not None and stated != "0" and not _same_sum(stated, decoded[name]):
                problem = f"is {stated[:20]}, which is not the sum of the decoded pixels"
                self._found.error(name, "ZDATASUM", problem, AGAIN)
        return decoded

    def _sidecar(self) -> Runs:
        """Missing pixels as the sidecar lists them, after comparing it with the header."""
        path = sidecar_path(self._path)
        if not path.is_file():
            self._found.warning("sidecar", "", f"{path.name} is not there", "assemble again to have it")
            return {}
        try:
            content = read_json(path)
        except RaftwrightError as error:
            self._found.error("sidecar", "", str(error).removeprefix(f"{path}: "), AGAIN)
            return {}
        listed = content.pop(MISSING, {})
        self._replaced(content.pop(VERSION, None), content.pop(REPLACES, None))
        expected: dict[str, Any] = json.loads(sidecar(self.raw.file_header.cards))
        del expected[CONTENT]
        if content.pop(CONTENT, None) != "metadata":
            self._found.error("sidecar", CONTENT, "is not 'metadata'", AGAIN)
        wrong = [
            key
            for key in {**expected, **content}
            if key not in content or key not in expected or not _equal(content[key], expected[key])
        ]
        if wrong:
            self._found.error(
                "sidecar",
                ", ".join(ascii(key)[1:-1][:60] for key in wrong[:6]),
                "differs from the header",
                AGAIN,
            )
        runs = as_runs(listed)
        if runs is None:
            self._found.error("sidecar", MISSING, "is no list of [first, count] for each segment", AGAIN)
            return {}
        return runs

    def _replaced(self, version: object, replaces: object) -> None:
        """What a sidecar says of the version before, beside what the header says."""
        header = self.raw.file_header
        said = replaces.get("file") if isinstance(replaces, dict) else None
        for key, value, keyword in ((VERSION, version, "FILEVERS"), (REPLACES, said, "REPLACES")):
            if value != header.get(keyword):
                self._found.error("sidecar", key, f"differs from {keyword} of the header", AGAIN)

    def _gaps(self, pixels: dict[str, NDArray[Any]], missing: Runs) -> None:
        listed = sum(count for runs in missing.values() for _, count in runs)
        if listed != self._missing:
            self._found.error("primary", "MISSPIX", f"is {self._missing}, but {listed} are listed", AGAIN)
        fill = self.raw.file_header.get("FILLVAL")
        if listed and not isinstance(fill, int):
            self._found.error("primary", "FILLVAL", "is not there although pixels are missing", AGAIN)
            return
        bits = self.raw.camera.board(self._detector.location).bits if self._detector is not None else 31
        for name, array in pixels.items():
            if array.dtype.kind in "iu":
                self._gaps_of(name, array, missing.get(name, []), fill if isinstance(fill, int) else 0, bits)
        for name in missing:
            if name not in pixels:
                self._found.error(
                    "sidecar", MISSING, f"lists {ascii(name)[:40]}, which is no image here", AGAIN
                )

    def _gaps_of(
        self, name: str, array: NDArray[Any], runs: list[tuple[int, int]], fill: int, bits: int
    ) -> None:
        flat = array.reshape(-1)
        listed = sum(count for _, count in runs)
        stated = self.raw.segment_header(name).get("MISSPIX", 0)
        if stated != listed:
            self._found.error(name, "MISSPIX", f"is {stated}, but {listed} are listed", AGAIN)
        if not runs and flat.size and flat.min() >= 0 and flat.max() < 1 << bits:
            return
        gone = run_mask(runs, flat.size)
        if gone is None:
            self._found.error("sidecar", f"{MISSING}, {name}", "lists pixels outside the image", AGAIN)
            return
        self._report(name, gone & (flat != fill), flat, array.shape, "is listed as missing, but not filled")
        strange = ~gone & ((flat < 0) | (flat >= 1 << bits))
        self._report(name, strange, flat, array.shape, f"is no value of {bits} bits")

    def _report(
        self, name: str, bad: NDArray[np.bool_], flat: NDArray[Any], shape: tuple[int, ...], what: str
    ) -> None:
        count = int(bad.sum())
        if count:
            first = int(bad.argmax())
            place = f"pixel ({first % shape[-1] + 1}, {first // shape[-1] + 1})"
            also = f", and so are {count - 1} others" if count > 1 else ""
            self._found.error(name, place, f"{flat[first]} {what}{also}", AGAIN)

    def _compare(self, recording: Recording, pixels: dict[str, NDArray[Any]], missing: Runs) -> None:
        detector = self._detector
        name = recording.image.info.name
        if detector is None:
            self._found.error(
                "primary", "", "cannot be compared: it is not known what CCD it shows", "name its camera"
            )
            return
        if self.raw.file_header.string("OBSID") != name:
            obsid = self.raw.file_header.string("OBSID")
            self._found.error("primary", "OBSID", f"is {obsid!a}, the recording is of {name}", "name its own")
            return
        try:
            ccd = recording.ccd(recording.camera.detector(detector.name))
        except RaftwrightError as error:
            self._found.error("", "", f"cannot be compared: {error}", "name another recording")
            return
        for segment, truth in ccd.segments.items():
            if segment not in pixels:
                self._found.error(segment, "", "is in the recording only", AGAIN)
            elif pixels[segment].shape != truth.shape:
                problem = f"has shape {pixels[segment].shape}, in the recording {truth.shape}"
                self._found.error(segment, "NAXIS", problem, AGAIN)
            else:
                self._compare_segment(segment, pixels[segment], truth, missing, ccd)

    def _compare_segment(
        self, segment: str, mine: NDArray[Any], truth: NDArray[np.int32], missing: Runs, ccd: Ccd
    ) -> None:
        import numpy as np

        runs, lost = missing.get(segment, []), ccd.missing.get(segment, [])
        flat, true = mine.reshape(-1), truth.reshape(-1)
        if not runs and not lost and np.array_equal(flat, true):
            self._compared += flat.size
            return
        gone, never = run_mask(runs, mine.size), run_mask(lost, mine.size)
        if gone is None or never is None:
            return  # said already
        both = ~gone & ~never
        self._compared += int(both.sum())
        bad = both & (flat != true)
        count = int(bad.sum())
        if count:
            first = int(bad.argmax())
            place = f"pixel ({first % mine.shape[1] + 1}, {first // mine.shape[1] + 1})"
            problem = f"{flat[first]}, in the recording {true[first]}; {count} pixels differ"
            self._found.error(segment, place, problem, AGAIN)
        if extra := int((gone & ~never).sum()):
            self._found.warning(
                segment,
                "",
                f"{extra} pixels are missing that the recording has",
                "assemble it again elsewhere",
            )
        if extra := int((never & ~gone).sum()):
            self._found.warning(
                segment, "", f"{extra} pixels are not in the recording", "compare with a more complete one"
            )


def _equal(a: object, b: object) -> bool:
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _same_sum(stated: str, pixels: NDArray[Any]) -> bool:
    import numpy as np

    if not stated.isascii() or not stated.isdigit() or len(stated) > 10:
        return False
    if pixels.dtype.kind != "i" or pixels.dtype.itemsize == 1:
        return True  # stored with an offset or scaled: the sum is not that of the values
    data = np.ascontiguousarray(pixels).astype(pixels.dtype.newbyteorder(">")).view(np.uint8).reshape(-1)
    if data.size % 4:
        data = np.pad(data, (0, -data.size % 4))
    total = _core.fits_sum(data.data)
    return int(stated) % 0xFFFFFFFF == total % 0xFFFFFFFF
