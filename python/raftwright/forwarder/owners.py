"""Who works on what, and whether they still live: by the clock since boot, which nobody can set."""

from __future__ import annotations

import os
import socket
import time
import uuid
from pathlib import Path

import msgspec

__all__ = ["Owner", "alive", "boot_id", "now", "this_process"]


class Owner(msgspec.Struct, frozen=True):
    """A forwarder process."""

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
    host = socket.gethostname()
    return Owner(f"{host}:{pid}:{uuid.uuid4().hex[:8]}", host, boot_id(), pid, _started(pid))


def alive(owner: Owner, renewed: float, lease: float, here: Owner) -> bool:
    """Whether an owner still has its claims, seen from a process of the same machine or of another.

    On the same machine a process that is gone has lost them at once; otherwise they last `lease` seconds
    after they were renewed. After a new start of the machine nothing of before counts.
    """
    if owner.host == here.host and (owner.boot != here.boot or _started(owner.pid) != owner.started):
        return False
    return now() - renewed < lease
