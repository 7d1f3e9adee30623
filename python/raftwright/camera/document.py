"""A camera file as text: bounded, strict YAML in; plain values, problems and line numbers out.

All scalars stay text here: whether `4400` is a number or a name is the schema's to say, so that YAML's own
guesses (`no`, `01`, `12:30`, dates) never reach a camera. Anchors, aliases and tags are refused, nesting and
size are limited, and the reader works on the parser's events, so a hostile file costs no deep recursion.
"""

from __future__ import annotations

import os
import stat
from typing import TypeAlias

import msgspec
import yaml

from raftwright.errors import CameraError, NotFoundError, StorageError

__all__ = [
    "MAX_BYTES",
    "MAX_DEPTH",
    "MAX_PROBLEMS",
    "CameraFileError",
    "Document",
    "Findings",
    "Place",
    "Problem",
    "read_document",
    "shown",
]

MAX_BYTES = 1 << 20
"""Largest camera file, in bytes. The largest built-in one has about a tenth of it."""

MAX_DEPTH = 12
"""Deepest nesting of mappings and lists."""

MAX_PROBLEMS = 200
"""More problems of one file than this are not listed."""

Place: TypeAlias = tuple[str | int, ...]
Value: TypeAlias = "str | list[Value] | dict[str, Value]"

_Loader: type[yaml.CBaseLoader | yaml.BaseLoader] = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


class Problem(msgspec.Struct, frozen=True):
    """One contradiction in a camera file, and where it stands. `str()` gives it in one line."""

    file: str
    line: int | None
    """1-based line, where it is known."""
    place: str
    """Path inside the file, e.g. `detectors.R22_S11.id`."""
    message: str

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (where, self.place, self.message) if part)


class CameraFileError(CameraError):
    """A camera file that cannot be used; `problems` says all that is wrong with it, the message the first."""

    def __init__(self, problems: list[Problem]) -> None:
        count = len(problems)
        least = "at least " if count >= MAX_PROBLEMS else ""
        super().__init__(f"{problems[0]}{f' (and {least}{count - 1} more)' if count > 1 else ''}")
        self.problems = problems


class Document:
    """Values of a YAML file: text, lists and mappings."""

    def __init__(self, file: str, text: str) -> None:
        """Parses the text. Raises CameraFileError on anything that is not one strict YAML document."""
        self.file = file
        self._text = text
        self._lines: dict[Place, int] | None = None
        self._duplicates: list[tuple[Place, int]] = []
        self.value = self._parse(None)

    @property
    def duplicates(self) -> list[Problem]:
        """Keys that stand twice in one mapping; the first of them is the one that counts."""
        return [
            self._problem(line, place, f"key {shown(place[-1])} stands here twice; remove one of them")
            for place, line in self._duplicates[:MAX_PROBLEMS]
        ]

    def line(self, place: Place) -> int | None:
        """1-based line of the value at a place, or of the nearest thing around it. Costs one more parse."""
        if self._lines is None:
            self._lines = {}
            self._parse(self._lines)
        for end in range(len(place), -1, -1):
            if place[:end] in self._lines:
                return self._lines[place[:end]]
        return None

    def problem(self, place: Place, message: str) -> Problem:
        """A problem at a place of this file, with its line."""
        return self._problem(self.line(place), place, message)

    def _problem(self, line: int | None, place: Place, message: str) -> Problem:
        return Problem(file=self.file, line=line, place=_spelt(place), message=message)

    def _error(self, line: int | None, message: str) -> CameraFileError:
        return CameraFileError([self._problem(line, (), message)])

    def _parse(self, lines: dict[Place, int] | None) -> Value:
        try:
            return self._build(lines)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else None
            raise self._error(line, f"not valid YAML: {error.problem}; mend the text here") from error
        except yaml.YAMLError as error:
            text = " ".join(str(error).split())[:200]
            raise self._error(None, f"not valid YAML: {text}; save it as plain UTF-8 text") from error

    def _build(self, lines: dict[Place, int] | None) -> Value:
        """Builds the value from parser events, without recursion."""
        whole: Value = ""
        stack: list[tuple[list[Value] | dict[str, Value], Place]] = []
        key: str | None = None
        for event in yaml.parse(self._text, Loader=_Loader):
            line = event.start_mark.line + 1 if event.start_mark else 1
            if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
                if event.anchor is not None or event.tag is not None:
                    raise self._error(line, "anchors and tags are not allowed; write the value out")
                value: Value = {}
                if isinstance(event, yaml.ScalarEvent):
                    value = event.value
                    if key is None and stack and isinstance(stack[-1][0], dict):
                        key = value
                        continue
                elif isinstance(event, yaml.SequenceStartEvent):
                    value = []
                if stack:
                    here = self._put(*stack[-1], key, value, line, lines)
                else:
                    whole, here = value, ()
                if not isinstance(value, str):
                    if len(stack) == MAX_DEPTH:
                        raise self._error(line, f"nested deeper than {MAX_DEPTH} levels; flatten it")
                    stack.append((value, here))
                key = None
            elif isinstance(event, yaml.CollectionEndEvent):
                stack.pop()
            elif isinstance(event, yaml.AliasEvent):
                raise self._error(line, "aliases are not allowed; write the value out")
            elif isinstance(event, yaml.DocumentStartEvent) and whole:
                raise self._error(line, "a second document begins here; keep one document a file")
        return whole

    def _put(
        self,
        holder: list[Value] | dict[str, Value],
        place: Place,
        key: str | None,
        value: Value,
        line: int,
        lines: dict[Place, int] | None,
    ) -> Place:
        """Adds a value to the mapping or list it stands in; returns its place."""
        if isinstance(holder, list):
            here: Place = (*place, len(holder))
            holder.append(value)
        elif key is None:
            raise self._error(line, "a key must be plain text; write the mapping as `name: value`")
        else:
            here = (*place, key)
            if key in holder:
                if lines is None:
                    self._duplicates.append((here, line))
                return here
            holder[key] = value
        if lines is not None:
            lines[here] = line
        return here


class Findings:
    """Gathers what is wrong with a document, up to MAX_PROBLEMS."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems = document.duplicates

    def add(self, place: Place, message: str) -> None:
        """Notes a problem: what is wrong and what to do about it."""
        if not self.full:
            problem = self.document.problem(place, message)
            if problem not in self.problems:
                self.problems.append(problem)

    @property
    def full(self) -> bool:
        """No further problem is noted: looking for more is of no use."""
        return len(self.problems) >= MAX_PROBLEMS


def shown(value: object) -> str:
    """A value from a file as error messages show it: quoted, ASCII and short."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = str(value)
    return ascii(text if len(text) <= 40 else text[:37] + "...")


def _spelt(place: Place) -> str:
    text = ""
    for part in place:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            plain = len(part) <= 40 and part.isascii() and part.isprintable()
            text += ("." if text else "") + (part if plain else shown(part))
    return text


def read_document(path: str | os.PathLike[str]) -> Document:
    """Reads a camera file.

    Raises NotFoundError if there is none, StorageError if it cannot be read, CameraFileError if it is larger
    than MAX_BYTES, not a regular file, not UTF-8 or not strict YAML.
    """

    def unusable(message: str, line: int | None = None) -> CameraFileError:
        return CameraFileError([Problem(file=file, line=line, place="", message=message)])

    file = os.fspath(path)
    try:
        with open(file, "rb", opener=_open_without_waiting) as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise unusable("not a regular file; give the path of a camera file")
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise NotFoundError(f"{file}: there is no such camera file; give the path of one") from None
    except IsADirectoryError:
        raise unusable("not a regular file; give the path of a camera file") from None
    except OSError as error:
        raise StorageError(error.errno, f"camera file cannot be read ({error.strerror})", file) from error
    if len(data) > MAX_BYTES:
        raise unusable(f"larger than {MAX_BYTES} bytes; a camera file is short text")
    try:
        return Document(file, data.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise unusable(f"byte {error.start} is not UTF-8; save it as UTF-8 text", line) from None


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
