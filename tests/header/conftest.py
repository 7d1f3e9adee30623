"""An observatory, header services as objects and as processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))  # for observatory

from observatory import Observatory

from raftwright.header.service import HeaderService
from raftwright.header.settings import Settings

Serve = Callable[..., HeaderService]


@pytest.fixture(scope="session")
def comcam() -> Observatory:
    return Observatory()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts header services of ComCam on `arc`, with a directory as input; they are stopped at the end."""
    running: list[HeaderService] = []

    def start(**options: Any) -> HeaderService:
        log = options.pop("log", None)
        life = options.pop("life", None)
        given = {
            "archive": str(tmp_path / "arc"),
            "spec": "LSSTComCam",
            "directory": str(tmp_path / "in"),
            "durable": False,
            **options,
        }
        service = HeaderService(Settings(**given), life, log=log)
        running.append(service)
        return service.start()

    yield start
    for service in running:
        service.stop(0.0)


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


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts programs of raftwright; those that run at the end are killed."""
    started: list[Process] = []

    def start(*arguments: object) -> Process:
        process = Process(*map(str, arguments), cwd=tmp_path)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.process.poll() is None:
            process.kill()
        if process.process.stdout is not None:
            process.process.stdout.close()
