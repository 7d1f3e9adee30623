"""Words in braces: `{obsid}`. A whole word is replaced, in one pass; every other brace stays as it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

__all__ = ["fill", "words_of"]

_WORD: Final = re.compile(r"\{([a-z][a-z0-9]*)\}")


def words_of(text: str) -> list[str]:
    """The words that stand in a text, in their order."""
    return _WORD.findall(text)


def fill(text: str, words: Mapping[str, str]) -> str:
    """The text with its words replaced; what is filled in is not looked at again. An unknown word stays."""
    return _WORD.sub(lambda match: words.get(match[1], match[0]), text)
