"""Doors to stores, and the contract itself: it must notice a store that is wrong."""

from __future__ import annotations

import importlib.metadata
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftwright.camera import Camera, camera
from raftwright.daq import (
    DaqImage,
    ImageInfo,
    MemoryImage,
    MemorySource,
    Notice,
    RecordedStore,
    SimulatedImage,
    SimulatedStore,
    Source,
    SourceInfo,
    Store,
    contract,
    open_store,
)
from raftwright.daq.store import ENTRY_POINTS, check_range, cut_gaps, writable_view
from raftwright.errors import NotFoundError, UsageError

SMALL = [3, 0, 20, 0, 0, 5, 0, 14, 0, 2, 1]


class MemoryStore:
    """The smallest store there is; third parties begin like this."""

    def __init__(self, images: list[DaqImage]) -> None:
        self._images = {image.info.name: image for image in images}

    def folders(self) -> list[str]:
        return sorted({image.info.folder for image in self._images.values()})

    def images(self, folder: str | None = None) -> list[str]:
        return sorted(name for name, image in self._images.items() if folder in (None, image.info.folder))

    def underway(self) -> list[str]:
        return []

    def image(self, name: str) -> DaqImage:
        if name not in self._images:
            raise NotFoundError(f"no image {name[:40]!a}")
        return self._images[name]

    def notices(self, timeout: float | None = None) -> Iterator[Notice]:
        return iter(())


@pytest.fixture
def memory(image: SimulatedImage) -> MemoryImage:
    return copy_of(image, MemoryImage)


def copy_of(image: DaqImage, kind: Callable[..., MemoryImage]) -> MemoryImage:
    data = {
        source.location: image.source(source.location).read(0, source.bytes) for source in image.info.sources
    }
    return kind(image.info, data)


def test_the_smallest_store_fulfils_the_contract(memory: MemoryImage, comcam: Camera) -> None:
    """D029: the one contract of all back-ends."""
    store: Store = MemoryStore([memory])
    contract.assert_store(store, comcam)


def source_with(**methods: Any) -> type[MemoryImage]:
    """Images whose sources have some methods of their own."""
    kind = type("Wrong", (MemorySource,), methods)

    class Wrong(MemoryImage):
        def source(self, location: str) -> MemorySource:
            right = super().source(location)
            return kind(right.info, right.read(0, right.info.bytes))

    return Wrong


def shifted(self: MemorySource, offset: int, length: int) -> bytes:
    check_range(self.info, offset, length)
    return bytes(self._data[offset : offset + length])[::-1]


def short(self: MemorySource, offset: int, length: int) -> bytes:
    check_range(self.info, offset, length)
    return (
        bytes(self._data[offset : offset + length])[:-1]
        if length > 4096
        else bytes(self._data[offset : offset + length])
    )


def unchecked(self: MemorySource, offset: int, length: int) -> bytes:
    return bytes(self._data[offset : offset + length])


def forgetful(self: MemorySource, offset: int, buffer: Any) -> int:
    check_range(self.info, offset, 0)
    view = writable_view(buffer)
    return min(len(view), self.info.bytes - offset)


def overlong(self: MemorySource, offset: int, buffer: Any) -> int:
    check_range(self.info, offset, 0)
    view = writable_view(buffer)
    part = self._data[offset : offset + len(view)]
    view[: len(part)] = part
    return len(view)


def promising(self: MemorySource, offset: int, length: int) -> list[tuple[int, int]]:
    check_range(self.info, offset, length)
    return [(offset, offset + length + 1)]


def empty_ranges(self: MemorySource, offset: int, length: int) -> list[tuple[int, int]]:
    check_range(self.info, offset, length)
    return [(offset, offset + length)]


def wavering(self: MemorySource, offset: int, length: int) -> list[tuple[int, int]]:
    check_range(self.info, offset, length)
    return [(offset, offset + length)] if length > 10_000 else []


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        ({"read": shifted}, "other bytes"),
        ({"read": short}, "read\\(\\) gave"),
        ({"read": unchecked}, "must raise UsageError"),
        ({"readinto": forgetful}, "readinto\\(\\) gave other bytes"),
        ({"readinto": overlong}, "nothing left to read"),
        ({"available": promising}, None),
        ({"available": empty_ranges}, None),
        ({"available": wavering}, "contradicts itself"),
    ],
)
def test_the_contract_notices_wrong_sources(
    memory: MemoryImage, methods: dict[str, Any], words: str | None
) -> None:
    with pytest.raises(AssertionError, match=words):
        contract.assert_image(copy_of(memory, source_with(**methods)))


def test_the_contract_notices_wrong_descriptions(memory: MemoryImage, comcam: Camera) -> None:
    class Renamed(MemoryImage):
        @property
        def info(self) -> ImageInfo:
            return msgspec.structs.replace(self._info, name="another")

    class Restless(MemoryImage):
        @property
        def info(self) -> ImageInfo:
            self.asked = getattr(self, "asked", 0) + 1
            return msgspec.structs.replace(self._info, opcode=self.asked)

    class WrongCrc(MemoryImage):
        def source(self, location: str) -> MemorySource:
            right = super().source(location)
            return MemorySource(
                msgspec.structs.replace(right.info, crc32c="00000000"), right.read(0, right.info.bytes)
            )

    renamed, restless = copy_of(memory, Renamed), copy_of(memory, Restless)
    store = MemoryStore([memory])
    store._images[memory.info.name] = renamed
    with pytest.raises(AssertionError, match="is called 'another'"):
        contract.assert_store(store)
    store._images[memory.info.name] = restless
    with pytest.raises(AssertionError):
        contract.assert_store(store)
    with pytest.raises(AssertionError, match="describes itself otherwise"):
        contract.assert_image(copy_of(memory, WrongCrc))
    wrong = copy_of(memory, WrongCrc)
    with pytest.raises(AssertionError, match="CRC-32C"):
        contract.assert_source(wrong.source("22/0"))
    with pytest.raises(Exception, match="has no board at"):
        contract.assert_image(memory, camera("LATISS"))
    contract.assert_image(memory, comcam)


def test_the_contract_notices_wrong_catalogues(memory: MemoryImage) -> None:
    class Unsorted(MemoryStore):
        def images(self, folder: str | None = None) -> list[str]:
            return super().images(folder) * 2

    class AnyFolder(MemoryStore):
        def images(self, folder: str | None = None) -> list[str]:
            return super().images()

    class AnyName(MemoryStore):
        def image(self, name: str) -> DaqImage:
            return memory

    class KeyErrors(MemoryStore):
        def image(self, name: str) -> DaqImage:
            return self._images[name]

    class Empty(MemoryStore):
        def images(self, folder: str | None = None) -> list[str]:
            return []

    for kind, words in (
        (Unsorted, "sorted"),
        (AnyFolder, "unknown folder"),
        (AnyName, "must raise NotFoundError"),
        (KeyErrors, "must raise NotFoundError, not KeyError"),
        (Empty, "with an image"),
    ):
        with pytest.raises(AssertionError, match=words):
            contract.assert_store(kind([memory]))
    with pytest.raises(AssertionError, match="lacks"):
        contract.assert_store(object())  # type: ignore[arg-type]


gap_lists = st.sets(st.integers(0, 60), max_size=12).map(
    lambda edges: tuple(zip(sorted(edges)[0::2], sorted(edges)[1::2], strict=False))
)


@given(gaps=gap_lists, offset=st.integers(0, 60), length=st.integers(0, 60))
def test_cutting_gaps(gaps: tuple[tuple[int, int], ...], offset: int, length: int) -> None:
    expected = [n for n in range(offset, offset + length) if not any(begin <= n < end for begin, end in gaps)]
    ranges = cut_gaps(gaps, offset, length)
    assert [n for begin, end in ranges for n in range(begin, end)] == expected
    for (_, end), (begin, _) in itertools.pairwise(ranges):
        assert end < begin


def test_stores_by_their_text(recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(open_store(recording), RecordedStore)
    assert isinstance(open_store(str(recording.parent)), RecordedStore)
    assert isinstance(open_store(f"recorded:{recording}"), RecordedStore)
    simulated = open_store("simulated:MiniCam?seed=3&count=2")
    assert isinstance(simulated, SimulatedStore)
    assert simulated.images() == ["MN_S_20261122_000001", "MN_S_20261122_000002"]
    # A directory whose name looks like another store's is a directory.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "simulated:MiniCam").mkdir()
    assert isinstance(open_store("simulated:MiniCam"), RecordedStore)
    for text in ("nowhere", "/nowhere", "", "C:\\nowhere", "recorded:/nowhere", "x" * 5000):
        with pytest.raises((NotFoundError, OSError)) as caught:
            open_store(text)
        assert len(str(caught.value)) < 6000
    with pytest.raises(
        NotFoundError, match=r"no store .nonsuch. is known.* are ipc, recorded, simulated, tcp"
    ):
        open_store("nonsuch:host:1234")


def test_stores_of_other_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    point = importlib.metadata.EntryPoint("mydaq", f"{__name__}:opened", ENTRY_POINTS)
    monkeypatch.setattr(type(point), "load", lambda self: opened)
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda group: [point] if group == ENTRY_POINTS else []
    )
    store = open_store("mydaq:host:1234?x")
    assert isinstance(store, MemoryStore)
    assert store.asked == "host:1234?x"  # type: ignore[attr-defined]
    monkeypatch.setattr(type(point), "load", lambda self: lambda rest: object())
    with pytest.raises(UsageError, match="is no Store"):
        open_store("mydaq:")
    with pytest.raises(NotFoundError, match="mydaq, recorded, simulated"):
        open_store("other:")


def opened(rest: str) -> MemoryStore:
    store = MemoryStore([])
    store.asked = rest  # type: ignore[attr-defined]
    return store


def test_protocols_know_their_own(memory: MemoryImage, image: SimulatedImage) -> None:
    for one in (memory, image):
        assert isinstance(one, DaqImage)
        assert isinstance(one.source("22/0"), Source)
        assert isinstance(one.source("22/0").info, SourceInfo)
    assert not isinstance(memory, Store)
