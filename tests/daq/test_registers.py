"""Registers: the order of the DAQ, sizes that follow, and what cannot be meant."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftwright.camera import Geometry
from raftwright.daq import Registers
from raftwright.daq.registers import MAX_PIXELS
from raftwright.errors import FormatError

ITL = [3, 0, 509, 0, 0, 64, 0, 2000, 0, 48, 1]
E2V = [10, 0, 512, 0, 0, 54, 0, 2002, 0, 46, 2]


def test_the_registers_of_both_vendors() -> None:
    itl, e2v = Registers.parse(ITL), Registers.parse(E2V)
    assert (itl.width, itl.height, e2v.width, e2v.height) == (576, 2048, 576, 2048)
    assert itl.geometry == Geometry(prescan=3, columns=509, overscan=64, rows=2000, parallel_overscan=48)
    assert e2v.geometry == Geometry(prescan=10, columns=512, overscan=54, rows=2002, parallel_overscan=46)
    assert (itl.op_flags, e2v.op_flags) == (1, 2)
    assert itl.as_list() == ITL
    assert itl.geometry.width == itl.width
    assert itl.geometry.height == itl.height


def test_every_value_has_its_place() -> None:
    registers = Registers.parse([1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 7])
    assert registers == Registers(
        under_cols=1,
        pre_cols=2,
        read_cols=4,
        post_cols=8,
        read_cols2=16,
        over_cols=32,
        pre_rows=64,
        read_rows=128,
        post_rows=256,
        over_rows=512,
        op_flags=7,
    )
    # What is dropped (PreCols, PostCols, PreRows, PostRows) is not in the image.
    assert registers.width == 1 + 4 + 16 + 32
    assert registers.height == 128 + 512
    assert registers.geometry.columns == 4 + 16
    assert registers.pixels == registers.width * registers.height


def test_ten_values_and_more_than_eleven() -> None:
    ten = Registers.parse(ITL[:10])
    assert ten.op_flags is None
    assert ten.as_list() == ITL[:10]
    sixteen = Registers.parse((*ITL, 5, 6, 7, 8, 9))
    assert sixteen.further == (5, 6, 7, 8, 9)
    assert sixteen.as_list() == [*ITL, 5, 6, 7, 8, 9]
    assert sixteen.geometry == ten.geometry


@given(
    counts=st.lists(st.integers(0, 1000), min_size=10, max_size=10),
    rest=st.lists(st.integers(0, 2**32 - 1), max_size=6),
)
def test_lists_come_back(counts: list[int], rest: list[int]) -> None:
    values = [*counts, *rest]
    try:
        registers = Registers.parse(values)
    except FormatError:
        assert counts[2] + counts[4] == 0 or counts[7] == 0
        return
    assert registers.as_list() == values
    assert Registers.parse(registers.as_list()) == registers
    assert registers.pixels == registers.geometry.width * registers.geometry.height


@given(
    geometry=st.builds(
        Geometry,
        prescan=st.integers(0, 99),
        columns=st.integers(1, 999),
        overscan=st.integers(0, 99),
        rows=st.integers(1, 999),
        parallel_overscan=st.integers(0, 99),
    )
)
def test_geometry_comes_back(geometry: Geometry) -> None:
    assert Registers.of_geometry(geometry, 1).geometry == geometry


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([], "0 values"),
        (ITL[:9], "before 2020"),
        ([*ITL, 1, 2, 3, 4, 5, 6], "17 values"),
        ([-1, *ITL[1:]], "UnderCols is -1"),
        ([*ITL[:7], -5, *ITL[8:]], "ReadRows is -5"),
        ([*ITL[:2], 2**32, *ITL[3:]], "ReadCols"),
        ([*ITL[:2], 10**5000, *ITL[3:]], "out of all measure"),
        ([*ITL[:2], 0, *ITL[3:]], "no light-sensitive"),
        ([*ITL[:7], 0, *ITL[8:]], "no light-sensitive"),
        ([*ITL[:2], 65536, *ITL[3:]], "cannot be meant"),
        ([*ITL[:7], 65536, *ITL[8:]], "cannot be meant"),
        ([0, 0, 65000, 0, 0, 0, 0, 65000, 0, 0, 1], "cannot be meant"),
        ([*ITL[:10], -1], "OpFlags is -1"),
        ([*ITL, 2**40], "after OpFlags"),
        ([True, *ITL[1:]], "is a bool"),
        ([3.0, *ITL[1:]], "is a float"),
        ([float("nan"), *ITL[1:]], "is a float"),
        (["3", *ITL[1:]], "is a str"),
        ([None] * 11, "is a NoneType"),
        ("0123456789", "str is no list"),
        (None, "NoneType is no list"),
        ({}, "dict is no list"),
    ],
)
def test_what_cannot_be_meant_is_refused(values: Any, words: str) -> None:
    with pytest.raises(FormatError, match=words) as caught:
        Registers.parse(values)
    assert str(caught.value).startswith("registers: ")
    assert len(str(caught.value)) < 300


def test_the_limit_is_the_stated_one() -> None:
    assert Registers.parse([0, 0, 65535, 0, 0, 0, 0, MAX_PIXELS // 65535, 0, 0]).pixels <= MAX_PIXELS
    with pytest.raises(FormatError):
        Registers.parse([0, 0, 65535, 0, 0, 0, 0, MAX_PIXELS // 65535 + 1, 0, 0])


def test_an_object_cannot_be_made_wrong_either() -> None:
    good = dict(zip(Registers.__struct_fields__, ITL, strict=False))
    with pytest.raises(FormatError, match="OpFlags"):
        Registers(**{**good, "op_flags": None}, further=(1,))
    with pytest.raises(FormatError, match="up to 16"):
        Registers(**good, further=(1, 2, 3, 4, 5, 6))
