"""What a mirror is told: which tree, where to, when a file counts as written, what becomes of what
vanishes."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from raftwright.errors import FormatError
from raftwright.service.units import Period, Seconds
from raftwright.transfer.place import Name, Place

__all__ = ["Ingest", "Settings", "TreeSettings"]

_Path: TypeAlias = Annotated[str, Meta(min_length=1, max_length=3000)]
_Pattern: TypeAlias = Annotated[str, Meta(min_length=1, max_length=1000)]


class Ingest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happens to a file once it is verified at the far side."""

    repository: _Path
    """Root of a Butler repository that `raftwright oods init` made. The far side has to be a directory of
    this machine: what is ingested is the copy."""
    include: list[_Pattern] = msgspec.field(default_factory=lambda: ["*.fits", "*.fits.fz"])
    """Names that are ingested, as a shell matches them; other files are mirrored all the same."""
    batch: Annotated[int, Meta(ge=1, le=10_000)] = 50
    retries: Annotated[int, Meta(ge=0, le=10_000)] = 10
    """More tries of a file that cannot be ingested; each after a longer pause, `longest` at most."""
    longest: Period = 600.0


class TreeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One tree and its mirror."""

    name: Name
    source: _Path
    """Root of the tree: an absolute path. Nothing is ever written there."""
    to: Place
    """The far side. What changes is kept there in `.versions`."""
    every: Period = 10.0
    """Between two quick passes: directories whose times have not changed are not read."""
    full: Seconds = 900.0
    """Between two full passes, which look at every file: a content that changes in place leaves the times of
    its directory as they are. The first pass after a start is always one. 0: only the first."""
    hot: Seconds = 600.0
    """A file that changed within this time is looked at in quick passes too, where nothing watches the tree;
    of more than 5000 those that changed last."""
    watch: Literal["auto", "always", "never"] = "auto"
    """inotify. `auto`: where the file system tells of all writers, which one of a network does not."""
    logs: list[_Pattern] = []
    """rsync's own logs, as a shell matches paths: what they name is looked at."""
    logs_below: str = ""
    """Directory of the tree that the names in the logs begin at."""
    logs_only: bool = False
    """The logs are all there is: after the first one there are no passes over the tree but full ones."""
    settle: Seconds = 5.0
    """A file whose size and times stay the same for so long is taken as written."""
    calm: Seconds = 0.2
    """So long where its writer was seen to close or rename it; doubled each time that a file changes again
    soon after, up to `longest`."""
    longest: Seconds = 60.0
    open_patience: Seconds = 3600.0
    """So long one waits for a writer that holds a file open and writes nothing."""
    links: Literal["inside", "copy", "skip"] = "inside"
    """Symbolic links are never followed. `inside`: made there too where they stay within the tree."""
    exclude: list[_Pattern] = msgspec.field(default_factory=lambda: [".nfs*"])
    """Names of files and directories that are left out, as a shell matches them; they are counted."""
    deleted: Literal["keep", "mark", "remove-after"] = "keep"
    """What becomes there of a file that is no more here. `mark`: moved to `.versions`. `remove-after`: and
    from there removed after `remove_after`."""
    remove_after: Period = 30 * 86400.0
    """Counted while the mirror runs, so that no clock that is set makes it shorter."""
    gone_after: Seconds = 60.0
    """A file has to be missing for so long before it is marked."""
    brake: Annotated[float, Meta(gt=0, le=1)] = 0.25
    """Where more than this share of all files vanished, and more than 100, nothing is marked until somebody
    says that it is meant (`raftwright mirror accept`)."""
    renamed: Literal["follow", "copy"] = "follow"
    """A file that was renamed here is renamed there, once its content is found to be the same."""
    strange: Literal["refuse", "version"] = "refuse"
    """Another content under the name there that this mirror did not bring: a conflict, or kept as a
    version."""
    retry_failed: Period = 3600.0
    """What was given up on is tried again so often, and at each start."""
    manifest: str = ""
    """The file in which the mirror remembers. By default in `.mirror` of the archive."""
    ingest: Ingest | None = None

    def __post_init__(self) -> None:
        if not self.source.startswith("/") or "\0" in self.source:
            raise FormatError(f"source: {self.source[:200]!a} is no absolute path; name the directory")
        if self.ingest is not None and self.to.kind != "directory":
            raise FormatError("ingest: needs a directory of this machine as the far side")
        below = self.logs_below.split("/") if self.logs_below else []
        if any(part in ("", ".", "..") for part in below):
            raise FormatError(f"logs_below: {self.logs_below[:200]!a} is no name below the root")
        if self.logs_only and not self.logs:
            raise FormatError("logs_only: names no logs; give logs")
        if self.to.kind == "directory":
            here, there = self.source.rstrip("/") + "/", self.to.root.rstrip("/") + "/"
            if here.startswith(there) or there.startswith(here):
                raise FormatError("to: a tree cannot be mirrored into itself; name a directory elsewhere")


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of a `Mirror`: each tree has its own queue, manifest and troubles."""

    trees: list[TreeSettings] = []

    def __post_init__(self) -> None:
        names = [tree.name for tree in self.trees]
        for name in names:
            if names.count(name) > 1:
                raise FormatError(f"trees: {name} is there twice; give each a name of its own")
        places = [(tree.to.kind, tree.to.root.rstrip("/")) for tree in self.trees]
        for place in places:
            if places.count(place) > 1:
                raise FormatError(f"trees: two have the far side {place[1][:200]!a}; give each its own")
