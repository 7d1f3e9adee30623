"""The version has one source, CMakeLists.txt, and everybody tells the same."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import pytest

import raftwright
from raftwright import _core


@pytest.fixture
def source_version(project_root: Path) -> str:
    found = re.search(r"project\(raftwright VERSION ([0-9.]+)", (project_root / "CMakeLists.txt").read_text())
    assert found is not None
    return found[1]


def test_package_metadata(source_version: str) -> None:
    assert importlib.metadata.version("raftwright") == source_version


def test_package(source_version: str) -> None:
    assert raftwright.__version__ == source_version


def test_compiled_core(source_version: str) -> None:
    assert _core.build_info()["version"] == source_version


def test_changelog_begins_with_it(project_root: Path, source_version: str) -> None:
    found = re.search(r"^## (\S+)", (project_root / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert found is not None
    assert found[1] == source_version


def test_the_installed_package_is_not_the_source_tree(project_root: Path) -> None:
    assert raftwright.__file__ is not None
    assert project_root / "python" not in Path(raftwright.__file__).resolve().parents
