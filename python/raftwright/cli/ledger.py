"""`raftwright ledger`: the ledger itself: what is in it, whether it is sound, making it anew."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from raftwright.cli.console import columns, console
from raftwright.cli.exits import Exit
from raftwright.cli.figures import count, size
from raftwright.cli.ledgers import LedgerOption, find_ledger, ledger_of
from raftwright.cli.options import JsonOption
from raftwright.errors import NotFoundError

if TYPE_CHECKING:
    from raftwright.ledger.rebuilding import Rebuilt

__all__ = ["app"]

app = typer.Typer(
    help="The ledger: what is in it, whether it is sound, making it anew from the archive.",
    rich_markup_mode=None,
    no_args_is_help=False,
)

_SHOWN = 20


@app.command("show")
def show(ledger: LedgerOption = None, json: JsonOption = False) -> None:
    """Count what is in it."""
    del json
    console.command = "ledger show"
    from raftwright.ledger import open_ledger
    from raftwright.ledger.checking import counts_of

    with open_ledger(find_ledger(ledger), read_only=True) as opened:
        found = counts_of(opened)
        where, last = opened.where, opened.events.last()
    rows: list[tuple[object, ...]] = []
    for thing, states in found.items():
        total = sum(states.values())
        parts = "" if set(states) <= {"all"} else ", ".join(f"{n} {state}" for state, n in states.items())
        rows.append((f"{thing}s" if thing != "delivery" else "deliveries", total, parts))
    console.say(where, *columns(rows, right=(1,)))
    console.answer("ok", Exit.OK, {"ledger": where, "counts": found, "last_event": last})


@app.command("check")
def check(ledger: LedgerOption = None, json: JsonOption = False) -> None:
    """Look for contradictions in it. Exit code 5 where there are some. Whether it is true says `audit`."""
    del json
    console.command = "ledger check"
    from raftwright.ledger import open_ledger
    from raftwright.ledger.checking import check_ledger

    with open_ledger(find_ledger(ledger), read_only=True) as opened:
        faults, where = check_ledger(opened), opened.where
    for fault in faults:
        console.say(f"{fault.count} {fault.what}: {', '.join(fault.examples)}", f"  {fault.remedy}")
    console.say(f"{where}: {count(len(faults), 'fault') if faults else 'no fault'}")
    content = {
        "ledger": where,
        "faults": [
            {"what": each.what, "count": each.count, "examples": each.examples, "remedy": each.remedy}
            for each in faults
        ],
    }
    console.answer("faults" if faults else "ok", Exit.FAULTS if faults else Exit.OK, content)
    if faults:
        raise typer.Exit(Exit.FAULTS)


@app.command("upgrade")
def upgrade(ledger: LedgerOption = None, json: JsonOption = False) -> None:
    """Bring it to the version of this release, at once or not at all."""
    del json
    console.command = "ledger upgrade"
    from raftwright.ledger.upgrading import kept_copy
    from raftwright.ledger.upgrading import upgrade as bring_up
    from raftwright.ledger.version import CHANGES

    where = find_ledger(ledger)
    before, after = bring_up(where)
    if before == after:
        console.say(f"it is of version {after} already")
    else:
        console.say(f"from version {before} to {after}")
        console.say(*(f"  {version}: {CHANGES[version]}" for version in range(before + 1, after + 1)))
    kept = None if before == after else kept_copy(where, before)
    if kept is not None:
        console.say(f"as it was it stands in {kept}; remove that when all is well")
    content = {"from": before, "to": after, "kept": None if kept is None else str(kept)}
    console.answer("ok", Exit.OK, content)


@app.command("rebuild")
def rebuild(
    archive: Annotated[str, typer.Argument(metavar="ARCHIVE", help="Root of the raw files.")],
    ledger: Annotated[
        str | None,
        typer.Option(
            "--ledger",
            metavar="URL|PATH",
            help="To be made or completed; services may use it.  [default: ledger.db in ARCHIVE]",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be entered.")] = False,
    threads: Annotated[
        int | None,
        typer.Option("--threads", min=1, help="That read.  [default: all processors]", show_default=False),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Make a ledger from nothing but what stands in an archive, or complete one that is behind.

    Every file is read once, for its sums; what the ledger has already is not, so that a rebuild that was
    stopped goes on where it was. Exit code 5 where files are damaged or strange.
    """
    del json
    console.command = "ledger rebuild"
    from raftwright.ledger import Ledger, open_ledger
    from raftwright.ledger.rebuilding import rebuild as make

    if not os.path.isdir(archive):
        raise NotFoundError(f"{archive}: there is no such archive; name its root")
    url = ledger_of(ledger or archive)
    opened: Ledger | None = None
    try:
        opened = open_ledger(url, read_only=dry_run)
    except NotFoundError:
        if not dry_run:
            raise
    try:
        if opened is not None and not dry_run:
            opened.keep_alive()
        done = make(opened, archive, dry_run=dry_run, threads=threads)
    finally:
        if opened is not None:
            opened.close()
    _report(done, url, dry_run)


def _report(done: Rebuilt, url: str, dry_run: bool) -> None:
    verb = "would be entered" if dry_run else "entered"
    console.say(
        f"{count(done.images, 'image')} in the archive, {done.new_images} of them new to the ledger; "
        f"{count(done.files, 'raw file')}; {count(done.new_files, 'file')} {verb}"
        + ("" if dry_run else f", {size(done.bytes)} read")
    )
    if done.states:
        console.say("images now: " + ", ".join(f"{n} {state}" for state, n in sorted(done.states.items())))
    if done.damaged or done.lost:
        console.say(f"{count(done.damaged, 'file')} damaged, {count(done.lost, 'file')} lost")
    for path, reason in done.listed[:_SHOWN]:
        console.say(f"strange: {path}: {reason}" if path not in reason else f"strange: {reason}")
    if done.strange > min(_SHOWN, len(done.listed)):
        console.say(f"strange: {done.strange - min(_SHOWN, len(done.listed))} more")
    faults = bool(done.damaged or done.strange)
    content = {
        "ledger": url,
        "dry_run": dry_run,
        **{
            name: getattr(done, name)
            for name in ("images", "new_images", "files", "new_files", "bytes", "headers")
        },
        **{name: getattr(done, name) for name in ("damaged", "lost", "strange", "states")},
        "listed": [{"path": path, "reason": reason} for path, reason in done.listed],
    }
    console.answer("faults" if faults else "ok", Exit.FAULTS if faults else Exit.OK, content)
    if faults:
        raise typer.Exit(Exit.FAULTS)
