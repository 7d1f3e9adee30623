"""The header document of an image, as LSST's header service writes it.

A YAML mapping of section names to lists of records `{keyword, value, comment}`; a record without a keyword
is a title. The sections that count here:

    PRIMARY                  every file of the image
    R22S00_PRIMARY           the file of one CCD (`R22_S00_PRIMARY` is the same)
    R22S00_Segment10         the extension of one segment
    REB_COND, CONFIG_COND    the condition HDUs; `R22S00_REB_COND` for a CCD, `R22Reb0_REB_COND` for a board

A document comes from outside: its size, depth and number of records are bounded, tags that would build
objects are refused, and what a record holds is taken as data only.

Values keep the type that the writer gave them. A quoted scalar is a string. A plain one is what the dumper of
the header service (PyYAML) leaves plain for that type: `true`, `8`, `1.5`, `.nan`, `null`; everything else is
text, so `on`, `1e5`, `0012`, `12:30:00` and `2020-05-21` stay as they are written. NaN, the infinities and
null are undefined values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from raftwright.errors import FormatError, StorageError
from raftwright.rawfile.cards import Notes, Value, canonical_keyword

__all__ = ["MAX_BYTES", "MAX_RECORDS", "HeaderDocument", "Record", "read_header_document"]

MAX_BYTES: Final = 8 << 20
"""Largest document read; a full one with all segments of LSSTCam stays below 4 MB."""

MAX_RECORDS: Final = 60_000
MAX_DEPTH: Final = 6
_RECORD_DEPTH: Final = 2
_MAX_NODES: Final = 8 * MAX_RECORDS

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STR: Final = "tag:yaml.org,2002:str"
_SCALARS: Final = tuple(f"tag:yaml.org,2002:{name}" for name in ("int", "float", "bool", "null"))
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLS: Final = {text: text.lower() == "true" for text in ("true", "True", "TRUE", "false", "False", "FALSE")}
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z")
_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+][0-9]+)?\Z")
_NOT_FINITE = re.compile(r"(?:[-+]?\.inf|\.nan)\Z", re.IGNORECASE)
_SECTION = re.compile(
    r"([A-Za-z0-9]+)_([A-Za-z0-9]+)_(PRIMARY|REB_COND|CONFIG_COND|(?!COND\Z)[A-Za-z0-9]+)\Z"
)


class _Unreadable:
    """A value that is no scalar, or has a tag that is not read."""


_UNREADABLE: Final = _Unreadable()


@dataclass(frozen=True, slots=True)
class Record:
    """One line of a section. `keyword` is canonical (see `cards.canonical_keyword`); `line` is 1-based."""

    keyword: str
    value: Value
    comment: str
    line: int


@dataclass(frozen=True)
class HeaderDocument:
    """What a header document says, by section. Section names are without the `_` between raft and slot."""

    name: str
    sections: Mapping[str, tuple[Record, ...]]
    notes: tuple[str, ...] = ()
    """What could not be used, each with its line."""

    def section(self, *names: str) -> dict[str, Record]:
        """Records of the sections called `names`, a later section over an earlier one."""
        found: dict[str, Record] = {}
        for name in names:
            found.update((record.keyword, record) for record in self.sections.get(name, ()))
        return found


def read_header_document(source: str | Path | bytes) -> HeaderDocument:
    """Reads a header document from a file (`str` or `Path`) or from its bytes.

    Raises
    ------
    FormatError
        No YAML, no mapping of sections to lists, more than `MAX_BYTES`, `MAX_RECORDS` or `MAX_DEPTH`.
    StorageError
        The file cannot be read.

    A single record that cannot be used does not raise: it is left out and said in `notes`, because pixels do
    not wait for metadata.
    """
    if isinstance(source, bytes):
        name, data = "header document", source
    else:
        name, data = str(source), _read(Path(source))
    if len(data) > MAX_BYTES:
        raise FormatError(f"{name}: a header document has at most {MAX_BYTES >> 20} MiB; this one is larger")
    notes = Notes()
    tree = _load(name, data.decode("utf-8-sig", errors="replace"))
    if tree.value is None:
        return HeaderDocument(name, {}, ())
    if not isinstance(tree.value, list) or not tree.is_mapping:
        raise FormatError(
            f"{name}: line {tree.line}: expected a mapping of section names to lists of records"
        )
    sections: dict[str, tuple[Record, ...]] = {}
    budget = [MAX_RECORDS]
    for key, node in tree.value:
        if not isinstance(key.value, str):
            raise FormatError(f"{name}: line {key.line}: a section needs a name that is text")
        section = _section_name(key.value)
        if section in sections:
            notes.add(f"{name}: line {key.line}: section {section!r} is there twice; the later one counts")
        sections[section] = tuple(_records(name, key.value, node, notes, budget))
    return HeaderDocument(name, sections, tuple(notes))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        number = error.errno if isinstance(error, OSError) else None
        raise StorageError(number, f"cannot read the header document: {reason}", str(path)[:400]) from error


def _section_name(name: str) -> str:
    match = _SECTION.match(name[:200])
    return f"{match[1]}{match[2]}_{match[3]}" if match else name[:200]


@dataclass(slots=True)
class _Node:
    """A parsed YAML node: a scalar value, a list of nodes, or (is_mapping) a list of pairs of nodes."""

    value: Any
    line: int
    is_mapping: bool = False


def _load(name: str, text: str) -> _Node:
    """The first document of a YAML stream as nodes.

    Built from the parser's events without recursion: no depth of nesting and no tag can do more here than
    be refused. An alias stands for the node itself, so nothing grows by being named often.
    """
    root: _Node | None = None
    stack: list[_Node] = []
    keys: list[_Node | None] = []  # of each mapping in the stack, the key that waits for its value
    anchors: dict[str, _Node] = {}
    nodes = records = 0
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            line = event.start_mark.line + 1 if event.start_mark is not None else 0
            nodes += 1
            if nodes > _MAX_NODES or records > MAX_RECORDS:
                raise FormatError(
                    f"{name}: line {line}: more than {MAX_RECORDS} records, or far too long ones"
                )
            if isinstance(event, yaml.ScalarEvent):
                node = _Node(_scalar(event), line)
                if event.anchor:
                    anchors[event.anchor] = node
            elif isinstance(event, yaml.CollectionEndEvent):
                node = stack.pop()
                keys.pop()
            elif isinstance(event, yaml.AliasEvent):
                if event.anchor not in anchors:
                    raise FormatError(
                        f"{name}: line {line}: *{str(event.anchor)[:40]} is an alias of nothing before it"
                    )
                node = anchors[event.anchor]
            elif isinstance(event, yaml.DocumentStartEvent) and root is not None:
                raise FormatError(f"{name}: line {line}: a second YAML document begins; expected one")
            elif isinstance(event, yaml.CollectionStartEvent):
                if len(stack) >= MAX_DEPTH:
                    raise FormatError(f"{name}: line {line}: nested more than {MAX_DEPTH} deep")
                node = _Node([], line, isinstance(event, yaml.MappingStartEvent))
                records += len(stack) == _RECORD_DEPTH
                stack.append(node)
                keys.append(None)
                if event.anchor:
                    anchors[event.anchor] = node
                continue
            else:
                continue
            root = _place(node, stack, keys, root)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise FormatError(f"{name}: {where}this is no YAML: {str(problem)[:200]}") from None
    return root if root is not None else _Node(None, 1)


def _place(node: _Node, stack: list[_Node], keys: list[_Node | None], root: _Node | None) -> _Node | None:
    """Puts a finished node where it belongs; returns the root of the document as far as it is known."""
    if not stack:
        return node
    parent = stack[-1]
    if not parent.is_mapping:
        parent.value.append(node)
        return root
    key = keys[-1]
    if key is None:
        keys[-1] = node
    else:
        parent.value.append((key, node))
        keys[-1] = None
    return root


def _scalar(event: yaml.ScalarEvent) -> Value | _Unreadable:
    text: str = event.value
    plain_implicit, quoted_implicit = event.implicit
    if event.tag == _STR or (event.tag is None and quoted_implicit and not plain_implicit):
        return text
    if event.tag is None or event.tag in _SCALARS:
        return _plain(text)
    return _UNREADABLE


def _plain(text: str) -> Value:
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if len(text) <= 40:  # longer numbers fit no header card: they stay text
        if _INTEGER.match(text):
            return int(text)
        if _FLOAT.match(text):
            number = float(text)
            return number if math.isfinite(number) else None
    if _NOT_FINITE.match(text):
        return None
    return text


def _records(name: str, section: str, node: _Node, notes: Notes, budget: list[int]) -> Iterator[Record]:
    where = f"{name}: section {section[:60]!r}"
    if node.value is None:
        return
    if node.is_mapping or not isinstance(node.value, list):
        raise FormatError(
            f"{where}, line {node.line}: expected a list of records {{keyword, value, comment}}"
        )
    seen: dict[str, Value] = {}
    for item in node.value:
        budget[0] -= 1
        if budget[0] < 0:
            raise FormatError(f"{where}, line {item.line}: more than {MAX_RECORDS} records in the document")
        record = _record(f"{where}, line {item.line}", item, notes)
        if record is None:
            continue
        if record.keyword in seen and seen[record.keyword] != record.value:
            notes.add(f"{where}, line {item.line}: {record.keyword} is there twice; the later value counts")
        seen[record.keyword] = record.value
        yield record


def _record(where: str, item: _Node, notes: Notes) -> Record | None:
    """One record, or None for a title and for what cannot be used (which is noted)."""
    if not item.is_mapping:
        notes.add(f"{where}: left out: a record is a mapping with keyword, value and comment")
        return None
    fields = {key.value: part for key, part in item.value if isinstance(key.value, str)}
    keyword = fields["keyword"].value if "keyword" in fields else None
    if keyword is None or (isinstance(keyword, str) and not keyword.strip()):
        return None
    canonical = canonical_keyword(keyword) if isinstance(keyword, str) else None
    if canonical is None:
        shown = keyword if isinstance(keyword, str | int | float) else "something else"
        notes.add(f"{where}: left out: {str(shown)[:40]!r} cannot be a keyword")
        return None
    value = fields["value"].value if "value" in fields else None
    if not isinstance(value, str | bool | int | float | None):
        notes.add(f"{where}: {canonical}: the value is neither text nor number; written as undefined")
        value = None
    comment = fields["comment"].value if "comment" in fields else ""
    return Record(canonical, value, comment if isinstance(comment, str) else "", item.line)
