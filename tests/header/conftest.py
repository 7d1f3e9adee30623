"""An observatory, header services as objects and as processes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))  # for observatory

from observatory import Observatory, Process, Serve

from raftwright.header.service import HeaderService
from raftwright.header.settings import Settings


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
