"""Who works on what, and whether they still live: by the clock since boot, which nobody can set."""

from __future__ import annotations

import os
import socket
import time
import uuid
from pathlib import Path
from typing import Final

import msgspec

__all__ = ["Owner", "alive", "boot_id", "gone", "now", "this_process"]

_FIRST_NAMESPACE: Final = "pid:[4026531836]"


class Owner(msgspec.Struct, frozen=True):
    """A process of a service."""

    name: str
    """`host:pid:random`, never used twice."""
    host: str
    boot: str
    pid: int
    started: int
    """When the process began, in clock ticks since boot."""


def now() -> float:
    """Seconds since boot, sleep included; steps of the wall clock do not change it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """A name of this run of the machine; that of the host where the system tells none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return socket.gethostname()


def _host() -> str:
    """The machine, and the room of it in which process numbers mean what they mean here."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = _FIRST_NAMESPACE
    return socket.gethostname() + ("" if namespace == _FIRST_NAMESPACE else f"/{namespace}")


def _started(pid: int) -> int:
    """Start of a process in ticks since boot; 0 if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
        after_name = text[text.rindex(")") + 2 :].split()
        return 0 if after_name[0] in "ZX" else int(after_name[19])
    except (OSError, ValueError, IndexError):
        return 0


def this_process() -> Owner:
    """This process, under a new name."""
    pid = os.getpid()
    name = f"{socket.gethostname()}:{pid}:{uuid.uuid4().hex[:8]}"
    return Owner(name, _host(), boot_id(), pid, _started(pid))


def gone(owner: Owner, here: Owner) -> bool:
    """Whether an owner of this machine is known to be no more."""
    return owner.host == here.host and (owner.boot != here.boot or _started(owner.pid) != owner.started)


def alive(owner: Owner, renewed: float, moment: float, lease: float, here: Owner) -> bool:
    """Whether an owner still has its claims, seen from a process of the same machine or of another.

    On the same machine a process that is gone has lost them at once; otherwise they last `lease` seconds
    after they were renewed, by the clock that `renewed` and `moment` are of. After a new start of the machine
    nothing of before counts, nor does what was renewed later than now: that clock was set back.
    """
    return not gone(owner, here) and -lease < moment - renewed < lease
