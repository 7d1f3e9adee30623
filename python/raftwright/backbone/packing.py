"""Containers of images are made: one file with all others, for endpoints that take it.

What is done says the ledger alone, never a name on the disk: a container that stands there and is not in the
ledger is read from end to end, and entered or set aside. So every step may be taken twice, by two at a time,
and whoever packs may die between any two of them.

    files of the image ─▶ written without a name ─▶ synced, read back ─▶ named ─▶ in the ledger
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from raftwright.backbone.butler_index import BUTLER_INDEX, butler_index
from raftwright.errors import ConflictError, FormatError, RaftwrightError, StorageError
from raftwright.ledger.clock import tai
from raftwright.ledger.containers import CONTAINER
from raftwright.ledger.rows import FileRow
from raftwright.rawfile.container import METADATA_INDEX, check_container
from raftwright.rawfile.container_writing import Source, metadata_index, stage_container
from raftwright.rawfile.names import ImageName, container_name, container_version, newest
from raftwright.rawfile.newest import newest_sidecar
from raftwright.rawfile.publishing import locked, sync_directory
from raftwright.rawfile.standing import digest

if TYPE_CHECKING:
    from raftwright.backbone.settings import Containers, Endpoint
    from raftwright.ledger import Ledger
    from raftwright.ledger.containers import ContainerUnit

__all__ = ["Packed", "Packer", "Standing"]

_log = logging.getLogger("raftwright.backbone")

_SOUND: Final = frozenset({"written", "unchanged", "kept"})
_SETTLED: Final = frozenset({"complete", "incomplete", "lost"})
_UNSETTLED: Final = 60.0
"""Seconds until one that is not is looked at again, if nothing is told of it."""
_NOW: Final = frozenset({"complete", "missing"})
"""States of a header after which nothing is waited for."""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How things stand with the container of an image."""

    obsid: str
    image_id: int
    state: str
    """`whole`, `missing`, `old`, `damaged`, `lost`; `half done` where one stands on the disk that the ledger
    does not have."""
    reason: str = ""
    path: str = ""
    """Of the newest container."""
    files: int = 0
    """That belong into it."""
    lacking: int = 0
    """Of them: those that are not in it as they are now."""
    wait: float = 0.0
    """Seconds until it is time to pack; nothing is wrong until then."""
    lacking_at: Mapping[str, str] = {}
    """Endpoints that take it and do not have it, and why."""


class Packed(msgspec.Struct, frozen=True, kw_only=True):
    """What came of packing an image."""

    obsid: str
    path: str
    bytes: int
    members: int
    how: str
    """`packed`, `adopted` (it stood there, whole), `there` (nothing was to do)."""
    aside: tuple[str, ...] = ()
    """What stood under the name of a container and was none."""


class Packer:
    """Packs. Thread-safe: what two do at a time with one image is done once."""

    def __init__(
        self, ledger: Ledger, settings: Callable[[], Containers], endpoints: Sequence[Endpoint]
    ) -> None:
        self._ledger = ledger
        self._settings = settings
        self._endpoints = [one for one in endpoints if CONTAINER in one.what]

    @property
    def wanted(self) -> bool:
        """Whether containers are made at all."""
        return bool(self._endpoints) or self._settings().always

    @property
    def settle(self) -> float:
        """Seconds for which the files of an image have to be as they are."""
        return self._settings().settle

    def endpoints_of(self, unit: ContainerUnit) -> list[str]:
        """Names of the endpoints that take its container."""
        return [
            one.name for one in self._endpoints if not one.instruments or unit.instrument in one.instruments
        ]

    def takes(self, unit: ContainerUnit) -> bool:
        """Whether a container is made of an image."""
        return self._settings().always or bool(self.endpoints_of(unit))

    def may_go(self, unit: ContainerUnit) -> bool:
        """Whether there is one in the archive that is not to be kept there."""
        return self._settings().keep != "always" and any(map(_is_here, unit.containers))

    # -- how it stands

    def standing(self, unit: ContainerUnit) -> Standing:
        """Of an image, by the ledger; and whether its directory has what the ledger has not."""
        state, newest_box = unit.standing(self.endpoints_of(unit)), unit.newest
        reason, wait = "", 0.0
        if state != "whole":
            reason, wait = self._not_yet(unit)
        strays = self._strays(unit) if state != "whole" else []
        if strays:
            state, reason = "half done", reason or f"{strays[0].name} is not in the ledger"
        lacking = {}
        if newest_box is not None:
            lacking = {
                name: unit.replicas.get(name, "not there yet")
                for name in self.endpoints_of(unit)
                if unit.replicas.get(name) not in ("verified", "removed")
            }
        return Standing(
            obsid=unit.obsid,
            image_id=unit.image_id,
            state=state,
            reason=reason,
            path="" if newest_box is None else newest_box.path,
            files=unit.files,
            lacking=unit.lacking,
            wait=wait,
            lacking_at=lacking,
        )

    def _not_yet(self, unit: ContainerUnit) -> tuple[str, float]:
        """Why it is not packed now, and for how long not; nothing where it may be."""
        settings, now = self._settings(), tai()
        if unit.state not in _SETTLED:
            return f"the image is {unit.state}", max(_UNSETTLED, settings.patience)
        if unit.unverified:
            return f"{unit.unverified} of its files were not yet found to hold in the archive", 2.0
        quiet = unit.written_tai + settings.settle - now
        if quiet > 0:
            return "its last file was written a moment ago", quiet
        if unit.state == "complete" and unit.header_state in _NOW:
            return "", 0.0
        left = (unit.settled_tai or now) + settings.patience - now
        if left <= 0:
            return "", 0.0
        if unit.state == "complete":
            return f"its header is {unit.header_state}", left
        return f"the image is {unit.state}", left

    # -- packing

    def pack(self, unit: ContainerUnit, going_on: Callable[[], bool] = lambda: True) -> Packed:
        """Makes the container of an image, or finds it. What is not sound in its way is set aside.

        Raises FormatError (a file is not what the ledger says; given up), ConflictError, StorageError.
        """
        files = self._files(unit)
        directory = _directory(files)
        aside: list[str] = []
        for stray in self._strays(unit):
            aside += self._adopt(unit, files, stray, going_on)
        again = self._ledger.containers.units([unit.image_id])
        if not again:
            raise FormatError(f"{unit.obsid}: the ledger has no raw file of it any more")
        (now,) = again
        if now.standing(self.endpoints_of(now)) == "whole":
            return self._told(
                now, "there" if unit.standing(self.endpoints_of(unit)) == "whole" else "adopted", aside
            )
        self._check_room(directory, files)
        self._can_be_made(now, files)
        sources = [
            Source(name=Path(file.path).name, path=Path(file.path), bytes=file.bytes, crc32c=file.crc32c)
            for file in files
        ]
        indexes = {METADATA_INDEX: metadata_index(_sidecars(files))}
        if (butler := self._settings().butler) is not None:
            indexes[BUTLER_INDEX] = butler_index(files, unit.instrument, butler)
        with stage_container(directory, unit.obsid, sources, indexes, going_on=going_on) as staged:
            path, version, replaces = self._name(now, files, directory, staged.bytes, staged.crc32c)
            with locked(directory):
                if not staged.name(path) and not _same(path, staged.bytes, staged.crc32c):
                    raise ConflictError(f"{path}: another container came by this name meanwhile")
            row = FileRow(
                image=unit.obsid,
                daq_id=unit.daq_id,
                version=version,
                path=str(path),
                bytes=staged.bytes,
                adler32=staged.adler32,
                crc32c=staged.crc32c,
                status="written",
                replaces=replaces,
                kind=CONTAINER,
                verified=tai(),
            )
            self._ledger.containers.enter(row, {file.id: (file.bytes, file.crc32c) for file in files})
            _log.info("%s: %d files in %s", unit.obsid, len(files), path.name)
            return Packed(
                obsid=unit.obsid,
                path=str(path),
                bytes=staged.bytes,
                members=len(files),
                how="packed",
                aside=tuple(aside),
            )

    def _told(self, unit: ContainerUnit, how: str, aside: Sequence[str]) -> Packed:
        box = unit.newest
        assert box is not None
        return Packed(
            obsid=unit.obsid, path=box.path, bytes=box.bytes, members=unit.files, how=how, aside=tuple(aside)
        )

    def _files(self, unit: ContainerUnit) -> list[FileRow]:
        return [
            file
            for file in self._ledger.files.of(unit.image_id)
            if file.kind != CONTAINER and file.status in _SOUND
        ]

    def _check_room(self, directory: Path, files: Sequence[FileRow]) -> None:
        """Pixels that come need room more than containers do. Raises StorageError."""
        needed = sum(file.bytes for file in files)
        try:
            now = os.statvfs(directory)
        except OSError as error:
            raise StorageError(
                error.errno, f"cannot be looked at ({error.strerror})", str(directory)
            ) from error
        left = now.f_bavail * now.f_frsize - needed
        if left < self._settings().reserve * now.f_blocks * now.f_frsize:
            raise StorageError(
                errno.ENOSPC,
                f"a container of {needed / 1e9:.3g} GB would leave less than {self._settings().reserve:.0%} "
                "of the file system free; make room, or set containers: reserve",
                str(directory),
            )

    def _can_be_made(self, unit: ContainerUnit, files: Sequence[FileRow]) -> None:
        """One that is to be as it was needs all the files that were in it. Raises FormatError."""
        box = unit.newest
        if box is None or unit.lacking:
            return
        there = {file.id: (file.bytes, file.crc32c) for file in files}
        gone = sum(there.get(each) != what for each, what in self._ledger.containers.members(box.id).items())
        if gone:
            raise FormatError(
                f"{box.path}: cannot be made again, {gone} of its files are in the archive no more; bring it "
                "back from another endpoint"
            )

    def _name(
        self, unit: ContainerUnit, files: Sequence[FileRow], directory: Path, size: int, crc32c: str
    ) -> tuple[Path, int, str]:
        """Where a new container stands, its version, and which one it replaces: one that is made again has
        the name that it had, another content another."""
        for box in unit.containers:
            if (box.bytes, box.crc32c) == (size, crc32c) and not box.replaced_by:
                return Path(box.path), box.version, box.replaces
        versions = [box.version for box in self._ledger.files.of_images([unit.obsid], CONTAINER)]
        versions += [version for version, _ in _standing_in(directory, unit.obsid, anything=True)]
        version = max(versions, default=0) + 1
        replaces = ""
        if unit.containers:
            before, have = unit.containers[-1], {file.id for file in files}
            if have.issuperset(self._ledger.containers.members(before.id)):
                replaces = before.path
        path = directory / container_name(ImageName.parse(unit.obsid), version)
        return path, version, replaces

    # -- what stands there

    def _strays(self, unit: ContainerUnit) -> list[Path]:
        """Containers in the directory of the image that the ledger does not have as sound; those of another
        image, where the DAQ gave a name twice, are none of our affair."""
        try:
            directory = _directory(self._files(unit))
        except FormatError:
            return []
        standing = [path for _, path in _standing_in(directory, unit.obsid)]
        if not standing:
            return []
        known = {
            box.path
            for box in self._ledger.files.of_images([unit.obsid], CONTAINER)
            if box.status in _SOUND or box.image_id != unit.image_id
        }
        return [path for path in standing if str(path) not in known]

    def _adopt(
        self, unit: ContainerUnit, files: Sequence[FileRow], path: Path, going_on: Callable[[], bool]
    ) -> list[str]:
        """Enters a container that stands there, if it is one; else it is set aside. Its new name, then."""
        before = next((box for box in unit.containers if box.path == str(path)), None)
        try:
            seen = os.lstat(path)
        except OSError:
            return []  # it is gone
        try:
            found = check_container(path, going_on=going_on)
            if not going_on():
                raise FormatError(f"{path}: was not read to its end")
            if found.wrong:
                raise FormatError(f"{path}: {found.wrong[0][0]} {found.wrong[0][1]}")
            if before is not None and (before.bytes, before.crc32c) != (found.bytes, found.crc32c):
                raise FormatError(f"{path}: is another container than the ledger had under this name")
            there = {Path(file.path).name: file for file in files}
            members = {
                file.id: (one.bytes, one.crc32c)
                for one in found.members
                if (file := there.get(one.name)) is not None
                and (file.bytes, file.crc32c) == (one.bytes, one.crc32c)
            }
            if before is None and not members:
                if len(self._ledger.images.get(unit.obsid)) > 1:
                    return []  # the other one's, who may be about to enter it
                raise FormatError(f"{path}: has no file of this image as it is in the archive")
        except FormatError as error:
            if not going_on():
                raise
            return self._set_aside(path, seen, str(error))
        earlier = [box for box in unit.containers if box.version < container_version(path)[1]]
        row = FileRow(
            image=unit.obsid,
            daq_id=unit.daq_id,
            version=container_version(path)[1],
            path=str(path),
            bytes=found.bytes,
            adler32=found.adler32,
            crc32c=found.crc32c,
            status="written",
            replaces=earlier[-1].path if earlier and before is None else "",
            kind=CONTAINER,
            verified=tai(),
        )
        if before is not None:
            members = self._ledger.containers.members(before.id)
        self._ledger.containers.enter(row, members)
        _log.info("%s: %s stood there whole, and is in the ledger now", unit.obsid, path.name)
        return []

    def _set_aside(self, path: Path, seen: os.stat_result, reason: str) -> list[str]:
        """Keeps what is no container beside, so that its name is free; the ledger says why. Nothing where
        another stands there by now. Raises StorageError."""
        try:
            crc = digest(path).crc32c
        except StorageError:
            crc = "00000000"  # it cannot be read: the name says so
        with locked(path.parent):
            if not _is(path, seen):
                return []
            for number in range(100):
                aside = f"{path}.damaged-{crc}" + (f"-{number}" if number else "")
                try:
                    os.link(path, aside, follow_symlinks=False)
                except FileExistsError:
                    if not os.path.samefile(path, aside):
                        continue
                except OSError as error:
                    raise StorageError(
                        error.errno, f"cannot be set aside ({error.strerror})", str(path)
                    ) from error
                os.unlink(path)
                sync_directory(path.parent)
                self._ledger.quarantine.put("file", os.fsencode(aside), reason)
                _log.error("%s; it is kept as %s", reason, os.path.basename(aside))
                return [aside]
        raise StorageError(errno.EEXIST, "has a hundred damaged files beside it; look at them", str(path))

    # -- what may go

    def tidy(self, unit: ContainerUnit) -> list[str]:
        """Removes containers that every endpoint has which takes them, where they are not to be kept; their
        paths. Raises StorageError."""
        if self._settings().keep == "always":
            return []
        endpoints = self.endpoints_of(unit)
        if not endpoints or unit.standing(endpoints) != "whole":
            return []
        there = [box for box in unit.containers if _is_here(box)]
        safe = self._ledger.replicas.safe([box.id for box in there], endpoints)
        for box in there:
            if box.status == "removed" and box.id in safe and _same(Path(box.path), box.bytes, box.crc32c):
                self._unlink(box.path)  # whoever removed it died before he did
        going = [box.path for box in there if box.status in _SOUND and box.id in safe]
        if going:
            self._ledger.files.removed(going, f"{', '.join(endpoints)} have it")
            for path in going:
                self._unlink(path)
        return going

    @staticmethod
    def _unlink(path: str) -> None:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise StorageError(error.errno, f"cannot be removed ({error.strerror})", path) from error

    def tell_damaged(self, path: str, reason: str) -> None:
        """A container of the archive is not what it was: it is made anew."""
        try:
            self._ledger.files.verified(path, ok=False, reason=reason)
        except RaftwrightError as error:
            _log.error("%s", error)


def _directory(files: Sequence[FileRow]) -> Path:
    """Where the container stands: with the newest raw file. Raises FormatError where there is none."""
    raws = [file for file in files if file.kind == "raw"]
    if not raws:
        raise FormatError("the image has no raw file")
    return Path(max(raws, key=lambda file: (file.written, file.path)).path).parent


def _standing_in(directory: Path, obsid: str, *, anything: bool = False) -> list[tuple[int, Path]]:
    """Names of containers in a directory, by version; with `anything` those that links and directories
    have too."""
    found = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if not entry.name.endswith(".zip") or not entry.name.startswith(obsid):
                    continue
                try:
                    image, version = container_version(entry.name)
                except FormatError:
                    continue
                if str(image) == obsid and (anything or entry.is_file(follow_symlinks=False)):
                    found.append((version, directory / entry.name))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError(error.errno, f"cannot be looked at ({error.strerror})", str(directory)) from error
    return sorted(found)


def _sidecars(files: Sequence[FileRow]) -> dict[str, Path]:
    """For each raw file that no later version stands for: its newest sidecar, of those that are packed."""
    packed = {file.path for file in files if file.kind == "sidecar"}
    found = {}
    for raw in newest(Path(file.path) for file in files if file.kind == "raw"):
        _, sidecar = newest_sidecar(raw)
        if str(sidecar) not in packed:
            sidecar = next((one for one in _earlier(raw) if str(one) in packed), sidecar)
        if str(sidecar) in packed:
            found[raw.name] = sidecar
    return found


def _earlier(raw: Path) -> list[Path]:
    from raftwright.rawfile.newest import later_path

    last, _ = newest_sidecar(raw)
    return [later_path(raw, version) for version in range(last, 0, -1)]


def _is_here(box: FileRow) -> bool:
    """Whether a container is in the archive, or was left there by somebody who had just removed it."""
    return box.status in _SOUND or (box.status == "removed" and os.path.lexists(box.path))


def _is(path: Path, seen: os.stat_result) -> bool:
    """Whether the file that was looked at still has its name."""
    try:
        now = os.lstat(path)
    except OSError:
        return False
    return (now.st_dev, now.st_ino, now.st_size) == (seen.st_dev, seen.st_ino, seen.st_size)


def _same(path: Path, size: int, crc32c: str) -> bool:
    try:
        found = digest(path)
    except StorageError:
        return False
    return (found.bytes, found.crc32c) == (size, crc32c)
