"""Licences of what is installed with the package, and the lock files."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

COPYLEFT = re.compile(r"\b(A?GPL|GNU (Affero )?General Public)", re.IGNORECASE)


def pins(path: Path) -> dict[str, set[str]]:
    """Versions pinned a package; a package may have one version a Python."""
    found: dict[str, set[str]] = {}
    for line in path.read_text().splitlines():
        if line and not line.startswith(("#", " ")):
            requirement = Requirement(line)
            specifiers = list(requirement.specifier)
            assert [part.operator for part in specifiers] == ["=="], f"{path.name}: {line} is no pin"
            found.setdefault(canonicalize_name(requirement.name), set()).add(specifiers[0].version)
    return found


def licence(name: str) -> str:
    metadata = importlib.metadata.metadata(name)
    words = [metadata.get("License-Expression") or "", (metadata.get("License") or "")[:80]]
    words += [value for value in metadata.get_all("Classifier") or [] if value.startswith("License")]
    return "; ".join(word for word in words if word)


def test_run_pins_are_those_of_test(project_root: Path) -> None:
    run = pins(project_root / "requirements" / "run.txt")
    test = pins(project_root / "requirements" / "test.txt")
    assert len(run) > 15
    assert {name: test.get(name) for name in run} == run


def test_every_requirement_is_locked(project_root: Path) -> None:
    project = tomllib.loads((project_root / "pyproject.toml").read_text())["project"]
    run = pins(project_root / "requirements" / "run.txt")
    test = pins(project_root / "requirements" / "test.txt")
    for text in project["dependencies"] + project["optional-dependencies"]["show"]:
        assert canonicalize_name(Requirement(text).name) in run, text
    for extra in project["optional-dependencies"].values():
        for text in extra:
            assert canonicalize_name(Requirement(text).name) in test, text


def test_no_upper_bounds(project_root: Path) -> None:
    project = tomllib.loads((project_root / "pyproject.toml").read_text())["project"]
    for text in project["dependencies"]:
        assert all(part.operator == ">=" for part in Requirement(text).specifier), text


def test_nothing_that_the_package_needs_is_gpl(project_root: Path) -> None:
    seen = 0
    for name in pins(project_root / "requirements" / "run.txt"):
        try:
            terms = licence(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # pinned for another Python or system
        seen += 1
        assert not COPYLEFT.search(terms.replace("LGPL", "")), f"{name}: {terms}"
    assert seen > 15
