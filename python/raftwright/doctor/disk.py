"""Where files go: space, names, how long it takes until they are safe."""

from __future__ import annotations

import os
import re
import secrets
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from raftwright.doctor.finding import Finding, Level, Wishes, read, sized

__all__ = ["CHECKS"]

_LITTLE: Final = 20_000_000_000
_NOTHING: Final = 1_000_000_000
_INODES: Final = 100_000
_SYNC: Final = (0.05, 1.0)
"""Seconds of a small write made durable: above the first a warning, above the second a fault."""
_RATE: Final = 100e6
"""Bytes a second: a raft of compressed files every two seconds."""
_PROBE: Final = 64 << 20
_MEMORY: Final = {"tmpfs", "ramfs", "devtmpfs"}
_REAL: Final = {
    "ext2",
    "ext3",
    "ext4",
    "xfs",
    "btrfs",
    "zfs",
    "f2fs",
    "tmpfs",
    "overlay",
    "nfs",
    "nfs4",
    "ceph",
    "lustre",
}
_NETWORK: Final = {"nfs", "nfs4", "cifs", "smb3", "ceph", "lustre", "beegfs", "gpfs", "fuse.sshfs", "9p"}


def directories(wishes: Wishes) -> Iterator[Finding]:
    """Each directory that files are to be written to."""
    for directory in wishes.out:
        yield from directory_of(wishes, directory)


def directory_of(wishes: Wishes, directory: Path) -> Iterator[Finding]:
    """One of them."""
    name = str(directory)
    if not directory.is_dir():
        said = "is no directory" if directory.exists() else "is not there"
        yield Finding(name, "fail", said, "a directory", f"mkdir -p {directory}")
        return
    if not os.access(directory, os.W_OK | os.X_OK):
        yield Finding(
            name,
            "fail",
            f"user {os.getuid()} may not write there",
            "write permission",
            f"sudo chown {os.getuid()} {directory}",
        )
        return
    yield from _space(directory)
    yield from _kind(wishes, directory)
    try:
        yield _naming(directory)
        yield from _speed(directory)
    except OSError as error:
        change = f"look at it: touch {directory}/probe; df {directory}; mount"
        yield Finding(
            name, "fail", f"cannot be written: {error.strerror}", "files that can be written", change
        )


def _space(directory: Path) -> Iterator[Finding]:
    facts = os.statvfs(directory)
    free = facts.f_bavail * facts.f_frsize
    said = f"{sized(free)} free of {sized(facts.f_blocks * facts.f_frsize)}"
    level: Level = "ok" if free >= _LITTLE else "warn" if free >= _NOTHING else "fail"
    change = "" if level == "ok" else f"free some space, or name another directory: df -h {directory}"
    yield Finding(f"{directory}: space", level, said, f"{sized(_LITTLE)} or more", change)
    if facts.f_files and facts.f_favail < _INODES:
        yield Finding(
            f"{directory}: inodes",
            "warn" if facts.f_favail > 2000 else "fail",
            f"{facts.f_favail} free",
            f"{_INODES} or more",
            f"remove files, or make the file system anew with more inodes: df -i {directory}",
        )


def mounts(wishes: Wishes) -> list[tuple[str, str, str]]:
    """(mount point, type, options) of each mount, in the order they were made."""
    found = []
    for line in (read(wishes, "proc/self/mountinfo") or "").splitlines():
        left, _, right = line.partition(" - ")
        before, after = left.split(), right.split()
        if len(before) >= 6 and after:
            point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), before[4])
            found.append((point, after[0], f"{before[5]},{after[-1]}"))
    return found


def _kind(wishes: Wishes, directory: Path) -> Iterator[Finding]:
    whole = os.path.realpath(directory)
    kind, options = "?", ""
    longest = -1
    below = []
    for point, this, opts in mounts(wishes):
        if whole == point or whole.startswith(point.rstrip("/") + "/"):
            if len(point) >= longest:
                longest, kind, options = len(point), this, opts
        elif point.startswith(whole.rstrip("/") + "/") and this in _REAL:
            below.append(point)
    check = f"{directory}: file system"
    wanted = "a local disk that survives the power"
    if kind in _MEMORY:
        yield Finding(check, "warn", f"{kind}: in memory", wanted, "name a directory on a disk with --out")
    elif kind in _NETWORK or kind.startswith("fuse"):
        change = "keep the ledger on a local disk (--ledger FILE); files may stay there"
        yield Finding(check, "warn", f"{kind}: over a network", wanted, change)
    elif "ro" in options.split(","):
        yield Finding(
            check, "fail", f"{kind}, mounted read-only", wanted, f"sudo mount -o remount,rw {whole}"
        )
    else:
        yield Finding(check, "ok", kind, wanted)
    if below:
        shown = ", ".join(below[:3]) + (" .." if len(below) > 3 else "")
        yield Finding(
            f"{directory}: one file system",
            "warn",
            f"others are mounted below it: {shown}",
            "one, to have room in all of it",
            f"check these too: raftwright doctor --out {below[0]}",
        )


def _naming(directory: Path) -> Finding:
    """A file is given its name in one step, and never in place of another: all that is written relies on
    it."""
    from raftwright import _core
    from raftwright.errors import RaftwrightError

    check, wanted = f"{directory}: names", "never in place of another file"
    probe = directory / f".raftwright-doctor-{secrets.token_hex(4)}"
    try:
        first = _core.publish_bytes(str(probe), b"one", durable=True)["status"]
        again = _core.publish_bytes(str(probe), b"one", durable=True)["status"]
        other = _core.publish_bytes(str(probe), b"another", durable=True)
        if other["status"] == "conflict":
            os.unlink(other["path"])
        same = probe.read_bytes() == b"one"
    except RaftwrightError as error:
        return Finding(
            check, "fail", str(error), wanted, "choose another file system (xfs, ext4, btrfs, zfs)"
        )
    finally:
        probe.unlink(missing_ok=True)
    if (first, again, other["status"], same) == ("written", "unchanged", "conflict", True):
        return Finding(check, "ok", "given in one step", wanted)
    said = f"a name was {first}, then {again}, then {other['status']}"
    return Finding(check, "fail", said, wanted, "choose another file system (xfs, ext4, btrfs, zfs)")


def _speed(directory: Path) -> Iterator[Finding]:
    path = directory / f".raftwright-doctor-{secrets.token_hex(4)}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        times = []
        for number in range(9):
            begun = time.monotonic()
            os.pwrite(fd, b"x" * 4096, number * 4096)
            os.fsync(fd)
            times.append(time.monotonic() - begun)
            if sum(times) > 5.0:
                break
        middle, worst = statistics.median(times), max(times)
        level: Level = "ok" if middle <= _SYNC[0] else "warn" if middle <= _SYNC[1] else "fail"
        yield Finding(
            f"{directory}: fsync",
            level,
            f"{middle * 1e3:.3g} ms, at most {worst * 1e3:.3g} ms",
            f"{_SYNC[0] * 1e3:g} ms or less",
            "" if level == "ok" else "a disk of its own, with a write cache that survives the power",
        )
        # Bytes that do not compress, in case the file system does.
        block = secrets.token_bytes(4 << 20)
        written = 0
        begun = time.monotonic()
        while written < _PROBE and time.monotonic() - begun < 5.0:
            written += os.pwrite(fd, block, written)
        os.fsync(fd)
        speed = written / max(1e-9, time.monotonic() - begun)
        slow = speed < _RATE
        yield Finding(
            f"{directory}: writing",
            "warn" if slow else "ok",
            f"{sized(speed)}/s, durable",
            f"{sized(_RATE)}/s, a raft every 2 s",
            "several disks striped, or fewer rafts on this node (--rafts)" if slow else "",
        )
    finally:
        os.close(fd)
        path.unlink(missing_ok=True)


CHECKS = (("directories", directories),)
