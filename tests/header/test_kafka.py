"""Events and telemetry by way of a broker: what was told while the service was away is not lost."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from observatory import Observatory, Serve, values_of, wait_for

sys.path.append(str(Path(__file__).resolve().parent.parent / "events"))  # for event_stand

from event_stand import Broker

from raftwright.events import Publisher, open_publisher
from raftwright.events.kafka_subscriber import KafkaSubscriber

COMCAM = Observatory()
QUICK = {"session.timeout.ms": 1500, "heartbeat.interval.ms": 200, "max.poll.interval.ms": 2500}
"""The mock cluster waits for a session after a member left; a real one does not."""


@pytest.fixture
def url() -> Iterator[str]:
    pytest.importorskip("confluent_kafka")
    with Broker() as broker:
        yield broker.url()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(url: str, *, kinds: Any, group: str, dead: Any) -> KafkaSubscriber:
        return KafkaSubscriber(url, kinds=frozenset(kinds), group=group, dead=dead, tuning=QUICK)

    monkeypatch.setattr("raftwright.events.open_subscriber", opened)


def tell(publisher: Publisher, number: int) -> str:
    exposure = COMCAM.exposure(number)
    for told in COMCAM.told(exposure):
        publisher.publish(told.kind, **told.fields)
    return str(exposure.name)


def test_what_was_told_while_it_was_away(serve: Serve, tmp_path: Path, url: str) -> None:
    """D012: partitions mix the order. F18, F19."""
    with open_publisher(url) as publisher:
        first = serve(listen=[url], directory="", deadline=20.0)
        archive = tmp_path / "arc" / "20261122"

        def path_of(obsid: str) -> Path:
            return archive / obsid / f"{obsid}_header.yaml"

        for _ in range(30):  # until it has joined
            path = path_of(tell(publisher, 1))
            until = time.monotonic() + 1.0
            while not path.exists() and time.monotonic() < until:
                time.sleep(0.02)
            if path.exists():
                break
        wait_for(lambda: first.idle)
        first.stop()
        obsids = [tell(publisher, number) for number in (2, 3)]
    second = serve(listen=[url], directory="", deadline=20.0)
    for obsid in obsids:
        wait_for(path_of(obsid).exists, 30.0)
        values = values_of(path_of(obsid))
        assert (values["OBSID"], values["HDRSTATE"]) == (obsid, "complete")
        assert "HDRLACKS" not in values
    assert second.collector.counts["end_without_start"] == 0
