"""What the tests of the hand-off share: an archive of small files, endpoints, hand-offs."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from raftwright.backbone import Endpoint, HandOff, Places, Scrub, Settings
from raftwright.ledger import DetectorFacts, FileRow, ImageFacts, Ledger, SourceFacts, open_ledger
from raftwright.ledger.replicas import ENDPOINT
from raftwright.rawfile.standing import digest
from raftwright.transfer.holding import let_go

__all__ = [
    "DETECTORS",
    "Site",
    "configuration",
    "endpoint",
    "files_in",
    "hidden_in",
    "mounted",
    "running",
    "wait_for",
]

DETECTORS = ("R22_S00", "R22_S01", "R22_S02")


def wait_for(what: Callable[[], Any], timeout: float = 10.0, said: Callable[[], Any] = str) -> Any:
    """The first true answer."""
    until = time.monotonic() + timeout
    while True:
        if answer := what():
            return answer
        if time.monotonic() > until:
            raise AssertionError(f"waited {timeout} s in vain: {said()}")
        time.sleep(0.01)


def files_in(root: Path) -> dict[str, bytes]:
    """Files below a directory, by their names from there, but for those that a sender made for itself."""
    return {
        name: path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not (name := str(path.relative_to(root))).startswith(".")
    }


def hidden_in(root: Path, folder: str) -> list[bytes]:
    """Contents of what was set aside: `.damaged`, `.conflict`."""
    return [path.read_bytes() for path in sorted((root / folder).rglob("*")) if path.is_file()]


@contextlib.contextmanager
def mounted(place: Path, options: str) -> Iterator[bool]:
    """A small file system of its own; False where nobody may mount one."""
    place.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "none", str(place)]
    done = (
        shutil.which("mount") is not None
        and os.geteuid() == 0
        and not subprocess.run(command, check=False, capture_output=True).returncode
    )
    try:
        yield done
    finally:
        if done:
            subprocess.run(["umount", "-l", str(place)], check=True)


class Site:
    """An archive with a ledger, whose files are made by hand, and endpoints that are directories."""

    def __init__(self, path: Path, url: str = "") -> None:
        self.path = path
        self.root = path / "archive"
        self.root.mkdir(parents=True, exist_ok=True)
        self.url = url or f"sqlite:///{self.root / 'ledger.db'}"
        self.ledger: Ledger = open_ledger(self.url)
        self.started: list[HandOff] = []
        self._chance = random.Random(20261122)

    def place(self, name: str) -> Path:
        path = self.path / name
        path.mkdir(exist_ok=True)
        return path

    def to(self, name: str, **more: Any) -> Endpoint:
        """An endpoint that is a directory."""
        values = {"backoff": 0.05, "longest": 0.3, "timeout": 10.0, **more}
        return Endpoint(name=name, kind="directory", root=str(self.place(name)), **values)

    def by_program(self, name: str, program: str, **more: Any) -> Endpoint:
        """An endpoint to which a program in Python brings files: `source` and `there` are given to it."""
        head = "import os, shutil, sys, time\nsource, there = sys.argv[1:3]\n"
        values: dict[str, Any] = {"backoff": 0.05, "longest": 0.3, "timeout": 20.0, "concurrency": 2, **more}
        commands = {
            "transfer": [sys.executable, "-S", "-c", head + program, "{file}", "{dest}"],
            "remote": ["sh", "-c", "{command}"],
        }
        return msgspec.convert(
            {"name": name, "kind": "command", "root": str(self.place(name)), "commands": commands, **values},
            Endpoint,
        )

    def image(
        self,
        number: int,
        *,
        verified: bool = True,
        bytes: int = 20_000,
        detectors: Iterable[str] = DETECTORS,
        instrument: str = "LSSTComCam",
    ) -> int:
        """An image with a raw file and a sidecar for each detector, and a manifest; its number."""
        obsid = f"CC_O_20261122_{number:06d}"
        listed = tuple(detectors)
        image_id = self.ledger.images.announce(
            ImageFacts(
                obsid=obsid,
                daq_id=f"{number:x}",
                camera="LSSTComCam",
                instrument=instrument,
                sources=(SourceFacts("22/0", "science", 48384),),
                detectors=tuple(DetectorFacts(each, "22/0", "SCIENCE") for each in listed),
            )
        )
        directory = self.root / "20261122" / obsid
        directory.mkdir(parents=True, exist_ok=True)
        rows = [self.file(directory / f"{obsid}_expectedSensors.json", "manifest", number, b"{}")]
        for detector in listed:
            body = self._chance.randbytes(bytes)
            rows.append(
                self.file(directory / f"{obsid}_{detector}.json", "sidecar", number, body[:200], detector)
            )
            rows.append(self.file(directory / f"{obsid}_{detector}.fits", "raw", number, body, detector))
        self.ledger.files.enter(rows)
        if verified:
            self.verify(image_id)
        return image_id

    def file(
        self, path: Path, kind: str, number: int, body: bytes, detector: str = "", **more: Any
    ) -> FileRow:
        """Writes a file; its row."""
        path.write_bytes(body)
        found = digest(path)
        values: dict[str, Any] = {
            "image": f"CC_O_20261122_{number:06d}",
            "daq_id": f"{number:x}",
            "location": "22/0",
            "detector": detector,
            "path": str(path),
            "bytes": found.bytes,
            "adler32": found.adler32,
            "crc32c": found.crc32c,
            "status": "written",
            "kind": kind,
        }
        return FileRow(**{**values, **more})

    def verify(self, image_id: int) -> None:
        """The archiver found the sums of its files to hold, and judged."""
        self.ledger.files.all_verified(file.path for file in self.ledger.files.of(image_id))

    def hand_off(
        self,
        *endpoints: Endpoint,
        start: bool = True,
        publish: str = "",
        by_hand: bool = False,
        scrub: dict[str, Any] | None = None,
        **settings: Any,
    ) -> HandOff:
        """A hand-off that is ended with the site."""
        values = {"sweep": 0.3, "scrub": Scrub(**(scrub or {"every": 0.0, "rate": 0})), **settings}
        made = HandOff(
            Settings(endpoints=list(endpoints), **values),
            Places(ledger=self.url, publish=publish),
            by_hand=by_hand,
        )
        if start:
            self.started.append(made)
            made.start()
        return made

    def counts(self) -> dict[str, dict[str, int]]:
        """Deliveries to endpoints, by endpoint and state."""
        return {
            name.removeprefix(ENDPOINT): states for name, states in self.ledger.deliveries.counts().items()
        }

    def delivered(self, *names: str, count: int, timeout: float = 15.0) -> None:
        """Waits until so many files, and nothing else, were delivered to each."""
        whole = {name: {"delivered": count} for name in names}
        wait_for(lambda: self.counts() == whole, timeout, self.counts)

    def expected(self, *numbers: int, instrument: str = "LSSTComCam") -> dict[str, bytes]:
        """What an endpoint has that has all of these images."""
        found = {}
        for number in numbers:
            obsid = f"CC_O_20261122_{number:06d}"
            for path in (self.root / "20261122" / obsid).iterdir():
                found[f"{instrument}/20261122/{obsid}/{path.name}"] = path.read_bytes()
        return found

    def delivered_to(self, name: str, count: int, timeout: float = 15.0) -> None:
        """Waits until so many files were delivered there."""
        wait_for(lambda: self.counts().get(name) == {"delivered": count}, timeout, self.counts)

    def check(self, name: str, *numbers: int) -> None:
        """The endpoint has every file of the images, the same as in the archive, and nothing else."""
        expected, found = self.expected(*numbers), files_in(self.place(name))
        assert sorted(found) == sorted(expected)
        assert found == expected

    def states(self, endpoint: str) -> dict[str, int]:
        """Replicas of an endpoint, by state."""
        return self.ledger.replicas.counts(endpoint).get(endpoint, {})

    def spoil(self, path: Path, at: int = 100) -> bytes:
        """Flips a bit of a file that may be held; what it has now. Size and time stay."""
        now = path.stat()
        self.let_go(path)
        path.chmod(0o644)
        body = bytearray(path.read_bytes())
        body[at] ^= 0x10
        with path.open("r+b") as stream:
            stream.write(body)
        path.chmod(now.st_mode & 0o777)
        os.utime(path, ns=(now.st_atime_ns, now.st_mtime_ns))
        return bytes(body)

    def close(self) -> None:
        for one in self.started:
            one.stop(2.0)
        self.ledger.close()
        for path in self.path.rglob("*"):
            if path.is_file() and not path.is_symlink():
                self.let_go(path)

    @staticmethod
    def let_go(path: Path) -> None:
        """As `chattr -i`."""
        with path.open("rb") as stream:
            let_go(stream.fileno(), str(path))


# The service without the command line, which is much to load for one that lives for a moment.
_SERVICE = """
import json, signal, sys, threading
from raftwright.service import config
ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())
site = config.load(sys.argv[1:])
site.common.make_run()
with site.build("handoff") as service:
    print(json.dumps({"active": service.active}), flush=True)
    ended.wait()
"""


def configuration(site: Site, endpoints: list[dict[str, Any]], **settings: Any) -> Path:
    path = site.path / "site.json"  # which is YAML too
    content = {
        "archive": {"root": str(site.root)},
        "life": {"pages": "none", "control": "none"},
        "handoff": {"sweep": "500 ms", "endpoints": endpoints, **settings},
    }
    path.write_text(json.dumps(content))
    return path


def endpoint(site: Site, name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "kind": "directory", "root": str(site.place(name)), "backoff": "50 ms", **more}


@contextlib.contextmanager
def running(config: Path) -> Iterator[subprocess.Popen[str]]:
    with (config.parent / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVICE, str(config)], stdout=subprocess.PIPE, stderr=log, text=True
        )
    assert process.stdout is not None
    try:
        assert process.stdout.readline(), (config.parent / "log").read_text()[-2000:]
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
