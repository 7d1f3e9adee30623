"""Names of images and files; hostile ones never become part of a path."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftwright.errors import FormatError
from raftwright.rawfile import FileName, ImageName, manifest_name, raw_file_name, sidecar_path
from raftwright.rawfile.names import image_directory


def test_image_name() -> None:
    name = ImageName.parse("MC_O_20261122_000123")
    assert (name.source, name.controller, name.dayobs, name.seqnum) == ("MC", "O", "20261122", 123)
    assert str(name) == "MC_O_20261122_000123"
    assert image_directory(Path("out"), name) == Path("out/20261122/MC_O_20261122_000123")
    assert raw_file_name(name, "R22", "S11") == "MC_O_20261122_000123_R22_S11.fits"
    assert manifest_name(name) == "MC_O_20261122_000123_expectedSensors.json"


HOSTILE = [
    "",
    "../../etc/passwd",
    "MC_O_20261122_000123/..",
    "MC_O_20261122_000123\n",
    "MC_O_20261122_00012",
    "MC_O_20261132_000123",
    "MC_O_00000000_000123",
    "mc_O_20261122_000123",
    "MC_O_٢٠٢٦1122_000123",
    "MC_O_20261122_000123\x00",
    "M_O_20261122_000123",
    "MC_O_20261122_000123 ",
    "x" * 10_000_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_no_identity_is_made_up(text: str) -> None:
    with pytest.raises(FormatError) as error:
        ImageName.parse(text)
    assert len(str(error.value)) < 400


@given(st.text())
def test_only_canonical_names_parse(text: str) -> None:
    try:
        name = ImageName.parse(text)
    except FormatError:
        return
    assert str(name) == text


@pytest.mark.parametrize("part", ["..", "R22/", "", "R 2", "R2\n", "é", "x" * 100])
def test_parts_of_file_names(part: str) -> None:
    name = ImageName.parse("MC_O_20261122_000123")
    with pytest.raises(FormatError):
        raw_file_name(name, part, "S11")
    with pytest.raises(FormatError):
        raw_file_name(name, "R22", part)


@pytest.mark.parametrize("suffix", [".fits", ".fits.fz", ".fits.gz"])
def test_file_names(suffix: str) -> None:
    stem = "MC_O_20261122_000123_R44_SW0"
    parts = FileName.parse(f"/data/{stem}{suffix}")
    assert (str(parts.image), parts.raft, parts.slot, parts.guider) == (
        "MC_O_20261122_000123",
        "R44",
        "SW0",
        False,
    )
    assert sidecar_path(Path(f"/data/{stem}{suffix}")) == Path(f"/data/{stem}.json")
    assert FileName.parse("MC_C_20240918_000013_R00_SG0_guider.fits").guider
    for wrong in ("x.fits", f"{stem}.txt", f"{stem}_guider.fit", f"{stem}.fits.conflict-12345678"):
        with pytest.raises(FormatError):
            FileName.parse(wrong)
