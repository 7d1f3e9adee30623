"""Specification files, format `raftwright-header-spec/1`: reading, checking, one over another.

A file may stand on a base (`base: common`): what it says of a section, a group or a card goes over what the
base says, attribute by attribute. Unknown keys, sources that cannot be, ranges without a number are refused
with their line; every problem of a file is found in one go.
"""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from raftwright.camera import camera as find_camera
from raftwright.camera.document import MAX_BYTES, CameraFileError, Document, Findings, Place, Problem, shown
from raftwright.camera.schema import find_misfits, like
from raftwright.errors import CameraError, FormatError, NotFoundError, StorageError
from raftwright.header.conversion import read_text
from raftwright.header.sources import SourceEntry, as_source, source_problem
from raftwright.header.spec import CardSpec, CardType, Each, Group, Mandatory, Section, Spec
from raftwright.rawfile.cards import canonical_keyword
from raftwright.rawfile.reserved import is_structural

if TYPE_CHECKING:
    from raftwright.camera import Camera

__all__ = ["FORMAT", "SpecError", "check_spec_file", "header_spec", "spec_names"]

FORMAT: Final = "raftwright-header-spec/1"
_DEEPEST: Final = 4
"""Files that may stand on one another."""

_Name: TypeAlias = Annotated[
    str, like(r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,31}\Z", "letters, digits and _ . + -, 32 at most")
]
_Title: TypeAlias = Annotated[str, like(r"^[ -~]{0,60}\Z", "printable ASCII, 60 characters at most")]
_Comment: TypeAlias = Annotated[str, like(r"^[ -~]{0,68}\Z", "printable ASCII, 68 characters at most")]
_Range: TypeAlias = Annotated[
    str,
    like(
        r"^(?=.*[0-9])([-+]?[0-9][0-9.eE+-]*?)?\.\.([-+]?[0-9][0-9.eE+-]*)?\Z",
        "a range such as 0..90, 0.. or ..90",
    ),
]
_Section: TypeAlias = Annotated[
    str, like(r"^[A-Za-z0-9_{}]{1,60}\Z", "a section name such as PRIMARY or {raft}{slot}_PRIMARY")
]


class CardEntry(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"source": "from", "otherwise": "else"}
):
    """One card of a file; what is left out is as the base has it."""

    type: CardType | UnsetType = UNSET
    source: SourceEntry | UnsetType = UNSET
    otherwise: SourceEntry | UnsetType = UNSET
    default: str | UnsetType = UNSET
    comment: _Comment | UnsetType = UNSET
    mandatory: Mandatory | UnsetType = UNSET
    range: _Range | UnsetType = UNSET
    occasional: Literal["yes", "no"] | UnsetType = UNSET


class GroupEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Cards under a title."""

    title: _Title | UnsetType = UNSET
    cards: dict[str, CardEntry] = {}


class SectionEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A section of the document."""

    each: Each | UnsetType = UNSET
    groups: dict[_Name, GroupEntry] = {}


class SpecEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole file."""

    format: Literal["raftwright-header-spec/1"]
    name: _Name
    base: Annotated[str, Meta(max_length=1024)] = ""
    camera: Annotated[str, Meta(max_length=1024)] = ""
    sections: dict[_Section, SectionEntry] = {}
    drop: list[str] = []
    minimum: dict[_Name, list[str]] = {}


# Known from here on: two threads that are the first to convert to a type at the same time crash msgspec.
msgspec.json.Decoder(SpecEntry, strict=False)


class SpecError(FormatError):
    """A specification that cannot be used; `problems` says all that is wrong, the message the first."""

    def __init__(self, problems: list[Problem]) -> None:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"{problems[0]}{more}")
        self.problems = problems


@functools.cache
def _built_in() -> dict[str, Path]:
    return {path.stem: path for path in sorted(Path(__file__).with_name("specs").glob("*.yaml"))}


def spec_names() -> tuple[str, ...]:
    """Names of the built-in specifications: those of cameras, not the base that they stand on."""
    return tuple(name for name in _built_in() if name[0].isupper())


def header_spec(name_or_path: str | os.PathLike[str]) -> Spec:
    """A specification: that of a built-in camera by its name, or from a file.

    Raises
    ------
    NotFoundError
        No such name or file.
    SpecError
        The file contradicts itself; with its line.
    StorageError
        It cannot be read.
    """
    path = _path(name_or_path)
    found = Reader()
    spec = found.read(path)
    if spec is None:
        raise SpecError(found.problems)
    return spec


def check_spec_file(path: str | os.PathLike[str]) -> list[Problem]:
    """Everything that is wrong with a specification file. Raises NotFoundError, StorageError."""
    found = Reader()
    found.read(_path(path))
    return found.problems


def _path(name: str | os.PathLike[str]) -> Path:
    text = os.fspath(name)
    if isinstance(name, str) and os.sep not in text and not text.lower().endswith((".yaml", ".yml")):
        known = {key.lower(): path for key, path in _built_in().items()}
        if text.lower() not in known:
            raise NotFoundError(
                f"no header specification {text[:40]!a} is built in; there are {', '.join(spec_names())}, "
                "or give a file (*.yaml)"
            )
        return known[text.lower()]
    return Path(text)


def _read(path: Path) -> str:
    try:
        with open(path, "rb", opener=lambda p, f: os.open(p, f | os.O_NONBLOCK | os.O_CLOEXEC)) as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise SpecError([Problem(str(path), None, "", "not a regular file; give the path of one")])
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise NotFoundError(f"{path}: there is no such header specification; give the path of one") from None
    except (OSError, ValueError) as error:
        number, reason = (error.errno, error.strerror) if isinstance(error, OSError) else (None, str(error))
        raise StorageError(number, f"header specification cannot be read ({reason})", str(path)) from error
    if len(data) > MAX_BYTES:
        raise SpecError([Problem(str(path), None, "", f"larger than {MAX_BYTES} bytes; that is none")])
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SpecError([Problem(str(path), line, "", "not UTF-8; save it as UTF-8 text")]) from None


class _Layer:
    """One file: its entries, and where they stand."""

    def __init__(self, findings: Findings, entry: SpecEntry) -> None:
        self.findings = findings
        self.entry = entry


class Reader:
    """Reads a specification and those it stands on, and gathers what is wrong with them."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def read(self, path: Path) -> Spec | None:
        """The specification; None where there are problems."""
        try:
            layers = self._layers(path)
            if layers is None:
                return None
            spec = self._build(layers, path)
        except SpecError as error:
            self.problems += error.problems
            return None
        except CameraFileError as error:
            self.problems += error.problems
            return None
        for layer in layers:
            self.problems += layer.findings.problems
        return None if self.problems else spec

    def _layers(self, path: Path) -> list[_Layer] | None:
        """The file and its bases, the lowest first."""
        layers: list[_Layer] = []
        at: Path | None = path
        while at is not None:
            findings = Findings(Document(str(at), _read(at)))
            value = findings.document.value
            try:
                entry = msgspec.convert(value, SpecEntry, strict=False)
            except msgspec.ValidationError as error:
                before = len(findings.problems)
                find_misfits(findings, value, SpecEntry, ())
                if len(findings.problems) == before:
                    findings.add((), str(error))
                self.problems += findings.problems
                return None
            layers.insert(0, _Layer(findings, entry))
            if len(layers) > _DEEPEST:
                findings.add(("base",), f"more than {_DEEPEST} files stand on one another; flatten them")
                self.problems += findings.problems
                return None
            at = self._base(at, entry, findings)
        return layers

    @staticmethod
    def _base(at: Path, entry: SpecEntry, findings: Findings) -> Path | None:
        if not entry.base:
            return None
        if entry.base in _built_in():
            return _built_in()[entry.base]
        path = at.parent / entry.base
        if not path.is_file():
            findings.add(("base",), f"{shown(entry.base)} is neither built in nor a file beside this one")
            return None
        return path

    def _build(self, layers: list[_Layer], path: Path) -> Spec | None:
        top = layers[-1]
        camera = self._camera(layers)
        dropped = {keyword for layer in layers for keyword in self._dropped(layer)}
        sections = tuple(self._sections(layers, dropped))
        if not any(section.name == "PRIMARY" for section in sections):
            top.findings.add(("sections",), "there is no section PRIMARY; add it, or `base: common`")
        minimum = self._minimum(layers, sections, dropped)
        if camera is None:
            return None
        used: dict[str, set[str]] = {}
        for section in sections:
            for card in section.cards():
                for source in card.sources:
                    if source.kind == "telemetry":
                        used.setdefault(source.name, set()).update((source.field, *source.names))
        fields = {topic: frozenset(names) for topic, names in used.items()}
        return Spec(top.entry.name, str(path), camera, sections, minimum, fields)

    @staticmethod
    def _camera(layers: list[_Layer]) -> Camera | None:
        for layer in reversed(layers):
            if layer.entry.camera:
                name = layer.entry.camera
                beside = Path(layer.findings.document.file).parent / name
                try:
                    return find_camera(beside if name.endswith((".yaml", ".yml")) else name)
                except (CameraError, NotFoundError, StorageError) as error:
                    layer.findings.add(("camera",), str(error))
                    return None
        layers[-1].findings.add(("camera",), "no camera is named; add `camera: NAME` or a camera file")
        return None

    @staticmethod
    def _dropped(layer: _Layer) -> Iterator[str]:
        for n, text in enumerate(layer.entry.drop):
            keyword = canonical_keyword(text)
            if keyword is None:
                layer.findings.add(("drop", n), f"{shown(text)} cannot be a keyword; remove it")
            else:
                yield keyword

    def _sections(self, layers: list[_Layer], dropped: set[str]) -> Iterator[Section]:
        for name in dict.fromkeys(name for layer in layers for name in layer.entry.sections):
            known: set[str] = set()
            parts = [layer.entry.sections.get(name, SectionEntry()) for layer in layers]
            each = _last((part.each for part in parts), "image")
            _check_section(layers, name, each)
            groups = []
            for group in dict.fromkeys(group for part in parts for group in part.groups):
                entries = [part.groups.get(group, GroupEntry()) for part in parts]
                place: Place = ("sections", name, "groups", group)
                cards = tuple(self._cards(layers, entries, place, each, dropped, known))
                if cards:
                    groups.append(Group(_last((entry.title for entry in entries), ""), cards))
            if groups:
                yield Section(name, each, tuple(groups))

    def _cards(
        self,
        layers: list[_Layer],
        entries: list[GroupEntry],
        place: Place,
        each: Each,
        dropped: set[str],
        known: set[str],
    ) -> Iterator[CardSpec]:
        """Cards of a group; `known` are those before them in the section."""
        merged: dict[str, list[tuple[_Layer, str, CardEntry]]] = {}
        for layer, group in zip(layers, entries, strict=True):
            for text, entry in group.cards.items():
                keyword = canonical_keyword(text)
                if keyword is None:
                    layer.findings.add((*place, "cards", text), "cannot be a keyword; rename it")
                elif is_structural(keyword):
                    layer.findings.add((*place, "cards", text), "describes the file itself; remove it")
                else:
                    merged.setdefault(keyword, []).append((layer, text, entry))
        for keyword, found in merged.items():
            if keyword not in dropped:
                card = _card(keyword, found, (*place, "cards"), each)
                if card is None:
                    continue
                layer, text, _ = found[-1]
                here: Place = (*place, "cards", text)
                if keyword in known:
                    layer.findings.add(here, "stands in two groups of its section; remove one of them")
                for source in card.sources:
                    if source.kind == "mjd" and source.name not in known:
                        layer.findings.add(here, f"{source.name} is no card before it; put it there")
                known.add(keyword)
                yield card

    @staticmethod
    def _minimum(
        layers: list[_Layer], sections: Iterable[Section], dropped: set[str]
    ) -> dict[str, tuple[str, ...]]:
        known = {
            card.keyword for section in sections if section.name == "PRIMARY" for card in section.cards()
        }
        minimum: dict[str, tuple[str, ...]] = {}
        places: dict[str, _Layer] = {}
        for layer in layers:
            for group, keywords in layer.entry.minimum.items():
                minimum[group] = tuple(keywords)
                places[group] = layer
        for group, names in minimum.items():
            for n, keyword in enumerate(names):
                if keyword not in known and keyword not in dropped:
                    places[group].findings.add(
                        ("minimum", group, n), f"{shown(keyword)} is no card of PRIMARY; add it there"
                    )
        return {group: tuple(k for k in names if k not in dropped) for group, names in minimum.items()}


_PLACES: Final[dict[Each, tuple[str, ...]]] = {
    "image": (),
    "ccd": ("raft", "slot"),
    "board": ("raft", "board"),
    "segment": ("raft", "slot", "segment"),
}


def _check_section(layers: list[_Layer], name: str, each: Each) -> None:
    layer = next(layer for layer in reversed(layers) if name in layer.entry.sections)
    place: Place = ("sections", name)
    wanted = _PLACES[each]
    left = name
    for part in wanted:
        if f"{{{part}}}" not in name:
            layer.findings.add(place, f"one section each {each} needs {{{part}}} in its name; add it")
        left = left.replace(f"{{{part}}}", "")
    if "{" in left or "}" in left:
        layer.findings.add(place, f"only {_braced(wanted)} may stand in braces here; see `each`")


def _braced(names: Iterable[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in names) or "nothing"


def _last(values: Iterable[Any], otherwise: Any) -> Any:
    """The last value that is set."""
    found = otherwise
    for value in values:
        if value is not UNSET:
            found = value
    return found


def _card(
    keyword: str, found: list[tuple[_Layer, str, CardEntry]], place: Place, each: Each
) -> CardSpec | None:
    layer, text, _ = found[-1]
    here: Place = (*place, text)
    kind = _last((entry.type for _, _, entry in found), None)
    if kind is None:
        layer.findings.add(here, "key 'type' is missing here; add it")
        return None
    # `else` belongs to `from`: a file that gives another source does not keep the base's second one.
    chosen = next((entry for _, _, entry in reversed(found) if entry.source is not UNSET), None)
    entries = [] if chosen is None else [("from", chosen.source), ("else", chosen.otherwise)]
    sources = []
    for key, entry in entries:
        if isinstance(entry, SourceEntry):
            problem = source_problem(entry, each)
            if problem is not None:
                layer.findings.add((*here, key), problem)
                return None
            sources.append(as_source(entry))
    default = None
    text_default = _last((entry.default for _, _, entry in found), None)
    if text_default is not None:
        default = read_text(text_default, kind)
        if default is None:
            layer.findings.add((*here, "default"), f"{shown(text_default)} is no {kind}; mend it")
            return None
    low, high = _bounds(_last((entry.range for _, _, entry in found), ""), layer, here)
    if not sources and default is None:
        layer.findings.add(here, "there is neither `from` nor `default`: it could never have a value")
    return CardSpec(
        keyword=keyword,
        type=kind,
        sources=tuple(sources),
        default=default,
        comment=_last((entry.comment for _, _, entry in found), ""),
        mandatory=_last((entry.mandatory for _, _, entry in found), "no"),
        low=low,
        high=high,
        occasional=_last((entry.occasional for _, _, entry in found), "no") == "yes",
    )


def _bounds(text: str, layer: _Layer, place: Place) -> tuple[float | None, float | None]:
    if not text:
        return None, None
    first, _, last = text.partition("..")
    try:
        low, high = (float(first) if first else None), (float(last) if last else None)
    except ValueError:
        layer.findings.add((*place, "range"), f"{shown(text)} is no range; write 0..90, 0.. or ..90")
        return None, None
    if low is not None and high is not None and low > high:
        layer.findings.add((*place, "range"), f"{shown(text)} is empty; the lower end comes first")
    return low, high
