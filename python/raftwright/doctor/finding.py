"""What a check says, and what it is asked about."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

__all__ = ["Finding", "Level", "Wishes", "group_limits", "read", "sized"]

Level: TypeAlias = Literal["ok", "warn", "fail"]
"""`warn`: it works, slower or less safely than it could. `fail`: it will not work."""


class Finding(NamedTuple):
    """One answer of a check."""

    check: str
    level: Level
    found: str
    wanted: str
    change: str = ""
    """The command or the setting that changes it; empty where nothing need be changed."""


class Wishes(NamedTuple):
    """What the machine is to do."""

    out: tuple[Path, ...] = ()
    """Directories that files are written to."""
    endpoint: str | None = None
    """Of the DAQ that is read."""
    metrics: str = "127.0.0.1:9557"
    """Where the page of figures shall be."""
    bind: str | None = None
    """Where a server shall be."""
    memory: int = 2_000_000_000
    """Bytes of the forwarder's buffers."""
    prompt: int = 2_000_000_000
    """Bytes of shared memory for `raftwright.watch`; 0: none."""
    keys: str | None = None
    """Name of a key pair that is used."""
    server_key: str | None = None
    """Public key of the DAQ."""
    key_store: Path | None = None
    root: Path = Path("/")
    """Where /proc and /sys are; tests have others."""


def read(wishes: Wishes, path: str) -> str | None:
    """A small file of the system, without the last line break; None where there is none."""
    try:
        return (wishes.root / path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None


def group_limits(wishes: Wishes, name: str) -> list[tuple[Path, str]]:
    """What the control groups of this process say: the file `name` of its own and of those above, with their
    directories, the own one first; without those that say `max`."""
    own = next(
        (line[3:] for line in (read(wishes, "proc/self/cgroup") or "").splitlines() if line[:3] == "0::"), "/"
    )
    found = []
    for group in (Path(own), *Path(own).parents):
        place = (
            Path("sys/fs/cgroup") / group.relative_to("/") if group.is_absolute() else Path("sys/fs/cgroup")
        )
        text = read(wishes, str(place / name))
        if text and text.split()[0] != "max":
            found.append((place, text))
    return found


def sized(octets: float) -> str:
    """`16.8 MB`."""
    for step, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if octets >= step:
            return f"{octets / step:.3g} {unit}"
    return f"{octets:.0f} B"
