"""Raw files source by source: versions, races, and what writers leave who die half-way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from raftwright import _core, assembly
from raftwright.assembly import AssembledSource
from raftwright.camera import Camera
from raftwright.daq import DaqImage, MemoryImage
from raftwright.errors import StorageError
from raftwright.rawfile import FileName, open_raw, verify
from raftwright.rawfile.cards import Card, format_card
from raftwright.rawfile.names import newest
from raftwright.rawfile.output import ImageOutput
from raftwright.rawfile.publishing import Pair, commit_pair, locked
from raftwright.rawfile.report import SourceReport
from raftwright.rawfile.sidecar import sidecar

GAPS = [(1000, 3000), (50_000, 50_108)]
CREATED = 2_500_000_000_000_000_000
LATER = CREATED + 3_600_000_000_000


def source_of(image: DaqImage, camera: Camera) -> AssembledSource:
    sources: list[AssembledSource] = []
    boards = assembly.select_boards(image, camera)
    assembly.read_sources(image, boards, sources.append, pixels=False, compressed=True, threads=1)
    return sources[0]


def write(
    image: DaqImage, camera: Camera, out: Path, *, versions: bool = True, created: int = CREATED
) -> SourceReport:
    output = ImageOutput(image.info, out, camera, durable=False, versions=versions)
    output.make_directory()
    return output.write(source_of(image, camera), created=created)


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def statuses(report: SourceReport) -> list[str]:
    assert not report.failures, report.failures
    return [file.status for file in report.files]


@pytest.fixture
def camera(science: Any, camera_of: Callable[[Any], Camera]) -> Camera:
    return camera_of(science)


@pytest.fixture
def whole(science: Any, image: Callable[..., DaqImage]) -> DaqImage:
    made = image(science)
    return MemoryImage(
        msgspec.structs.replace(made.info, id="00ab12"),
        {where: made.source(where).read(0, made.info.sources[0].bytes) for where in made.info.locations},
    )


@pytest.fixture
def cut(whole: DaqImage, with_gaps: Callable[..., DaqImage]) -> DaqImage:
    return with_gaps(whole, GAPS)


def test_the_time_of_creation_is_the_one_given_until_there_is_a_file(
    whole: DaqImage, camera: Camera, tmp_path: Path
) -> None:
    first = write(whole, camera, tmp_path)
    assert statuses(first) == ["written"] * 3
    again = write(whole, camera, tmp_path, created=LATER)
    assert statuses(again) == ["unchanged"] * 3
    assert [file.crc32c for file in again.files] == [file.crc32c for file in first.files]
    elsewhere = write(whole, camera, tmp_path / "b")
    assert content(elsewhere.files[0].path.parent) == content(first.files[0].path.parent)


def test_a_repaired_file_is_a_version_beside_the_first(
    whole: DaqImage, cut: DaqImage, camera: Camera, tmp_path: Path
) -> None:
    short = write(cut, camera, tmp_path)
    before = content(tmp_path)
    assert sum(file.missing_pixels for file in short.files) > 0
    repaired = write(whole, camera, tmp_path, created=LATER)
    after = content(tmp_path)
    assert {name: after[name] for name in before} == before, "nothing that was there has changed"
    for old, new in zip(short.files, repaired.files, strict=True):
        if not old.missing_pixels:
            assert (new.status, new.version, new.path) == ("unchanged", 1, old.path)
            continue
        assert (new.status, new.version, new.missing_pixels) == ("written", 2, 0)
        assert new.path.name == old.path.name.replace(".fits", ".v2.fits")
        assert FileName.parse(new.path).version == 2
        assert new.replaces is not None
        assert (new.replaces.file, new.replaces.crc32c) == (old.path.name, old.crc32c)
        said = json.loads(new.sidecar.read_bytes())
        assert said["__VERSION__"] == 2
        assert said["__REPLACES__"] == {
            "file": old.path.name,
            "crc32c": old.crc32c,
            "missing": old.missing_pixels,
        }
        header = open_raw(new.path).header
        assert (header["FILEVERS"], header["REPLACES"]) == (2, old.path.name)
        assert header["FILENAME"] == new.path.name
        assert "FILEVERS" not in open_raw(old.path).header
    assert verify(tmp_path, against=whole, camera=camera).errors == ()
    files = sorted(tmp_path.rglob("*.fits"))
    chosen = newest(files)
    assert sorted(file.path for file in repaired.files) == chosen
    assert statuses(write(whole, camera, tmp_path)) == ["unchanged"] * 3
    assert content(tmp_path) == after


def test_a_version_after_a_version(
    whole: DaqImage, with_gaps: Callable[..., DaqImage], camera: Camera, tmp_path: Path
) -> None:
    everywhere = [(n * 10_000, n * 10_000 + 500) for n in range(3)]
    for count, version in ((3, 1), (2, 2), (1, 3)):
        report = write(with_gaps(whole, everywhere[:count]), camera, tmp_path)
        assert {file.version for file in report.files} == {version}
    final = write(whole, camera, tmp_path)
    assert {file.version for file in final.files} == {4}
    assert {file.replaces.version for file in final.files if file.replaces} == {3}
    assert verify(tmp_path, against=whole, camera=camera).errors == ()
    old = write(with_gaps(whole, everywhere[:2]), camera, tmp_path)
    assert {(file.status, file.version) for file in old.files} == {("unchanged", 2)}
    assert len(list(tmp_path.rglob("*.fits"))) == 12


def test_less_than_what_is_there_changes_nothing(
    whole: DaqImage, cut: DaqImage, camera: Camera, tmp_path: Path
) -> None:
    full = write(whole, camera, tmp_path)
    before = content(tmp_path)
    report = write(cut, camera, tmp_path)
    assert set(statuses(report)) <= {"kept", "unchanged"}
    assert "kept" in statuses(report)
    for mine, there in zip(report.files, full.files, strict=True):
        assert (mine.path, mine.bytes, mine.crc32c, mine.adler32, mine.missing_pixels) == (
            there.path,
            there.bytes,
            there.crc32c,
            there.adler32,
            0,
        )
    assert content(tmp_path) == before


@pytest.mark.parametrize("what", ["identity", "pixels", "both complete", "not asked for"])
def test_what_is_no_repair_is_a_conflict(
    what: str,
    whole: DaqImage,
    cut: DaqImage,
    science: Any,
    image: Callable[..., DaqImage],
    camera: Camera,
    tmp_path: Path,
) -> None:
    first = whole if what == "both complete" else cut
    write(first, camera, tmp_path)
    before = content(tmp_path)
    second: DaqImage = image(science, seed=8)
    location = whole.info.locations[0]
    stream = whole.source(location).read(0, whole.info.sources[0].bytes)
    if what == "identity":
        second = MemoryImage(msgspec.structs.replace(whole.info, id="00ab13"), {location: stream})
    elif what in ("pixels", "both complete"):
        other = second.source(location).read(0, len(stream))
        source = msgspec.structs.replace(whole.info.sources[0], crc32c=None)
        second = MemoryImage(msgspec.structs.replace(whole.info, sources=(source,)), {location: other})
    else:
        second = whole
    report = write(second, camera, tmp_path, versions=what != "not asked for")
    assert "conflict" in statuses(report)
    assert not list(tmp_path.rglob("*.v2.*"))
    after = content(tmp_path)
    assert {name: after[name] for name in before} == before
    again = write(second, camera, tmp_path, versions=what != "not asked for")
    assert [file.path for file in again.files] == [file.path for file in report.files]
    assert content(tmp_path) == after


def test_a_sidecar_without_its_file_is_no_obstacle(
    whole: DaqImage, cut: DaqImage, camera: Camera, tmp_path: Path
) -> None:
    wanted = content(write(whole, camera, tmp_path / "a").files[0].path.parent)
    left = write(whole, camera, tmp_path / "b")
    for file in left.files:  # as if its writer had died between the two
        file.path.unlink()
    report = write(whole, camera, tmp_path / "b", created=LATER)
    assert statuses(report) == ["written"] * 3
    assert content(report.files[0].path.parent) == wanted, "the time that the sidecar says is taken over"
    stranger = write(cut, camera, tmp_path / "c")
    for file in stranger.files:
        file.path.unlink()
    report = write(whole, camera, tmp_path / "c")
    assert content(report.files[0].path.parent) == wanted
    assert verify(tmp_path / "c", camera=camera).errors == ()


def test_many_writers_with_other_times_make_one_file(whole: DaqImage, camera: Camera, tmp_path: Path) -> None:
    reports: list[SourceReport] = []
    lock = threading.Lock()

    def work(number: int) -> None:
        report = write(whole, camera, tmp_path, created=CREATED + number * 1_000_000)
        with lock:
            reports.append(report)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(reports) == 8
    for files in zip(*(report.files for report in reports), strict=True):
        found = sorted(file.status for file in files)
        assert found == ["unchanged"] * 7 + ["written"]
        assert len({file.crc32c for file in files}) == 1
    assert len(content(tmp_path)) == 6
    assert verify(tmp_path, camera=camera).errors == ()


WRITER = """\
import sys
from pathlib import Path
from raftwright import assembly
from raftwright.camera import camera
from raftwright.daq import open_recording
from raftwright.rawfile.output import ImageOutput

image = open_recording(sys.argv[1])
mine = camera(image.info.camera)
sources = []
boards = assembly.select_boards(image, mine)
assembly.read_sources(image, boards, sources.append, pixels=False, compressed=True)
print("ready", flush=True)
while True:
    sys.stdin.readline()
    for n in range(10_000):
        output = ImageOutput(image.info, Path(sys.argv[2]) / str(n), mine, durable=False, versions=True)
        output.make_directory()
        assert not output.write(sources[0]).failures
"""


def test_a_killed_writer_leaves_whole_pairs_and_nothing_else(
    whole: DaqImage, camera: Camera, tmp_path: Path
) -> None:
    """D010, D051: what is compressed is a new file, named when it is whole."""
    from raftwright.daq import write_recording

    recording = write_recording(tmp_path / whole.info.name, whole).path
    out = tmp_path / "out"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(recording), str(out)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=env,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("go\n")
        process.stdin.flush()
        end = time.monotonic() + 30
        while not (out / "20").exists() and time.monotonic() < end:
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        process.stdin.close()
        process.stdout.close()
    assert (out / "20").exists()
    names = [path.name for path in out.rglob("*") if path.is_file()]
    assert all(name.endswith((".fits", ".json")) for name in names), "no temporary file is left"
    for path in out.rglob("*.fits"):
        assert path.with_suffix(".json").is_file(), "a file that is seen has its sidecar"
    last = max(int(path.name) for path in out.iterdir())
    for number in {last, last - 1, 0}:
        report = write(whole, camera, out / str(number))
        assert set(statuses(report)) <= {"written", "unchanged"}
        assert verify(out / str(number), camera=camera).errors == ()


def test_the_file_never_shows_without_its_sidecar(
    whole: DaqImage, camera: Camera, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    def watched(pair: Pair, alone: bool) -> bool:
        class Spy:
            def __init__(self, staged: _core.StagedFile, name: str) -> None:
                self._staged, self._name = staged, name

            def commit(self) -> bool:
                order.append(self._name)
                return self._staged.commit()

        spied = Pair(
            pair.path,
            Spy(pair.file, "file"),  # type: ignore[arg-type]
            pair.sidecar,
            pair.text,
            Spy(pair.beside, "sidecar"),  # type: ignore[arg-type]
        )
        return commit_pair(spied, alone)

    monkeypatch.setattr("raftwright.rawfile.output.commit_pair", watched)
    write(whole, camera, tmp_path)
    assert order == ["sidecar", "file"] * 3


def test_a_lock_that_is_held_is_waited_for_but_not_for_ever(
    whole: DaqImage, camera: Camera, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raftwright.rawfile.publishing._WAIT", 0.2)
    output = ImageOutput(whole.info, tmp_path, camera, durable=False)
    output.make_directory()
    source = source_of(whole, camera)
    with locked(output.directory) as alone:
        assert alone
        report = output.write(source)
        assert len(report.failures) == 3
        assert all(isinstance(error, StorageError) for error in report.errors)
        assert "lock" in report.failures[0].error
        assert content(tmp_path) == {}
    assert statuses(output.write(source)) == ["written"] * 3


def test_a_file_system_without_locks_for_directories(
    whole: DaqImage, camera: Camera, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("raftwright.rawfile.publishing.fcntl.flock", refuse)
    assert statuses(write(whole, camera, tmp_path)) == ["written"] * 3
    assert statuses(write(whole, camera, tmp_path)) == ["unchanged"] * 3


def test_whole_files_are_found_and_nothing_less(
    whole: DaqImage, cut: DaqImage, camera: Camera, tmp_path: Path
) -> None:
    board = camera.board(whole.info.locations[0])
    output = ImageOutput(whole.info, tmp_path, camera, versions=True)
    assert output.standing(board) == {}
    write(cut, camera, tmp_path)
    assert not output.standing(board), "pixels are missing"
    written = write(whole, camera, tmp_path)
    found = output.standing(board)
    for mine, there in zip(found.values(), written.files, strict=True):
        assert mine.status == "unchanged"
        for part in ("detector", "location", "path", "bytes", "adler32", "crc32c", "version", "replaces"):
            assert getattr(mine, part) == getattr(there, part), part
    other = msgspec.structs.replace(whole.info, id="00ab13")
    assert not ImageOutput(other, tmp_path, camera).standing(board), "of another image of that name"
    path = written.files[-1].path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    assert list(output.standing(board)) == list(found)[:-1], "a bit of the last has changed"


def test_some_ccds_of_a_source_are_written_alone(whole: DaqImage, camera: Camera, tmp_path: Path) -> None:
    """D091: a source has several CCDs; the file of one can be made without those of the others."""
    board = camera.board(whole.info.locations[0])
    name = board.detectors[1].name
    output = ImageOutput(whole.info, tmp_path, camera, versions=True)
    output.make_directory()
    report = output.write(source_of(whole, camera), detectors={name})
    assert [file.detector for file in report.files] == [name]
    assert list(output.standing(board)) == [name]
    assert len(list(tmp_path.rglob("*.fits"))) == 1
    assert statuses(output.write(source_of(whole, camera))) == ["written", "unchanged", "written"]


def test_readers_of_a_directory_take_the_newest_version(
    whole: DaqImage, cut: DaqImage, camera: Camera, tmp_path: Path
) -> None:
    from raftwright.cli.inputs import _raw_files_below
    from raftwright.rawfile import replay

    write(cut, camera, tmp_path / "raw")
    report = write(whole, camera, tmp_path / "raw")
    assert sorted(_raw_files_below(tmp_path / "raw")) == sorted(file.path for file in report.files)
    again = replay([tmp_path / "raw"], tmp_path / "again", camera=camera)
    truth = assembly.assemble(whole, camera=camera)
    mine = assembly.assemble(again.path, camera=camera)
    for ccd in truth:
        for name, pixels in ccd.segments.items():
            np.testing.assert_array_equal(mine[ccd.name].segments[name], pixels)
    assert mine.missing_pixels == 0


@pytest.mark.parametrize("name", ["v1", "v0", "v10000", "v02", "v", "vx"])
def test_versions_that_are_none(name: str) -> None:
    from raftwright.errors import FormatError

    with pytest.raises(FormatError):
        FileName.parse(f"MC_O_20261122_000123_R22_S11.{name}.fits")


def test_cards_and_lines_that_are_remembered_keep_their_types() -> None:
    for _ in range(2):
        for value, text in ((1, "1"), (True, "T"), (1.0, "1.0"), (0.0, "0.0"), (-0.0, "-0.0"), (False, "F")):
            card = Card("SOMEKEY", value)
            assert format_card(card)[0][10:30].strip() == text
            said = json.loads(sidecar([card]))["SOMEKEY"]
            assert type(said) is type(value)
            assert repr(said) == repr(value)
