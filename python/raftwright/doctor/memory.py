"""Memory, shared memory, huge pages."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from raftwright.doctor.finding import Finding, Wishes, group_limits, read, sized

__all__ = ["CHECKS"]

_BASE = 400_000_000
"""What a forwarder needs besides its buffers."""
_SMALLEST_POOL = 300_000_000
"""A board of int32 and a bit."""


def memory(wishes: Wishes) -> Iterator[Finding]:
    """Whether there is enough for the buffers and the pool."""
    text = read(wishes, "proc/meminfo") or ""
    match = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    free = int(match[1]) * 1024 if match else None
    said = "not told" if free is None else f"{sized(free)} available"
    for group, limit in group_limits(wishes, "memory.max"):
        used = read(wishes, str(group / "memory.current"))
        left = max(0, int(limit) - int(used or 0))
        if free is None or left < free:
            free = left
            said = f"{sized(left)} left of this service's {sized(int(limit))}"
    need = wishes.memory + wishes.prompt + _BASE
    wanted = f"{sized(need)} for buffers and pool"
    if free is None or free >= need:
        yield Finding("memory", "warn" if free is None else "ok", said, wanted)
        return
    change = f"raftwright forward --memory {max(100, (free - _BASE) // 2_000_000)}MB, or more memory"
    yield Finding("memory", "fail" if free < _BASE + _SMALLEST_POOL else "warn", said, wanted, change)


def swap(wishes: Wishes) -> Iterator[Finding]:
    """Whether the kernel would rather swap than drop its cache."""
    text = read(wishes, "proc/meminfo") or ""
    match = re.search(r"^SwapTotal:\s+(\d+) kB", text, re.MULTILINE)
    total = int(match[1]) * 1024 if match else 0
    swappiness = int(read(wishes, "proc/sys/vm/swappiness") or 0)
    if total and swappiness > 10:
        said = f"{sized(total)}, vm.swappiness = {swappiness}"
        yield Finding("swap", "warn", said, "none, or vm.swappiness <= 10", "sudo sysctl -w vm.swappiness=1")
    else:
        yield Finding("swap", "ok", sized(total) if total else "none", "none, or vm.swappiness <= 10")


def shared_memory(wishes: Wishes) -> Iterator[Finding]:
    """Whether the pool fits into /dev/shm, and what was left there."""
    if not wishes.prompt:
        return
    try:
        facts = os.statvfs("/dev/shm")
    except OSError as error:
        yield Finding(
            "/dev/shm", "fail", error.strerror or "not there", "a tmpfs", "sudo mount -t tmpfs tmpfs /dev/shm"
        )
        return
    size, free = facts.f_blocks * facts.f_frsize, facts.f_bavail * facts.f_frsize
    said = f"{sized(free)} free of {sized(size)}"
    wanted = f"{sized(wishes.prompt)} for the pool"
    wide = max(2, -(-(wishes.prompt + size - free) // 1_000_000_000))
    change = f"sudo mount -o remount,size={wide}G /dev/shm (in a container: --shm-size={wide}g)"
    if free < _SMALLEST_POOL:
        yield Finding("/dev/shm", "fail", said, wanted, change)
    elif free < wishes.prompt:
        yield Finding("/dev/shm", "warn", said, wanted, change)
    else:
        yield Finding("/dev/shm", "ok", said, wanted)
    yield from _pools()


def _pools() -> Iterator[Finding]:
    from raftwright.prompt import pools

    for pool in pools():
        said = f"{pool.slabs} slabs, {sized(pool.bytes)}"
        name = f"pool {pool.name}"
        if pool.alive:
            yield Finding(name, "ok", f"{said}, of process {pool.owner}", "one owner")
        elif pool.slabs:
            yield Finding(
                name,
                "warn",
                f"{said}, left by process {pool.owner or '?'}",
                "an owner",
                f"raftwright forward --prompt {pool.name} takes it over; or rm -r {pool.path}",
            )


def huge_pages(wishes: Wishes) -> Iterator[Finding]:
    """Whether large allocations may have pages of 2 MB."""
    said = _chosen(read(wishes, "sys/kernel/mm/transparent_hugepage/enabled"))
    shared = _chosen(read(wishes, "sys/kernel/mm/transparent_hugepage/shmem_enabled"))
    if said is None:
        yield Finding("huge pages", "ok", "not told", "madvise or always")
        return
    path = "/sys/kernel/mm/transparent_hugepage"
    found = f"{said}; in shared memory {shared or 'not told'}"
    if said == "never":
        change = f"echo madvise | sudo tee {path}/enabled"
        yield Finding("huge pages", "warn", found, "madvise or always", change)
    else:
        yield Finding("huge pages", "ok", found, "madvise or always")


def _chosen(text: str | None) -> str | None:
    match = re.search(r"\[(\w+)\]", text or "")
    return match[1] if match else None


CHECKS = (
    ("memory", memory),
    ("swap", swap),
    ("/dev/shm", shared_memory),
    ("huge pages", huge_pages),
)
