"""A bar for long work. It stands on the standard error, and only when that is a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from raftwright.cli.console import clean, console

__all__ = ["Advance", "progress"]

Advance = Callable[[int, int], None]
"""Called with (done so far, all there is to do); from any thread, one call at a time."""


@contextlib.contextmanager
def progress(what: str, unit: str = "bytes") -> Iterator[Advance | None]:
    """A bar that is gone when the work is done; None where nobody would see it."""
    if not console.progress_wanted:
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    screen = Console(stderr=True)
    amount: list[ProgressColumn] = (
        [DownloadColumn(), TransferSpeedColumn()] if unit == "bytes" else [MofNCompleteColumn()]
    )
    # A narrow terminal keeps the bar and drops the rest.
    right: list[ProgressColumn] = [*amount, TimeRemainingColumn(compact=True)] if screen.width >= 72 else []
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        *right,
        console=screen,
        transient=True,
    )
    with bar:
        task = bar.add_task(clean(what, 40), total=None)

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield advance
