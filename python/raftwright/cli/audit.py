"""`raftwright audit`: is what the ledger says true."""

from __future__ import annotations

import posixpath
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

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
from raftwright.cli.options import JsonOption, duration
from raftwright.errors import UsageError

if TYPE_CHECKING:
    from raftwright.report.auditing import Options
    from raftwright.report.verdicts import ImageAudit

__all__ = [
    "DaqOption",
    "DestinationOption",
    "DigestsOption",
    "EndpointsOption",
    "SinceOption",
    "audit",
    "options_of",
    "tell_image",
]

_MOST_TOLD: Final = 12
"""Findings of an image that people are told of, unless all are asked for."""
_FEW: Final = 3
_MOST_KEPT: Final = 10_000
"""Images with findings in the one object of --json; the rest is counted."""

SinceOption = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="Only images announced since: 2h, 3d.", show_default=False),
]
DigestsOption = Annotated[bool, typer.Option("--digests", help="Read every file and compare its CRC-32C.")]
DestinationOption = Annotated[
    list[str] | None,
    typer.Option(
        "--destination",
        metavar="NAME=PLACE",
        help="Look at this destination: NAME=/directory or NAME=s3://BUCKET/PREFIX.",
        show_default=False,
    ),
]
DestinationsOption = Annotated[
    bool, typer.Option("--destinations", help="Look at all destinations of the configuration.")
]
EndpointsOption = Annotated[
    bool, typer.Option("--endpoints", help="Look at all endpoints of the hand-off of the configuration.")
]
DaqOption = Annotated[
    str | None,
    typer.Option(
        "--daq", metavar="ENDPOINT|STORE", help="Compare with the catalogue of the DAQ.", show_default=False
    ),
]


def audit(
    directory: Annotated[
        str | None, typer.Argument(metavar="DIR", help="The archive.", show_default=False)
    ] = None,
    ledger: LedgerOption = None,
    night: NightOption = None,
    since: SinceOption = None,
    image: Annotated[
        str | None, typer.Option("--image", metavar="OBSID", help="Only this one.", show_default=False)
    ] = None,
    digests: DigestsOption = False,
    destinations: DestinationsOption = False,
    endpoints: EndpointsOption = False,
    destination: DestinationOption = None,
    daq: DaqOption = None,
    config: ConfigOption = None,
    archive: ArchiveOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Every image and every finding.")] = False,
    json: JsonOption = False,
) -> None:
    """Compare the ledger with the disk, destinations, endpoints and the DAQ. Nothing is changed.

    Each image gets a verdict: OK, NOT TAKEN, NONE SENT, SOME MISSING, DAMAGED, NOT DELIVERED, MORE FOUND, ...
    What is wrong is listed with its reason, and the exit code is 5.
    """
    from raftwright.report.auditing import audit as run
    from raftwright.report.book import open_book
    from raftwright.report.verdicts import FINE, Verdict

    del json
    console.command = "audit"
    begun = time.monotonic()
    url = find_ledger(ledger, [directory, archive], config)
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
    )
    verdicts: Counter[Verdict] = Counter()
    wrong: list[dict[str, Any]] = []
    with open_book(url) as book:
        for found in run(book, options):
            verdicts[found.verdict] += 1
            if found.verdict not in FINE or everything:
                tell_image(found, everything=everything)
            if found.verdict not in FINE and len(wrong) < _MOST_KEPT:
                wrong.append(found.to_dict())
    taken = time.monotonic() - begun
    bad = sum(number for verdict, number in verdicts.items() if verdict not in FINE)
    code = Exit.FAULTS if bad else Exit.OK
    sums = {verdict.value: verdicts[verdict] for verdict in Verdict if verdicts[verdict]}
    looked = sum(number for verdict, number in verdicts.items() if verdict is not Verdict.NOT_TAKEN)
    console.say(f"looked at {count(looked, 'image')} in {seconds(taken)}")
    for verdict, number in sums.items():
        console.say(f"  {number:>7,}  {verdict}")
    content = {"images": looked, "verdicts": sums, "wrong": wrong, "wrong_in_all": bad, "seconds": taken}
    console.answer("faults" if bad else "ok", code, content)
    if bad:
        console.error(
            f"{count(bad, 'image is', 'images are')} not as the ledger says; `raftwright repair` helps"
        )
    raise typer.Exit(code)


def options_of(
    archive: Path | None,
    *,
    night: int | None,
    since: str | None,
    image: str | None,
    digests: bool,
    places: list[str],
    all_places: bool,
    all_endpoints: bool = False,
    daq: str | None,
    config: Sequence[Path] | None,
    settle: float = 600.0,
    stale: float = 3600.0,
) -> Options:
    """What is audited. Raises UsageError, and what opening the places raises."""
    from raftwright.cli.configs import files_of
    from raftwright.cli.ledgers import destinations_of
    from raftwright.cli.ledgers import endpoints_of as configured
    from raftwright.report.auditing import Options
    from raftwright.report.places import endpoints_of, places_of, read_place
    from raftwright.report.times import now_tai

    opened = [read_place(text) for text in places]
    named = {place.name for place in opened}
    for option, wanted in (("--destinations", all_places), ("--endpoints", all_endpoints)):
        if not wanted:
            continue
        if not files_of(config):
            raise UsageError(f"{option}: they are in the configuration; give --config too, or --destination")
        of_archiver = option == "--destinations"
        known = places_of(destinations_of(config)) if of_archiver else endpoints_of(configured(config))
        opened += [place for place in known if place.name not in named]
    store = None
    if daq is not None:
        from raftwright.daq import open_store

        store = open_store(daq)
    return Options(
        archive=archive,
        dayobs=night,
        since_tai=None if since is None else now_tai() - duration(since, "--since"),
        obsid=image,
        digests=digests,
        places=opened,
        daq=store,
        settle=settle,
        stale=stale,
    )


def tell_image(found: ImageAudit, *, everything: bool = False) -> None:
    """An image and what was found, at once: an audit may take its time."""
    if console.json:
        return
    from raftwright.cli.lines import Lines
    from raftwright.report.verdicts import FINE

    lines = Lines()
    style = "" if found.verdict in FINE else "bold red"
    there = f", {found.found} of {found.expected} CCDs" if found.expected else ""
    lines.add((f"{found.obsid}  ", "bold"), (found.verdict.value, style), there)
    told = list(_said(found, everything=everything))
    shown = told if everything else told[:_MOST_TOLD]
    for text in shown:
        lines.text(text, indent=2)
    if len(shown) < len(told):
        lines.add(f"and {len(told) - len(shown):,} more; --all shows them", indent=2)
    console.print(str(lines))
    console.flush()


def _said(found: ImageAudit, *, everything: bool) -> Iterator[str]:
    """The findings; those that differ by the file alone are told together."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for finding in found.findings:
        key = (finding.what, finding.destination, finding.reason)
        groups.setdefault(key, []).append(finding.subject)
    prefix = f"{found.obsid}_"
    for (_, destination, reason), subjects in groups.items():
        place = f"{destination}: " if destination else ""
        names = [
            posixpath.basename(subject).removeprefix(prefix) if prefix in subject else subject
            for subject in subjects
        ]
        if len(names) == 1 or everything:
            yield from (f"{place}{name}: {reason}" if name else f"{place}{reason}" for name in names)
        else:
            few = ", ".join(names[:_FEW]) + (", ..." if len(names) > _FEW else "")
            yield f"{place}{len(names)} times {reason}: {few}"
