"""Whether the far side still has what was verified there: by size, or read back anew."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from raftwright.errors import NotFoundError
from raftwright.mirror.bringing import Bringer
from raftwright.mirror.far import Far
from raftwright.mirror.manifest import Manifest
from raftwright.mirror.tables import Entry
from raftwright.mirror.tree import shown

__all__ = ["Checked", "check"]

_AT_A_TIME = 1000
_LISTED = 1000


class Checked(msgspec.Struct, kw_only=True):
    """What a check found."""

    files: int = 0
    lost: int = 0
    damaged: int = 0
    listed: list[dict[str, str]] = []
    """The first of them: path, what, whether it is brought again."""


def check(
    far: Far, manifest: Manifest, bringer: Bringer, *, read: bool, go_on: Callable[[], bool] = lambda: True
) -> Checked:
    """Looks at everything that is to be there; what is lost is brought again, what is damaged set aside
    first. What is gone here can only be told. Raises OutageError, RefusedError, StorageError."""
    found = Checked()
    sizes = dict(far.sender.walk())
    after = 0
    while go_on() and (entries := manifest.all_there(after, _AT_A_TIME)):
        after = entries[-1].id
        for entry in entries:
            if entry.facts.kind == "link":
                continue
            found.files += 1
            if not read and sizes.get(entry.path) == entry.far_bytes:
                continue
            what = _mend(far, manifest, bringer, entry)
            if not what:
                continue
            found.lost += what == "lost"
            found.damaged += what == "damaged"
            if len(found.listed) < _LISTED:
                again = "is brought again" if entry.state != "gone" else "is gone here too"
                found.listed.append({"path": shown(entry.path), "what": what, "then": again})
    return found


def _mend(far: Far, manifest: Manifest, bringer: Bringer, entry: Entry) -> str:
    """Reads a file there; `lost`, `damaged` or nothing, and does about it what is to be done."""
    with bringer.hold(entry) as now:
        if now is None or now.far != "there" or now.crc32c != entry.crc32c or now.state == "sending":
            return ""  # it has been brought anew meanwhile
        try:
            if far.sender.crc32c(entry.path) == entry.crc32c:
                return ""
            what = "damaged"
            far.sender.set_aside(entry.path, "damaged")
        except NotFoundError:
            what = "lost"
        manifest.lost(entry)
        return what
