"""Values against the Struct that a section has: units are read, and what is wrong is said at its place."""

from __future__ import annotations

import functools
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import inspect

from raftwright.errors import RaftwrightError, UsageError
from raftwright.service.documents import Path
from raftwright.service.units import read_bytes, read_seconds, unit_of

__all__ = ["Wrong", "convert", "is_secret", "leaves", "masked"]

_MOST_SECRET: Final = 4096
_PLACE: Final = re.compile(r"^(?P<said>.*?)(?: - at `(?:key` in `)?\$(?P<place>[^`]*)`)?$", re.DOTALL)
_PASSWORD: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://[^/\s:@]*:)([^/\s@]+)(@)")
_WORDS: Final = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list, [..]",
    "object": "`key: value` lines",
    "null": "nothing",
}


class Wrong(NamedTuple):
    """A fault of a configuration."""

    path: Path
    """The value; where a key is missing, of what lacks it."""
    said: str
    """What is wrong and what helps."""


def convert(raw: Mapping[str, Any], kind: Any, section: str, open_file: Callable[[Path], bool]) -> Any:
    """A Struct of a section's values, or the list of what is wrong with them.

    `open_file` tells whether a value stands in a file that others can read: no secret may.
    """
    wrong: list[Wrong] = []
    ready = _Reader(wrong, open_file).read(raw, inspect.type_info(kind), (section,))
    if wrong:
        return wrong
    try:
        return msgspec.convert(ready, kind)
    except msgspec.ValidationError as error:
        return [_place(str(error), section)]


def _place(text: str, section: str) -> Wrong:
    match = _PLACE.match(text)
    assert match is not None
    path: list[str | int] = [section]
    for word, number in re.findall(r"\.([^.\[\]]+)|\[([0-9]+)\]", match["place"] or ""):
        path.append(int(number) if number else word)
    said = re.sub(r"`([^`]*)`", _in_words, match["said"])
    return Wrong(tuple(path), said[:1].lower() + said[1:])


def _in_words(match: re.Match[str]) -> str:
    """ "`array | null`" is "a list, [..]"."""
    kinds = [_WORDS.get(kind, kind) for kind in match[1].split(" | ")]
    return " or ".join(kind for kind in kinds if kind != "nothing") or "nothing"


class _Reader:
    def __init__(self, wrong: list[Wrong], open_file: Callable[[Path], bool]) -> None:
        self._wrong = wrong
        self._open_file = open_file

    def read(self, value: Any, kind: Any, path: Path) -> Any:
        if isinstance(kind, inspect.Metadata):
            unit = unit_of(kind.extra)
            if unit:
                return self._with_unit(value, unit, path)
            kind = kind.type
        if isinstance(kind, inspect.UnionType):
            return self.read(value, member, path) if (member := _member(kind, value)) is not None else value
        if isinstance(kind, inspect.EnumType | inspect.LiteralType):
            words = kind.values if isinstance(kind, inspect.LiteralType) else [e.value for e in kind.cls]
            if value not in words:
                said = f"{str(value)[:60]!r} is none of {', '.join(str(word) for word in words)}"
                self._wrong.append(Wrong(path, said))
            return value
        if isinstance(value, str) and _PASSWORD.search(value) and self._open_file(path):
            self._wrong.append(Wrong(path, f"a password in a file that others can read; {_SECRET_REMEDY}"))
        if isinstance(kind, inspect.StructType) and isinstance(value, Mapping):
            return self._struct(value, kind, path)
        if isinstance(kind, inspect.ListType) and isinstance(value, list):
            return [self.read(item, kind.item_type, (*path, n)) for n, item in enumerate(value)]
        if isinstance(kind, inspect.DictType) and isinstance(value, Mapping):
            return {key: self.read(item, kind.value_type, (*path, key)) for key, item in value.items()}
        return value

    def _struct(self, value: Mapping[str, Any], kind: inspect.StructType, path: Path) -> dict[str, Any]:
        fields = {field.encode_name: field for field in kind.fields}
        tag = {kind.tag_field} if kind.tag_field else set()
        for key in value:
            if key not in fields and key not in tag:
                self._wrong.append(Wrong((*path, key), _unknown(key, list(fields))))
        for name, field in fields.items():
            if field.required and value.get(name) is None and name not in value:
                self._wrong.append(
                    Wrong((*path, name), "is missing, and there is no default for it; give it")
                )
        return {
            key: self.read(item, fields[key].type, (*path, key)) if key in fields else item
            for key, item in value.items()
        }

    def _with_unit(self, value: Any, unit: str, path: Path) -> Any:
        try:
            if unit == "secret":
                return self._secret(value, path)
            if isinstance(value, str):
                return read_seconds(value) if unit == "time" else read_bytes(value)
        except (RaftwrightError, OSError) as error:
            self._wrong.append(Wrong(path, str(error)))
            return None
        return value

    def _secret(self, value: Any, path: Path) -> Any:
        if isinstance(value, Mapping):
            if set(value) != {"file"} or not isinstance(value["file"], str):
                raise UsageError("write {file: PATH}")
            return _secret_file(value["file"])
        if value and self._open_file(path):
            raise UsageError(f"a secret in a file that others can read; {_SECRET_REMEDY}")
        return value


_SECRET_REMEDY: Final = "chmod 600 that file, or put it into the environment or a file of its own"


def _secret_file(name: str) -> str:
    if only_ours(name) is False:
        raise UsageError(f"{name} can be read by others; chmod 600 it")
    with open(name, encoding="utf-8") as stream:
        text = stream.read(_MOST_SECRET + 1).strip()
    if not text or len(text) > _MOST_SECRET:
        raise UsageError(f"{name} holds no secret: it is empty, or longer than {_MOST_SECRET} characters")
    return text


def only_ours(name: str) -> bool:
    """Whether nobody but its owner, who is us or root, can read a file. Raises OSError."""
    facts = os.stat(name)
    return stat.S_IMODE(facts.st_mode) & 0o077 == 0 and facts.st_uid in (os.getuid(), 0)


def _member(kind: inspect.UnionType, value: Any) -> Any:
    """The member of a union that a value is meant to be."""
    for member in kind.types:
        bare = member.type if isinstance(member, inspect.Metadata) else member
        if isinstance(value, Mapping) and isinstance(bare, inspect.StructType):
            fits = not bare.tag_field or value.get(bare.tag_field) == bare.tag
        elif isinstance(value, Mapping):
            fits = isinstance(bare, inspect.DictType)
        elif isinstance(value, list):
            fits = isinstance(bare, inspect.ListType)
        elif isinstance(member, inspect.Metadata) and unit_of(member.extra):
            fits = value is not None
        else:
            fits = isinstance(value, str) and isinstance(bare, inspect.StrType)
        if fits:
            return member
    return None


def _unknown(key: str, known: list[str]) -> str:
    import difflib

    near = difflib.get_close_matches(key, known, 1)
    if near:
        return f"there is no such key; is {near[0]} meant?"
    return f"there is no such key; there are {', '.join(known[:30])}"


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """All values of a Struct, mapping or list, each with its path; empty ones as they are."""
    if isinstance(value, msgspec.Struct):
        config = value.__struct_config__
        names = zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True)
        if config.tag is not None and config.tag_field is not None:
            yield (*path, config.tag_field), config.tag
        for shown, name in names:
            yield from leaves(getattr(value, name), (*path, shown))
    elif isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from leaves(item, (*path, str(key)))
    elif isinstance(value, list | tuple) and value:
        for n, item in enumerate(value):
            yield from leaves(item, (*path, n))
    else:
        yield path, value


def masked(text: str) -> str:
    """Without the passwords of URLs."""
    return _PASSWORD.sub(r"\1****\3", text)


@functools.lru_cache(maxsize=64)
def _secret_paths(kind: Any) -> frozenset[Path]:
    found: set[Path] = set()

    def walk(type: Any, path: Path) -> None:
        if isinstance(type, inspect.Metadata):
            if unit_of(type.extra) == "secret":
                found.add(path)
            type = type.type
        if isinstance(type, inspect.UnionType):
            for member in type.types:
                walk(member, path)
        elif isinstance(type, inspect.StructType):
            for field in type.fields:
                walk(field.type, (*path, field.encode_name))
        elif isinstance(type, inspect.ListType):
            walk(type.item_type, (*path, "*"))
        elif isinstance(type, inspect.DictType):
            walk(type.value_type, (*path, "*"))

    walk(inspect.type_info(kind), ())
    return frozenset(found)


def is_secret(kind: Any, path: Path) -> bool:
    """Whether a value of this Struct is never shown."""
    for secret in _secret_paths(kind):
        if len(secret) == len(path) and all(s in ("*", p) for s, p in zip(secret, path, strict=True)):
            return True
    return False
