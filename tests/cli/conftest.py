"""The program as a user has it: `run` calls it in this process, `spawn` as one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from raftwright.cli import main
from raftwright.daq import Registers, simulate_image, write_recording
from raftwright.rawfile import write_image

COMCAM = "CC_S_20261122_000001"
COMMAND = (sys.executable, "-m", "raftwright")
CORNER = "MC_S_20261122_000002"
MINI = "MN_S_20261122_000003"
SMALL = Registers(3, 0, 24, 0, 0, 16, 0, 40, 0, 6)


class Done(NamedTuple):
    """How a run of the program ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one object on the standard output."""
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line of an error."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("raftwright: error: "), self.err
        assert "Traceback" not in self.err
        return lines[0].removeprefix("raftwright: error: ")


Run = Callable[..., Done]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the program in an empty directory, which is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAFTWRIGHT_DEBUG", raising=False)

    def call(*arguments: object) -> Done:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return call


@pytest.fixture
def spawn(tmp_path: Path) -> Run:
    """Runs the program as a process; keywords are those of subprocess.run."""

    def call(*arguments: object, **options: Any) -> Done:
        settings = {"capture_output": True, "text": True, "timeout": 120, "cwd": tmp_path, **options}
        done = subprocess.run([*COMMAND, *map(str, arguments)], check=False, **settings)
        return Done(done.returncode, done.stdout or "", done.stderr or "")

    return call


def _record(
    directory: Path,
    camera: str,
    name: str,
    *,
    rafts: list[str] | None = None,
    registers: Registers | None = SMALL,
) -> Path:
    image = simulate_image(camera, name, seed=5, rafts=rafts, registers=registers)
    return write_recording(directory / name, image, durable=False).path


@pytest.fixture(scope="session")
def comcam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recording of a ComCam image with segments of 43 x 46 pixels."""
    return _record(tmp_path_factory.mktemp("comcam"), "LSSTComCam", COMCAM)


@pytest.fixture(scope="session")
def corner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recording of a corner raft and a science raft of LSSTCam, small segments."""
    return _record(tmp_path_factory.mktemp("corner"), "LSSTCam", CORNER, rafts=["R00", "R01"])


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recording of MiniCam at its own size."""
    return _record(tmp_path_factory.mktemp("mini"), "MiniCam", MINI, registers=None)


@pytest.fixture(scope="session")
def raws(comcam: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of the raw files of `comcam`. Nobody writes there."""
    return write_image(comcam, tmp_path_factory.mktemp("raws"), durable=False).directory


@pytest.fixture(scope="session")
def corner_raws(corner: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of the raw files of `corner`. Nobody writes there."""
    return write_image(corner, tmp_path_factory.mktemp("raws"), durable=False).directory


@pytest.fixture
def editable(comcam: Path, tmp_path: Path) -> Path:
    """A copy of `comcam` to spoil."""
    copy = tmp_path / "spoilt" / comcam.name
    copy.mkdir(parents=True)
    for path in comcam.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


@pytest.fixture
def files_below() -> Callable[[Path], dict[str, bytes]]:
    """Function from a directory to the content of every file below it, temporary ones too."""

    def collect(path: Path) -> dict[str, bytes]:
        found = sorted(entry for entry in path.rglob("*") if entry.is_file())
        return {os.path.relpath(entry, path): entry.read_bytes() for entry in found}

    return collect
