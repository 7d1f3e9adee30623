"""Extension cards: against the published formulas, worked examples, tables, and the cards of real files."""

from __future__ import annotations

import gzip
import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftwright.camera import Camera, Card, Detector, Geometry, camera, datasec, detsec, detsize, segment_wcs
from raftwright.camera.placement import focal_plane_mosaic

LETTERS = "ACRFEBQ"


def cards_of(cam: Camera, detector: Detector, hdu: int, geometry: Geometry | None = None) -> dict[str, Any]:
    segment = detector.segments[hdu - 1]
    cards = segment_wcs(cam, detector, segment, geometry or detector.type.geometry)
    result = {card.keyword: card.value for card in cards}
    assert len(result) == len(cards)
    return result


# --- worked examples of the description of the raw files ------------------------------------------
EXAMPLES = [
    ("LSSTComCam", "R22_S01", 1, "Segment10", "[4:512,1:2000] [509:1,1:2000] [1:4072,1:4000]",
     (513, 0, -1, 1), (0, -1, -1, 0), "A 2001 513 C 4001 513 R 4126 4827 F 29526 30227",
     (-1, 0, 0, -1), "E 30227 29526 B 513 4001 Q 4827 4126"),
    ("LSSTComCam", "R22_S01", 9, "Segment07", "[4:512,1:2000] [4072:3564,4000:2001] [1:4072,1:4000]",
     (4076, 4001, -1, -1), (0, 1, -1, 0), "A 0 513 C 0 4076 R 125 8390 F 25525 33790",
     (-1, 0, 0, 1), "E 33790 25525 B 4076 0 Q 8390 125"),
    ("LSSTCam", "R22_S11", 1, "Segment10", "[11:522,1:2002] [512:1,1:2002] [1:4096,1:4004]", (523, 0, -1, 1),
     (0, -1, -1, 0), "A 2003 523 C 4005 523 R 8352.5 4825 F 33752.5 30225",
     (-1, 0, 0, -1), "E 30225 33752.5 B 523 4005 Q 4825 8352.5"),
    ("LSSTCam", "R22_S11", 16, "Segment00", "[11:522,1:2002] [1:512,4004:2003] [1:4096,1:4004]",
     (-10, 4005, 1, -1), (0, 1, 1, 0), "A 0 -10 C 0 -10 R 4347.5 4292 F 29747.5 29692",
     (1, 0, 0, 1), "E 29692 29747.5 B -10 0 Q 4292 4347.5"),
    ("LSSTCam", "R44_SW0", 1, "Segment10", "[4:512,1:2000] [509:1,1:2000] [1:4072,1:4000]", (513, 0, -1, 1),
     (0, -1, 1, 0), "A 2001 -2 C 2001 3561 R 2182 3734 F 53210.5 54822",
     (-1, 0, 0, -1), "E 55209 53013.7 B 3567 2001 Q 4409 2213.7"),
]  # fmt: skip


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: f"{e[1]}-{e[2]}")
def test_worked_examples(example: tuple[Any, ...]) -> None:
    name, detector, hdu, extname, sections, mosaic, first_pc, first, second_pc, second = example
    cam = camera(name)
    got = cards_of(cam, cam.detector(detector), hdu)
    assert (got["CHANNEL"], got["EXTNAME"], got["CCDSUM"]) == (hdu, extname, "1 1")
    assert [got["DATASEC"], got["DETSEC"], got["DETSIZE"]] == sections.split()
    assert (got["DTV1"], got["DTV2"], got["DTM1_1"], got["DTM2_2"]) == mosaic
    assert (got["DTM1_2"], got["DTM2_1"]) == (0, 0)
    for pc, origins in ((first_pc, first), (second_pc, second)):
        words = origins.split()
        for letter, one, two in zip(words[::3], words[1::3], words[2::3], strict=True):
            assert tuple(got[f"PC{ij}{letter}"] for ij in ("1_1", "1_2", "2_1", "2_2")) == pc
            assert (got[f"CRVAL1{letter}"], got[f"CRVAL2{letter}"]) == (float(one), float(two))
            assert (got[f"CDELT1{letter}"], got[f"CDELT2{letter}"]) == (1.0, 1.0)
            assert (got[f"CRPIX1{letter}"], got[f"CRPIX2{letter}"]) == (0.0, 0.0)


def test_latiss_has_the_coordinates_of_another_raft() -> None:
    cam = camera("LATISS")
    got = cards_of(cam, cam.detector("RXX_S00"), 1)
    assert got["CRVAL1F"] == 16826.0
    assert got["CRVAL2F"] == 602.0
    assert (cam.detector(0).header_raft, cam.detector(0).header_slot) == ("R00", "S00")


# --- the formulas as the control system has them, written down a second time --------------------------------
CHIPS = {
    "ITL": {"ax": 4000, "ay": 4072, "px": 4198, "py": 4198, "ginx": 27, "giny": 27, "goutx": 26, "gouty": 26},
    "E2V": {"ax": 4004, "ay": 4096, "px": 4197, "py": 4200, "ginx": 28, "giny": 25, "goutx": 26, "gouty": 25},
}


def published(detector: Detector, name: str, hdu: int, g: Geometry) -> dict[str, Any]:
    """Cards of a science segment by the formulas in terms of the digits of names."""
    sx, sy = int(name[-2]), int(name[-1])
    rx, ry, cx, cy = (int(c) for c in detector.raft[1:] + detector.slot[1:])
    c = CHIPS[detector.type.vendor]
    dimh, dimv, preh = g.columns, g.rows, g.prescan
    rev = detector.type.vendor == "ITL" or sx == 1
    px, py = 1 - 2 * sx, -1 if rev else 1
    x = f"{(sy + 1) * dimh}:{sy * dimh + 1}" if rev else f"{sy * dimh + 1}:{(sy + 1) * dimh}"
    y = f"1:{dimv}" if sx else f"{2 * dimv}:{dimv + 1}"
    a1, a2 = sx * (dimv + 1), dimh + 1 + preh if rev else -preh
    c1, c2 = sx * (2 * dimv + 1), a2 + sy * dimh
    r1 = c1 + c["goutx"] + (c["px"] - c["ax"]) / 2 + cx * (2 * dimv + c["ginx"] + c["px"] - c["ax"])
    r2 = c2 + c["gouty"] + (c["py"] - c["ay"]) / 2 + cy * (8 * dimh + c["giny"] + c["py"] - c["ay"])
    f1, f2 = r1 + 12700 * rx, r2 + 12700 * ry
    result: dict[str, Any] = {
        "CHANNEL": hdu,
        "EXTNAME": name,
        "CCDSUM": "1 1",
        "DATASEC": f"[{preh + 1}:{preh + dimh},1:{dimv}]",
        "DETSEC": f"[{x},{y}]",
        "DETSIZE": f"[1:{8 * dimh},1:{2 * dimv}]",
        "DTV1": dimh + 1 + sy * dimh + preh if rev else sy * dimh - preh,
        "DTV2": (2 * dimv + 1) * (1 - sx),
        "DTM1_1": py,
        "DTM2_2": 2 * sx - 1,
        "DTM1_2": 0,
        "DTM2_1": 0,
    }
    names = {
        "A": ("AMPLIFIER", "Seg_X", "Seg_Y", a1, a2),
        "C": ("CCD", "CCD_X", "CCD_Y", c1, c2),
        "R": ("RAFT", "RAFT_X", "RAFT_Y", r1, r2),
        "F": ("FOCAL_PLANE", "FP_X", "FP_Y", f1, f2),
        "E": ("FP_SERPAR", "FP_S", "FP_P", f2, f1),
        "B": ("CCD_SERPAR", "CCD_S", "CCD_P", c2, c1),
        "Q": ("RAFT_SERPAR", "RAFT_S", "RAFT_P", r2, r1),
    }
    for letter, (system, axis1, axis2, one, two) in names.items():
        pc = (py, 0, 0, px) if letter in "EBQ" else (0, px, py, 0)
        result |= {f"WCSNAME{letter}": system, f"CTYPE1{letter}": axis1, f"CTYPE2{letter}": axis2}
        result |= {f"PC{ij}{letter}": v for ij, v in zip(("1_1", "1_2", "2_1", "2_2"), pc, strict=True)}
        result |= {f"CDELT1{letter}": 1, f"CDELT2{letter}": 1, f"CRPIX1{letter}": 0, f"CRPIX2{letter}": 0}
        result |= {f"CRVAL1{letter}": one, f"CRVAL2{letter}": two}
    return result


geometries = st.builds(
    Geometry,
    prescan=st.integers(0, 20),
    columns=st.integers(1, 600),
    overscan=st.integers(0, 70),
    rows=st.integers(1, 2100),
    parallel_overscan=st.integers(0, 60),
)


@given(data=st.data(), geometry=st.none() | geometries)
def test_science_segments_follow_the_published_formulas(
    data: st.DataObject, geometry: Geometry | None
) -> None:
    cam = camera("LSSTCam")
    detector = data.draw(st.sampled_from([d for d in cam.detectors if d.kind == "science"]))
    hdu = data.draw(st.integers(1, 16))
    g = geometry or detector.type.geometry
    got = cards_of(cam, detector, hdu, g)
    wanted = published(detector, detector.segments[hdu - 1].name, hdu, g)
    assert list(got) == list(wanted)  # the order of the cards too
    assert got == wanted


def test_types_of_values(lsstcam: Camera) -> None:
    for name in ("R22_S11", "R00_SG0", "R44_SW1"):
        detector = lsstcam.detector(name)
        for card in segment_wcs(lsstcam, detector, detector.segments[0], detector.type.geometry):
            assert isinstance(card, Card)
            if card.keyword in ("CHANNEL", "DTV1", "DTV2"):
                assert type(card.value) is int
            elif re.match("DTM|PC|CDELT|CRPIX|CRVAL", card.keyword):
                assert type(card.value) is float
                assert str(card.value) != "-0.0"
            else:
                assert type(card.value) is str


# --- tables of the corner rafts -------------------------------------------------------------------
def read_table(path: Path) -> dict[tuple[str, str, str], dict[str, str]]:
    first, *lines = path.read_text().splitlines()
    names = [name.strip() for name in first.split("=", 1)[1].split(",")]
    table = {}
    for line in lines:
        key, text = line.split(" = ", 1)
        values = re.findall(r"\[[^\]]*\]|[^,\s]+", text)
        raft, slot, segment = key.split("/")
        table[raft, slot, segment] = dict(zip(names, values, strict=True))
    return table


@pytest.mark.parametrize("raft", ["R00", "R04", "R40", "R44"])
def test_corner_rafts_reproduce_their_tables(raft: str, lsstcam: Camera, shared_data: Path) -> None:
    (path,) = (shared_data / "wcs").glob(f"*_{raft}_*.wcs")
    table = read_table(path)
    assert len(table) == 48
    seen = 0
    for detector in lsstcam.raft(raft).detectors:
        for segment in detector.segments:
            row = table[raft, detector.slot, segment.amp[1:]]
            got = cards_of(lsstcam, detector, segment.index + 1)
            for keyword, text in row.items():
                wanted: Any = text if text.startswith("[") else float(text)
                assert got[keyword] == wanted, (detector.name, segment.name, keyword)
            seen += 1
    assert seen == len(table)


# --- the E system is the one that is true: it must agree with positions, tiles, flips and yaw --------------
@pytest.mark.parametrize("kind", ["science", "guider", "wavefront"])
def test_e_system_agrees_with_the_geometry(kind: str, lsstcam: Camera) -> None:
    """`s`, `t` of the E system are focal-plane pixels; the mosaic puts the same pixel in the same place."""
    chosen = [d for d in lsstcam.detectors if d.kind == kind]
    mosaic = focal_plane_mosaic([(d, d.type.geometry) for d in lsstcam.detectors])
    parts = {part.detector.name: part for part in mosaic.parts}
    # The tables of the corners carry off-by-one origins and rounded positions, of a few pixels at most.
    tolerance = 0.006 if kind == "science" else 0.1
    for detector in chosen:
        g = detector.type.geometry
        for placement in parts[detector.name].placements:
            got = cards_of(lsstcam, detector, placement.segment + 1)
            for x, y in itertools.product((g.prescan + 1, g.prescan + g.columns), (1, g.rows)):
                s = got["PC1_1E"] * x + got["PC1_2E"] * y + got["CRVAL1E"]
                t = got["PC2_1E"] * x + got["PC2_2E"] * y + got["CRVAL2E"]
                column, row = mosaic_pixel(placement, x - 1, y - 1)
                x_mm, y_mm = mosaic.wcs.to_mm(column + 1, row + 1)
                assert abs((s - 31750.5) * 0.01 - x_mm) <= tolerance, (detector.name, placement)
                assert abs((t - 31750.5) * 0.01 - y_mm) <= tolerance, (detector.name, placement)


def mosaic_pixel(p: Any, x: int, y: int) -> tuple[int, int]:
    """Where a placement puts pixel (x, y) of a segment's plane; all from 0."""
    u, v = x - p.x0, y - p.y0
    nx, ny = p.nx, p.ny
    u = nx - 1 - u if p.flip_x else u
    v = ny - 1 - v if p.flip_y else v
    for _ in range(p.quarter_turns):
        u, v, nx, ny = ny - 1 - v, u, ny, nx
    return p.out_x + u, p.out_y + v


# --- real files -----------------------------------------------------------------------------------
def header_cards(path: Path) -> list[list[str]]:
    """Headers of all HDUs as 80-character cards."""
    data = path.read_bytes()
    data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    headers, at = [], 0
    while at < len(data):
        cards: list[str] = []
        while not cards or not cards[-1].startswith("END     "):
            cards.append(data[at : at + 80].decode("ascii"))
            at += 80
        cards.pop()
        at += -at % 2880
        values = {card[:8].strip(): card[10:].split("/")[0].strip() for card in cards if card[8:10] == "= "}
        axes = [int(values[f"NAXIS{i + 1}"]) for i in range(int(values["NAXIS"]))]
        size = int(np.prod(axes, dtype=np.int64)) * abs(int(values["BITPIX"])) // 8 if axes else 0
        size += int(values.get("PCOUNT", 0))
        at += size + -size % 2880
        headers.append(cards)
    return headers


def real_cards(cards: list[str]) -> list[tuple[str, Any, str]]:
    """(keyword, value, comment) of the cards from CHANNEL to the last coordinate system."""
    result = []
    for card in cards:
        match = re.fullmatch(r"(.{8})= +('[^']*'|[^ /]+) *(?:/ (.*?))? *", card)
        if match is None:
            continue
        text = match[2]
        value: Any = text[1:-1].rstrip() if text.startswith("'") else text
        if not text.startswith("'") and text not in "TF":
            value = float(text) if re.search("[.E]", text) else int(text)
        result.append((match[1].strip(), value, match[3] or ""))
    keywords = [keyword for keyword, _, _ in result]
    return result[keywords.index("CHANNEL") : keywords.index("CRVAL2Q") + 1]


@pytest.mark.parametrize(
    ("file", "name", "detector"),
    [
        ("comCamSim__CC_S_20240404_000780_R22_S01.fits", "LSSTComCam", "R22_S01"),
        ("bot__3019103101985-R22-S11-det094.fits", "LSSTCam", "R22_S11"),
        ("lsstCam__30211212000310-R22-S22-det098.fits", "LSSTCam", "R22_S22"),
    ],
)
def test_cards_of_real_files(file: str, name: str, detector: str, shared_data: Path) -> None:
    cam = camera(name)
    found = cam.detector(detector)
    images = [cards for cards in header_cards(shared_data / "raws" / file) if _is_segment(cards)]
    assert len(images) == 16
    for segment, cards in zip(found.segments, images, strict=True):
        wanted = real_cards(cards)
        got = segment_wcs(cam, found, segment, found.type.geometry)
        assert [tuple(card) for card in got] == wanted  # keywords, values, comments and their order
        for card, (keyword, value, _) in zip(got, wanted, strict=True):
            assert type(card.value) is type(value), keyword


def _is_segment(cards: list[str]) -> bool:
    return any(card.startswith("EXTNAME = 'Segment") for card in cards)


def test_latiss_of_2018_differs_as_known(shared_data: Path) -> None:
    """The file of 2018 has no E system, the old sign of the prescan, and the raft's own place (0, 0)."""
    cam = camera("LATISS")
    found = cam.detector("RXX_S00")
    (file,) = (shared_data / "raws").glob("latiss__*")
    images = [cards for cards in header_cards(file) if _is_segment(cards)]
    for segment, cards in zip(found.segments, images, strict=True):
        got = {c.keyword: c.value for c in segment_wcs(cam, found, segment, found.type.geometry)}
        for keyword, value, _ in real_cards(cards):
            if keyword in ("AVERAGE", "AVGBIAS", "STDVBIAS", "STDEV"):
                continue
            old = keyword.startswith("CRVAL") or keyword == "DTV1"
            if keyword in ("CRVAL1F", "CRVAL1E"):
                assert abs(got[keyword] - value) in (0, 6, 12700, 12706)
            elif old:
                assert abs(got[keyword] - value) in (0, 6), keyword
            else:
                assert got[keyword] == value, keyword


# --- another camera -------------------------------------------------------------------------------
def test_minicam_counts_rows_from_the_bottom(minicam: Camera) -> None:
    detector = minicam.detector("M1_B")
    g = detector.type.geometry
    sections = [detsec(minicam, detector.type, s, g) for s in detector.segments]
    assert sections == ["[1:128,1:96]", "[256:129,1:96]", "[1:128,192:97]", "[256:129,192:97]"]
    assert (datasec(g), detsize(detector.type, g)) == ("[5:132,1:96]", "[1:256,1:192]")
    got = cards_of(minicam, detector, 4)
    assert (got["DTV1"], got["DTV2"], got["DTM1_1"], got["DTM2_2"]) == (261, 193, -1.0, -1.0)
    assert (got["PC1_1C"], got["PC2_2C"], got["CRVAL1C"], got["CRVAL2C"]) == (-1.0, -1.0, 261.0, 193.0)
    assert not [keyword for keyword in got if keyword.endswith(tuple("ARFEBQ")) and keyword[0] == "W"]


@given(geometry=geometries, hdu=st.integers(1, 4))
def test_mosaic_keywords_and_placements_say_the_same(geometry: Geometry, hdu: int) -> None:
    """With rows counted from the bottom, DTM and DTV map a readout pixel to its pixel in the CCD mosaic."""
    from raftwright.camera import ccd_mosaic

    cam = camera("MiniCam")
    detector = cam.detector("M1_A")
    got = cards_of(cam, detector, hdu, geometry)
    (part,) = ccd_mosaic(detector, geometry).parts
    for x, y in ((geometry.prescan + 1, 1), (geometry.prescan + geometry.columns, geometry.rows)):
        column, row = mosaic_pixel(part.placements[hdu - 1], x - 1, y - 1)
        assert got["DTM1_1"] * x + got["DTV1"] == column + 1
        assert got["DTM2_2"] * y + got["DTV2"] == row + 1
