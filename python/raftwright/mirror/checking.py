"""Whether the far side still has what was verified there: by size, or read back anew."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from raftwright.errors import NotFoundError
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


def check(far: Far, manifest: Manifest, *, read: bool, go_on: Callable[[], bool] = lambda: True) -> Checked:
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
            what = _look(far, entry, sizes.get(entry.path), read)
            if not what:
                continue
            if what == "damaged":
                found.damaged += 1
                far.sender.set_aside(entry.path, "damaged")
            else:
                found.lost += 1
            manifest.lost(entry)
            if len(found.listed) < _LISTED:
                again = "is brought again" if entry.state != "gone" else "is gone here too"
                found.listed.append({"path": shown(entry.path), "what": what, "then": again})
    return found


def _look(far: Far, entry: Entry, size: int | None, read: bool) -> str:
    if size is None:
        return "lost"
    if size != entry.far_bytes:
        return "damaged"
    if read:
        try:
            return "" if far.sender.crc32c(entry.path) == entry.crc32c else "damaged"
        except NotFoundError:
            return "lost"
    return ""
