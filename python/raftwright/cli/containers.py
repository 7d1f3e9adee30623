"""Containers of images, told: how they stand, what came of packing them, and what is in one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raftwright.cli.console import columns, console
from raftwright.cli.exits import Exit
from raftwright.cli.figures import count, size
from raftwright.errors import NotFoundError, RaftwrightError

if TYPE_CHECKING:
    from raftwright.backbone.packing import Standing
    from raftwright.backbone.settings import Settings
    from raftwright.ledger import Ledger

__all__ = ["amiss", "of_last_nights", "pack_images", "tell_amiss", "tell_container"]

_SHOWN = 20
_NIGHTS = 2


def of_last_nights(ledger: Ledger, settings: Settings, night: int | None) -> list[Standing]:
    """Containers of a night, or of the last two, that are not as they should be."""
    from raftwright.backbone.standing import containers_of

    nights = [night]
    if night is None:
        rows = ledger.read("SELECT DISTINCT dayobs FROM image ORDER BY dayobs DESC LIMIT ?", (_NIGHTS,))
        nights = [int(row[0]) for row in rows]
    return [one for each in nights for one in containers_of(ledger, settings, each) if amiss(one)]


def amiss(standing: Standing) -> bool:
    """Whether something is to be done about it."""
    return standing.state != "whole"


def tell_amiss(standings: Sequence[Standing]) -> None:
    """A line each."""
    for one in standings[:_SHOWN]:
        why = f": {one.reason}" if one.reason else ""
        said = f"container {one.state}{why}"
        if one.state == "old":
            said = f"its container lacks {count(one.lacking, 'file')} as they are now{why}"
        console.say(f"  {one.obsid}: {said}")
    if len(standings) > _SHOWN:
        console.say(f"  and {len(standings) - _SHOWN} more; --json gives all")


def pack_images(
    ledger: Ledger,
    settings: Settings,
    obsids: Sequence[str],
    night: int | None,
    *,
    dry_run: bool,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """Makes the containers of images, or says what would be made; the answer of the command. Nothing is
    waited for. Raises NotFoundError, StorageError; what concerns one image is in the answer."""
    import msgspec

    from raftwright.backbone.packing import Packer
    from raftwright.backbone.standing import containers_of

    # By hand every image has one, whoever takes it, and none waits.
    chosen = msgspec.structs.replace(settings.containers, always=True, settle=0.0, patience=0.0)
    settings = msgspec.structs.replace(settings, containers=chosen)
    ids: list[int] | None = None
    if obsids:
        ids = []
        for obsid in obsids:
            found = [row.id for row in ledger.images.get(obsid)]
            if not found:
                raise NotFoundError(f"{obsid[:100]!a}: the ledger knows no such image")
            ids += found
    packer = Packer(ledger, lambda: chosen, settings.endpoints)
    images: list[dict[str, Any]] = []
    totals = {"packed": 0, "adopted": 0, "there": 0, "waiting": 0, "failed": 0, "set_aside": 0, "bytes": 0}
    for standing in containers_of(ledger, settings, night, ids):
        facts: dict[str, Any] = {"image": standing.obsid, "was": standing.state, "path": standing.path}
        images.append(facts)
        if standing.state == "whole":
            totals["there"] += 1
            continue
        if standing.wait:
            facts["reason"] = standing.reason
            totals["waiting"] += 1
            progress(f"{standing.obsid}: {standing.state}; waits: {standing.reason}")
            continue
        if dry_run:
            facts["reason"] = standing.reason
            totals["packed"] += 1
            progress(f"{standing.obsid}: {standing.state}; would be packed, {count(standing.files, 'file')}")
            continue
        try:
            unit = next(iter(ledger.containers.units([standing.image_id])), None)
            if unit is None:
                raise NotFoundError(f"{standing.obsid}: its raw files left the archive this moment")
            made = packer.pack(unit)
        except RaftwrightError as error:
            facts["error"] = str(error)
            totals["failed"] += 1
            progress(f"{standing.obsid}: cannot be packed: {error}")
            continue
        facts |= {"path": made.path, "did": made.how, "bytes": made.bytes, "members": made.members}
        facts["set_aside"] = list(made.aside)
        totals[made.how] += 1
        totals["set_aside"] += len(made.aside)
        totals["bytes"] += made.bytes if made.how == "packed" else 0
        aside = f", {count(len(made.aside), 'name')} set aside" if made.aside else ""
        progress(f"{standing.obsid}: {made.how}, {count(made.members, 'file')}, {size(made.bytes)}{aside}")
    return {**totals, "images": images}


def tell_container(path: Path) -> None:
    """What is in a container: `raftwright info X.zip`. Members are not read. Raises FormatError,
    StorageError."""
    from raftwright.rawfile.container import open_container

    with open_container(path) as container:
        members = list(container.members.values())
        what = f"{count(len(members), 'member')}, {size(container.bytes)}"
        console.say(f"{path}: container of {container.image}, {what}")
        rows: list[tuple[object, ...]] = [("member", "begins at", "bytes", "CRC-32C", "Adler-32")]
        rows += [(one.name, one.offset, one.bytes, one.crc32c, one.adler32) for one in members]
        console.say(*("  " + line for line in columns(rows, right=(1, 2))))
        content = {
            "kind": "container",
            "path": str(path),
            "image": str(container.image),
            "bytes": container.bytes,
            "members": [
                {
                    "name": one.name,
                    "offset": one.offset,
                    "bytes": one.bytes,
                    "crc32c": one.crc32c,
                    "adler32": one.adler32,
                }
                for one in members
            ],
        }
        console.answer("ok", Exit.OK, content)
