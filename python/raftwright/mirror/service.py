"""The mirror as a service: all trees of a site, each with its own tasks, queue and troubles."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec

from raftwright.errors import NotFoundError, RaftwrightError, UsageError
from raftwright.mirror.mirroring import TreeMirror
from raftwright.mirror.settings import Settings, TreeSettings
from raftwright.service.base import Life, Service

if TYPE_CHECKING:
    from raftwright.service.common import Common

__all__ = ["NAME", "Mirror", "build", "manifest_of"]

NAME: Final = "mirror"

_STUCK: Final = 60.0
"""With `once`: it ends where nothing has moved for so long."""


class Mirror(Service):
    """Mirrors trees.

    Parameters
    ----------
    manifests
        Directory of manifests of trees that name none.
    once, trial, checksum
        See `TreeMirror`.

    Raises
    ------
    StorageError, FormatError, UsageError
        From `start`: a manifest that cannot be had, a far side or manifest within the tree. A
        tree or far side that is not there is waited for.
    """

    NAME: ClassVar[str] = NAME
    OBEYS: ClassVar[Mapping[str, frozenset[str]]] = {
        **dict.fromkeys(("look", "retry", "accept"), frozenset({"tree"})),
        "check": frozenset({"tree", "read"}),
    }

    settings: Settings

    def __init__(
        self,
        settings: Settings,
        manifests: Path,
        life: Life | None = None,
        *,
        once: bool = False,
        trial: bool = False,
        checksum: bool = False,
        patience: float = _STUCK,
        **more: Any,
    ) -> None:
        super().__init__(settings, life, **more)
        self._manifests = manifests
        self._how = {"once": once, "trial": trial, "checksum": checksum}
        self._patience = patience if once or trial else 0.0
        self.trees: dict[str, TreeMirror] = {}

    # -- begin and end

    def open(self) -> None:
        """See `Service`."""
        for tree in self.settings.trees:
            manifest = manifest_of(tree, self._manifests)
            _check_apart(tree, manifest)
            one = TreeMirror(
                tree,
                manifest,
                self.metrics,
                lambda facts: self.tell("pass" if "pass" in facts else "file", facts),
                **self._how,
            )
            self.trees[tree.name] = one
            one.open()
            for name, work in one.tasks().items():
                self.task(name, work)

    def quiet(self) -> None:
        """See `Service`."""
        for tree in self.trees.values():
            tree.quiet()

    def in_flight(self) -> Collection[Hashable]:
        """Files on their way."""
        return [name for tree in self.trees.values() for name in tree.lane.in_flight()]

    def close(self) -> None:
        """Everything that was opened."""
        for tree in self.trees.values():
            tree.close()

    @property
    def idle(self) -> bool:
        """Whether every tree is as it was found."""
        return all(tree.idle(self._patience) for tree in self.trees.values())

    # -- by command

    def obey(self, command: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """look, retry, accept, check; of one `tree` or of all. Raises UsageError, NotFoundError."""
        name = str(arguments.get("tree", ""))
        if name and name not in self.trees:
            raise NotFoundError(f"there is no tree {name[:40]!a}; there are {', '.join(self.trees)}")
        found: dict[str, Any] = {}
        for one in [self.trees[name]] if name else self.trees.values():
            found[one.name] = obey(one, command, read=bool(arguments.get("read")))
        return found

    # -- what it tells

    def problems(self) -> list[str]:
        """See `Service`."""
        return [sentence for tree in self.trees.values() for sentence in tree.problems()]

    def report(self) -> Mapping[str, Any]:
        """See `Service`."""
        found = {}
        for name, tree in self.trees.items():
            try:
                found[name] = tree.status()
            except RaftwrightError as error:
                found[name] = {"problems": [str(error)]}
        return {"trees": found}


def obey(tree: TreeMirror, command: str, *, read: bool = False) -> dict[str, Any]:
    """A command to one tree. Raises UsageError where there is no such, and what it raises."""
    if command == "look":
        tree.look()
        return {}
    if command == "retry":
        ingests = tree.ingesting.again() if tree.ingesting is not None else 0
        return {"files": tree.retry(), "ingests": ingests}
    if command == "accept":
        return {"files": tree.tidier.accept()}
    if command == "check":
        found: dict[str, Any] = msgspec.to_builtins(tree.check(read=read))
        return found
    raise UsageError(f"the mirror has no command {command[:64]!a}; there are look, retry, accept, check")


def manifest_of(tree: TreeSettings, directory: Path) -> Path:
    """The file in which a tree's mirror remembers: of this tree and this far side, and no other."""
    if tree.manifest:
        return Path(tree.manifest)
    both = f"{os.path.realpath(tree.source)}\0{tree.to.kind}\0{tree.to.root}"
    mark = hashlib.sha256(both.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return directory / f"{tree.name}-{mark}.db"


def _check_apart(tree: TreeSettings, manifest: Path) -> None:
    """By whatever links, nothing is to be written into a tree: it would be mirrored in turn, for ever."""
    source = Path(os.path.realpath(tree.source))
    if Path(os.path.realpath(manifest)).is_relative_to(source):
        raise UsageError(
            f"{manifest}: the manifest would be in the tree itself; name a file elsewhere for it"
        )
    if tree.to.kind == "directory":
        root = Path(os.path.realpath(tree.to.root))
        if root.is_relative_to(source) or source.is_relative_to(root):
            raise UsageError(f"{tree.to.root}: is in the tree, or the tree in it; name a directory elsewhere")


def build(settings: Settings, common: Common) -> Mirror:
    """The mirror of a site."""
    common.make_run()
    return Mirror(settings, common.root / ".mirror", common.life(NAME))
