"""Writes the corpus of the fuzz targets anew: make_corpus.py (needs numpy and astropy, not raftwright)."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from astropy.io import fits

CORPUS = Path(__file__).resolve().parent / "corpus"


def write(target: str, name: str, data: bytes) -> None:
    """One corpus file."""
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def fits_bytes(*hdus: fits.ImageHDU | fits.CompImageHDU | fits.BinTableHDU) -> bytes:
    """A file of these HDUs behind an empty primary one, with checksums."""
    out = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(out, checksum=True)
    return out.getvalue()


def fits_files(noise: np.random.Generator) -> None:
    """Compressed and plain images of several types, a table, a few things that are not quite FITS."""
    rows = noise.normal(25000, 8, (6, 40)).astype(np.int32)
    rows[2] = 7

    def tiled(data: np.ndarray, **options: object) -> fits.CompImageHDU:
        return fits.CompImageHDU(data, compression_type="RICE_1", tile_shape=(1, data.shape[1]), **options)

    write("fuzz_fits", "rice_int32.fits", fits_bytes(tiled(rows, name="Segment10")))
    write("fuzz_fits", "rice_int16.fits", fits_bytes(tiled((rows - 25000).astype(np.int16))))
    write("fuzz_fits", "rice_uint16.fits", fits_bytes(tiled(rows.astype(np.uint16))))
    write(
        "fuzz_fits", "plain.fits", fits_bytes(fits.ImageHDU(rows, name="A"), fits.ImageHDU(rows.astype("f4")))
    )
    column = fits.Column(name="X", format="J", array=np.arange(3))
    write("fuzz_fits", "table.fits", fits_bytes(fits.BinTableHDU.from_columns([column], name="T")))
    gzip = fits.CompImageHDU(rows, compression_type="GZIP_1")
    write("fuzz_fits", "gzip.fits", fits_bytes(gzip))
    write("fuzz_fits", "cut.fits", fits_bytes(tiled(rows))[:-2880])
    write("fuzz_fits", "empty", b"")


def rice_inputs(noise: np.random.Generator) -> None:
    """Parameters (kind, block choice, count) and pixels or code."""
    pixels = noise.normal(25000, 8, 320).astype("<i4")
    write("fuzz_rice", "pixels_int32", bytes([3, 1, 0, 0]) + pixels.tobytes())
    write("fuzz_rice", "pixels_int16", bytes([4, 1, 0, 0]) + (pixels - 25000).astype("<i2").tobytes())
    write("fuzz_rice", "pixels_int8", bytes([5, 1, 0, 0]) + (pixels & 15).astype("i1").tobytes())
    hdu = fits.CompImageHDU(pixels.reshape(1, 320).astype(np.int32), compression_type="RICE_1")
    out = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(out)
    with fits.open(io.BytesIO(out.getvalue()), disable_image_compression=True) as file:
        code = np.asarray(file[1].data[0][0], dtype=np.uint8).tobytes()
    write("fuzz_rice", "code_int32", bytes([0, 1]) + (320).to_bytes(2, "little") + code)
    write("fuzz_rice", "code_int16", bytes([1, 1]) + (320).to_bytes(2, "little") + code)
    write("fuzz_rice", "code_int8", bytes([2, 1]) + (320).to_bytes(2, "little") + code)
    write("fuzz_rice", "constant", bytes([0, 1, 64, 0, 0, 0, 97, 168, 0, 0]))


def streams(noise: np.random.Generator) -> None:
    """Packed streams and scripts of chunks."""
    for bits, multiple in ((18, 0), (18, 1), (18, 2), (16, 0), (12, 1)):
        header = bytes([bits, 1, multiple]) + bytes([0x55, 0x55, 0, 0]) + bytes([2, 0, 5, 3, 9, 0])
        write("fuzz_unpack", f"{bits}bits_{16 * (multiple + 1)}channels", header + noise.bytes(1200))
    for kind in range(4):
        header = bytes([kind, 1, 12, 6, 1, 0xFF, 0xFF, 7, 7])
        chunks = b"".join(
            int(offset).to_bytes(2, "little") + int(length).to_bytes(2, "little") + bytes([1])
            for offset, length in noise.integers(0, 3000, (30, 2))
        )
        write("fuzz_readout", f"layout{kind}", header + chunks)


def messages(noise: np.random.Generator) -> None:
    """Scripts of pulls, chunks and worse: the size of the image, then steps with their numbers."""
    for n, (width, height) in enumerate(((19, 11), (3, 3), (12, 6), (19, 2))):
        size = width * height * 4
        ask = bytes([0, 0, 0]) + size.to_bytes(2, "little") + bytes([1])
        steps = b"".join(
            bytes([6, 7, 1, 1, 1, k % 32])
            + min(at, size - 1).to_bytes(2, "little")
            + bytes([min(100, size - at), 1, 1, 2 + 8 * int(noise.integers(0, 2))])
            for k, at in enumerate(range(0, size, 100))
        )
        write("fuzz_intake", f"stream{n}", bytes([width - 1, height - 1]) + ask + steps)
        write("fuzz_intake", f"noise{n}", bytes([width - 1, height - 1]) + ask + noise.bytes(600))


if __name__ == "__main__":
    random = np.random.default_rng(1)
    fits_files(random)
    rice_inputs(random)
    streams(random)
    messages(random)
