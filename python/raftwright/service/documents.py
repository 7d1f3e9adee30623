"""YAML whose values know their lines, and that means what it says: `no` is a word, a key stands once."""

from __future__ import annotations

import os
import re
from typing import Any, Final, TypeAlias

import yaml

from raftwright.errors import FormatError, NotFoundError, StorageError

__all__ = ["Lines", "Path", "dotted", "parse", "parse_value", "read_document"]

Path: TypeAlias = tuple[str | int, ...]
"""Where a value is: `("archiver", "destinations", 0, "url")`."""
Lines: TypeAlias = dict[Path, int]
"""Lines of values, from 1."""

_MOST_BYTES: Final = 1 << 20
_DEEPEST: Final = 20
_MOST_VALUES: Final = 20_000


class _Loader(yaml.SafeLoader):
    """Only true, false, null and decimal numbers are anything but text."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - so that what is added below is ours alone


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"\A(?:true|false)\Z"), list("tf"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"\A(?:null|~|)\Z"), ["n", "~", ""])
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"\A[-+]?(?:0|[1-9][0-9]{0,17})\Z"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"\A[-+]?[0-9]{1,18}(?:\.[0-9]{1,18}|(?:\.[0-9]{1,18})?[eE][-+]?[0-9]{1,2})\Z"),
    list("-+0123456789"),
)


def read_document(where: str | os.PathLike[str]) -> tuple[dict[str, Any], Lines]:
    """A file's mapping and the lines of its values. Raises NotFoundError, StorageError, FormatError."""
    name = os.fspath(where)
    try:
        with open(name, "rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise NotFoundError(f"{name}: there is no such configuration; look at the path again") from None
    except OSError as error:
        raise StorageError(error.errno, f"cannot be read ({error.strerror})", name) from error
    return parse(data, name)


def parse(data: bytes | str, name: str) -> tuple[dict[str, Any], Lines]:
    """As `read_document`, of what is in hand. Raises FormatError with the line at fault."""
    if len(data) > _MOST_BYTES:
        raise FormatError(f"{name}: more than {_MOST_BYTES} bytes; that is no configuration")
    lines: Lines = {}
    node = _compose(data, name)
    if node is None:
        return {}, lines
    value = _Builder(name, lines).build(node, (), 0)
    if value is None:
        return {}, lines
    if not isinstance(value, dict):
        raise FormatError(f"{name}, line 1: has to be `section:` with `key: value` lines below")
    return value, lines


def parse_value(text: str, name: str) -> Any:
    """A single value: of an environment variable or an option. Raises FormatError."""
    if len(text) > _MOST_BYTES:
        raise FormatError(f"{name}: more than {_MOST_BYTES} bytes; that is no value")
    try:
        node = _compose(text, name)
    except FormatError:
        if text.strip()[:1] in ("{", "["):
            raise
        return text  # what is no YAML is a word, such as "a: b: c"
    if node is None:
        return None
    value = _Builder(name, {}).build(node, (), 0)
    return text if isinstance(value, dict) and text.strip()[:1] != "{" else value


def _compose(data: bytes | str, name: str) -> yaml.Node | None:
    try:
        node: yaml.Node | None = yaml.compose(data, Loader=_Loader)
        return node
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark is not None else ""
        raise FormatError(f"{name}{line}: cannot be read as YAML: {_short(error)}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        raise FormatError(f"{name}: cannot be read as YAML: {said}") from None


def _short(error: yaml.MarkedYAMLError) -> str:
    text = " ".join(part for part in (error.context, error.problem) if part)
    tab = "; use spaces instead of tabs" if "\\t" in text else ""
    return text[:200] + tab


class _Builder:
    def __init__(self, name: str, lines: Lines) -> None:
        self._name = name
        self._lines = lines
        self._values = 0
        self._constructor = yaml.constructor.SafeConstructor()

    def build(self, node: yaml.Node, path: Path, depth: int) -> Any:
        line = node.start_mark.line + 1
        self._values += 1
        if depth > _DEEPEST or self._values > _MOST_VALUES:
            raise FormatError(f"{self._name}, line {line}: too deep or too much; that is no configuration")
        self._lines.setdefault(path, line)
        if isinstance(node, yaml.MappingNode):
            found: dict[str, Any] = {}
            for key_node, value_node in node.value:
                key_line = key_node.start_mark.line + 1
                if not isinstance(key_node, yaml.ScalarNode):
                    raise FormatError(f"{self._name}, line {key_line}: a key has to be a word")
                key = str(key_node.value)
                if key in found:
                    raise FormatError(
                        f"{self._name}, line {key_line}: {dotted((*path, key))} stands twice; remove one"
                    )
                self._lines[(*path, key)] = key_line
                found[key] = self.build(value_node, (*path, key), depth + 1)
            return found
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, n), depth + 1) for n, item in enumerate(node.value)]
        try:
            return self._constructor.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            said = getattr(error, "problem", None) or str(error)
            raise FormatError(f"{self._name}, line {line}: {dotted(path)}: {said[:200]}") from None


def dotted(path: Path) -> str:
    """`archiver.destinations[0].url`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
