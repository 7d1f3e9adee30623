"""A program of somebody who knows nothing of us but the Butler: it gets each raw as soon as it can, and
tells when that was and what its pixels are. Arguments: repository, collection, instrument, exposures from and
to, detectors. One JSON object a line."""

from __future__ import annotations

import json
import sys
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

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
    told = threading.Lock()

    def look(at: float, exposure: int, detector: int, raw: Any) -> None:
        pixels = np.ascontiguousarray(raw.mosaic)
        found = {"exposure": exposure, "detector": detector, "time": at, "crc": zlib.crc32(pixels)}
        with told:
            print(json.dumps({"event": "raw", "shape": pixels.shape, **found}), flush=True)

    # Pixels are looked at by a thread, so that nobody who is late with them is late with the next image.
    with ThreadPoolExecutor(1) as pool:
        _read(butler, instrument, range(first, last + 1), detectors, partial(pool.submit, look))


def _read(butler: Butler, instrument: str, exposures: range, detectors: int, got: Callable[..., Any]) -> None:
    for exposure in exposures:
        lacking = set(range(detectors))
        while lacking:
            for detector in sorted(lacking):
                where = {"instrument": instrument, "exposure": exposure, "detector": detector}
                try:
                    raw = butler.get("raw", where)
                except (DatasetNotFoundError, DataIdValueError):
                    break  # nor will the others be there
                got(time.time(), exposure, detector, raw)
                lacking.discard(detector)
            time.sleep(PAUSE)


if __name__ == "__main__":
    main()
