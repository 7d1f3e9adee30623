"""An archive with a ledger and a DAQ by hand."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))  # for archive_stand

from archive_stand import Archive


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    """Closed at the end, with every archiver of it."""
    made = Archive(tmp_path)
    yield made
    made.close()
