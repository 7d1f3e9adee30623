"""Reading recordings: what is served, and that nothing false is."""

from __future__ import annotations

import gc
import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raftwright.camera import Camera
from raftwright.daq import (
    RecordedStore,
    SimulatedImage,
    contract,
    open_recording,
    open_store,
    simulate_image,
    write_recording,
)
from raftwright.errors import FormatError, NotFoundError, StorageError, UsageError

SMALL = [3, 0, 20, 0, 0, 5, 0, 14, 0, 2, 1]
SIZE = 28 * 16 * 108


def edit(recording: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = recording / "image.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_a_recording_gives_back_the_image(recording: Path, image: SimulatedImage, comcam: Camera) -> None:
    recorded = open_recording(recording)
    assert recorded.info.name == image.info.name
    assert recorded.info.locations == ("22/0", "22/1", "22/2")
    for location in recorded.info.locations:
        assert recorded.source(location).read(0, SIZE) == image.source(location).read(0, SIZE)
    contract.assert_image(recorded, comcam)


def test_its_own_name_does_not_matter_when_it_is_opened(recording: Path, tmp_path: Path) -> None:
    moved = recording.rename(tmp_path / "any name, even this: ünïcode")
    assert open_recording(moved).info.name == "CC_O_20261122_000001"
    assert open_recording(str(moved)).source("22/0").read(0, 1)
    contract.assert_store(RecordedStore(moved))


def test_a_directory_of_recordings_is_a_store(comcam: Camera, tmp_path: Path) -> None:
    for number, folder in ((1, "raw"), (2, "raw"), (3, "guide")):
        image = simulate_image(comcam, f"CC_O_20261122_00000{number}", registers=SMALL, folder=folder)
        write_recording(tmp_path / image.info.name, image, durable=False)
    store = open_store(tmp_path)
    assert store.folders() == ["guide", "raw"]
    assert store.images() == [f"CC_O_20261122_00000{number}" for number in (1, 2, 3)]
    assert store.images("guide") == ["CC_O_20261122_000003"]
    contract.assert_store(store, comcam, images=3)
    contract.assert_store(open_store(f"recorded:{tmp_path}"), comcam, images=1)
    contract.assert_store(open_store(str(tmp_path)), comcam, images=1)


def test_what_is_no_image_of_a_store(recording: Path, tmp_path: Path) -> None:
    store = RecordedStore(recording.parent)
    assert store.problems() == []
    name = recording.name
    shutil.copytree(recording, recording.parent / f"{name}.conflict-01234567")
    shutil.copytree(recording, recording.parent / f".{name}.123.partial")
    shutil.copytree(recording, tmp_path / "elsewhere")
    (recording.parent / "linked").symlink_to(tmp_path / "elsewhere")
    (recording.parent / "empty").mkdir()
    (recording.parent / "a file").write_text("")
    (recording.parent / "broken").mkdir()
    (recording.parent / "broken" / "image.json").write_text("{")
    assert store.images() == [name]
    problems = store.problems()
    assert len(problems) == 2
    assert any("broken/image.json: not readable as JSON" in problem for problem in problems)
    assert any("the directory bears the image's name" in problem for problem in problems)
    for other in ("linked", "empty", "a file", "elsewhere", f".{name}.123.partial", "../elsewhere"):
        with pytest.raises(NotFoundError, match="has no image"):
            store.image(other)
    with pytest.raises(FormatError, match="not readable"):
        store.image("broken")


def test_no_store_no_recording(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such directory"):
        RecordedStore(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotFoundError, match="no such directory"):
        RecordedStore(tmp_path / "file")
    with pytest.raises(NotFoundError, match=r"there is no image\.json in it"):
        open_recording(tmp_path)
    with pytest.raises(NotFoundError):
        open_recording(tmp_path / "nothing")
    with pytest.raises(NotFoundError):
        open_recording("nul\0byte")
    with pytest.raises(StorageError):
        open_recording("x" * 300)
    assert RecordedStore(tmp_path).images() == []
    assert RecordedStore(tmp_path).folders() == []


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, f"22-1.raw: is empty, but image.json says {SIZE}; copy it again"),
        (1, f"22-1.raw: has 1 bytes, but image.json says {SIZE}; copy it again"),
        (SIZE - 1, f"22-1.raw: has {SIZE - 1} bytes, but image.json says {SIZE}; copy it again"),
        (SIZE + 1, f"22-1.raw: has {SIZE + 1} bytes, but image.json says {SIZE}; it is another stream's"),
        (2**40, "another stream's"),
    ],
)
def test_a_stream_of_another_length(recording: Path, size: int, words: str) -> None:
    os.truncate(recording / "22-1.raw", size)
    image = open_recording(recording)
    assert image.source("22/0").read(0, SIZE)
    with pytest.raises(FormatError) as caught:
        image.source("22/1")
    assert words in str(caught.value)
    assert str(recording) in str(caught.value)


def test_a_stream_that_shrinks_while_it_is_read(recording: Path) -> None:
    source = open_recording(recording).source("22/0")
    os.truncate(recording / "22-0.raw", 1000)
    assert len(source.read(0, 1000)) == 1000
    with pytest.raises(FormatError, match=f"ends at byte 1000, but {SIZE} were promised"):
        source.read(990, 20)
    with pytest.raises(FormatError, match="ends at byte 1000"):
        source.readinto(0, bytearray(2000))


def test_salvaging_a_stream_that_was_cut_off(recording: Path, image: SimulatedImage) -> None:
    os.truncate(recording / "22-1.raw", 10_000)
    source = open_recording(recording, salvage=True).source("22/1")
    assert source.info.bytes == SIZE
    assert source.available(0, SIZE) == [(0, 10_000)]
    assert source.available(9_990, 100) == [(9_990, 10_000)]
    assert source.available(10_000, 100) == []
    assert source.read(0, 10_000) == image.source("22/1").read(0, 10_000)
    assert (
        RecordedStore(recording.parent, salvage=True).image(recording.name).source("22/1").available(0, SIZE)
    )
    os.truncate(recording / "22-1.raw", 0)
    assert open_recording(recording, salvage=True).source("22/1").available(0, SIZE) == []
    os.truncate(recording / "22-1.raw", SIZE + 1)
    with pytest.raises(FormatError, match="another stream's"):
        open_recording(recording, salvage=True).source("22/1")


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        (SIZE, [(0, 100), (200, 9_000), (11_000, SIZE)]),
        (20_000, [(0, 100), (200, 9_000), (11_000, 20_000)]),
        (11_000, [(0, 100), (200, 9_000)]),
        (10_000, [(0, 100), (200, 9_000)]),
        (9_000, [(0, 100), (200, 9_000)]),
        (8_000, [(0, 100), (200, 8_000)]),
        (150, [(0, 100)]),
    ],
)
def test_recorded_gaps_and_salvage(recording: Path, kept: int, expected: list[tuple[int, int]]) -> None:
    edit(recording, lambda d: d["sources"][1].update(gaps=[[100, 200], [9_000, 11_000]]))
    os.truncate(recording / "22-1.raw", kept)
    source = open_recording(recording, salvage=kept < SIZE).source("22/1")
    assert source.available(0, SIZE) == expected
    assert source.available(0, 50) == [(0, 50)]
    assert source.available(100, 100) == []
    if kept == SIZE:
        contract.assert_source(source)


def test_a_missing_file(recording: Path) -> None:
    """D034: at once, by its name."""
    (recording / "22-2.raw").unlink()
    with pytest.raises(NotFoundError, match=r"22-2\.raw: the file is not there"):
        open_recording(recording).source("22/2")


def test_links_and_devices_are_refused(recording: Path, tmp_path: Path) -> None:
    file = recording / "22-0.raw"
    kept = file.rename(tmp_path / "kept.raw")

    def refused() -> str:
        with pytest.raises(FormatError) as caught:
            open_recording(recording).source("22/0")
        return str(caught.value)

    file.symlink_to(kept)
    assert "22-0.raw: a link" in refused()
    file.unlink()
    file.symlink_to("/dev/zero")
    assert "22-0.raw: a link" in refused()
    file.unlink()
    file.mkdir()
    assert "not a file" in refused()
    file.rmdir()
    os.mkfifo(file)  # nobody writes to it: opening it must not wait
    assert "not a file" in refused()


def test_links_in_place_of_the_description(recording: Path, tmp_path: Path) -> None:
    path = recording / "image.json"
    kept = path.rename(tmp_path / "kept.json")
    path.symlink_to(kept)
    with pytest.raises(FormatError, match="a link"):
        open_recording(recording)
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(FormatError, match="a link"):
        open_recording(recording)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(FormatError, match="not a file"):
        open_recording(recording)
    path.unlink()
    path.mkdir()
    with pytest.raises(FormatError, match="not a file"):
        open_recording(recording)
    path.rmdir()
    path.write_bytes(b"")
    with pytest.raises(FormatError, match="not readable as JSON"):
        open_recording(recording)
    os.truncate(path, 2**40)
    with pytest.raises(FormatError, match="at most"):
        open_recording(recording)


def test_a_file_elsewhere_is_never_opened(recording: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(SIZE))
    for name in ("../../secret", str(tmp_path / "secret"), "..\\secret"):
        edit(recording, lambda d, name=name: d["sources"][0].update(file=name))
        with pytest.raises(FormatError, match="plain name"):
            open_recording(recording)


def test_sources_are_found_by_location_only(recording: Path) -> None:
    image = open_recording(recording)
    for location in ("", "22/3", "R22/Reb0", "22-0", "22/0 ", "\ud800", "x" * 10_000):
        with pytest.raises(NotFoundError, match="there are 22/0, 22/1, 22/2") as caught:
            image.source(location)
        assert len(str(caught.value)) < 400


def test_buffers_of_every_kind(recording: Path) -> None:
    import numpy as np

    source = open_recording(recording).source("22/0")
    whole = source.read(0, SIZE)
    pixels = np.zeros((4, 27), dtype=np.uint32)
    assert source.readinto(216, pixels) == 432
    assert pixels.tobytes() == whole[216 : 216 + 432]
    with pytest.raises(UsageError, match="contiguous"):
        source.readinto(0, np.zeros((4, 54), dtype=np.uint32)[:, ::2])
    with pytest.raises(UsageError, match="read-only"):
        source.readinto(0, b"1234")
    with pytest.raises(UsageError):
        source.readinto(0, "text")  # type: ignore[arg-type]


def test_files_are_closed_with_their_sources(recording: Path) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    gc.collect()
    before = descriptors()
    image = open_recording(recording)
    sources = [image.source(location) for location in image.info.locations for _ in range(10)]
    assert descriptors() == before + 30
    del sources
    gc.collect()
    assert descriptors() == before
    (recording / "22-0.raw").write_bytes(b"short")
    for _ in range(5):
        with pytest.raises(FormatError):
            image.source("22/0")
    assert descriptors() == before


def test_notices_of_new_recordings(recording: Path, comcam: Camera) -> None:
    store = RecordedStore(recording.parent)
    assert list(store.notices(timeout=0)) == []
    second = simulate_image(comcam, "CC_O_20261122_000002", registers=SMALL)
    writer = threading.Timer(0.2, write_recording, (recording.parent / second.info.name, second))
    begun = time.monotonic()
    writer.start()
    (notice,) = store.notices(timeout=1.5)
    writer.join()
    assert (notice.kind, notice.image) == ("complete", "CC_O_20261122_000002")
    assert 1.5 <= time.monotonic() - begun < 60


def test_notices_of_recordings_that_go(recording: Path, image: SimulatedImage) -> None:
    store = RecordedStore(recording.parent)
    notices = store.notices(timeout=3.0)
    mover = threading.Timer(0.2, lambda: recording.rename(recording.parent.parent / "elsewhere"))
    mover.start()
    first = next(notices)
    assert (first.kind, first.image) == ("removed", image.info.name)
    assert store.images() == []
    (recording.parent.parent / "elsewhere").rename(recording)
    second = next(notices)
    assert (second.kind, second.image) == ("complete", image.info.name)


def test_a_description_is_read_again_when_it_changes(recording: Path, image: SimulatedImage) -> None:
    store = RecordedStore(recording.parent)
    document = (recording / "image.json").read_text()
    assert store.images("raw") == [image.info.name]
    (recording / "image.json").write_text(document.replace('"raw"', '"lab"'))
    assert store.images("lab") == [image.info.name]
    (recording / "image.json").write_text("{}")
    assert store.images() == []
    (recording / "image.json").write_text(document)
    assert store.folders() == ["raw"]


def test_old_descriptions_are_not_read_again(
    recording: Path, image: SimulatedImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (recording / "image.json", recording.parent):
        os.utime(path, (1e9, 1e9))
    store = RecordedStore(recording.parent)
    assert store.images() == [image.info.name]
    monkeypatch.setattr("raftwright.daq.recording._read_info", lambda path: pytest.fail("read again"))
    assert store.images() == [image.info.name]
    os.utime(recording.parent)  # something happened there: all are looked at, none is read
    assert store.images() == [image.info.name]
    assert list(store.notices(timeout=0.6)) == []
