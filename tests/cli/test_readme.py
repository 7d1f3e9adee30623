"""What README.md promises: its code runs, its commands exist, its links lead somewhere."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

Run = Callable[..., Any]


@pytest.fixture
def readme(project_root: Path) -> str:
    return (project_root / "README.md").read_text(encoding="utf-8")


def test_the_library_in_ten_lines_runs(readme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert blocks
    for block in blocks:
        assert len([line for line in block.splitlines() if line.strip()]) <= 12
        exec(compile(block, "README.md", "exec"), {})


def test_its_commands_run_and_print_what_it_shows(readme: str, run: Run) -> None:
    """With small images; what does not depend on their size must be printed as it stands there."""
    shown = re.findall(r"^\$ raftwright (.*)$", readme, re.MULTILINE)
    assert len(shown) >= 4
    for line in shown:
        words = shlex.split(line)
        extra = ["--size", "24x40", "--no-sync"] if words[0] == "simulate" else []
        done = run(*words, *extra)
        assert done.code == 0, f"{line}: {done.err}"
    for promised in (
        "  in raws/20261122/CC_O_20261122_000123",
        "  no pixel is missing",
        "  no fault, no warning",
    ):
        assert f"\n{promised}\n" in readme


def test_every_command_is_in_its_table(readme: str) -> None:
    from raftwright.cli.app import program

    in_table = set(re.findall(r"^\| `([a-z-]+)` \|", readme, re.MULTILINE))
    assert in_table == set(program().commands)


def words_of(node: ast.AST) -> list[str]:
    """The texts at the beginning of a call's arguments, or of a list of words."""
    parts = node.args if isinstance(node, ast.Call) else getattr(node, "elts", [])
    flat: list[ast.expr] = []
    for part in parts:
        inner = part.value if isinstance(part, ast.Starred) else part
        flat += inner.elts if isinstance(inner, ast.Tuple | ast.List) else [inner]
    return [
        part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else "" for part in flat
    ]


def test_every_command_of_its_table_is_run_by_a_test(readme: str, project_root: Path) -> None:
    """D085: what is claimed to be there is run, and not there in name only."""
    claimed = set(re.findall(r"^\| `([a-z-]+)` \|", readme, re.MULTILINE))
    run: set[str] = set()
    for path in (project_root / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            words = words_of(node)
            if isinstance(node, ast.Call):
                run |= set(words[:2])
            elif "raftwright" in words[:-1]:
                run.add(words[words.index("raftwright") + 1])
    assert claimed
    assert not claimed - run


def test_its_links_lead_somewhere(readme: str, project_root: Path) -> None:
    links = {link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", readme) if "://" not in link}
    assert links
    for link in links:
        assert (project_root / link).exists(), link


def test_its_picture_is_one_and_small(project_root: Path) -> None:
    path = project_root / "docs" / "images" / "raft.png"
    assert path.stat().st_size < 300_000
    with Image.open(path) as image:
        image.verify()
