"""An archive whose files are brought to places."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "archiver"))  # for archive_stand, s3_servers
sys.path.insert(0, str(Path(__file__).resolve().parent))  # for far_places

from archive_stand import Archive


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    """Closed at the end, with every archiver of it."""
    made = Archive(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """moto, for all tests here."""
    pytest.importorskip("moto", reason="moto is not installed: pip install 'raftwright[test]'")
    pytest.importorskip(
        "lsst.resources", reason="lsst-resources is not installed: pip install 'raftwright[s3]'"
    )
    from s3_servers import true_server

    with true_server() as url:
        yield url
