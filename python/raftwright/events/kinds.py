"""What a message may hold: types of fields that several kinds of messages share.

A kind is a Struct of `raftwright.events.messages` or `raftwright.events.observatory`. Fields without a
default are mandatory. Texts that are mandatory are not empty, numbers are finite.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, TypeAlias

import msgspec
from msgspec import Meta

__all__ = [
    "Bytes",
    "ColonList",
    "Count",
    "Crc",
    "Dayobs",
    "Image",
    "Instrument",
    "Location",
    "Md5",
    "Message",
    "Part",
    "Path",
    "Tai",
    "Text",
    "Word",
]

Instrument: TypeAlias = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}\Z")]
"""`LSSTCam`, `LSSTComCam`, `LATISS`, ..."""
Image: TypeAlias = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}\Z")]
"""The name of an image, the obsid: `MC_O_20261122_000123`."""
Part: TypeAlias = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9?]{1,16}\Z")]
"""A raft or a sensor: `R22`, `S11`."""
Location: TypeAlias = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9]{1,8}/[A-Za-z0-9]{1,8}\Z")]
"""A source of the DAQ: `22/0`."""
Dayobs: TypeAlias = Annotated[str, Meta(pattern=r"\A[0-9]{8}\Z")]
Word: TypeAlias = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9 _.:/+-]{0,99}\Z")]
Text: TypeAlias = Annotated[str, Meta(max_length=8192)]
Path: TypeAlias = Annotated[str, Meta(max_length=4096)]
"""A path, an object's key, or a URL."""
ColonList: TypeAlias = Annotated[str, Meta(max_length=60_000)]
"""Items with colons between them, see `raftwright.events.identity`."""
Bytes: TypeAlias = Annotated[int, Meta(ge=0, le=2**62)]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Crc: TypeAlias = Annotated[str, Meta(pattern=r"\A[0-9a-fA-F]{8}\Z")]
Md5: TypeAlias = Annotated[str, Meta(pattern=r"\A[0-9a-fA-F]{32}\Z")]
Tai: TypeAlias = Annotated[float, Meta(ge=-1e11, le=1e11)]
"""Seconds since 1970-01-01T00:00:00 TAI."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What all kinds are. The class name is of no account, `KIND` is the name on the wire."""

    KIND: ClassVar[str] = ""
    SCHEMA: ClassVar[int] = 1
    """Grows when an old receiver would misunderstand; more fields do not make it grow."""
    IMAGE_FIELD: ClassVar[str] = "obsid"
    """Which field names the image; empty where the message is about none."""
    INSTRUMENT_FIELD: ClassVar[str] = "instrument"

    @property
    def image(self) -> str:
        """The image that it is about, or an empty text."""
        name: Any = getattr(self, self.IMAGE_FIELD) if self.IMAGE_FIELD else ""
        return str(name)
