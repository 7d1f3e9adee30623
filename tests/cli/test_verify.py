"""`raftwright verify`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


@pytest.fixture
def copy(raws: Path, tmp_path: Path) -> Path:
    """The raw files, to spoil."""
    return Path(shutil.copytree(raws, tmp_path / "copy" / raws.name))


def test_good_files(run: Run, raws: Path, comcam: Path) -> None:
    done = run("verify", raws, "--against", comcam)
    assert done.code == 0, done.out
    assert done.err == ""
    assert "verified 9 files" in done.out
    assert f"{9 * 16 * 43 * 46:,} pixels compared with the recording of {comcam.name}" in done.out
    assert "no fault" in done.out


def test_json(run: Run, raws: Path, comcam: Path) -> None:
    answer = run("verify", raws, "--against", comcam, "--json").json
    assert (answer["command"], answer["status"], answer["exit_code"]) == ("verify", "ok", 0)
    assert answer["compared"] == 9 * 16 * 43 * 46
    assert {file["detector"] for file in answer["files"]} == {f"R22_S{n}{m}" for n in "012" for m in "012"}


def test_a_flipped_bit_is_found(run: Run, copy: Path) -> None:
    path = next(copy.glob("*S11.fits"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    done = run("verify", copy)
    assert done.code == 5
    assert path.name in done.out
    assert "DATASUM" in done.out
    assert path.name in done.error
    answer = run("verify", copy, "--json")
    assert answer.code == 5
    assert (answer.json["status"], answer.json["ok"]) == ("faults", False)
    assert {Path(f["file"]).name for f in answer.json["findings"] if f["severity"] == "error"} == {path.name}


def test_other_pixels_are_found(run: Run, copy: Path) -> None:
    assert run("simulate", copy.name, "--size", "24x40", "--seed", 9, "-o", "other", "--no-sync").code == 0
    done = run("verify", copy, "--against", f"other/{copy.name}")
    assert done.code == 5
    assert "pixel" in done.error


def test_an_absent_file_is_found(run: Run, copy: Path) -> None:
    next(copy.glob("*S20.fits")).unlink()
    done = run("verify", copy)
    assert done.code == 5
    assert "R22_S20" in done.out


def test_what_is_no_fits_file(run: Run, tmp_path: Path) -> None:
    for name, content in (
        ("empty.fits", b""),
        ("text.fits", b"hello"),
        ("cut.fits", b"SIMPLE  =" + b" " * 3000),
    ):
        (tmp_path / name).write_bytes(content)
        done = run("verify", name)
        assert done.code == 5
        assert name in done.error


def test_warnings_count_when_strict(run: Run, copy: Path) -> None:
    from astropy.io import fits

    path = next(copy.glob("*S11.fits"))
    with fits.open(path, mode="update", disable_image_compression=True) as file:
        del file[1].header["CHECKSUM"]
    path.with_suffix(".json").unlink()
    loose = run("verify", path)
    assert loose.code == 0, loose.out
    assert "warning" in loose.out
    assert run("verify", path, "--strict").code == 5


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["nowhere"], 1, "nowhere: there is no such file or directory"),
        (["RAWS", "--against", "nowhere"], 1, "nowhere"),
        (["RAWS", "--against", "RAWS"], 1, "recording"),
        (["RAWS", "--camera", "Nothing"], 1, "Nothing"),
    ],
)
def test_what_cannot_be(run: Run, raws: Path, arguments: list[str], code: int, says: str) -> None:
    done = run("verify", *(raws if a == "RAWS" else a for a in arguments))
    assert done.code == code, done
    assert says in done.error
