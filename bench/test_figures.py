"""Every figure of the project, with its promise: `make bench`, or `pytest bench`.

Ratios within one run; the benchmark fixture records our own side's time as well.
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from raftwright.bench import FIGURES, full_board
from raftwright.bench.board import BenchBoard


@pytest.fixture(scope="module")
def board() -> BenchBoard:
    return full_board()


@pytest.mark.parametrize("name", list(FIGURES))
def test_figure_is_reached(name: str, board: BenchBoard, benchmark: BenchmarkFixture) -> None:
    figure = benchmark.pedantic(FIGURES[name], args=(board, 5), rounds=1, iterations=1)
    benchmark.extra_info.update(
        figure=figure.name, against=figure.against, ratio=figure.ratio, target=figure.target
    )
    if figure.ratio is None:
        pytest.skip(f"{figure.name}: {figure.note}")
    assert figure.ratio >= figure.target, f"{figure.name}: {figure.ratio:.2f} of {figure.against}"
