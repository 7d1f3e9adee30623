"""Processors, limits and the clock."""

from __future__ import annotations

import ctypes
import os
import resource
from collections import Counter
from collections.abc import Iterator

from raftwright.doctor.finding import Finding, Level, Wishes, group_limits, sized

__all__ = ["CHECKS"]

_FILES = 4096
_UNSYNCHRONISED = 0x40
_WORST_CLOCK = 0.1


def processors(wishes: Wishes) -> Iterator[Finding]:
    """How many there are for this process, and their instructions."""
    from raftwright import _core

    usable = _core.usable_processors()
    total = os.cpu_count() or usable
    said = f"{usable} of {total}" if usable != total else f"{usable}"
    wanted = "2 or more"
    quotas = [text.split() for _, text in group_limits(wishes, "cpu.max")]
    shares = [int(quota[0]) / int(quota[1]) for quota in quotas if len(quota) == 2]
    if shares:
        said += f", at most {min(shares):.3g} at a time"
        usable = min(usable, int(min(shares)))
    change = "" if usable >= 2 else "give the container or the virtual machine more (docker run --cpus=4)"
    yield Finding("processors", "ok" if usable >= 2 else "warn", said, wanted, change)
    level = _core.active_level()
    best = _core.available_levels()[-1]
    if level == "scalar" and best != "scalar":
        yield Finding("instructions", "warn", level, best, "unset RAFTWRIGHT_KERNELS")
    elif level == "scalar":
        yield Finding(
            "instructions",
            "warn",
            "neither AVX2 nor NEON",
            "one of the two: descrambling is some five times slower without",
            "choose another machine, or for the virtual one the processor type 'host'",
        )
    else:
        yield Finding("instructions", "ok", level, "avx2 or neon")


def governor(wishes: Wishes) -> Iterator[Finding]:
    """Whether processors run at full speed when something comes."""
    found: Counter[str] = Counter()
    base = wishes.root / "sys/devices/system/cpu"
    for path in sorted(base.glob("cpu[0-9]*/cpufreq/scaling_governor")):
        found[path.read_text(encoding="ascii").strip()] += 1
    said = ", ".join(f"{name} ({count})" for name, count in found.items()) or "not told (a virtual machine?)"
    slow = set(found) - {"performance"}
    change = "sudo cpupower frequency-set --governor performance" if slow else ""
    yield Finding("processor governor", "warn" if slow else "ok", said, "performance", change)


def limits(wishes: Wishes) -> Iterator[Finding]:
    """What this process may have open, and how large its files may be."""
    del wishes
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    said = _limit(soft) + ("" if soft == hard else f" (up to {_limit(hard)} on request)")
    raised = "ulimit -n 65536, or LimitNOFILE=65536 in the service's unit"
    if _at_least(soft, _FILES):
        yield Finding("open files", "ok", said, f"{_FILES} or more")
    else:
        level: Level = "warn" if _at_least(hard, _FILES) else "fail"
        yield Finding("open files", level, said, f"{_FILES} or more", raised)
    soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    change = "ulimit -f unlimited, or LimitFSIZE=infinity in the service's unit"
    small = not _at_least(soft, 1 << 30)
    said = "no limit" if soft == resource.RLIM_INFINITY else sized(soft)
    yield Finding("size of files", "fail" if small else "ok", said, "no limit", change if small else "")
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    few = not _at_least(soft, 1024)
    change = "ulimit -u 4096, or TasksMax=4096 in the service's unit" if few else ""
    yield Finding("processes and threads", "warn" if few else "ok", _limit(soft), "1024 or more", change)
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    said = "no limit" if soft == resource.RLIM_INFINITY else sized(soft)
    yield Finding("locked memory", "ok", said, "any: nothing is locked")
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        yield Finding(
            "address space", "warn", sized(soft), "no limit: shared memory counts", "ulimit -v unlimited"
        )


def _limit(value: int) -> str:
    return "no limit" if value == resource.RLIM_INFINITY else f"{value}"


def _at_least(value: int, wanted: int) -> bool:
    return value == resource.RLIM_INFINITY or value >= wanted


class _Timex(ctypes.Structure):
    """The kernel's `struct timex`, as far as it is read here."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


def clock_state() -> tuple[bool, float] | None:
    """Whether the kernel's clock is synchronised, and by how many seconds it may be wrong; None if
    unknown."""
    state = _Timex()
    try:
        if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(state)) < 0:
            return None
    except (OSError, AttributeError):
        return None
    return not state.status & _UNSYNCHRONISED, state.maxerror * 1e-6


def clock(wishes: Wishes) -> Iterator[Finding]:
    """Whether anything keeps the clock right. Times in headers and the order of a night's records need it."""
    del wishes
    wanted = f"synchronised, within {_WORST_CLOCK * 1e3:g} ms"
    state = clock_state()
    if state is None:
        yield Finding("clock", "warn", "not told", wanted, "look at chronyc tracking")
    elif not state[0]:
        yield Finding(
            "clock",
            "warn",
            "not synchronised",
            wanted,
            "install chrony, then sudo systemctl enable --now chronyd",
        )
    elif state[1] > _WORST_CLOCK:
        said = f"synchronised, within {state[1] * 1e3:.0f} ms"
        yield Finding("clock", "warn", said, wanted, "nearer time servers in chrony.conf")
    else:
        yield Finding("clock", "ok", f"synchronised, within {state[1] * 1e3:.3g} ms", wanted)


CHECKS = (
    ("processors", processors),
    ("processor governor", governor),
    ("limits", limits),
    ("clock", clock),
)
