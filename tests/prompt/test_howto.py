"""The how-to pages must stay true: their Python runs, their commands and settings are known."""

from __future__ import annotations

import contextlib
import re
import shlex
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

import raftwright
from raftwright import _core
from raftwright.assembly import AssembledSource
from raftwright.daq import Registers, simulate_image
from raftwright.events import KINDS, open_publisher
from raftwright.prompt import Pool, PromptCcd

HOWTO = Path(__file__).parents[2] / "docs/howto"
PAGES = {name: (HOWTO / f"{name}.md").read_text() for name in ("prompt-processing", "run-a-forwarder")}
FILE: dict[str, Any] = {
    "instrument": "LSSTCam",
    "obsid": "MC_O_20261122_000123",
    "raft": "R22",
    "sensor": "S11",
    "location": "22/1",
    "path": "a/b.fits",
    "bytes": 10,
    "crc32c": "00000000",
    "version": 1,
}
SMALL = Registers(3, 0, 24, 0, 0, 16, 0, 40, 0, 6)


def blocks(page: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGES[page], re.MULTILINE | re.DOTALL)


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("raftwright.prompt.place._home", lambda: tmp_path)
    with Pool("default", 32 << 20) as pool:
        yield pool


def show(pool: Pool, name: str) -> None:
    image = simulate_image("LSSTComCam", name, seed=5, registers=SMALL, locations=["22/1"])
    board = raftwright.camera("LSSTComCam").board("22/1")
    slab = pool.lend(_core.planes_bytes(48, SMALL.width, SMALL.height))
    assert slab is not None
    readout = _core.Readout(board.layout, SMALL.width, SMALL.height, memory=slab.memory)
    info = image.source("22/1").info
    readout.add(0, image.source("22/1").read(0, info.bytes))
    readout.finish()
    slab.publish_source(name, "LSSTComCam", AssembledSource(board, info, SMALL.geometry, readout, -1))


def test_watching_in_python(pool: Pool, capsys: pytest.CaptureFixture[str]) -> None:
    first, filtered = blocks("prompt-processing", "python")
    shown = threading.Timer(0.3, lambda: show(pool, "CC_O_20261122_000001"))
    shown.start()
    exec(compile(first, "prompt-processing.md", "exec"), {})
    shown.join()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["CC_O_20261122_000001", name] for name in ("R22_S10", "R22_S11", "R22_S12")
    ]
    names: dict[str, Any] = {"raftwright": raftwright}
    exec(compile(filtered, "prompt-processing.md", "exec"), names)
    assert capsys.readouterr().out == "0 boards were gone before I looked\n"
    assert names["ccd"].name == "R22_S11"
    assert names["flat"].ndim == 2
    assert names["flat"].size > 0


def test_what_a_ccd_has(pool: Pool) -> None:
    table = re.findall(r"^\| (`.*?) \|", PAGES["prompt-processing"], re.MULTILINE)
    names = {re.match(r"\w+", name)[0] for row in table for name in re.findall(r"`([^`]+)`", row)}  # type: ignore[index]
    assert len(names) > 12
    for name in names:
        assert hasattr(PromptCcd, name), name


def test_settings_in_a_file(tmp_path: Path) -> None:
    from raftwright.forwarder import read_settings

    [text] = blocks("run-a-forwarder", "yaml")
    path = tmp_path / "forwarder.yaml"
    path.write_text(text)
    settings = read_settings(path, {})
    assert (settings.name, settings.rafts, settings.prompt) == ("dc01", ["R22", "R23"], "default")
    assert yaml.safe_load(text).keys() <= set(settings.__struct_fields__)


def test_every_command_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import typer

    from raftwright.cli.app import program

    seen = set()
    for page in PAGES:
        lines = [
            line
            for block in blocks(page, "")
            for line in block.splitlines()
            if line.startswith("raftwright ")
        ]
        lines += re.findall(r"`(raftwright [a-z][^`]*)`", PAGES[page])
        for line in lines:
            words = shlex.split(line.replace("…", "x"), comments=True)[1:]
            if "HOST:PORT" in line or (
                words[:1] == ["forward"] and "--out" not in line and "--config" not in line
            ):
                continue
            context = program().make_context("raftwright", list(words), resilient_parsing=False)
            command = program().get_command(context, words[0])
            assert command is not None, line
            rest = words[1:]
            if hasattr(command, "get_command") and rest:
                inner = command.get_command(context, rest[0])
                assert inner is not None, line
                command, rest = inner, rest[1:]
            with contextlib.suppress(typer.Exit):
                command.make_context(words[0], rest, parent=context)
            seen.add(words[0])
    assert seen >= {"serve", "forward", "status", "watch", "doctor", "keys"}


def test_events_in_python(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [text] = blocks("run-a-forwarder", "python")
    endpoint = f"ipc://{tmp_path}/events"
    text = text.replace("tcp://127.0.0.1:5580", endpoint).replace("timeout=60.0", "timeout=1.5")
    with open_publisher(endpoint) as publisher:
        done = threading.Event()

        def tell() -> None:
            while not done.wait(0.1):
                publisher.publish("fileWritten", **FILE)
                if time.monotonic() > end:
                    return

        end = time.monotonic() + 1.5
        thread = threading.Thread(target=tell)
        thread.start()
        exec(compile(text, "run-a-forwarder.md", "exec"), {})
        done.set()
        thread.join()
    assert " fileWritten {" in capsys.readouterr().out
    table = re.findall(r"^\| `(\w+)` \| (?:a|all|the|events)", PAGES["run-a-forwarder"], re.MULTILINE)
    assert set(table) - {"missed"} < set(KINDS)
    assert {"fileWritten", "imageIncomplete", "unitTakenOver"} < set(table)
