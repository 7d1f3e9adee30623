"""`raftwright repair`: does about the audit's findings what is safe."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from raftwright.cli.audit import (
    DaqOption,
    DestinationOption,
    DestinationsOption,
    DigestsOption,
    EndpointsOption,
    SinceOption,
    options_of,
)
from raftwright.cli.configs import ConfigOption
from raftwright.cli.console import console
from raftwright.cli.exits import Exit
from raftwright.cli.figures import count, seconds
from raftwright.cli.ledgers import (
    ArchiveOption,
    LedgerOption,
    NightOption,
    archive_of,
    find_ledger,
)
from raftwright.cli.options import DryRunOption, JsonOption, duration

if TYPE_CHECKING:
    from raftwright.report.repairing import Repair

__all__ = ["repair"]

_MOST_KEPT: Final = 10_000


def repair(
    directory: Annotated[
        str | None, typer.Argument(metavar="DIR", help="The archive.", show_default=False)
    ] = None,
    ledger: LedgerOption = None,
    night: NightOption = None,
    since: SinceOption = None,
    image: Annotated[
        str | None, typer.Option("--image", metavar="OBSID", help="Only this one.", show_default=False)
    ] = None,
    dry_run: DryRunOption = False,
    digests: DigestsOption = False,
    destinations: DestinationsOption = False,
    endpoints: EndpointsOption = False,
    destination: DestinationOption = None,
    daq: DaqOption = None,
    older: Annotated[
        str, typer.Option("--older", metavar="TIME", help="Unfinished files of that age are removed.")
    ] = "1h",
    config: ConfigOption = None,
    archive: ArchiveOption = None,
    json: JsonOption = False,
) -> None:
    """Audit, and repair what is safe to repair. It asks nothing and says all; each repair is an event.

    Files that are gone or damaged are marked, so that they are fetched again (damaged ones are moved aside);
    what a destination lacks is queued again; files that the ledger does not know are entered. Nothing is
    overwritten. The exit code is 5 when something is left that nobody but a person can decide.
    """
    from raftwright.ledger import open_ledger
    from raftwright.report.auditing import audit
    from raftwright.report.book import open_book
    from raftwright.report.repairing import Repairer

    del json
    console.command = "repair"
    begun = time.monotonic()
    url = find_ledger(ledger, [directory, archive], config)
    stale = duration(older, "--older")
    options = options_of(
        archive_of(url, directory, archive, config),
        night=night,
        since=since,
        image=image,
        digests=digests,
        places=destination or [],
        all_places=destinations,
        all_endpoints=endpoints,
        daq=daq,
        config=config,
        stale=stale,
    )
    actions: Counter[str] = Counter()
    done: list[dict[str, Any]] = []
    with open_book(url) as book, open_ledger(url, read_only=dry_run) as opened:
        repairer = Repairer(opened, dry_run=dry_run, stale=stale)
        for found in audit(book, options):
            for one in repairer.repair(found):
                actions[one.action] += 1
                _tell(one, dry_run)
                if len(done) < _MOST_KEPT:
                    done.append(one.to_dict())
    taken = time.monotonic() - begun
    left = actions["left alone"] + actions["failed"]
    changed = sum(actions.values()) - left
    said = "would be done" if dry_run else "done"
    console.say(f"{count(changed, 'repair')} {said} in {seconds(taken)}, {count(left, 'thing')} left alone")
    code = Exit.FAULTS if left else Exit.OK
    content = {"dry_run": dry_run, "actions": dict(actions), "repairs": done, "seconds": taken}
    console.answer("left" if left else "ok", code, content)
    if left:
        console.error(
            f"{count(left, 'thing is', 'things are')} left that only a person can decide; see above"
        )
    raise typer.Exit(code)


def _tell(one: Repair, dry_run: bool) -> None:
    if console.json:
        return
    from raftwright.cli.lines import Lines

    lines = Lines()
    style = {"failed": "bold red", "left alone": "yellow"}.get(one.action, "green")
    place = f"{one.destination}: " if one.destination else ""
    subject = one.subject.rpartition("/")[2].removeprefix(f"{one.image}_")
    would = "would be " if dry_run and one.done else ""
    lines.add((f"{one.image}  ", "bold"), (f"{would}{one.action}", style), f"  {place}{subject}")
    lines.text(one.reason, indent=2)
    console.print(str(lines))
    console.flush()
