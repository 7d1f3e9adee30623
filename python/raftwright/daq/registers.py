"""Readout registers: what the DAQ says about the shape of a source's stream."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from raftwright.camera import Geometry
from raftwright.errors import FormatError

__all__ = ["MAX_PIXELS", "UNKNOWN", "Registers"]

MAX_PIXELS = 2**31
"""Pixels of a segment at most; more cannot be meant."""

_MAX_SIDE = 65535
_MAX_REGISTER = 2**32 - 1
_LEAST, _MOST = 10, 16
_NAMES = {
    "under_cols": "UnderCols",
    "pre_cols": "PreCols",
    "read_cols": "ReadCols",
    "post_cols": "PostCols",
    "read_cols2": "ReadCols2",
    "over_cols": "OverCols",
    "pre_rows": "PreRows",
    "read_rows": "ReadRows",
    "post_rows": "PostRows",
    "over_rows": "OverRows",
}


class Registers(msgspec.Struct, frozen=True):
    """Register values of a source, all of them counts of columns and rows except `op_flags`.

    A row is read as under_cols, (pre_cols dropped), read_cols, (post_cols dropped), read_cols2, over_cols; a
    frame as (pre_rows dropped), read_rows, (post_rows dropped), over_rows. Values that no readout can have
    raise FormatError, however the object is made.
    """

    under_cols: int
    pre_cols: int
    read_cols: int
    post_cols: int
    read_cols2: int
    over_cols: int
    pre_rows: int
    read_rows: int
    post_rows: int
    over_rows: int
    op_flags: int | None = None
    """How the DAQ codes the vendor (1 ITL, 2 E2V); None where it was not delivered."""
    further: tuple[int, ...] = ()
    """Registers after OpFlags, kept as they came."""

    def __post_init__(self) -> None:
        for name, value in self._named():
            _check_value(name, value)
        if self.further and self.op_flags is None:
            raise FormatError(
                "registers: there are values after OpFlags but none for it; give it, or leave them out"
            )
        if len(self.further) > _MOST - _LEAST - 1:
            raise FormatError(
                f"registers: {_LEAST + 1 + len(self.further)} values; the DAQ delivers up to {_MOST}"
            )
        columns = self.read_cols + self.read_cols2
        if columns < 1 or self.read_rows < 1:
            raise FormatError(
                f"registers: ReadCols {self.read_cols}, ReadCols2 {self.read_cols2} and ReadRows "
                f"{self.read_rows} read no light-sensitive pixel; give at least one column and one row"
            )
        if self.width > _MAX_SIDE or self.height > _MAX_SIDE or self.width * self.height > MAX_PIXELS:
            raise FormatError(
                f"registers: a segment of {self.width} x {self.height} pixels cannot be meant; there are "
                f"at most {_MAX_SIDE} a side and {MAX_PIXELS} in all"
            )

    def _named(self) -> Iterator[tuple[str, int]]:
        for name, label in _NAMES.items():
            yield label, getattr(self, name)
        if self.op_flags is not None:
            yield "OpFlags", self.op_flags
        yield from (("a register after OpFlags", value) for value in self.further)

    @property
    def width(self) -> int:
        """Columns of the image of a segment (NAXIS1)."""
        return self.under_cols + self.read_cols + self.read_cols2 + self.over_cols

    @property
    def height(self) -> int:
        """Rows of the image of a segment (NAXIS2)."""
        return self.read_rows + self.over_rows

    @property
    def pixels(self) -> int:
        """Pixels of a segment: samples of the stream."""
        return self.width * self.height

    @property
    def geometry(self) -> Geometry:
        """The shape of a segment as the camera package wants it."""
        return Geometry(
            prescan=self.under_cols,
            columns=self.read_cols + self.read_cols2,
            overscan=self.over_cols,
            rows=self.read_rows,
            parallel_overscan=self.over_rows,
        )

    @classmethod
    def parse(cls, values: list[int] | tuple[int, ...]) -> Registers:
        """From the DAQ's list, in its order since 2020: 10 to 16 values, the first eleven of them named.

        Raises FormatError for another number of values (the nine of the order before 2020 lack UnderCols and
        are refused), and for values that no readout can have.
        """
        given: object = values
        if not isinstance(given, list | tuple):
            raise FormatError(
                f"registers: {type(given).__name__} is no list; give {_LEAST} to {_MOST} numbers"
            )
        if not _LEAST <= len(values) <= _MOST:
            old = " (nine are the order before 2020, which lacks UnderCols)" if len(values) == 9 else ""
            raise FormatError(
                f"registers: {len(values)} values{old}; give {', '.join(_NAMES.values())} and OpFlags, in "
                "this order"
            )
        counts = dict(zip(_NAMES, values[:_LEAST], strict=True))
        op_flags = values[_LEAST] if len(values) > _LEAST else None
        return cls(**counts, op_flags=op_flags, further=tuple(values[_LEAST + 1 :]))

    @classmethod
    def of_geometry(cls, geometry: Geometry, op_flags: int | None = None) -> Registers:
        """Registers that read out segments of a geometry."""
        return cls(
            under_cols=geometry.prescan,
            pre_cols=0,
            read_cols=geometry.columns,
            post_cols=0,
            read_cols2=0,
            over_cols=geometry.overscan,
            pre_rows=0,
            read_rows=geometry.rows,
            post_rows=0,
            over_rows=geometry.parallel_overscan,
            op_flags=op_flags,
        )

    def as_list(self) -> list[int]:
        """The values in the DAQ's order, as many as were given."""
        return [value for _, value in self._named()]


def _check_value(name: str, value: object) -> None:
    if type(value) is not int:
        raise FormatError(f"registers: {name} is a {type(value).__name__}; give a whole number")
    if not 0 <= value <= _MAX_REGISTER:
        shown = value if abs(value) < 10**20 else "out of all measure"
        raise FormatError(f"registers: {name} is {shown}; a register is from 0 to {_MAX_REGISTER}")


UNKNOWN = Registers(0, 0, 1, 0, 0, 0, 0, 1, 0, 0)
"""Stands for registers that nobody delivered. They say one pixel, and no shape is taken from them."""
