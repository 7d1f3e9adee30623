"""`raftwright oods retention|pin|unpin|tag|untag`: what leaves a repository, and what is kept."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raftwright.cli.console import columns, console
from raftwright.cli.exits import Exit
from raftwright.cli.figures import count, size
from raftwright.cli.ledgers import open_known
from raftwright.cli.oods_service import OodsConfigOption, OodsLedgerOption, RepoOption, site_of
from raftwright.cli.options import DryRunOption, JsonOption, OutOption
from raftwright.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from raftwright.ledger import Ledger
    from raftwright.oods.retention import Choice

__all__ = ["pin", "retention", "tag", "unpin", "untag"]

ObsidsArgument = Annotated[list[str], typer.Argument(metavar="OBSID...", help="Images.", show_default=False)]
ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="For the history.")]
TagArgument = Annotated[str, typer.Argument(metavar="NAME", help="Of the tag.", show_default=False)]
_SHOWN = 10


def retention(
    config: OodsConfigOption = None,
    out: OutOption = None,
    ledger: OodsLedgerOption = None,
    repo: RepoOption = None,
    dry_run: DryRunOption = False,
    everything: Annotated[bool, typer.Option("--all", help="Tell every file.")] = False,
    json: JsonOption = False,
) -> None:
    """Remove what the rules of the configuration say: old data, the oldest where the disk is too full.

    With --dry-run it is told what exactly would go, and what would stay and why. Nothing goes that is pinned
    or tagged, or of which the ledger does not know the copies that are required elsewhere. Exit code 5 where
    room is needed and cannot be made, or a file cannot be deleted.
    """
    del json
    console.command = "oods retention"
    from raftwright.butler import open_repository
    from raftwright.oods.leaving import Leaving
    from raftwright.oods.retention import Chooser

    found = site_of(config, out, ledger, repo)
    settings = found.settings("oods")
    if settings.retention is None:
        raise UsageError("oods.retention: there are no rules; write them into the configuration")
    left: list[Any] = []
    with (
        open_known(found.common.ledger, read_only=dry_run) as opened,
        open_repository(settings.repository, writeable=not dry_run) as repository,
    ):
        chooser = Chooser(opened, settings, repository)
        leaving = Leaving(
            opened,
            settings.name,
            repository,
            chooser,
            empty_directories=settings.retention.empty_directories,
        )
        if dry_run:
            choice = chooser.choose(held=True)
        else:
            opened.keep_alive()
            with leaving.alone():
                leaving.resume()
                choice = chooser.choose()
                left = [row for some in leaving.remove_all(choice.going) for row in some]
    _tell(choice, None if dry_run else left, everything=everything)
    full = choice.lacking > 0
    faults = full or bool(leaving.trouble)
    content = {
        "dry_run": dry_run,
        "going": [_entry(row, why) for row, why in choice.going],
        "bytes": choice.bytes,
        "staying": [_entry(row, why) for row, why in choice.staying],
        "staying_in_all": choice.stayed,
        "lacking_bytes": choice.lacking,
        "removed": len(left),
        "stuck": leaving.trouble,
    }
    console.answer("faults" if faults else "ok", Exit.FAULTS if faults else Exit.OK, content)
    if leaving.trouble:
        console.error(leaving.trouble)
    if full:
        console.error(
            f"{choice.why}, and {size(choice.lacking)} that should go cannot: "
            "bring them to the endpoints that are required, or unpin them"
        )
    if faults:
        raise typer.Exit(Exit.FAULTS)


def _entry(row: Any, why: str) -> dict[str, Any]:
    return {
        "obsid": row.obsid,
        "detector": row.detector,
        "path": row.path,
        "bytes": row.bytes,
        "dataset_type": row.dataset_type,
        "reason": why,
    }


def _tell(choice: Choice, left: list[Any] | None, *, everything: bool) -> None:
    """`left`: what went; None in a dry run."""
    gone = None if left is None else {row.id for row in left}
    going = [(row, why) for row, why in choice.going if gone is None or row.id in gone]
    shown = going if everything else going[:_SHOWN]
    console.say(*columns([(f"  {Path(row.path).name}", size(row.bytes), why) for row, why in shown]))
    if len(shown) < len(going):
        console.say(f"  and {len(going) - len(shown):,} more; --all tells each")
    verb = "would go" if gone is None else "went"
    console.say(f"{count(len(going), 'file')} {verb}, {size(sum(row.bytes for row, _ in going))}")
    if len(going) < len(choice.going):
        kept = len(choice.going) - len(going)
        console.say(f"{count(kept, 'file')} stayed after all: pinned, tagged or changed meanwhile")
    if choice.why:
        console.say(f"room is needed: {choice.why}")
    whys = Counter(why for _, why in choice.staying)
    for why, number in whys.most_common():
        console.say(f"{count(number, 'file stays', 'files stay')}: {why}")
    if everything:
        console.say(*(f"  {Path(row.path).name}: {why}" for row, why in choice.staying))


def pin(
    obsids: ObsidsArgument,
    config: OodsConfigOption = None,
    out: OutOption = None,
    ledger: OodsLedgerOption = None,
    repo: RepoOption = None,
    reason: ReasonOption = "",
    json: JsonOption = False,
) -> None:
    """Keep images in this repository until they are unpinned."""
    del json
    _pin("pin", obsids, (config, out, ledger, repo), reason)


def unpin(
    obsids: ObsidsArgument,
    config: OodsConfigOption = None,
    out: OutOption = None,
    ledger: OodsLedgerOption = None,
    repo: RepoOption = None,
    reason: ReasonOption = "",
    json: JsonOption = False,
) -> None:
    """Leave images to the rules of retention again."""
    del json
    _pin("unpin", obsids, (config, out, ledger, repo), reason)


def _pin(verb: str, obsids: list[str], site: tuple[Any, ...], reason: str) -> None:
    console.command = f"oods {verb}"

    found = site_of(*site)
    name = found.settings("oods").name
    with open_known(found.common.ledger) as opened:
        ids = _images(opened, obsids)
        change = opened.ingests.pin if verb == "pin" else opened.ingests.unpin
        number = change(reason, repository=name, image_ids=ids)
    console.say(f"{count(number, 'file')} {verb}ned")
    console.answer("ok", Exit.OK, {"files": number})


def tag(
    name: TagArgument,
    obsids: ObsidsArgument,
    config: OodsConfigOption = None,
    out: OutOption = None,
    ledger: OodsLedgerOption = None,
    repo: RepoOption = None,
    reason: ReasonOption = "",
    json: JsonOption = False,
) -> None:
    """Keep images in every repository, under a name."""
    del json
    console.command = "oods tag"

    found = site_of(config, out, ledger, repo)
    with open_known(found.common.ledger) as opened:
        number = opened.tags.tag(name, _images(opened, obsids), reason=reason)
    console.say(f"{count(number, 'image')} tagged {name}")
    console.answer("ok", Exit.OK, {"images": number})


def untag(
    name: TagArgument,
    obsids: Annotated[
        list[str] | None, typer.Argument(metavar="[OBSID]...", help="Images.  [default: all that have it]")
    ] = None,
    config: OodsConfigOption = None,
    out: OutOption = None,
    ledger: OodsLedgerOption = None,
    repo: RepoOption = None,
    reason: ReasonOption = "",
    json: JsonOption = False,
) -> None:
    """Take a tag from images."""
    del json
    console.command = "oods untag"

    found = site_of(config, out, ledger, repo)
    with open_known(found.common.ledger) as opened:
        number = opened.tags.untag(name, _images(opened, obsids) if obsids else None, reason)
    console.say(f"{count(number, 'image is', 'images are')} {name} no more")
    console.answer("ok", Exit.OK, {"images": number})


def _images(ledger: Ledger, obsids: list[str]) -> list[int]:
    found: list[int] = []
    for obsid in obsids:
        rows = ledger.images.get(obsid)
        if not rows:
            raise NotFoundError(f"{obsid[:100]!a}: the ledger knows no such image")
        found += [row.id for row in rows]
    return found
