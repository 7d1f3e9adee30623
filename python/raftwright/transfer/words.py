"""Words in braces: `{obsid}`. A whole word is replaced, in one pass; every other brace stays as it is."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final

from raftwright.errors import FormatError

__all__ = ["check_words", "fill", "words_of"]

_WORD: Final = re.compile(r"\{([a-z][a-z0-9]*)\}")


def words_of(text: str) -> list[str]:
    """The words that stand in a text, in their order."""
    return _WORD.findall(text)


def fill(text: str, words: Mapping[str, str]) -> str:
    """The text with its words replaced; what is filled in is not looked at again. An unknown word stays."""
    return _WORD.sub(lambda match: words.get(match[1], match[0]), text)


def check_words(text: str, known: Collection[str], key: str) -> None:
    """Raises FormatError for a word that is not known."""
    unknown = [word for word in words_of(text) if word not in known]
    if unknown:
        raise FormatError(f"{key}: {{{unknown[0]}}} is unknown; there are {', '.join(sorted(known))}")
