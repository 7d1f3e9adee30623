"""Where the OODS answers, and whom."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from raftwright.errors import FormatError
from raftwright.service.units import Bytes, Secret

__all__ = ["Web"]

_ADDRESS: Final = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:]+)\]|(?P<host>[A-Za-z0-9_.-]+)):(?P<port>[0-9]{1,5})\Z"
)


class Web(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section `oods.web`."""

    listen: Annotated[str, Meta(max_length=300)] = "127.0.0.1:0"
    """HOST:PORT; port 0 takes a free one, which the status tells."""
    tokens: list[Secret] = msgspec.field(default_factory=list)
    """Whoever asks has to show one of them: `Authorization: Bearer TOKEN`. Without any,
    everybody is answered."""
    open: bool = False
    """Allows to answer everybody beyond this machine."""
    requests: Annotated[int, Meta(ge=1, le=10_000)] = 64
    """Most that are answered at a time; more are told to come again."""
    pictures: Annotated[int, Meta(ge=1, le=64)] = 2
    """Most pictures that are drawn at a time."""
    remembered: Bytes = 64_000_000
    """Bytes of pictures that are kept."""

    def __post_init__(self) -> None:
        host, _ = self.address
        if any(len(token) < 16 or not token.isascii() or not token.isprintable() for token in self.tokens):
            raise FormatError("tokens: each has to have 16 printable ASCII characters or more")
        if not self.tokens and not self.open and not _is_loopback(host):
            raise FormatError(
                "listen: answers everybody who can reach it; give tokens, or say open: true if that is meant"
            )

    @property
    def address(self) -> tuple[str, int]:
        """Host and port. Raises FormatError."""
        match = _ADDRESS.match(self.listen)
        if match is None or int(match["port"]) > 65535:
            raise FormatError(f"listen: {self.listen[:100]!a} is no HOST:PORT")
        return match["six"] or match["host"], int(match["port"])


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
