"""Reads the header of every raw file of an archive with astropy, and the newest sidecar beside it.

    python tools/demo/check_headers.py ARCHIVE

A file that did not wait for a late header says HDRSTATE = 'missing'; its keywords are in the later sidecar.
Prints how many there are; ends with 1 and names the file where a keyword that translators need is not there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from astropy.io import fits
from astropy.time import Time

NEEDED = (
    *("OBSID", "INSTRUME", "CAMCODE", "CONTRLLR", "DAYOBS", "SEQNUM", "GROUPID", "CURINDEX", "MAXINDEX"),
    *("RAFTBAY", "CCDSLOT", "LSST_NUM", "EXPTIME", "DARKTIME", "DATE", "DATE-BEG", "DATE-END", "MJD-BEG"),
    *("MJD-END", "TIMESYS", "FILTER", "OBJECT", "PROGRAM", "REASON", "IMGTYPE", "FOCUSZ", "AMSTART", "AMEND"),
    *("ELSTART", "ELEND", "AZSTART", "AZEND"),
)
"""What translators to observation information ask of every image."""
ON_SKY = ("RA", "DEC", "ROTPA", "ROTCOORD", "TRACKSYS")


def headers_of(path: Path) -> tuple[Mapping[str, Any], bool]:
    """What is known of a file, and whether its header document came after it."""
    header = fits.getheader(path, 0)
    known = {key: header[key] for key in header if not isinstance(header[key], fits.card.Undefined)}
    sidecars = [path.with_suffix(".json"), *sorted(path.parent.glob(f"{path.stem}.sidecar*.json"))]
    sidecar = json.loads(sidecars[-1].read_bytes())
    late = known["HDRSTATE"] == "missing"
    if late and len(sidecars) == 1:
        raise ValueError("was written without a header document, and none came")
    if not late:
        other = [key for key in known if key in sidecar and sidecar[key] != known[key]]
        if other:
            raise ValueError(f"the sidecar says something else of {', '.join(other)}")
    return (sidecar if late else known), late


def problems_of(path: Path) -> tuple[list[str], bool]:
    """What is wrong with the headers of a file, and whether its header document came after it."""
    try:
        header, late = headers_of(path)
    except (OSError, KeyError, ValueError) as error:
        return [str(error)], False
    needed = (*NEEDED, *(ON_SKY if header.get("IMGTYPE") == "OBJECT" else ()))
    lacking = [keyword for keyword in needed if header.get(keyword) is None]
    found = [f"lacks {', '.join(lacking)}"] if lacking else []
    if not found:
        begin, end, made = (Time(header[key], scale="tai") for key in ("DATE-BEG", "DATE-END", "DATE"))
        if header["TIMESYS"] != "TAI" or not begin <= end <= made:
            found.append("DATE-BEG, DATE-END and DATE are not in order, or not TAI")
        if not path.name.startswith(header["OBSID"]):
            found.append(f"OBSID is {header['OBSID']}")
    return found, late


def main() -> int:
    """The exit code."""
    files = sorted(Path(sys.argv[1]).rglob("*_S??.fits"))
    wrong = later = 0
    for path in files:
        problems, late = problems_of(path)
        later += late
        for problem in problems:
            print(f"{path.name}: {problem}", file=sys.stderr)
            wrong = 1
    if not files:
        print(f"{sys.argv[1]}: there is no raw file", file=sys.stderr)
        return 1
    print(
        f"  {len(files)} headers, {len(NEEDED)} keywords of each, times in order, sidecars equal;"
        f" {later} of them in later sidecars"
    )
    return wrong


if __name__ == "__main__":
    raise SystemExit(main())
