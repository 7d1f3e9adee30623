"""Whether a message is what its kind says: looked at where it is sent and where it is received."""

from __future__ import annotations

import inspect
import math
import threading
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from raftwright.errors import FormatError, RaftwrightError, UsageError
from raftwright.events.identity import colon_list, raft_name, sensor_name
from raftwright.events.kinds import Message
from raftwright.events.messages import OWN
from raftwright.events.observatory import OBSERVATORY

__all__ = ["KINDS", "MESSAGES", "check_fields", "message_of", "schema_of"]

MESSAGES: Final[Mapping[str, type[Message]]] = {kind.KIND: kind for kind in (*OWN, *OBSERVATORY)}
"""Every kind that has a schema. Messages of other kinds pass as they are."""


def _mandatory(kind: type[Message]) -> tuple[str, ...]:
    names, defaults = kind.__struct_fields__, kind.__struct_defaults__
    padded = (msgspec.NODEFAULT,) * (len(names) - len(defaults)) + defaults
    return tuple(name for name, default in zip(names, padded, strict=True) if default is msgspec.NODEFAULT)


def _lists(kind: type[Message]) -> tuple[str, ...]:
    return tuple(
        name
        for part in kind.__mro__
        for name, type_name in inspect.get_annotations(part).items()
        if type_name == "ColonList"
    )


KINDS: Final[Mapping[str, tuple[str, ...]]] = {name: _mandatory(kind) for name, kind in MESSAGES.items()}
"""Kinds of events and the fields that each must have. There may be more fields, and other kinds."""

_LISTS: Final[Mapping[str, tuple[str, ...]]] = {name: _lists(kind) for name, kind in MESSAGES.items()}
_lock = threading.Lock()
_known: set[str] = set()


def schema_of(kind: str) -> int:
    """Version of the schema of a kind; 1 for a kind that has none."""
    message = MESSAGES.get(kind)
    return 1 if message is None else message.SCHEMA


def check_fields(
    kind: str, fields: Mapping[str, Any], error: type[RaftwrightError] = UsageError
) -> dict[str, Any]:
    """The fields as they are told: rafts and sensors in one spelling, lists as colon lists.

    Raises `error` where a field that the kind must have is not there or says nothing, or one is of the wrong
    type, and names it.
    """
    told = dict(fields)
    if kind not in MESSAGES:
        return told
    lacking = [name for name in KINDS[kind] if told.get(name) is None or told[name] == ""]
    if lacking:
        raise error(f"event {kind} lacks {', '.join(lacking)}; give all of {', '.join(KINDS[kind])}")
    try:
        for name, spelt in (("raft", raft_name), ("sensor", sensor_name)):
            if isinstance(told.get(name), str):
                told[name] = spelt(told[name])
        for name in _LISTS[kind]:
            if isinstance(told.get(name), (list, tuple)):
                told[name] = colon_list(told[name])
    except (FormatError, AttributeError) as problem:
        raise error(f"event {kind}: {problem}") from None
    message_of(kind, told, error)
    return told


def message_of(
    kind: str, fields: Mapping[str, Any], error: type[RaftwrightError] = FormatError
) -> Message | None:
    """The fields as the Struct of their kind; None where the kind has no schema. Raises `error`."""
    wanted = MESSAGES.get(kind)
    if wanted is None:
        return None
    if kind not in _known:
        with _lock:  # msgspec learns of a type at its first use, which must not be in two threads
            msgspec.json.Decoder(wanted)
            _known.add(kind)
    try:
        message = msgspec.convert(fields, wanted)
    except (msgspec.ValidationError, RecursionError) as problem:
        raise error(f"event {kind}: {_plain(str(problem))}") from None
    for name in message.__struct_fields__:
        value = getattr(message, name)
        numbers = value if isinstance(value, list) else (value,)
        if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
            raise error(f"event {kind}: {name} is not finite; leave it out where it is not known")
    return message


def _plain(complaint: str) -> str:
    """msgspec's words with the field in front: `Expected `int`, got `str` - at `$.bytes`."""
    said, mark, place = complaint.rpartition(" - at `$.")
    return f"{place.rstrip('`')}: {said}" if mark else complaint
