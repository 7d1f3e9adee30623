"""A program of somebody who knows nothing of us but the Butler: it gets each raw as soon as it can, and
tells when that was and what its pixels are. Arguments: repository, collection, instrument, exposures from and
to, detectors. One JSON object a line."""

from __future__ import annotations

import json
import sys
import time
import zlib

import numpy as np
from lsst.daf.butler import Butler, DatasetNotFoundError
from lsst.daf.butler.registry import DataIdValueError

PAUSE = 0.01
"""Seconds between two tries."""


def main() -> None:
    repository, collection, instrument = sys.argv[1:4]
    first, last, detectors = map(int, sys.argv[4:7])
    butler = Butler.from_config(repository, collections=collection, writeable=False)
    print(json.dumps({"event": "ready"}), flush=True)
    for exposure in range(first, last + 1):
        lacking, raws = set(range(detectors)), {}
        while lacking:
            for detector in sorted(lacking):
                where = {"instrument": instrument, "exposure": exposure, "detector": detector}
                try:
                    raw = butler.get("raw", where)
                except (DatasetNotFoundError, DataIdValueError):
                    break  # nor will the others be there
                raws[detector] = (time.time(), raw)
                lacking.discard(detector)
            time.sleep(PAUSE)
        for detector, (at, raw) in raws.items():
            pixels = np.ascontiguousarray(raw.mosaic)
            told = {"exposure": exposure, "detector": detector, "time": at, "crc": zlib.crc32(pixels)}
            print(json.dumps({"event": "raw", "shape": pixels.shape, **told}), flush=True)


if __name__ == "__main__":
    main()
