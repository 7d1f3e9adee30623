"""An archive with a ledger, and endpoints."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))  # for handoff_stand

from handoff_stand import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Closed at the end, with every hand-off of it."""
    made = Site(tmp_path)
    yield made
    made.close()
