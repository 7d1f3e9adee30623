"""Repositories, and small raws of real boards to put into them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))  # for small_raws

from small_raws import Raws

import postgres_server


def _missing(reason: str) -> None:
    if os.environ.get("RAFTWRIGHT_REQUIRE_TOOLS") == "1":
        pytest.fail(
            f"{reason}, and RAFTWRIGHT_REQUIRE_TOOLS=1 says that no test may do without", pytrace=False
        )
    pytest.skip(reason)


@pytest.fixture(scope="session")
def server() -> Iterator[postgres_server.PostgresServer]:
    """PostgreSQL, for all tests of this process."""
    one = postgres_server.start(_missing)
    yield one
    one.stop()


@pytest.fixture
def archive(tmp_path: Path) -> Raws:
    """An archive that raws are written into."""
    return Raws(tmp_path / "archive")


@pytest.fixture(scope="session")
def _empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository that is copied, since making one takes a second."""
    from raftwright.butler import make_repository

    root = tmp_path_factory.mktemp("empty") / "repo"
    make_repository(root).close()
    return root


@pytest.fixture
def repo(_empty: Path, tmp_path: Path) -> Path:
    """An empty repository of the observatory's cameras, in SQLite."""
    import shutil

    root = tmp_path / "repo"
    shutil.copytree(_empty, root)
    return root


@pytest.fixture
def opened(repo: Path) -> Iterator[Callable[..., object]]:
    """Opens repositories that are closed at the end."""
    from raftwright.butler import Repository, open_repository

    some: list[Repository] = []

    def open_one(root: Path = repo, *, writeable: bool = True, **settings: float) -> Repository:
        some.append(open_repository(root, writeable=writeable, **settings))
        return some[-1]

    yield open_one
    for one in some:
        one.close()


@pytest.fixture
def run_without() -> Callable[..., str]:
    """Runs a program in an interpreter that finds no package of this name; what it printed."""
    import subprocess

    import raftwright

    def run(package: str, program: str) -> str:
        hide = f"import sys; sys.modules[{package!r}] = None\n"
        done = subprocess.run(
            [sys.executable, "-c", hide + program],
            capture_output=True,
            text=True,
            timeout=60,
            env={"PYTHONPATH": str(Path(raftwright.__file__).parents[1]), "PATH": "/usr/bin:/bin"},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
