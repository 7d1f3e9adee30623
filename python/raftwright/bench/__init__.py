"""The project's figures, measured on the user's own machine: `raftwright bench`.

Every figure is a ratio of two ways of doing the same work, measured in turn in one run, because machines
differ and drift and ratios hardly do. Results are checked in the run that is timed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from raftwright.bench.board import BenchBoard, full_board
from raftwright.bench.figures import FIGURES as _FIGURES
from raftwright.bench.figures import Figure
from raftwright.bench.memory import peak_memory
from raftwright.bench.streaming import FIGURES as _STREAMING
from raftwright.errors import UsageError

__all__ = ["FIGURES", "Figure", "full_board", "peak_memory", "run"]

FIGURES: dict[str, Callable[[BenchBoard, int], Figure]] = {**_FIGURES, **_STREAMING}
"""Every figure by its short name."""


def run(
    names: Iterable[str] | None = None,
    *,
    repeat: int = 5,
    on_figure: Callable[[Figure], None] | None = None,
) -> list[Figure]:
    """Measures the figures ``names`` (all by default) with ``repeat`` pairs each, in about 1.5 GB.

    ``on_figure`` is called with each as it is done. Raises UsageError for an unknown name, RaftwrightError
    when a result is wrong.
    """
    chosen = list(FIGURES) if names is None else list(names)
    for name in chosen:
        if name not in FIGURES:
            raise UsageError(f"no figure {name!r}; there are {', '.join(FIGURES)}")
    if repeat < 1:
        raise UsageError(f"repeat must be at least 1, not {repeat}")
    board = full_board()
    results = []
    for name in chosen:
        results.append(FIGURES[name](board, repeat))
        if on_figure is not None:
            on_figure(results[-1])
    return results
