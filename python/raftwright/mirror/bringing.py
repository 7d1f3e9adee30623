"""One file from the tree to the far side: read as it is, sent, verified there, versions kept.

The sum is taken of the open file between two looks at it; where it changed meanwhile it is not sent, and
where it changes while it is sent, the copy does not have that sum and is not kept. So what gets a name at
the far side is what the file once was as a whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from typing import Final, Literal, TypeAlias

import msgspec

from raftwright.errors import ConflictError, NotFoundError, RaftwrightError
from raftwright.mirror.far import Far
from raftwright.mirror.listing import Facts
from raftwright.mirror.manifest import Manifest
from raftwright.mirror.settings import TreeSettings
from raftwright.mirror.tables import Entry
from raftwright.mirror.tree import Tree, crc_of, facts_of, shown
from raftwright.transfer import Job, OutageError, RefusedError

__all__ = ["VERSIONS", "Bringer", "Brought"]

VERSIONS: Final = ".versions"
_PATIENCE: Final = 30.0
_STAGED: Final = f"{VERSIONS}/.new"

Verdict: TypeAlias = Literal["mirrored", "changed", "busy", "gone", "skipped"]


class Brought(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an entry."""

    verdict: Verdict
    """`changed`: it is other than it was found, `busy`: somebody writes it, `gone`: there is none, `skipped`:
    it is not mirrored."""
    how: str = ""
    """new, same, renamed, version, link."""
    crc32c: str = ""
    facts: Facts | None = None
    reason: str = ""
    bytes: int = 0
    """That were moved."""


class _OvertakenError(RaftwrightError):
    """The entry is in other hands."""


class Bringer:
    """Thread-safe. `bring` raises ConflictError, OutageError, RefusedError, StorageError."""

    def __init__(self, tree: Tree, far: Far, manifest: Manifest, settings: TreeSettings) -> None:
        self._tree = tree
        self._far = far
        self._manifest = manifest
        self._settings = settings
        self._by_path = settings.to.kind == "command"
        """Its programs open the file by its name."""
        self._held: set[int] = set()
        self._free = threading.Condition()

    def bring(self, entry: Entry) -> Brought:
        """Makes sure that the far side has this content under this name."""
        with self.hold(entry) as now:
            if now is not None:
                entry.far, entry.crc32c, entry.far_bytes = now.far, now.crc32c, now.far_bytes
                entry.staged, entry.sent = now.staged, now.sent
            try:
                return self._bring(entry)
            except _OvertakenError:
                return Brought(verdict="changed", reason="changed while it was brought")

    def left_out(self, entry: Entry) -> str:
        """Why an entry is not mirrored; empty where it is."""
        if entry.facts.kind == "link":
            text = self._tree.link(entry.path)
            return "" if text is None else self._link_left_out(entry, text)
        return "" if entry.facts.kind == "file" else "is no regular file"

    def _link_left_out(self, entry: Entry, text: str) -> str:
        if self._settings.links == "skip" or not self._far.links:
            return "is a symbolic link, and links are not mirrored"
        if self._settings.links == "inside" and _leads_out(entry.path, text):
            return f"is a link that leads out of the tree, to {shown(text)}"
        return ""

    @contextlib.contextmanager
    def hold(self, entry: Entry) -> Iterator[Entry | None]:
        """Nobody else does anything at the far side about an entry meanwhile; gives it as it stands now.
        Raises OutageError where somebody hangs there."""
        until = time.monotonic() + _PATIENCE
        with self._free:
            while entry.id in self._held:
                if not self._free.wait(until - time.monotonic()):
                    raise OutageError(f"{shown(entry.path)}: another try hangs at the far side")
            self._held.add(entry.id)
        try:
            yield self._manifest.one(entry.id)
        finally:
            with self._free:
                self._held.discard(entry.id)
                self._free.notify_all()

    def _bring(self, entry: Entry) -> Brought:
        if entry.path.split("/", 1)[0] == VERSIONS:
            raise ConflictError(f"{VERSIONS}: there the far side keeps versions; call it otherwise")
        if entry.facts.kind == "link":
            return self._link(entry)
        if entry.facts.kind != "file":
            return Brought(verdict="skipped", reason=self.left_out(entry))
        with self._tree.file(entry.path) as file:
            if file is None:
                return self._other(entry)
            if facts_of(os.fstat(file)) != entry.facts:
                return Brought(verdict="changed", facts=facts_of(os.fstat(file)))
            if self._tree.being_written(file) and entry.still < self._settings.open_patience:
                return Brought(verdict="busy", reason="somebody has it open for writing")
            crc, size = crc_of(file)
            now = facts_of(os.fstat(file))
            if now != entry.facts or size != entry.facts.bytes:
                return Brought(verdict="changed", facts=now)
            if crc == entry.crc32c and entry.far == "there" and self._stamped(entry):
                return Brought(verdict="mirrored", how="same", crc32c=crc)
            path = os.path.join(self._tree.root, entry.path) if self._by_path else f"/proc/self/fd/{file}"
            self._manifest.sends(entry, crc)
            try:
                return self._file(entry, Job(path=path, target=entry.path, bytes=size, crc32c=crc))
            except RefusedError:
                if facts_of(os.fstat(file)) == entry.facts:
                    raise
                return Brought(verdict="changed", facts=facts_of(os.fstat(file)))

    def _other(self, entry: Entry) -> Brought:
        """It is no file (any more)."""
        facts = self._tree.facts(entry.path)
        return Brought(verdict="gone") if facts is None else Brought(verdict="changed", facts=facts)

    def _stamped(self, entry: Entry) -> bool:
        """Gives the file there its time; False where it is lost."""
        with contextlib.suppress(NotFoundError):
            self._far.stamp(entry.path, entry.facts.mtime)
            return True
        return False

    # -- a file

    def _file(self, entry: Entry, job: Job) -> Brought:
        how = "new"
        moved = 0
        self._clear_above(entry)
        if entry.far != "there" and self._settings.renamed == "follow" and self._renamed(entry, job):
            how = "renamed"
        elif entry.far == "there":
            moved, how = self._version(entry, job), "version"
        else:
            try:
                sent = self._far.sender.send(job)
                moved = sent.bytes
                how = "same" if sent.how == "there already" else "new"
            except ConflictError:
                moved, how = self._version(entry, job), "version"
        self._far.stamp(entry.path, entry.facts.mtime)
        if entry.staged:
            self._far.discard(entry.staged)
        return Brought(verdict="mirrored", how=how, crc32c=job.crc32c, bytes=moved)

    def _renamed(self, entry: Entry, job: Job) -> bool:
        """Whether the far side had it under another name, and has it under the new one now."""
        for before in self._manifest.renamed_from(entry.facts):
            if before.crc32c != job.crc32c or self._far.kind(entry.path) != "none":
                continue
            self._mine(entry)
            try:
                self._far.move(before.path, entry.path)
            except (NotFoundError, ConflictError):
                continue
            self._manifest.far(before, "moved")
            if self._far.sender.crc32c(entry.path) == job.crc32c:
                return True
            self._far.sender.set_aside(entry.path, "damaged")
        return False

    def _version(self, entry: Entry, job: Job) -> int:
        """Another content has the name: it is kept as a version, and this one put in its place."""
        kind = self._far.kind(entry.path)
        if kind == "none":
            return self._far.sender.send(job).bytes
        if kind == "directory":
            self._clear_directory(entry)
            return self._far.sender.send(job).bytes
        if kind == "link" and entry.far == "there":
            self._set_aside(entry, "changed")
            return self._far.sender.send(job).bytes
        if kind != "file":
            raise ConflictError(f"{shown(entry.path)}: something that is no file has this name there")
        there = self._far.sender.crc32c(entry.path)
        if there == job.crc32c:
            return self._far.sender.send(job).bytes  # which looks at it, and finds it there
        why = "changed" if there == entry.crc32c or there in entry.sent.split() else "strange"
        if why == "strange" and self._settings.strange == "refuse":
            raise ConflictError(
                f"{shown(entry.path)}: another content ({there}) has this name there, which this mirror did"
                " not bring; it is left as it is, look at both"
            )
        staged = f"{_STAGED}/{entry.id}-{job.crc32c}"
        if entry.staged not in ("", staged):
            self._far.discard(entry.staged)
        self._manifest.staged(entry, staged)
        sent = self._far.sender.send(Job(path=job.path, target=staged, bytes=job.bytes, crc32c=job.crc32c))
        self._mine(entry)
        bytes = entry.far_bytes if there == entry.crc32c else -1
        self._far.replace(staged, entry.path, self._wanted(entry, there, bytes, why))
        self._manifest.keep_version(entry.id)
        if self._far.sender.crc32c(entry.path) != job.crc32c:
            raise RefusedError(f"{shown(entry.path)}: is not what was put there a moment ago; tried again")
        return sent.bytes

    def _wanted(self, entry: Entry, crc: str, bytes: int, why: str) -> str:
        """A name for a version, written down before it is used. Where one was about to be made of the same
        content, it is that."""
        number = 1
        for version in self._manifest.versions(entry.id):
            if version.state == "wanted":
                if version.crc32c == crc or self._far.kind(version.target) == "none":
                    number = version.number
                    break
                self._manifest.keep_version(entry.id)
            number = version.number + 1
        while True:
            target = f"{VERSIONS}/{entry.path}/v{number}-{crc}"
            if self._far.kind(target) == "none" or any(
                version.target == target and version.state == "wanted"
                for version in self._manifest.versions(entry.id)
            ):
                break
            number += 1  # of a manifest that is lost
        self._manifest.want_version(entry.id, number, target, bytes, crc, why)
        return target

    # -- what is in the way

    def mark(self, entry: Entry) -> bool:
        """Moves what the far side has of a file that is gone to a version name; False where it is back.
        Raises NotFoundError too, ConflictError where something else has its name there."""
        with self.hold(entry) as now:
            if now is None or now.state != "gone" or now.far != "there":
                return False
            if not self._brought(now):
                self._manifest.far(now, "")
                raise ConflictError("another content has this name there, which is left as it is")
            self._set_aside(now, "deleted")
            return True

    def _brought(self, entry: Entry) -> bool:
        """Whether what has the name there is what this mirror brought. Raises NotFoundError."""
        kind = self._far.kind(entry.path)
        if kind == "none":
            raise NotFoundError(f"{shown(entry.path)}: is not there")
        if kind == "link":
            return _sum_of_link(self._far.read_link(entry.path) or "") == entry.crc32c
        return kind == "file" and self._far.sender.crc32c(entry.path) in (
            entry.crc32c,
            *entry.sent.split(),
        )

    def _set_aside(self, entry: Entry, why: str) -> None:
        self._far.move(entry.path, self._wanted(entry, entry.crc32c, entry.far_bytes, why))
        self._manifest.keep_version(entry.id)
        self._manifest.far(entry, "marked")

    def _clear_above(self, entry: Entry) -> None:
        """What was a file or link here once, and is a directory now, has to be one there too."""
        for _ in range(entry.path.count("/")):
            blocker = self._far.blocker(entry.path)
            if not blocker:
                return
            said = f"{shown(blocker)}: is no directory there, and none of this mirror's; move it away"
            known = self._manifest.at(blocker)
            if known is None:
                raise ConflictError(said)
            with self.hold(known) as now:
                if self._far.blocker(entry.path) != blocker:
                    continue  # another file below it was quicker
                if now is None or now.far != "there" or now.state != "gone":
                    raise ConflictError(said)
                self._mine(entry)
                self._set_aside(now, "in the way")

    def _clear_directory(self, entry: Entry) -> None:
        """What was a directory here once, and is a file or link now."""
        below = self._manifest.below(entry.path)
        if any(one.state != "gone" for one in below):
            raise RefusedError(f"{shown(entry.path)}: is a directory there, and files in it are not gone yet")
        self._mine(entry)
        for one in below:
            try:
                self._set_aside(one, "in the way")
            except NotFoundError:
                self._manifest.far(one, "")
        self._far.remove_empty(entry.path)
        if self._far.kind(entry.path) == "directory":
            raise ConflictError(
                f"{shown(entry.path)}: is a directory there that holds what this mirror did not bring"
            )

    def _mine(self, entry: Entry) -> None:
        """Raises where the file has changed, or another try has taken over because this one hung too long."""
        now = self._manifest.one(entry.id)
        if now is None or now.state != "sending" or now.facts != entry.facts or now.tries != entry.tries:
            raise _OvertakenError

    # -- a link

    def _link(self, entry: Entry) -> Brought:
        text = self._tree.link(entry.path)
        if text is None:
            return self._other(entry)
        if why := self._link_left_out(entry, text):
            return Brought(verdict="skipped", reason=why)
        crc = _sum_of_link(text)
        if crc == entry.crc32c and entry.far == "there":
            return Brought(verdict="mirrored", how="same", crc32c=crc)
        self._clear_above(entry)
        self._manifest.sends(entry, crc)
        there, standing = self._far.kind(entry.path), self._far.read_link(entry.path)
        if there == "directory":
            self._clear_directory(entry)
        elif there != "none" and standing != text:
            ours = standing is not None and _sum_of_link(standing) in entry.sent.split()
            if entry.far != "there" and not ours:
                raise ConflictError(
                    f"{shown(entry.path)}: something else has this name there; it is left as it is"
                )
            self._mine(entry)
            self._set_aside(entry, "changed")
        if self._far.read_link(entry.path) != text:
            self._far.link(text, entry.path)
        return Brought(verdict="mirrored", how="link", crc32c=crc)


def _sum_of_link(text: str) -> str:
    return f"link-{hashlib.blake2b(os.fsencode(text), digest_size=8).hexdigest()}"


def _leads_out(path: str, text: str) -> bool:
    """Whether a link leads out of the tree, is absolute, or goes up after it went down: by way of another
    link that could be anywhere."""
    if text.startswith("/"):
        return True
    parts = [part for part in text.split("/") if part not in ("", ".")]
    up = next((n for n, part in enumerate(parts) if part != ".."), len(parts))
    return up > path.count("/") or ".." in parts[up:]
