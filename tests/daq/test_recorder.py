"""Writing recordings: complete and durable, or not at all."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from raftwright import _core
from raftwright.camera import Camera
from raftwright.daq import (
    ImageInfo,
    MemoryImage,
    MemorySource,
    SimulatedImage,
    contract,
    open_recording,
    simulate_image,
    write_recording,
)
from raftwright.errors import ConflictError, FormatError, NotFoundError, StorageError, UsageError

SMALL = [3, 0, 20, 0, 0, 5, 0, 14, 0, 2, 1]
SIZE = 28 * 16 * 108


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def identity(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size


def streams(image: SimulatedImage) -> dict[str, bytes]:
    return {
        source.location: image.source(source.location).read(0, source.bytes) for source in image.info.sources
    }


def test_what_was_written(image: SimulatedImage, tmp_path: Path) -> None:
    result = write_recording(tmp_path / "new" / "deep" / image.info.name, image)
    assert result.status == "written"
    assert result.path == tmp_path / "new" / "deep" / image.info.name
    assert result.bytes == 3 * SIZE
    assert names(result.path) == ["22-0.raw", "22-1.raw", "22-2.raw", "image.json"]
    assert names(result.path.parent) == [image.info.name]
    document = json.loads((result.path / "image.json").read_text())
    assert document["format"] == "raftwright-recording/1"
    for source in document["sources"]:
        data = (result.path / source["file"]).read_bytes()
        assert data == image.source(source["location"]).read(0, SIZE)
        assert source["bytes"] == len(data) == SIZE
        assert source["crc32c"] == f"{_core.crc32c(data):08x}"
        assert source["registers"] == SMALL
    assert open_recording(result.path).info == result.info


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_threads_and_progress(image: SimulatedImage, tmp_path: Path, threads: int) -> None:
    seen: list[tuple[int, int]] = []
    overlapping = threading.Lock()

    def progress(done: int, total: int) -> None:
        assert overlapping.acquire(blocking=False), "calls overlap"
        seen.append((done, total))
        overlapping.release()

    result = write_recording(tmp_path / "r", image, threads=threads, durable=False, progress=progress)
    assert seen[-1] == (3 * SIZE, 3 * SIZE)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    contract.assert_image(open_recording(result.path))


def test_some_sources(image: SimulatedImage, tmp_path: Path) -> None:
    result = write_recording(tmp_path / "r", image, locations=["22/2", "22/0", "22/2"])
    assert result.info.locations == ("22/0", "22/2")
    assert names(result.path) == ["22-0.raw", "22-2.raw", "image.json"]
    with pytest.raises(NotFoundError, match="22/9"):
        write_recording(tmp_path / "s", image, locations=["22/9"])
    assert names(tmp_path) == ["r"]


def test_a_copy_of_a_recording_is_the_same(recording: Path, tmp_path: Path) -> None:
    path = recording / "image.json"
    document = json.loads(path.read_text())
    document["observer"] = "someone"
    document["sources"][1]["temperature"] = -99.5
    document["sources"][2]["file"] = "third.bin"
    (recording / "22-2.raw").rename(recording / "third.bin")
    path.write_text(json.dumps(document))
    original = open_recording(recording)
    copied = write_recording(tmp_path / "copy", original)
    assert copied.info == original.info
    assert json.loads((tmp_path / "copy" / "image.json").read_text()) == document
    assert write_recording(tmp_path / "copy", original).status == "unchanged"
    again = write_recording(tmp_path / "again", open_recording(tmp_path / "copy"))
    assert (again.path / "image.json").read_bytes() == (tmp_path / "copy" / "image.json").read_bytes()


def test_the_same_content_may_be_written_again(image: SimulatedImage, tmp_path: Path) -> None:
    first = write_recording(tmp_path / "r", image)
    before = identity(first.path / "image.json")
    second = write_recording(tmp_path / "r", image)
    assert second.status == "unchanged"
    assert second.info == first.info
    assert identity(first.path / "image.json") == before
    assert names(tmp_path) == ["r"]


def test_another_content_is_set_aside(image: SimulatedImage, comcam: Camera, tmp_path: Path) -> None:
    first = write_recording(tmp_path / "r", image)
    other = simulate_image(comcam, image.info.name, seed=6, registers=SMALL)
    with pytest.raises(ConflictError, match="another content stands there") as caught:
        write_recording(tmp_path / "r", other)
    assert open_recording(tmp_path / "r").info == first.info
    kept = caught.value.kept_as
    assert kept is not None
    assert Path(kept).parent == tmp_path
    assert Path(kept).name.startswith("r.conflict-")
    assert streams(open_recording(kept)) == streams(other)  # type: ignore[arg-type]
    assert len(names(tmp_path)) == 2
    # Once more: it is kept already.
    with pytest.raises(ConflictError) as caught:
        write_recording(tmp_path / "r", other)
    assert caught.value.kept_as == kept
    assert len(names(tmp_path)) == 2
    # And if what was kept is damaged, that is said.
    (Path(kept) / "22-0.raw").write_bytes(bytes(SIZE))
    with pytest.raises(ConflictError, match=r"and so it does at r\.conflict-") as caught:
        write_recording(tmp_path / "r", other)
    assert caught.value.kept_as is None
    assert len(names(tmp_path)) == 2


def test_a_damaged_recording_is_another_content(image: SimulatedImage, tmp_path: Path) -> None:
    write_recording(tmp_path / "r", image)
    data = bytearray((tmp_path / "r" / "22-1.raw").read_bytes())
    data[777] ^= 1
    (tmp_path / "r" / "22-1.raw").write_bytes(data)
    with pytest.raises(ConflictError) as caught:
        write_recording(tmp_path / "r", image)
    assert caught.value.kept_as is not None
    contract.assert_image(open_recording(caught.value.kept_as))


def test_what_else_may_stand_there(image: SimulatedImage, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert write_recording(tmp_path / "empty", image).status == "written"
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "linked").symlink_to(tmp_path / "empty")
    for name in ("file", "full", "link"):
        with pytest.raises(ConflictError):
            write_recording(tmp_path / name, image)
    assert (tmp_path / "file").read_text() == "mine"
    assert names(tmp_path / "full") == ["mine"]
    assert os.readlink(tmp_path / "link") == str(tmp_path / "nowhere")
    # A link to the same recording holds the same content.
    assert write_recording(tmp_path / "linked", image).status == "unchanged"


def test_names_of_directories(image: SimulatedImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert write_recording("relative", image).path == tmp_path / "relative"
    assert write_recording("x/../also/", image).path == tmp_path / "also"
    for name in (".hidden", "line\nbreak", "ünïcode", "x" * 300, "/"):
        with pytest.raises(UsageError, match="directory's name"):
            write_recording(name, image)
    with pytest.raises(UsageError, match="threads"):
        write_recording("y", image, threads=0)
    assert names(tmp_path) == ["also", "relative"]


class FailingSource(MemorySource):
    """Gives up at an offset."""

    def __init__(self, *arguments: object, fail: BaseException) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self._fail = fail

    def readinto(self, offset: int, buffer: object) -> int:
        raise self._fail


class FailingImage(MemoryImage):
    """One source fails while it is read."""

    def __init__(self, info: ImageInfo, data: dict[str, bytes], fail: BaseException) -> None:
        super().__init__(info, data)
        self._data = data
        self._fail = fail

    def source(self, location: str) -> MemorySource:
        if location == "22/1":
            info = next(source for source in self.info.sources if source.location == location)
            return FailingSource(info, self._data[location], fail=self._fail)
        return super().source(location)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    "fail", [FormatError("cut off"), RuntimeError("a bug"), KeyboardInterrupt()], ids=repr
)
def test_nothing_is_left_of_a_failure(
    image: SimulatedImage, tmp_path: Path, threads: int, fail: BaseException
) -> None:
    failing = FailingImage(image.info, streams(image), fail)
    with pytest.raises(type(fail)) as caught:
        write_recording(tmp_path / "r", failing, threads=threads)
    assert caught.value is fail
    assert names(tmp_path) == []


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 40000 bytes, as on a full disk. Python ignores the signal; the write fails."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("small_files")
def test_no_room(image: SimulatedImage, tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        write_recording(tmp_path / "r", image)
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename.endswith(".raw")
    assert names(tmp_path) == []


@pytest.mark.parametrize("call", ["fsync", "mkdir", "rename"])
def test_the_file_system_refuses(
    image: SimulatedImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(StorageError, match="No space left") as caught:
        write_recording(tmp_path / "r", image)
    monkeypatch.undo()
    assert caught.value.errno == errno.ENOSPC
    assert names(tmp_path) == []


def test_a_place_where_nothing_can_be_written(image: SimulatedImage, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        write_recording(tmp_path / "file" / "r", image)
    with pytest.raises(StorageError):
        write_recording("/proc/raftwright-no-such-place/r", image)


def test_everything_is_on_disk_before_it_has_its_name(
    image: SimulatedImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync, rename = os.fsync, os.rename

    def tell_fsync(fd: int) -> None:
        order.append(os.readlink(f"/proc/self/fd/{fd}").replace(str(tmp_path), ""))
        fsync(fd)

    def tell_rename(old: Path, new: Path) -> None:
        order.append("rename")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", tell_fsync)
    monkeypatch.setattr(os, "rename", tell_rename)
    write_recording(tmp_path / "new" / "r", image, threads=1)
    partial = order[0].rsplit("/", 1)[0]
    assert partial.startswith("/new/.r.")
    assert order == [
        *(f"{partial}/{file}" for file in ("22-0.raw", "22-1.raw", "22-2.raw", "image.json")),
        partial,
        "",  # the directory in which `new` was made
        "rename",
        "/new",
    ]
    order.clear()
    write_recording(tmp_path / "quick", image, durable=False)
    assert order == ["rename"]


def test_a_writer_that_is_killed_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    script = f"""
import os, signal
from raftwright.daq import simulate_image, write_recording
def progress(done, total):
    if done > total / 2:
        os.kill(os.getpid(), signal.SIGKILL)
image = simulate_image("LSSTComCam", "CC_O_20261122_000001", registers={SMALL})
write_recording({str(tmp_path / "r")!r}, image, threads=1, progress=progress)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "r").exists()
    (left,) = names(tmp_path)
    assert left.startswith(".r.")
    assert left.endswith(".partial")
    # What it left is in nobody's way.
    image = simulate_image("LSSTComCam", "CC_O_20261122_000001", registers=SMALL)
    assert write_recording(tmp_path / "r", image).status == "written"


def test_many_writers_of_one_recording(image: SimulatedImage, tmp_path: Path) -> None:
    results: list[str] = []

    def write() -> None:
        results.append(write_recording(tmp_path / "r", image, threads=1).status)

    writers = [threading.Thread(target=write) for _ in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(results) == ["unchanged"] * 5 + ["written"]
    assert names(tmp_path) == ["r"]
    contract.assert_image(open_recording(tmp_path / "r"))


def test_gaps_are_recorded(image: SimulatedImage, tmp_path: Path) -> None:
    data = streams(image)
    gaps = ((0, 7), (500, 1_000), (SIZE - 3, SIZE))
    sources = list(image.info.sources)
    sources[1] = msgspec.structs.replace(sources[1], gaps=gaps)
    info = msgspec.structs.replace(image.info, sources=tuple(sources))
    result = write_recording(tmp_path / "r", MemoryImage(info, data))
    assert result.info.sources[1].gaps == gaps
    there = (tmp_path / "r" / "22-1.raw").read_bytes()
    assert len(there) == SIZE
    for begin, end in gaps:
        assert there[begin:end] == bytes(end - begin)
    assert there[7:500] == data["22/1"][7:500]
    assert there[1_000 : SIZE - 3] == data["22/1"][1_000 : SIZE - 3]
    contract.assert_image(open_recording(tmp_path / "r"))
    # A salvaged stream is recorded as what it is, and that copy as the same.
    os.truncate(tmp_path / "r" / "22-0.raw", 4_000)
    salvaged = write_recording(tmp_path / "s", open_recording(tmp_path / "r", salvage=True))
    assert salvaged.info.sources[0].gaps == ((4_000, SIZE),)
    assert salvaged.info.sources[1].gaps == gaps
    copied = write_recording(tmp_path / "t", open_recording(tmp_path / "s"))
    assert copied.info == salvaged.info


def test_data_that_changed_on_the_way(image: SimulatedImage, tmp_path: Path) -> None:
    data = streams(image)
    sources = tuple(
        msgspec.structs.replace(source, crc32c=f"{_core.crc32c(data[source.location]):08X}")
        for source in image.info.sources
    )
    info = msgspec.structs.replace(image.info, sources=sources)
    assert write_recording(tmp_path / "r", MemoryImage(info, data)).info.sources[0].crc32c is not None
    data["22/2"] = bytes(SIZE)
    with pytest.raises(FormatError, match=r"source 22/2: the CRC-32C of its stream is .* changed on the way"):
        write_recording(tmp_path / "s", MemoryImage(info, data))
    assert names(tmp_path) == ["r"]


def test_a_store_that_gives_too_little(image: SimulatedImage, tmp_path: Path) -> None:
    class Short(MemorySource):
        def readinto(self, offset: int, buffer: object) -> int:
            return max(super().readinto(offset, buffer) - 1, 0)  # type: ignore[arg-type]

    class ShortImage(MemoryImage):
        def source(self, location: str) -> MemorySource:
            return Short(super().source(location).info, data[location])

    data = streams(image)
    with pytest.raises(FormatError, match=f"gave {SIZE - 1} bytes at 0 of {SIZE}"):
        write_recording(tmp_path / "r", ShortImage(image.info, data))
    assert names(tmp_path) == []


def test_a_description_that_cannot_be_recorded_is_refused_at_once(
    image: SimulatedImage, tmp_path: Path
) -> None:
    calls: list[str] = []

    class Watched(MemoryImage):
        def source(self, location: str) -> MemorySource:
            calls.append(location)
            return super().source(location)

    for changes in ({"name": "a/b"}, {"extra": {"x": object()}}, {"timestamp": "yesterday"}):
        info = msgspec.structs.replace(image.info, **changes)  # type: ignore[arg-type]
        with pytest.raises(FormatError):
            write_recording(tmp_path / "r", Watched(info, streams(image)))
    assert calls == []
    assert names(tmp_path) == []


def test_streams_in_memory(image: SimulatedImage, comcam: Camera) -> None:
    data = streams(image)
    memory = MemoryImage(image.info, data)
    contract.assert_image(memory, comcam)
    with pytest.raises(NotFoundError, match="22/1"):
        MemoryImage(image.info, {"22/0": data["22/0"]})
    with pytest.raises(
        FormatError, match=f"source 22/0: 5 bytes were given, but its description says {SIZE}"
    ):
        MemoryImage(image.info, {**data, "22/0": b"short"})
    with pytest.raises(NotFoundError):
        memory.source("22/3")
