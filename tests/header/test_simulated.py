"""Simulated telemetry: the same for the same seed and name, and what goes wrong when it is asked to."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

import pytest
from observatory import CAMERAS, wait_for

from raftwright.daq import CadenceStore, SimulatedFrames
from raftwright.daq.small import small_registers
from raftwright.events import open_publisher, open_subscriber
from raftwright.events.schema import check_fields
from raftwright.header import header_spec
from raftwright.header.simulated import Faults, SimulatedTelemetry
from raftwright.header.telemetry import Settings, TelemetrySimulator
from raftwright.stream.server import Server

COMCAM = header_spec("LSSTComCam")
NAMES = [f"CC_S_20261122_{n:06}" for n in range(1, 101)]


def told(simulated: SimulatedTelemetry, obsid: str) -> list[Any]:
    exposure = simulated.exposure(obsid)
    return [*simulated.before(exposure), *simulated.after(exposure)]


def test_the_same_seed_and_name_tell_the_same() -> None:
    faults = Faults(late=0.5, nan=0.5, twice=0.5)
    first, second = (SimulatedTelemetry(COMCAM, seed=7, faults=faults) for _ in range(2))
    other = SimulatedTelemetry(COMCAM, seed=8, faults=faults)
    assert [told(first, name) for name in NAMES[:20]] == [told(second, name) for name in NAMES[:20]]
    assert told(first, NAMES[0]) != told(other, NAMES[0])


@pytest.mark.parametrize("camera", CAMERAS)
def test_what_is_told_fits_its_schema_and_times_those_of_the_daq(camera: str) -> None:
    simulated = SimulatedTelemetry(header_spec(camera), exposure_time=3.0)
    name = f"{CAMERAS[camera]}_S_20261122_000010"
    for each in told(simulated, name):
        assert check_fields(each.kind, each.fields)
    exposure = simulated.exposure(name, "2026-11-22T12:02:50.000")
    assert (exposure.end, exposure.begin) == (exposure.begin + 3.0, exposure.end - 3.0)
    assert simulated.exposure(name).end == exposure.end


@pytest.mark.parametrize("fault", [f for f in Faults.__struct_fields__ if f != "late_by"])
def test_faults_come_in_the_share_that_is_asked_for(fault: str) -> None:
    simulated = SimulatedTelemetry(COMCAM, faults=Faults(**{fault: 0.3}))
    usual = SimulatedTelemetry(COMCAM)
    differing = sum(told(simulated, name) != told(usual, name) for name in NAMES)
    assert 15 <= differing <= 47
    whole = SimulatedTelemetry(COMCAM, faults=Faults(**{fault: 1.0}))
    assert all(told(whole, name) != told(usual, name) for name in NAMES[:10])


def test_it_follows_the_images_of_a_server() -> None:
    """Begun: start of integration; complete: end of readout, and 0.3 s later the end of telemetry."""
    registers = small_registers("16x16", COMCAM.camera, "size:")
    frames = SimulatedFrames("LSSTComCam", registers=registers)
    with open_publisher("tcp://127.0.0.1:*") as stand_in:
        endpoint = stand_in.endpoint
    heard: list[tuple[float, Any]] = []
    end = threading.Event()

    def listen() -> None:
        with open_subscriber(endpoint) as subscriber:
            while not end.is_set():
                heard.extend((time.monotonic(), event) for event in subscriber.events(timeout=0.05))

    listener = threading.Thread(target=listen)
    listener.start()
    with CadenceStore(frames, every=0.8, readout=0.3, count=2, epoch=time.time() + 1.0) as store:
        server = Server(store, "tcp://127.0.0.1:*")
        server.start()
        try:
            settings = Settings(spec="LSSTComCam", daq=server.endpoint, events=endpoint)
            with TelemetrySimulator(settings) as simulator:
                wait_for(lambda: Counter(e.kind for _, e in heard)["endOfImageTelemetry"] == 2, 15.0)
                assert simulator.report()["images"] == {"followed": 2}
        finally:
            end.set()
            listener.join(5.0)
            server.stop()
        for name in store.images():
            mine = [(at, e) for at, e in heard if e.fields.get("imageName") == name]
            kinds = ["startIntegration", "startReadout", "endReadout", "endOfImageTelemetry"]
            assert [e.kind for _, e in mine] == kinds
            assert mine[2][0] - mine[0][0] == pytest.approx(0.3, abs=0.25)
            assert mine[3][0] - mine[2][0] == pytest.approx(0.3, abs=0.25)
            info = store.image(name).info
            assert mine[3][1]["imageTag"] == info.id
