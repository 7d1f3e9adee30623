"""FITS header cards: formatted as the observatory's own files have them, and read back.

The style (FITS standard 4.0, section 4, and the habit of the LSST camera control system):

- Strings are padded to 8 characters, values end in column 30, then ` / comment`. When a comment would not
  fit, the padding goes first, then the end of the comment.
- Floating-point values always show a point or an exponent: `2001.0`, `1.0E-05`.
- An undefined value is a blank value field. NaN and the infinities are undefined: FITS has no text for them.
- Keywords that are not 1 to 8 characters of `A-Z 0-9 - _` are written with the HIERARCH convention:
  `HIERARCH STUTTER ROWS= 0 / comment`.
- Strings longer than one card go on in CONTINUE cards, up to `MAX_STRING` characters. A HIERARCH card has
  no continuation: its string is cut to the card.
- A header holds printable ASCII only. Every other character becomes `?`.

Everything that had to be changed on the way is said to a `Notes` object: nothing is altered in silence.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from raftwright.errors import FormatError

__all__ = [
    "CARD",
    "MAX_STRING",
    "Card",
    "Notes",
    "Value",
    "blank",
    "canonical_keyword",
    "continued",
    "encode",
    "float_text",
    "format_card",
    "one_card",
    "parse_header",
    "plain_text",
    "title",
]

Value = str | bool | int | float | None
"""A header value; None is an undefined one."""

CARD: Final = 80
MAX_STRING: Final = 2000
"""Longest string value written, in characters: thirty cards."""

MAX_KEYWORD: Final = 60
_VALUE_END: Final = 30
_MIN_STRING: Final = 8
_CUT: Final = 60  # characters of a text that is cut to one card
_CUT_QUOTES: Final = 34  # that many fit even where all are quotes
_CONTINUED: Final = 67  # characters between the quotes of a string that goes on in the next card
_STANDARD = re.compile(r"[A-Z0-9_-]{1,8}\Z")
_WORDS = re.compile(r"[A-Z0-9_-]+(?: [A-Z0-9_-]+)*\Z")
_ILLEGAL = re.compile(r"[^\x20-\x7e]")
_INTEGER = re.compile(r"[+-]?[0-9]+\Z")
_REAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[EeDd][+-]?[0-9]+)?\Z")
_QUOTED = re.compile(r" *'((?:[^']|'')*)' *(?:/(.*))?\Z", re.DOTALL)
_HIERARCH = re.compile(r"HIERARCH +([^=]*?) *=(.*)\Z", re.DOTALL)
_LARGEST = 2**63
_COMMENTARY: Final = frozenset({"", "COMMENT", "HISTORY", "CONTINUE", "END"})


class Notes:
    """What had to be changed or left out, in order of appearance, without repeats and bounded in number."""

    LIMIT: Final = 200

    def __init__(self) -> None:
        self._lines: dict[str, None] = {}
        self.dropped = 0
        """Notes beyond the limit."""

    def add(self, note: str) -> None:
        if note in self._lines:
            return
        if len(self._lines) >= self.LIMIT:
            self.dropped += 1
        else:
            self._lines[note] = None

    def extend(self, notes: Iterable[str]) -> None:
        for note in notes:
            self.add(note)

    def __iter__(self) -> Iterator[str]:
        yield from self._lines
        if self.dropped:
            yield f"{self.dropped} further notes are not shown"

    def __len__(self) -> int:
        return len(self._lines)


@dataclass(frozen=True, slots=True)
class Card:
    """One header record. `keyword` is without HIERARCH, its words separated by one space.

    A record without a value field (a blank card, a title, COMMENT, HISTORY) has `has_value` False and its
    text in `comment`.
    """

    keyword: str
    value: Value = None
    comment: str = ""
    has_value: bool = True

    @property
    def is_hierarch(self) -> bool:
        """Whether the card needs the HIERARCH convention."""
        return self.has_value and _STANDARD.match(self.keyword) is None


def blank() -> Card:
    """An all-blank card, as stands before a title."""
    return Card("", has_value=False)


def title(text: str) -> Card:
    """A title card: `---- text ----` from column 9."""
    return Card("", comment=f"---- {text} ----", has_value=False)


def canonical_keyword(keyword: str) -> str | None:
    """Upper case, without HIERARCH, words separated by one space (dots separate words too: `STUTTER.ROWS`).

    None when no FITS card can carry it.
    """
    if len(keyword) > 4 * MAX_KEYWORD:
        return None
    words = keyword.upper().replace(".", " ").split()
    if len(words) > 1 and words[0] == "HIERARCH":
        words = words[1:]
    name = " ".join(words)
    return name if len(name) <= MAX_KEYWORD and _WORDS.match(name) else None


def plain_text(text: str, where: str, notes: Notes | None = None) -> str:
    """`text` with everything but printable ASCII replaced by `?` and the replacement noted."""
    clean, count = _ILLEGAL.subn("?", text)
    if count and notes is not None:
        notes.add(f"{where}: {count} characters that are not printable ASCII were replaced by '?'")
    return clean


def float_text(value: float) -> str:
    """Shortest text that reads back to the same double, always with a point: `2001.0`, `1.0E-05`."""
    text = repr(float(value)).upper()
    mantissa, letter, exponent = text.partition("E")
    if letter and "." not in mantissa:
        mantissa += ".0"
    return mantissa + letter + exponent


def continued(value: Value) -> bool:
    """Whether a standard card needs CONTINUE cards for this value."""
    return isinstance(value, str) and len(_escaped(value)) > CARD - 12


def one_card(keyword: str, value: Value, where: str, notes: Notes) -> Value:
    """The value, text cut to what fits one card: for headers in which nothing announces CONTINUE."""
    if not continued(value) or not isinstance(value, str):
        return value
    length = _CUT if not continued(value[:_CUT]) else _CUT_QUOTES
    notes.add(f"{where}: {keyword}: text was cut to {length} characters")
    return value[:length]


def _escaped(text: str) -> str:
    return text.rstrip(" ").replace("'", "''")


def _laid_out(head: str, text: str, comment: str, *, right: bool, end: int = _VALUE_END) -> str:
    """Head, value and comment on one card; padding shrinks for the comment, then the comment is cut."""
    end = max(len(head) + len(text), min(end, CARD - 3 - len(comment)) if comment else end)
    width = end - len(head)
    body = head + (text.rjust(width) if right else text.ljust(width))
    if comment and len(body) + 3 < CARD:
        body = f"{body} / {comment}"
    return body[:CARD].ljust(CARD)


def format_card(card: Card, notes: Notes | None = None) -> list[str]:
    """A card as one or more images of exactly 80 printable ASCII characters.

    What had to be changed (illegal characters, a string that is too long, a number without a FITS form) is
    said to `notes`. Raises `FormatError` for a keyword that no card can carry.
    """
    value = card.value
    # Most cards are those of the image before. A double is not looked up: 0.0 would find -0.0.
    if not isinstance(value, float) and not (isinstance(value, str) and len(value) > CARD):
        known = _unchanged(card.keyword, value, card.comment, card.has_value)
        if known is not None:
            return list(known)
    return _format(card, notes)


@functools.lru_cache(maxsize=8192, typed=True)
def _unchanged(keyword: str, value: Value, comment: str, has_value: bool) -> tuple[str, ...] | None:
    """Images of a card; None where there is something to say."""
    notes = Notes()
    images = tuple(_format(Card(keyword, value, comment, has_value), notes))
    return None if len(notes) else images


def _format(card: Card, notes: Notes | None) -> list[str]:
    where = card.keyword or "a title"
    comment = plain_text(card.comment[: 2 * CARD], f"the comment of {where}", notes)
    if not card.has_value:
        if card.keyword and _STANDARD.match(card.keyword) is None:
            raise FormatError(f"{card.keyword!r} cannot be the keyword of a comment card: rename it")
        return [(f"{card.keyword:<8}" + comment)[:CARD].ljust(CARD)]
    if _WORDS.match(card.keyword) is None or len(card.keyword) > MAX_KEYWORD:
        raise FormatError(
            f"{card.keyword[:MAX_KEYWORD]!r} cannot be a FITS keyword: use up to {MAX_KEYWORD} characters of "
            "A-Z, 0-9, '-', '_' in words separated by one space"
        )
    if card.is_hierarch:
        return [_hierarch(card, comment, notes)]
    head = f"{card.keyword:<8}= "
    value = card.value
    if isinstance(value, str):
        return _string_cards(head, card.keyword, value, comment, notes)
    text = _number_text(card.keyword, value, notes)
    return [_laid_out(head, text, comment, right=True)]


def _number_text(keyword: str, value: bool | float | None, notes: Notes | None) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "T" if value else "F"
    if isinstance(value, int):
        if -_LARGEST <= value < _LARGEST:
            return str(value)
        problem = "an integer of more than 64 bits"
    elif math.isfinite(value):
        return float_text(value)
    else:
        problem = "not a finite number"
    if notes is not None:
        notes.add(f"{keyword}: the value is {problem} and was written as undefined")
    return ""


def _bounded_string(keyword: str, value: str, notes: Notes | None) -> str:
    text = plain_text(value[:MAX_STRING], keyword, notes)
    if len(value) > MAX_STRING and notes is not None:
        notes.add(f"{keyword}: a string of {len(value)} characters was cut to {MAX_STRING}")
    return text


def _string_cards(head: str, keyword: str, value: str, comment: str, notes: Notes | None) -> list[str]:
    text = _escaped(_bounded_string(keyword, value, notes))
    if len(text) > CARD - 12:
        return _continued_cards(head, text, comment)
    padded = f"'{text:<{_MIN_STRING}}'"
    if comment and len(head) + len(padded) + 3 + len(comment) > CARD:
        padded = f"'{text}'" if text else padded
    return [_laid_out(head, padded, comment, right=False)]


def _continued_cards(head: str, text: str, comment: str) -> list[str]:
    """The CONTINUE convention of FITS 4.0, section 4.2.1.2: every piece but the last ends in `&`."""
    images = []
    prefix = head
    while len(text) > _CONTINUED:
        cut = _CONTINUED
        # A doubled quote stays together: an odd run of quotes before the cut means the cut splits a pair.
        run = len(text[:cut]) - len(text[:cut].rstrip("'"))
        cut -= run % 2
        images.append(f"{prefix}'{text[:cut]}&'".ljust(CARD))
        text = text[cut:]
        prefix = "CONTINUE  "
    images.append(_laid_out(prefix, f"'{text}'", comment, right=False))
    return images


def _hierarch(card: Card, comment: str, notes: Notes | None) -> str:
    head = f"HIERARCH {card.keyword}= "
    if isinstance(card.value, str):
        text = _escaped(_bounded_string(card.keyword, card.value, notes))
        room = CARD - len(head) - 2
        if len(text) > room:
            run = len(text[:room]) - len(text[:room].rstrip("'"))
            text = text[: room - run % 2]
            if notes is not None:
                notes.add(f"{card.keyword}: a string was cut to {len(text)} characters, the rest of its card")
        body = head + f"'{text}'"
    else:
        body = head + _number_text(card.keyword, card.value, notes)
        if len(body) > CARD:
            if notes is not None:
                notes.add(f"{card.keyword}: the number does not fit into its card; written as undefined")
            body = head
    if comment and len(body) + 3 < CARD:
        body = f"{body} / {comment}"
    return body[:CARD].ljust(CARD)


def encode(cards: Iterable[Card], notes: Notes | None = None) -> bytes:
    """Header text of 80 bytes a card, without END and without padding."""
    return "".join(image for card in cards for image in format_card(card, notes)).encode("ascii")


def _parse_value(field: str) -> tuple[Value, str]:
    """Value and comment of the text after `=`. What is no FITS value is kept as its own text."""
    quoted = _QUOTED.match(field)
    if quoted:
        text = quoted[1].replace("''", "'")
        return text.rstrip(" "), (quoted[2] or "").strip()
    text, _, comment = field.partition("/")
    text, comment = text.strip(), comment.strip()
    if not text:
        return None, comment
    if text in ("T", "F"):
        return text == "T", comment
    if _INTEGER.match(text):
        return int(text), comment
    if _REAL.match(text):
        number = float(text.upper().replace("D", "E"))
        return (number if math.isfinite(number) else None), comment
    return text, comment


def parse_header(text: bytes) -> list[Card]:
    """Cards of a header: `text` is 80 bytes a card without END, as `_core.FitsFile.cards` gives it.

    CONTINUE cards are joined to the string before them. Nothing in a hostile header raises here: what is no
    FITS value is kept as text, what is no card with a value is a comment. Raises `FormatError` only when
    `text` is not a whole number of cards.
    """
    if len(text) % CARD:
        raise FormatError(f"a header of {len(text)} bytes is not a whole number of 80-byte cards")
    images = text.decode("latin-1")
    cards: list[Card] = []
    pieces: list[str] = []  # of the string that the last card began
    for start in range(0, len(images), CARD):
        card = _parse_card(images[start : start + CARD])
        if card.keyword == "CONTINUE" and pieces and pieces[-1].endswith("&"):
            value, comment = _parse_value(card.comment)
            if isinstance(value, str):
                pieces[-1] = pieces[-1][:-1]
                pieces.append(value)
                last = cards[-1]
                cards[-1] = Card(last.keyword, last.value, last.comment or comment)
                continue
        _close(cards, pieces)
        cards.append(card)
        if isinstance(card.value, str):
            pieces.append(card.value)
    _close(cards, pieces)
    return cards


def _close(cards: list[Card], pieces: list[str]) -> None:
    """Gives the last card its string in full."""
    if len(pieces) > 1:
        cards[-1] = Card(cards[-1].keyword, "".join(pieces), cards[-1].comment)
    pieces.clear()


@functools.lru_cache(maxsize=8192)
def _parse_card(image: str) -> Card:
    keyword = image[:8].rstrip(" ")
    if image[8:9] == "=" and image[9:10] in (" ", "") and keyword not in _COMMENTARY:
        value, comment = _parse_value(image[9:])
        return Card(keyword, value, comment)
    if keyword == "HIERARCH":
        match = _HIERARCH.match(image)
        if match:
            value, comment = _parse_value(match[2])
            return Card(" ".join(match[1].split()), value, comment)
    return Card(keyword, comment=image[8:].rstrip(" "), has_value=False)
