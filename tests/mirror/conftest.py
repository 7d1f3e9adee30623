"""A tree, a far side and a mirror between them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))  # for mirror_stand

from mirror_stand import Stand


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    """Closed at the end, with its mirror."""
    made = Stand(tmp_path)
    yield made
    made.close()
