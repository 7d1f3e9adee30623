"""What a header document consists of: sections, groups and cards, and where each value comes from.

Read from specification files by `raftwright.header.spec_file`; nothing here can be changed afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from raftwright.camera import Camera
    from raftwright.rawfile.cards import Value

__all__ = [
    "EVENTS",
    "CardSpec",
    "CardType",
    "Each",
    "Group",
    "Mandatory",
    "Over",
    "Rule",
    "Section",
    "Source",
    "Spec",
]

CardType: TypeAlias = Literal["string", "integer", "float", "boolean", "date", "mjd"]
Mandatory: TypeAlias = Literal["no", "always", "sky"]
"""`sky`: for images that see the sky (by their IMGTYPE)."""
Rule: TypeAlias = Literal["first", "last", "min", "max", "mean"]
Over: TypeAlias = Literal["start", "end", "exposure"]
"""Telemetry at the start of the integration, at its end, or all that came between the two."""
Each: TypeAlias = Literal["image", "ccd", "board", "segment"]

EVENTS: Final = (
    "startIntegration",
    "startReadout",
    "endReadout",
    "endOfImageTelemetry",
    "imageReadoutParameters",
)
"""Kinds of events that make up an image, in the order in which they are expected."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value comes from. `kind` says which of the other fields count."""

    kind: Literal[
        "event", "telemetry", "camera", "ccd", "board", "segment", "name", "daq", "constant", "environment",
        "service", "mjd",
    ]  # fmt: skip
    name: str
    """Event kind, telemetry topic, attribute, constant, variable or keyword."""
    field: str = ""
    """Of an event or a telemetry topic."""
    key: str = ""
    """The value that stands beside this key in the event's `additionalKeys` and `additionalValues`."""
    index: int | None = None
    """Of a list: this entry."""
    by: Literal["", "ccd", "board"] = ""
    """Of a list: the entry of this CCD or board; `names` are the fields that say whose each entry is."""
    names: tuple[str, ...] = ()
    rule: Rule = "last"
    over: Over = "start"
    max_age: float | None = None
    """Seconds before the moment after which a sample no longer counts; None: it holds until the next one."""
    scale: float = 1.0
    offset: float = 0.0
    words: Mapping[str, str] | None = None
    """What numbers (or words) stand for."""

    def __str__(self) -> str:
        parts = [self.kind, self.name]
        if self.field:
            parts[-1] += f".{self.field}"
        if self.key:
            parts.append(f"key {self.key}")
        if self.index is not None:
            parts.append(f"[{self.index}]")
        if self.by:
            parts.append(f"by {self.by}")
        if self.kind == "telemetry":
            parts.append(f"{self.rule} over {self.over}" if self.over == "exposure" else f"at {self.over}")
        return " ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class CardSpec:
    """One card."""

    keyword: str
    """Canonical: upper case, words separated by one blank."""
    type: CardType
    sources: tuple[Source, ...]
    """The first that gives a value counts."""
    default: Value = None
    comment: str = ""
    mandatory: Mandatory = "no"
    low: float | None = None
    high: float | None = None
    occasional: bool = False
    """Left out where it has no value; the others are null then."""


@dataclass(frozen=True, slots=True)
class Group:
    """Cards under a title; without one where the title is empty."""

    title: str
    cards: tuple[CardSpec, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the document, or with `each` one for every CCD, board or segment of the camera."""

    name: str
    """With `{raft}`, `{slot}`, `{board}`, `{segment}` filled in."""
    each: Each
    groups: tuple[Group, ...]

    def cards(self) -> Iterator[CardSpec]:
        """All of its cards, in order."""
        for group in self.groups:
            yield from group.cards


@dataclass(frozen=True, eq=False)
class Spec:
    """A specification: what a header document of a camera has in it."""

    name: str
    file: str
    camera: Camera
    sections: tuple[Section, ...]
    minimum: Mapping[str, tuple[str, ...]]
    """The least metadata by group: keywords that every image should have a value for."""
    fields: Mapping[str, frozenset[str]]
    """Of each telemetry topic that is used, the fields that are."""

    def cards(self) -> Iterator[CardSpec]:
        """All cards of all sections."""
        for section in self.sections:
            yield from section.cards()

    def primary(self) -> Section:
        """The section of every file."""
        return next(section for section in self.sections if section.name == "PRIMARY")
