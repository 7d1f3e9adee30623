"""The primary header: order, groups and types of the 2026 files; who owns which card."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from raftwright.camera import camera as find_camera
from raftwright.daq import ImageInfo, Registers, SourceInfo
from raftwright.rawfile import HeaderDocument, ImageName, Notes, read_header_document
from raftwright.rawfile.cards import Card, encode, parse_header
from raftwright.rawfile.keywords import TYPES
from raftwright.rawfile.primary import Exposure, primary_cards
from raftwright.rawfile.times import parse_iso

# Order of a file of 2026 (HEADVER 102); | is a group border. EMUIMAGE only in emulated images.
ORDER = """
SIMPLE BITPIX NAXIS EXTEND BINX BINY CCDGAIN CCDNOISE DETSIZE |
DATE MJD IMGTYPE DATE-OBS MJD-OBS DATE-TRG MJD-TRG OBSID DATE-BEG MJD-BEG DATE-END MJD-END BUNIT TIMESYS
GROUPID |
INSTRUME TELESCOP OBS-LONG OBS-LAT OBS-ELEV OBSGEO-X OBSGEO-Y OBSGEO-Z |
RA DEC RASTART DECSTART RAEND DECEND ROTPA ROTCOORD HASTART ELSTART AZSTART AMSTART HAEND ELEND AZEND AMEND
TRACKSYS RADESYS FOCUSZ OBJECT VIGNETTE VIGN_MIN | TESTTYPE CAMCODE CONTRLLR DAYOBS SEQNUM | PROGRAM REASON |
CURINDEX MAXINDEX | TSTAND | IMAGETAG OBSANNOT |
CCD_MANU CCD_TYPE CCDSLOT RAFTBAY FIRMWARE PLATFORM CONTNUM DAQVERS DAQPART DAQFOLD SEQFILE SEQNAME SEQCLOCK
SEQCKSUM LSST_NUM CCD_SERN REBNAME RAFTNAME FPVERS IHVERS | FILTBAND FILTER FILTPOS FILTSLOT |
EXPTIME DARKTIME SHUTTIME TELAPSE XPOSURE | AIRTEMP PRESSURE HUMIDITY WINDSPD WINDDIR SEEING |
HEADVER FILENAME |
STUTTER.ROWS STUTTER.DELAY STUTTER.NSHIFTS
SHUTTER.OPEN.STARTTIME.TAI.ISOT SHUTTER.OPEN.STARTTIME.TAI.MJD SHUTTER.OPEN.SIDE SHUTTER.OPEN.MODEL
SHUTTER.OPEN.HALLSENSORFIT.MODELSTARTTIME SHUTTER.OPEN.HALLSENSORFIT.PIVOTPOINT1
SHUTTER.OPEN.HALLSENSORFIT.PIVOTPOINT2 SHUTTER.OPEN.HALLSENSORFIT.JERK0 SHUTTER.OPEN.HALLSENSORFIT.JERK1
SHUTTER.OPEN.HALLSENSORFIT.JERK2
SHUTTER.CLOSE.STARTTIME.TAI.ISOT SHUTTER.CLOSE.STARTTIME.TAI.MJD SHUTTER.CLOSE.SIDE SHUTTER.CLOSE.MODEL
SHUTTER.CLOSE.HALLSENSORFIT.MODELSTARTTIME SHUTTER.CLOSE.HALLSENSORFIT.PIVOTPOINT1
SHUTTER.CLOSE.HALLSENSORFIT.PIVOTPOINT2 SHUTTER.CLOSE.HALLSENSORFIT.JERK0 SHUTTER.CLOSE.HALLSENSORFIT.JERK1
SHUTTER.CLOSE.HALLSENSORFIT.JERK2 | MISSPIX | CHECKSUM DATASUM
"""
TITLES = [
    "Date, night and basic image information",
    "Telescope info, location, observer",
    "Pointing info, etc.",
    "Image-identifying used to build OBS-ID",
    "Additional Keys Information from Camera",
    "Image sequence numbers",
    "Test Stand information",
    "Information from Camera (Common block)",
    "Information from Camera",
    "Filter/grating information",
    "Exposure-related information",
    "Weather information",
    "Header information",
    "Stuttered Image Support",
    "Completeness",
    "Checksums",
]
KEYWORDS = [word.replace(".", " ") for word in ORDER.replace("|", "").split()]
EXAMPLE = {"S": "text", "I": 3, "F": 1.5, "L": True, "M": 61366.5, "D": "2026-11-22T03:04:05.678"}

SOURCE = SourceInfo(
    location="22/0",
    kind="science",
    registers=Registers.parse([10, 0, 512, 0, 0, 54, 0, 2002, 0, 46, 2]),
    bytes=127401984,
    firmware="0313B501b",
    serial="0000000018ed9486",
    platform="lsstcam",
    software="R5-V13.12 2026-01-23T16:58:41Z (e988d613)",
)
IMAGE = ImageInfo(
    name="MC_O_20261122_000123",
    camera="LSSTCam",
    sources=(SOURCE,),
    annotation="a note",
    id="00B0965a922d7283",
    timestamp="2026-11-23T01:02:03.004567891",
)


def exposure(document: HeaderDocument | None = None, **changes: object) -> Exposure:
    settings: dict[str, object] = {
        "name": ImageName.parse(IMAGE.name),
        "camera": find_camera("LSSTCam"),
        "image": IMAGE,
        "source": SOURCE,
        "geometry": SOURCE.registers.geometry,
        "created": parse_iso("2026-11-23T01:02:06.789"),
        "document": document,
    }
    return Exposure(**{**settings, **changes})  # type: ignore[arg-type]


def header(
    document: dict[str, object] | None = None,
    *,
    notes: Notes | None = None,
    missing: int = 0,
    **changes: object,
) -> list[Card]:
    """Cards of R22_S00 as a reader sees them, with a document of PRIMARY values (or of whole sections)."""
    parsed = None
    if document is not None:
        sections = document if "PRIMARY" in document else {"PRIMARY": document}
        content = {
            section: [{"keyword": key, "value": value, "comment": ""} for key, value in dict(values).items()]  # type: ignore[call-overload]
            for section, values in sections.items()
        }
        parsed = read_header_document(yaml.safe_dump(content, sort_keys=False).encode())
    detector = find_camera("LSSTCam").detector("R22_S00")
    return parse_header(
        encode(primary_cards(exposure(parsed, **changes), detector, missing=missing, notes=notes), notes)
    )


def values(cards: list[Card]) -> dict[str, object]:
    return {card.keyword: card.value for card in cards if card.has_value}


def complete_document() -> dict[str, object]:
    """A value of the right type for every keyword of a 2026 file that a document may give."""
    chosen = {keyword: EXAMPLE[TYPES[keyword]] for keyword in KEYWORDS[9:-3]}
    chosen.update(RADESYS="ICRS", TIMESYS="TAI", TRACKSYS="RADEC")
    return chosen


def test_order_and_titles_of_a_complete_header() -> None:
    cards = header(complete_document())
    assert [card.keyword for card in cards if card.has_value] == KEYWORDS
    assert [card.comment.strip(" -") for card in cards if not card.has_value and card.comment] == TITLES
    borders = [n for n, card in enumerate(cards) if not card.has_value and card.comment]
    for border, text in zip(borders, TITLES, strict=True):
        above = cards[border - 1]
        assert (above.has_value or above.comment != "") == (text == "Checksums"), text


def test_what_the_writer_knows() -> None:
    found = values(header())
    expected = {
        "BINX": 1,
        "BINY": 1,
        "CCDGAIN": 1.0,
        "CCDNOISE": 10.0,
        "DETSIZE": "[1:4096,1:4004]",
        "DATE": "2026-11-23T01:02:06.789",
        "IMGTYPE": "UNKNOWN",
        "DATE-TRG": "2026-11-23T01:02:03.004",
        "OBSID": "MC_O_20261122_000123",
        "BUNIT": "adu",
        "TIMESYS": "TAI",
        "INSTRUME": "lsstCam",
        "TELESCOP": "Simonyi Survey Telescope",
        "CAMCODE": "MC",
        "CONTRLLR": "O",
        "DAYOBS": "20261122",
        "SEQNUM": 123,
        "IMAGETAG": "b0965a922d7283",
        "OBSANNOT": "a note",
        "CCD_MANU": "E2V",
        "CCD_TYPE": "CCD250",
        "CCDSLOT": "S00",
        "RAFTBAY": "R22",
        "FIRMWARE": "313b501b",
        "PLATFORM": "lsstcam",
        "CONTNUM": "18ed9486",
        "DAQVERS": "R5-V13.12 2026-01-23T16:58:41Z (e988d613)",
        "DAQPART": "camera",
        "DAQFOLD": "raw",
        "RAFTNAME": "LCA-11021_RTM-024",
        "HEADVER": 102,
        "FILENAME": "MC_O_20261122_000123_R22_S00.fits",
        "MISSPIX": 0,
    }
    for keyword, value in expected.items():
        assert (found[keyword], type(found[keyword])) == (value, type(value)), keyword
    assert found["LSST_NUM"] == find_camera("LSSTCam").detector("R22_S00").serial
    assert found["MJD-TRG"] == pytest.approx(61367.043090330647, abs=1e-10)
    # Of what nothing is known there is no card: an undefined one would be a verifier's warning.
    assert None not in found.values()
    assert not {"RA", "DATE-OBS", "EXPTIME", "FILLVAL", "EMUIMAGE"} & found.keys()


def test_every_card_on_request() -> None:
    found = values(header(undefined_cards=True))
    left_out = {
        "DATE-OBS",
        "DATE-BEG",
        "DATE-END",
        "MJD-OBS",
        "OBJECT",
        "RADESYS",
        "OBSGEO-X",
        "OBSGEO-Y",
        "OBSGEO-Z",
    }
    assert [keyword for keyword in KEYWORDS if keyword not in left_out] == list(found)
    assert found["RA"] is None


def test_minimum_for_ingest() -> None:
    """What LSST's translators really need, with a document as the header service writes it."""
    found = values(header({"IMGTYPE": "BIAS", "EXPTIME": 0, "DATE-BEG": "2026-11-23T01:02:00.000"}))
    for keyword in [
        "INSTRUME",
        "TELESCOP",
        "OBSID",
        "DAYOBS",
        "SEQNUM",
        "IMGTYPE",
        "EXPTIME",
        "RAFTBAY",
        "CCDSLOT",
        "MJD-BEG",
        "DATE-BEG",
    ]:
        assert found[keyword] is not None, keyword
    for keyword in ["MJD-OBS", "DATE-OBS", "DATE", "TIMESYS", "CONTRLLR", "LSST_NUM", "CAMCODE", "DATE-TRG"]:
        assert found[keyword] is not None, keyword
    assert isinstance(found["EXPTIME"], float)
    assert isinstance(found["SEQNUM"], int)
    assert isinstance(found["DAYOBS"], str)
    assert found["DATE-OBS"] == found["DATE-BEG"]
    assert found["MJD-OBS"] == pytest.approx(61367.04305555556, abs=1e-10)


def test_times_of_an_exposure_of_15_seconds() -> None:
    found = values(header({"DATE-OBS": "2026-11-23T01:01:46.000", "DATE-END": "2026-11-23T01:02:03.0004"}))
    assert found["DATE-OBS"] == found["DATE-BEG"] == "2026-11-23T01:01:46.000"
    assert found["DATE-TRG"] == "2026-11-23T01:02:03.004"
    assert found["DATE-END"] == "2026-11-23T01:02:03.000"
    assert found["DARKTIME"] == 17.0


def test_utc_documents_become_tai() -> None:
    notes = Notes()
    found = values(
        header({"TIMESYS": "UTC", "DATE-BEG": "2026-11-23T01:01:46.000", "MJD-BEG": 1.0}, notes=notes)
    )
    assert found["TIMESYS"] == "TAI"
    assert found["DATE-BEG"] == found["DATE-OBS"] == "2026-11-23T01:02:23.000"
    assert found["MJD-BEG"] == pytest.approx(61367.04332175926, abs=1e-10)
    assert any("UTC" in note for note in notes)
    other = Notes()
    assert "DATE-BEG" not in values(
        header({"TIMESYS": "TDB", "DATE-BEG": "2026-11-23T01:01:46.000"}, notes=other)
    )
    assert any("TDB" in note for note in other)


def test_the_document_does_not_change_identity_or_structure() -> None:
    notes = Notes()
    mine = values(header())
    hostile = {
        "SIMPLE": False,
        "BITPIX": 16,
        "NAXIS": 2,
        "NAXIS1": 10**12,
        "EXTEND": False,
        "XTENSION": "TABLE",
        "PCOUNT": 7,
        "GCOUNT": 7,
        "END": "x",
        "CHECKSUM": "x",
        "ZIMAGE": True,
        "TFORM1": "1J",
        "BSCALE": 2.0,
        "CONTINUE": "x",
        "OBSID": "MC_O_20200101_000001",
        "RAFTBAY": "R00",
        "CCDSLOT": "S22",
        "SEQNUM": 7,
        "DAYOBS": 20200101,
        "MISSPIX": 99,
        "DATE-TRG": "1999-01-01T00:00:00.000",
    }
    assert values(header(hostile, notes=notes)) == mine
    text = " ".join(notes)
    for keyword in hostile:
        assert keyword in text, keyword


def test_undefined_values() -> None:
    found = values(
        header({"RA": float("nan"), "DEC": None, "ROTPA": "NaN", "OBJECT": None, "AIRMASS": float("inf")})
    )
    for keyword in ("RA", "DEC", "ROTPA", "AIRMASS"):
        assert found[keyword] is None
        assert keyword in found
    assert "OBJECT" not in found  # FITS reserves it for text: an undefined one is an error to verifiers
    assert values(header({"OBJECT": "NaN"}))["OBJECT"] == "NaN"


@pytest.mark.parametrize(
    ("keyword", "value", "written"),
    [
        ("EXPTIME", 15, 15.0),
        ("CURINDEX", 2.0, 2),
        ("SEQFILE", "0012", "0012"),
        ("SEQCKSUM", 980618532, "980618532"),
        ("FILTPOS", "190.0", "190.0"),
        ("PROGRAM", "on", "on"),
        ("SIMULATE MTMOUNT", True, 1),
        ("DATE-END", "2026-11-22 03:04:05.678912", "2026-11-22T03:04:05.678"),
        ("GROUPID", "2026-03-15T22:50:34.110#1", "2026-03-15T22:50:34.110#1"),
    ],
)
def test_types(keyword: str, value: object, written: object) -> None:
    found = values(header({keyword: value}))[keyword]
    assert (found, type(found)) == (written, type(written))


def test_what_fits_itself_refuses_is_left_out_and_said() -> None:
    notes = Notes()
    wrong = {
        "OBSGEO-X": "far",
        "RADESYS": "my frame",
        "DATEPBEG": "soon",
        "CRVAL1": 1.0,
        "CTYPE1": "X",
        "DATE-END": 5,
    }
    found = values(header(wrong, notes=notes))
    assert not wrong.keys() & found.keys()
    for keyword in wrong:
        assert any(keyword in note for note in notes), keyword


def test_a_whole_wcs_of_the_pointing_is_kept() -> None:
    wcs = {
        "WCSAXES": 2,
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CRVAL1": 1.0,
        "CRVAL2": 2,
        "CRPIX1": 0,
        "CRPIX2": 0.0,
    }
    found = values(header(wcs))
    assert {key: found[key] for key in wcs} == {**wcs, "CRVAL2": 2.0, "CRPIX1": 0.0}


def test_keywords_beyond_the_table_have_a_group_of_their_own() -> None:
    cards = header({"MYKEY": 1, "FILTER": "r_57", "HIERARCH OWN THING": "x"})
    at = next(n for n, card in enumerate(cards) if "Further keywords" in card.comment)
    assert [card.keyword for card in cards[at + 1 : at + 3]] == ["MYKEY", "OWN THING"]
    assert "Checksums" in cards[at + 3].comment


def test_long_strings_go_on_and_are_announced() -> None:
    text = "it's long " * 30
    cards = header({"PROGRAM": text})
    assert values(cards)["PROGRAM"] == text.rstrip()
    assert cards[4].keyword == "LONGSTRN"
    assert not any(card.keyword == "LONGSTRN" for card in header())


def test_sections_of_the_detector_come_over_the_common_one() -> None:
    found = values(
        header(
            {
                "PRIMARY": {"CCD_SERN": "1", "TSTAND": "a"},
                "R22S00_PRIMARY": {"CCD_SERN": "2"},
                "R22S01_PRIMARY": {"TSTAND": "b"},
            }
        )
    )
    assert (found["CCD_SERN"], found["TSTAND"]) == ("2", "a")


def test_missing_pixels_and_emulated_images() -> None:
    found = values(
        header(
            missing=5,
            image=IMAGE.__class__(
                **{
                    **{name: getattr(IMAGE, name) for name in IMAGE.__struct_fields__},
                    "extra": {"emulated": "MC_O_20250101_000001"},
                }
            ),
        )
    )
    assert (found["MISSPIX"], found["FILLVAL"], found["EMUIMAGE"]) == (5, -1, "MC_O_20250101_000001")


@given(
    st.dictionaries(
        st.one_of(
            st.sampled_from([*KEYWORDS, "NAXIS", "WCSAXES", "CRPIX1", "DATE-X", "A B"]), st.text(max_size=12)
        ),
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(),
            st.text(max_size=100),
            st.sampled_from(["NaN", "TAI", "UTC"]),
        ),
        max_size=25,
    )
)
@settings(max_examples=60)
def test_any_document_gives_a_header_that_astropy_accepts(document: dict[str, object]) -> None:
    from astropy.io import fits

    try:
        content = yaml.safe_dump({"PRIMARY": [{"keyword": k, "value": v} for k, v in document.items()]})
        parsed = read_header_document(content.encode())
    except ValueError:  # characters that YAML cannot hold
        return
    detector = find_camera("LSSTCam").detector("R22_S00")
    text = encode(primary_cards(exposure(parsed), detector, notes=Notes()))
    assert len(text) % 80 == 0
    assert text.isascii()
    found = fits.Header.fromstring(text)
    assert found["OBSID"] == IMAGE.name
    assert found["NAXIS"] == 0
    assert len({card.keyword for card in parse_header(text) if card.has_value}) == sum(
        card.has_value for card in parse_header(text)
    )


def test_auxtel() -> None:
    latiss = find_camera("LATISS")
    source = SourceInfo(
        location="00/0",
        kind="wavefront",
        registers=Registers.parse([3, 0, 509, 0, 0, 64, 0, 2000, 0, 48, 1]),
        bytes=42467328,
    )
    image = ImageInfo(name="AT_O_20261122_000001", camera="LATISS", sources=(source,))
    made = Exposure(
        ImageName.parse(image.name),
        latiss,
        image,
        source,
        source.registers.geometry,
        parse_iso("2026-11-23T01:02:06.789"),
    )
    found = values(primary_cards(made, latiss.detectors[0]))
    assert (found["INSTRUME"], found["RAFTBAY"], found["CCDSLOT"], found["CAMCODE"]) == (
        "LATISS",
        "R00",
        "S00",
        "AT",
    )
    assert (found["TELESCOP"], found["DAQPART"], found["PLATFORM"]) == ("LSST AuxTelescope", "lat", "auxtel")
    assert found["FILENAME"] == "AT_O_20261122_000001_R00_S00.fits"


def _values(*records: tuple[str, object], timestamp: str = "") -> dict[str, object]:
    rows = [{"keyword": keyword, "value": value, "comment": ""} for keyword, value in records]
    document = read_header_document(yaml.safe_dump({"PRIMARY": rows}).encode())
    made = exposure(document)
    made = dataclasses.replace(made, image=msgspec.structs.replace(made.image, timestamp=timestamp))
    cards = primary_cards(made, find_camera("LSSTCam").detector("R22_S11"))
    return {card.keyword: card.value for card in cards if card.has_value}


def test_the_trigger_of_a_utc_document_is_turned_into_tai_too() -> None:
    values = _values(("TIMESYS", "UTC"), ("DATE-TRG", "2026-11-22T00:00:15"), ("MJD-TRG", 61366.0))
    assert values["DATE-TRG"] == "2026-11-22T00:00:52.000"
    assert values["MJD-TRG"] == pytest.approx(61366 + 52 / 86400, abs=1e-9)


def test_both_names_of_the_start_have_one_mjd() -> None:
    values = _values(("DATE-OBS", "2026-11-22T00:00:00"), ("MJD-OBS", 61366.0000001))
    assert values["MJD-BEG"] == values["MJD-OBS"] == 61366.0000001
    assert values["DATE-BEG"] == values["DATE-OBS"]


@pytest.mark.parametrize("scale", ["TAI", "UTC"])
@pytest.mark.parametrize("moment", ["9999-12-31T23:59:60", "9999-12-31T23:59:59", "0001-01-01T00:00:00"])
def test_times_at_the_ends_of_the_calendar_hold_up_nothing(scale: str, moment: str) -> None:
    values = _values(("TIMESYS", scale), ("DATE-OBS", moment), ("DATE-END", moment))
    assert values["TIMESYS"] == "TAI"
    if scale == "UTC":
        assert "DATE-OBS" not in values
