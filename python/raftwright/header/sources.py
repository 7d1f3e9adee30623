"""The source of a card as a specification file writes it: one mapping with one of these keys.

event: startIntegration   field: exposureTime | key: imageType
telemetry: MTMount.azimuth   value: actualPosition   over: start|end|exposure   rule: first|last|min|max|mean
camera: instrume          also telescop, name, code, constants.PLATFORM
ccd: serial               of the CCD of the section; also slot, raft, ccd_manu, ccd_type, vendor, ...
board: path               of the board; segment: gain
name: dayobs              part of the image name: obsid, camcode, controller, dayobs, seqnum
daq: id                   what the DAQ says: id, timestamp, folder, annotation, firmware, ... of the source
constant: FK5
environment: SITE         variable of the service's environment
service: created          of the document: created, version, state, lacking, nulls
mjd: DATE-OBS             Modified Julian Date of another card
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from raftwright.camera.schema import like
from raftwright.header.spec import EVENTS, Each, Over, Rule, Source
from raftwright.rawfile.cards import canonical_keyword

__all__ = ["ANY_EVENT", "SourceEntry", "as_source", "source_problem"]

ANY_EVENT: Final = "any"
"""An event kind that stands for all of an image's events: the latest in their order that has the field."""

MAX_AGE: Final = 300.0
"""Seconds; for telemetry where the file says nothing."""

_Text: TypeAlias = Annotated[str, Meta(max_length=200)]
_Field: TypeAlias = Annotated[str, like(r"^[A-Za-z_][A-Za-z0-9_.]{0,63}\Z", "the name of a field")]
_TOPIC = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}(:[0-9]{1,4})?(\.[A-Za-z0-9_]{1,63})+\Z")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z")
_AGE = re.compile(r"[0-9]{1,7}(\.[0-9]*)?\Z")

_KINDS: Final = (
    "event", "telemetry", "camera", "ccd", "board", "segment", "name", "daq", "constant", "environment",
    "service", "mjd",
)  # fmt: skip
_CAMERA: Final = frozenset({"name", "title", "instrume", "telescop", "code"})
_CCD: Final = frozenset(
    {
        *("id", "name", "raft", "slot", "kind", "serial", "raft_serial", "header_raft", "header_slot"),
        *("x_mm", "y_mm", "yaw_deg", "board", "location", "vendor", "ccd_manu", "ccd_type", "type"),
    }
)
_BOARD: Final = frozenset({"name", "raft", "location", "kind", "path"})
_SEGMENT: Final = frozenset({"name", "amp", "index", "gain", "read_noise", "saturation"})
_NAME: Final = frozenset({"obsid", "camcode", "controller", "dayobs", "seqnum"})
_DAQ: Final = frozenset({"id", "timestamp", "folder", "annotation", "opcode"})
_DAQ_SOURCE: Final = frozenset({"firmware", "serial", "platform", "software"})
_SERVICE: Final = frozenset({"created", "version", "state", "lacking", "nulls"})
_LEVELS: Final[dict[Each, int]] = {"image": 0, "board": 1, "ccd": 2, "segment": 3}


class SourceEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The mapping under `from` or `else`."""

    event: str = ""
    telemetry: str = ""
    camera: _Text = ""
    ccd: _Text = ""
    board: _Text = ""
    segment: _Text = ""
    name: _Text = ""
    daq: _Text = ""
    constant: _Text | None = None
    environment: Annotated[str, like(r"^([A-Za-z_][A-Za-z0-9_]{0,63})?\Z", "the name of a variable")] = ""
    service: _Text = ""
    mjd: _Text = ""
    field: str = ""
    value: str = ""
    key: _Text = ""
    index: Annotated[int, Meta(ge=0, le=4095)] | None = None
    by: Literal["", "ccd", "board"] = ""
    names: list[_Field] = []
    rule: Rule = "last"
    over: Over = "start"
    max_age: str = ""
    scale: float = 1.0
    offset: float = 0.0
    words: dict[str, str] | None = None


def source_problem(entry: SourceEntry, each: Each) -> str | None:
    """What is wrong with a source in a section of this kind; None where nothing is."""
    kinds = [kind for kind in _KINDS if getattr(entry, kind) not in ("", None)]
    if len(kinds) != 1:
        return (
            f"a source is one of {', '.join(_KINDS)}; {'none' if not kinds else ' and '.join(kinds)} is given"
        )
    kind = kinds[0]
    name = getattr(entry, kind)
    problem = _part_problem(kind, name, each, entry)
    if problem is None and entry.by:
        wanted = 2 if entry.by == "ccd" else 1
        if _LEVELS[each] < wanted:
            problem = f"`by: {entry.by}` needs a section `each: {entry.by}`; this one is each {each}"
        elif kind not in ("event", "telemetry") or not entry.names:
            problem = "`by` needs an event or telemetry with `names`: the fields that say whose each entry is"
    return problem


def _part_problem(kind: str, name: str, each: Each, entry: SourceEntry) -> str | None:
    if kind == "event":
        if name not in (*EVENTS, ANY_EVENT):
            return f"{name[:40]!r} is no event of an image; there are {', '.join(EVENTS)} and {ANY_EVENT}"
        if bool(entry.field) == bool(entry.key):
            return "an event needs `field`, or `key` for an entry of its additionalKeys"
        if entry.field and not _WORD.match(entry.field):
            return f"{entry.field[:40]!r} cannot be a field"
    elif kind == "telemetry":
        if not _TOPIC.match(name):
            return f"{name[:40]!r} is no topic; write DEVICE.topic or DEVICE:1.topic"
        if entry.value and not _WORD.match(entry.value):
            return f"{entry.value[:40]!r} cannot be a field"
        if not entry.value:
            return "telemetry needs `value`: the name of the field in the topic"
        if entry.max_age not in ("", "none") and not _AGE.match(entry.max_age):
            return f"max_age is {entry.max_age[:20]!r}; give seconds, or none"
    elif kind == "camera" and name.startswith("constants."):
        return None
    elif kind == "mjd":
        return None if canonical_keyword(name) else f"{name[:40]!r} cannot be a keyword"
    known = {"camera": _CAMERA, "ccd": _CCD, "board": _BOARD, "segment": _SEGMENT, "name": _NAME}.get(kind)
    known = {"daq": _DAQ | _DAQ_SOURCE, "service": _SERVICE}.get(kind, known)
    if known is not None and name not in known:
        return f"{name[:40]!r} is not known of {kind}; there are {', '.join(sorted(known))}"
    level = {"board": 1, "ccd": 2, "segment": 3}.get(kind, 1 if kind == "daq" and name in _DAQ_SOURCE else 0)
    if _LEVELS[each] < level:
        return f"this is known of one {('board', 'ccd', 'segment')[level - 1]} only, not of each {each}"
    return None


def as_source(entry: SourceEntry) -> Source:
    """The source that an entry without problems stands for."""
    kind = next(kind for kind in _KINDS if getattr(entry, kind) not in ("", None))
    name = getattr(entry, kind)
    if kind == "mjd":
        name = canonical_keyword(name)
    age: float | None = None
    if kind == "telemetry" and entry.max_age != "none":
        age = float(entry.max_age) if entry.max_age else MAX_AGE
    return Source(
        kind=kind,  # type: ignore[arg-type]
        name=name,
        field=entry.value if kind == "telemetry" else entry.field,
        key=entry.key,
        index=entry.index,
        by=entry.by,
        names=tuple(entry.names),
        rule=entry.rule,
        over=entry.over,
        max_age=age,
        scale=entry.scale,
        offset=entry.offset,
        words=entry.words,
    )
