"""An archive whose files are brought to places."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "archiver"))  # for archive_stand, s3_servers

from archive_stand import Archive


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    """Closed at the end, with every archiver of it."""
    made = Archive(tmp_path)
    yield made
    made.close()
