"""Headers that come after the files: later sidecars, and readers that find them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raftwright.daq import DaqImage
from raftwright.rawfile import open_raw, read_header_document, sidecar_path, verify, write_image
from raftwright.rawfile.later import later_sidecar, write_later_sidecar
from raftwright.rawfile.newest import newest_sidecar, sidecar_version
from raftwright.rawfile.sidecar import LATER
from raftwright.rawfile.standing import digest

DOCUMENT = """PRIMARY:
- {keyword: TIMESYS, value: TAI}
- {keyword: DATE-BEG, value: '2026-11-22T23:00:00.125'}
- {keyword: DATE-END, value: '2026-11-22T23:00:30.625'}
- {keyword: EXPTIME, value: 30.0}
- {keyword: IMGTYPE, value: OBJECT}
- {keyword: OBJECT, value: 'Fornax: "the" field'}
- {keyword: RA, value: .nan}
- {keyword: SEQNUM, value: 99}
- {keyword: HDRSTATE, value: complete}
- {keyword: OWNWORD, value: 17, comment: of nobody else}
- {keyword: HIERARCH SIMULATE MTCS, value: 1}
"""


def written(image: DaqImage, out: Path, header: bytes | None, **more: Any) -> list[Path]:
    report = write_image(image, out, header=header, threads=1, durable=False, **more)
    return [file.path for file in report.files]


@pytest.fixture
def first(science: Any, image: Callable[..., DaqImage], tmp_path: Path) -> Path:
    """A raw file without a header document."""
    return written(image(science), tmp_path, None)[0]


def content(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_bytes())
    return found


def test_it_is_what_the_first_would_have_been(
    kind: Any, image: Callable[..., DaqImage], tmp_path: Path
) -> None:
    """D056: metadata are never corrected in a raw file, and yet found by its readers."""
    header = tmp_path / "header.yaml"
    header.write_text(DOCUMENT)
    late = written(image(kind), tmp_path / "late", None)
    early = written(image(kind), tmp_path / "early", header.read_bytes())
    for path, twin in zip(late, early, strict=True):
        before = path.read_bytes()
        made = write_later_sidecar(path, read_header_document(header), header, durable=False)
        assert made == path.with_name(path.name.replace(".fits", ".sidecar2.json"))
        assert path.read_bytes() == before
        found, expected = content(made), content(sidecar_path(twin))
        standing = sidecar_path(path)
        assert found.pop(LATER) == {
            "version": 2,
            "replaces": {"file": standing.name, "crc32c": digest(standing).crc32c},
            "header": {"file": header.name, "crc32c": digest(header).crc32c},
        }
        for key in ("CHECKSUM", "DATASUM", "DATE", "MJD"):  # of the file, and of when it was written
            assert found[key] == content(standing)[key]
            del found[key], expected[key]
        assert list(found.items()) == list(expected.items())
        assert found["SEQNUM"] != 99, "a document overruled what the DAQ says"
        # Readers find it, and a file with the header in it says the same.
        raw, other = open_raw(path), open_raw(twin)
        assert raw.header["OBJECT"] == 'Fornax: "the" field'
        assert raw.header["EXPTIME"] == 30.0
        assert raw.header["HIERARCH SIMULATE MTCS"] == 1
        assert raw.file_header.get("OBJECT") is None
        same = {
            key: value
            for key, value in other.header.items()
            if key not in ("CHECKSUM", "DATASUM", "DATE", "MJD")
        }
        assert {key: raw.header[key] for key in same} == same
        assert raw.header.to_astropy()["EXPTIME"] == 30.0
    assert verify(tmp_path / "late").ok


def test_again_is_nothing_new(
    first: Path, science: Any, image: Callable[..., DaqImage], tmp_path: Path
) -> None:
    header = tmp_path / "header.yaml"
    header.write_text(DOCUMENT)
    document = read_header_document(header)
    assert write_later_sidecar(first, document, header, durable=False) is not None
    assert write_later_sidecar(first, document, header, durable=False) is None
    assert newest_sidecar(first)[0] == 2
    early, *_ = written(image(science), tmp_path / "early", header.read_bytes())
    assert later_sidecar(early, document, header) is None, "the file had this header from the beginning"


def test_versions_follow_one_another(first: Path, tmp_path: Path) -> None:
    path = first
    for number, exposure in enumerate((30.0, 31.0, 30.0), 2):
        header = tmp_path / f"header{number}.yaml"
        header.write_text(DOCUMENT.replace("EXPTIME, value: 30.0", f"EXPTIME, value: {exposure}"))
        made = write_later_sidecar(path, read_header_document(header), header, durable=False)
        assert made is not None
        assert sidecar_version(made) == number
        assert content(made)[LATER]["replaces"]["file"] == newest_before(path, number).name
        assert open_raw(path).header["EXPTIME"] == exposure


def newest_before(path: Path, number: int) -> Path:
    return sidecar_path(path) if number == 2 else path.with_name(path.stem + f".sidecar{number - 1}.json")


def test_gaps_stay_in_it(
    science: Any, image: Callable[..., DaqImage], with_gaps: Callable[..., DaqImage], tmp_path: Path
) -> None:
    whole = image(science)
    torn = with_gaps(whole, [(whole.info.sources[0].bytes // 2, whole.info.sources[0].bytes // 2 + 999)])
    header = tmp_path / "header.yaml"
    header.write_text(DOCUMENT)
    report = write_image(torn, tmp_path, threads=1, durable=False)
    for file in report.files:
        before = content(sidecar_path(file.path))
        made = write_later_sidecar(file.path, read_header_document(header), header, durable=False)
        assert made is not None
        assert before["__MISSING__"]
        assert content(made)["__MISSING__"] == before["__MISSING__"]
        assert content(made)["MISSPIX"] == file.missing_pixels


def test_many_at_once_write_one(first: Path, tmp_path: Path) -> None:
    header = tmp_path / "header.yaml"
    header.write_text(DOCUMENT)
    document = read_header_document(header)
    made: list[Path | None] = []
    threads = [
        threading.Thread(
            target=lambda: made.append(write_later_sidecar(first, document, header, durable=False))
        )
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 6
    assert len([one for one in made if one is not None]) == 1
    assert newest_sidecar(first)[0] == 2


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b'{"__CONTENT__": "metadata"}',
        b'{"__CONTENT__": "metadata", "__SIDECAR__": {}, "OBSID": "XX"}',
    ],
)
def test_a_later_sidecar_that_is_none_changes_nothing(text: bytes, first: Path) -> None:
    first.with_name(first.stem + ".sidecar2.json").write_bytes(text)
    raw = open_raw(first)
    assert dict(raw.header) == dict(raw.file_header)
