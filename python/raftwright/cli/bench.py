"""`raftwright bench`: what this machine reaches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from raftwright.cli.console import columns, console
from raftwright.cli.exits import Exit
from raftwright.cli.options import JsonOption
from raftwright.cli.progress import progress

if TYPE_CHECKING:
    from raftwright.bench import Figure

__all__ = ["bench"]


def bench(
    figures: Annotated[
        list[str] | None, typer.Argument(metavar="[FIGURE...]", help="Only these.", show_default=False)
    ] = None,
    repeat: Annotated[
        int, typer.Option("--repeat", min=1, max=1000, help="Rounds of each; the median counts.")
    ] = 5,
    json: JsonOption = False,
) -> None:
    """Measure what this machine reaches, each time beside the usual way of doing it, in turn.

    Needs 1.5 GB of memory and a few minutes. Ratios are above 1 where raftwright is faster.
    """
    from raftwright import _core
    from raftwright.bench import FIGURES, run

    del json
    console.command = "bench"
    chosen = figures or list(FIGURES)
    done: list[Figure] = []
    with progress("measuring", unit="figures") as advance:

        def take(figure: Figure) -> None:
            done.append(figure)
            if advance is not None:
                advance(len(done), len(chosen))

        run(chosen, repeat=repeat, on_figure=take)
    rows: list[tuple[object, ...]] = [("what", "Gpixel/s", "ratio", "at least", "", "against")]
    rows += [
        (
            figure.name,
            "-" if figure.gigapixels is None else f"{figure.gigapixels:.2f}",
            "-" if figure.ratio is None else f"{figure.ratio:.2f}",
            f"{figure.target:g}",
            {True: "reached", False: "not reached", None: "not measured"}[figure.reached],
            figure.against + (f" ({figure.note})" if figure.note else ""),
        )
        for figure in done
    ]
    build = _core.build_info()
    console.say(
        f"one board, 56.6 Mpixel, {build['kernels in use']} kernels, {_core.usable_processors()} processors",
        "",
    )
    console.say(*columns(rows, right=(1, 2, 3)))
    content = [
        {
            "name": figure.name,
            "against": figure.against,
            "target": figure.target,
            "ratio": figure.ratio,
            "gigapixels_per_second": figure.gigapixels,
            "reached": figure.reached,
            "note": figure.note,
        }
        for figure in done
    ]
    console.answer("ok", Exit.OK, {"build": build, "figures": content})
