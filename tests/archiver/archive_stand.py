"""What the tests of the archiver share: a forwarder by hand, an archive, and archivers of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from hand_daq import HandImage, HandStore
from raftwright.archiver import Archiver, Command, Destination, Places, Settings
from raftwright.archiver.fullness import Fullness
from raftwright.assembly import read_sources, select_boards
from raftwright.camera import camera as find_camera
from raftwright.ledger import FileRow, Ledger, Outcome, UnitKey, facts_of, open_ledger
from raftwright.rawfile.output import ImageOutput
from raftwright.rawfile.report import SourceReport
from raftwright.rawfile.standing import digest

__all__ = ["Archive", "Hand", "files_in", "wait_for"]


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
    """Files below a directory, by their names from there."""
    return {
        str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()
    }


class Hand:
    """A forwarder by hand: claims sources, writes their files, and enters them in the ledger."""

    def __init__(self, ledger: Ledger, root: Path) -> None:
        self.ledger = ledger
        self.root = root

    def announce(self, image: HandImage) -> int:
        return self.ledger.images.announce(facts_of(image.info, find_camera(image.info.camera)))

    def capture(
        self,
        image: HandImage,
        locations: Sequence[str] | None = None,
        *,
        enter: bool = True,
        again: bool = False,
        document: Any = None,
        claimed: bool = True,
    ) -> list[FileRow]:
        """The files of an image, or of some of its sources."""
        info = image.info
        camera = find_camera(info.camera)
        locations = list(info.locations) if locations is None else list(locations)
        keys = [
            (UnitKey(info.name, info.id, each), info.folder, image.source(each).info.bytes)
            for each in locations
        ]
        claims = {claim.key.location: claim for claim in self.ledger.claims.claim(keys, again=again)}
        if not claimed:
            assert not claims, "it is done already"
            return []
        output = ImageOutput(info, self.root, camera, durable=False, versions=True, document=document)
        output.make_directory()
        output.write_manifest()
        rows: list[FileRow] = []

        def take(source: Any) -> None:
            claim = claims[source.board.location]
            report = output.write(source, created=claim.created)
            assert not report.failures, report
            own = self.rows(image, report)
            rows.extend(own)
            missing = sum(file.missing_pixels for file in report.files)
            if enter:
                self.ledger.claims.end(
                    claim,
                    Outcome(
                        state="incomplete" if missing else "done",
                        reason="a gap" if missing else "",
                        received=source.readout.received,
                        files=tuple(own),
                        retry_after=3600.0,
                    ),
                )

        boards = select_boards(image, camera, locations=locations)
        read_sources(image, boards, take, compressed=True, pixels=False, threads=1)
        return rows

    def rows(self, image: HandImage, report: SourceReport) -> list[FileRow]:
        return [
            FileRow(
                image=image.info.name,
                daq_id=image.info.id,
                location=report.location,
                detector=file.detector,
                version=file.version,
                path=str(file.path),
                bytes=file.bytes,
                adler32=file.adler32,
                crc32c=file.crc32c,
                missing=file.missing_pixels,
                status=file.status,
                replaces="" if file.replaces is None else str(file.path.with_name(file.replaces.file)),
            )
            for file in report.files
        ]


class Archive:
    """A directory with raw files and a ledger, and places to deliver to."""

    def __init__(self, path: Path, url: str = "") -> None:
        self.path = path
        self.root = path / "archive"
        self.root.mkdir(parents=True, exist_ok=True)
        self.url = url or f"sqlite:///{self.root / 'ledger.db'}"
        self.ledger = open_ledger(self.url)
        self.hand = Hand(self.ledger, self.root)
        self.store = HandStore()
        self.started: list[Archiver] = []
        self.percent: Callable[[Path], float] = lambda _: 0.0
        """Of the disk that is used: that of the machine is of no account."""

    def place(self, name: str) -> Path:
        """A directory to deliver to."""
        path = self.path / name
        path.mkdir(exist_ok=True)
        return path

    def to(self, name: str, **more: Any) -> Destination:
        """A destination that is a directory."""
        values = {"backoff": 0.05, "longest": 0.5, "timeout": 5.0, **more}
        return Destination(name=name, kind="directory", root=str(self.place(name)), **values)

    def archiver(
        self,
        *destinations: Destination,
        commands: Iterable[Command] = (),
        store: Any = None,
        publish: str = "",
        listen: Iterable[str] = (),
        start: bool = True,
        **settings: Any,
    ) -> Archiver:
        """An archiver that is ended with the archive."""
        values = {"sweep": 0.3, "late": 3.0, "readout": 3.0, **settings}
        made = Archiver(
            Settings(destinations=list(destinations), commands=list(commands), **values),
            Places(
                root=self.root,
                ledger=self.url,
                store=None if store is False else lambda: store or self.store,
                publish=publish,
                listen=list(listen),
            ),
        )
        made.fullness = Fullness(self.root, self.percent)
        if start:
            self.started.append(made)
            made.start()
        return made

    def take(self, *numbers: int, capture: bool = True, **more: Any) -> list[HandImage]:
        """Images that the DAQ has, and their files."""
        made = []
        for number in numbers:
            image = self.store.make(number, **more)
            self.store.put(image)
            made.append(image)
            if capture:
                self.hand.announce(image)
                self.hand.capture(image)
        return made

    def state(self, image: HandImage) -> str:
        rows = self.ledger.images.get(image.base.name)
        return rows[0].state if rows else ""

    def counts(self) -> dict[str, dict[str, int]]:
        return self.ledger.deliveries.counts()

    def settled(self, timeout: float = 10.0) -> None:
        """Waits until nothing is left on its way."""
        wait_for(
            lambda: not any({"queued", "sending"} & set(states) for states in self.counts().values()),
            timeout,
            self.counts,
        )

    def check(self, root: Path, images: Iterable[HandImage], layout: str = "{instrument}") -> None:
        """Every file of the images is there, the same as in the archive, and nothing else."""
        expected = {}
        for image in images:
            row = self.ledger.images.get(image.base.name)[0]
            directory = self.root / f"{row.dayobs}" / row.obsid
            for file in sorted(directory.iterdir()):
                expected[f"{row.instrument}/{row.dayobs}/{row.obsid}/{file.name}"] = file.read_bytes()
        found = files_in(root)
        assert sorted(found) == sorted(expected)
        assert found == expected

    def close(self) -> None:
        for one in self.started:
            one.stop(2.0)
        self.ledger.close()


def digest_of(path: Path) -> tuple[int, str]:
    found = digest(path)
    return found.bytes, found.crc32c
