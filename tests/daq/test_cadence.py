"""Cameras on a cadence: what follows from the clock, and that it does so again after a restart."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raftwright import _core
from raftwright.camera import Camera
from raftwright.daq import (
    CadenceStore,
    RecordedStore,
    ReplayedFrames,
    SimulatedFrames,
    contract,
    simulate_image,
    write_recording,
)
from raftwright.daq.frames import Loaded
from raftwright.daq.info import ImageInfo
from raftwright.errors import NotFoundError, StorageError, UsageError

SMALL = [3, 0, 20, 0, 0, 5, 0, 14, 0, 2, 1]
SIZE = 48384


@pytest.fixture
def frames(comcam: Camera) -> SimulatedFrames:
    return SimulatedFrames(comcam, 5, registers=SMALL, pattern="coordinates")


@pytest.fixture
def cadence(frames: SimulatedFrames) -> Iterator[Any]:
    """Makes stores that are closed at the end."""
    made: list[CadenceStore] = []

    def make(**keys: Any) -> CadenceStore:
        made.append(CadenceStore(keys.pop("frames", frames), **keys))
        return made[-1]

    yield make
    for store in made:
        store.close()


def truth(name: str) -> bytes:
    return simulate_image("LSSTComCam", name, seed=5, registers=SMALL, pattern="coordinates").source(
        "22/0"
    ).read(0, SIZE)  # fmt: skip


def test_a_finished_cadence_is_a_store_like_any_other(cadence: Any, comcam: Camera) -> None:
    store = cadence(every=0.01, readout=0.0, count=3, epoch=time.time() - 10)
    assert store.images() == [f"CC_S_20261122_{n:06d}" for n in (1, 2, 3)]
    assert store.underway() == []
    contract.assert_store(store, comcam)
    for name in store.images():
        image = store.image(name)
        source = image.source("22/0")
        assert source.read(0, SIZE) == truth(name)
        assert source.info.crc32c == f"{_core.crc32c(truth(name)):08x}"
        assert source.view(100, 50) == truth(name)[100:150]


def test_an_image_is_read_out_in_its_time(cadence: Any) -> None:
    store = cadence(every=60, readout=0.6, count=1, epoch=time.time() + 0.2)
    name = store.name_of(1)
    assert (store.images(), store.underway(), store.folders()) == ([], [], [])
    with pytest.raises(NotFoundError):
        store.image(name)
    time.sleep(0.25)
    assert store.underway() == [name]
    assert store.folders() == ["raw"]
    image = store.image(name)
    source = image.source("22/0")
    assert source.info.crc32c is None
    expected = truth(name)
    reached = 0
    while not source.final:
        ranges = source.available(0, SIZE)
        there = ranges[0][1] if ranges else 0
        assert reached <= there < SIZE
        reached = there
        if there:
            assert source.read(0, there) == expected[:there]
            assert source.view(0, there) == expected[:there]
        assert source.view(0, SIZE) is None
        assert source.read(SIZE - 10, 10) == bytes(10), "nothing is told before its time"
        assert source.available(SIZE - 1, 1) == []
        time.sleep(0.02)
    assert time.time() == pytest.approx(store.epoch + 0.6, abs=0.15)
    assert reached > SIZE / 2
    assert source.available(0, SIZE) == [(0, SIZE)]
    assert source.info.crc32c == f"{_core.crc32c(expected):08x}"
    assert image.info.sources[0] == source.info
    assert (store.images(), store.underway()) == ([name], [])
    assert store.late == 0


def test_what_happens_is_told_when_it_does(cadence: Any) -> None:
    store = cadence(every=0.25, readout=0.1, count=4, keep=2, epoch=time.time() + 0.2)
    told = []
    for notice in store.notices(1.0):
        if notice.kind != "progress":
            told.append((notice.kind, int(notice.image[-1])))
            moment = store.epoch + 0.25 * (told[-1][1] - 1) + (0.1 if notice.kind == "complete" else 0)
            if notice.kind != "removed":
                assert time.time() == pytest.approx(moment, abs=0.1)
    assert told == [
        ("begun", 1), ("complete", 1), ("begun", 2), ("complete", 2), ("begun", 3), ("removed", 1),
        ("complete", 3), ("begun", 4), ("removed", 2), ("complete", 4),
    ]  # fmt: skip
    assert store.images() == [store.name_of(3), store.name_of(4)]


def test_progress_is_told_now_and_then(cadence: Any) -> None:
    store = cadence(every=60, readout=1.4, count=1)
    told = [notice for notice in store.notices(1.0) if notice.kind == "progress"]
    assert 3 <= len(told) <= 9
    assert {notice.location for notice in told} == {"22/0", "22/1", "22/2"}
    sizes = [notice.bytes or 0 for notice in told if notice.location == "22/0"]
    assert sizes == sorted(sizes)
    assert 0 < sizes[0] < SIZE


def test_a_restart_changes_nothing(cadence: Any) -> None:
    epoch = time.time() - 0.5
    first = cadence(every=0.1, readout=0.05, keep=4, epoch=epoch)
    names = first.images()
    infos = {name: first.image(name).info for name in names[-3:]}
    first.close()
    second = cadence(every=0.1, readout=0.05, keep=50, epoch=epoch)
    assert set(names) <= set(second.images())
    for name, info in infos.items():
        assert second.image(name).info == info
        assert second.image(name).source("22/0").read(0, SIZE) == truth(name)


def test_removed_images_are_gone_for_those_who_read_them_too(cadence: Any) -> None:
    store = cadence(every=0.3, readout=0.0, keep=1, count=2)
    time.sleep(0.1)
    source = store.image(store.name_of(1)).source("22/0")
    assert source.available(0, SIZE) == [(0, SIZE)]
    time.sleep(0.4)
    for call in (lambda: source.available(0, 1), lambda: source.read(0, 1), lambda: source.view(0, 1)):
        with pytest.raises(NotFoundError):
            call()
    with pytest.raises(NotFoundError, match="they run from"):
        store.image(store.name_of(1))


def test_pixels_are_kept_up_to_the_memory_given_and_made_again(comcam: Camera, cadence: Any) -> None:
    made: list[str] = []

    class Counting(SimulatedFrames):
        def load(self, number: int, name: str) -> Loaded:
            made.append(name)
            return super().load(number, name)

    frames = Counting(comcam, 5, registers=SMALL, pattern="coordinates")
    store = cadence(
        frames=frames, every=0.01, readout=0, count=40, epoch=time.time() - 10, memory=6 * 3 * SIZE
    )
    for _ in range(2):
        for name in store.images():
            assert store.image(name).source("22/0").read(0, 100) == truth(name)[:100]
    assert 40 <= len(made) <= 80
    assert store._bytes <= 6 * 3 * SIZE
    threads = [threading.Thread(target=store.image, args=(store.images()[0],)) for _ in range(8)]
    made.clear()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) <= 1, "many who want the same wait for one"


def test_few_distinct_images_can_be_shown_as_many(comcam: Camera, cadence: Any) -> None:
    frames = SimulatedFrames(comcam, 5, registers=SMALL, distinct=2, rafts=["R22"])
    store = cadence(frames=frames, every=0.01, readout=0, count=10, epoch=time.time() - 10)
    streams = [store.image(name).source("22/0").read(0, SIZE) for name in store.images()]
    assert len(set(streams)) == 2
    assert streams[0] == streams[2] == streams[8]
    expected = simulate_image(comcam, "exposure_1", seed=5, registers=SMALL).source("22/0").read(0, SIZE)
    assert streams[0] == expected
    assert len({store.image(name).info.id for name in store.images()}) == 10


def test_losses_follow_from_the_seed_too(comcam: Camera, cadence: Any) -> None:
    frames = SimulatedFrames(comcam, 5, registers=SMALL, pattern="coordinates", losing=0.5)
    store = cadence(frames=frames, every=0.01, readout=0, count=20, epoch=time.time() - 10)
    losing = 0
    for name in store.images():
        for info in store.image(name).info.sources:
            source = store.image(name).source(info.location)
            if not info.gaps:
                assert source.available(0, SIZE) == [(0, SIZE)]
                continue
            losing += 1
            ((begin, end),) = info.gaps
            assert sum(b - a for a, b in source.available(0, SIZE)) == SIZE - (end - begin)
            assert source.read(begin, end - begin) == bytes(end - begin)
    assert 15 < losing < 45


def test_images_that_are_not_prepared_in_time_are_late_but_whole(comcam: Camera, cadence: Any) -> None:
    class Slow(SimulatedFrames):
        def load(self, number: int, name: str) -> Loaded:
            time.sleep(0.3)
            return super().load(number, name)

    frames = Slow(comcam, 5, registers=SMALL, pattern="coordinates")
    store = cadence(frames=frames, every=0.1, readout=0.0, count=3)
    time.sleep(0.15)
    assert store.underway()
    seen = [n.image for n in store.notices(1.0) if n.kind == "complete"]
    assert store.name_of(3) in seen
    assert store.late >= 1
    for name in store.images():
        assert store.image(name).source("22/0").read(0, SIZE) == truth(name)


def test_what_cannot_be_prepared_is_an_error_of_its_own(comcam: Camera, cadence: Any) -> None:
    class Broken(SimulatedFrames):
        def load(self, number: int, name: str) -> Loaded:
            if number == 2:
                raise StorageError(5, "cannot be read", "/dev/sdx")
            return super().load(number, name)

    store = cadence(frames=Broken(comcam, 5, registers=SMALL), every=0.05, readout=0, count=3)
    time.sleep(0.4)
    assert len(store.images()) == 3
    with pytest.raises(StorageError):
        store.image(store.name_of(2)).source("22/0").read(0, 1)
    assert store.image(store.name_of(3)).info.sources[0].crc32c


def test_recordings_are_replayed_under_new_names(tmp_path: Path, comcam: Camera, cadence: Any) -> None:
    """D177: with a simulated controller."""
    originals = {}
    for n in (1, 2):
        image = simulate_image(comcam, f"CC_O_20261122_{n:06d}", seed=n, registers=SMALL)
        write_recording(tmp_path / image.info.name, image, durable=False)
        originals[n] = image.source("22/1").read(0, SIZE)
    frames = ReplayedFrames(RecordedStore(tmp_path))
    store = cadence(frames=frames, every=0.01, readout=0, count=5, epoch=time.time() - 10, day="20270101")
    assert store.images()[0] == "CC_S_20270101_000001"
    streams = [store.image(name).source("22/1").read(0, SIZE) for name in store.images()]
    assert streams == [originals[2], originals[1], originals[2], originals[1], originals[2]]
    assert store.image(store.images()[0]).info.name == store.images()[0]
    contract.assert_store(store, comcam)
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFoundError):
        ReplayedFrames(RecordedStore(tmp_path / "empty"))


@pytest.mark.parametrize(
    "wrong",
    [{"every": 0}, {"every": -1}, {"every": float("nan")}, {"readout": -1}, {"count": 0}, {"keep": 0},
     {"start": -1}, {"start": 10**6}, {"day": "today"}, {"day": "2026112"}],
)  # fmt: skip
def test_cadences_that_cannot_be(frames: SimulatedFrames, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        CadenceStore(frames, **wrong)


@pytest.mark.parametrize(
    "wrong", [{"distinct": 0}, {"distinct": 1001}, {"losing": 2}, {"losing": 0.1, "distinct": 2}]
)
def test_frames_that_cannot_be(comcam: Camera, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        SimulatedFrames(comcam, 5, registers=SMALL, **wrong)


def test_the_description_does_not_depend_on_the_pixels(frames: SimulatedFrames) -> None:
    info = frames.info(3, "CC_S_20261122_000003")
    assert isinstance(info, ImageInfo)
    assert info == simulate_image(
        "LSSTComCam", "CC_S_20261122_000003", seed=5, registers=SMALL, pattern="coordinates"
    ).info  # fmt: skip


def test_closing_ends_those_who_listen(cadence: Any) -> None:
    store = cadence(every=100, readout=0, count=2)
    time.sleep(0.1)
    ended = threading.Event()

    def listen() -> None:
        list(store.notices(None))
        ended.set()

    threading.Thread(target=listen, daemon=True).start()
    time.sleep(0.1)
    store.close()
    assert ended.wait(2.0)
