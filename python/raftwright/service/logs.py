"""Lines of the log on the standard error: text for people, or one JSON object a line.

Service, obsid and detector stand in every line that is about one (`raftwright.service.bound`):

    2026-11-22T04:05:06.789Z warning forwarder CC_O_20261122_000123 R22_S11: no header yet
    {"time": "2026-11-22T04:05:06.789Z", "level": "warning", "service": "forwarder", "obsid": "CC_O_...", ...}

Times are UTC. Levels are those of `logging`, one to one, in small letters. The formatters are ours: structlog
would cost a forwarder 0.4 s of its start.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TextIO

from raftwright.errors import UsageError
from raftwright.service.context import context

__all__ = ["LEVELS", "JsonFormatter", "TextFormatter", "logging_to", "set_level"]

LEVELS: Final[Mapping[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
_NAMES: Final = {number: name for name, number in LEVELS.items()}
_MOST: Final = 8000
"""Characters of a message."""
_FIRST: Final = ("service", "obsid", "detector")


def _time_of(record: logging.LogRecord) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{whole}.{int(record.created % 1 * 1000):03d}Z"


def _level_of(record: logging.LogRecord) -> str:
    return _NAMES.get(record.levelno, record.levelname.lower())


def _about(record: logging.LogRecord) -> dict[str, Any]:
    """What is bound where it was logged, or was given with it as `extra`."""
    about = dict(context())
    for key in _FIRST:
        if getattr(record, key, None) is not None:
            about[key] = getattr(record, key)
    return about


class TextFormatter(logging.Formatter):
    """A line for people; a traceback follows it."""

    def format(self, record: logging.LogRecord) -> str:
        """As the docstring of the module shows."""
        message = _one_line(record.getMessage())
        words = [_time_of(record), _level_of(record)]
        about = _about(record)
        for key in (*_FIRST, *(key for key in about if key not in _FIRST)):
            word = str(about.get(key, ""))
            if word and (key == "service" or word not in message):  # nothing is said twice
                words.append(word if key in _FIRST else f"{key}={word}")
        text = f"{' '.join(words)}: {message}"
        if record.exc_info and record.exc_info[0] is not None:
            text += "\n" + self.formatException(record.exc_info)
        return text


class JsonFormatter(logging.Formatter):
    """One JSON object: time, level, service, obsid, detector, message, logger; `traceback` of an error."""

    def format(self, record: logging.LogRecord) -> str:
        """As the docstring of the module shows."""
        about = _about(record)
        line: dict[str, Any] = {
            "time": _time_of(record),
            "level": _level_of(record),
            **{key: about.pop(key) for key in _FIRST if key in about},
            "message": record.getMessage()[:_MOST],
            **about,
            "logger": record.name,
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _one_line(text: str) -> str:
    """Nothing in a message begins a line of its own or acts on a terminal."""
    text = text[:_MOST]
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


@contextmanager
def logging_to(stream: TextIO | None = None, *, format: str = "text", level: str = "info") -> Iterator[None]:
    """Raftwright's lines go to a stream, the standard error by default, while this lasts.

    Raises UsageError for a format or level that there is not.
    """
    if format not in ("text", "json"):
        raise UsageError(f"there is no format {format[:40]!a} of logs; there are text, json")
    root = logging.getLogger("raftwright")
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(TextFormatter() if format == "text" else JsonFormatter())
    before = root.level, root.propagate
    set_level(level)
    root.addHandler(handler)
    root.propagate = False
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before[0])
        root.propagate = before[1]


def set_level(level: str) -> None:
    """Only lines of this level and above. Raises UsageError."""
    if level not in LEVELS:
        raise UsageError(f"there is no level {level[:40]!a}; there are {', '.join(LEVELS)}")
    logging.getLogger("raftwright").setLevel(LEVELS[level])
