"""Ledgers of whole nights, written straight into the tables; the bench makes ten million rows with it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from raftwright.ledger.version import VERSION

APPLICATION = 0x52574C31
TAI = 37.0

BEFORE, TONIGHT = 20261121, 20261122
RAFT = tuple(f"R22_S{x}{y}" for x in range(3) for y in range(3))
FULL = (
    *(
        f"R{x}{y}_S{i}{j}"
        for x in range(5)
        for y in range(5)
        if not (x in (0, 4) and y in (0, 4))
        for i in range(3)
        for j in range(3)
    ),
    *(f"R{corner}_S{slot}" for corner in ("00", "04", "40", "44") for slot in ("G0", "G1", "W0", "W1")),
)


def new_ledger(path: Path) -> sqlite3.Connection:
    """An empty ledger."""
    connection = sqlite3.connect(path, isolation_level=None)
    script = resources.files("raftwright.ledger").joinpath("ddl/sqlite.sql").read_text("utf-8")
    connection.executescript(script)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA application_id = {APPLICATION}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    return connection


def evening(dayobs: int) -> float:
    """When a night's first image is taken: 23:00 UTC of the day, in TAI seconds."""
    when = datetime.strptime(str(dayobs), "%Y%m%d") + timedelta(hours=23)
    return (when - datetime(1970, 1, 1)).total_seconds() + TAI


def days(first: int, number: int) -> Iterator[int]:
    """Observing days one after the other."""
    begin = date(first // 10000, first // 100 % 100, first % 100)
    for n in range(number):
        yield int(f"{begin + timedelta(days=n):%Y%m%d}")


class Nights:
    """Writes images into a ledger, each complete and delivered unless told otherwise."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        root: Path,
        *,
        camera: str = "LSSTComCam",
        code: str = "CC",
        detectors: Sequence[str] = RAFT,
        destinations: Sequence[str] = ("oods", "usdf"),
        sidecars: bool = True,
        owner: str = "host:1:aaaa",
    ) -> None:
        self.connection = connection
        self.root = root
        self.camera = camera
        self.code = code
        self.detectors = detectors
        self.destinations = destinations
        self.sidecars = sidecars
        self.owner = owner
        row = connection.execute("SELECT coalesce(max(id), 0) FROM image").fetchone()
        self.number = int(row[0])

    def directory(self, obsid: str) -> Path:
        return self.root / obsid.split("_")[2] / obsid

    def locations(self) -> list[str]:
        return sorted({self.location(name) for name in self.detectors})

    @staticmethod
    def location(detector: str) -> str:
        slot = detector[5:]
        return f"{detector[1:3]}/{'0' if slot[0] == 'W' else slot[0] if slot[0].isdigit() else '1'}"

    def image(
        self,
        dayobs: int,
        seqnum: int,
        *,
        at: float | None = None,
        took: float = 0.8,
        state: str = "complete",
        reason: str = "",
        absent: Sequence[str] = (),
        header: str = "complete",
        undelivered: Sequence[str] = (),
        delivery_took: float = 1.5,
        late_destination: str = "",
        make_files: bool = False,
        bytes: int = 2048,
        end_readout: bool = True,
        controller: str = "O",
    ) -> int:
        """Enters an image; `at` is the end of its readout. Returns its number in the ledger."""
        self.number += 1
        number = self.number
        obsid = f"{self.code}_{controller}_{dayobs}_{seqnum:06d}"
        end = evening(dayobs) + 17.0 * seqnum if at is None else at
        directory = self.directory(obsid)
        settled = end + took if state in ("complete", "incomplete", "lost") else None
        present = [name for name in self.detectors if name not in absent] if state != "announced" else []
        run = self.connection.execute
        many = self.connection.executemany
        run(
            "INSERT INTO image (id, obsid, daq_id, camera, instrument, folder, dayobs, seqnum, controller,"
            " exposure_id, state, reason, header_state, expected_sources, expected_detectors, trigger_tai,"
            " begin_tai, end_tai, end_readout_tai, announced_tai, settled_tai, complete_tai, image_type,"
            " exposure_time, physical_filter, target, group_id, ra, dec)"
            " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                *(number, obsid, f"{number:x}", self.camera, self.camera, "raw", dayobs, seqnum),
                *(controller, int(f"{dayobs}{seqnum:05d}"), state, reason, header, len(self.locations())),
                *(len(self.detectors), end - 2.3, end - 17.0, end - 2.0),
                *(end if end_readout else None, end - 2.1, settled, settled if state == "complete" else None),
                *("OBJECT", 15.0, "r_03", "lowdust", f"{dayobs}T{seqnum}", 53.1, -27.8),
            ),
        )
        many(
            "INSERT INTO source (image_id, location, kind, state, reason, expected, received, attempts,"
            " owner) VALUES (?,?,?,?,?,?,?,?,?)",
            [
                (
                    *(number, location, "science"),
                    *self._source(location, state, absent, reason),
                    *(9 * bytes, 9 * bytes, 1, self.owner),
                )
                for location in self.locations()
            ],
        )
        many(
            "INSERT INTO detector (image_id, detector, location, purpose, state, reason, missing_pixels)"
            " VALUES (?,?,?,?,?,?,?)",
            [
                (
                    *(number, name, self.location(name), "SCIENCE"),
                    "present" if name in present else "missing" if state == "lost" else "expected",
                    *("" if name in present else reason, 0),
                )
                for name in self.detectors
            ],
        )
        files = (
            [(directory / f"{obsid}_expectedSensors.json", "manifest", "", 700, end - 1.9)] if present else []
        )
        for n, name in enumerate(present):
            stem = f"{obsid}_{name}"
            written = end + took * (0.3 + 0.6 * n / len(self.detectors))
            files.append((directory / f"{stem}.fits", "raw", name, bytes, written))
            if self.sidecars:
                files.append((directory / f"{stem}.json", "sidecar", name, 500, written))
        many(
            "INSERT INTO file (image_id, kind, detector, location, version, path, bytes, adler32, crc32c,"
            " missing, status, written_tai) VALUES (?,?,?,?,1,?,?,'11e60398','00000000',0,'written',?)",
            [
                (number, kind, name, self.location(name) if name else "", str(path), octets, written)
                for path, kind, name, octets, written in files
            ],
        )
        if header in ("complete", "partial"):
            run(
                "INSERT INTO header (obsid, version, state, path, bytes, crc32c, problems, made_tai)"
                " VALUES (?,1,?,?,3000,'00000000',?,?)",
                (
                    *(obsid, header, str(directory / f"{obsid}_header.yaml")),
                    *(json.dumps(["SEEING: no value"] if header == "partial" else []), end + 0.3),
                ),
            )
        if state == "complete":
            self._deliver(number, obsid, files, end + took, undelivered, delivery_took, late_destination)
        self._events(number, obsid, dayobs, end, took, state, reason, len(present))
        if make_files:
            directory.mkdir(parents=True, exist_ok=True)
            for path, _, _, octets, _ in files:
                with path.open("wb") as stream:
                    stream.truncate(octets)
        return number

    def _source(self, location: str, state: str, absent: Sequence[str], reason: str) -> tuple[str, str]:
        if state == "announced":
            return "expected", ""
        if any(self.location(name) == location for name in absent):
            return ("gone", reason) if state == "lost" else ("failed", reason)
        return "done", ""

    def _deliver(
        self,
        number: int,
        obsid: str,
        files: Sequence[tuple[Path, str, str, int, float]],
        begin: float,
        undelivered: Sequence[str],
        took: float,
        late: str,
    ) -> None:
        rows = []
        for destination in self.destinations:
            done = destination not in undelivered
            for n, (path, kind, _, octets, _) in enumerate(files):
                end = begin + took * (n + 1) / len(files) + (20.0 if destination == late else 0.0)
                rank = {"manifest": 0, "sidecar": 1}.get(kind, 2)
                target = f"{self.camera}/{obsid.split('_')[2]}/{obsid}/{path.name}"
                rows.append(
                    (
                        *(number, destination, str(path), target, octets, "00000000", rank),
                        *("delivered" if done else "queued", int(done), begin, end if done else None),
                    )
                )
        self.connection.executemany(
            "INSERT INTO delivery (image_id, destination, path, target, bytes, crc32c, rank, state, attempts,"
            " queued_tai, delivered_tai) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            rows,
        )

    def _events(
        self,
        number: int,
        obsid: str,
        dayobs: int,
        end: float,
        took: float,
        state: str,
        reason: str,
        present: int,
    ) -> None:
        rows: list[tuple[Any, ...]] = [
            (end - 2.1, number, obsid, dayobs, "image", obsid, "", "announced", "{}"),
        ]
        if state != "announced":
            rows += [
                (end - 1.9, number, obsid, dayobs, "image", obsid, "announced", "capturing", "{}"),
                *(
                    (end - 1.8, number, obsid, dayobs, "source", location, "expected", "claimed", "{}")
                    for location in self.locations()
                ),
            ]
        if state in ("complete", "incomplete", "lost"):
            detail = json.dumps({"reason": reason, "present": present})
            rows.append((end + took, number, obsid, dayobs, "image", obsid, "capturing", state, detail))
        self.connection.executemany(
            "INSERT INTO event (at_tai, image_id, obsid, dayobs, thing, subject, old, new, detail, owner)"
            f" VALUES (?,?,?,?,?,?,?,?,?,'{self.owner}')",
            rows,
        )
        self.connection.execute(
            "INSERT INTO attempt (image_id, thing, subject, number, owner, began_tai, ended_tai, outcome,"
            " bytes) VALUES (?,'source',?,1,?,?,?,'done',1)",
            (number, self.locations()[0], self.owner, end - 1.8, end + 0.5 * took),
        )


class Archive(NamedTuple):
    """An archive directory and what writes its ledger."""

    root: Path
    nights: Nights

    def run(self, statement: str, *values: object) -> None:
        """Changes the ledger behind everybody's back."""
        self.nights.connection.execute(statement, values)
