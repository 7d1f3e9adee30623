"""Header documents: built by a specification from what was collected of an image."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from raftwright import _core
from raftwright.header.checks import (
    Problem,
    check_clocks,
    check_identity,
    check_minimum,
    check_ranges,
    check_times,
    lacking,
)
from raftwright.header.collected import Collected, tai_seconds
from raftwright.header.emit import Line, header_text
from raftwright.header.evaluation import Evaluation, Target
from raftwright.rawfile import times
from raftwright.rawfile.cards import Notes

if TYPE_CHECKING:
    from raftwright.camera import Camera
    from raftwright.header.spec import Section, Spec
    from raftwright.rawfile.cards import Value
    from raftwright.rawfile.names import ImageName

__all__ = ["BuiltHeader", "HeaderState", "build_header"]

HeaderState: TypeAlias = Literal["complete", "partial"]
"""`partial`: written at the deadline, before all of its telemetry had come."""

_MOST_LACKING: Final = 600
"""Characters of the card that lists what is lacking."""


@dataclass(frozen=True)
class BuiltHeader:
    """A header document and what there is to say of it."""

    name: ImageName
    data: bytes
    state: HeaderState
    version: int
    created: int
    """DATE: nanoseconds TAI."""
    values: Mapping[str, Value]
    """Of PRIMARY."""
    problems: tuple[Problem, ...]
    lacking: tuple[str, ...]
    """Mandatory keywords without a value."""
    groups: Mapping[str, list[str]]
    """Groups of the least metadata that are not whole, with what they lack."""
    records: int
    nulls: int
    counts: Mapping[str, int]
    """Values that were not what they should be, by reason."""
    end_readout: float | None = None
    """End of the readout, in seconds TAI."""

    @cached_property
    def crc32c(self) -> str:
        """8 hexadecimal digits."""
        return f"{_core.crc32c(self.data):08x}"

    @cached_property
    def md5(self) -> str:
        """Hexadecimal, as the observatory announces it."""
        return hashlib.md5(self.data, usedforsecurity=False).hexdigest()


def build_header(
    spec: Spec, image: Collected, *, created: int | None = None, version: int = 1
) -> BuiltHeader:
    """Builds the document of an image. The same arguments give the same bytes.

    Whatever is missing, not finite or of the wrong type is null and counted; nothing of an image can make
    this fail.
    """
    created = times.now() if created is None else created
    state: HeaderState = "complete" if image.complete else "partial"
    service: dict[str, Value] = {"created": times.iso(created), "version": version, "state": state}
    build = _Build(spec, image, service)
    primary = build.section(spec.primary(), Target())
    values = build.primary
    missing = lacking(spec, values)
    service.update(lacking=" ".join(missing)[:_MOST_LACKING] or None, nulls=build.nulls)
    build.settle(spec.primary(), primary)
    sections: list[tuple[str, list[Line]]] = [("PRIMARY", primary)]
    for section in spec.sections:
        if section.name != "PRIMARY":
            sections += build.sections(section)
    problems = [
        *build.problems,
        *check_identity(image.name, image),
        *check_times(values),
        *check_clocks(image),
        *check_ranges(spec, values),
        *(Problem("collecting", "", note) for note in image.notes),
    ]
    data = header_text(sections, _head(image, state, version))
    return BuiltHeader(
        name=image.name,
        data=data,
        state=state,
        version=version,
        created=created,
        values=values,
        problems=tuple(problems),
        lacking=tuple(missing),
        groups=check_minimum(spec, values),
        records=sum(len(lines) for _, lines in sections),
        nulls=build.nulls,
        counts=dict(build.counts),
        end_readout=tai_seconds(image.get("endReadout", "timestampEndOfReadout")),
    )


def _head(image: Collected, state: HeaderState, version: int) -> str:
    return f"header of {image.name}, {state}, version {version}"


class _Build:
    def __init__(self, spec: Spec, image: Collected, service: Mapping[str, Value]) -> None:
        self._camera: Camera = spec.camera
        self._evaluation = Evaluation(spec.camera, image, service)
        self.primary: dict[str, Value] = {}
        self.problems: list[Problem] = []
        self.counts: Counter[str] = Counter()
        self.nulls = 0

    def section(self, section: Section, target: Target) -> list[Line]:
        values: dict[str, Value] = self.primary if section.name == "PRIMARY" else {}
        lines: list[Line] = []
        for group in section.groups:
            found: list[Line] = []
            for card in group.cards:
                value, complaint = self._evaluation.value(card, target, values)
                values[card.keyword] = value
                if complaint and not (card.occasional and complaint == "missing"):
                    self._complain(card.keyword, complaint, section.name)
                if value is None and card.occasional:
                    continue
                self.nulls += value is None
                found.append((card.keyword, value, card.comment))
            if found and group.title:
                lines.append((None, None, f"---- {group.title} ----"))
            lines += found
        return lines

    def settle(self, section: Section, lines: list[Line]) -> None:
        """Fills in what is known only when the section is done."""
        own = {
            card.keyword: card
            for card in section.cards()
            if any(s.kind == "service" and s.name in ("lacking", "nulls") for s in card.sources)
        }
        if not own:
            return
        for keyword, card in own.items():
            value, _ = self._evaluation.value(card, Target(), self.primary)
            if value is None:
                continue
            self.primary[keyword] = value
            at = next((n for n, line in enumerate(lines) if line[0] == keyword), None)
            if at is None:
                lines.append((keyword, value, card.comment))
            else:
                lines[at] = (keyword, value, card.comment)

    def sections(self, section: Section) -> Iterator[tuple[str, list[Line]]]:
        """The section, or one for each of what it is for."""
        if section.each == "image":
            yield section.name, self.section(section, Target())
        elif section.each == "board":
            for board in self._camera.boards.values():
                target = Target(board=board)
                name = section.name.format(raft=board.raft, board=board.name)
                yield name, self.section(section, target)
        else:
            for board in self._camera.boards.values():
                for detector in board.detectors:
                    places = {"raft": detector.header_raft, "slot": detector.header_slot}
                    if section.each == "ccd":
                        target = Target(board, detector)
                        yield section.name.format(**places), self.section(section, target)
                        continue
                    for segment in detector.segments:
                        target = Target(board, detector, segment)
                        name = section.name.format(segment=segment.name, **places)
                        yield name, self.section(section, target)

    def _complain(self, keyword: str, complaint: str, section: str) -> None:
        self.counts[complaint] += 1
        if complaint in ("missing", "stale") or len(self.problems) >= Notes.LIMIT:
            return
        where = "" if section == "PRIMARY" else f" in {section}"
        self.problems.append(Problem(complaint, keyword, _WORDS.get(complaint, complaint) + where))


_WORDS: Final = {
    "nan": "is not a finite number; written as null",
    "wrong_type": "is not of the type of its card; written as null",
    "illegal_characters": "has characters that are not printable ASCII; they were replaced by '?'",
    "too_long": "is too long and was cut",
}
