"""Cards: the style of the real files, every value there and back, nothing illegal in a header."""

from __future__ import annotations

import gzip
import string
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from raftwright.errors import FormatError
from raftwright.rawfile.cards import (
    MAX_STRING,
    Card,
    Notes,
    blank,
    canonical_keyword,
    encode,
    float_text,
    format_card,
    parse_header,
    title,
)

REAL = [  # from files of the LSST cameras
    ("DATE    = '2024-04-05T10:12:06.323' / Creation Date and Time of File", "2024-04-05T10:12:06.323"),
    ("MJD     =   60405.425073182676 / Modified Julian Date that the file was written", 60405.425073182676),
    ("CCDGAIN =                  1.0 / Rough guess at overall system gain (e-/DNB)", 1.0),
    ("TIMESYS = 'TAI     '           / The time scale used", "TAI"),
    ("RASTART =                      / RA of telescope from AZSTART and ELSTART", None),
    ("TESTTYPE= 'OBJECT' / BIAS, DARK, FE55, FLAT, LAMBDA, PERSISTENCE, SPOT, SFLAT_<l", "OBJECT"),
    ("FPRTCSCS= '3420770139'      / F.P. checksum for RaftTempControlStatus conf. cat.", "3420770139"),
    ("BOTXCAM =       -395.023 / X position of lamp/source in camera coordinate system", -395.023),
    ("HAS_MASK=                    F", False),
    ("HIERARCH STUTTER ROWS= 0 / The number of row shifts per stutter", 0),
    ("HIERARCH STUTTER ROWS=  / The number of row shifts per stutter", None),
    ("HIERARCH SIMULATED MJD-OBS= 60405.41557267216 / Simulated MJD-OBS", 60405.41557267216),
    ("HIERARCH HAS_ARCHIVE= F", False),
]


@pytest.mark.parametrize(("image", "value"), REAL)
def test_real_cards_read_and_written(image: str, value: object) -> None:
    card = parse_header(image.ljust(80).encode())[0]
    assert card.value == value
    assert type(card.value) is type(value)
    assert "".join(format_card(card)).rstrip() == image


def headers(data: bytes) -> Iterator[bytes]:
    """Header text of each HDU, by the simplest walk there is."""
    at = 0
    while at < len(data):
        start = at
        while data[at : at + 80].rstrip() != b"END":
            at += 80
        text, at = data[start:at], -(-(at + 80) // 2880) * 2880
        yield text
        cards = {card.keyword: card.value for card in parse_header(text) if card.has_value}
        size = abs(int(cards["BITPIX"])) // 8 if cards["NAXIS"] else 0
        for axis in range(int(cards["NAXIS"])):
            size *= int(cards[f"NAXIS{axis + 1}"])
        at += -(-(size + int(cards.get("PCOUNT", 0))) // 2880) * 2880


@pytest.mark.parametrize(
    "name",
    ["comCamSim__CC_S_20240404_000780_R22_S01.fits", "guider__MC_C_20240918_000013_R00_SG0_guider.fits"],
)
def test_every_card_of_modern_files_is_reproduced(name: str, require_shared: Callable[..., Path]) -> None:
    data = require_shared("data", "raws", name).read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    count = 0
    for text in headers(data):
        for start, card in enumerate(parse_header(text)):
            assert "".join(format_card(card)).encode() == text[80 * start : 80 * start + 80]
            count += 1
    assert count > 2000


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2001.0, "2001.0"),
        (1e-5, "1.0E-05"),
        (1.5e300, "1.5E+300"),
        (-0.0, "-0.0"),
        (1e16, "1.0E+16"),
        (0.1, "0.1"),
    ],
)
def test_floats_always_show_a_point(value: float, text: str) -> None:
    assert float_text(value) == text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 2**63, -(2**63) - 1, 10**400])
def test_numbers_without_a_fits_form_are_undefined_and_said(value: float) -> None:
    notes = Notes()
    (image,) = format_card(Card("SEEING", value, "c"), notes)
    assert image == "SEEING  =                      / c".ljust(80)
    assert len(notes) == 1
    assert "SEEING" in next(iter(notes))
    assert parse_header(image.encode())[0].value is None


def test_illegal_characters_are_replaced_and_said() -> None:
    notes = Notes()
    (image,) = format_card(Card("OBJECT", "ä\nb\x00\u2028", "é"), notes)
    assert image.rstrip() == "OBJECT  = '??b??   '           / ?"
    assert len(notes) == 2


def test_keywords() -> None:
    assert canonical_keyword("stutter.rows") == "STUTTER ROWS"
    assert canonical_keyword("HIERARCH SIMULATE  MTMOUNT") == "SIMULATE MTMOUNT"
    assert canonical_keyword("date-obs") == "DATE-OBS"
    for hostile in ("", "É", "A=B", "A'B", "A/B", "x" * 10_000_000, "\n", " ", "A\x00"):
        assert canonical_keyword(hostile) is None
        with pytest.raises(FormatError):
            format_card(Card(hostile, 1))


def test_titles_and_blanks() -> None:
    assert encode([blank(), title("Weather information")]).decode() == " " * 80 + (
        "        ---- Weather information ----".ljust(80)
    )


def test_a_very_long_string_is_cut_and_said() -> None:
    notes = Notes()
    images = format_card(Card("PROGRAM", "x" * 10_000_000), notes)
    assert parse_header("".join(images).encode())[0].value == "x" * MAX_STRING
    assert any(str(MAX_STRING) in note for note in notes)


def test_a_long_hierarch_string_is_cut_to_its_card() -> None:
    notes = Notes()
    (image,) = format_card(Card("SHUTTER OPEN MODEL", "it's " * 40, "comment"), notes)
    assert len(image) == 80
    value = parse_header(image.encode())[0].value
    assert isinstance(value, str)
    assert ("it's " * 40).startswith(value)
    assert len(notes) == 1


KEYWORDS = st.one_of(
    st.text(string.ascii_uppercase + string.digits + "-_", min_size=1, max_size=8),
    st.lists(st.text(string.ascii_uppercase + "_", min_size=1, max_size=9), min_size=2, max_size=4).map(
        " ".join
    ),
).filter(
    lambda k: k not in ("COMMENT", "HISTORY", "CONTINUE", "END", "HIERARCH") and not k.startswith("HIERARCH ")
)
PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=300)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    PRINTABLE,
)


@given(KEYWORDS, VALUES, st.text(max_size=100))
def test_what_is_written_is_read(keyword: str, value: object, comment: str) -> None:
    notes = Notes()
    images = format_card(Card(keyword, value, comment), notes)  # type: ignore[arg-type]
    assert all(len(image) == 80 and image.isascii() and image.isprintable() for image in images)
    (card,) = parse_header("".join(images).encode())
    assert card.keyword == keyword
    if isinstance(value, str):
        expected = value.rstrip(" ")
        assert isinstance(card.value, str)
        assert card.value == expected or (" " in keyword and expected.startswith(card.value) and len(notes))
    else:
        assert (card.value, type(card.value)) == (value, type(value)) or len(notes)


@given(KEYWORDS.filter(lambda k: " " not in k), VALUES)
def test_astropy_reads_the_same(keyword: str, value: object) -> None:
    header = fits.Header.fromstring("".join(format_card(Card(keyword, value, "c"))))  # type: ignore[arg-type]
    read = header[keyword]
    if value is None:
        assert read is None or isinstance(read, fits.card.Undefined)
    elif isinstance(value, str):
        assert read.rstrip() == value.rstrip(" ").rstrip()
    else:
        assert read == value


@given(st.binary(max_size=40).map(lambda junk: junk[: len(junk) // 80 * 80] + (junk * 80)[:240]))
def test_nothing_in_a_header_breaks_the_reader(junk: bytes) -> None:
    text = junk[: len(junk) // 80 * 80]
    assert len(parse_header(text)) <= len(text) // 80


def test_continuations_without_end_take_no_time() -> None:
    cards = parse_header(
        b"LONGS   = 'x&'".ljust(80) + b"CONTINUE  'yyyyyyyyyyyyyyyyyyyy&'".ljust(80) * 100_000
    )
    assert len(cards) == 1
    with pytest.raises(FormatError):
        parse_header(b"A" * 79)
