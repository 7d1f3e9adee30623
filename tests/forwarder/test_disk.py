"""Disks that are full, read-only or stuck: nothing is lost or torn, and it goes on by itself."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from stand import ROW, Run, Serve, check_archive, fits_in, rows_of, states_of, wait_for

from hand_daq import HandImage, HandStore, name_of
from raftwright.stream.server import Limits, Server

LARGE = [3, 0, 104, 0, 0, 21, 0, 120, 0, 8, 1]
"""128 x 128 pixels a segment: sources of 1.8 MB."""


class Disk:
    """What the disk below `root` does."""

    def __init__(self, shim: Path, root: Path, control: Path) -> None:
        self._control = control
        self.env = {"LD_PRELOAD": str(shim), "DISK_ROOT": str(root), "DISK_CONTROL": str(control)}

    def fail(self, number: int, operations: str) -> None:
        fresh = self._control.with_suffix(".new")
        fresh.write_text(f"{number} {operations}")
        fresh.rename(self._control)

    def stall(self) -> None:
        self.fail(0, "s")

    def heal(self) -> None:
        self._control.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def shim(require_tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that stands between a program and the disk."""
    compiler = require_tool("g++")
    library = tmp_path_factory.mktemp("shim") / "disk.so"
    source = Path(__file__).with_name("disk_shim.cpp")
    subprocess.run(
        [compiler, "-std=c++20", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"],
        check=True,
    )
    return library


@pytest.fixture
def disk(shim: Path, out: Path, tmp_path: Path) -> Disk:
    return Disk(shim, out, tmp_path / "control")


@pytest.mark.parametrize(
    ("number", "operations"),
    [
        (errno.ENOSPC, "w"),
        (errno.EROFS, "wslo"),
        (errno.EIO, "s"),
        (errno.EDQUOT, "l"),
    ],
)
def test_a_disk_that_refuses(
    number: int, operations: str, daq: HandStore, serve: Serve, run: Run, disk: Disk, out: Path, ledger: Path
) -> None:
    """The ledger lies on it too."""
    server = serve()
    daq.add(1)
    program = run(server.endpoint, env=disk.env)
    wait_for(lambda: states_of(ledger)["done"] == 3, 20, [program])
    image = daq.make(2)
    image.hold(4 * ROW)
    daq.put(image)
    wait_for(lambda: states_of(ledger)["claimed"] == 3, 10, [program])
    disk.fail(number, operations)
    image.mend()
    daq.add(3, 4)
    wait_for(
        lambda: any(os.strerror(number) in line or "ledger" in line for line in program.log), 10, [program]
    )
    time.sleep(1.0)
    assert program.process.poll() is None, "it gave up"
    assert len(fits_in(out)) == 9, "a file appeared on a disk that takes none"
    errors = [line for line in program.log if " error " in line]
    assert 1 <= len(errors) <= 4, "it is not said once: " + "\n".join(program.log)
    assert not any("Traceback" in line for line in program.log), program.log
    disk.heal()
    wait_for(lambda: states_of(ledger) == {"done": 12}, 20, [program])
    assert program.end() == 0
    rows = check_archive(out, ledger, daq.all)
    assert len(rows) == 36
    assert {row.version for row in rows} == {1}


def test_a_disk_that_is_really_full(
    daq: HandStore, serve: Serve, run: Run, tmp_path: Path, require_tool: Callable[[str], str]
) -> None:
    place = tmp_path / "small"
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    mount = [require_tool("mount"), "-t", "tmpfs", "-o", "size=12m", "none", str(place)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        _fill(daq, serve, run, place)
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def _fill(daq: HandStore, serve: Serve, run: Run, place: Path) -> None:
    out, ledger = place / "archive", place / "archive" / "ledger.db"
    server = serve()
    program = run(server.endpoint, out=out)
    daq.add(1)
    wait_for(lambda: states_of(ledger)["done"] == 3, 20, [program])
    ballast = place / "ballast"
    room = os.statvfs(place)
    with ballast.open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, room.f_bavail * room.f_frsize)
    daq.add(2, 3)
    wait_for(lambda: any("No space" in line or "full" in line for line in program.log), 10, [program])
    time.sleep(0.7)
    assert len(fits_in(out)) == 9
    ballast.unlink()
    wait_for(lambda: states_of(ledger) == {"done": 9}, 20, [program])
    assert program.end() == 0
    assert len(check_archive(out, ledger, daq.all)) == 27


@pytest.fixture
def many(daq: HandStore) -> list[HandImage]:
    """Thirty images of 5 MB, the pixels of three."""
    made = [daq.make(number, registers=LARGE) for number in (1, 2, 3)]
    for number in range(4, 31):
        image = daq.make(number, registers=LARGE)
        for location, source in image.sources.items():
            like = made[number % 3].sources[location]
            source.data, source.crc32c = like.data, like.crc32c
        made.append(image)
    return made


def test_a_disk_that_is_stuck_costs_no_memory(
    daq: HandStore, many: list[HandImage], serve: Serve, run: Run, disk: Disk, out: Path, tmp_path: Path
) -> None:
    budget = 32 << 20
    ledger = tmp_path / "ledger.db"  # on a disk that works: units are claimed as long as there is memory
    server = serve(limits=Limits())
    program = run(
        server.endpoint,
        *("--ledger", str(ledger), "--memory", str(budget), "--deadline", "60s", "--writers", "2"),
        env=disk.env,
    )
    daq.put(many[0])
    wait_for(lambda: states_of(ledger)["done"] == 3, 20, [program])
    base = program.memory()
    for image in many[1:]:
        image.hold(0)
        daq.put(image)
    wait_for(lambda: server.status()["data"]["pulls"] >= 3, 10, [program])
    disk.stall()
    before = _sent(server)
    for image in many[1:]:
        image.mend()
    most = 0
    sent = -1
    while sent != _sent(server):
        sent = _sent(server)
        for _ in range(10):
            time.sleep(0.1)
            most = max(most, program.memory())
    packed = sum(source.base.bytes for source in many[0].sources.values())
    assert packed // 3 <= sent - before < 28 * packed, "the server was not held up, or nothing came"
    assert states_of(ledger)["claimed"] < 29 * 3
    assert most - base < budget + (16 << 20), f"{(most - base) / 2**20:.0f} MiB more than at the beginning"
    disk.heal()
    wait_for(lambda: states_of(ledger) == {"done": 90}, 40, [program])
    assert program.end() == 0
    rows = rows_of(ledger)
    assert {Path(row.path) for row in rows} == fits_in(out)
    assert len(rows) == 270
    assert {row.missing for row in rows} == {0}
    assert {row.image for row in rows} == {name_of(number) for number in range(1, 31)}


def test_a_disk_that_is_stuck_does_not_keep_what_comes_from_being_received(
    daq: HandStore, many: list[HandImage], serve: Serve, run: Run, disk: Disk, out: Path, tmp_path: Path
) -> None:
    """Images that come while the disk hangs are taken off the DAQ as long as there is memory for them."""
    ledger = tmp_path / "ledger.db"
    server = serve(limits=Limits())
    program = run(server.endpoint, "--ledger", str(ledger), "--memory", "128MiB", env=disk.env)
    daq.put(many[0])
    wait_for(lambda: states_of(ledger)["done"] == 3, 20, [program])
    disk.stall()
    before = _sent(server)
    for image in many[1:5]:
        daq.put(image)
    packed = sum(source.base.bytes for source in many[0].sources.values())
    wait_for(lambda: _sent(server) - before == 4 * packed, 10, [program])
    assert len(fits_in(out)) == 9
    disk.heal()
    wait_for(lambda: states_of(ledger) == {"done": 15}, 20, [program])
    assert program.end() == 0
    assert {row.status for row in rows_of(ledger)} == {"written"}
    manifests = list(out.glob("*/*/*_expectedSensors.json"))
    assert len(manifests) == 5


def _sent(server: Server) -> int:
    """Bytes of pixels."""
    return int(server.status()["data"].get("bytes", 0))
