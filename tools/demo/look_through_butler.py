"""Opens every image through the Butler, and shows one CCD of each on one sheet.

    python tools/demo/look_through_butler.py REPOSITORY PICTURE IMAGES

Ends with 1 where an image is not there, or a detector of it.
"""

from __future__ import annotations

import sys

import numpy as np
from lsst.daf.butler import Butler
from PIL import Image, ImageDraw

from raftwright.picture import find_limits, to_bytes

BIN, ACROSS, GAP = 16, 4, 24
INSTRUMENT, DETECTOR = "LSSTComCam", 4


def main(root: str, picture: str, images: int) -> int:
    butler = Butler.from_config(root, collections=f"{INSTRUMENT}/defaults")
    refs = butler.query_datasets("raw", where=f"instrument = '{INSTRUMENT}'", limit=None)
    exposures = sorted({int(ref.dataId["exposure"]) for ref in refs})
    tiles = []
    for exposure in exposures:
        data_id = {"instrument": INSTRUMENT, "exposure": exposure, "detector": DETECTOR}
        record = next(
            iter(
                butler.query_dimension_records(
                    "exposure", **{k: data_id[k] for k in ("instrument", "exposure")}
                )
            )
        )
        header = butler.get("raw.header", data_id)
        pixels = butler.get("raw", data_id, parameters={"bin": BIN}).mosaic
        whole = sum(int(ref.dataId["exposure"]) == exposure for ref in refs)
        sys.stdout.write(
            f"  {record.obs_id}  {record.observation_type:7} {record.physical_filter:10}"
            f" {whole} detectors, EXPTIME {header['EXPTIME']:g} s, median {np.median(pixels):.0f} adu\n"
        )
        if whole != 9:
            sys.stderr.write(f"error: {record.obs_id}: has {whole} of 9 detectors in the repository\n")
            return 1
        tiles.append((str(record.obs_id), to_bytes(pixels, find_limits(pixels))[::-1]))
    if len(tiles) != images:
        sys.stderr.write(f"error: {len(tiles)} of {images} images are in the repository\n")
        return 1
    height, width = (max(tile.shape[axis] for _, tile in tiles) for axis in (0, 1))
    rows = -(-len(tiles) // ACROSS)
    sheet = Image.new("L", (ACROSS * (width + GAP) + GAP, rows * (height + 2 * GAP) + GAP), 16)
    pen = ImageDraw.Draw(sheet)
    for number, (name, tile) in enumerate(tiles):
        left = GAP + number % ACROSS * (width + GAP)
        top = GAP + number // ACROSS * (height + 2 * GAP)
        sheet.paste(Image.fromarray(np.ascontiguousarray(tile)), (left, top))
        pen.text((left, top + height + 4), f"{name} R22_S11", fill=220)
    sheet.save(picture)
    sys.stdout.write(f"  a CCD of each: {picture}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
