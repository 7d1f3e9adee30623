"""A source under assembly: chunks in any order, split anywhere, twice or never."""

from __future__ import annotations

import gc
import itertools
import mmap
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftwright import _core
from raftwright.errors import FormatError, UsageError

LAYOUTS = {
    "science": _core.StreamLayout(18, 0x1FFFF, list(range(47, -1, -1))),
    "guider": _core.StreamLayout(18, 0x20000, range(32)),
    "wavefront": _core.StreamLayout(18, 0x20000, range(16)),
    "mini": _core.StreamLayout(16, 0, [1, 0, 3, 2, 5, 4, 7, 6]),
    "odd": _core.StreamLayout(7, 0x55, range(8)),
}


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[str, int, int, int, list[tuple[int, int]]]:
    """(layout, width, height, seed, chunks): chunks cover the stream or not, overlap or not, in any order."""
    name = draw(st.sampled_from(sorted(LAYOUTS)))
    width, height = draw(st.integers(1, 70)), draw(st.integers(1, 40))
    size = width * height * LAYOUTS[name].sample_bytes
    borders = sorted({0, size, *draw(st.lists(st.integers(0, size), max_size=30))})
    chunks = list(itertools.pairwise(borders))
    extra = draw(st.lists(st.tuples(st.integers(0, size), st.integers(0, size)).map(sorted), max_size=5))
    kept = [chunk for chunk in chunks if draw(st.integers(0, 9)) > 0] + [(a, b) for a, b in extra]
    return name, width, height, draw(st.integers(0, 2**32 - 1)), draw(st.permutations(kept))


@settings(max_examples=150)
@given(delivery=deliveries(), threads=st.sampled_from([1, 3]))
def test_products_are_exact_where_bytes_came_and_filled_elsewhere(
    delivery: tuple[str, int, int, int, list[tuple[int, int]]], threads: int
) -> None:
    name, width, height, seed, chunks = delivery
    layout = LAYOUTS[name]
    packed = np.random.default_rng(seed).bytes(width * height * layout.sample_bytes)
    readout = _core.Readout(layout, width, height, pixels=True, compressed=True)
    present = np.zeros(len(packed), bool)
    for begin, end in chunks:
        assert readout.add(begin, packed[begin:end], threads) == np.count_nonzero(~present[begin:end])
        present[begin:end] = True
    assert readout.received == present.sum()
    assert readout.duplicate == sum(b - a for a, b in chunks) - present.sum()
    assert readout.complete == present.all()
    readout.finish(-7, threads)

    expected = _core.unpack_reference(layout, packed).reshape(-1, height, width)
    for channel, plane in enumerate(layout.plane_of):
        first = np.arange(width * height) * layout.sample_bytes * 8 + channel * layout.bits
        missing = np.zeros(width * height, bool)
        for byte in range(-(-(layout.bits + 7) // 8) + 1):
            at = np.minimum(first // 8 + byte, (first + layout.bits - 1) // 8)
            missing |= ~present[at]
        listed = np.zeros_like(missing)
        for start, count in readout.missing(plane):
            assert not listed[start : start + count].any()
            listed[start : start + count] = True
        assert np.array_equal(listed, missing)
        wanted = np.where(missing.reshape(height, width), -7, expected[plane])
        assert np.array_equal(readout.plane(plane), wanted)


def test_arrays_outlive_everything_else() -> None:
    layout = LAYOUTS["wavefront"]
    packed = np.random.default_rng(5).bytes(40 * 30 * layout.sample_bytes)
    readout = _core.Readout(layout, 40, 30)
    readout.add(0, packed)
    plane = readout.plane(3)
    assert plane.shape == (30, 40)
    assert plane.dtype == np.int32
    assert not plane.flags.owndata
    assert np.shares_memory(plane, readout.plane(3))
    del readout
    gc.collect()
    assert np.array_equal(plane.ravel(), _core.unpack_reference(layout, packed)[3])


@pytest.mark.parametrize("samples", [1, 2, 7, 63, 64, 65, 1024, 64 * 20 - 1, 64 * 20])
def test_any_size_of_chunks_gives_the_same_pixels(samples: int) -> None:
    """D028: from one sample of all channels to the whole stream at once."""
    layout = LAYOUTS["science"]
    packed = np.random.default_rng(28).bytes(64 * 20 * layout.sample_bytes)
    readout = _core.Readout(layout, 64, 20, pixels=True, compressed=True)
    step = samples * layout.sample_bytes
    for start in range(0, len(packed), step):
        readout.add(start, packed[start : start + step])
    readout.finish()
    assert readout.complete
    found = np.stack([readout.plane(k).ravel() for k in range(48)])
    assert np.array_equal(found, _core.unpack_reference(layout, packed))


def test_many_python_threads_add_at_once() -> None:
    """D021."""
    layout = LAYOUTS["science"]
    width, height = 64, 300
    packed = np.random.default_rng(6).bytes(width * height * layout.sample_bytes)
    readout = _core.Readout(layout, width, height, pixels=True, compressed=True)
    step = 50_001
    starts = list(range(0, len(packed), step))

    def work(first: int) -> None:
        for start in starts[first::4]:
            readout.add(start, memoryview(packed)[start : start + step])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert readout.complete
    assert np.array_equal(
        np.stack([readout.plane(k).ravel() for k in range(48)]), _core.unpack_reference(layout, packed)
    )


def test_hostile_chunks_are_refused_and_change_nothing() -> None:
    layout = LAYOUTS["mini"]
    readout = _core.Readout(layout, 10, 10)
    for offset, length in [(readout.size, 1), (readout.size - 1, 2), (2**63, 5)]:
        with pytest.raises(FormatError, match="past the stream"):
            readout.add(offset, bytes(length))
    with pytest.raises(TypeError):
        readout.add(-1, b"x")
    assert readout.received == 0
    readout.finish()
    readout.finish()
    with pytest.raises(UsageError, match="finished"):
        readout.add(0, b"x")
    with pytest.raises(UsageError):
        readout.plane(8)
    for width, height in [(0, 1), (1, 0), (2**40, 2**40)]:
        with pytest.raises(UsageError):
            _core.Readout(layout, width, height)
    with pytest.raises(UsageError, match="product"):
        _core.Readout(layout, 1, 1, pixels=False, compressed=False)


def test_planes_may_lie_in_memory_of_the_callers() -> None:
    layout = LAYOUTS["science"]
    width, height = 33, 7
    packed = np.random.default_rng(4).bytes(width * height * layout.sample_bytes)
    needed = _core.planes_bytes(48, width, height)
    memory = mmap.mmap(-1, needed)
    readout = _core.Readout(layout, width, height, memory=memory)
    readout.add(0, packed)
    expected = _core.unpack_reference(layout, packed)
    first = np.frombuffer(memory, np.int32, width * height)
    assert np.array_equal(first, expected[0])
    plane = readout.plane(0)
    assert np.shares_memory(plane, first)
    del first, readout
    gc.collect()
    with pytest.raises(BufferError):
        memory.close()  # the array still holds it
    assert np.array_equal(plane.ravel(), expected[0])
    del plane
    memory.close()


def test_memory_that_cannot_hold_the_planes_is_refused() -> None:
    """D034."""
    layout = LAYOUTS["mini"]
    needed = _core.planes_bytes(8, 10, 10)
    assert needed >= 8 * 10 * 10 * 4
    memory = mmap.mmap(-1, needed + 64)
    for bad in (memoryview(memory)[: needed - 1], memoryview(memory)[4:], memoryview(memory)[:0]):
        with pytest.raises(UsageError, match="memory"):
            _core.Readout(layout, 10, 10, memory=bad)
        bad.release()
    with pytest.raises(BufferError):
        _core.Readout(layout, 10, 10, memory=bytes(needed))
    with pytest.raises(UsageError, match="none were asked for"):
        _core.Readout(layout, 10, 10, pixels=False, compressed=True, memory=memory)
    memory.close()  # nobody kept it
    with pytest.raises(UsageError):
        _core.planes_bytes(0, 10, 10)
