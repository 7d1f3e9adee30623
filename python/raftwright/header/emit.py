"""A header document as YAML text: every string quoted, every number plain, a record a line.

PyYAML's dumper takes half a second for a document of ComCam with all segments; this takes milliseconds and
writes what `raftwright.rawfile.read_header_document` and PyYAML read with the same types.
"""

from __future__ import annotations

from collections.abc import Iterable

from raftwright.rawfile.cards import Value, float_text

__all__ = ["Line", "header_text"]

Line = tuple[str | None, Value, str]
"""Keyword, value and comment; a title has no keyword."""


def header_text(sections: Iterable[tuple[str, Iterable[Line]]], head: str = "") -> bytes:
    """The document, ASCII. `head` is put before it as a comment."""
    parts = [f"# {line}\n" for line in head.splitlines()]
    for name, lines in sections:
        start = len(parts)
        parts.append(f"{name}:\n")
        parts += [
            f"- {{keyword: {_text(keyword) if keyword is not None else 'null'}, value: {_scalar(value)}, "
            f"comment: {_text(comment)}}}\n"
            for keyword, value, comment in lines
        ]
        if len(parts) == start + 1:
            parts[start] = f"{name}: []\n"
    return "".join(parts).encode("ascii", errors="replace")


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _scalar(value: Value) -> str:
    if isinstance(value, str):
        return _text(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    text = float_text(value).lower()
    mantissa, letter, exponent = text.partition("e")
    if letter and exponent[0] not in "+-":
        exponent = f"+{exponent}"
    return mantissa + letter + exponent
