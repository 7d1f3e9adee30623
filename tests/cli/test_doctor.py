"""`raftwright doctor`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[..., Any]


def test_a_table_and_what_to_change(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    done = run(
        "doctor",
        "--out",
        tmp_path / "out",
        "--metrics",
        "127.0.0.1:0",
        "--prompt-memory",
        "0",
        "--memory",
        "1MB",
    )
    lines = done.out.splitlines()
    assert lines[0].split() == ["check", "found", "wanted"]
    assert any(line.startswith(" ok     processors") for line in lines) or " warn   processors" in done.out
    assert "fsync" in done.out
    assert " checks: " in lines[-1]
    assert all(len(line) <= 110 for line in lines if not line.startswith("  "))
    assert done.code in (0, 5)


def test_faults_have_an_exit_code(run: Run, tmp_path: Path) -> None:
    done = run("doctor", "--out", tmp_path / "none", "--metrics", "127.0.0.1:0")
    assert done.code == 5
    assert f"{tmp_path / 'none'}: mkdir -p {tmp_path / 'none'}" in done.out.replace("\n", " ")
    answer = run("doctor", "--out", tmp_path / "none", "--metrics", "127.0.0.1:0", "--json")
    assert (answer.code, answer.json["exit_code"], answer.json["status"]) == (5, 5, "faults")
    [bad] = [finding for finding in answer.json["findings"] if finding["check"] == str(tmp_path / "none")]
    assert bad == {
        "check": str(tmp_path / "none"),
        "level": "fail",
        "found": "is not there",
        "wanted": "a directory",
        "change": f"mkdir -p {tmp_path / 'none'}",
    }


def test_sizes_are_sizes(run: Run) -> None:
    assert "is no size" in run("doctor", "--memory", "much").error
