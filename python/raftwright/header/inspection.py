"""Looking at a header document that is there: what is wrong with it, by the specification of its camera."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from raftwright.camera import camera_by_instrume
from raftwright.errors import FormatError, NotFoundError
from raftwright.header.checks import Problem, check_minimum, check_ranges, check_times, lacking
from raftwright.header.conversion import convert
from raftwright.header.spec_file import header_spec, spec_names
from raftwright.rawfile.document import read_header_document
from raftwright.rawfile.names import ImageName

if TYPE_CHECKING:
    from raftwright.header.spec import Spec
    from raftwright.rawfile.cards import Value
    from raftwright.rawfile.document import HeaderDocument

__all__ = ["Inspection", "inspect_document"]

_HARMLESS: Final = frozenset({"unknown_keyword"})


@dataclass
class Inspection:
    """What was found."""

    spec: str
    obsid: str
    records: int
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What could not be read."""
    lacking: list[str] = field(default_factory=list)
    groups: dict[str, list[str]] = field(default_factory=dict)

    @property
    def faulty(self) -> int:
        """Number of faults. Groups of the least metadata that are not whole are told, but are none."""
        harmful = [problem for problem in self.problems if problem.code not in _HARMLESS]
        return len(harmful) + len(self.notes) + len(self.lacking)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "spec": self.spec,
            "obsid": self.obsid,
            "records": self.records,
            "problems": [{"code": p.code, "keyword": p.keyword, "message": p.message} for p in self.problems],
            "notes": self.notes,
            "lacking": self.lacking,
            "groups": self.groups,
        }


def inspect_document(path: str | os.PathLike[str], spec: str | None = None) -> Inspection:
    """Looks at a header document. The specification is that of its INSTRUME unless it is named.

    Raises FormatError (no header document), StorageError, NotFoundError (no such specification).
    """
    document = read_header_document(Path(path))
    values = {keyword: record.value for keyword, record in document.section("PRIMARY").items()}
    chosen = header_spec(spec) if spec is not None else _spec_of(values, str(path))
    obsid = values.get("OBSID")
    found = Inspection(
        spec=chosen.name,
        obsid=obsid if isinstance(obsid, str) else "",
        records=sum(len(records) for records in document.sections.values()),
        notes=list(document.notes),
    )
    found.problems += _identity(chosen, values, Path(path))
    found.problems += _types(chosen, document)
    found.problems += [*check_times(values), *check_ranges(chosen, values)]
    found.lacking = lacking(chosen, values)
    found.groups = check_minimum(chosen, values)
    return found


def _spec_of(values: dict[str, Value], path: str) -> Spec:
    instrume = values.get("INSTRUME")
    if not isinstance(instrume, str):
        raise NotFoundError(
            f"{path}: it has no INSTRUME; name its specification with --spec: {', '.join(spec_names())}"
        )
    return header_spec(camera_by_instrume(instrume).name)


def _identity(spec: Spec, values: dict[str, Value], path: Path) -> list[Problem]:
    problems = []
    try:
        name = ImageName.parse(str(values.get("OBSID") or ""))
    except FormatError as error:
        return [Problem("identity", "OBSID", str(error))]
    wanted: dict[str, Value] = {
        "CAMCODE": name.source,
        "CONTRLLR": name.controller,
        "DAYOBS": name.dayobs,
        "SEQNUM": name.seqnum,
    }
    for keyword, expected in wanted.items():
        found = values.get(keyword)
        if found is not None and found != expected:
            problems.append(Problem("identity", keyword, f"is {found!r}; OBSID says {expected!r}"))
    if name.source != spec.camera.code:
        problems.append(
            Problem("identity", "OBSID", f"is of camera {name.source}, not of {spec.camera.code}")
        )
    if "_header" in path.name and not path.name.startswith(f"{name}_header"):
        problems.append(Problem("identity", "OBSID", f"is {name}, and the file is {path.name[:60]}"))
    return problems


def _types(spec: Spec, document: HeaderDocument) -> list[Problem]:
    problems = []
    cards = {card.keyword: card for card in spec.primary().cards()}
    for keyword, record in document.section("PRIMARY").items():
        card = cards.get(keyword)
        if card is None:
            problems.append(
                Problem("unknown_keyword", keyword, f"line {record.line}: no card of the specification")
            )
        elif record.value is not None:
            value, complaint = convert(record.value, card.type)
            if value is None or complaint:
                problems.append(
                    Problem(
                        complaint or "wrong_type",
                        keyword,
                        f"line {record.line}: {record.value!r:.40} is no {card.type}",
                    )
                )
    return problems
