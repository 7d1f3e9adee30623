"""What the tests of the header service share: an observatory that tells what the test says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from raftwright.header import Collected, Collector, Spec, header_spec
from raftwright.header.collector import Limits
from raftwright.header.service import HeaderService
from raftwright.header.simulated import Exposure, SimulatedTelemetry, Told
from raftwright.rawfile import HeaderDocument, read_header_document, times
from raftwright.rawfile.names import ImageName

CAMERAS = {"LSSTComCam": "CC", "LSSTCam": "MC", "LATISS": "AT"}
Serve = Callable[..., HeaderService]
BEGIN = times.parse_iso("2026-11-23T01:02:03.456") * 1e-9
"""Of exposures of real images, in seconds TAI."""


def name_of(number: int, camera: str = "LSSTComCam", controller: str = "O", day: str = "20261122") -> str:
    return f"{CAMERAS[camera]}_{controller}_{day}_{number:06}"


class Observatory:
    """Tells of images of a camera; those of controller O were taken at `BEGIN` plus a minute for each."""

    def __init__(self, camera: str = "LSSTComCam", *, length: float = 15.0, kind: str = "OBJECT") -> None:
        self.spec: Spec = header_spec(camera)
        self.camera = camera
        self.simulated = SimulatedTelemetry(self.spec, exposure_time=length, image_types=(kind,))

    def exposure(self, number: int = 1, begin: float | None = None, day: str = "20261122") -> Exposure:
        name = ImageName.parse(name_of(number, self.camera, day=day))
        kind = self.simulated._types[0]
        length = 0.0 if kind == "BIAS" else self.simulated._exposure_time
        begin = BEGIN + 60.0 * number if begin is None else begin
        return Exposure(name, begin, begin + length, length, kind, 2.0, "0123456789abcdef")

    def told(self, exposure: Exposure) -> list[Told]:
        return [*self.simulated.before(exposure), *self.simulated.after(exposure)]

    def events(self, exposure: Exposure) -> dict[str, dict[str, Any]]:
        """Fields of its events by kind."""
        return {told.kind: told.fields for told in self.told(exposure) if told.kind != "telemetry"}

    def published(self, kind: str, exposure: Exposure) -> float:
        """When an event would be told, in seconds TAI."""
        after = {"startIntegration": exposure.begin, "startReadout": exposure.end}
        end = exposure.end + exposure.readout
        return {**after, "endReadout": end}.get(kind, end + 0.3) + 0.05

    def collector(self, exposures: Iterable[Exposure] = (), limits: Limits | None = None) -> Collector:
        """One that has heard the telemetry of exposures."""
        collector = Collector(self.spec, limits)
        for exposure in exposures:
            feed_telemetry(collector, self.simulated.telemetry(exposure))
        return collector

    def collected(
        self, exposure: Exposure, change: Callable[[dict[str, dict[str, Any]]], None] | None = None
    ) -> Collected:
        """All that is told of an exposure."""
        collector = self.collector([exposure])
        events = self.events(exposure)
        if change is not None:
            change(events)
        for kind, fields in events.items():
            assert collector.event(kind, fields, 0.0, self.published(kind, exposure)) is None
        return collector.snapshot(str(exposure.name))


def feed_telemetry(collector: Collector, samples: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    for topic, fields in samples:
        collector.telemetry(topic, fields["timestamp"], fields["values"], fields.get("expiresAt"))


def values_of(document: bytes | Path | HeaderDocument, *sections: str) -> dict[str, Any]:
    """Values of a document's sections by keyword; of PRIMARY by default."""
    if not isinstance(document, HeaderDocument):
        document = read_header_document(document)
    return {k: record.value for k, record in document.section(*(sections or ("PRIMARY",))).items()}


def wait_for(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """What the condition gives once it is true; fails after `seconds`."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, f"not within {seconds} s"
        time.sleep(0.01)
    return found


def write_event(directory: Path, name: str, kind: str, fields: Mapping[str, Any], told: str = "") -> None:
    """Puts a file with an event into a directory, as programs do that know how: whole."""
    hidden = directory / f".{name}"
    hidden.write_text(json.dumps({"kind": kind, "fields": fields, "time": told}))
    hidden.rename(directory / f"{name}.json")


def names_in(directory: Path) -> list[str]:
    """Names in a directory; none where there is no such."""
    return sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []


class Process:
    """A program that tells JSON lines."""

    def __init__(self, *arguments: str, cwd: Path) -> None:
        with (cwd / f"{arguments[0]}.err").open("a") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "raftwright", *arguments, "--json"],
                cwd=cwd,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, "TZ": "Pacific/Kiritimati"},
            )

    def line(self) -> dict[str, Any]:
        """The next line; fails when the program ended."""
        assert self.process.stdout is not None
        text = self.process.stdout.readline()
        assert text, f"it ended with {self.process.wait(10)}"
        found: dict[str, Any] = json.loads(text)
        return found

    def until(self, event: str) -> dict[str, Any]:
        while (found := self.line())["event"] != event:
            pass
        return found

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def end(self) -> int:
        """Stops it; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.stdout is not None
        self.process.stdout.read()
        return self.process.wait(20)
