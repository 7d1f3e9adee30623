"""Values brought to the type of their card."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftwright.header.conversion import convert
from raftwright.header.emit import header_text
from raftwright.header.spec import CardType, Source
from raftwright.rawfile import read_header_document

TYPES: list[CardType] = ["string", "integer", "float", "boolean", "date", "mjd"]


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("y", "string", "y"),
        ("0012", "string", "0012"),
        ("1e5", "string", "1e5"),
        (12, "string", "12"),
        (True, "string", "true"),
        (15, "float", 15.0),
        ("12.5", "float", 12.5),
        (True, "integer", 1),
        (3.0, "integer", 3),
        ("42", "integer", 42),
        (1, "boolean", True),
        ("no", "boolean", False),
        ("2026-11-23T01:02:03.4567", "date", "2026-11-23T01:02:03.456"),
        (1795395723.456, "date", "2026-11-23T01:02:03.456"),
        (61367.25, "mjd", 61367.25),
        ("2026-11-23T06:00:00", "mjd", 61367.25),
    ],
)
def test_types(value: Any, kind: CardType, expected: Any) -> None:
    """D022: a string card keeps what looks like a number, a truth or a date."""
    found, complaint = convert(value, kind)
    assert found == expected
    assert type(found) is type(expected)
    assert complaint == ""


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "NaN", " -Infinity"])
@pytest.mark.parametrize("kind", ["float", "integer", "mjd", "date"])
def test_not_finite_numbers_are_null(value: Any, kind: CardType) -> None:
    """D023."""
    assert convert(value, kind) == (None, "nan")


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("north", "float"),
        (1.5, "integer"),
        (2**70, "integer"),
        ([1, 2], "float"),
        ({"a": 1}, "string"),
        ("yesterday", "date"),
        (0, "date"),
        (0.0, "date"),
        (-5.0, "date"),
        (1e300, "date"),
        (True, "date"),
        ("perhaps", "boolean"),
        ("2026-11-23T01:02:03Z", "date"),
    ],
)
def test_what_is_not_of_the_type_is_null_and_said(value: Any, kind: CardType) -> None:
    assert convert(value, kind) == (None, "wrong_type")


def test_illegal_characters_are_replaced_and_said() -> None:
    """D023."""
    assert convert("Čerenkov\n5 µm\x00", "string") == ("?erenkov?5 ?m?", "illegal_characters")
    text, complaint = convert("x" * 5000, "string")
    assert (len(str(text)), complaint) == (2000, "too_long")


def test_scale_offset_and_words() -> None:
    kelvin = Source("telemetry", "A.b", "t", offset=-273.15)
    assert convert(283.15, "float", kelvin) == (pytest.approx(10.0), "")
    radians = Source("telemetry", "A.b", "t", scale=57.29577951308232)
    assert convert(math.pi, "float", radians) == (pytest.approx(180.0), "")
    assert convert("north", "float", radians) == (None, "wrong_type")
    assert convert(1e308, "float", radians) == (None, "nan")
    words = Source("telemetry", "A.b", "t", words={"1": "NO", "3": "FULLY"})
    assert convert(3, "string", words) == ("FULLY", "")
    assert convert(1.0, "string", words) == ("NO", "")
    assert convert("FULLY", "string", words) == ("FULLY", "")
    assert convert(2, "string", words) == (None, "wrong_type")


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=80),
    st.lists(st.integers(), max_size=3),
)


@given(value=SCALARS, kind=st.sampled_from(TYPES))
def test_any_value_comes_back_from_the_document_as_it_was_converted(value: Any, kind: CardType) -> None:
    """D022, D023: what is written is read again with type and value; nothing can break the document."""
    converted, _ = convert(value, kind)
    data = header_text(
        [("PRIMARY", [("KEY", converted, "it's: a #comment"), (None, None, "---- title ----")])]
    )
    data.decode("ascii")
    document = read_header_document(data)
    record = document.section("PRIMARY")["KEY"]
    assert record.value == converted
    assert type(record.value) is type(converted)
    assert record.comment == "it's: a #comment"
    assert document.notes == ()
