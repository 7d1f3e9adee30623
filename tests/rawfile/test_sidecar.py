"""Sidecars and manifests, against the real ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from raftwright.camera import camera as find_camera
from raftwright.errors import FormatError, StorageError
from raftwright.rawfile import Card, ImageName, open_raw
from raftwright.rawfile.cards import blank, title
from raftwright.rawfile.sidecar import MAX_BYTES, as_runs, manifest, read_json, run_mask, sidecar


def test_the_sidecar_of_a_real_file_is_reproduced(require_shared: Callable[..., Path]) -> None:
    raws = require_shared("data", "raws")
    stem = "guider__MC_C_20240918_000013_R00_SG0_guider"
    header = open_raw(raws / f"{stem}.fits").header
    assert sidecar(header.cards) == (raws / f"{stem}.json").read_bytes()


def test_a_real_sidecar_read_and_written(require_shared: Callable[..., Path]) -> None:
    text = require_shared("data", "raws", "guider__MC_C_20240918_000013_R42_S11.json").read_bytes()
    content = json.loads(text)
    del content["__CONTENT__"]
    cards = [Card(key.removeprefix("HIERARCH.").replace(".", " "), value) for key, value in content.items()]
    assert sidecar(cards) == text


def test_form() -> None:
    cards = [
        Card("SIMPLE", True),
        blank(),
        title("a title"),
        Card("CCDGAIN", 1.0),
        Card("RA", None),
        Card("STUTTER ROWS", 0),
        Card("PROGRAM", 'a "quoted" \\ text'),
        Card("COMMENT", comment="text", has_value=False),
    ]
    assert sidecar(cards).decode() == (
        '{\n  "__CONTENT__" : "metadata",\n  "SIMPLE" : true,\n  "CCDGAIN" : 1.0,\n  "RA" : null,\n'
        '  "HIERARCH.STUTTER.ROWS" : 0,\n  "PROGRAM" : "a \\"quoted\\" \\\\ text"\n}'
    )


def test_missing_pixels_come_last_and_only_when_there_are_any() -> None:
    text = sidecar([Card("DATASUM", "0")], {"Segment10": [(0, 5), (100, 1)], "Segment11": []})
    assert list(json.loads(text)) == ["__CONTENT__", "DATASUM", "__MISSING__"]
    assert json.loads(text)["__MISSING__"] == {"Segment10": [[0, 5], [100, 1]]}
    assert b"__MISSING__" not in sidecar([Card("DATASUM", "0")], {})


def test_manifest_of_the_whole_camera() -> None:
    camera = find_camera("LSSTCam")
    content = json.loads(manifest(ImageName.parse("MC_O_20261122_000123"), camera.detectors))
    assert list(content) == ["fileName", "fileType", "obsId", "version", "expectedSensors"]
    assert content["fileName"] == "MC_O_20261122_000123_expectedSensors.json"
    assert (content["fileType"], content["version"]) == ("expectedSensors", 1.0)
    assert isinstance(content["version"], float)
    sensors = content["expectedSensors"]
    assert len(sensors) == 205
    assert list(sensors) == sorted(sensors)
    assert set(sensors.values()) == {"SCIENCE"}
    assert "R00_SW0" in sensors


@pytest.mark.parametrize(
    "listed", [None, [], {"a": 1}, {"a": [1]}, {"a": [[1]]}, {"a": [[1, 2.0]]}, {"a": [[True, 1]]}]
)
def test_lists_of_missing_pixels_that_are_none(listed: object) -> None:
    assert as_runs(listed) is None


@pytest.mark.parametrize("run", [(-1, 2), (0, 0), (9, 2), (10**30, 1)])
def test_runs_outside_the_image(run: tuple[int, int]) -> None:
    assert run_mask([run], 10) is None
    mask = run_mask([(2, 3)], 10)
    assert mask is not None
    assert mask.nonzero()[0].tolist() == [2, 3, 4]


def test_bad_json(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with pytest.raises(StorageError):
        read_json(path)
    for text in (b"", b"{", b"[1]", b"\xff", b"[" * 100_000, b'{"a": 1e999999', b" " * (MAX_BYTES + 1)):
        path.write_bytes(text)
        with pytest.raises(FormatError, match=r"x\.json"):
            read_json(path)
