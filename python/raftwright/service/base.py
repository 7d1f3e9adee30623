"""What all services have in common: states, tasks that are watched, faults, figures, control, an end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import msgspec

from raftwright._version import __version__
from raftwright.errors import RaftwrightError, UsageError
from raftwright.metrics import Metrics
from raftwright.service.context import bound
from raftwright.service.faults import FaultCode, FaultLog
from raftwright.service.states import COMMANDS, Command, State, target_of
from raftwright.service.tasks import Pulse, Task, Tasks

if TYPE_CHECKING:
    from raftwright.metrics import StatusServer
    from raftwright.service.control import ControlSocket

__all__ = ["Life", "Service"]

_log = logging.getLogger("raftwright.service")

_TICK: Final = 0.5
"""Seconds between two looks at the tasks."""
_JOIN: Final = 5.0
"""Seconds for tasks to end once they are told."""


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """How a service lives at a site; `Common.life(NAME)` gives it."""

    name: str = ""
    """What others call this one; that of the service by default."""
    page: str = ""
    """HOST:PORT of its page; none by default."""
    control: str = ""
    """Endpoint of its control socket; none by default."""
    keys: str = ""
    """Name of the key pair of the control socket; without one it is for this machine alone."""
    key_store: str = ""
    """Directory of the key pairs; that of the user by default."""
    initial: State = State.ENABLED
    """Where it goes when it is started. Sites that command their components say STANDBY."""
    drain: float = 30.0
    """Seconds that its end, and `disable`, wait for what is under way."""
    recovery: bool = True
    """Whether it leaves FAULT by itself once all is well again; else it waits for a command."""


class Service:
    """A service, from `start` to `stop`. A subclass has a NAME and overrides what it needs of the hooks.

    Hooks are called in this order: `open`, then the tasks run; at the end `quiet`, the wait for `in_flight`,
    the tasks end, `close`. Capture does not look at the state. What is done *by command*, and what is
    announced, does: see `enabled`.

    Raises
    ------
    UsageError, StorageError and what `open` raises, from `start`: then everything is closed again.
    """

    NAME: ClassVar[str] = "service"
    LIVE: ClassVar[frozenset[str]] = frozenset()
    """Settings that `apply` can change while it runs. Others need a new start."""
    OBEYS: ClassVar[Mapping[str, frozenset[str]]] = {}
    """Commands of its own, and the arguments that each takes. Others are refused before anything is done."""

    def __init__(
        self, settings: Any, life: Life | None = None, *, metrics: Metrics | None = None, **more: Any
    ) -> None:
        self.settings = settings
        """Those in force."""
        self.given = settings
        """As the configuration has them, before `build` filled in what the site decides."""
        self.life = life or Life(**more)
        self.name = self.life.name or self.NAME
        self.metrics = metrics or Metrics(f"raftwright_{self.NAME}")
        self.tasks = Tasks(self.name)
        self.faults = FaultLog()
        self._pulses: list[Pulse] = []
        self.page: StatusServer | None = None
        self.control: ControlSocket | None = None
        self.publisher: Any = None
        """Of events, where the service has one: it is told each change of state (`serviceState`)."""
        self.observer: Callable[[str, Mapping[str, Any]], None] | None = None
        """Told what happens: `("state", {...})`, `("fault", {...})` and what the service itself tells."""
        self.reloader: Callable[[], Any] | None = None
        """Gives the settings of this service as they are in the files now; for `reload` and `start`."""
        self.phase = "new"
        """new, starting, running, stopping, stopped."""
        self._state = State.STANDBY
        self._before_fault = State.STANDBY
        self._disabling = False
        self._lock = threading.RLock()
        self._commanding = threading.Lock()
        self._ending = threading.Event()
        self._ended = threading.Event()
        self._looked = time.monotonic()
        self._begun = time.monotonic()
        self._watch = threading.Thread(target=self._watch_on, name=f"{self.name} watch"[:60], daemon=True)

    # -- hooks

    def open(self) -> None:
        """Gets what it needs, and adds its tasks (`self.task`). What fails here fails the start."""

    def quiet(self) -> None:
        """Takes on nothing new from now on: it is about to end."""

    def finish(self, seconds: float) -> None:
        """The end has come: takes on nothing new and finishes what is under way, within this time."""
        self.quiet()
        until = time.monotonic() + seconds
        while self.in_flight() and time.monotonic() < until:
            time.sleep(0.02)

    def threads(self) -> Iterable[threading.Thread]:
        """Those of its parts, which are no tasks and have to live. One that is dead is a fault."""
        return ()

    def in_flight(self) -> Collection[Hashable]:
        """What is under way now, by key. The end waits for it, and `disable`. Must answer at once."""
        return ()

    def close(self) -> None:
        """Lets go of everything. Is called once, also after an `open` that failed half way."""

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do now."""
        return not self.in_flight()

    def report(self) -> Mapping[str, Any]:
        """Its own part of the status, as JSON; see `raftwright.metrics.StatusServer`."""
        return {}

    def problems(self) -> list[str]:
        """What is wrong now and no fault, a sentence each."""
        return []

    def check(self, settings: Any) -> None:
        """Raises where new settings cannot be; those in force stay."""

    def apply(self, settings: Any) -> None:
        """Takes on new settings; only those of `LIVE` differ."""

    def changed(self, before: State, now: State) -> None:
        """The state has changed."""

    def obey(self, command: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG002
        """A command of `OBEYS`; only in ENABLED. What it returns is told. Raises where it cannot be done."""
        raise UsageError(f"{self.name} has no command {command[:64]!a}")

    # -- for the hooks

    def task(
        self,
        name: str,
        function: Callable[[Task], None],
        *,
        waiting: Callable[[], float] | None = None,
        patience: float = 30.0,
        once: bool = False,
    ) -> Task:
        """A thread that is watched: see `Task`. `once`: it may come to an end."""
        return self.tasks.add(name, function, waiting=waiting, patience=patience, once=once)

    def pulse(
        self,
        name: str,
        waiting: Callable[[], float],
        *,
        patience: float = 30.0,
        count: Callable[[], object] | None = None,
    ) -> Pulse:
        """Watches that work which waits is done: see `Pulse`."""
        self._pulses.append(Pulse(name, waiting, patience=patience, count=count))
        return self._pulses[-1]

    def fault(self, code: FaultCode, reason: str, key: str = "") -> None:
        """Something that it cannot do without does not work. Again while it lasts, it is nothing new."""
        entered = self.faults.enter(code, key, reason)
        if entered is None:
            return
        _log.error("fault %d %s: %s", code, code.name, reason)
        self.metrics.counter("faults", "Faults", code=code.name).add(1)
        self.tell("fault", entered.to_dict())
        with self._lock:
            if self._state is not State.FAULT:
                self._before_fault = self._state
                self._move(State.FAULT)

    def recovered(self, code: FaultCode, key: str = "") -> None:
        """It works again. After the last of its faults the service is where it was before."""
        ended = self.faults.end(code, key)
        if ended is None:
            return
        _log.info("fault %d %s is over: %s", code, code.name, ended.reason)
        self.tell("fault", ended.to_dict())
        with self._lock:
            if self.life.recovery and self._state is State.FAULT and not self.faults.lasting():
                self._move(self._before_fault)

    def tell(self, what: str, facts: Mapping[str, Any]) -> None:
        """To the observer, if there is one; it cannot harm."""
        if self.observer is not None:
            try:
                self.observer(what, {"service": self.name, **facts})
            except Exception as error:
                _log.error("the observer failed: %s: %s", type(error).__name__, error)

    # -- begin and end

    def start(self) -> Self:
        """Begins; returns once it works. Raises as `open`, and then nothing of it is left."""
        with self._lock:
            if self.phase != "new":
                raise UsageError(f"{self.name} is {self.phase}; a service is started once, make another")
            self.phase = "starting"
        with bound(service=self.name):
            try:
                self._open_page()
                self.open()
                self._looked = time.monotonic()
                self.tasks.start()
                self._watch.start()
                self._open_control()
            except BaseException:
                self.stop(0.0)
                raise
            self._measure()
            _log.info("begins in %s, raftwright %s", self.life.initial, __version__)
            with self._lock:
                self.phase = "running"
                if self._state is not State.FAULT:
                    self._move(self.life.initial, logging.DEBUG)
                else:
                    self._before_fault = self.life.initial
        return self

    def stop(self, drain: float | None = None) -> None:
        """Finishes what is under way, `drain` seconds at most, and closes everything. Twice is once."""
        with self._lock:
            first, ran = self.phase not in ("stopping", "stopped"), self.phase == "running"
            if first:
                self.phase = "stopping"
        if not first:
            self._ended.wait(60.0)
            return
        with bound(service=self.name):
            try:
                if ran:
                    self._drain(self.life.drain if drain is None else drain)
                self._end()
            finally:
                self.phase = "stopped"
                self._ended.set()

    def _drain(self, drain: float) -> None:
        self._guarded(lambda: self.finish(drain), "finish what is under way")
        left = len(self._flying())
        if left and drain:
            _log.warning("%d are left unfinished after %g s; they are done at the next start", left, drain)

    def _end(self) -> None:
        self._ending.set()
        stuck = self.tasks.stop(_JOIN)
        if self._watch.ident is not None:
            self._watch.join(_JOIN)
        if stuck:
            _log.warning("still busy and left behind: %s", ", ".join(stuck))
        if self.control is not None:
            self._guarded(self.control.close, "close its control socket")
        self._guarded(self.close, "close all")
        if self.page is not None:
            self._guarded(self.page.close, "close its page")

    def _guarded(self, function: Callable[[], None], what: str) -> None:
        try:
            function()
        except Exception as error:  # the rest has to be closed as well
            known = isinstance(error, RaftwrightError)
            _log.error("could not %s: %s", what, error, exc_info=None if known else error)

    def _flying(self) -> Collection[Hashable]:
        try:
            return self.in_flight()
        except Exception as error:
            _log.error("nobody knows what is under way: %s", error)
            return ()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _open_page(self) -> None:
        if self.life.page:
            from raftwright.metrics import StatusServer

            self.page = StatusServer(
                self.metrics,
                self.life.page,
                status=self.status,
                ready=lambda: self.phase == "running",
                health=self.illness,
            )

    def _open_control(self) -> None:
        if self.life.control:
            from raftwright.service.control import ControlSocket

            self.control = ControlSocket(
                self.life.control, self, keys=self.life.keys, key_store=self.life.key_store
            )

    def _measure(self) -> None:
        gauge = self.metrics.gauge
        gauge("healthy", "1 where nothing is wrong", read=lambda: float(not self.illness()))
        gauge("tasks_restarted", "Times that a task died", read=lambda: sum(t.restarts for t in self.tasks))
        gauge("faults_lasting", "Faults that are not over", read=lambda: len(self.faults.lasting()))

    # -- state

    @property
    def state(self) -> State:
        """STANDBY, DISABLED, ENABLED or FAULT."""
        return self._state

    @property
    def announcing(self) -> bool:
        """Whether it tells others what it does: in ENABLED, and in FAULT as far as it can."""
        return self._state in (State.ENABLED, State.FAULT)

    @property
    def enabled(self) -> bool:
        """Whether it takes work by command and announces. Capture does not ask."""
        return self._state is State.ENABLED and self.phase == "running" and not self._disabling

    def _move(self, to: State, level: int = logging.INFO) -> None:
        """With the lock held."""
        before, self._state = self._state, to
        if before is to:
            return
        _log.log(level, "%s -> %s", before, to)
        self._guarded(lambda: self.changed(before, to), "tell its parts the state")
        self.tell("state", {"before": before.value, "state": to.value})
        if self.publisher is not None:
            self._guarded(lambda: self._publish(before, to), "announce the state")

    def _publish(self, before: State, to: State) -> None:
        lasting = self.faults.lasting() if to is State.FAULT else []
        self.publisher.publish(
            "serviceState",
            service=self.NAME,
            state=to.value,
            previous=before.value,
            **({"reason": lasting[0].reason, "code": int(lasting[0].code)} if lasting else {}),
        )

    def command(self, command: str, arguments: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """Does a command and returns, once it is done, what there is to tell.

        Raises UsageError and others of raftwright where it is refused or failed: then nothing has changed.
        """
        arguments = arguments or {}
        if command == Command.HEALTH:
            return self.health()
        if command == Command.STATUS:
            return self.status()
        if command == Command.FAULTS:
            return {"faults": self.faults.all(), "count": self.faults.count}
        if self.phase != "running":
            raise UsageError(f"{self.name} is {self.phase} and takes no commands")
        if command not in COMMANDS:
            if not self.enabled:
                raise UsageError(f"{command[:64]} needs ENABLED, and the state is {self._state.value}")
            self._check_arguments(command, arguments)
            return self.obey(command, arguments)
        self._check_arguments(command, arguments)
        if not self._commanding.acquire(blocking=False):
            raise UsageError(f"{self.name} is busy with another command; try again")
        try:
            if command == Command.RELOAD:
                return self.reload()
            return self._go(Command(command))
        finally:
            self._commanding.release()

    def _check_arguments(self, command: str, arguments: Mapping[str, Any]) -> None:
        if command not in COMMANDS and command not in self.OBEYS:
            own = f"; there are {', '.join(self.OBEYS)}" if self.OBEYS else ""
            raise UsageError(f"{self.name} has no command {command[:64]!a}{own}")
        known = self.OBEYS.get(command, frozenset())
        for name, value in arguments.items():
            if name not in known:
                takes = f"; it takes {', '.join(sorted(known))}" if known else ""
                raise UsageError(f"{command} takes no {name[:40]!a}{takes}")
            if not isinstance(value, str | int | float):
                raise UsageError(f"{command}: {name} has to be text, a number, or true or false")

    def _go(self, command: Command) -> Mapping[str, Any]:
        to = target_of(command, self._state)
        told: Mapping[str, Any] = {}
        if command is Command.START and self.reloader is not None:
            told = self.reload()
        if command is Command.DISABLE:
            self._disabling = True
            try:
                self._finish()
            finally:
                self._disabling = False
        with self._lock:
            to = target_of(command, self._state)  # it may have failed meanwhile
            if self._state is State.FAULT:
                self.faults.clear()
            self._move(to)
        return {"state": self._state.value, "version": __version__, **told}

    def _finish(self) -> None:
        """Waits for what was under way when it was asked; what came after it is not waited for."""
        mine = set(self._flying())
        until = time.monotonic() + self.life.drain
        while mine and not self._ending.wait(0.02):
            mine &= set(self._flying())
            if mine and time.monotonic() >= until:
                raise UsageError(
                    f"{len(mine)} are under way after {self.life.drain:g} s; it stays ENABLED, try again"
                )

    def reload(self, settings: Any = None) -> Mapping[str, Any]:
        """New settings instead of those in force, all or none; by default those of the files now.

        Raises where they cannot be read, cannot be, or need a new start: then the old ones stay.
        """
        if settings is None:
            if self.reloader is None:
                raise UsageError(f"{self.name} was started without a file; there is nothing to reload")
            settings = self.reloader()
        before = self.settings
        differ = self.admit(settings)
        if differ:
            new = self._filled(settings, differ)
            try:
                self.apply(new)
            except BaseException:
                self._guarded(lambda: self.apply(before), "go back to the old settings")
                raise
            self.settings, self.given = new, settings
            _log.info("new settings in force: %s", ", ".join(differ))
        return {"changed": sorted(differ)}

    def admit(self, settings: Any) -> list[str]:
        """Which settings would change. Raises as `reload`; changes nothing."""
        before = self.given
        if type(settings) is not type(before):
            raise UsageError(f"these are no settings of {self.name}")
        differ = [
            name for name in before.__struct_fields__ if getattr(before, name) != getattr(settings, name)
        ]
        fixed = sorted(set(differ) - self.LIVE)
        if fixed:
            raise UsageError(
                f"{', '.join(f'{self.NAME}.{name}' for name in fixed)} cannot change while it runs; "
                "the old configuration stays, start it anew to change that"
            )
        self.check(self._filled(settings, differ))
        return differ

    def _filled(self, settings: Any, differ: list[str]) -> Any:
        return msgspec.structs.replace(self.settings, **{name: getattr(settings, name) for name in differ})

    # -- what it tells

    def illness(self) -> list[str]:
        """Why it is not well, a sentence each. Asks nobody who could keep it waiting."""
        said = [fault.reason for fault in self.faults.lasting()]
        unseen = time.monotonic() - self._looked
        if self.phase == "running" and unseen > 20 * _TICK:
            said.append(f"nobody has looked at the tasks for {unseen:.0f} s")
        return said

    def health(self) -> dict[str, Any]:
        """Of this moment; answered at once."""
        said = self.illness()
        return {
            "service": self.name,
            "version": __version__,
            "phase": self.phase,
            "state": self._state.value,
            "healthy": not said,
            "problems": said,
        }

    def status(self) -> dict[str, Any]:
        """As JSON, for the page and the control socket."""
        own = dict(self.report())
        return {
            "service": self.NAME,
            "name": self.name,
            "state": self._state.value,
            "phase": self.phase,
            "uptime_s": round(time.monotonic() - self._begun, 1),
            **({"control": self.control.endpoint} if self.control is not None else {}),
            **own,
            "tasks": {
                task.name: {"restarts": task.restarts, "last_error": task.last_error}
                for task in self.tasks
                if task.restarts
            },
            "faults": self.faults.count,
            "problems": [*self.illness(), *self.problems(), *own.get("problems", [])],
        }

    # -- the watch

    def _watch_on(self) -> None:
        with bound(service=self.name):
            while not self._ending.wait(_TICK):
                try:
                    self._look()
                except Exception as error:
                    _log.error("the watch failed: %s: %s", type(error).__name__, error, exc_info=error)
                self._looked = time.monotonic()

    def _look(self) -> None:
        for task in self.tasks:
            reason = task.failing()
            if reason:
                self.fault(FaultCode.TASK_DIED, reason, task.name)
            else:
                self.recovered(FaultCode.TASK_DIED, task.name)
        for thread in self.threads():
            if not thread.is_alive():
                self.fault(FaultCode.TASK_DIED, f"{thread.name} is dead; start the service anew", thread.name)
        for pulse in [*self._pulses, *(task.pulse for task in self.tasks if task.pulse is not None)]:
            standing = pulse.standing()
            if standing > pulse.patience:
                said = f"{pulse.name}: work waits, and nothing was done for {standing:.0f} s"
                self.fault(FaultCode.NO_PROGRESS, said, pulse.name)
            else:
                self.recovered(FaultCode.NO_PROGRESS, pulse.name)
