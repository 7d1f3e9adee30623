"""The primary header of a raw file.

Every card has one owner: identity, times of trigger and creation, and what the DAQ knows come from the
image and the camera, and a header document cannot change them; telescope, exposure and weather come from
the document. Order and groups are those of `keywords.GROUPS`; what else a document holds follows in a group
of its own.

A keyword of which nothing is known has no card. One that the document gives as null or NaN has a card with
an undefined value, except where FITS reserves the keyword with a type (OBJECT, RADESYS, OBSGEO-X,
DATE-...): such a card must not be undefined and is left out. `undefined_cards` writes every other card of
the table, undefined where nothing is known, as the observatory's own writer does; FITS verifiers warn of
each of them.

All times are TAI, DATE and MJD (creation) too: the files of the observatory since HEADVER 101 have UTC
there, 37 s behind every other time of the same header although TIMESYS says TAI.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from raftwright.camera import detsize
from raftwright.errors import FormatError
from raftwright.rawfile import times
from raftwright.rawfile.cards import Card, Notes, Value, blank, continued, title
from raftwright.rawfile.keywords import GROUPS, HEADVER, OCCASIONAL, OWN, TYPES, Keyword
from raftwright.rawfile.names import ImageName, raw_file_name
from raftwright.rawfile.reserved import (
    is_structural,
    is_wcs,
    must_be_defined,
    reserved_problem,
    typed,
    usable_wcs,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from raftwright.camera import Camera, Detector, Geometry
    from raftwright.daq import ImageInfo, SourceInfo
    from raftwright.rawfile.document import HeaderDocument, Record

__all__ = ["CHECKSUM_CARDS", "MAX_EXTRA", "Exposure", "cards_of", "primary_cards"]

MAX_EXTRA: Final = 2000
"""Keywords of a document beyond the table that a primary header takes."""

_STRUCTURE: Final = (
    Card("SIMPLE", True, "conforms to the FITS standard"),
    Card("BITPIX", 8, "bits per data value"),
    Card("NAXIS", 0, "number of axes"),
    Card("EXTEND", True, "Extensions are permitted"),
)
CHECKSUM_CARDS: Final = (
    Card("CHECKSUM", "0" * 16, "checksum for the current HDU"),
    Card("DATASUM", "0", "checksum of the data records"),
)
"""Placeholders: the writer sets the values."""

_LONGSTRN: Final = Card("LONGSTRN", "OGIP 1.0", "The OGIP long string convention may be used")
# Own keywords that every document has with a value of its own making: no conflict worth a note.
_QUIET: Final = frozenset({"DATE", "MJD", "HEADVER", "FILENAME", "TIMESYS", "BUNIT", "DETSIZE"})
_PAIRS: Final = {
    "DATE-OBS": "MJD-OBS",
    "DATE-BEG": "MJD-BEG",
    "DATE-END": "MJD-END",
    "DATE-TRG": "MJD-TRG",
}


@dataclass(frozen=True)
class Exposure:
    """What the primary headers of the CCDs of one source have in common.

    `created` is the time of writing, in nanoseconds TAI (see `times`).
    """

    name: ImageName
    camera: Camera
    image: ImageInfo
    source: SourceInfo
    geometry: Geometry
    created: int
    document: HeaderDocument | None = None
    undefined_cards: bool = False
    header: str = ""
    """`missing` where there should be a document and was none in time."""


def primary_cards(
    exposure: Exposure,
    detector: Detector,
    *,
    missing: int = 0,
    fill: int = -1,
    version: int = 1,
    replaces: str | None = None,
    notes: Notes | None = None,
) -> list[Card]:
    """Cards of the primary header of one CCD, in order, CHECKSUM and DATASUM last (values to be set).

    `missing` pixels did not arrive and hold `fill`. A version above 1 names the file that it stands for. What
    of the document could not be used is said to `notes`.
    """
    notes = notes if notes is not None else Notes()
    own = _own_values(exposure, detector, missing, fill)
    own["FILENAME"] = raw_file_name(exposure.name, detector.header_raft, detector.header_slot, version)
    if version > 1:
        own.update(FILEVERS=version, REPLACES=replaces)
    return cards_of(
        exposure.camera,
        detector,
        own,
        exposure.document,
        emulated=exposure.image.extra.get("emulated"),
        undefined_cards=exposure.undefined_cards,
        notes=notes,
    )


def cards_of(
    camera: Camera,
    detector: Detector,
    own: Mapping[str, Value],
    document: HeaderDocument | None,
    *,
    emulated: object = None,
    undefined_cards: bool = False,
    notes: Notes,
) -> list[Card]:
    """The same from what the writer itself knows (`own`) and a document."""
    records = _records(document, detector)
    name = document.name if document is not None else ""
    values, extra = _document_values(records, own, name, notes)
    _settle_times(values, name, notes)
    defaults = _defaults(camera, emulated, values)
    cards = list(_STRUCTURE)
    for group in GROUPS:
        chosen = [
            card
            for keyword in group.keywords
            if (card := _card(keyword, own, values, defaults, undefined_cards)) is not None
        ]
        if group.title and (chosen or not group.optional):
            cards += [blank(), title(group.title)]
        cards += chosen
    if extra:
        cards += [blank(), title("Further keywords of the header document"), *extra]
    if any(continued(card.value) and not card.is_hierarch for card in cards):
        cards.insert(len(_STRUCTURE), _LONGSTRN)
    return [*cards, title("Checksums"), *CHECKSUM_CARDS]


def _records(document: HeaderDocument | None, detector: Detector) -> dict[str, Record]:
    if document is None:
        return {}
    return document.section(
        "PRIMARY",
        f"{detector.raft}{detector.slot}_PRIMARY",
        f"{detector.header_raft}{detector.header_slot}_PRIMARY",
    )


def _own_values(exposure: Exposure, detector: Detector, missing: int, fill: int) -> dict[str, Value]:
    """What the writer itself knows; None where it does not (then the document may say it)."""
    name, camera, image, source = exposure.name, exposure.camera, exposure.image, exposure.source
    trigger = times.parse_iso(image.timestamp) if image.timestamp else None
    return {
        "BINX": 1,
        "BINY": 1,
        "DETSIZE": detsize(detector.type, exposure.geometry),
        "DATE": times.iso(exposure.created),
        "MJD": times.mjd(exposure.created),
        "DATE-TRG": times.iso(trigger) if trigger is not None else None,
        "MJD-TRG": times.mjd(trigger) if trigger is not None else None,
        "OBSID": str(name),
        "BUNIT": "adu",
        "TIMESYS": "TAI",
        "INSTRUME": camera.instrume,
        "CAMCODE": name.source,
        "CONTRLLR": name.controller,
        "DAYOBS": name.dayobs,
        "SEQNUM": name.seqnum,
        "IMAGETAG": _hex(image.id),
        "OBSANNOT": image.annotation,
        "CCD_MANU": detector.type.ccd_manu or None,
        "CCD_TYPE": detector.type.ccd_type or None,
        "CCDSLOT": detector.header_slot,
        "RAFTBAY": detector.header_raft,
        "FIRMWARE": _hex(source.firmware),
        "PLATFORM": source.platform or None,
        "CONTNUM": _hex(source.serial),
        "DAQVERS": source.software or None,
        "DAQFOLD": image.folder or None,
        "LSST_NUM": detector.serial or None,
        "RAFTNAME": camera.constants.get("RAFTNAME") or detector.raft_serial or None,
        "HEADVER": HEADVER,
        "MISSPIX": missing,
        "FILLVAL": fill if missing else None,
        "HDRSTATE": exposure.header or None,
    }


def _hex(text: str) -> str | None:
    """Lower case, without leading zeros; None when there is none."""
    return (text.lower().lstrip("0") or "0") if text else None


def _defaults(camera: Camera, emulated: object, values: Mapping[str, Value]) -> dict[str, Value]:
    """Values for keywords that a document may give, for when it does not."""
    defaults: dict[str, Value] = {
        "CCDGAIN": 1.0,
        "CCDNOISE": 10.0,
        "IMGTYPE": "UNKNOWN",
        "TELESCOP": camera.telescop or None,
        "EMUIMAGE": emulated if isinstance(emulated, str) else None,
    }
    notes = Notes()  # constants of a camera file: checked when the camera was read
    for keyword, value in camera.constants.items():
        defaults[keyword] = typed(keyword, value, TYPES.get(keyword, "*"), camera.name, notes)
    begin, end = values.get("DATE-BEG"), values.get("DATE-END")
    if isinstance(begin, str) and isinstance(end, str):
        defaults["DARKTIME"] = round((times.parse_iso(end) - times.parse_iso(begin)) * 1e-9, 4)
    return defaults


def _document_values(
    records: Mapping[str, Record], own: Mapping[str, Value], name: str, notes: Notes
) -> tuple[dict[str, Value], list[Card]]:
    """Values of the table's keywords, and cards of all other keywords of a document."""
    values: dict[str, Value] = {}
    further: dict[str, Record] = {}
    structural = []
    for keyword, record in records.items():
        where = f"{name}: line {record.line}"
        if is_structural(keyword):
            structural.append(keyword)
        elif keyword in OWN and own.get(keyword) is not None:
            if keyword not in _QUIET and not _same(record.value, own[keyword]):
                notes.add(
                    f"{where}: {keyword}: {ascii(record.value)[:40]} is not what image and camera say, "
                    f"which is {ascii(own[keyword])[:40]}; theirs counts"
                )
        elif keyword in TYPES:
            values[keyword] = typed(keyword, record.value, TYPES[keyword], where, notes)
        else:
            further[keyword] = record
    if "TIMESYS" in records:
        values["TIMESYS"] = records["TIMESYS"].value
    if structural:
        notes.add(f"{name}: left out, because they describe the file itself: {', '.join(sorted(structural))}")
    for keyword, record in further.items():
        values[keyword] = typed(keyword, record.value, "*", f"{name}: line {record.line}", notes)
    if not usable_wcs(values, name, notes):
        for keyword in [keyword for keyword in values if is_wcs(keyword)]:
            del values[keyword]
    for keyword in list(values):
        problem = reserved_problem(keyword, values[keyword]) if values[keyword] is not None else None
        if problem and keyword != "TIMESYS":
            notes.add(f"{name}: {keyword}: left out: {ascii(values[keyword])[:40]}, where {problem}")
            del values[keyword]
    extra = [
        Card(keyword, values.pop(keyword), record.comment)
        for keyword, record in list(further.items())
        if keyword in values and (values[keyword] is not None or not must_be_defined(keyword))
    ]
    if len(extra) > MAX_EXTRA:
        notes.add(f"{name}: {len(extra) - MAX_EXTRA} keywords after {MAX_EXTRA} unknown ones were left out")
    return values, extra[:MAX_EXTRA]


def _same(a: Value, b: Value) -> bool:
    return a is None or a == b or (isinstance(a, str) and isinstance(b, str) and a.strip() == b.strip())


def _settle_times(values: dict[str, Value], name: str, notes: Notes) -> None:
    """Times of the document in TAI, start of integration under both of its names, MJDs beside the dates."""
    scale = values.pop("TIMESYS", None)
    scale = scale.strip().upper() if isinstance(scale, str) else "TAI"
    if scale == "UTC":
        for date, day in _PAIRS.items():
            moment = values.get(date)
            values.pop(day, None)
            if isinstance(moment, str):
                try:
                    values[date] = times.iso(times.utc_to_tai(times.parse_iso(moment)))
                except FormatError as error:
                    notes.add(f"{name}: {date}: left undefined: {error}")
                    values[date] = None
        notes.add(f"{name}: its times are UTC; they were turned into TAI")
    elif scale != "TAI":
        for date, day in _PAIRS.items():
            values.pop(date, None)
            values.pop(day, None)
        notes.add(f"{name}: TIMESYS is {scale[:20]!r}; its times are left out: give them as TAI or UTC")
    begin = values.get("DATE-BEG") or values.get("DATE-OBS")
    if isinstance(begin, str):
        if values.get("DATE-OBS") not in (None, begin):
            notes.add(
                f"{name}: DATE-OBS differs from DATE-BEG; both are the start of the integration: {begin}"
            )
            values.pop("MJD-OBS", None)
        values["DATE-OBS"] = values["DATE-BEG"] = begin
        days = [values.get(day) for day in ("MJD-BEG", "MJD-OBS")]
        values["MJD-OBS"] = values["MJD-BEG"] = next((day for day in days if isinstance(day, float)), None)
    for date, day in _PAIRS.items():
        moment = values.get(date)
        if isinstance(moment, str) and not isinstance(values.get(day), float):
            values[day] = _mjd(moment)


def _mjd(moment: str) -> float | None:
    try:
        return times.mjd(times.parse_iso(moment))
    except FormatError:
        return None


def _card(
    keyword: Keyword,
    own: Mapping[str, Value],
    values: Mapping[str, Value],
    defaults: Mapping[str, Value],
    undefined_cards: bool,
) -> Card | None:
    name = keyword.name
    value = own.get(name) if keyword.origin == "own" else None
    if value is None:
        value = values.get(name)
    if value is None:
        value = defaults.get(name)
    if value is None:
        wanted = name in values or (undefined_cards and name not in OCCASIONAL)
        if not wanted or must_be_defined(name):
            return None
    return Card(name, value, keyword.comment)
