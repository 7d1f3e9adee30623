"""Which names may become names of files."""

from __future__ import annotations

from raftwright.errors import FormatError

__all__ = ["check_plain_name", "is_plain_name"]

_MAX_LENGTH = 200  # leaves room for the suffix of a temporary name


def is_plain_name(name: object) -> bool:
    """Whether a name is safe as that of a file: short printable ASCII, no separator, no leading dot."""
    return (
        isinstance(name, str)
        and 0 < len(name) <= _MAX_LENGTH
        and name.isascii()
        and name.isprintable()
        and "/" not in name
        and "\\" not in name
        and name[0] != "."
        and name == name.strip()
    )


def check_plain_name(what: str, name: object) -> str:
    """The name itself. Raises FormatError if it is not plain."""
    if isinstance(name, str) and is_plain_name(name):
        return name
    shown = ascii(name[:40]) if isinstance(name, str) else f"a {type(name).__name__}"
    raise FormatError(
        f"{what} is {shown}; a plain name is wanted: printable ASCII, 1 to {_MAX_LENGTH} characters, without "
        "separators and not beginning with a dot"
    )
