"""`raftwright image`: the whole story of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from raftwright.cli.configs import ConfigOption
from raftwright.cli.console import console
from raftwright.cli.exits import Exit
from raftwright.cli.ledgers import LedgerOption, find_ledger
from raftwright.cli.options import JsonOption

if TYPE_CHECKING:
    from raftwright.report.story import Story

__all__ = ["image"]


def image(
    name: Annotated[
        str, typer.Argument(metavar="OBSID", help="MC_O_20261122_000123, or an exposure id: 2026112200123.")
    ],
    directory: Annotated[
        str | None, typer.Argument(metavar="DIR", help="The archive with the ledger.", show_default=False)
    ] = None,
    ledger: LedgerOption = None,
    config: ConfigOption = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every file, delivery and event, however many there are.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Tell the whole story of an image: what the DAQ said, where every detector is, and all that was done.

    Times are TAI.
    """
    from raftwright.report.book import open_book
    from raftwright.report.story import find_images, story, to_dict

    del json
    console.command = "image"
    with open_book(find_ledger(ledger, [directory], config)) as book:
        stories = [story(book, number) for number in find_images(book, name)]
    if not console.json:
        console.print(_told(stories, everything))
    console.answer("ok", Exit.OK, {"images": [to_dict(one) for one in stories]})


def _told(stories: list[Story], everything: bool) -> str:
    from raftwright.cli.telling import told

    texts: list[Any] = []
    if len(stories) > 1:
        ids = ", ".join(one.image["daq_id"] for one in stories)
        texts.append(f"The DAQ gave this name to {len(stories)} images: {ids}")
    texts += [told(one, everything=everything) for one in stories]
    return "\n\n".join(texts)
