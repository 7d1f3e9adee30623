"""Several services in one process: one that fails holds no other; new settings are for all or for none."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from raftwright.errors import NotFoundError, RaftwrightError, UsageError
from raftwright.service.context import bound
from raftwright.service.logs import set_level

if TYPE_CHECKING:
    from raftwright.service.base import Service
    from raftwright.service.common import Common
    from raftwright.service.config import Config

__all__ = ["Runner", "registered"]

_log = logging.getLogger("raftwright.service")

_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 30.0
_SOURCES: Final = ("telemetry", "simulator")
"""They end after the others, which finish with their help, one after the other."""


class Runner:
    """Starts the services of a configuration, again and again those that cannot be started, and ends them.

    `observer` is told what happens, in any thread: what the services tell, and `("started", {...})`,
    `("failed", {...})` of them. `reread` reads the configuration anew, for `reload`.

    Raises NotFoundError for a service that the configuration has no section of.
    """

    def __init__(
        self,
        config: Config,
        *,
        only: Sequence[str] | None = None,
        observer: Callable[[str, Mapping[str, Any]], None] | None = None,
        reread: Callable[[], Config] | None = None,
    ) -> None:
        self.config = config
        wanted = config.services if only is None else [name for name in config.services if name in only]
        for name in only or ():
            config.settings(name)
        if not wanted:
            raise NotFoundError(
                "the configuration has no section of a service; add `forwarder: {}` or others"
            )
        self.names = tuple(wanted)
        """Services that run here, in the order of their start."""
        self.services: dict[str, Service] = {}
        """Those that were started."""
        self.failed: dict[str, str] = {}
        """Those that could not be, and why; they are tried again."""
        self._observer = observer
        self._reread = reread
        self._lock = threading.RLock()
        self._ending = threading.Event()
        self._again = threading.Thread(target=self._start_again, name="start again", daemon=True)

    def start(self) -> None:
        """Begins all; those that fail are tried again. Raises StorageError: nowhere for sockets."""
        self.config.common.make_run()
        for name in self.names:
            self._start(name)
        self._again.start()

    def _start(self, name: str) -> None:
        with bound(service=name):
            try:
                service = self.config.build(name)
                service.observer = self._observer
                service.reloader = self._reloader(name)
                service.start()
            except (RaftwrightError, OSError, ImportError) as error:
                self._failed(name, str(error), None)
                return
            except Exception as error:  # a bug of one must not end the others
                self._failed(name, f"{type(error).__name__}: {error}", error)
                return
            with self._lock:
                self.failed.pop(name, None)
                self.services[name] = service
        facts = {
            "service": name,
            "control": None if service.control is None else service.control.endpoint,
            "page": None if service.page is None else service.page.url,
        }
        _register(self.config.common, name, facts)
        self._tell("started", facts)

    def _failed(self, name: str, reason: str, error: Exception | None) -> None:
        new = self.failed.get(name) != reason
        self.failed[name] = reason
        if new:
            _log.error("it does not start: %s; it is tried again", reason, exc_info=error)
            self._tell("failed", {"service": name, "reason": reason})

    def _start_again(self) -> None:
        pause = _FIRST_PAUSE
        while not self._ending.wait(pause):
            for name in list(self.failed):
                if self._ending.is_set():
                    return
                self._start(name)
            pause = min(_LONGEST_PAUSE, 2 * pause) if self.failed else _FIRST_PAUSE

    def stop(self) -> None:
        """Ends all at a time, and what they feed on after them; each within its time. Twice is once."""
        self._ending.set()
        if self._again.ident is not None:
            self._again.join(60.0)
        with self._lock:
            running = list(self.services.items())
            self.services = {}
        groups = [[pair for pair in running if pair[0] not in _SOURCES]]
        groups += [[pair for pair in running if pair[0] == source] for source in _SOURCES]
        for group in groups:
            threads = [
                threading.Thread(target=self._stop, args=pair, name=f"{pair[0]} end") for pair in group
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    def _stop(self, name: str, service: Service) -> None:
        try:
            service.stop()
        except Exception as error:
            _log.error("%s could not be ended well: %s", name, error, exc_info=error)
        _unregister(self.config.common, name)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def idle(self) -> bool:
        """Whether all services run and none has anything left to do."""
        with self._lock:
            return not self.failed and all(service.idle for service in self.services.values())

    def _reloader(self, name: str) -> Callable[[], Any] | None:
        reread = self._reread
        return None if reread is None else lambda: reread().settings(name)

    def reload(self) -> dict[str, list[str]]:
        """The configuration of the files now instead of the one in force: the keys that changed a service.

        Raises what is wrong with it, or cannot change while they run: then nothing has changed.
        """
        if self._reread is None:
            raise UsageError("there are no files to read the configuration from again")
        new = self._reread()
        level = _change_of_common(self.config.common, new.common)
        if new.services != self.config.services:
            raise UsageError("services cannot come or go while others run; the old configuration stays")
        with self._lock:
            before = {name: service.given for name, service in self.services.items()}
            for name, service in self.services.items():
                service.admit(new.settings(name))
            changed: dict[str, list[str]] = {}
            try:
                for name, service in self.services.items():
                    changed[name] = list(service.reload(new.settings(name))["changed"])
            except BaseException:
                for name in changed:
                    self.services[name].reload(before[name])
                raise
            self.config = new
        if level:
            set_level(level)
        _log.info("the configuration was read again")
        return {name: keys for name, keys in changed.items() if keys}

    def _tell(self, what: str, facts: Mapping[str, Any]) -> None:
        if self._observer is not None:
            self._observer(what, facts)


def _change_of_common(before: Common, now: Common) -> str:
    """The new level of the log, or nothing. Raises UsageError where more than that differs."""
    differ = [
        f"{section}.{field}"
        for section, one, other in (
            (name.removesuffix("_section"), getattr(before, name), getattr(now, name))
            for name in before.__struct_fields__
            if name != "services"
        )
        for field in one.__struct_fields__
        if getattr(one, field) != getattr(other, field)
    ]
    fixed = [name for name in differ if name != "log.level"]
    if fixed:
        raise UsageError(
            f"{', '.join(fixed)} cannot change while services run; the old configuration stays, start them "
            "anew to change that"
        )
    return now.log.level if differ else ""


# -- who runs where


def _file(common: Common, name: str) -> Path:
    return common.run / f"{name}.json"


def _register(common: Common, name: str, facts: Mapping[str, Any]) -> None:
    from raftwright.ledger.owners import this_process

    path, here = _file(common, name), this_process()
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    who = {"pid": here.pid, "started": here.started, "boot": here.boot, "host": here.host}
    try:
        beside.write_text(json.dumps({**facts, **who, "since": time.time()}), encoding="utf-8")
        os.replace(beside, path)
    except OSError as error:
        _log.warning("nobody can look up where it is: %s cannot be written (%s)", path, error.strerror)


def _unregister(common: Common, name: str) -> None:
    with contextlib.suppress(OSError):
        _file(common, name).unlink()


def registered(common: Common) -> dict[str, dict[str, Any]]:
    """Services that run on this machine, by name: `pid`, `since`, `page` and `control` (or None). One that
    was killed is none of them, also where another process has its number by now."""
    from raftwright.ledger.owners import Owner, gone, this_process

    found: dict[str, dict[str, Any]] = {}
    here = this_process()
    with contextlib.suppress(OSError):
        for path in sorted(common.run.glob("*.json")):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                facts = json.loads(path.read_text(encoding="utf-8"))
                owner = Owner("", facts["host"], facts["boot"], int(facts["pid"]), int(facts["started"]))
                if not gone(owner, here):
                    found[path.stem] = facts
    return found
