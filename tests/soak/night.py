"""A night of small images under faults: a server and forwarders as processes, killed at random moments.

    python tests/soak/night.py --images 10000        # or: make soak
    python tests/soak/night.py --images 1000 --site  # with telemetry, header service, archiver, catch-up

What must hold at the end, whatever happened in between, `check_night` checks: every pixel of every image
is right or exactly marked, no file is lost, none is there twice, none is torn, and the ledger says what the
disk has.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FAULTS = (
    "drop=0.02,duplicate=0.02,reorder=0.02,corrupt=0.02,delay=0.01:0.1s,stall=0.004:6s,cut=0.003,"
    "wrong-length=0.01,garbage=0.01,lose-notice=0.02,die=0.0005"
)
TELEMETRY_FAULTS = (
    "{late: 0.02, never: 0.01, twice: 0.01, doubled: 0.02, nan: 0.02, lost: 0.01, shuffled: 0.02}"
)
REGISTERS = [3, 0, 20, 0, 0, 5, 0, 14, 0, 2, 1]
"""28 x 16 pixels a segment."""
CAMERA = "LSSTComCam"
DESTINATIONS = ("observers", "backup")
DAY = "20261122"


@dataclass
class Night:
    """What is to happen. Everything random comes from `seed`."""

    images: int
    seed: int
    every: float = 0.1
    """Seconds from one image to the next."""
    forwarders: int = 2
    kill_every: float = 4.0
    """Mean seconds between two SIGKILLs; 0 for none."""
    settle: float = 120.0
    """Seconds that the end may take, without faults, until every image is complete."""
    faults: str = FAULTS
    registers: Sequence[int] = tuple(REGISTERS)
    """Shape of the readouts. Chunks have at least 1 MiB: only a larger source can come in part."""
    site: bool = False
    """Whether the other services of a site run too, and are killed too."""
    place: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="raftwright-soak-")))

    @property
    def names(self) -> list[str]:
        """Names of the images."""
        return [f"CC_S_{DAY}_{number:06d}" for number in range(1, self.images + 1)]


class Program:
    """One of our programs as a process, with its log."""

    def __init__(self, log: Path, *arguments: str) -> None:
        self._log = log
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    def start(self, *more: str) -> None:
        """Runs it, if it does not run."""
        if self._process is not None and self._process.poll() is None:
            return
        self.starts += 1
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "raftwright", *self._arguments, *more],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def status(self) -> int | None:
        """Its exit code, if it ended."""
        return None if self._process is None else self._process.poll()

    def end(self, number: int = signal.SIGTERM, patience: float = 30.0) -> int | None:
        """Sends a signal and waits for the end; kills what does not go."""
        if self._process is None:
            return None
        if self._process.poll() is None:
            self._process.send_signal(number)
            try:
                self._process.wait(patience)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
        return self._process.returncode


def _free_ports(count: int) -> int:
    """The first of so many neighbouring ports that nobody has."""
    for base in random.Random(os.getpid() ^ time.monotonic_ns()).sample(range(10000, 30000, 8), 200):
        held = []
        try:
            for port in range(base, base + count):
                held.append(socket.socket())
                held[-1].bind(("127.0.0.1", port))
            return base
        except OSError:
            continue
        finally:
            for one in held:
                one.close()
    raise RuntimeError("no free ports")


def run_night(night: Night) -> dict[str, Any]:
    """Plays the night and checks it; returns what happened. Raises AssertionError."""
    chance = random.Random(night.seed)
    place = night.place
    place.mkdir(parents=True, exist_ok=True)
    endpoint = f"tcp://127.0.0.1:{_free_ports(4)}"
    epoch = place / "epoch"
    site = _site(night, endpoint) if night.site else {}
    settings = place / "forwarder.yaml"
    settings.write_text(f"chunk: {1 << 20}\n")
    server = Program(
        place / "server.log",
        *("serve", "--camera", CAMERA, "--rafts", "R22", "--bind", endpoint, "--seed", str(night.seed)),
        *("--registers", ",".join(map(str, night.registers)), "--pattern", "coordinates", "--day", DAY),
        *("--every", f"{night.every}s", "--readout", f"{night.every / 2}s", "--count", str(night.images)),
        *("--epoch", str(epoch), "--keep", str(night.images), "--json"),
    )
    forwarders = [
        Program(
            place / f"forwarder-{number}.log",
            *("forward", endpoint, "--out", str(place / "archive"), "--ledger", str(place / "ledger.db")),
            *("--config", str(settings), "--deadline", "3s", "--retry", "1s", "--sweep", "1s", "--json"),
        )
        for number in range(night.forwarders)
    ]
    programs = {f"forwarder {number}": one for number, one in enumerate(forwarders)} | site
    kills: Counter[str] = Counter()
    begun = time.monotonic()
    try:
        _play(night, chance, server, programs, kills)
        died = server.starts - 1
        server.end()
        server.start()  # no faults any more
        _settle(night, server, programs)
        for name, program in programs.items():
            code = program.end()
            assert code == 0, f"{name} ended with {code} when it was asked to stop: see {program._log}"
    finally:
        for program in (server, *programs.values()):
            program.end(patience=10)
    found = check_night(night)
    if night.site:
        found |= check_site(night)
    return {
        "images": night.images,
        "seed": night.seed,
        "seconds": round(time.monotonic() - begun, 1),
        "killed": dict(kills),
        "server_starts": died + 1,
        "forwarder_starts": [program.starts for program in forwarders],
        **found,
    }


def _site(night: Night, endpoint: str) -> dict[str, Program]:
    """The other services of the site, from one file."""
    place = night.place
    observers, backup = place / "observers", place / "backup"
    for directory in (observers, backup):
        directory.mkdir()
    (place / "site.yaml").write_text(
        f"""
site: {{name: soak, camera: {CAMERA}}}
archive: {{root: {place / "archive"}}}
ledger: {{url: "sqlite:///{place / "ledger.db"}"}}
daq: {{endpoint: "{endpoint}"}}
telemetry: {{exposure: 0.1 s, faults: {TELEMETRY_FAULTS}}}
header: {{deadline: 2 s}}
catchup: {{every: 2 s, young: 5 s, give_way: 1 s, deadline: 3 s, retry: 1 s}}
archiver:
  destinations:
    - {{name: observers, kind: directory, root: {observers}}}
    - {{name: backup, kind: directory, root: {backup}, link: never, what: [raw, sidecar]}}
"""
    )
    parts = {"observatory": "telemetry,header", "archiver": "archiver", "catchup": "catchup"}
    return {
        name: Program(place / f"{name}.log", "up", str(place / "site.yaml"), "--only", services)
        for name, services in parts.items()
    }


def _play(
    night: Night, chance: random.Random, server: Program, programs: dict[str, Program], kills: Counter[str]
) -> None:
    end = time.monotonic() + night.images * night.every + 2
    next_kill = time.monotonic() + chance.expovariate(1 / night.kill_every) if night.kill_every else end
    while time.monotonic() < end:
        server.start("--faults", night.faults, "--fault-seed", str(chance.randrange(2**32)))
        for program in programs.values():
            program.start()
        time.sleep(0.05)
        if time.monotonic() >= next_kill:
            next_kill = time.monotonic() + chance.expovariate(1 / night.kill_every)
            name, victim = chance.choice([("server", server), *programs.items()])
            if victim.running:
                victim.end(signal.SIGKILL)
                kills[name.split()[0]] += 1
            time.sleep(chance.random() * 0.5)


def _settle(night: Night, server: Program, programs: dict[str, Program]) -> None:
    """Waits until the ledger knows every image as complete."""
    end = time.monotonic() + night.settle
    left: list[str] = night.names
    quiet = time.monotonic()
    # Headers that come late bring later sidecars, which are delivered too.
    while time.monotonic() < end and (left or time.monotonic() - quiet < (15.0 if night.site else 0.0)):
        server.start()
        for program in programs.values():
            program.start()
        time.sleep(0.5)
        left = _unfinished(night)
        if left:
            quiet = time.monotonic()
    assert not left, f"{len(left)} images are not complete {night.settle} s after the last fault: {left[:5]}"


def _unfinished(night: Night) -> list[str]:
    from raftwright.ledger import open_ledger

    with open_ledger(night.place / "ledger.db", read_only=True) as ledger:
        states: dict[str, Counter[str]] = {}
        for unit in ledger.claims.units():
            states.setdefault(unit.image, Counter())[unit.state] += 1
        left = {name for name in night.names if states.get(name) != Counter(done=3)}
        if night.site and not left:
            whole, last = set(), 0
            while page := ledger.images.select(after_id=last):
                last = page[-1].id
                whole |= {image.obsid for image in page if image.state == "complete"}
            left = set(night.names) - whole
            counts = ledger.deliveries.counts()
            if not left and any(counts.get(name, {}).keys() != {"delivered"} for name in DESTINATIONS):
                left = {f"deliveries: {counts}"}
    return sorted(left)


def check_site(night: Night) -> dict[str, Any]:
    """Compares what was delivered with the archive. Raises AssertionError."""
    from raftwright.ledger import open_ledger

    archive = night.place / "archive"
    files = {path.name: path for path in archive.rglob("*_R??_S??*") if path.suffix in (".fits", ".json")}
    for name in DESTINATIONS:
        copies: dict[str, Path] = {}
        for copy in (night.place / name).rglob("*_R??_S??*"):
            assert copy.name not in copies, f"{copy} is there twice"
            copies[copy.name] = copy
        assert set(copies) == set(files), (
            f"{name} lacks {sorted(set(files) - set(copies))[:3]}, has {sorted(set(copies) - set(files))[:3]}"
        )
        for copy in copies.values():
            assert copy.read_bytes() == files[copy.name].read_bytes(), f"{copy} is not what the archive has"
    with open_ledger(night.place / "ledger.db", read_only=True) as ledger:
        states, last = Counter[str](), 0
        while page := ledger.images.select(after_id=last):
            last = page[-1].id
            states.update(image.header_state for image in page)
        delivered = {name: counts.get("delivered", 0) for name, counts in ledger.deliveries.counts().items()}
    return {"headers": dict(states), "delivered": delivered}


def check_night(night: Night) -> dict[str, Any]:
    """Compares archive, ledger and the truth. Raises AssertionError."""
    from raftwright.ledger import open_ledger

    archive = night.place / "archive"
    with open_ledger(night.place / "ledger.db", read_only=True) as ledger:
        rows = list(ledger.claims.files())
    told = {Path(row.path): row for row in rows}
    assert len(told) == len(rows), "the ledger has a file twice"
    disk = {path for path in archive.rglob("*.fits") if not path.name.startswith(".")}
    assert set(told) == disk, (
        f"only in the ledger: {sorted(set(told) - disk)[:3]}; only on disk: {sorted(disk - set(told))[:3]}"
    )
    assert not [path for path in disk if ".conflict-" in path.name], "there are conflicts"
    found = Counter[str]()
    by_image: dict[str, list[Path]] = {}
    for path in disk:
        by_image.setdefault(path.parent.name, []).append(path)
    assert sorted(by_image) == night.names, "an image is lost, or one too many"
    for name in night.names:
        found.update(_check_image(night, name, by_image[name], told))
    left_over = [path for path in archive.rglob(".*") if path.is_file()]
    found["temporary files left"] = len(left_over)
    return dict(found)


def _check_image(night: Night, name: str, paths: list[Path], told: dict[Path, Any]) -> Counter[str]:
    import raftwright
    from raftwright import _core
    from raftwright.daq import simulate_image

    found = Counter[str](files=len(paths))
    truth = raftwright.assemble(
        simulate_image(
            CAMERA,
            name,
            seed=night.seed,
            rafts=["R22"],
            pattern="coordinates",
            registers=list(night.registers),
        ),
        threads=1,
    )
    complete = set()
    for path in paths:
        row = told[path]
        data = path.read_bytes()
        assert len(data) == row.bytes, f"{path}: {len(data)} bytes, the ledger says {row.bytes}"
        assert f"{_core.crc32c(data):08x}" == row.crc32c, f"{path}: the CRC-32C is not the ledger's"
        assert path.with_suffix(".json").is_file(), f"{path}: has no sidecar"
        sidecar = json.loads(path.with_suffix(".json").read_bytes())
        missing = sidecar.get("__MISSING__", {})
        raw = raftwright.open_raw(path, threads=1)
        detector = raw.detector.name
        marked = 0
        for segment, pixels in raw.segments.items():
            right = truth[detector].segments[segment]
            flat, expected = pixels.ravel().copy(), right.ravel()
            for first, count in missing.get(segment, ()):
                assert (flat[first : first + count] == -1).all(), f"{path}: marked pixels are not filled"
                flat[first : first + count] = expected[first : first + count]
                marked += count
            assert (flat == expected).all(), f"{path}: {segment} has a wrong pixel that is not marked"
        assert marked == row.missing, f"{path}: {marked} pixels are marked, the ledger says {row.missing}"
        if marked:
            found["incomplete versions"] += 1
        else:
            assert detector not in complete, f"{path}: a second complete file of {detector}"
            complete.add(detector)
    assert complete == {ccd.detector.name for ccd in truth.ccds}, f"{name}: only {sorted(complete)} complete"
    return found


def main() -> None:
    """The command line of `make soak`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=20261122)
    parser.add_argument("--every", type=float, default=0.1)
    parser.add_argument("--kill-every", type=float, default=10.0)
    parser.add_argument("--settle", type=float, default=600.0)
    parser.add_argument(
        "--registers",
        type=lambda text: tuple(int(number) for number in text.split(",")),
        default=tuple(REGISTERS),
        help="of the readouts, e.g. 3,0,136,0,0,5,0,118,0,2,1 for sources of two chunks",
    )
    parser.add_argument("--site", action="store_true", help="all services of a site, killed too")
    parser.add_argument("--place", type=Path)
    parser.add_argument("--json", action="store_true", help="print nothing but the result")
    parser.add_argument("--keep", action="store_true", help="leave the archive where it is")
    options = parser.parse_args()
    night = Night(
        options.images,
        options.seed,
        every=options.every,
        kill_every=options.kill_every,
        settle=options.settle,
        registers=options.registers,
        site=options.site,
    )
    if options.place is not None:
        night.place = options.place
    if not options.json:
        print(f"{night.images} images in {night.place}, seed {night.seed}", flush=True)
    result = run_night(night)
    print(json.dumps(result, indent=1))
    if not options.keep and options.place is None:
        shutil.rmtree(night.place)


if __name__ == "__main__":
    main()
