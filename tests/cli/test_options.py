"""Values of options: times, sizes; and lines of JSON of commands that run on."""

from __future__ import annotations

import json
import math

import pytest

from raftwright.cli.console import Console
from raftwright.cli.options import duration, octets
from raftwright.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("17s", 17),
        ("200ms", 0.2),
        ("2min", 120),
        ("1h", 3600),
        ("1d", 86400),
        ("3", 3),
        ("1.5 s", 1.5),
        (".5", 0.5),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert math.isclose(duration(text), seconds)


@pytest.mark.parametrize("text", ["", "s", "-1s", "1 year", "1e3", "nan", "inf", "1,5s", "1s 2", "١s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match=r"--every: .* is no time"):
        duration(text, "--every")


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GB", 2 * 10**9), ("64MiB", 64 << 20), ("500 kB", 500_000), ("1000", 1000), ("1.5G", 1_500_000_000),
     ("7B", 7), ("1TiB", 1 << 40)],
)  # fmt: skip
def test_sizes(text: str, size: int) -> None:
    assert octets(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1", "2 gigabytes", "1e9", "nan", "1gb"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match=r"--memory: .* is no size"):
        octets(text, "--memory")


def test_events_are_lines_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.begin(json=False)
    console.event("image", {"n": 1})
    assert capsys.readouterr().out == ""
    console.begin(json=True)
    console.event("image", {"name": "a\nb\x1b", "rate": math.nan})
    console.event("image", {"n": 2})
    first, second = capsys.readouterr().out.splitlines()
    assert json.loads(first) == {"event": "image", "name": "a\nb\x1b", "rate": None}
    assert "\x1b" not in first
    assert json.loads(second)["n"] == 2
