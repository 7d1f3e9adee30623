"""Descrambling and its inverse through the library's door: layouts as data, kernels against the reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import raftwright
from raftwright import _core
from raftwright.errors import FormatError, UsageError


@st.composite
def layouts(draw: st.DrawFn) -> _core.StreamLayout:
    """Any layout whose samples are whole bytes; the LSST cameras' often."""
    bits, channels = draw(
        st.one_of(
            st.sampled_from([(18, 48), (18, 32), (18, 16), (16, 8)]),
            st.tuples(st.integers(1, 32), st.integers(1, 20)).map(lambda t: (t[0], t[1] * 8)),
        )
    )
    order = draw(st.permutations(range(channels)))
    return _core.StreamLayout(bits, draw(st.integers(0, 2**bits - 1)), order)


@given(layout=layouts(), samples=st.integers(0, 70), seed=st.integers(0, 2**32 - 1))
def test_kernels_give_what_the_reference_gives(layout: _core.StreamLayout, samples: int, seed: int) -> None:
    packed = np.random.default_rng(seed).bytes(samples * layout.sample_bytes)
    expected = _core.unpack_reference(layout, packed)
    for level in _core.available_levels():
        assert np.array_equal(raftwright.unpack(layout, packed, level=level), expected)


@given(layout=layouts(), samples=st.integers(0, 70), seed=st.integers(0, 2**32 - 1))
def test_scramble_inverts_unpack_both_ways(layout: _core.StreamLayout, samples: int, seed: int) -> None:
    packed = np.random.default_rng(seed).bytes(samples * layout.sample_bytes)
    planes = raftwright.unpack(layout, packed)
    # A 32-bit pixel above 2^31 - 1 has no int32 of its own sign: those layouts only go one way.
    if layout.bits < 32:
        assert raftwright.scramble(layout, planes) == packed
        assert np.array_equal(raftwright.unpack(layout, raftwright.scramble(layout, planes)), planes)


def test_a_plane_holds_its_channel() -> None:
    layout = _core.StreamLayout(16, 0, [3, 0, 2, 1, 4, 5, 6, 7])
    packed = np.arange(16, dtype="<u2").tobytes()
    planes = raftwright.unpack(layout, packed, shape=(1, 2))
    assert planes.shape == (8, 1, 2)
    assert planes[3].tolist() == [[0, 8]]
    assert planes[0].tolist() == [[1, 9]]


def test_the_example_bytes_of_the_format() -> None:
    """Values of a science board's first CCD block; the XOR is 0x1FFFF."""
    layout = _core.StreamLayout(18, 0x1FFFF, range(16))
    packed = bytes.fromhex("579e5979f64280ffff") + bytes(27)
    assert raftwright.unpack(layout, packed)[:4, 0].tolist() == [25000, 25001, 130000, 131073]


def test_unpack_fills_the_array_it_is_given() -> None:
    layout = _core.StreamLayout(18, 0x1FFFF, range(48))
    packed = np.random.default_rng(1).bytes(100 * layout.sample_bytes)
    slab = np.full((48, 116), -5, np.int32)
    assert raftwright.unpack(layout, packed, out=slab[:, :100]) is not None
    assert np.array_equal(slab[:, :100], _core.unpack_reference(layout, packed))
    assert (slab[:, 100:] == -5).all()


def test_values_out_of_range_are_refused_or_clipped() -> None:
    layout = _core.StreamLayout(18, 0x20000, range(16))
    planes = np.zeros((16, 3), np.int64)
    planes[2] = [-1, 2**18, 2**40]
    with pytest.raises(UsageError, match="clip=True"):
        raftwright.scramble(layout, planes)
    packed = raftwright.scramble(layout, planes, clip=True)
    assert raftwright.unpack(layout, packed)[2].tolist() == [0, 2**18 - 1, 2**18 - 1]


def test_wrong_arguments_say_what_is_wrong() -> None:
    layout = _core.StreamLayout(18, 0x1FFFF, range(48))
    with pytest.raises(FormatError, match="not whole samples of 108"):
        raftwright.unpack(layout, bytes(107))
    with pytest.raises(UsageError, match=r"shape \(48, 1\)"):
        raftwright.unpack(layout, bytes(108), out=np.zeros((48, 2), np.int32))
    with pytest.raises(UsageError, match="no image of 2 x 3"):
        raftwright.unpack(layout, bytes(108), shape=(2, 3))
    with pytest.raises(UsageError, match="not available"):
        raftwright.unpack(layout, bytes(108), level="mmx")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="contiguous"):
        raftwright.unpack(layout, np.zeros((216,), np.uint8)[::2])
    with pytest.raises(UsageError, match="integers"):
        raftwright.scramble(layout, np.zeros((48, 1)))
    with pytest.raises(UsageError, match="shape"):
        raftwright.scramble(layout, np.zeros((47, 1), np.int32))
    for arguments in [
        (0, 0, range(8)),
        (33, 0, range(8)),
        (18, 1 << 18, range(16)),
        (18, 0, [0] * 16),
        (3, 0, [0]),
    ]:
        with pytest.raises(UsageError):
            _core.StreamLayout(*arguments)


def test_layouts_compare_by_value() -> None:
    one, same, other = (_core.StreamLayout(18, mask, range(16)) for mask in (1, 1, 2))
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert one != "layout"
