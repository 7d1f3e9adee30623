"""The header of an image extension: one segment, uncompressed (the core makes the compressed header of it).

    XTENSION BITPIX NAXIS NAXIS1 NAXIS2 PCOUNT GCOUNT  "---- Checksums ----"  CHECKSUM
    CHANNEL EXTNAME CCDSUM DATASEC DETSEC DETSIZE DTV.. DTM.. coordinate systems   (from the camera)
    BSCALE BZERO INHERIT  [keywords of the header document]  [MISSPIX]  DATASUM

The cards are the same for every image of a detector with the same readout geometry; their text is kept.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

from raftwright.camera import segment_wcs
from raftwright.rawfile.cards import CARD, Card, Notes, Value, encode, one_card, title
from raftwright.rawfile.reserved import is_structural, is_wcs, must_be_defined, reserved_problem, typed

if TYPE_CHECKING:
    from raftwright.camera import Camera, Detector, Geometry
    from raftwright.rawfile.document import HeaderDocument

__all__ = ["expected_cards", "extension_header"]

_BEFORE: Final = (
    Card("XTENSION", "IMAGE", "marks beginning of new HDU"),
    Card("BITPIX", 32, "bits per data value"),
    Card("NAXIS", 2, "number of axis"),
)
_SCALING: Final = (
    Card("BSCALE", 1.0),
    Card("BZERO", 0.0),
    Card("INHERIT", True, "Extension inherits values from primary header"),
)
_DATASUM: Final = Card("DATASUM", "0", "checksum of the data records")


def expected_cards(camera: Camera, detector: Detector, index: int, geometry: Geometry) -> list[Card]:
    """All cards of the extension of segment `index` (HDU order, from 0), with placeholders for the sums."""
    segment = detector.segments[index]
    return [
        *_BEFORE,
        Card("NAXIS1", geometry.width, "size of the n'th axis"),
        Card("NAXIS2", geometry.height, "size of the n'th axis"),
        Card("PCOUNT", 0, "Required value"),
        Card("GCOUNT", 1, "Required value"),
        title("Checksums"),
        Card("CHECKSUM", "0" * 16, "checksum for the current HDU"),
        *(Card(*card) for card in segment_wcs(camera, detector, segment, geometry)),
        *_SCALING,
        _DATASUM,
    ]


@functools.lru_cache(maxsize=4096)
def _text(camera: Camera, detector: Detector, index: int, geometry: Geometry) -> bytes:
    return encode(expected_cards(camera, detector, index, geometry))


def extension_header(
    camera: Camera,
    detector: Detector,
    index: int,
    geometry: Geometry,
    *,
    document: HeaderDocument | None = None,
    missing: int = 0,
    notes: Notes | None = None,
) -> bytes:
    """Header text of the extension of segment `index`: 80 bytes a card, without END.

    Keywords that the document gives for the segment are added if they are neither structural nor the
    camera's; where they are the camera's and differ, the camera counts, which is said to `notes`.
    """
    text = _text(camera, detector, index, geometry)
    extra = _further(camera, detector, index, geometry, document, notes) if document is not None else []
    if missing:
        extra.append(Card("MISSPIX", missing, "Pixels that did not arrive and were filled"))
    if not extra:
        return text
    return text[:-CARD] + encode(extra, notes) + text[-CARD:]


def _further(
    camera: Camera,
    detector: Detector,
    index: int,
    geometry: Geometry,
    document: HeaderDocument,
    notes: Notes | None,
) -> list[Card]:
    name = detector.segments[index].name
    records = document.section(
        f"{detector.raft}{detector.slot}_{name}", f"{detector.header_raft}{detector.header_slot}_{name}"
    )
    if not records:
        return []
    notes = notes if notes is not None else Notes()
    known: dict[str, Value] = {c.keyword: c.value for c in expected_cards(camera, detector, index, geometry)}
    cards: list[Card] = []
    contradicted = []
    for keyword, record in records.items():
        if keyword in known and not is_structural(keyword):
            if record.value is not None and record.value != known[keyword]:
                contradicted.append(keyword)
            continue
        if is_structural(keyword) or is_wcs(keyword) or len(cards) >= 200:
            continue
        value = typed(keyword, record.value, "*", f"{document.name}: line {record.line}", notes)
        if value is None and must_be_defined(keyword):
            continue
        if value is not None and reserved_problem(keyword, value):
            notes.add(
                f"{document.name}: line {record.line}: {keyword}: left out: "
                f"{reserved_problem(keyword, value)}"
            )
            continue
        value = one_card(keyword, value, f"{document.name}: line {record.line}", notes)
        cards.append(Card(keyword, value, record.comment))
    if contradicted:
        notes.add(
            f"{document.name}: what it says of {', '.join(sorted(contradicted))} of segments of "
            f"{detector.name} is not what the camera and the readout registers say; theirs counts"
        )
    return cards
