"""What every store promises, as assertions: for the tests of whoever writes another one.

    def test_my_store():
        contract.assert_store(MyStore(...))          # at least one image, small ones are quickest

Each function raises AssertionError with what is wrong. Streams are read through twice or more, so that images
of a few hundred kilobytes are the right size.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from functools import partial

import msgspec

from raftwright import _core
from raftwright.camera import Camera
from raftwright.daq.info import ImageInfo, SourceInfo, check_source, decode_info, encode_info
from raftwright.daq.store import DaqImage, Notice, Source, Store
from raftwright.errors import NotFoundError, UsageError

__all__ = ["assert_image", "assert_source", "assert_store"]

_HOSTILE_NAMES = ["", ".", "..", "../x", "/", "a/b", "no such thing", "n\0l", "\ud800", "x" * 5000]


def assert_store(store: Store, camera: Camera | None = None, *, images: int = 2, seed: int = 1) -> None:
    """Checks a store: its catalogue, and the first few images. With a camera, sources must fit its boards."""
    assert isinstance(store, Store), "it lacks a method of Store"
    names = store.images()
    assert names, "the contract can only be checked on a store with an image"
    assert names == sorted(set(names)), "images() must be sorted, without doubles"
    folders = store.folders()
    assert folders == sorted(set(folders)), "folders() must be sorted, without doubles"
    by_folder = {folder: store.images(folder) for folder in folders}
    assert sorted(name for found in by_folder.values() for name in found) == names, (
        "every image is in one folder"
    )
    assert store.images("no such folder") == [], "an unknown folder has no images"
    for name in _HOSTILE_NAMES:
        _refuses(NotFoundError, partial(store.image, name), f"image({name[:20]!a})")
    for name in names[:images]:
        image = store.image(name)
        assert image.info.name == name, f"image({name!r}) is called {image.info.name!r}"
        assert name in by_folder[image.info.folder], f"{name} is not listed in its folder"
        assert store.image(name).info == image.info, "asked again, it says something else"
        assert_image(image, camera, seed=seed)
    underway = store.underway()
    assert underway == sorted(set(underway)), "underway() must be sorted, without doubles"
    begun = time.monotonic()
    for notice in store.notices(timeout=0.0):
        assert isinstance(notice, Notice), "notices() must give Notice"
        assert time.monotonic() - begun < 30, "notices(timeout=0) must end when it is quiet"


def assert_image(image: DaqImage, camera: Camera | None = None, *, seed: int = 1) -> None:
    """Checks an image: its description, and all of its sources."""
    assert isinstance(image, DaqImage), "it lacks a part of DaqImage"
    info = image.info
    assert info.sources, "the contract can only be checked on an image with a source"
    recordable = msgspec.structs.replace(
        info,
        sources=tuple(
            msgspec.structs.replace(
                source,
                file=source.file or source.location.replace("/", "-"),
                crc32c=source.crc32c or "00000000",
            )
            for source in info.sources
        ),
    )
    again: ImageInfo = decode_info(encode_info(recordable), "the description")
    assert again == recordable, "the description must survive being recorded"
    for location in (*_HOSTILE_NAMES, "99/9"):
        if location not in info.locations:
            _refuses(NotFoundError, partial(image.source, location), f"source({location[:20]!a})")
    for expected in info.sources:
        source = image.source(expected.location)
        assert source.info == expected, (
            f"source {expected.location} describes itself otherwise than its image does"
        )
        if camera is not None:
            assert check_source(source.info, camera.board(expected.location)) == source.info.bytes
        assert_source(source, seed=seed)


def assert_source(source: Source, *, seed: int = 1) -> None:
    """Checks a source: bytes are the same however they are asked for, and nothing else can be asked for."""
    assert isinstance(source, Source), "it lacks a part of Source"
    info = source.info
    size = info.bytes
    assert source.final is True, "a source of a complete image is final"
    assert size % info.registers.pixels == 0, f"{size} bytes do not fill the samples of {info.registers}"
    _assert_bounds(source)

    whole = source.read(0, size)
    assert type(whole) is bytes, "read() must give bytes"
    assert len(whole) == size, f"read() gave {len(whole)} bytes of {size}"
    arrived = source.available(0, size)
    _assert_ranges(arrived, 0, size)
    if info.crc32c is not None and arrived == [(0, size)]:
        assert f"{_core.crc32c(whole):08x}" == info.crc32c.lower(), "the CRC-32C is another"

    chance = random.Random(seed)
    for _ in range(50):
        begin = chance.randrange(size)
        length = chance.choice((0, 1, 2, 107, 4096, size)) % (size - begin + 1)
        ranges = source.available(begin, length)
        _assert_ranges(ranges, begin, begin + length)
        assert ranges == _clipped(arrived, begin, begin + length), "available() contradicts itself"
        piece = source.read(begin, length)
        buffer = bytearray(b"\xa5" * (length + 3))
        assert source.readinto(begin, memoryview(buffer)[:length]) == length, (
            "readinto() must fill the buffer"
        )
        assert buffer[length:] == b"\xa5\xa5\xa5", "readinto() wrote beyond the buffer"
        for first, last in ranges:
            assert piece[first - begin : last - begin] == whole[first:last], (
                "read() of a part gave other bytes"
            )
            assert buffer[first - begin : last - begin] == whole[first:last], (
                "readinto() gave other bytes than read()"
            )
    _assert_threads(source, whole, arrived)


def _assert_bounds(source: Source) -> None:
    info: SourceInfo = source.info
    size = info.bytes
    assert source.read(0, 0) == b""
    assert source.read(size, 0) == b"", "nothing, at the end, is within the stream"
    assert source.available(size, 0) == []
    assert source.readinto(size, bytearray(4)) == 0, "at the end there is nothing left to read"
    tail = bytearray(8)
    assert source.readinto(size - 1, tail) == 1, "a buffer is filled up to the stream's end only"
    for offset, length in ((-1, 1), (0, -1), (0, size + 1), (size, 1), (size + 1, 0), (2**70, 1), (0, 2**70)):
        _refuses(UsageError, partial(source.read, offset, length), f"read({offset}, {length})")
        _refuses(UsageError, partial(source.available, offset, length), f"available({offset}, {length})")
    for offset in (-1, size + 1, 2**70):
        _refuses(UsageError, partial(source.readinto, offset, bytearray(1)), f"readinto({offset}, ..)")
    _refuses(UsageError, partial(source.readinto, 0, b"read-only"), "readinto() with a read-only buffer")


def _assert_ranges(ranges: list[tuple[int, int]], begin: int, end: int) -> None:
    reached = begin - 1
    for first, last in ranges:
        assert reached < first < last <= end, (
            f"available() gave {ranges[:5]}: not ordered, apart and within the range"
        )
        reached = last


def _clipped(ranges: list[tuple[int, int]], begin: int, end: int) -> list[tuple[int, int]]:
    cut = [(max(first, begin), min(last, end)) for first, last in ranges]
    return [(first, last) for first, last in cut if first < last]


def _assert_threads(source: Source, whole: bytes, arrived: list[tuple[int, int]]) -> None:
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        try:
            for _ in range(20):
                first, last = chance.choice(arrived)
                begin = chance.randrange(first, last)
                length = min(chance.randrange(1, 20_000), last - begin)
                assert source.read(begin, length) == whole[begin : begin + length], (
                    "reads from threads mix up"
                )
        except BaseException as error:
            failures.append(error)

    if not arrived:
        return
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def _refuses(kind: type[Exception], call: Callable[[], object], what: str) -> None:
    try:
        call()
    except kind:
        return
    except Exception as error:
        raise AssertionError(f"{what} must raise {kind.__name__}, not {error!r}") from error
    raise AssertionError(f"{what} must raise {kind.__name__}")
