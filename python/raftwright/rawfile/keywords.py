"""The keywords of primary headers and of condition HDUs, as data: order, groups, types, where they come from.

Order, groups and names are those of the LSST camera's raw files of 2026 (HEADVER 102), with the additions of
LATISS and ComCam at their places. Comments have no readers among programs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = [
    "CONFIG_COND",
    "GROUPS",
    "HEADVER",
    "OCCASIONAL",
    "OWN",
    "REB_COND",
    "TYPES",
    "Group",
    "Keyword",
    "KeywordType",
]

KeywordType = Literal["S", "I", "F", "L", "D", "M", "*"]
"""String, integer, float, logical, date, MJD; `*` follows the value."""

HEADVER: Final = 102


@dataclass(frozen=True, slots=True)
class Keyword:
    """A keyword with its type, what writes it, and its comment.

    origin `own`: the writer, from image and camera; a header document is not asked. `first`: the document,
    else the writer. `document`: the document alone.
    """

    name: str
    type: KeywordType
    origin: Literal["own", "first", "document"]
    comment: str


@dataclass(frozen=True, slots=True)
class Group:
    """Keywords under a title. `optional`: the title is left out when none of them has a card."""

    title: str
    keywords: tuple[Keyword, ...]
    optional: bool = False


_ORIGINS: Final[dict[str, Literal["own", "first", "document"]]] = {
    "own": "own",
    "first": "first",
    "doc": "document",
}
_LETTERS: Final[dict[str, KeywordType]] = {letter: letter for letter in ("S", "I", "F", "L", "D", "M")}


def _group(title: str, table: str, *, optional: bool = False) -> Group:
    """Lines of `KEY | type origin | comment`; the words of a HIERARCH keyword are separated by dots."""
    keywords = []
    for line in table.strip().splitlines():
        name, kind, comment = (part.strip() for part in line.split("|", 2))
        letter, origin = kind.split()
        keywords.append(Keyword(name.replace(".", " "), _LETTERS[letter], _ORIGINS[origin], comment))
    return Group(title, tuple(keywords), optional)


def _shutter(motion: str, words: str) -> str:
    lines = [
        f"SHUTTER.{motion}.STARTTIME.TAI.ISOT | S doc | Start of the shutter's {words}",
        f"SHUTTER.{motion}.STARTTIME.TAI.MJD | M doc | The same",
        f"SHUTTER.{motion}.SIDE | S doc | Side that moves",
        f"SHUTTER.{motion}.MODEL | S doc | Motion model",
    ]
    fit = ("MODELSTARTTIME", "PIVOTPOINT1", "PIVOTPOINT2", "JERK0", "JERK1", "JERK2")
    lines += [f"SHUTTER.{motion}.HALLSENSORFIT.{name} | F doc | Fit" for name in fit]
    return "\n".join(lines)


GROUPS: Final[tuple[Group, ...]] = (
    _group(
        "",
        """
        BINX     | I own   | [pixels] binning along X axis
        BINY     | I own   | [pixels] binning along Y axis
        CCDGAIN  | F first | Rough guess at overall system gain (e-/DNB)
        CCDNOISE | F first | Rough guess at system noise (e- rms)
        DETSIZE  | S own   |
        """,
    ),
    _group(
        "Date, night and basic image information",
        """
        DATE     | D own   | Creation Date and Time of File
        MJD      | M own   | Modified Julian Date that the file was written
        IMGTYPE  | S first | BIAS, DARK, FE55, FLAT, FLAT_<lam>, SPOT, PPUMP
        DATE-OBS | D doc   | Start of the integration
        MJD-OBS  | M doc   | Modified Julian Date derived from DATE-OBS
        DATE-TRG | D own   | Date of the image trigger (readout)
        MJD-TRG  | M own   | Modified Julian Date of image trigger
        OBSID    | S own   | The image name or obs-id
        DATE-BEG | D doc   | Time at the start of integration
        MJD-BEG  | M doc   | Modified Julian Date derived from DATE-BEG
        DATE-END | D doc   | End date of the observation
        MJD-END  | M doc   | Date derived from DATE-END
        BUNIT    | S own   | Brightness units for pixel array
        TIMESYS  | S own   | The time scale used
        GROUPID  | S doc   |
        """,
    ),
    _group(
        "Telescope info, location, observer",
        """
        INSTRUME | S own   | Instrument
        TELESCOP | S first | Telescope
        FACILITY | S doc   | Facility name
        OBS-LONG | F doc   | [deg] Observatory east longitude
        OBS-LAT  | F doc   | [deg] Observatory latitude
        OBS-ELEV | F doc   | [m] Observatory elevation
        OBSGEO-X | F doc   | [m] X-axis Geocentric coordinate
        OBSGEO-Y | F doc   | [m] Y-axis Geocentric coordinate
        OBSGEO-Z | F doc   | [m] Z-axis Geocentric coordinate
        """,
    ),
    _group(
        "Pointing info, etc.",
        """
        RA       | F doc   | RA commanded from pointing component
        DEC      | F doc   | DEC commanded from pointing component
        RASTART  | F doc   | RA of telescope from AZSTART and ELSTART
        DECSTART | F doc   | DEC of telescope from AZSTART and ELSTART
        RAEND    | F doc   | RA of telescope from AZEND and ELEND
        DECEND   | F doc   | DEC of telescope from AZEND and ELEND
        ROTPA    | F doc   | Rotation angle relative to the sky (deg)
        ROTCOORD | S doc   | Telescope Rotation Coordinates
        HASTART  | F doc   | [HH:MM:SS] Telescope hour angle at start
        ELSTART  | F doc   | [deg] Telescope elevation angle at start
        AZSTART  | F doc   | [deg] Telescope azimuth angle at start
        AMSTART  | F doc   | Airmass at start
        HAEND    | F doc   | [HH:MM:SS] Telescope hour angle at end
        ELEND    | F doc   | [deg] Telescope elevation angle at end
        AZEND    | F doc   | [deg] Telescope azimuth angle at end
        AMEND    | F doc   | Airmass at end
        TRACKSYS | S doc   | Tracking system RADEC, AZEL, PLANET, EPHEM
        RADESYS  | S doc   | Equatorial coordinate system FK5 or ICRS
        FOCUSZ   | F doc   | Focus Z position
        OBJECT   | S doc   | Name of the observed object
        VIGNETTE | S doc   | Is the telescope vignetted?
        VIGN_MIN | S doc   | Minimum vignetting?
        INSTPORT | I doc   | Instrument port of the telescope
        ATM3PORT | I doc   | Port of the tertiary mirror
        DOMEAZ   | F doc   | [deg] Dome azimuth
        SHUTLOWR | F doc   | [%] Dome shutter, lower door, opening
        SHUTUPPR | F doc   | [%] Dome shutter, upper door, opening
        """,
    ),
    _group(
        "Tangent projection of the pointing",
        """
        WCSAXES  | I doc   | Number of coordinate axes
        CTYPE1   | S doc   | Name of coordinate axis 1
        CTYPE2   | S doc   | Name of coordinate axis 2
        CUNIT1   | S doc   | Unit of coordinate axis 1
        CUNIT2   | S doc   | Unit of coordinate axis 2
        CRVAL1   | F doc   | Coordinate at the reference pixel, axis 1
        CRVAL2   | F doc   | Coordinate at the reference pixel, axis 2
        CRPIX1   | F doc   | Reference pixel, axis 1
        CRPIX2   | F doc   | Reference pixel, axis 2
        CD1_1    | F doc   | Transformation matrix
        CD1_2    | F doc   | Transformation matrix
        CD2_1    | F doc   | Transformation matrix
        CD2_2    | F doc   | Transformation matrix
        EQUINOX  | F doc   | Equinox of the celestial coordinates
        """,
        optional=True,
    ),
    _group(
        "Image-identifying used to build OBS-ID",
        """
        TESTTYPE | S doc   | BIAS, DARK, FE55, FLAT, LAMBDA, PERSISTENCE, SPOT, SFLAT_<lam>
        CAMCODE  | S own   | The "code" for AuxTel | ComCam | Main Camera
        CONTRLLR | S own   | The controller (e.g. O for OCS, C for CCS)
        DAYOBS   | S own   | The observation day as defined in the image name
        SEQNUM   | I own   | The sequence number from the image name
        EMUIMAGE | S first | Image being emulated
        """,
    ),
    _group(
        "Additional Keys Information from Camera",
        """
        PROGRAM  | S doc   | Name of the program
        REASON   | S doc   | Reason for observation
        """,
    ),
    _group(
        "Image sequence numbers",
        """
        CURINDEX | I doc   | Index number for exposure within the sequence
        MAXINDEX | I doc   | Number of requested images in sequence
        """,
    ),
    _group("Test Stand information", "TSTAND | S doc | Test Stand"),
    _group(
        "Information from Camera (Common block)",
        """
        IMAGETAG | S own   | DAQ Image id (Hex)
        OBSANNOT | S own   | DAQ image annotation
        """,
    ),
    _group(
        "Information from Camera",
        """
        CCD_MANU | S own   | CCD Manufacturer
        CCD_TYPE | S own   | CCD Model Number
        CCDSLOT  | S own   | The CCD Slot
        RAFTBAY  | S own   | The RAFT Bay
        FIRMWARE | S own   | DAQ firmware version (Hex)
        PLATFORM | S own   | DAQ platform version
        CONTNUM  | S own   | REB serial # (Hex)
        DAQVERS  | S own   | DAQ version
        DAQPART  | S first | DAQ partition
        DAQFOLD  | S own   | DAQ folder the image was initially created in
        SEQFILE  | S doc   | Sequencer file name
        SEQNAME  | S doc   | Sequencer file name
        SEQCLOCK | I doc   | Sequencer clock
        SEQCKSUM | S doc   | Checksum of Sequencer
        LSST_NUM | S own   | LSST Assigned CCD Number
        CCD_SERN | S doc   | Manufacturer's CCD Serial Number
        REBNAME  | S doc   | LSST Assigned Name REB name
        RAFTNAME | S own   | LSST Assigned Raft name
        FPVERS   | S doc   | The focal-plane version number
        IHVERS   | S doc   | The image-handling version number
        CCDTEMP  | F doc   | [degC] CCD temperature
        TEMP_SET | F doc   | [degC] CCD temperature set point
        """,
    ),
    _group(
        "Filter/grating information",
        """
        FILTBAND | S doc   | Name of the filter band
        FILTER   | S doc   | Name of the physical filter
        FILTPOS  | F doc   | Filter measured position of slide
        FILTSLOT | I doc   | Filter home slot
        GRATING  | S doc   | Name of the physical grating
        GRATBAND | S doc   | Name of the grating band
        GRATSLOT | I doc   | Grating home slot
        LINSPOS  | F doc   | [mm] Position of the linear stage
        """,
    ),
    _group(
        "Exposure-related information",
        """
        EXPTIME  | F doc   | Exposure Time in Seconds
        DARKTIME | F first | Dark Time in Seconds
        SHUTTIME | F doc   | Shutter exposure time
        TELAPSE  | F doc   | [s] Elapsed time of the observation
        XPOSURE  | F doc   | [s] Effective exposure time
        """,
    ),
    _group(
        "Weather information",
        """
        AIRTEMP  | F doc   | [degC] Air temperature
        PRESSURE | F doc   | [Pascals] Atmospheric Pressure
        HUMIDITY | F doc   | Percentage of Relative Humidity
        WINDSPD  | F doc   | [m/s] Wind Speed
        WINDDIR  | F doc   | [deg] Wind Direction
        SEEING   | F doc   | [arcsec] Seeing from FWHM DIMM measurement
        """,
    ),
    _group(
        "Header information",
        """
        HEADVER  | I own   | Version number of header
        FILENAME | S own   | Original name of the file
        """,
    ),
    _group(
        "Hierarch information for CSC Simulation Mode",
        """
        SIMULATE.MTMOUNT          | I doc | MTMount Simulation Mode (False=0)
        SIMULATE.MTM1M3           | I doc | MTM1M3 Simulation Mode (False=0)
        SIMULATE.MTM2             | I doc | MTM2 Simulation Mode (False=0)
        SIMULATE.CAMHEXAPOD       | I doc | CAMHexapod Simulation Mode (False=0)
        SIMULATE.M2HEXAPOD        | I doc | M2Hexapod Simulation Mode (False=0)
        SIMULATE.MTROTATOR        | I doc | MTRotator Simulation Mode (False=0)
        SIMULATE.MTDOME           | I doc | MTDome Simulation Mode (False=0)
        SIMULATE.MTDOMETRAJECTORY | I doc | MTDomeTrajectory Simulation Mode (False=0)
        SIMULATE.ATMCS            | I doc | ATMCS Simulation Mode (False=0)
        SIMULATE.ATHEXAPOD        | I doc | ATHexapod Simulation Mode (False=0)
        SIMULATE.ATPNEUMATICS     | I doc | ATPneumatics Simulation Mode (False=0)
        SIMULATE.ATDOME           | I doc | ATDome Simulation Mode (False=0)
        SIMULATE.ATSPECTROGRAPH   | I doc | ATSpectrograph Simulation Mode (False=0)
        SIMULATED.MJD-OBS         | M doc | Simulated MJD-OBS
        SIMULATED.DATE-OBS        | S doc | Simulated DATE-OBS
        SIMULATED.DATE-END        | S doc | Simulated DATE-END
        """,
        optional=True,
    ),
    _group(
        "Stuttered Image Support",
        f"""
        STUTTER.ROWS    | I doc | The number of row shifts per stutter
        STUTTER.DELAY   | F doc | [s] The delay between stutters
        STUTTER.NSHIFTS | I doc | The number of stutters
{_shutter("OPEN", "opening")}
{_shutter("CLOSE", "closing")}
        """,
    ),
    _group(
        "Completeness",
        """
        MISSPIX | I own | Pixels that did not arrive and were filled
        FILLVAL | I own | Value of the pixels that did not arrive
        FILEVERS | I own | Version of this file; 1 without this card
        REPLACES | S own | File of the version before, with more missing
        HDRSTATE | S own | Header document: complete, partial or missing
        """,
    ),
)
"""Groups of the primary header after SIMPLE BITPIX NAXIS EXTEND and before the checksums."""

_OF_ONE_CAMERA: Final = (
    "EMUIMAGE FACILITY INSTPORT ATM3PORT DOMEAZ SHUTLOWR SHUTUPPR CCDTEMP TEMP_SET GRATING GRATBAND GRATSLOT"
    " LINSPOS FILLVAL FILEVERS REPLACES HDRSTATE"
)
OCCASIONAL: Final = frozenset(_OF_ONE_CAMERA.split()) | {
    keyword.name for group in GROUPS if group.optional for keyword in group.keywords
}
"""Keywords of one camera or one occasion: without a value they have no card, whatever is asked for."""

OWN: Final = frozenset(k.name for group in GROUPS for k in group.keywords if k.origin == "own")
TYPES: Final[dict[str, KeywordType]] = {k.name: k.type for group in GROUPS for k in group.keywords}


REB_COND: Final = _group(
    "REB_COND",
    """
    TEMP1    | F doc | REB Board temperature 1
    TEMP2    | F doc | REB Board temperature 2
    TEMP3    | F doc | REB Board temperature 3
    TEMP4    | F doc | REB Board temperature 4
    TEMP5    | F doc | REB Board temperature 5
    TEMP6    | F doc | REB Board temperature 6
    TEMP7    | F doc | REB Board temperature 7
    TEMP8    | F doc | REB Board temperature 8
    TEMP9    | F doc | REB Board temperature 9
    TEMP10   | F doc | REB Board temperature 10
    ATEMPU   | F doc | ASPIC 0 upper temperature
    ATEMPL   | F doc | ASPIC 0 lower temperature
    CCDTEMP  | F doc | CCD temperature
    RTDTEMP  | F doc | RTD temperature
    DIGPS_V  | F doc | REB Digital PS voltage
    DIGPS_I  | F doc | REB Digital PS current
    ANAPS_V  | F doc | REB Analog PS voltage
    ANAPS_I  | F doc | REB Analog PS current
    CLKHPS_V | F doc | REB CLK_H PS voltage
    CLKHPS_I | F doc | REB CLK_H PS current
    CLKLPS_V | F doc | REB CLK_L PS voltage
    CLKLPS_I | F doc | REB CLK_L PS current
    ODPS_V   | F doc | REB OD PS voltage
    ODPS_I   | F doc | REB OD PS current
    HTRPS_V  | F doc | REB Heater PS voltage
    HTRPS_W  | F doc | REB Heater PS power
    PCKU_V   | F doc | REB clock rails PCK_U Voltage
    PCKL_V   | F doc | REB clock rails PCK_L Voltage
    SCKU_V   | F doc | REB clock rails SCK_U Voltage
    SCKL_V   | F doc | REB clock rails SCK_L Voltage
    RGU_V    | F doc | REB clock rails RG_U Voltage
    RGL_V    | F doc | REB clock rails RG_L Voltage
    ODV      | F doc | REB bias OD voltage
    OGV      | F doc | REB bias OG voltage
    RDV      | F doc | REB bias RD voltage
    GDV      | F doc | REB bias GD voltage
    ODI      | F doc | REB bias OD current
    GDP      | F doc | REB config bias GD (requested)
    RDP      | F doc | REB config bias RD (requested)
    OGP      | F doc | REB config bias OG (requested)
    ODP      | F doc | REB config bias OD (requested)
    CSGATEP  | F doc | REB config bias CS gate (requested)
    SCK_LOWP | F doc | REB DAC SCLK Low (requested)
    SCK_HIP  | F doc | REB DAC SCLK High (requested)
    PCK_LOWP | F doc | REB DAC PCLK Low (requested)
    PCK_HIP  | F doc | REB DAC PCLK High (requested)
    RG_LOWP  | F doc | REB DAC RG Low (requested)
    RG_HIP   | F doc | REB DAC RG High (requested)
    AP0_RC   | I doc | CCD ASPIC 0 RC
    AP1_RC   | I doc | CCD ASPIC 1 RC
    AP0_GAIN | I doc | CCD ASPIC 0 gain
    AP1_GAIN | I doc | CCD ASPIC 1 gain
    AP0_CLMP | I doc | CCD ASPIC 0 clamp
    AP1_CLMP | I doc | CCD ASPIC 1 clamp
    AP0_AF1  | I doc | CCD ASPIC 0 af1
    AP1_AF1  | I doc | CCD ASPIC 1 af1
    AP0_TM   | I doc | CCD ASPIC 0 Transparent Mode
    AP1_TM   | I doc | CCD ASPIC 1 Transparent Mode
    HVBIAS   | S doc | REB HVBias Switch state
    IDLEFLSH | I doc | IDLE FLUSH setting
    POWER    | F doc | Total REB PS power
    DIGVB    | F doc | REB PS Digi Voltage before LDO
    DIGIB    | F doc | REB PS Digi Current before LDO
    DIGVA    | F doc | REB PS Digi Voltage after LDO
    DIGIA    | F doc | REB PS Digi Current after LDO
    DIGVS    | F doc | REB PS Digi Voltage after Switch
    ANAVB    | F doc | REB PS Ana Voltage before LDO
    ANAIB    | F doc | REB PS Ana Current before LDO
    ANAVA    | F doc | REB PS Ana Voltage after LDO
    ANAIA    | F doc | REB PS Ana Current after LDO
    ANAIS    | F doc | REB PS Ana Voltage after Switch
    ODVB     | F doc | REB PS OD Voltage before LDO
    ODIB     | F doc | REB PS OD Current before LDO
    ODVA     | F doc | REB PS OD Voltage after LDO
    ODVA2    | F doc | REB PS OD Voltage after LDO2
    ODIA     | F doc | REB PS OD Current after LDO
    ODVS     | F doc | REB PS OD Voltage after Switch
    CKHVB    | F doc | REB PS Clk HI Voltage before LDO
    CKHIB    | F doc | REB PS Clk HI Current before LDO
    CKHVA    | F doc | REB PS Clk HI Voltage after LDO
    CKHIA    | F doc | REB PS Clk HI Current after LDO
    CKHVS    | F doc | REB PS Clk HI Voltage after Switch
    CKLVB    | F doc | REB PS Clk LO Voltage before LDO
    CKLIB    | F doc | REB PS Clk LO Current before LDO
    CKLVA    | F doc | REB PS Clk LO Voltage after LDO
    CKLV2    | F doc | REB PS Clk LO Voltage after LDO2
    CKLIA    | F doc | REB PS Clk LO Current after LDO
    CKLVS    | F doc | REB PS Clk LO Voltage after Switch
    HTRVB    | F doc | REB PS Clk Heater Voltage before LDO
    HTRIB    | F doc | REB PS Clk Heater Current before LDO
    HTRVA    | F doc | REB PS Clk Heater Voltage after LDO
    HTRIA    | F doc | REB PS Clk Heater Current after LDO
    HTRVAS   | F doc | REB PS Clk Heater Voltage after Switch
    BSSVBS   | F doc | REB PS HV Bias Voltage before Switch
    BSSIBS   | F doc | REB PS HV Bias Current before Switch
    """,
)

CONFIG_COND: Final = _group(
    "CONFIG_COND",
    """
    FPDAQCS  | S doc | F.P. checksum for DAQ conf. cat.
    FPHIDCS  | S doc | F.P. checksum for HardwareId conf. cat.
    FPINSCS  | S doc | F.P. checksum for Instrument conf. cat.
    FPLIMCS  | S doc | F.P. checksum for Limits conf. cat.
    FPRTCCS  | S doc | F.P. checksum for RaftTempControl conf. cat.
    FPRTCSCS | S doc | F.P. checksum for RaftTempControlStatus conf. cat.
    FPRCS    | S doc | F.P. checksum for Rafts conf. cat.
    FPRLCS   | S doc | F.P. checksum for RaftsLimits conf. cat.
    FPRPCS   | S doc | F.P. checksum for RaftsRaftsPowerLimits conf. cat.
    FPSEQCS  | S doc | F.P. checksum for Sequencer conf. cat.
    FPTIMCS  | S doc | F.P. checksum for timers conf. cat.
    RPLIMCS  | S doc | REB Power checksum for Limits conf. cat.
    RPPOWCS  | S doc | REB Power checksum for Power conf. cat.
    RPTIMCS  | S doc | REB Power checksum for timers conf. cat.
    """,
)
