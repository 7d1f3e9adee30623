"""The simulated observatory follows a real DAQ server, also where notices do not come."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from raftwright.daq.cadence import CadenceStore
from raftwright.daq.frames import SimulatedFrames
from raftwright.events import open_subscriber
from raftwright.header.telemetry import Settings, TelemetrySimulator
from raftwright.stream.faults import Faults
from raftwright.stream.server import Server

SMALL = [3, 0, 16, 0, 0, 5, 0, 16, 0, 0, 1]


def test_every_image_is_told_of_once_although_notices_are_lost(tmp_path: Path) -> None:
    """D096, F06: what no notice says the catalogue does."""
    frames = SimulatedFrames("LSSTComCam", 1, rafts=["R22"], registers=SMALL)
    store = CadenceStore(frames, every=0.7, readout=0.2, count=6, epoch=time.time() + 1.5)
    faults = Faults.parse("lose-notice=0.7", seed=3)
    with store, Server(store, f"ipc://{tmp_path}/daq", faults=faults) as server:
        telemetry = TelemetrySimulator(
            Settings(spec="LSSTComCam", daq=server.endpoint, events=f"ipc://{tmp_path}/events", exposure=0.2)
        )
        telemetry.start()
        told = Counter[tuple[str, str]]()
        try:
            with open_subscriber(f"ipc://{tmp_path}/events") as listener:
                end = time.monotonic() + 30
                while time.monotonic() < end and sum(kind == "endOfImageTelemetry" for kind, _ in told) < 6:
                    for event in listener.events(timeout=0.3):
                        if event.kind in ("startIntegration", "endReadout", "endOfImageTelemetry"):
                            told[event.kind, event["imageName"]] += 1
        finally:
            telemetry.stop()
    assert telemetry.followed == 6
    assert len(told) == 18
    assert set(told.values()) == {1}
