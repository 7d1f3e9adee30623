"""The compiled core. Public names are re-exported by the packages; this module itself is private."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer

Level: TypeAlias = Literal["scalar", "avx2", "neon"]
Int32: TypeAlias = NDArray[np.int32]

def build_info() -> dict[str, Any]: ...
def usable_processors() -> int: ...
def available_levels() -> list[Level]: ...
def active_level() -> Level: ...

# --- layouts -----------------------------------------------------------------------------------------
@final
class StreamLayout:
    """Stream layout: `plane_of[p]` is the output plane of stream channel p."""

    def __init__(self, bits: int, xor_mask: int, plane_of: Sequence[int]) -> None: ...
    @property
    def bits(self) -> int: ...
    @property
    def xor_mask(self) -> int: ...
    @property
    def plane_of(self) -> tuple[int, ...]: ...
    @property
    def channels(self) -> int: ...
    @property
    def sample_bytes(self) -> int: ...
    @property
    def max_value(self) -> int: ...
    def __eq__(self, other: object) -> bool: ...
    def __hash__(self) -> int: ...

def unpack(
    layout: StreamLayout, packed: Buffer, out: Int32 | None = None, level: Level | None = None
) -> Int32:
    """Packed whole samples -> int32 array (channels, samples), planes in output order."""

def unpack_reference(layout: StreamLayout, packed: Buffer) -> Int32: ...
def scramble(layout: StreamLayout, planes: Int32) -> tuple[bytes, int]:
    """Array (channels, samples) -> (packed bytes, number of clipped pixels)."""

# --- checksums ---------------------------------------------------------------------------------------
def crc32c(data: Buffer, crc: int = 0) -> int: ...
def crc32c_combine(crc_a: int, crc_b: int, length_b: int) -> int: ...
def adler32(data: Buffer, adler: int = 1) -> int: ...
def fits_sum(data: Buffer, start: int = 0) -> int: ...
def fits_checksum_text(total: int, complement: bool = True) -> str: ...

# --- directories --------------------------------------------------------------------------------------
def list_directories(descriptors: Sequence[int], threads: int = 1) -> list[int | tuple[bytes, int]]:
    """Reads open directories on several threads: of each its entries and how many of them are no
    directories, or the errno with which it could not be read. An entry is 48 bytes in the machine's byte
    order: inode, bytes (unsigned), mtime, ctime (ns, signed), 64 bits each; mode, uid, 32 bits each; length
    of the name, 64 bits; the name follows. Links are not followed; of directories only the type is told."""

# --- RICE_1 ------------------------------------------------------------------------------------------
def rice_encode(pixels: NDArray[Any], block: int = 32, level: Level | None = None) -> bytes:
    """One tile: int32, int16 or int8 -> RICE_1 code."""

def rice_decode(code: Buffer, pixels: int, dtype: str = "int32", block: int = 32) -> NDArray[Any]: ...

# --- readout under assembly --------------------------------------------------------------------------
def planes_bytes(count: int, width: int, height: int) -> int:
    """Bytes that the memory of a readout with so many planes must have. Raises UsageError."""

@final
class Readout:
    """One source under assembly. Thread-safe: add() may be called from many threads at once."""

    def __init__(
        self,
        layout: StreamLayout,
        width: int,
        height: int,
        *,
        pixels: bool = True,
        compressed: bool = False,
        memory: Buffer | None = None,
    ) -> None:
        """With `memory`, a writable buffer of at least planes_bytes() bytes that starts on a cache line (64
        bytes), the planes lie in it; it is held as long as the readout or an array of it."""
    def _capsule(self) -> object:
        """For other extension modules: a capsule "raftwright.Readout" with a std::shared_ptr<Readout>*."""
    @property
    def layout(self) -> StreamLayout: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def size(self) -> int:
        """Bytes of a complete stream."""
    def add(self, offset: int, data: Buffer, threads: int = 1) -> int:
        """Adds bytes at an offset; returns how many were new. Raises FormatError outside the stream."""
    @property
    def received(self) -> int: ...
    @property
    def duplicate(self) -> int:
        """Bytes that came more than once (ignored after the first time)."""
    @property
    def copied(self) -> int:
        """Bytes of rows that came in pieces: those alone are copied before they are worked on."""
    def restart(self) -> None:
        """Forgets everything that came, and finish(); arrays of its planes show what comes next."""
    @property
    def complete(self) -> bool: ...
    def gaps(self) -> list[tuple[int, int]]:
        """Byte ranges [begin, end) that have not arrived."""
    def missing(self, plane: int) -> list[tuple[int, int]]:
        """Pixels of a plane that have not arrived: (first, count) in readout positions y * width + x."""
    def finish(self, fill: int = -1, threads: int = 1) -> None:
        """Fills what is missing. Idempotent; add() afterwards raises UsageError."""
    @property
    def finished(self) -> bool: ...
    def plane(self, index: int) -> Int32:
        """(height, width) int32 view of a plane, without copy; the array keeps the slab alive."""
    def compressed_bytes(self, index: int) -> int: ...
    @property
    def memory(self) -> int:
        """Bytes held: planes, compressed tiles, rows waiting for their rest."""

# --- raw files ---------------------------------------------------------------------------------------
@final
class RawFileWriter:
    """Gathers the HDUs of one FITS file and publishes it atomically.

    `cards` is the header of an HDU as FITS text: 80 characters a card, without END and without padding.
    CHECKSUM and DATASUM cards are set where they stand; they are appended when they are not there.
    """

    def __init__(self) -> None: ...
    def add_header_only(self, cards: bytes) -> None:
        """A primary HDU without data, or a table without rows or columns."""
    def add_compressed(self, cards: bytes, readout: Readout, plane: int) -> None:
        """A RICE_1 tile-compressed image HDU. `cards` is the header of the uncompressed IMAGE extension
        (XTENSION .. DATASUM); the core makes the compressed header of it, as fpack does."""
    def add_plain(self, cards: bytes, readout: Readout, plane: int) -> None: ...
    def add_compressed_array(self, cards: bytes, pixels: Int32, threads: int = 1) -> None: ...
    def add_plain_array(self, cards: bytes, pixels: NDArray[Any]) -> None:
        """BITPIX 8, 16, 32, -32 or -64 by dtype; the cards must agree."""
    @property
    def size(self) -> int: ...
    def primary_cards(self) -> bytes:
        """Primary header as written, sums filled in, without END."""
    def compare(self, path: str, durable: bool = True) -> Literal["free", "same", "other"]:
        """What stands under a name, beside this content. The same is synced if `durable`."""
    def stage(self, path: str, durable: bool = True) -> StagedFile:
        """Writes it into the directory of `path`, without a name yet, and syncs it if `durable`."""
    def publish(self, path: str, durable: bool = True) -> dict[str, Any]:
        """Writes under a temporary name in the same directory, fsync, rename without replacing, fsync of
        the directory. Returns {"status": "written"|"unchanged"|"conflict", "path", "bytes",
        "adler32": "8 hex", "crc32c": "8 hex"}; "conflict": `path` is where the new content was kept,
        beside the untouched file.
        Raises StorageError; no partial file is left."""

@final
class StagedFile:
    """A content on the disk that has no name yet. What is never named vanishes, also after a kill."""

    def sync(self) -> None:
        """Waits until a durable content is on the disk; `commit` does so too."""
    def commit(self) -> bool:
        """Gives it its name, replacing nothing: False when that is taken. The directory is not synced."""
    @property
    def readable_path(self) -> str:
        """A path by which this process can read it; empty once it has its name."""
    @property
    def bytes(self) -> int: ...
    @property
    def crc32c(self) -> str: ...
    @property
    def adler32(self) -> str: ...

def stage_bytes(path: str, data: Buffer, durable: bool = True) -> StagedFile:
    """As RawFileWriter.stage, for any content."""

def publish_bytes(path: str, data: Buffer, durable: bool = True) -> dict[str, Any]:
    """As RawFileWriter.publish, for any content (sidecars, manifests, recordings)."""

# --- reading FITS ------------------------------------------------------------------------------------
@final
class FitsFile:
    """The structure of a FITS file held in a buffer or a file; every size is checked before it is used."""

    @staticmethod
    def open(path: str) -> FitsFile: ...
    @staticmethod
    def from_buffer(data: Buffer, name: str = "buffer") -> FitsFile: ...
    def __len__(self) -> int: ...
    def cards(self, hdu: int) -> bytes:
        """Header text, 80 characters a card, without END and padding."""
    def info(self, hdu: int) -> dict[str, Any]:
        """{"kind": "primary"|"image"|"compressed"|"table"|"other", "name", "version", "bitpix", "shape",
        "compression", "header_offset", "data_offset", "data_bytes", "decodable": bool}; for compressed
        images bitpix and
        shape (NumPy order) are those of the image."""
    def read(self, hdu: int, out: NDArray[Any] | None = None, threads: int = 1) -> NDArray[Any]:
        """Pixels of an image HDU: plain integers and floats, or RICE_1 integers (see info()["decodable"])."""
    def read_many(self, hdus: Sequence[int], threads: int = 0) -> list[NDArray[Any]]: ...
    def sums(self, hdu: int) -> tuple[bool | None, bool | None]:
        """(CHECKSUM verifies, DATASUM verifies); None where the card is absent."""
    @property
    def trailing(self) -> int:
        """Bytes after the last HDU."""

# --- mosaics -----------------------------------------------------------------------------------------
def paint_mosaic(
    placements: Sequence[tuple[Int32, int, int, int, int, bool, bool, int, int, int]],
    shape: tuple[int, int],
    bin: int = 1,
    missing: int = -1,
    fill: int = 0,
    threads: int = 1,
) -> Int32:
    """placements: (plane (h, w), x0, y0, nx, ny, flip_x, flip_y, out_x, out_y, quarter_turns)."""

# --- simulation --------------------------------------------------------------------------------------
@final
class SimulatedReadout:
    def __init__(
        self,
        layout: StreamLayout,
        width: int,
        height: int,
        pattern: Literal["sky", "coordinates"],
        seed: int,
        segments: Sequence[dict[str, Any]],
    ) -> None: ...
    @property
    def size(self) -> int: ...
    def row(self, plane: int, y: int) -> Int32: ...
    def read(self, offset: int, length: int, threads: int = 1) -> bytes: ...
    def readinto(self, offset: int, out: Buffer, threads: int = 1) -> int: ...

def coordinate_value(bits: int, detector: int, segment: int, y: int, x: int) -> int: ...
def coordinate_name(bits: int, group: Int32) -> tuple[int, int, int, int]: ...

# --- benchmarks --------------------------------------------------------------------------------------
def time_rice_encode(pixels: Int32, foreign: int = 0) -> tuple[float, bytes, list[int]]:
    """Encodes every row, by fits_rcomp at the address `foreign` if given: (seconds, code, lengths)."""

def time_rice_decode(
    code: Buffer, lengths: Sequence[int], width: int, foreign: int = 0
) -> tuple[float, Int32]:
    """Decodes every row, by fits_rdecomp at the address `foreign` if given: (seconds, pixels)."""
