"""Times of headers: TAI as text and as MJD."""

from __future__ import annotations

import time

import pytest
from astropy.time import Time
from hypothesis import given
from hypothesis import strategies as st

from raftwright.errors import FormatError
from raftwright.rawfile import times

SOME_NS = st.integers(0, 4_000_000_000 * 10**9)


@given(SOME_NS)
def test_iso_and_back(moment: int) -> None:
    assert times.parse_iso(times.iso(moment)) == moment // 1_000_000 * 1_000_000


@given(SOME_NS.map(lambda ns: ns // 10**6 * 10**6))
def test_mjd_is_astropys(moment: int) -> None:
    assert times.mjd(moment) == pytest.approx(Time(times.iso(moment), scale="tai").mjd, abs=2e-11)


def test_real_header() -> None:
    # MC_C_20240918_000013: GDSSTART and the dates of its primary header.
    assert times.mjd(times.parse_iso("2024-09-18T13:51:28.532")) == pytest.approx(60571.57741356501, abs=1e-9)


@pytest.mark.parametrize(
    "utc", ["2026-11-22T00:00:00.000", "2016-12-31T23:59:59.000", "1999-06-01T12:00:00.000"]
)
def test_utc_to_tai_is_astropys(utc: str) -> None:
    expected = Time(utc, scale="utc").tai
    assert times.iso(times.utc_to_tai(times.parse_iso(utc))) == expected.isot


def test_now_is_ahead_of_utc() -> None:
    assert times.now() - time.time_ns() == pytest.approx(37e9, abs=1e8)


WRONG = [
    "",
    "now",
    "2026-13-01",
    "2026-02-30T00:00:00",
    "2026-01-01T25:00:00",
    "2026-01-01T00:00:00Z",
    "2026-01-01T00:00:00+00:00",
    "2026-01-01T00:00:00\n2",
    "0000-01-01",
    "٢٠٢٦-01-01",
    "12:30:00",
    "x" * 10**7,
]


@pytest.mark.parametrize("text", WRONG, ids=range(len(WRONG)))
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(FormatError):
        times.parse_iso(text)


@pytest.mark.parametrize("text", ["9999-12-31T23:59:60", "9999-12-31T24:00:00"])
def test_nothing_after_the_last_year(text: str) -> None:
    """What ISO 8601 text cannot say again is no time."""
    with pytest.raises(FormatError):
        times.parse_iso(text)
    last = times.parse_iso("9999-12-31T23:59:59.999")
    assert times.iso(last) == "9999-12-31T23:59:59.999"
    with pytest.raises(FormatError, match="9999"):
        times.utc_to_tai(last)
    with pytest.raises(FormatError, match="1960"):
        times.utc_to_tai(times.parse_iso("0001-01-01"))
