"""Where events and telemetry come from: publishers, a directory, a DAQ.

Each input is a loop in a thread of its own, which may die and be begun again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from raftwright.errors import FormatError, RaftwrightError
from raftwright.header.collector import Collector
from raftwright.header.intake import TELEMETRY, Intake
from raftwright.header.spec import EVENTS
from raftwright.rawfile import times

if TYPE_CHECKING:
    from raftwright.daq import ImageInfo
    from raftwright.events import DeadLetters
    from raftwright.service.tasks import Task
    from raftwright.stream import NetworkStore

__all__ = ["KINDS", "DaqInput", "daq_facts", "follow_directory", "follow_events"]

_log = logging.getLogger("raftwright.header")

KINDS: Final = (*EVENTS, TELEMETRY)
_POLL: Final = 0.1
_LARGEST: Final = 256 << 10
"""Bytes of a file with one event; no line is longer either."""
_PATIENCE: Final = 5.0
"""Seconds for which a file that is no JSON may still be being written."""
_COMPARE: Final = 60.0
"""Seconds without a notice after which the DAQ's catalogue is looked at."""
_YOUNG: Final = 3600 * 10**9
"""Nanoseconds: of an older image nobody tells any more."""
_MOST_ASKED: Final = 500
_MOST_REMEMBERED: Final = 10_000


def follow_events(
    task: Task, intake: Intake, urls: Sequence[str], dead: DeadLetters | None = None, group: str = "header"
) -> None:
    """Listens to publishers until the task is to end."""
    from raftwright.events import open_subscriber

    with open_subscriber(*urls, kinds=KINDS, group=group, dead=dead) as subscriber:
        while not task.stopping.is_set():
            for event in subscriber.events(timeout=0.2):
                if event.kind == "missed":
                    intake.collector.missed(int(event.fields.get("count", 0)))
                    continue
                refused = intake.take(event.kind, event.fields, event.time)
                if refused is not None and event.kind in EVENTS and "another camera" not in refused:
                    subscriber.refuse(event, refused)
                else:
                    subscriber.done(event)
                task.beat()
                if task.stopping.is_set():
                    return


# -- a directory


def follow_directory(task: Task, intake: Intake, directory: Path, dead: DeadLetters | None = None) -> None:
    """Takes files that appear in a directory: `*.json` with one event, `*.jsonl` with one a line.

    An event is an object with `kind` and `fields`, as on the wire; `time` may be there. Files with one event
    are moved to `taken/` when they are taken, to `refused/` when they cannot be; those with lines stay and
    may grow.
    """
    first_seen: dict[str, float] = {}
    while not task.stopping.is_set():
        done = 0
        for path in _listed(directory):
            if path.suffix == ".jsonl":
                done += _lines(path, intake, dead)
            else:
                done += _single(path, intake, first_seen, dead)
        if done:
            task.beat()
        task.wait(_POLL)


def _listed(directory: Path) -> list[Path]:
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return []
    return [directory / name for name in names if name.endswith((".json", ".jsonl")) and name[0] != "."]


def _single(path: Path, intake: Intake, first_seen: dict[str, float], dead: DeadLetters | None) -> int:
    try:
        with path.open("rb") as stream:
            data = stream.read(_LARGEST + 1)
    except OSError:
        return 0
    problem = "too large" if len(data) > _LARGEST else _take(data, intake)
    if problem == "no JSON":
        since = first_seen.setdefault(path.name, time.monotonic())
        if time.monotonic() - since < _PATIENCE:
            return 0
    first_seen.pop(path.name, None)
    if problem:
        _set_aside(data, problem, path, dead)
    _move(path, "refused" if problem else "taken")
    return 1


def _set_aside(data: bytes, problem: str, path: Path, dead: DeadLetters | None) -> None:
    if dead is None:
        return
    try:
        dead.put(data, problem, str(path))
    except RaftwrightError as error:
        _log.error("%s: %s, and it cannot be set aside: %s", path, problem, error)


def _move(path: Path, where: str) -> None:
    """Out of the way, under a free name; a file that cannot be moved is removed."""
    target = path.parent / where
    try:
        target.mkdir(exist_ok=True)
        name = target / path.name
        if name.exists():
            name = target / f"{path.stem}.{time.time_ns()}{path.suffix}"
        os.rename(path, name)
    except OSError as error:
        _log.warning("%s cannot be moved to %s/ (%s)", path, where, error.strerror)
        with contextlib.suppress(OSError):
            path.unlink()


def _lines(path: Path, intake: Intake, dead: DeadLetters | None) -> int:
    """Takes the whole lines that were added since it was read last."""
    done = 0
    try:
        found = path.stat()
        if intake.offsets.get(str(path)) == (found.st_ino, found.st_size):
            return 0  # nothing was added
        with path.open("rb") as stream:
            status = os.fstat(stream.fileno())
            inode, offset = intake.offsets.get(str(path), (status.st_ino, 0))
            if inode != status.st_ino or offset > status.st_size:
                offset = 0  # another file has its name, or it was cut
            stream.seek(offset)
            while (line := stream.readline(_LARGEST)) and (line.endswith(b"\n") or len(line) >= _LARGEST):
                offset += len(line)
                if line.strip():
                    problem = _take(line, intake)
                    if problem:
                        _set_aside(line, problem, path, dead)
                    done += 1
            if done:
                intake.offset(str(path), status.st_ino, offset)
    except OSError as error:
        _log.warning("%s cannot be read on (%s)", path, error)
    return done


def _take(data: bytes, intake: Intake) -> str:
    """Why an event cannot be taken; nothing where it is."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return "no JSON"
    if not isinstance(content, dict):
        return "no object"
    kind, fields, told = content.get("kind"), content.get("fields"), content.get("time", "")
    if not isinstance(kind, str) or not isinstance(fields, dict):
        return "an event is an object with `kind` and `fields`"
    if kind not in KINDS:
        return f"{kind[:40]!a} is no kind of event that makes up a header"
    return intake.take(kind, _plain(fields), told if isinstance(told, str) else "") or ""


def _plain(value: Any) -> Any:
    """NaN as the word: what is journalled is JSON."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return value


# -- the DAQ


class DaqInput:
    """What the DAQ's server says of images: of those that begin by its notices, of those of which no notice
    came by its catalogue. `has` says whether an image has a document already."""

    def __init__(self, collector: Collector, store: NetworkStore, has: Callable[[str], bool]) -> None:
        self._collector = collector
        self._store = store
        self._has = has
        self._asked: OrderedDict[str, None] = OrderedDict()

    def follow(self, task: Task) -> None:
        """Until the task is to end; who closes the store ends the wait for notices at once."""
        while not task.stopping.is_set():
            try:
                for notice in self._store.notices(timeout=_COMPARE):
                    if task.stopping.is_set():
                        return
                    if notice.kind in ("begun", "complete"):
                        self._ask(notice.image)
                    elif notice.kind == "missed":
                        self._compare()
                    elif notice.kind == "removed":
                        self._asked.pop(notice.image, None)
                    task.beat()
            except RaftwrightError as error:
                if not task.stopping.is_set():
                    _log.info("the DAQ's notices: %s", error)
            task.wait(1.0)

    def _compare(self) -> None:
        """Images of the last hour that have no document: this service may not have been there."""
        young = times.now() - _YOUNG
        names = self._store.underway() + sorted(self._store.images(), key=_age)[-_MOST_ASKED:]
        for name in names:
            if name in self._asked or self._collector.knows(name) or self._has(name):
                continue
            self._ask(name, young)

    def _ask(self, name: str, young: int | None = None) -> None:
        """Asks what the DAQ knows of an image; where it is older than `young`, nothing comes of it."""
        try:
            info = self._store.image(name).info
        except RaftwrightError as error:
            _log.info("%s: the DAQ says nothing of it: %s", name, error)
            return
        self._asked[name] = None
        while len(self._asked) > _MOST_REMEMBERED:
            self._asked.popitem(last=False)
        if young is None or _taken(info) > young:
            self._collector.daq(name, daq_facts(info), time.monotonic())


def _age(name: str) -> list[str]:
    """By day and number, whoever took it."""
    return name.split("_")[2:]


def _taken(info: ImageInfo) -> int:
    """Nanoseconds TAI; 0 where the DAQ does not say it."""
    try:
        return times.parse_iso(info.timestamp)
    except FormatError:
        return 0


def daq_facts(info: ImageInfo) -> Mapping[str, Any]:
    """What the cards of a header may ask of the DAQ."""
    return {
        "id": info.id,
        "timestamp": info.timestamp,
        "folder": info.folder,
        "annotation": info.annotation,
        "opcode": info.opcode,
        "sources": {
            source.location: {
                "firmware": source.firmware,
                "serial": source.serial,
                "platform": source.platform,
                "software": source.software,
            }
            for source in info.sources
        },
    }
