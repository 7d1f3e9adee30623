"""Form and types of the sources, by the tools themselves (`make lint` runs this file alone)."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

LONGEST_FILE = 700
CODE = {".py", ".pyi", ".cpp", ".hpp", ".sh", ".pyx"}
FOLDERS = ("bench", "cpp", "python", "src", "tests", "tools")


def run(root: Path, *command: str | Path) -> None:
    done = subprocess.run(
        [str(part) for part in command], cwd=root, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, f"{command[0]} says:\n{done.stdout[-8000:]}{done.stderr[-8000:]}"


def code_files(root: Path) -> Iterator[Path]:
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in CODE and "vendor" not in path.parts and "__pycache__" not in path.parts:
                yield path


def test_ruff_check(project_root: Path, require_tool: Callable[[str], str]) -> None:
    run(project_root, require_tool("ruff"), "check", ".")


def test_ruff_format(project_root: Path, require_tool: Callable[[str], str]) -> None:
    run(project_root, require_tool("ruff"), "format", "--check", "--diff", ".")


def test_mypy_strict(project_root: Path, require_tool: Callable[[str], str]) -> None:
    run(project_root, require_tool("mypy"))


def test_clang_format(project_root: Path, require_tool: Callable[[str], str]) -> None:
    sources = [path for path in code_files(project_root) if path.suffix in {".cpp", ".hpp"}]
    assert len(sources) > 40
    run(project_root, require_tool("clang-format"), "--dry-run", "--Werror", *sources)


def test_no_file_is_too_long(project_root: Path) -> None:
    counts = {path: len(path.read_bytes().splitlines()) for path in code_files(project_root)}
    assert len(counts) > 60
    long = {str(path): count for path, count in counts.items() if count > LONGEST_FILE}
    assert not long, f"more than {LONGEST_FILE} lines; each is more than one thing: {long}"


def test_every_source_file_is_listed(project_root: Path) -> None:
    """CMake's lists name every C++ source, so that none is left out of a build in silence."""
    lists = {
        "cpp/CMakeLists.txt": project_root / "cpp" / "src",
        "cpp/tests/CMakeLists.txt": project_root / "cpp" / "tests",
        "src/CMakeLists.txt": project_root / "src" / "pybind",
    }
    for name, folder in lists.items():
        text = (project_root / name).read_text()
        base = (project_root / name).parent
        sources = [path.relative_to(base).as_posix() for path in sorted(folder.rglob("*.cpp"))]
        assert sources
        missing = [source for source in sources if source not in text]
        assert not missing, f"{name} does not list {missing}"


def imported_packages(path: Path) -> set[str]:
    """Names of the raftwright packages and modules that a module imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            found.add(node.module)
            if node.module == "raftwright":
                found |= {f"raftwright.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in found if name.startswith("raftwright.")}


ORDER = (
    *("errors", "metrics", "_core", "_stream", "camera", "daq", "stream", "assembly", "rawfile", "ledger"),
    *("events", "service", "prompt", "capture", "header", "forwarder", "transfer", "butler", "picture"),
    *("catchup", "archiver", "oods", "backbone", "mirror", "report", "bench", "doctor", "cli"),
)


@pytest.mark.parametrize(
    "package", [name for name in ORDER if name not in {"errors", "_core", "_stream", "cli"}]
)
def test_packages_import_only_what_stands_above_them(project_root: Path, package: str) -> None:
    allowed = {*ORDER[: ORDER.index(package) + 1], "_version"}
    modules = sorted((project_root / "python" / "raftwright" / package).rglob("*.py"))
    assert modules
    wrong = {
        str(path): extra for path in modules if (extra := (imported_packages(path) & set(ORDER)) - allowed)
    }
    assert not wrong, f"imports from below: {wrong}"


SERVICES = ("header", "forwarder", "catchup", "archiver", "oods", "backbone", "mirror")


@pytest.mark.parametrize("package", SERVICES)
def test_services_meet_in_the_ledger_and_in_events_only(project_root: Path, package: str) -> None:
    others = set(SERVICES) - {package}
    if package in ("forwarder", "catchup"):
        others.discard("header")  # its documents are read, the service is not
    for path in sorted((project_root / "python" / "raftwright" / package).rglob("*.py")):
        assert not imported_packages(path) & others, path


def test_the_core_knows_no_python(project_root: Path) -> None:
    for path in code_files(project_root):
        if path.relative_to(project_root).parts[0] == "cpp" and path.suffix in {".cpp", ".hpp"}:
            text = path.read_text(encoding="utf-8")
            assert "Python.h" not in text, path
            assert "pybind11" not in text, path
