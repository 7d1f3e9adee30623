"""From the entries of a camera file: detector types, and the segments of each detector."""

from __future__ import annotations

import math
from collections.abc import Mapping

from raftwright.camera.document import Findings, Place, shown
from raftwright.camera.model import DetectorType, Segment, SegmentPlace
from raftwright.camera.schema import AmplifierEntry, DetectorTypeEntry

__all__ = ["build_detector_types", "build_segments"]

_MAX_SEGMENTS = 256


def build_detector_types(
    entries: Mapping[str, DetectorTypeEntry], findings: Findings
) -> dict[str, DetectorType]:
    """Detector types by name; contradictions are noted in `findings`."""
    return {name: _detector_type(name, entry, findings) for name, entry in entries.items()}


def _detector_type(name: str, entry: DetectorTypeEntry, findings: Findings) -> DetectorType:
    place: Place = ("detector_types", name)
    geometry = entry.geometry
    if geometry.width > 65535 or geometry.height > 65535:
        size = f"{geometry.width} x {geometry.height}"
        findings.add((*place, "geometry"), f"a segment of {size} pixels; each side may have 65535 at most")
    header_tiles = entry.detsec_tiles or entry.tiles
    segments = tuple(
        SegmentPlace(
            name=segment_name,
            amp=segment.amp,
            index=index,
            ix=segment.tile[0],
            iy=segment.tile[1],
            flip_x="x" in segment.flip,
            flip_y="y" in segment.flip,
            header_ix=(segment.detsec or segment.tile)[0],
            header_iy=(segment.detsec or segment.tile)[1],
        )
        for index, (segment_name, segment) in enumerate(entry.segments.items())
    )
    _check_segments(segments, place, findings)
    _check_tiles(
        {s.name: (s.ix, s.iy) for s in segments}, entry.tiles, (*place, "segments"), "tile", findings
    )
    described = {s.name: (s.header_ix, s.header_iy) for s in segments}
    if entry.detsec_tiles is not None or any(s.detsec is not None for s in entry.segments.values()):
        _check_tiles(described, header_tiles, (*place, "segments"), "detsec", findings)
    if 0 < len(segments) < entry.tiles[0] * entry.tiles[1]:
        wanted = f"{entry.tiles[0]} x {entry.tiles[1]}"
        findings.add(
            (*place, "tiles"), f"{len(segments)} segments do not fill {wanted} tiles; mend one of them"
        )
    return DetectorType(
        name=name,
        vendor=entry.vendor,
        ccd_manu=entry.ccd_manu,
        ccd_type=entry.ccd_type,
        pixel_um=entry.pixel_um,
        op_flags=entry.op_flags,
        geometry=geometry,
        tiles=entry.tiles,
        header_tiles=header_tiles,
        segments=segments,
        chip=entry.chip,
    )


def _check_segments(segments: tuple[SegmentPlace, ...], place: Place, findings: Findings) -> None:
    if not 1 <= len(segments) <= _MAX_SEGMENTS:
        findings.add((*place, "segments"), f"{len(segments)} segments; a detector has 1 to {_MAX_SEGMENTS}")
    owner: dict[str, str] = {}
    for segment in segments:
        for name in (segment.name, segment.amp):
            if owner.setdefault(name, segment.name) != segment.name:
                findings.add(
                    (*place, "segments", segment.name),
                    f"name {name!r} is also that of {owner[name]}; give each segment and amplifier its own",
                )


def _check_tiles(
    tiles: Mapping[str, tuple[int, int]],
    size: tuple[int, int],
    place: Place,
    key: str,
    findings: Findings,
) -> None:
    taken: dict[tuple[int, int], str] = {}
    for name, (ix, iy) in tiles.items():
        if ix >= size[0] or iy >= size[1]:
            findings.add(
                (*place, name, key), f"({ix}, {iy}) is outside {size[0]} x {size[1]} tiles, counted from 0"
            )
        elif taken.setdefault((ix, iy), name) != name:
            findings.add((*place, name, key), f"({ix}, {iy}) is taken by {taken[ix, iy]}; move one of them")


def build_segments(
    kind: DetectorType, entry: AmplifierEntry, place: Place, findings: Findings
) -> tuple[Segment, ...]:
    """The segments of a detector with what its amplifier entry says of them."""
    count = len(kind.segments)
    gains = _numbers(entry.gain, count, (*place, "gain"), True, findings)
    noises = _numbers(entry.read_noise, count, (*place, "read_noise"), False, findings)
    levels = _numbers(entry.saturation, count, (*place, "saturation"), True, findings)
    return tuple(
        Segment(
            s.name,
            s.amp,
            s.index,
            s.ix,
            s.iy,
            s.flip_x,
            s.flip_y,
            s.header_ix,
            s.header_iy,
            gain,
            noise,
            level,
        )
        for s, gain, noise, level in zip(kind.segments, gains, noises, levels, strict=True)
    )


def _numbers(text: str, count: int, place: Place, positive: bool, findings: Findings) -> list[float]:
    """A row of numbers: one for each segment, or one for all of them."""
    words = text.split()
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        findings.add(place, f"{shown(text)} is not a row of numbers; write them separated by blanks")
        return [1.0] * count
    if len(numbers) == 1:
        numbers *= count
    if len(numbers) != count:
        findings.add(place, f"{len(numbers)} numbers for {count} segments; give one each, or one for all")
        return [1.0] * count
    for word, number in zip(words, numbers, strict=False):
        if not (math.isfinite(number) and (number > 0 if positive else number >= 0) and number <= 1e9):
            wanted = "more than 0" if positive else "0 or more"
            findings.add(place, f"{shown(word)} cannot be; it must be {wanted}, and 1e9 at most")
            break
    return numbers
