"""Raw files of every kind of board, judged by fitsverify, fpack, astropy and fitsio; twice; on bad days."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from astropy.io import fits

from raftwright import assembly
from raftwright.camera import Camera, Detector
from raftwright.camera import camera as find_camera
from raftwright.daq import DaqImage, MemoryImage, open_recording, write_recording
from raftwright.errors import FormatError, NotFoundError, StorageError, UsageError
from raftwright.rawfile import open_raw, verify, write_image
from raftwright.rawfile.segments import extension_header

NULL = "has a null value."
HEADER = b"""\
PRIMARY:
- {keyword: DATE-OBS, value: '2026-11-23T01:01:46.000', comment: ''}
- {keyword: DATE-END, value: '2026-11-23T01:02:01.000', comment: ''}
- {keyword: IMGTYPE, value: OBJECT, comment: ''}
- {keyword: EXPTIME, value: 15, comment: ''}
- {keyword: OBJECT, value: "M\xc3\xbcller's star", comment: ''}
- {keyword: OBSGEO-X, value: 1818938.94, comment: ''}
- {keyword: RADESYS, value: ICRS, comment: ''}
- {keyword: PROGRAM, value: '{LONG}', comment: ''}
- {keyword: HIERARCH STUTTER ROWS, value: 0, comment: ''}
- {keyword: NAXIS, value: 7, comment: ''}
- {keyword: MYKEY, value: 1.5, comment: 'not in any table'}
REB_COND:
- {keyword: TEMP1, value: 12, comment: ''}
- {keyword: HVBIAS, value: 'ON', comment: ''}
CONFIG_COND:
- {keyword: FPDAQCS, value: '2769461365', comment: ''}
""".replace(b"{LONG}", b"a very long name of a program: " + b"x" * 80)
WITH_NULLS = (
    HEADER
    + b"""R22S00_PRIMARY:
- {keyword: RA, value: .nan, comment: ''}
- {keyword: OBJECT, value: null, comment: ''}
"""
)


def truth(image: DaqImage, camera: Camera) -> dict[str, np.ndarray[Any, Any]]:
    assembled = assembly.assemble(image, camera=camera)
    return {f"{ccd.detector.file_stem}": np.stack(list(ccd.segments.values())) for ccd in assembled}


@pytest.mark.parametrize("plain", [False, True], ids=["compressed", "plain"])
@pytest.mark.parametrize("header", [None, HEADER], ids=["bare", "document"])
def test_every_kind_of_file_is_accepted(
    kind: Any,
    plain: bool,
    header: bytes | None,
    image: Callable[..., DaqImage],
    camera_of: Callable[[Any], Camera],
    fitsverify: Callable[[Path], list[str]],
    astropy_accepts: Callable[[Path], None],
    require_module: Callable[[str], None],
    tmp_path: Path,
) -> None:
    require_module("fitsio")
    import fitsio

    source, camera = image(kind), camera_of(kind)
    report = write_image(source, tmp_path, camera=camera, header=header, plain=plain, durable=False)
    pixels = truth(source, camera)
    assert report.complete
    assert len(report.files) == len(pixels)
    if kind.files:
        assert sorted(f.path.name for f in report.files) == [
            f"{kind.name}_{part}.fits" for part in kind.files
        ]
    for file in report.files:
        assert file.path.parent == tmp_path / "20261122" / kind.name
        assert file.path.stat().st_size == file.bytes
        assert fitsverify(file.path) == []
        astropy_accepts(file.path)
        stem = file.path.stem.removeprefix(f"{kind.name}_")
        with fitsio.FITS(str(file.path)) as theirs:
            count = len(pixels[stem])
            assert len(theirs) == 1 + count + 2
            for index in range(count):
                assert np.array_equal(theirs[index + 1].read(), pixels[stem][index])
            assert theirs[0].read_header()["OBSID"] == kind.name
        with fits.open(file.path) as theirs:
            for index in range(count):
                assert np.array_equal(theirs[index + 1].data, pixels[stem][index])
        ours = open_raw(file.path, camera=camera)
        assert np.array_equal(np.stack(list(ours.segments.values())), pixels[stem])


def test_undefined_values_are_the_only_remark(
    science: Any, image: Callable[..., DaqImage], fitsverify: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    report = write_image(image(science), tmp_path, header=WITH_NULLS, durable=False)
    said = fitsverify(report.files[0].path)
    assert len(said) == 1
    assert "RA" in said[0]
    assert NULL in said[0]
    assert fitsverify(report.files[1].path) == []
    content = json.loads(report.files[0].sidecar.read_text())
    assert content["RA"] is None
    assert "OBJECT" not in content


def test_order_of_hdus(
    kind: Any, image: Callable[..., DaqImage], camera_of: Callable[[Any], Camera], tmp_path: Path
) -> None:
    report = write_image(image(kind), tmp_path, camera=camera_of(kind), durable=False)
    upper = [f"Segment1{n}" for n in range(8)]
    lower = [f"Segment0{n}" for n in reversed(range(8))]
    for file in report.files:
        names = [*upper, *(lower if kind.segments == 16 else [])]
        if kind.id == "MiniCam":
            names = [segment.name for segment in camera_of(kind).detector(file.detector).segments]
        expected = ["PRIMARY", *names, "REB_COND", "CONFIG_COND"]
        with fits.open(file.path) as hdus:
            assert [hdu.name for hdu in hdus] == expected
            assert all(hdu.shape == (kind.height, kind.width) for hdu in hdus[1:-2])


def uncompressed(program: str, path: Path, out: Path, *options: str) -> Path:
    done = subprocess.run(
        [program, *options, "-O", str(out), str(path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_fpack_and_funpack_agree(
    kind: Any,
    image: Callable[..., DaqImage],
    camera_of: Callable[[Any], Camera],
    require_tool: Callable[[str], str],
    astropy_accepts: Callable[[Path], None],
    tmp_path: Path,
) -> None:
    fpack, funpack = require_tool("fpack"), require_tool("funpack")
    source, camera = image(kind), camera_of(kind)
    squeezed = write_image(source, tmp_path / "c", camera=camera, header=HEADER, durable=False).files[0].path
    plain = (
        write_image(source, tmp_path / "p", camera=camera, header=HEADER, plain=True, durable=False)
        .files[0]
        .path
    )
    # funpack of ours is ours without compression, sums included.
    unpacked = uncompressed(funpack, squeezed, tmp_path / "unpacked.fits")
    astropy_accepts(unpacked)
    # fpack of our plain file is our compressed one.
    packed = uncompressed(fpack, plain, tmp_path / "packed.fits.fz")
    astropy_accepts(packed)
    volatile = {"CHECKSUM", "DATASUM", "DATE", "MJD"}
    for ours, theirs in ((plain, unpacked), (squeezed, packed)):
        with (
            fits.open(ours, disable_image_compression=True) as mine,
            fits.open(theirs, disable_image_compression=True) as other,
        ):
            assert len(mine) == len(other)
            for a, b in zip(mine, other, strict=True):
                left = [(c.keyword, c.value, c.comment) for c in a.header.cards if c.keyword not in volatile]
                right = [(c.keyword, c.value, c.comment) for c in b.header.cards if c.keyword not in volatile]
                assert left == right
                assert (a.data is None and b.data is None) or np.array_equal(
                    a._get_raw_data(  # type: ignore[attr-defined]
                        a.size, "u1", a._data_offset
                    ),
                    b._get_raw_data(b.size, "u1", b._data_offset),
                )


def test_sidecars_say_what_the_headers_say(
    science: Any, image: Callable[..., DaqImage], tmp_path: Path
) -> None:
    report = write_image(image(science), tmp_path, header=HEADER, durable=False)
    for file in report.files:
        content = json.loads(file.sidecar.read_text())
        with fits.open(file.path) as hdus:
            header = hdus[0].header
            assert content.pop("__CONTENT__") == "metadata"
            keys = [key.removeprefix("HIERARCH.").replace(".", " ") for key in content]
            assert keys == [key for key in header if key]
            assert list(content.values()) == [header[key] for key in keys]
    assert report.manifest is not None
    assert set(json.loads(report.manifest.read_text())["expectedSensors"]) == set(science.files)


def snapshot(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("plain", [False, True])
def test_doing_it_again_changes_nothing(
    plain: bool, science: Any, image: Callable[..., DaqImage], tmp_path: Path
) -> None:
    source = image(science)
    first = write_image(source, tmp_path, header=HEADER, plain=plain, durable=False)
    assert {file.status for file in first.files} == {"written"}
    before = snapshot(tmp_path)
    again = write_image(source, tmp_path, header=HEADER, plain=plain, threads=2)
    assert {file.status for file in again.files} == {"unchanged"}
    assert {file.sidecar_status for file in again.files} == {"unchanged"}
    assert again.manifest_status == "unchanged"
    assert snapshot(tmp_path) == before
    # What a crash may have left out is added, nothing else touched.
    first.files[1].sidecar.unlink()
    first.files[2].path.unlink()
    third = write_image(source, tmp_path, header=HEADER, plain=plain, durable=False)
    assert [file.status for file in third.files] == ["unchanged", "unchanged", "written"]
    assert third.files[1].sidecar_status == "written"
    after = snapshot(tmp_path)
    for name in before:
        if "S02" not in name:
            assert after[name] == before[name]


def test_another_content_is_kept_beside_what_is_there(
    science: Any, image: Callable[..., DaqImage], tmp_path: Path
) -> None:
    first = write_image(image(science), tmp_path, durable=False)
    before = snapshot(tmp_path)
    first.files[0].sidecar.unlink()
    other = write_image(image(science, seed=8), tmp_path, durable=False)
    assert [file.status for file in other.files] == ["conflict"] * 3
    assert len(other.conflicts) == 3
    after = snapshot(tmp_path)
    for name, data in before.items():
        if name != str(first.files[0].sidecar.relative_to(tmp_path)):
            assert after[name] == data
    for file in other.files:
        # Both are kept, and the sidecar of the new file never stands beside the old one.
        assert file.path.name.startswith(f"{science.name}_R22_S0")
        assert ".fits.conflict-" in file.path.name
        assert file.sidecar.name == file.path.name.replace(".fits.", ".json.")
        assert file.path.exists()
        assert file.sidecar.exists()
    assert not first.files[0].sidecar.exists()
    kept = [finding for finding in verify(tmp_path).warnings if ".conflict-" in finding.file]
    assert len(kept) == 3


def test_an_old_file_of_someone_else_stays(
    science: Any, image: Callable[..., DaqImage], tmp_path: Path
) -> None:
    name = f"{science.name}_R22_S01.fits"
    folder = tmp_path / "20261122" / science.name
    folder.mkdir(parents=True)
    for junk in (b"", b"junk", b"END     ".ljust(80), b"DATE    = 'soon'".ljust(80) + b"END".ljust(80)):
        (folder / name).write_bytes(junk)
        report = write_image(image(science), tmp_path, durable=False)
        assert (folder / name).read_bytes() == junk
        assert report.conflicts[0].path.name.startswith(f"{name}.conflict-")
    # However often it is done again: one file is kept beside the stranger, not one for every time.
    assert len(list(folder.glob(f"{name}.conflict-*"))) == 1


GAPS = [(0, 108), (108 * 70 + 13, 108 * 200 - 5), (108 * 2243, 108 * 2244)]


def test_missing_pixels_are_filled_counted_and_listed(
    science: Any,
    image: Callable[..., DaqImage],
    with_gaps: Callable[[DaqImage, list[tuple[int, int]]], DaqImage],
    fitsverify: Callable[[Path], list[str]],
    astropy_accepts: Callable[[Path], None],
    tmp_path: Path,
) -> None:
    whole = image(science)
    pixels = truth(whole, find_camera("LSSTCam"))
    source = with_gaps(whole, GAPS)
    report = write_image(source, tmp_path, fill=-7, durable=False)
    assert not report.complete
    assert report.missing_pixels == sum(file.missing_pixels for file in report.files) > 48 * 100
    for file in report.files:
        assert fitsverify(file.path) == []
        astropy_accepts(file.path)
        stem = file.path.stem.removeprefix(f"{science.name}_")
        content = json.loads(file.sidecar.read_text())
        listed = content["__MISSING__"]
        assert content["MISSPIX"] == file.missing_pixels
        assert content["FILLVAL"] == -7
        raw = open_raw(file.path)
        for index, (name, array) in enumerate(raw.segments.items()):
            gone = np.zeros(array.size, dtype=bool)
            for first, count in listed.get(name, []):
                gone[first : first + count] = True
            assert raw.segment_header(name).get("MISSPIX", 0) == gone.sum()
            flat = array.reshape(-1)
            assert (flat[gone] == -7).all()
            assert np.array_equal(flat[~gone], pixels[stem][index].reshape(-1)[~gone])
            # By the layout: a pixel is gone when any of its 18 bits is in a gap.
            assert gone[0]
            assert gone[71:199].all()
            assert not gone[1:70].any()


def test_a_truncated_recording(science: Any, image: Callable[..., DaqImage], tmp_path: Path) -> None:
    recorded = write_recording(tmp_path / science.name, image(science), durable=False)
    stream = recorded.path / recorded.info.sources[0].file
    os.truncate(stream, 108 * 1000 + 50)
    with pytest.raises(FormatError):
        write_image(recorded.path, tmp_path / "out", durable=False)
    assert not (tmp_path / "out").exists()
    report = write_image(open_recording(recorded.path, salvage=True), tmp_path / "out", durable=False)
    size = science.width * science.height
    assert 48 * (size - 1001) < report.missing_pixels < 48 * (size - 999)
    os.truncate(stream, 0)
    everything = write_image(open_recording(recorded.path, salvage=True), tmp_path / "empty", durable=False)
    assert everything.missing_pixels == 48 * size


def test_only_some_boards(image: Callable[..., DaqImage], science: Any, tmp_path: Path) -> None:
    source = image(science, locations=["22/0", "22/1"])
    report = write_image(source, tmp_path, locations=["22/1"], durable=False)
    assert [file.detector for file in report.files] == ["R22_S10", "R22_S11", "R22_S12"]
    assert report.manifest is not None
    sensors = json.loads(report.manifest.read_text())["expectedSensors"]
    assert len(sensors) == 6  # the image's, not the call's
    with pytest.raises(NotFoundError):
        write_image(source, tmp_path / "x", locations=["23/0"])
    assert not (tmp_path / "x").exists()


def renamed(image: DaqImage, **changes: Any) -> DaqImage:
    streams = {s.location: image.source(s.location).read(0, s.bytes) for s in image.info.sources}
    return MemoryImage(msgspec.structs.replace(image.info, **changes), streams)


def test_bad_input_leaves_nothing(science: Any, image: Callable[..., DaqImage], tmp_path: Path) -> None:
    source = image(science)
    out = tmp_path / "out"
    for name in ("hello", "../../MC_O_20261122_000001", "MC_O_20261399_000001"):
        with pytest.raises(FormatError):
            write_image(renamed(source, name=name), out)
    with pytest.raises(NotFoundError):
        write_image(renamed(source, camera="NoCam"), out)
    with pytest.raises(FormatError):
        write_image(source, out, header=b"a: b: c")
    with pytest.raises(StorageError):
        write_image(source, out, header=tmp_path / "none.yaml")
    with pytest.raises(UsageError):
        write_image(source, out, fill=2**31)
    assert not out.exists()


def test_unwritable(science: Any, image: Callable[..., DaqImage], tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(StorageError) as error:
        write_image(image(science), blocked)
    assert str(blocked) in str(error.value)
    assert blocked.read_text() == "in the way"


def test_one_ccd_that_fails_holds_up_no_other(
    science: Any, image: Callable[..., DaqImage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D037."""

    def failing(camera: Camera, detector: Detector, *args: Any, **settings: Any) -> bytes:
        if detector.name == "R22_S01":
            raise FormatError("a header that cannot be made")
        return extension_header(camera, detector, *args, **settings)

    folder = tmp_path / "20261122" / science.name
    monkeypatch.setattr("raftwright.rawfile.output.extension_header", failing)
    with pytest.raises(FormatError) as error:
        write_image(image(science), tmp_path, durable=False)
    report = error.value.report  # type: ignore[attr-defined]
    assert [file.detector for file in report.files] == ["R22_S00", "R22_S02"]
    assert [failure.detector for failure in report.failures] == ["R22_S01"]
    assert not report.complete
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [f"{science.name}_R22_{slot}.{suffix}" for slot in ("S00", "S02") for suffix in ("fits", "json")]
        + [f"{science.name}_expectedSensors.json"]
    )


def test_disk_full(science: Any, image: Callable[..., DaqImage], tmp_path: Path) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    import signal

    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(StorageError):
            write_image(image(science), tmp_path, plain=True)
    finally:
        signal.signal(signal.SIGXFSZ, handler)
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_many_at_once_into_one_directory(
    science: Any, image: Callable[..., DaqImage], tmp_path: Path
) -> None:
    """D021."""
    source = image(science)
    first = write_image(source, tmp_path, durable=False)
    before = snapshot(tmp_path)
    reports: list[Any] = []
    threads = [
        threading.Thread(target=lambda: reports.append(write_image(source, tmp_path, durable=False)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reports) == 4
    assert {file.status for report in reports for file in report.files} == {"unchanged"}
    assert snapshot(tmp_path) == before
    assert first.to_dict()["files"][0]["status"] == "written"
    json.dumps(first.to_dict())


def test_notes_of_a_wrong_document(science: Any, image: Callable[..., DaqImage], tmp_path: Path) -> None:
    path = tmp_path / "header.yaml"
    path.write_bytes(HEADER)
    report = write_image(image(science), tmp_path / "out", header=path, durable=False)
    assert any("NAXIS" in note for note in report.notes)
    assert any("OBJECT" in note for note in report.notes)
    assert len(report.notes) == len(set(report.notes))


def test_the_name_of_another_camera_is_said(
    science: Any, image: Callable[..., DaqImage], tmp_path: Path
) -> None:
    report = write_image(renamed(image(science), name="AT_O_20261122_000001"), tmp_path, durable=False)
    assert any("begins with AT" in note for note in report.notes)


def test_directories_that_cannot_be_made(
    science: Any, image: Callable[..., DaqImage], tmp_path: Path
) -> None:
    with pytest.raises(StorageError, match="directory of the image"):
        write_image(image(science), tmp_path / ("x" * 5000))
    for name in ("a\0b", os.fsdecode(b"\xff")):
        with pytest.raises(UsageError):
            write_image(image(science), tmp_path / name)
    assert list(tmp_path.iterdir()) == []
