"""The header of an HDU as a mapping from keywords to values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from raftwright.rawfile.cards import Card, Value, canonical_keyword, format_card, parse_header

if TYPE_CHECKING:
    from astropy.io.fits import Header as AstropyHeader

__all__ = ["Header"]


class Header(Mapping[str, Value]):
    """Read-only header: `header["EXPTIME"]`, undefined values are None.

    Keys are case-insensitive; HIERARCH keywords are found as `STUTTER ROWS`, `STUTTER.ROWS` or with HIERARCH
    before. Where a keyword stands twice, the first one counts.
    """

    def __init__(self, text: bytes) -> None:
        self.text = text
        """The cards as they stand in the file: 80 bytes each, without END."""
        self.cards: list[Card] = parse_header(text)
        self._index: dict[str, Card] = {}
        for card in self.cards:
            if card.has_value:
                self._index.setdefault(card.keyword.upper(), card)

    def __getitem__(self, keyword: str) -> Value:
        return self._card(keyword).value

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)

    def comment(self, keyword: str) -> str:
        """Comment of a keyword."""
        return self._card(keyword).comment

    def string(self, keyword: str) -> str | None:
        """The value where it is text with something in it, else None."""
        value = self.get(keyword)
        return value.strip() or None if isinstance(value, str) else None

    def to_astropy(self) -> AstropyHeader:
        """The same as an astropy header."""
        from astropy.io import fits  # slow to import

        return fits.Header.fromstring(self.text)

    def _card(self, keyword: str) -> Card:
        found = self._index.get(keyword.upper())
        if found is None:
            found = self._index[canonical_keyword(keyword) or keyword]
        return found

    def __repr__(self) -> str:
        return "\n".join(image.rstrip() for card in self.cards for image in format_card(card))
