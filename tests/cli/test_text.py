"""What is printed: safe text, columns, numbers; and how errors become lines and exit codes."""

from __future__ import annotations

import errno
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftwright import errors
from raftwright.cli import figures
from raftwright.cli.console import Console, clean, columns
from raftwright.cli.exits import Exit, exit_code, one_line
from raftwright.cli.options import names


@given(st.text())
def test_clean_text_is_one_printable_line(text: str) -> None:
    line = clean(text)
    assert line.isprintable()
    if text.isprintable() and len(text) < 2000:
        assert line == text


def test_escapes_can_be_read() -> None:
    assert clean("a\x1b[31mb\r\nc\x9b\u202ed\udc80") == r"a\x1b[31mb\r\nc\x9b\u202ed\udc80"


def test_what_is_too_long_is_cut_and_says_so() -> None:
    line = clean("x" * 10_000_000)
    assert len(line) < 2100
    assert "10000000 characters" in line


def test_columns() -> None:
    lines = columns([("a", 1), ("long\n", 1000)], right=(1,))
    assert lines == ["a          1", r"long\n  1000"]
    assert columns([]) == []


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (999_400, "999 kB"),
        (999_949, "1.00 MB"),
        (382_205_952, "382 MB"),
        (57_600, "57.6 kB"),
        (8.5e9, "8.50 GB"),
        (2e15, "2000 TB"),
    ],
)
def test_sizes(octets: float, text: str) -> None:
    assert figures.size(octets) == text


def test_rates_and_times() -> None:
    assert figures.pixel_rate(1.7e8, 1.0) == "0.17 Gpixel/s"
    assert figures.pixel_rate(5e6, 1.0) == "5.00 Mpixel/s"
    assert figures.rate(1e6, 0.0).endswith("B/s")
    assert figures.seconds(0.421) == "0.42 s"
    assert figures.seconds(12.34) == "12.3 s"
    assert figures.seconds(123.4) == "2 min 03 s"


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 10, "0 %"),
        (10, 10, "100 %"),
        (1, 10**9, "< 0.01 %"),
        (10**9 - 1, 10**9, "> 99.99 %"),
        (1, 8, "12.5 %"),
    ],
)
def test_a_share_is_never_rounded_to_nothing_or_all(part: int, whole: int, text: str) -> None:
    assert figures.percent(part, whole) == text


def test_counts() -> None:
    assert figures.count(1, "CCD") == "1 CCD"
    assert figures.count(2000, "CCD") == "2,000 CCDs"
    assert figures.count(2, "file is", "files are") == "2 files are"


def test_name_lists() -> None:
    assert names(None) is None
    assert names(["R22, R01", "R10"]) == ["R22", "R01", "R10"]
    for nothing in ([""], [","], [" ", ","]):
        with pytest.raises(errors.UsageError, match="names nothing"):
            names(nothing)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("x"), Exit.USAGE),
        (errors.FormatError("x"), Exit.ERROR),
        (errors.CameraError("x"), Exit.ERROR),
        (errors.NotFoundError("x"), Exit.ERROR),
        (errors.StorageError(errno.ENOSPC, "x", "y"), Exit.ERROR),
        (errors.ConflictError("x"), Exit.CONFLICT),
        (errors.IncompleteError("x"), Exit.INCOMPLETE),
        (errors.MissingExtraError("x"), Exit.ERROR),
        (ValueError("x"), Exit.ERROR),
    ],
)
def test_exit_codes(error: Exception, code: Exit) -> None:
    assert exit_code(error) == code


def test_exit_codes_are_distinct() -> None:
    assert sorted(int(code) for code in Exit) == [0, 1, 2, 3, 4, 5]


def test_system_errors_name_place_and_remedy() -> None:
    text = one_line(errors.StorageError(errno.ENOSPC, "cannot be written (No space left on device)", "/a/b"))
    assert text.startswith("/a/b: cannot be written (No space left on device); free some space there ")
    assert one_line(OSError(errno.EACCES, "Permission denied", "/a")).startswith("/a: Permission denied; ")
    told = errors.StorageError(errno.ENOSPC, "cannot write /a/b: full; free space", "/a/b")
    assert one_line(told) == "cannot write /a/b: full; free space"


def test_lookup_errors_have_no_quotes() -> None:
    assert one_line(errors.NotFoundError("no camera 'X'")) == "no camera 'X'"


def test_json_takes_what_json_has_no_form_for(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.begin(json=True)
    console.command = "test"
    console.say("for people")
    console.note("for people")
    content = {
        "nan": math.nan,
        "path": np.float64(1.5),
        "n": np.int32(3),
        "set": (1, 2),
        "text": "\x1b[31m\u202e",
    }
    console.answer("ok", Exit.OK, content)
    console.answer("ok", Exit.OK, {"second": 1})
    captured = capsys.readouterr()
    assert captured.err == ""
    assert json.loads(captured.out) == {
        "command": "test",
        "status": "ok",
        "exit_code": 0,
        "nan": None,
        "path": 1.5,
        "n": 3,
        "set": [1, 2],
        "text": "\x1b[31m\u202e",
    }
    assert captured.out.isascii()
    assert "\x1b" not in captured.out
