"""Watching a pool: each CCD once, whole, in order; a lease for as long as somebody looks."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prompt_boards import (
    SEGMENTS,
    board_bytes,
    image_name,
    is_whole,
    meta,
    pattern,
    publish,
    serial_of,
    write,
)

import raftwright
from raftwright import _core
from raftwright.assembly import AssembledSource, assemble
from raftwright.camera import Geometry
from raftwright.daq import Registers, simulate_image
from raftwright.errors import FormatError, NotFoundError, UsageError
from raftwright.prompt import Pool, PromptCcd, watch
from raftwright.prompt.layout import MAX_META, DetectorMeta

OpenPool = Callable[..., Pool]


# --- a board of a camera -----------------------------------------------------------------------------------


def board_in_slab(pool: Pool, image: Any, location: str, *, skip: tuple[int, int] | None = None) -> None:
    """Assembles a source into a slab and publishes it, all but the bytes `skip`."""
    source = image.source(location)
    board = raftwright.camera(image.info.camera).board(location)
    geometry = source.info.registers.geometry
    width, height = geometry.width, geometry.height
    slab = pool.lend(_core.planes_bytes(len(board.plane_of), width, height))
    assert slab is not None
    readout = _core.Readout(board.layout, width, height, pixels=True, memory=slab.memory)
    data = source.read(0, source.info.bytes)
    begin, end = skip or (0, 0)
    readout.add(0, data[:begin])
    readout.add(end, data[end:])
    readout.finish(-1)
    done = AssembledSource(board, source.info, geometry, readout, -1)
    assert slab.publish_source(image.info.name, image.info.camera, done)


@pytest.fixture(scope="module")
def image() -> Any:
    return simulate_image(
        "LSSTComCam", "CC_S_20261122_000001", seed=5, registers=Registers(3, 0, 24, 0, 0, 16, 0, 40, 0, 6)
    )


def test_a_board_is_seen_as_it_was_assembled(image: Any, open_pool: OpenPool, place: Path) -> None:
    size = image.source("22/0").info.registers
    with open_pool(bytes=10 << 20) as pool, watch(place, timeout=2) as ccds:
        board_in_slab(pool, image, "22/1")
        seen = [next(ccds) for _ in range(3)]
    whole = assemble(image)
    assert [ccd.name for ccd in seen] == ["R22_S10", "R22_S11", "R22_S12"]
    for ccd in seen:
        expected = whole[ccd.name]
        assert (ccd.image, ccd.camera_name, ccd.location) == (image.info.name, "LSSTComCam", "22/1")
        assert (ccd.id, ccd.detector) == (expected.detector.id, expected.detector)
        assert list(ccd.segments) == list(expected.segments)
        assert len(ccd.segments) == len(ccd.planes) == 16
        for name, plane in ccd.segments.items():
            assert plane.shape == (size.height, size.width)
            assert np.array_equal(plane, expected.segments[name])
        assert np.array_equal(ccd.segments["C10"], ccd.segments["Segment10"])
        assert (ccd.complete, ccd.missing, ccd.missing_pixels) == (True, {}, 0)
        assert "000001" in repr(ccd)
        assert ccd.completed.endswith("Z")
    with pytest.raises(NotFoundError, match="no segment 'Segment99'; there are Segment10"):
        seen[0].segments["Segment99"]


def test_mosaics_are_those_of_an_assembled_image(open_pool: OpenPool, place: Path) -> None:
    image = simulate_image("MiniCam", "MN_S_20261122_000003", seed=5)
    whole = assemble(image)
    with open_pool(bytes=64 << 20) as pool, watch(place, timeout=2, camera="MiniCam") as ccds:
        board_in_slab(pool, image, image.info.sources[0].location)
        ccd = next(ccds)
    assert np.array_equal(ccd.mosaic(bin=2), whole[ccd.name].mosaic(bin=2))
    assert np.array_equal(ccd.mosaic(overscan=True), whole[ccd.name].mosaic(overscan=True))


def test_gaps_are_marked(image: Any, open_pool: OpenPool, place: Path) -> None:
    with open_pool(bytes=10 << 20) as pool, watch(place, timeout=2) as ccds:
        board_in_slab(pool, image, "22/0", skip=(5003, 9007))
        seen = [next(ccds) for _ in range(3)]
    whole = assemble(image)
    for ccd in seen:
        assert not ccd.complete
        total = 0
        for name, plane in ccd.segments.items():
            lost = np.zeros(plane.size, bool)
            for first, count in ccd.missing[name]:
                lost[first : first + count] = True
                total += count
            assert np.all(plane.ravel()[lost] == -1)
            assert np.array_equal(plane.ravel()[~lost], whole[ccd.name].segments[name].ravel()[~lost])
        assert total == ccd.missing_pixels > 100
        assert "pixels missing" in repr(ccd)


def test_gaps_in_too_many_pieces_are_read_off_the_pixels(open_pool: OpenPool, place: Path) -> None:
    wide = Geometry(3, 40, 7, 90, 6)
    size = wide.width * wide.height
    runs = [(n, 1) for n in range(0, size, 2)]
    names = [f"Segment{n:02d}" for n in range(SEGMENTS)]
    base = meta(1).detectors[0]
    missing = dict.fromkeys(names, runs)
    assert len(json.dumps(missing, separators=(",", ":"))) > MAX_META
    detector = DetectorMeta(base.name, base.id, 0, base.segments, base.amps, len(runs) * SEGMENTS, missing)
    pool = open_pool(10)
    reader = watch(place, timeout=2)
    for serial, fill in ((1, -1), (2, 5)):
        slab = pool.lend(board_bytes(wide))
        assert slab is not None
        write(slab, serial, wide)
        for offset in meta(serial, wide).planes:
            slab.memory[offset : offset + 4 * size].view(np.int32)[::2] = fill
        slab.publish(meta(serial, wide, detectors=(detector, meta(1).detectors[1]), fill=fill))
    ccd = next(reader)
    assert ccd._meta.missing is None
    assert ccd.missing == missing
    assert ccd.missing_pixels == len(runs) * SEGMENTS
    assert next(reader).missing == {}
    with pytest.raises(FormatError, match="too many pieces"):
        next(reader).missing  # noqa: B018 - 5 may be a pixel


# --- which CCDs, and when ----------------------------------------------------------------------------------


def test_every_ccd_once_in_order(open_pool: OpenPool, place: Path) -> None:
    pool = open_pool(100)
    reader = watch(place, timeout=0.3)
    for serial in range(1, 41):
        publish(pool, serial)
    seen = list(reader)
    assert [(serial_of(ccd), ccd.name) for ccd in seen] == [
        (serial, name) for serial in range(1, 41) for name in ("R22_S00", "R22_S01")
    ]
    assert all(is_whole(ccd) for ccd in seen)
    assert reader.missed == 0
    publish(pool, 41)
    assert [serial_of(ccd) for ccd in reader] == [41, 41], "it may go on after a timeout"


def test_new_or_all(open_pool: OpenPool, place: Path) -> None:
    pool = open_pool(3)
    for serial in range(1, 6):
        publish(pool, serial)
    new, old = watch(place, timeout=0.1), watch(place, timeout=0.1, since="all")
    publish(pool, 6)
    assert [serial_of(ccd) for ccd in new] == [6, 6]
    assert {serial_of(ccd) for ccd in old} == {4, 5, 6}
    assert old.missed == 1  # 3 was there when it began
    with pytest.raises(UsageError, match="'new' or 'all'"):
        watch(place, since="yesterday")  # type: ignore[arg-type]


def test_only_what_is_asked_for(open_pool: OpenPool, place: Path) -> None:
    pool = open_pool(10)
    readers = [
        watch(place, timeout=0.05, images=image_name(2)),
        watch(place, timeout=0.05, images=["*_000003", image_name(1)], detectors="R22_S01"),
        watch(place, timeout=0.05, detectors=[90, "R99_S99"]),
        watch(place, timeout=0.05, detectors=91),
    ]
    for serial in (1, 2, 3):
        publish(pool, serial)
    found = [[(serial_of(ccd), ccd.name[-3:]) for ccd in reader] for reader in readers]
    assert found == [
        [(2, "S00"), (2, "S01")],
        [(1, "S01"), (3, "S01")],
        [(1, "S00"), (2, "S00"), (3, "S00")],
        [(1, "S01"), (2, "S01"), (3, "S01")],
    ]
    assert [reader.missed for reader in readers] == [0] * 4
    for nothing in ({"images": []}, {"detectors": []}):
        with pytest.raises(UsageError, match="no image or no detector"):
            watch(place, **nothing)


def test_a_reader_may_be_there_first(open_pool: OpenPool, place: Path) -> None:
    reader = watch(place, timeout=5)

    def later() -> None:
        time.sleep(0.3)
        publish(open_pool(), 1)

    thread = threading.Thread(target=later)
    thread.start()
    assert [serial_of(next(reader)) for _ in range(2)] == [1, 1]
    thread.join()


def test_time_limits(open_pool: OpenPool, place: Path) -> None:
    begun = time.monotonic()
    assert list(watch(place, timeout=0.3)) == []
    assert 0.25 < time.monotonic() - begun < 1.5
    open_pool()
    reader = watch(place)  # for ever
    threading.Timer(0.3, reader.close).start()
    begun = time.monotonic()
    assert list(reader) == []
    assert 0.25 < time.monotonic() - begun < 2


def latency(pool: Pool, reader: Any, serials: range) -> list[float]:
    """Seconds from publishing a board until a reader that waits for it has its first CCD."""
    got: list[float] = []
    published: list[float] = []

    def read() -> None:
        for _ in serials:
            next(reader)
            got.append(time.perf_counter())
            next(reader)

    thread = threading.Thread(target=read)
    thread.start()
    for serial in serials:
        time.sleep(0.1)
        slab = pool.lend(board_bytes())
        assert slab is not None
        write(slab, serial)
        published.append(time.perf_counter())
        slab.publish(meta(serial))
    thread.join(10)
    return [b - a for a, b in zip(published, got, strict=True)]


def test_it_comes_at_once(open_pool: OpenPool, place: Path) -> None:
    pool = open_pool(10)
    times = sorted(latency(pool, watch(place, timeout=5), range(1, 12)))
    assert times[len(times) // 2] < 0.05, times  # about 1 ms; without a hint it would be 0.1 s
    assert times[-1] < 1.0


def test_a_lost_hint_costs_a_fifth_of_a_second(
    open_pool: OpenPool, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = open_pool(10)
    monkeypatch.setattr(pool, "_socket", None)
    times = latency(pool, watch(place, timeout=5), range(1, 4))
    assert max(times) < 0.5, times


def test_a_path_too_long_for_a_socket(place: Path) -> None:
    deep = place / ("x" * 120)
    with Pool(deep, 1 << 20) as pool:
        reader = watch(deep, timeout=2)
        publish(pool, 1)
        assert is_whole(next(reader))
    reader.close()


def test_a_pool_that_is_made_anew(open_pool: OpenPool, place: Path) -> None:
    pool = open_pool()
    reader = watch(place, timeout=2)
    for serial in (1, 2, 3):
        publish(pool, serial)
    assert serial_of(next(reader)) == 1
    pool.close()
    for entry in place.iterdir():
        entry.unlink()
    place.rmdir()
    publish(open_pool(), 50)
    left = [serial_of(next(reader)) for _ in range(3)]
    assert left == [1, 50, 50]
    assert reader.missed == 2


# --- leases ------------------------------------------------------------------------------------------------


def test_arrays_are_read_only_and_keep_the_lease(open_pool: OpenPool, place: Path) -> None:
    pool = open_pool(1)
    reader = watch(place, timeout=2, detectors=90)
    publish(pool, 1)
    ccd: PromptCcd | None = next(reader)
    assert ccd is not None
    array = ccd.segments["Segment02"][5:9]
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.flags.writeable = True
    ccd.release()
    ccd.release()
    with pytest.raises(UsageError, match="was released"):
        ccd.segments["Segment02"]
    assert "released" in repr(ccd)
    del ccd
    gc.collect()
    assert not publish(pool, 2), "an array is still there"
    assert np.array_equal(array, pattern(1, 2)[5:9])
    del array
    assert publish(pool, 3), "the lease ends with the last array, without any garbage collection"


def test_a_lease_ends_with_its_block(open_pool: OpenPool, place: Path) -> None:
    pool = open_pool(1)
    reader = watch(place, timeout=2)
    publish(pool, 1)
    with next(reader):
        assert not publish(pool, 2)
    assert not publish(pool, 3), "the other CCD of the board is held, though nobody asked for it yet"
    assert serial_of(next(reader)) == 1  # and forgotten at once
    assert publish(pool, 4)
    publish_then_close = next(reader)
    reader.close()
    publish_then_close.release()
    assert publish(pool, 5)


def test_the_lease_survives_the_end_of_the_pool(open_pool: OpenPool, place: Path) -> None:
    pool = open_pool(2)
    reader = watch(place, timeout=2)
    publish(pool, 1)
    held = next(reader)
    pool.close()
    again = open_pool(2)
    for serial in range(2, 20):
        publish(again, serial)
    assert is_whole(held)


READER = """
import sys, time
from pathlib import Path
from raftwright.prompt import watch
from prompt_boards import *
ccds = watch(Path(sys.argv[1]), timeout=20, since="all")
held = [next(ccds) for _ in range(2)]
assert all(map(is_whole, held))
print("held", flush=True)
time.sleep(60)
"""


def test_a_reader_that_is_killed_holds_nothing(
    open_pool: OpenPool, place: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    pool = open_pool(1)
    publish(pool, 1)
    process = start(READER, place)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    assert not publish(pool, 2)
    assert pool.status()["held_by_readers"] == 1
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert publish(pool, 3)


WORKER = """
import sys, time
from pathlib import Path
from raftwright.prompt import watch
from prompt_boards import *
done = Path(sys.argv[2])
for ccd in watch(Path(sys.argv[1]), timeout=float(sys.argv[4]), since="all"):
    mark = done / f"{serial_of(ccd)} {ccd.name}"
    if mark.exists():
        continue
    assert is_whole(ccd)
    if str(serial_of(ccd)) == sys.argv[3]:
        print("dies", flush=True)
        time.sleep(60)
    mark.touch()
    ccd.release()
print("over", flush=True)
"""
"""What it did is marked after it was done; of a number it never comes to the end."""


def test_what_a_worker_that_is_killed_did_not_finish_another_does(
    open_pool: OpenPool, place: Path, tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    """D167, as far as pixels go: a worker lists what is there and then listens, and counts a CCD as done when
    it is. Killed in the third image, while more come: another does the rest, the late ones too."""
    pool = open_pool(20)
    for serial in (1, 2, 3):
        publish(pool, serial)
    done = tmp_path / "done"
    done.mkdir()
    first = start(WORKER, place, done, 3, 20)
    assert first.stdout is not None
    assert first.stdout.readline() == "dies\n"
    publish(pool, 4)
    first.send_signal(signal.SIGKILL)
    first.wait(10)
    assert sorted(path.name[0] for path in done.iterdir()) == ["1", "1", "2", "2"]
    second = start(WORKER, place, done, 0, 2)
    publish(pool, 6)
    publish(pool, 5)  # late, after the one that follows it
    assert second.stdout is not None
    assert second.stdout.readline() == "over\n"
    assert {path.name for path in done.iterdir()} == {
        f"{serial} {name}" for serial in range(1, 7) for name in ("R22_S00", "R22_S01")
    }


def test_a_fork_shares_the_lease(open_pool: OpenPool, place: Path) -> None:
    pool = open_pool(1)
    reader = watch(place, timeout=2, detectors=90)
    publish(pool, 1)
    ccd = next(reader)
    told, tell = os.pipe()
    go, begin = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.write(tell, b"x")
            os.read(go, 1)  # until the parent has released its own, and the pool has tried
            code = 0 if is_whole(ccd) else 2
        finally:
            os._exit(code)
    try:
        os.read(told, 1)
        ccd.release()
        assert not publish(pool, 2), "the child still has it"
    finally:
        os.write(begin, b"x")
        status = os.waitpid(child, 0)[1]
        for fd in (told, tell, go, begin):
            os.close(fd)
    assert status == 0
    assert publish(pool, 3)


def _watch_in_child(reader: Any, results: Any) -> None:
    results.put([serial_of(ccd) for ccd in reader])


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_watch_goes_on_in_a_fork(open_pool: OpenPool, place: Path) -> None:
    pool = open_pool(10)
    reader = watch(place, timeout=0.5)
    publish(pool, 1)
    assert serial_of(next(reader)) == 1
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=_watch_in_child, args=(reader, results))
    child.start()
    publish(pool, 2)
    assert results.get(timeout=20) == [1, 2, 2]
    child.join(20)
    assert child.exitcode == 0
    assert [serial_of(ccd) for ccd in reader] == [1, 2, 2]


# --- nobody ever sees half a board -------------------------------------------------------------------------

RACER = """
import json, sys, time
from pathlib import Path
from raftwright.prompt import watch
from prompt_boards import *
slow = float(sys.argv[2])
ccds = watch(Path(sys.argv[1]), timeout=20, since="all")
seen, torn, last = 0, 0, 0
print("ready", flush=True)
for ccd in ccds:
    serial = serial_of(ccd)
    assert serial >= last, "out of order"
    last = serial
    time.sleep(slow)
    torn += not is_whole(ccd)
    seen += 1
    if ccd.fill == -2:
        break
print(json.dumps({"seen": seen, "torn": torn, "last": last, "missed": ccds.missed}), flush=True)
"""


def test_no_reader_ever_sees_half_a_board(
    open_pool: OpenPool, place: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    geometry = Geometry(3, 40, 7, 300, 6)
    pool = open_pool(bytes=3 * (board_bytes(geometry) + (128 << 10)), slabs=3)
    readers = [start(RACER, place, slow) for slow in (0.0, 0.0005, 0.01)]
    for process in readers:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    mine: dict[str, int] = {"seen": 0, "torn": 0}

    def look() -> None:
        for ccd in watch(place, timeout=10):
            mine["seen"] += 1
            mine["torn"] += not is_whole(ccd)
            if ccd.fill == -2:
                return

    thread = threading.Thread(target=look)
    thread.start()
    end = time.monotonic() + 4
    serial = lost = 0
    while time.monotonic() < end:
        if publish(pool, serial + 1, geometry):
            serial += 1
        else:
            lost += 1
    while not publish(pool, serial + 1, geometry, fill=-2):
        time.sleep(0.01)
    thread.join(20)
    assert mine["seen"] > 20
    assert mine["torn"] == 0
    for process in readers:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert process.wait(20) == 0
        assert told["torn"] == 0
        assert told["last"] == serial + 1
        # It broke off at the first CCD of the last board.
        assert (told["seen"] + 1) / 2 + told["missed"] == serial + 1, (told, serial)
        assert told["seen"] > 20
    assert serial > 100


def test_watch_is_a_name_of_the_package() -> None:
    assert raftwright.watch is watch
    code = "import sys, raftwright; 'raftwright.prompt' in sys.modules and sys.exit(1)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
