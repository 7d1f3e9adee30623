"""Headers of image extensions and condition HDUs, against the real ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from raftwright.camera import Geometry
from raftwright.camera import camera as find_camera
from raftwright.rawfile import Notes, open_raw, read_header_document
from raftwright.rawfile.cards import CARD, Card, encode, format_card, parse_header
from raftwright.rawfile.conditions import condition_cards
from raftwright.rawfile.segments import expected_cards, extension_header

# Cards that a compressor takes out, renames or sets, and what the reference does not define in older files.
STRUCTURE = {
    "XTENSION",
    "BITPIX",
    "NAXIS",
    "NAXIS1",
    "NAXIS2",
    "PCOUNT",
    "GCOUNT",
    "CHECKSUM",
    "DATASUM",
    "ZHECKSUM",
    "ZDATASUM",
}
TABLE_WORDS = """
TFIELDS TTYPE1 TFORM1 ZIMAGE ZTILE1 ZTILE2 ZCMPTYPE ZNAME1 ZVAL1 ZNAME2 ZVAL2 ZTENSION ZBITPIX
ZNAXIS ZNAXIS1 ZNAXIS2 ZPCOUNT ZGCOUNT"""
TABLE = set(TABLE_WORDS.split())


def test_order_of_an_extension() -> None:
    camera = find_camera("LSSTCam")
    detector = camera.detector("R22_S11")
    cards = parse_header(extension_header(camera, detector, 0, detector.type.geometry))
    assert len(cards) == 116
    words = [card.keyword for card in cards]
    assert words[:7] == ["XTENSION", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "PCOUNT", "GCOUNT"]
    assert (words[7], cards[7].comment.strip()) == ("", "---- Checksums ----")
    assert words[8:15] == ["CHECKSUM", "CHANNEL", "EXTNAME", "CCDSUM", "DATASEC", "DETSEC", "DETSIZE"]
    assert words[-4:] == ["BSCALE", "BZERO", "INHERIT", "DATASUM"]
    values = {card.keyword: card.value for card in cards}
    assert (values["BSCALE"], values["BZERO"], values["INHERIT"]) == (1.0, 0.0, True)
    assert (values["NAXIS1"], values["NAXIS2"]) == (576, 2048)


def test_text_is_kept_for_the_next_image() -> None:
    camera = find_camera("LSSTCam")
    detector = camera.detector("R22_S11")
    geometry = detector.type.geometry
    same = Geometry(**{name: getattr(geometry, name) for name in geometry.__struct_fields__})
    assert extension_header(camera, detector, 3, geometry) is extension_header(camera, detector, 3, same)
    assert extension_header(camera, detector, 3, geometry) != extension_header(camera, detector, 4, geometry)


REAL = [
    ("comCamSim__CC_S_20240404_000780_R22_S01.fits", True),
    ("lsstCam__30211212000310-R22-S22-det098.fits", False),
    ("bot__3019103101985-R22-S11-det094.fits", False),
]


@pytest.mark.parametrize(("name", "modern"), REAL)
def test_cards_are_those_of_real_files(name: str, modern: bool, require_shared: Callable[..., Path]) -> None:
    raw = open_raw(require_shared("data", "raws", name))
    assert len(raw.names) == 16
    compared = 0
    for index, segment in enumerate(raw.detector.segments):
        cards = raw.segment_header(segment.name).cards
        theirs = [
            card
            for card in cards
            if card.keyword not in STRUCTURE | TABLE | {"HEADVER"} and not (card.keyword == "" and not modern)
        ]
        ours = [
            card
            for card in expected_cards(raw.camera, raw.detector, index, raw.geometry)
            if card.keyword not in STRUCTURE
        ]
        if not modern:
            present = {card.keyword for card in theirs}
            absent = {card.keyword for card in ours if card.keyword not in present}
            assert absent <= {"", "INHERIT", "BSCALE", "BZERO"}
            ours = [card for card in ours if card.keyword in present]
        assert encode(ours) == encode(theirs)  # keywords, order, types, values and comments
        compared += len(ours)
    assert compared > 16 * 100


def test_structural_cards_of_a_real_plain_file(require_shared: Callable[..., Path]) -> None:
    raw = open_raw(require_shared("data", "raws", "bot__3019103101985-R22-S11-det094.fits"))
    theirs = [card for card in raw.segment_header("Segment10").cards if card.keyword in STRUCTURE]
    ours = [
        card
        for card in expected_cards(raw.camera, raw.detector, 0, raw.geometry)
        if card.keyword in STRUCTURE
    ]
    for mine, real in zip(ours, theirs, strict=True):
        assert (mine.keyword, mine.comment) == (real.keyword, real.comment)
        if mine.keyword not in ("CHECKSUM", "DATASUM"):
            assert mine.value == real.value


def test_keywords_of_the_document() -> None:
    camera = find_camera("LSSTCam")
    detector = camera.detector("R22_S00")
    document = read_header_document(
        b"""R22S00_Segment10:
- {keyword: XTENSION, value: TABLE, comment: ''}
- {keyword: NAXIS1, value: 7, comment: ''}
- {keyword: EXTNAME, value: Other, comment: ''}
- {keyword: DATASEC, value: '[1:509,1:2000]', comment: wrong}
- {keyword: CCDSUM, value: '1 1', comment: the same}
- {keyword: AVGBIAS, value: 123.5, comment: mean of the overscan}
- {keyword: CRVAL1Z, value: 1.0, comment: a system of its own}
- {keyword: DATE-X, value: soon, comment: ''}
"""
    )
    notes = Notes()
    text = extension_header(
        camera, detector, 0, detector.type.geometry, document=document, missing=9, notes=notes
    )
    plain = extension_header(camera, detector, 0, detector.type.geometry)
    assert text[: len(plain) - CARD] == plain[:-CARD]
    further = parse_header(text[len(plain) - CARD : -CARD])
    assert [(card.keyword, card.value) for card in further] == [("AVGBIAS", 123.5), ("MISSPIX", 9)]
    said = " ".join(notes)
    assert "DATASEC" in said
    assert "DATE-X" in said
    assert "CCDSUM" not in said
    assert extension_header(
        camera, detector, 1, detector.type.geometry, document=document
    ) == extension_header(camera, detector, 1, detector.type.geometry)


def conditions(text: bytes = b"", **settings: bool) -> tuple[list[Card], list[Card]]:
    reb, config = condition_cards(
        find_camera("LSSTCam").detector("R22_S00"), read_header_document(text), **settings
    )
    return reb, config


def test_conditions_of_a_real_file_come_out_the_same(require_shared: Callable[..., Path]) -> None:
    raw = open_raw(require_shared("data", "raws", "comCamSim__CC_S_20240404_000780_R22_S01.fits"))
    for hdu, name in ((17, "REB_COND"), (18, "CONFIG_COND")):
        theirs = parse_header(raw.fits.cards(hdu))
        lines = [
            f"- {{keyword: {card.keyword}, value: {card.value!r}, comment: ''}}\n"
            for card in theirs
            if card.has_value and card.keyword not in STRUCTURE | {"EXTNAME", "TFIELDS"}
        ]
        ours = conditions(f"{name}:\n{''.join(lines)}".encode())[hdu - 17]
        assert len(lines) in (67, 14)

        def shape(cards: list[Card]) -> bytes:
            return encode(Card(c.keyword, "x", c.comment) if c.keyword == "CHECKSUM" else c for c in cards)

        assert shape(ours) == shape(theirs)


def test_conditions_of_which_nothing_is_known() -> None:
    reb, config = conditions()
    assert [card.keyword for card in reb if card.has_value][-3:] == ["CHECKSUM", "EXTNAME", "DATASUM"]
    assert [card.value for card in config if card.keyword == "EXTNAME"] == ["CONFIG_COND"]
    reb, config = conditions(undefined_cards=True)
    assert len(reb) == 12 + 95
    assert [card.keyword for card in config][11:13] == ["FPDAQCS", "FPHIDCS"]
    assert all(card.value is None for card in config[11:-1])


def test_conditions_by_board_and_detector() -> None:
    reb, _ = conditions(
        b"""REB_COND:
- {keyword: TEMP1, value: 1, comment: ''}
- {keyword: TEMP2, value: .nan, comment: ''}
- {keyword: TFORM1, value: 1J, comment: ''}
- {keyword: OWN, value: yes, comment: mine}
R22Reb0_REB_COND:
- {keyword: TEMP3, value: 3.5, comment: ''}
- {keyword: TEMP1, value: 2, comment: ''}
R22S00_REB_COND:
- {keyword: TEMP4, value: 4, comment: ''}
R22Reb1_REB_COND:
- {keyword: TEMP5, value: 5, comment: ''}
"""
    )
    assert [(card.keyword, card.value) for card in reb[11:-1]] == [
        ("TEMP1", 2.0),
        ("TEMP2", None),
        ("TEMP3", 3.5),
        ("TEMP4", 4.0),
        ("OWN", "yes"),
    ]


def test_long_texts_stay_on_one_card() -> None:
    """Nothing announces CONTINUE cards in an extension: no keyword needs them, in the table or not."""
    text = "REB_COND:\n" + "".join(
        f'- {{keyword: {keyword}, value: "{value}", comment: c}}\n'
        for keyword, value in (("HVBIAS", "z" * 500), ("MYTEXT", "y" * 500), ("QUOTES", "'" * 99))
    )
    reb, _ = conditions(text.encode())
    values = {card.keyword: card.value for card in reb}
    assert values["HVBIAS"] == "z" * 60
    assert values["MYTEXT"] == "y" * 60
    assert values["QUOTES"] == "'" * 34
    assert all(len(format_card(card)) == 1 for card in reb)
