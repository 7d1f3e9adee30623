"""The hand-off to two local endpoints, against `cp` and `sha256sum` to the same places, and containers of
images against `zip -0` and `sha256sum`: `pytest bench/test_handoff.py -s`.

Files of the size of full CCDs, with their sidecars. Both run with the two places side by side, in turn, from
files that are in memory. The hand-off is a process of its own; it ends when the ledger says of every file
that it is on the disk and was read back from there, which `cp` and `sha256sum` do not see to.

RAFTWRIGHT_BENCH_GIGABYTES (2): at each place, of all runs together. RAFTWRIGHT_BENCH_DISK: where it all is.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))  # for test_forwarder

from raftwright.backbone.packing import Packer
from raftwright.backbone.settings import Containers
from raftwright.ledger import DetectorFacts, FileRow, ImageFacts, Ledger, SourceFacts, open_ledger
from raftwright.ledger.containers import ContainerUnit
from raftwright.rawfile.standing import digest
from test_forwarder import running

GIGABYTES = float(os.environ.get("RAFTWRIGHT_BENCH_GIGABYTES", "2"))
SIZE, CCDS, ROUNDS = 14_000_000, 9, 3
"""Bytes of a compressed CCD; CCDs of a raft; comparisons."""
PROMISED = 0.7


@pytest.fixture
def disk() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=os.environ.get("RAFTWRIGHT_BENCH_DISK")) as name:
        yield Path(name)


def header(chance: random.Random, detector: str) -> bytes:
    """A sidecar of some 20 kB."""
    cards = {f"KEY{number:04d}": "the same for all of the image" for number in range(300)}
    return json.dumps({"__CONTENT__": "metadata", "INSTRUME": "ComCam", "CCD": detector, **cards}).encode()


def write(
    archive: Path, number: int, octets: int = SIZE, ccds: int = CCDS
) -> tuple[ImageFacts, list[FileRow]]:
    """A raft's files in the archive, and what the ledger is told of them."""
    obsid, chance = f"CC_O_20261122_{number:06d}", random.Random(number)
    directory = archive / "20261122" / obsid
    directory.mkdir(parents=True)
    rows = []
    for ccd in range(ccds):
        detector = f"R{22 + ccd // 9}_S{ccd % 9 // 3}{ccd % 3}"
        for kind, suffix in (("sidecar", "json"), ("raw", "fits")):
            path = directory / f"{obsid}_{detector}.{suffix}"
            path.write_bytes(chance.randbytes(octets) if kind == "raw" else header(chance, detector))
            found = digest(path)
            rows.append(
                FileRow(
                    image=obsid,
                    daq_id=f"{number:x}",
                    location="22/0",
                    detector=detector,
                    path=str(path),
                    bytes=found.bytes,
                    adler32=found.adler32,
                    crc32c=found.crc32c,
                    status="written",
                    kind=kind,  # type: ignore[arg-type]
                )
            )
    facts = ImageFacts(
        obsid=obsid,
        daq_id=f"{number:x}",
        camera="LSSTComCam",
        instrument="LSSTComCam",
        sources=(SourceFacts("22/0", "science", 1),),
        detectors=tuple(DetectorFacts(row.detector, "22/0", "SCIENCE") for row in rows if row.kind == "raw"),
    )
    return facts, rows


def enter(ledger: Ledger, images: list[tuple[ImageFacts, list[FileRow]]]) -> None:
    """As an archiver does that found all sums to hold."""
    for facts, rows in images:
        ledger.images.announce(facts)
        ledger.files.enter(rows)
        ledger.files.all_verified(row.path for row in rows)


def by_hand(archive: Path, numbers: range, places: list[Path]) -> float:
    """Seconds that `cp` and `sha256sum` take, the places side by side."""
    names = " ".join(f"20261122/CC_O_20261122_{number:06d}" for number in numbers)
    copy = f'cd "$0" && cp -r --parents {names} "$1"'
    script = f'{copy} && cd "$1" && find . -type f -exec sha256sum {{}} +'
    began = time.monotonic()
    at_work = [
        subprocess.Popen(["sh", "-c", script, archive, place], stdout=subprocess.PIPE, text=True)
        for place in places
    ]
    said = [one.communicate(timeout=600)[0] for one in at_work]
    seconds = time.monotonic() - began
    for one, text in zip(at_work, said, strict=True):
        assert one.returncode == 0
        assert len(text.splitlines()) == len(numbers) * CCDS * 2
    return seconds


@pytest.mark.timeout(900)
def test_two_endpoints(disk: Path) -> None:
    archive, places = disk / "archive", [disk / "near", disk / "far"]
    hands = [disk / "near-by-hand", disk / "far-by-hand"]
    for place in (archive, *places):
        place.mkdir()
    rafts = max(1, round(GIGABYTES * 1e9 / (SIZE * CCDS) / ROUNDS))
    ledger = open_ledger(archive / "ledger.db")
    ratios, ours, theirs = [], 0.0, 0.0
    to = [word for place in places for word in ("--to", f"{place.name}={place}")]
    with running("handoff", "run", "--out", str(archive), *to) as service:
        service.wait_for("ready", 1, 60)
        for turn in range(ROUNDS):
            numbers = range(1 + turn * rafts, 1 + (turn + 1) * rafts)
            images = [write(archive, number) for number in numbers]
            os.sync()
            for place in hands:
                place.mkdir()
            hand = by_hand(archive, numbers, hands)
            for place in hands:
                shutil.rmtree(place)
            os.sync()
            wanted = (turn + 1) * rafts * CCDS * 2
            began = time.monotonic()
            enter(ledger, images)
            while any(
                ledger.replicas.counts(place.name).get(place.name, {}).get("verified", 0) < wanted
                for place in places
            ):
                assert time.monotonic() - began < 300, ledger.deliveries.counts()
                time.sleep(0.05)
            seconds = time.monotonic() - began
            ratios.append(hand / seconds)
            ours, theirs = ours + seconds, theirs + hand
    octets = 2 * ROUNDS * rafts * CCDS * SIZE
    print(
        f"\n{ROUNDS * rafts} rafts to two endpoints, verified: {octets / ours / 1e6:.0f} MB/s;"
        f" cp and sha256sum: {octets / theirs / 1e6:.0f} MB/s; of their rate"
        f" {', '.join(f'{ratio:.2f}' for ratio in ratios)}, median {statistics.median(ratios):.2f}"
    )
    assert ledger.deliveries.counts() == {
        f"endpoint:{place.name}": {"delivered": ROUNDS * rafts * CCDS * 2} for place in places
    }
    ledger.close()
    for path in archive.rglob("CC_O_*.*"):
        sums = {
            hashlib.sha256(one.read_bytes()).hexdigest()
            for one in (path, *(place / "LSSTComCam" / path.relative_to(archive) for place in places))
        }
        assert len(sums) == 1, path
    assert statistics.median(ratios) >= PROMISED


def zipped_by_hand(directory: Path, path: Path) -> float:
    """Seconds of `zip -0` and `sha256sum`; without a zip, of Python's."""
    files = sorted(directory.glob("*.fits")) + sorted(directory.glob("*.json"))
    began = time.monotonic()
    if shutil.which("zip"):
        subprocess.run(["zip", "-0qj", path, *files], check=True, timeout=600)
    else:
        with zipfile.ZipFile(path, "w") as opened:
            for file in files:
                opened.write(file, file.name)
    subprocess.run(["sha256sum", path], check=True, capture_output=True, timeout=600)
    return time.monotonic() - began


def packed(packer: Packer, unit: ContainerUnit) -> float:
    """Seconds of a container: written, synced, read back from the disk, named, in the ledger."""
    began = time.monotonic()
    assert packer.pack(unit).how == "packed"
    return time.monotonic() - began


@pytest.mark.timeout(900)
@pytest.mark.parametrize("what", ["a raft", "205 small files"])
def test_packing(disk: Path, what: str) -> None:
    """An exposure of one raft, and 205 files of small CCDs with their sidecars, in turn with `zip -0`."""
    archive = disk / "archive"
    archive.mkdir()
    chosen = Containers(settle=0.0, patience=0.0, reserve=0.0, always=True)
    ratios, octets, ours, theirs = [], 0, 0.0, 0.0
    with open_ledger(archive / "ledger.db") as ledger:
        packer = Packer(ledger, lambda: chosen, ())
        for turn in range(1, 2 + 2 * ROUNDS):
            size, ccds = (SIZE, CCDS) if what == "a raft" else (200_000, 205)
            enter(ledger, [write(archive, turn, size, ccds)])
            os.sync()
            directory = archive / "20261122" / f"CC_O_20261122_{turn:06d}"
            hand = zipped_by_hand(directory, disk / f"{turn}.zip")
            (disk / f"{turn}.zip").unlink()
            os.sync()
            image_id = ledger.images.get(directory.name)[0].id
            seconds = packed(packer, ledger.containers.units([image_id])[0])
            if turn == 1:
                continue  # what is loaded for the first
            ratios.append(hand / seconds)
            octets, ours, theirs = octets + size * ccds, ours + seconds, theirs + hand
    print(
        f"\n{what} into a container, verified: {octets / ours / 1e6:.0f} MB/s; zip -0 and sha256sum: "
        f"{octets / theirs / 1e6:.0f} MB/s; of their rate {', '.join(f'{ratio:.2f}' for ratio in ratios)}, "
        f"median {statistics.median(ratios):.2f}"
    )
    assert statistics.median(ratios) >= PROMISED
