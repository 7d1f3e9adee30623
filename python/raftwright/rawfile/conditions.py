"""The condition HDUs of a raw file: REB_COND and CONFIG_COND, binary tables without rows or columns.

Their values come from the header document alone: sections `REB_COND` and `CONFIG_COND`, over them those of
the board (`R22Reb0_REB_COND`) and of the CCD (`R22S00_REB_COND`). LSST's readers merge REB_COND over the
primary header, so that a keyword of which nothing is known has no card here (see `primary` for
`undefined_cards`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from raftwright.rawfile.cards import Card, Notes, one_card, title
from raftwright.rawfile.keywords import CONFIG_COND, REB_COND, Group
from raftwright.rawfile.reserved import is_structural, is_wcs, must_be_defined, reserved_problem, typed

if TYPE_CHECKING:
    from raftwright.camera import Detector
    from raftwright.rawfile.document import HeaderDocument, Record

__all__ = ["NAMES", "condition_cards"]

_GROUPS: Final[tuple[Group, ...]] = (REB_COND, CONFIG_COND)
NAMES: Final = tuple(group.title for group in _GROUPS)
"""EXTNAMEs of the condition HDUs, in order."""

_MAX_EXTRA: Final = 1000
_STRUCTURE: Final = (
    Card("XTENSION", "BINTABLE", "marks beginning of new HDU"),
    Card("BITPIX", 8, "bits per data value"),
    Card("NAXIS", 2, "number of axes"),
    Card("NAXIS1", 0, "size of the n'th axis"),
    Card("NAXIS2", 0, "size of the n'th axis"),
    Card("PCOUNT", 0, "Required value"),
    Card("GCOUNT", 1, "Required value"),
    Card("TFIELDS", 0, "Number of table fields"),
    title("Checksums"),
    Card("CHECKSUM", "0" * 16, "checksum for the current HDU"),
)
_DATASUM: Final = Card("DATASUM", "0", "checksum of the data records")


def condition_cards(
    detector: Detector,
    document: HeaderDocument | None,
    *,
    undefined_cards: bool = False,
    notes: Notes | None = None,
) -> list[list[Card]]:
    """Cards of REB_COND and of CONFIG_COND, with placeholders for the sums."""
    notes = notes if notes is not None else Notes()
    return [
        [
            *_STRUCTURE,
            Card("EXTNAME", group.title, "Name of the extension"),
            *_values(group, _records(group.title, detector, document), document, undefined_cards, notes),
            _DATASUM,
        ]
        for group in _GROUPS
    ]


def _records(what: str, detector: Detector, document: HeaderDocument | None) -> dict[str, Record]:
    if document is None:
        return {}
    places = (
        "",
        f"{detector.raft}{detector.board}_",
        f"{detector.header_raft}{detector.board}_",
        f"{detector.raft}{detector.slot}_",
        f"{detector.header_raft}{detector.header_slot}_",
    )
    return document.section(*(f"{place}{what}" for place in dict.fromkeys(places)))


def _values(
    group: Group,
    records: dict[str, Record],
    document: HeaderDocument | None,
    undefined_cards: bool,
    notes: Notes,
) -> list[Card]:
    name = document.name if document is not None else ""
    cards = []
    for keyword in group.keywords:
        record = records.get(keyword.name)
        if record is not None:
            value = typed(keyword.name, record.value, keyword.type, f"{name}: line {record.line}", notes)
            value = one_card(keyword.name, value, f"{name}: line {record.line}", notes)
            cards.append(Card(keyword.name, value, keyword.comment))
        elif undefined_cards:
            cards.append(Card(keyword.name, None, keyword.comment))
    known = {keyword.name for keyword in group.keywords}
    left_out = []
    for keyword_name, record in records.items():
        if keyword_name in known:
            continue
        value = typed(keyword_name, record.value, "*", f"{name}: line {record.line}", notes)
        wrong = reserved_problem(keyword_name, value) if value is not None else None
        undefined = value is None and must_be_defined(keyword_name)
        if is_structural(keyword_name) or is_wcs(keyword_name) or wrong or len(cards) >= _MAX_EXTRA:
            left_out.append(keyword_name)
        elif not undefined:
            value = one_card(keyword_name, value, f"{name}: line {record.line}", notes)
            cards.append(Card(keyword_name, value, record.comment))
    if left_out:
        notes.add(f"{name}: left out of {group.title}: {', '.join(left_out[:10])}")
    return cards
