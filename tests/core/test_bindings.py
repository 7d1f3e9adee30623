"""What the bindings take and how they say no: types, paths, messages and objects in the wrong state."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from raftwright import _core
from raftwright.errors import FormatError, StorageError, UsageError

PIXELS = np.arange(40, dtype=np.int32).reshape(4, 10)


def cards(bitpix: int = 32) -> bytes:
    """The header of an image extension of the shape of PIXELS."""
    lines = ["XTENSION= 'IMAGE   '"]
    lines += [f"{key:8}= {value:>20}" for key, value in [("BITPIX", bitpix), ("NAXIS", 2)]]
    lines += [f"{key:8}= {value:>20}" for key, value in [("NAXIS1", 10), ("NAXIS2", 4)]]
    return b"".join(line.ljust(80).encode() for line in lines)


def test_arrays_that_came_through_pickle_are_like_any_other() -> None:
    array = pickle.loads(pickle.dumps(PIXELS))
    writer = _core.RawFileWriter()
    writer.add_plain_array(cards(), array)
    assert writer.size == 2 * 2880
    assert _core.rice_encode(array.ravel()) == _core.rice_encode(PIXELS.ravel())
    _core.RawFileWriter().add_plain_array(cards(64), PIXELS.astype(np.longlong))
    with pytest.raises(UsageError, match="native byte order"):
        _core.RawFileWriter().add_plain_array(cards(), PIXELS.astype(">i4"))


def test_a_path_may_have_any_name_that_a_file_can_have(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.fits")  # Latin-1, no UTF-8
    primary = [f"{key:8}= {value:>20}" for key, value in [("SIMPLE", "T"), ("BITPIX", 8), ("NAXIS", 0)]]
    writer = _core.RawFileWriter()
    writer.add_header_only(b"".join(card.ljust(80).encode() for card in primary))
    result = writer.publish(path, False)
    assert (result["status"], result["path"]) == ("written", path)
    assert os.path.getsize(path) == 2880
    assert _core.FitsFile.open(path).name == path
    assert _core.publish_bytes(path, b"other", False)["path"].startswith(path + ".conflict-")
    with pytest.raises(StorageError, match=r"caf\\xe9\.fits") as caught:
        _core.publish_bytes(path + "/below", b"", False)
    assert caught.value.filename == path
    with pytest.raises(TypeError):
        _core.publish_bytes(5, b"")  # type: ignore[arg-type]


def test_bytes_that_are_no_text_are_shown_in_the_error_for_them() -> None:
    for keyword in (b"\xff\xfe", b"\x1b[2J", b"caf\xe9"):
        with pytest.raises(FormatError, match=r"card 1 \(.*printable ASCII") as caught:
            _core.RawFileWriter().add_header_only(keyword.ljust(80))
        assert str(caught.value).isprintable()


def test_a_file_of_nothing_is_not_published(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="primary header first"):
        _core.RawFileWriter().publish(str(tmp_path / "empty.fits"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["plain", "compressed"])
def test_rows_that_have_not_come_are_not_written(kind: str) -> None:
    layout = _core.StreamLayout(18, 0, range(16))
    readout = _core.Readout(layout, 10, 4, pixels=True, compressed=True)
    readout.add(0, bytes(readout.size - 1))
    writer = _core.RawFileWriter()
    add = writer.add_plain if kind == "plain" else writer.add_compressed
    with pytest.raises(UsageError, match="finish"):
        add(cards(), readout, 0)
    with pytest.raises(UsageError, match="plane 16 does not exist: give 0 to 15"):
        add(cards(), readout, 16)
    assert writer.size == 0
    readout.finish()
    add(cards(), readout, 0)
    assert writer.size == 2 * 2880


def test_an_offset_beyond_all_reason_is_told_as_it_is() -> None:
    readout = _core.Readout(_core.StreamLayout(8, 0, [0]), 10, 4)
    with pytest.raises(FormatError, match="chunk of 4 bytes at byte 18446744073709551615 reaches past"):
        readout.add(2**64 - 1, b"abcd")
    assert readout.received == 0
