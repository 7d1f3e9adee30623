"""`raftwright status`: tonight at a glance, from the ledger; and what running services say of themselves."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raftwright.cli.configs import ConfigOption
from raftwright.cli.console import console
from raftwright.cli.exits import Exit
from raftwright.cli.ledgers import LedgerOption, NightOption, ledger_of, ledger_or_none
from raftwright.cli.options import JsonOption, duration
from raftwright.errors import NotFoundError

if TYPE_CHECKING:
    from raftwright.cli.pages import Page

__all__ = ["status"]


def status(
    places: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DIR|URL|HOST:PORT]...",
            help="An archive with its ledger, or pages of services (their --metrics).  [default: the ledger "
            "that is found, else http://127.0.0.1:9557]",
            show_default=False,
        ),
    ] = None,
    ledger: LedgerOption = None,
    config: ConfigOption = None,
    night: NightOption = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on, and show it again and again.")] = False,
    every: Annotated[str, typer.Option("--every", metavar="TIME", help="With --watch.")] = "2s",
    json: JsonOption = False,
) -> None:
    """Show tonight at a glance: images, what is late, incomplete or lost, queues, headers, services.

    With URLs it shows what running services say of themselves: times of each stage, buffers, losses. With
    --watch it goes on until it is stopped; with --json and --watch it prints one object a line.
    """
    del json
    console.command = "status"
    pause = duration(every, "--every")
    source, pages = _sources(places or [], ledger, config)

    def look() -> tuple[dict[str, Any], str]:
        content: dict[str, Any] = {}
        texts = []
        if source is not None:
            content, text = _tonight(source, night)
            texts.append(text)
        if pages:
            from raftwright.cli.pages import ask, drawn

            content["services"] = answers = ask(pages)
            shown = answers if watch else [answer for answer in answers if "error" not in answer]
            texts.append(drawn(shown) if not console.json else "")
        return content, "\n\n".join(text for text in texts if text)

    if watch:
        _again(look, pause)
        return
    content, text = look()
    if text:
        console.print(text)
    silent = [answer for answer in content.get("services", ()) if "error" in answer]
    if silent:
        _nobody(content, silent)
    console.answer("ok", Exit.OK, content)


def _sources(
    places: list[str], option: str | None, config: Sequence[Path] | None
) -> tuple[str | None, list[Page]]:
    """The ledger, where one is meant, and the pages."""
    import os

    from raftwright.cli.pages import DEFAULT_PAGE, page_of

    ledgers = [place for place in places if _is_ledger(place) or os.path.isdir(place)]
    urls = [place for place in places if place not in ledgers]
    if option is not None:
        ledgers.insert(0, option)
    if not places and not ledgers:
        found = ledger_or_none(config)
        return (None, [page_of(DEFAULT_PAGE)]) if found is None else (found, [])
    if len(ledgers) > 1:
        from raftwright.errors import UsageError

        raise UsageError(f"one ledger at a time; {len(ledgers)} are named: {', '.join(ledgers)[:200]}")
    return (ledger_of(ledgers[0]) if ledgers else None), [page_of(url) for url in urls]


def _is_ledger(place: str) -> bool:
    return place.startswith(("sqlite:", "postgresql:", "postgres:")) or place.endswith(".db")


def _tonight(source: str, night: int | None) -> tuple[dict[str, Any], str]:
    from dataclasses import asdict

    from raftwright.cli.glance import at_a_glance
    from raftwright.report.book import open_book
    from raftwright.report.tonight import tonight

    with open_book(source) as book:
        seen = tonight(book, dayobs=night)
    return asdict(seen), "" if console.json else at_a_glance(seen)


def _again(look: Callable[[], tuple[dict[str, Any], str]], pause: float) -> None:
    terminal = sys.stdout.isatty() and not console.json
    try:
        while True:
            content, text = look()
            if text:
                console.print("\x1b[H\x1b[2J" + text if terminal else text)
            console.event("status", {"time": time.time(), **content})
            console.flush()
            time.sleep(pause)
    except KeyboardInterrupt:  # how one ends it
        return


def _nobody(content: dict[str, Any], silent: list[dict[str, Any]]) -> None:
    said = "; ".join(f"{answer['url']}: {answer['error']}" for answer in silent)
    if len(silent) == len(content["services"]):
        text = f"no service answers at {said}; is it running, with --metrics?"
    else:
        text = f"{len(silent)} of {len(content['services'])} services do not answer: {said}"
    error = NotFoundError(text)
    error.report = _Report(content)  # type: ignore[attr-defined]
    raise error


class _Report:
    """What is told with an error in JSON mode."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content

    def to_dict(self) -> dict[str, Any]:
        return self.content
