"""A Kafka broker of its own process for tests that need one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))  # for event_stand

from event_stand import Broker


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    pytest.importorskip("confluent_kafka")
    with Broker() as broker:
        yield broker
