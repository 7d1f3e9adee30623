"""`raftwright bench`, with figures that take no time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import raftwright.bench
from raftwright.bench import Figure

Run = Callable[..., Any]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Calls of the figures."""
    calls: list[tuple[Any, ...]] = []

    def figure(board: object, repeat: int) -> Figure:
        calls.append((board, repeat))
        return Figure("a thing", "another", 2.0, 3.5, 1.25)

    def impossible(board: object, repeat: int) -> Figure:
        return Figure("no thing", "fitsio", 5.0, None, None, "fitsio is not installed")

    monkeypatch.setattr(raftwright.bench, "FIGURES", {"thing": figure, "none": impossible})
    monkeypatch.setattr(raftwright.bench, "full_board", lambda: "board")
    return calls


def test_the_table(run: Run, quick: list[tuple[Any, ...]]) -> None:
    done = run("bench", "--repeat", 3)
    assert done.code == 0, done.err
    assert quick == [("board", 3)]
    line = next(line for line in done.out.splitlines() if line.startswith("a thing"))
    assert line.split("  ")[0] == "a thing"
    for word in ("1.25", "3.50", "reached", "another"):
        assert word in line
    assert "not measured" in done.out
    assert "fitsio is not installed" in done.out


def test_json(run: Run, quick: list[tuple[Any, ...]]) -> None:
    answer = run("bench", "thing", "--json").json
    assert [figure["ratio"] for figure in answer["figures"]] == [3.5]
    assert answer["figures"][0]["reached"] is True
    assert "kernels in use" in answer["build"]


def test_unknown_figures(run: Run, quick: list[tuple[Any, ...]]) -> None:
    done = run("bench", "bogus")
    assert done.code == 2
    assert "bogus" in done.error
