"""A site with an archive and an OODS."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))  # for oods_stand

from oods_stand import Site


@pytest.fixture(scope="session")
def empty_repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository that is copied, since making one takes a second."""
    from raftwright.butler import make_repository

    root = tmp_path_factory.mktemp("empty") / "repo"
    make_repository(root, cameras=["LSSTCam"]).close()
    return root


@pytest.fixture
def site(tmp_path: Path, empty_repo: Path) -> Iterator[Site]:
    """Closed at the end, with every service of it."""
    made = Site(tmp_path, empty_repo)
    yield made
    made.close()
