"""Images as arrays: exact pixels at the right place, honest about what is missing, one failure at a time."""

from __future__ import annotations

import gc
import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import raftwright
from raftwright import _core
from raftwright.assembly import AssembledSource, read_sources, select_boards
from raftwright.camera import camera as find_camera
from raftwright.daq import (
    ImageInfo,
    MemoryImage,
    Registers,
    SourceInfo,
    open_recording,
    simulate_image,
    write_recording,
)
from raftwright.errors import (
    ConflictError,
    FormatError,
    NotFoundError,
    RaftwrightError,
    StorageError,
    UsageError,
)

SMALL = [3, 0, 64, 0, 0, 5, 0, 40, 0, 6, 1]  # segments of 72 x 46
NAME = "MC_S_20260101_000001"


def small(camera: str, locations: list[str], name: str = NAME, pattern: str = "coordinates") -> MemoryImage:
    """A small readout in memory, so that tests can damage it."""
    image = simulate_image(
        camera,
        name,
        seed=3,
        locations=locations,
        pattern=pattern,  # type: ignore[arg-type]
        registers=Registers.parse(SMALL),
    )
    streams = {s.location: image.source(s.location).read(0, s.bytes) for s in image.info.sources}
    return MemoryImage(image.info, streams)


def with_source(
    image: MemoryImage, location: str, data: bytes | None = None, **changes: object
) -> MemoryImage:
    """The same image with one source described or filled otherwise."""
    sources = tuple(
        msgspec.structs.replace(source, **changes) if source.location == location else source
        for source in image.info.sources
    )
    info: ImageInfo = msgspec.structs.replace(image.info, sources=sources)
    streams = {s.location: image.source(s.location).read(0, s.bytes) for s in image.info.sources}
    if data is not None:
        streams[location] = data
    return MemoryImage(info, streams)


@pytest.mark.parametrize(
    ("camera", "locations", "detectors"),
    [
        ("LSSTCam", ["22/0", "22/1", "22/2"], [f"R22_S{x}{y}" for x in "012" for y in "012"]),
        ("LSSTCam", ["01/2"], ["R01_S20", "R01_S21", "R01_S22"]),
        ("LSSTCam", ["44/0"], ["R44_SW0", "R44_SW1"]),
        ("LSSTCam", ["00/1"], ["R00_SG0", "R00_SG1"]),
        ("LSSTComCam", ["22/1"], ["R22_S10", "R22_S11", "R22_S12"]),
        ("LATISS", ["00/0"], ["RXX_S00"]),
    ],
)
@pytest.mark.parametrize("threads", [1, 3])
def test_every_pixel_is_where_it_says_it_belongs(
    camera: str, locations: list[str], detectors: list[str], threads: int
) -> None:
    """D025: boards of three, two and one CCD."""
    image = raftwright.assemble(small(camera, locations), threads=threads)
    assert [ccd.name for ccd in image] == detectors
    assert image.missing_pixels == 0
    for ccd in image:
        for segment, pixels in zip(ccd.detector.segments, ccd.segments.values(), strict=True):
            assert pixels.shape == (46, 72)
            assert pixels.dtype == np.int32
            for y, x in [(0, 0), (45, 69), (17, 33)]:
                name = _core.coordinate_name(18, np.ascontiguousarray(pixels[y, x : x + 3]))
                assert name == (ccd.detector.id, segment.index, y, x)


def test_another_observatory_needs_only_its_data_file() -> None:
    camera = find_camera("MiniCam")
    board = next(iter(camera.boards.values()))
    image = raftwright.assemble(simulate_image(camera, "XX_S_20260101_000001", pattern="coordinates"))
    ccd = image[board.detectors[0].name]
    geometry = ccd.detector.type.geometry
    assert next(iter(ccd.segments.values())).shape == (geometry.height, geometry.width)
    for segment, pixels in zip(ccd.detector.segments, ccd.segments.values(), strict=True):
        group = np.ascontiguousarray(pixels[5, 3:6])
        assert _core.coordinate_name(16, group) == (ccd.detector.id, segment.index, 5, 3)


def test_views_keep_the_pixels_alive_and_share_them() -> None:
    image = raftwright.assemble(small("LATISS", ["00/0"]))
    view = image["RXX_S00"].segments["C10"]
    again = image[0].segments["Segment10"]
    assert np.shares_memory(view, again)
    before = view.copy()
    del image, again
    gc.collect()
    assert np.array_equal(view, before)


def test_a_mosaic_has_each_pixel_at_its_place_on_the_sky() -> None:
    ccd = raftwright.assemble(small("LSSTCam", ["22/1"]))["R22_S11"]  # E2V
    mosaic = ccd.mosaic()
    assert mosaic.shape == (2 * 40, 8 * 64)
    low, high = ccd.segments["Segment00"], ccd.segments["Segment17"]
    assert mosaic[0, 0] == low[0, 3]  # lower left: first row, first light-sensitive column
    assert mosaic[-1, -1] == high[0, 3]  # upper right: read from that corner
    assert ccd.mosaic(overscan=True).shape == (2 * 46, 8 * 72)
    raft = raftwright.assemble(small("LSSTCam", ["22/0", "22/1", "22/2"])).raft("R22")
    whole = raft.mosaic(bin=1, fill=-9)
    assert (whole == -9).any()
    assert np.count_nonzero(whole != -9) == 9 * mosaic.size
    assert raft.mosaic(bin=8).shape == raft.layout().binned_shape(8)


def test_what_never_came_is_filled_and_listed() -> None:
    image = small("LSSTCam", ["22/0"])
    gap = (1000, 30_000)
    damaged = with_source(image, "22/0", gaps=(gap,), crc32c=None)
    assembled = raftwright.assemble(damaged, fill=-5)
    whole = raftwright.assemble(image)
    assert assembled.missing_pixels > 0
    counted = 0
    for ccd in assembled:
        for name, pixels in ccd.segments.items():
            missing = np.zeros(pixels.size, bool)
            for first, count in ccd.missing[name]:
                missing[first : first + count] = True
            counted += int(missing.sum())
            wanted = np.where(missing.reshape(pixels.shape), -5, whole[ccd.name].segments[name])
            assert np.array_equal(pixels, wanted)
    assert counted == assembled.missing_pixels
    # 29 000 bytes of 2.25 bytes a pixel; the pixels cut at the two borders may count as missing.
    assert 29_000 / 2.25 <= counted <= 29_000 / 2.25 + 2


def test_a_recording_cut_short_is_an_error_unless_it_is_to_be_salvaged(tmp_path: Path) -> None:
    image = small("LATISS", ["00/0"], "AT_S_20260101_000001")
    written = write_recording(tmp_path / image.info.name, image)
    stream = Path(written.path) / image.info.sources[0].file
    with stream.open("r+b") as file:
        file.truncate(50_000)
    with pytest.raises(FormatError, match=r"50000 bytes.*says"):
        raftwright.assemble(written.path)
    salvaged = raftwright.assemble(open_recording(written.path, salvage=True))
    whole = raftwright.assemble(image)
    assert 0 < salvaged.missing_pixels < 16 * 46 * 72
    assert np.array_equal(salvaged[0].segments["Segment10"][:10], whole[0].segments["Segment10"][:10])


def test_a_stream_that_changed_is_refused() -> None:
    image = small("LSSTCam", ["22/0", "22/1"])
    data = bytearray(image.source("22/0").read(0, image.info.sources[0].bytes))
    data[12345] ^= 4
    wrong = f"{_core.crc32c(image.source('22/0').read(0, len(data))):08x}"
    with pytest.raises(FormatError, match=r"source 22/0: CRC-32C"):
        raftwright.assemble(with_source(image, "22/0", bytes(data), crc32c=wrong))


def test_one_bad_source_holds_no_other() -> None:
    image = small("LSSTCam", ["22/0", "22/1", "22/2"])
    bad = with_source(with_source(image, "22/0", crc32c="00000000"), "22/2", crc32c="ffffffff")
    camera = find_camera("LSSTCam")
    done: list[AssembledSource] = []
    with pytest.raises(FormatError, match=r"2 of 3 sources failed: .*22/0.*22/2"):
        read_sources(bad, select_boards(bad, camera), done.append, threads=2)
    assert [source.board.location for source in done] == ["22/1"]


def test_a_failure_of_the_caller_is_one_of_its_source_and_a_bug_comes_through() -> None:
    image = small("LSSTCam", ["22/0", "22/1"])
    boards = select_boards(image, find_camera("LSSTCam"))

    def refuse(source: AssembledSource) -> None:
        raise ConflictError(f"no room for {source.board.location}")

    def break_down(_: AssembledSource) -> None:
        raise ZeroDivisionError

    with pytest.raises(RaftwrightError, match=r"no room for 22/0.*no room for 22/1"):
        read_sources(image, boards, refuse, threads=1)
    for threads in (1, 2):
        with pytest.raises(ZeroDivisionError):
            read_sources(image, boards, break_down, threads=threads)


def test_registers_that_contradict_the_byte_count() -> None:
    image = small("LSSTCam", ["22/0"])
    wrong = with_source(image, "22/0", registers=Registers.parse([*SMALL[:7], 41, *SMALL[8:]]))
    with pytest.raises(FormatError, match="22/0"):
        raftwright.assemble(wrong)


def test_choosing_and_asking_for_what_is_not_there() -> None:
    image = small("LSSTCam", ["22/0", "22/1"])
    only = raftwright.assemble(image, locations=["22/1"])
    assert len(only) == 3
    with pytest.raises(NotFoundError, match="board 22/0 was not read"):
        only["R22_S00"]
    with pytest.raises(NotFoundError, match="no source at 22/2"):
        raftwright.assemble(image, locations=["22/2"])
    with pytest.raises(NotFoundError, match="no source of raft R01"):
        raftwright.assemble(image, rafts=["R01"])
    with pytest.raises(NotFoundError):
        raftwright.assemble(image, "MC_S_20260101_000002")
    with pytest.raises(NotFoundError):
        only.raft("R99")
    with pytest.raises(NotFoundError, match="S10"):
        only.raft("R22")["S22"]
    with pytest.raises(UsageError, match="bin"):
        only["R22_S11"].mosaic(bin=0)
    with pytest.raises(NotFoundError, match="Segment18"):
        only["R22_S11"].segments["Segment18"]


def test_a_store_of_several_images_wants_a_name(tmp_path: Path) -> None:
    for number in (1, 2):
        image = small("LATISS", ["00/0"], f"AT_S_20260101_00000{number}")
        write_recording(tmp_path / image.info.name, image)
    with pytest.raises(UsageError, match="2 images"):
        raftwright.assemble(tmp_path)
    assert raftwright.assemble(tmp_path, "AT_S_20260101_000002").name == "AT_S_20260101_000002"


def test_progress_reaches_the_end() -> None:
    image = small("LSSTCam", ["22/0", "22/1"])
    seen: list[tuple[int, int]] = []
    raftwright.assemble(image, threads=2, progress=lambda done, total: seen.append((done, total)))
    total = sum(source.bytes for source in image.info.sources)
    assert seen[-1] == (total, total)
    assert all(done <= total for done, _ in seen)


def test_a_stream_that_changed_is_refused_although_parts_of_it_never_came(tmp_path: Path) -> None:
    """The CRC of a recording is of its file, filling bytes in the gaps included."""
    image = with_source(small("LSSTCam", ["22/0"]), "22/0", gaps=((108, 216),), crc32c=None)
    recorded = write_recording(tmp_path / NAME, image, durable=False)
    assert raftwright.assemble(recorded.path).missing_pixels == 48
    file = recorded.path / recorded.info.sources[0].file
    stream = bytearray(file.read_bytes())
    stream[5000] ^= 1
    file.write_bytes(stream)
    with pytest.raises(FormatError, match="CRC-32C"):
        raftwright.assemble(recorded.path)


def test_arguments_that_cannot_be_meant() -> None:
    image = small("LSSTCam", ["22/0"])
    for arguments in ({"fill": 2**31}, {"fill": -(2**40)}, {"threads": 0}, {"threads": -3}):
        with pytest.raises(UsageError):
            raftwright.assemble(image, **arguments)  # type: ignore[arg-type]
    with pytest.raises(NotFoundError, match="asked for"):
        raftwright.assemble(image, locations=[])
    with pytest.raises(NotFoundError, match="no sources"):
        raftwright.assemble(MemoryImage(msgspec.structs.replace(image.info, sources=()), {}))


def test_as_many_threads_as_the_system_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[threading.Thread] = []
    start = threading.Thread.start

    def refuse_the_second(thread: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse_the_second)
    image = small("LSSTCam", ["22/0", "22/1", "22/2"])
    assert len(raftwright.assemble(image, threads=8)) == 9
    assert not any(thread.is_alive() for thread in started)
    started.clear()
    raftwright.assemble(small("LSSTCam", ["22/0"]), threads=100_000)  # no more than there are chunks
    assert not started


class _Broken:
    """A source whose store fails."""

    final = True

    def __init__(self, info: SourceInfo, short: bool) -> None:
        self.info = info
        self._short = short

    def available(self, offset: int, length: int) -> list[tuple[int, int]]:
        return [(offset, offset + length)]

    def read(self, offset: int, length: int) -> bytes:
        raise StorageError(5, "cannot be read", "a disk")

    def readinto(self, offset: int, buffer: Any) -> int:
        if self._short:
            return len(buffer) - 1
        raise StorageError(5, "cannot be read", "a disk")


@pytest.mark.parametrize(("short", "kind"), [(False, StorageError), (True, FormatError)])
def test_failures_of_the_storage_stay_that(short: bool, kind: type[Exception]) -> None:
    whole = small("LSSTCam", ["22/0", "22/1"])

    class Image:
        info = whole.info

        def source(self, location: str) -> _Broken:
            return _Broken(whole.source(location).info, short)

    with pytest.raises(kind, match=r"2 of 2 sources failed") as caught:
        raftwright.assemble(Image())
    assert "Errno" not in str(caught.value)


def test_a_fill_value_that_pixels_have_too_hides_none_of_them() -> None:
    image = small("LATISS", ["00/0"], "AT_S_20260101_000001")
    plain = raftwright.assemble(image)
    value = int(plain[0].segments["Segment10"][5, 10])
    same = raftwright.assemble(image, fill=value)
    assert np.array_equal(same[0].mosaic(bin=4), plain[0].mosaic(bin=4))
    assert np.array_equal(same.mosaic(bin=4), plain.mosaic(bin=4))
