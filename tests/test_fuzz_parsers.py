"""Seeded mutation fuzz of everything that reads what others wrote.

Whatever the input, a parser answers in bounded time and memory, and refuses with an error of its own. Short
by default; RAFTWRIGHT_FUZZ_SECONDS makes it run that long a parser and RAFTWRIGHT_FUZZ_SEED from another seed
(`make fuzz`). A run without the clock is the same every time. What failed is kept and named in the message.
"""

from __future__ import annotations

import copy
import io
import json
import math
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from astropy.io import fits

from raftwright import _core
from raftwright.camera import camera, check_file
from raftwright.daq import open_recording, simulate_image, write_recording
from raftwright.errors import RaftwrightError
from raftwright.rawfile import ImageName, open_raw, read_header_document, write_image

SECONDS = float(os.environ.get("RAFTWRIGHT_FUZZ_SECONDS", "0"))
SEED = int(os.environ.get("RAFTWRIGHT_FUZZ_SEED", "1"))
INPUTS = 200
# Of the processor, not of the clock: the machine may have other work. What waits is pytest-timeout's to end.
SECONDS_AN_INPUT = 10.0
SECONDS_A_LARGE_INPUT = 60.0
MEGABYTES_A_RUN = 600

# Values that a document may hold where a size, a name or a number is expected.
HOSTILE: list[Any] = [
    None,
    True,
    0,
    -1,
    1,
    2**31,
    2**63,
    10**30,
    -(2**63),
    0.5,
    math.nan,
    math.inf,
    -math.inf,
    "",
    " ",
    "..",
    "../../etc/passwd",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "nul\x00byte",
    "line\nbreak",
    "\x1b[2J",
    "ünïcödé ✓",
    "\u202eright to left",
    "1e309",
    "NaN",
    "x" * 100_000,
    [],
    {},
    [[[[[[]]]]]],
    {"a": {"b": {"c": {}}}},
    list(range(1000)),
]


class Mutator:
    """Mutations of bytes and of documents, all from one seeded generator."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def of_bytes(self, data: bytes) -> bytes:
        """A few places changed, cut out, doubled or put in."""
        out = bytearray(data)
        for _ in range(self.random.choice((1, 1, 2, 4, 8))):
            at = self.random.randrange(len(out) + 1)
            match self.random.randrange(7):
                case 0 if at < len(out):
                    out[at] ^= 1 << self.random.randrange(8)
                case 1 if at < len(out):
                    out[at] = self.random.randrange(256)
                case 2:
                    del out[at : at + self.random.choice((1, 4, 80, 2880))]
                case 3:
                    out[at:at] = out[at : at + self.random.choice((1, 4, 80, 2880))]
                case 4:
                    out[at:at] = self.random.choice(
                        (b"\x00", b"\xff\xfe", b"-", b"9" * 20, b"{", b"&a *a ", b": ")
                    )
                case 5:
                    del out[at:]
                case _:
                    self.other_number(out, at)
        return bytes(out)

    def other_number(self, out: bytearray, start: int) -> None:
        """Another digit, sign or point where a digit stands."""
        for at in range(start, min(len(out), start + 4096)):
            if 0x30 <= out[at] <= 0x39:
                out[at] = self.random.choice(b"0123456789-.E ")
                return

    def of_document(self, document: Any) -> Any:
        """A few values replaced by hostile ones, left out, doubled or renamed."""
        out = copy.deepcopy(document)
        for _ in range(self.random.choice((1, 1, 2, 3))):
            places = list(self.places(out))
            if not places:
                return self.random.choice(HOSTILE)
            holder, key = self.random.choice(places)
            match self.random.randrange(6):
                case 0:
                    del holder[key]
                case 1 if isinstance(holder, dict):
                    holder[self.random.choice(("", "name", "../x", "ü" * 9, 0, None))] = holder[key]
                case 2 if isinstance(holder, list):
                    holder.insert(0, copy.deepcopy(holder[key]))
                case 3:
                    other, other_key = self.random.choice(places)
                    holder[key] = copy.deepcopy(other[other_key])
                case _:
                    holder[key] = copy.deepcopy(self.random.choice(HOSTILE))
        return out

    def places(self, node: Any) -> list[tuple[Any, Any]]:
        """Every (container, key) below a node."""
        found: list[tuple[Any, Any]] = []
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, value in items:
            found.append((node, key))
            found += self.places(value)
        return found


def peak_megabytes() -> float:
    """Largest resident size since the last reset."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmHWM")


def fuzz(make: Callable[[Mutator], bytes], parse: Callable[[bytes], object], keep: Path) -> None:
    """Parses mutated inputs until the number or the time is up; anything but RaftwrightError is a finding."""
    mutator = Mutator(SEED)
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_megabytes()
    begun = time.monotonic()
    refused = 0
    count = 0
    while (time.monotonic() - begun < SECONDS) if SECONDS else (count < INPUTS):
        data = make(mutator)
        count += 1
        started = time.process_time()
        try:
            parse(data)
        except RaftwrightError as error:
            refused += 1
            assert 0 < len(str(error)) < 4000, describe(data, keep, "an error of no or endless words")
        except Exception as error:
            raise AssertionError(describe(data, keep, repr(error)[:300])) from error
        seconds = time.process_time() - started
        assert seconds < SECONDS_AN_INPUT, describe(data, keep, f"took {seconds:.0f} s")
        grown = peak_megabytes() - before
        assert grown < MEGABYTES_A_RUN, describe(data, keep, f"{grown:.0f} MB more memory")
    assert count > 0
    assert refused > 0, "nothing was refused: the mutations do not reach the parser"
    print(f"{count} inputs, {refused} refused")


def describe(data: bytes, keep: Path, what: str) -> str:
    keep.write_bytes(data)
    return f"seed {SEED}: {what}; the input of {len(data)} bytes is kept as {keep}"


@pytest.fixture(autouse=True, scope="module")
def sanitized_build() -> None:
    """Under the sanitizers, make sure that it is the sanitized core that is tested."""
    expected = os.environ.get("RAFTWRIGHT_EXPECT_SANITIZERS")
    if expected is not None:
        assert expected in str(_core.build_info()), _core.build_info()


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small recording of the made-up camera."""
    image = simulate_image(camera("MiniCam"), "MN_O_20261122_000001", seed=3, registers=SMALL)
    folder = tmp_path_factory.mktemp("recording") / "image"
    write_recording(folder, image)
    return folder


SMALL = [0, 2, 8, 0, 0, 2, 0, 6, 0, 2, 0]


def read_all(path: Path) -> None:
    """Opens a recording and reads a little of every source."""
    image = open_recording(path)
    for info in image.info.sources:
        source = image.source(info.location)
        assert len(source.read(0, min(64, info.bytes))) <= 64


def with_json(path: Path, recording: Path) -> Callable[[bytes], object]:
    path.mkdir()
    for file in recording.iterdir():
        (path / file.name).write_bytes(file.read_bytes())

    def parse(data: bytes) -> None:
        (path / "image.json").write_bytes(data)
        read_all(path)

    return parse


def test_recording_as_bytes(recording: Path, tmp_path: Path) -> None:
    text = (recording / "image.json").read_bytes()
    fuzz(lambda m: m.of_bytes(text), with_json(tmp_path / "r", recording), tmp_path / "input")


def test_recording_as_document(recording: Path, tmp_path: Path) -> None:
    document = json.loads((recording / "image.json").read_text())
    fuzz(
        lambda m: json.dumps(m.of_document(document)).encode(),
        with_json(tmp_path / "r", recording),
        tmp_path / "input",
    )


def dump(document: Any) -> bytes:
    return yaml.dump(document, Dumper=yaml.SafeDumper, allow_unicode=True, sort_keys=False).encode()


@pytest.fixture(scope="module")
def camera_file() -> bytes:
    """The description of the made-up camera."""
    import raftwright.camera

    folder = Path(raftwright.camera.__file__).parent
    (path,) = [file for file in folder.rglob("*.yaml") if "mini" in file.stem.lower()]
    return path.read_bytes()


def parse_camera(folder: Path) -> Callable[[bytes], object]:
    path = folder / "camera.yaml"

    def parse(data: bytes) -> None:
        path.write_bytes(data)
        problems = check_file(path)  # tells everything and raises nothing
        if problems:
            with pytest.raises(RaftwrightError):
                camera(path)
            raise RaftwrightError(str(problems[0])[:1000] or "a problem without words")
        for detector in camera(path).detectors:
            assert detector.segments

    return parse


def test_camera_as_bytes(camera_file: bytes, tmp_path: Path) -> None:
    fuzz(lambda m: m.of_bytes(camera_file), parse_camera(tmp_path), tmp_path / "input")


def test_camera_as_document(camera_file: bytes, tmp_path: Path) -> None:
    document = yaml.safe_load(camera_file)
    fuzz(lambda m: dump(m.of_document(document)), parse_camera(tmp_path), tmp_path / "input")


HEADER = b"""\
PRIMARY:
- {keyword: OBSERVER, value: someone, comment: Who observed}
- {keyword: EXPTIME, value: 30.0, comment: Exposure time (s)}
- {keyword: FILTER, value: null, comment: Filter}
- {keyword: AIRMASS, value: .nan, comment: Airmass}
- {keyword: SHUTOPEN, value: '12:30:00', comment: ''}
- {keyword: null, value: null, comment: '--- a title'}
R22S00_PRIMARY:
- {keyword: CCDTEMP, value: -100.5, comment: Temperature}
R22S00_Segment10:
- {keyword: GAIN, value: 1.5, comment: ''}
REB_COND:
- {keyword: TEMP1, value: 3, comment: ''}
- {keyword: ESRI, value: true, comment: ''}
"""


def test_header_document_as_bytes(tmp_path: Path) -> None:
    fuzz(lambda m: m.of_bytes(HEADER), read_header_document, tmp_path / "input")


def test_header_document_as_document(tmp_path: Path) -> None:
    document = yaml.safe_load(HEADER)
    fuzz(lambda m: dump(m.of_document(document)), read_header_document, tmp_path / "input")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(
            b"a: &a [x,x,x,x,x,x,x,x,x]\n"
            + b"".join(
                f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n".encode()
                for old, new in zip("abcdefgh", "bcdefghi", strict=True)
            ),
            id="aliases of aliases",
        ),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b"a: " * 50_000, id="deep mapping"),
        pytest.param(b"- " * 100_000, id="deep list"),
        pytest.param(b"? " * 50_000, id="deep keys"),
        pytest.param(b"PRIMARY: !!python/object/apply:os.system [x]\n", id="a tag that would run"),
        pytest.param(b"PRIMARY:\n" + b"- {keyword: A, value: 1}\n" * 300_000, id="many records"),
        pytest.param(b"PRIMARY:\n- {keyword: A, value: '" + b"x" * (10 << 20) + b"'}\n", id="10 MB value"),
    ],
)
def test_header_document_is_bounded(data: bytes) -> None:
    begun = time.process_time()
    try:
        read_header_document(data)
    except RaftwrightError as error:
        assert len(str(error)) < 4000
    assert time.process_time() - begun < SECONDS_A_LARGE_INPUT


@pytest.fixture(scope="module")
def raw_files(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Raw files as we write them, compressed and plain, and foreign ones of other codecs."""
    image = open_recording(recording)
    found = []
    for plain in (False, True):
        folder = tmp_path_factory.mktemp("raw")
        write_image(image, folder, camera=camera("MiniCam"), plain=plain, durable=False)
        found.append(next(iter(sorted(folder.rglob("*.fits")))).read_bytes())
    noise = np.random.default_rng(1).normal(1000, 5, (6, 40)).astype(np.int32)
    for codec in ("RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1", "PLIO_1"):
        out = io.BytesIO()
        tile = (6, 40) if codec == "HCOMPRESS_1" else (1, 40)
        hdu = fits.CompImageHDU(noise, compression_type=codec, tile_shape=tile, name="Segment10")
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(out, checksum=True)
        found.append(out.getvalue())
    return found


@pytest.mark.filterwarnings("ignore")  # astropy reads what is not RICE_1 and warns of what it meets
def test_raw_files(raw_files: list[bytes], tmp_path: Path) -> None:
    path = tmp_path / "MN_O_20261122_000001_R00_S00.fits"

    def parse(data: bytes) -> None:
        path.write_bytes(data)
        raw = open_raw(path)
        for name in raw.names:
            assert raw.segments[name].size < 2**28

    fuzz(lambda m: m.of_bytes(m.random.choice(raw_files)), parse, tmp_path / "input")


def test_fits_structure(raw_files: list[bytes], tmp_path: Path) -> None:
    def parse(data: bytes) -> None:
        file = _core.FitsFile.from_buffer(data)
        for hdu in range(len(file)):
            file.cards(hdu)
            file.sums(hdu)
            if file.info(hdu)["decodable"]:
                assert file.read(hdu).nbytes < 2**32

    fuzz(lambda m: m.of_bytes(m.random.choice(raw_files)), parse, tmp_path / "input")


def test_image_names(tmp_path: Path) -> None:
    fuzz(
        lambda m: m.of_bytes(b"MC_O_20261122_000123"),
        lambda data: ImageName.parse(data.decode("utf-8", errors="replace")),
        tmp_path / "input",
    )
