"""An endpoint's directories."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))  # for endpoint_stand

from endpoint_stand import Stand


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    """Every endpoint of it is stopped at the end."""
    made = Stand(tmp_path)
    yield made
    made.close()
