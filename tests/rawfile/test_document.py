"""Header documents: types as written, and nothing in them that can do more than be refused."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from raftwright.errors import FormatError, RaftwrightError, StorageError
from raftwright.rawfile import read_header_document
from raftwright.rawfile.document import MAX_BYTES

ONE = "PRIMARY:\n- {{keyword: KEY, value: {}, comment: c}}\n"


def value_of(text: str) -> object:
    document = read_header_document(ONE.format(text).encode())
    return document.sections["PRIMARY"][0].value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("y", "y"),
        ("n", "n"),
        ("on", "on"),
        ("no", "no"),
        ("1e5", "1e5"),
        ("0012", "0012"),
        ("'0012'", "0012"),
        ("'1.5'", "1.5"),
        ("'true'", "true"),
        ("'null'", "null"),
        ("''", ""),
        ("12:30:00", "12:30:00"),
        ("2026-11-22", "2026-11-22"),
        ("2026-11-22T01:02:03.004", "2026-11-22T01:02:03.004"),
        ("!!str 15", "15"),
        ("true", True),
        ("False", False),
        ("15", 15),
        ("-3", -3),
        ("1.5", 1.5),
        ("1.0e+5", 1e5),
        (".5", 0.5),
        ("null", None),
        ("~", None),
        ("", None),
        (".nan", None),
        (".NaN", None),
        ("-.inf", None),
        ("1.0e+999", None),
    ],
)
def test_types_stay(text: str, value: object) -> None:
    found = value_of(text)
    assert found == value
    assert type(found) is type(value)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60),
    st.sampled_from(
        ["y", "n", "on", "off", "yes", "1e5", "12e03", "0012", "0x1F", "1_000", "12:30:00", "nan", ".nan"]
    ),
    st.sampled_from(
        ["null", "~", "true", "2026-11-22", "=", "<<", "- a", "a: b", "1.", ".5", "+1", "0b1", "0o7", "#"]
    ),
)


@given(SCALARS)
def test_what_the_header_service_dumps_is_what_is_read(value: object) -> None:
    text = yaml.safe_dump({"PRIMARY": [{"keyword": "KEY", "value": value, "comment": ""}]})
    (record,) = read_header_document(text.encode()).sections["PRIMARY"]
    if isinstance(value, float) and not math.isfinite(value):
        assert record.value is None
    else:
        assert (record.value, type(record.value)) == (value, type(value))


def test_sections() -> None:
    document = read_header_document(
        b"""
PRIMARY:
- {keyword: null, value: null, comment: '---- a title ----'}
- {keyword: FILTER, value: r_57, comment: filter}
R22_S00_PRIMARY:
- {keyword: CCD_SERN, value: '1', comment: ''}
R22S01_PRIMARY: []
R22_S00_Segment10:
- {keyword: AVGBIAS, value: 1.5, comment: ''}
R22S00_REB_COND:
- {keyword: TEMP1, value: 1, comment: ''}
CONFIG_COND:
"""
    )
    assert set(document.sections) == {
        "PRIMARY",
        "R22S00_PRIMARY",
        "R22S01_PRIMARY",
        "R22S00_Segment10",
        "R22S00_REB_COND",
        "CONFIG_COND",
    }
    assert [record.keyword for record in document.sections["PRIMARY"]] == ["FILTER"]
    assert document.sections["PRIMARY"][0].line == 4
    assert document.section("PRIMARY", "R22S00_PRIMARY").keys() == {"FILTER", "CCD_SERN"}
    assert document.notes == ()


def test_what_cannot_be_used_is_said_with_its_line() -> None:
    document = read_header_document(
        b"""PRIMARY:
- {keyword: "B\xc3\x84D", value: 1}
- {keyword: LIST, value: [1, 2]}
- {keyword: TAG, value: !!python/object/apply:os.system [ls]}
- 17
- {keyword: TWICE, value: 1}
- {keyword: TWICE, value: 2}
- {keyword: 5, value: 1}
"""
    )
    assert {record.keyword: record.value for record in document.sections["PRIMARY"]} == {
        "LIST": None,
        "TAG": None,
        "TWICE": 2,
    }
    for line in (2, 3, 4, 5, 7, 8):
        assert any(f"line {line}" in note for note in document.notes), line


BOMB = "a: &a [x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
REFUSED = {
    "no YAML": b"a: b: c",
    "unfinished": b"PRIMARY: [",
    "a list": b"- 1",
    "a scalar": b"hello",
    "a section that is a scalar": b"PRIMARY: 1",
    "a section that is a mapping": b"PRIMARY: {A: 1}",
    "deep": b"[" * 1_000_000,
    "deep mappings": b"{a: " * 100_000,
    "two documents": b"A: []\n---\nB: []",
    "a control character": b"A: \x00",
    "an unknown alias": b"A: *x",
    "10 MB": b"PRIMARY:\n- {keyword: A, value: '" + b"x" * 10_000_000 + b"'}",
    "many records": b"PRIMARY:\n" + b"- {keyword: A}\n" * 150_000,
    "a section without a name": b"? [a]\n: []",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_refused_quickly_with_one_sentence(data: bytes) -> None:
    begun = time.process_time()
    with pytest.raises(FormatError) as error:
        read_header_document(data)
    assert time.process_time() - begun < 5
    assert len(str(error.value)) < 500
    assert "\n" not in str(error.value)


def test_aliases_do_not_multiply() -> None:
    begun = time.process_time()
    document = read_header_document(BOMB.encode())
    assert time.process_time() - begun < 2
    assert all(not records for records in document.sections.values())
    shared = read_header_document(b"A: &a\n- {keyword: K, value: 1}\nB: *a\n")
    assert shared.sections["A"] == shared.sections["B"]


def test_a_value_of_a_megabyte_is_data() -> None:
    document = read_header_document(b"PRIMARY:\n- {keyword: A, value: '" + b"x" * 1_000_000 + b"'}")
    assert len(str(document.sections["PRIMARY"][0].value)) == 1_000_000


@pytest.mark.parametrize("data", [b"", b"# nothing\n", b"---\n...\n", b"null"])
def test_an_empty_document_says_nothing(data: bytes) -> None:
    assert read_header_document(data).sections == {}


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "header.yaml"
    with pytest.raises(StorageError) as error:
        read_header_document(path)
    assert str(path) in str(error.value)
    path.write_bytes(b"PRIMARY:\n- {keyword: A, value: \xff\xfe}\n")
    assert read_header_document(str(path)).sections["PRIMARY"][0].keyword == "A"
    path.write_bytes(b"x" * (MAX_BYTES + 1))
    with pytest.raises(FormatError, match="MiB"):
        read_header_document(path)
    with pytest.raises(StorageError):
        read_header_document(tmp_path)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_or_read(data: bytes) -> None:
    said = ""
    try:
        read_header_document(data)
    except RaftwrightError as error:
        said = str(error)
    assert len(said) < 1000
