"""The OODS over HTTP with ten million files known: `pytest bench/test_web.py -s`.

RAFTWRIGHT_BENCH_ROWS (10 000 000): files. RAFTWRIGHT_BENCH_ASKED (2000): questions of each kind, one after
the other over one connection. RAFTWRIGHT_BENCH_DISK: where the ledger is (4 GB).
"""

from __future__ import annotations

import http.client
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from raftwright.camera import camera
from raftwright.ledger import open_ledger

ROWS = int(os.environ.get("RAFTWRIGHT_BENCH_ROWS", "10_000_000"))
ASKED = int(os.environ.get("RAFTWRIGHT_BENCH_ASKED", "2000"))
PROMISED = 0.020
"""Seconds, of 99 % of the questions."""
NIGHT = 800
"""Images a night."""


@pytest.fixture(scope="module")
def ledger() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=os.environ.get("RAFTWRIGHT_BENCH_DISK")) as name:
        path = Path(name) / "ledger.db"
        _fill(path)
        yield path


def _fill(path: Path) -> None:
    """Nights of LSSTCam, all of it ingested."""
    import sqlite3

    open_ledger(path).close()
    detectors = sorted(detector.name for detector in camera("LSSTCam").detectors)
    images = -(-ROWS // len(detectors))
    database = sqlite3.connect(path, isolation_level=None)
    database.executescript("PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF; PRAGMA cache_size = -400000")
    indexes = database.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL AND tbl_name = 'ingest'"
    ).fetchall()
    for name, _ in indexes:
        database.execute(f"DROP INDEX {name}")
    database.execute("CREATE TEMP TABLE ccd (name TEXT)")
    database.executemany("INSERT INTO ccd VALUES (?)", [(name,) for name in detectors])
    database.execute("BEGIN")
    columns = (
        "id, obsid, daq_id, camera, instrument, dayobs, seqnum, controller, exposure_id, state,"
        " expected_detectors, announced_tai, group_id, cur_index, image_type, physical_filter, exposure_time"
    )
    database.executemany(
        f"INSERT INTO image ({columns}) VALUES ({', '.join('?' * 17)})", (_image(n) for n in range(images))
    )
    database.execute(
        "INSERT INTO ingest (image_id, repository, path, uri, detector, crc32c, bytes, state, dataset_id,"
        " run, dataset_type, queued_tai, ingested_tai, observed_tai)"
        " SELECT image.id, 'oods', ? || '/' || image.obsid || '_' || ccd.name || '.fits',"
        " 'file://' || ? || '/' || image.obsid || '_' || ccd.name || '.fits', ccd.name, '00000000', 0,"
        " 'ingested', '', 'LSSTCam/raw/all', 'raw', 1.8e9 + image.id, 1.8e9 + image.id, 1.8e9 + image.id"
        " FROM image CROSS JOIN ccd ORDER BY image.id, ccd.name",
        (str(path.parent), str(path.parent)),
    )
    database.execute("COMMIT")
    for _, sql in indexes:
        database.execute(sql)
    database.execute("ANALYZE")
    database.close()


def _night(number: int) -> int:
    return (
        20250101 + number // NIGHT % 28 + number // (NIGHT * 28) % 12 * 100 + number // (NIGHT * 336) * 10000
    )


def _image(number: int) -> tuple[Any, ...]:
    night, seqnum = _night(number), number % NIGHT + 1
    return (
        *(number + 1, f"MC_O_{night}_{seqnum:06d}", "1f", "LSSTCam", "LSSTCam", night, seqnum, "O"),
        *(night * 100_000 + seqnum, "complete", 205, 1.8e9 + number, f"group-{number}", 1, "OBJECT", "r_57"),
        30.0,
    )


def _asked(connection: http.client.HTTPConnection, path: str) -> tuple[Any, float]:
    begun = time.perf_counter()
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    taken = time.perf_counter() - begun
    assert answer.status == 200, body
    return json.loads(body), taken


@pytest.mark.timeout(1800)
def test_presence_and_listing_with_millions_of_files(ledger: Path) -> None:
    from raftwright.oods.web.serving import WebServer
    from raftwright.oods.web.settings import Web

    chance = random.Random(5)
    detectors = [detector.name for detector in camera("LSSTCam").detectors]
    with open_ledger(ledger, read_only=True) as opened:
        (known,) = opened.read("SELECT count(*) FROM ingest")[0]
        assert known >= ROWS
        images = known // 205
        server = WebServer(opened, "oods", Web())
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)

        def presence() -> float:
            number, detector = chance.randrange(images), chance.choice(detectors)
            (_, obsid, *_) = _image(number)
            (ledger.parent / f"{obsid}_{detector}.fits").touch()  # what is not on the disk is not present
            path = f"/presence/LSSTCam/{quote(f'group-{number}')}/0/{detector}"
            found, taken = _asked(connection, path)
            assert found["present"]
            assert found["uri"].endswith(f"_{number % NIGHT + 1:06d}_{detector}.fits")
            return taken

        def absence() -> float:
            found, taken = _asked(connection, f"/presence/LSSTCam/other-{chance.random()}/0/R22_S11")
            assert not found["present"]
            return taken

        def page() -> float:
            before = chance.randrange(200, images)
            found, taken = _asked(connection, f"/images?limit=100&before={before}")
            assert [one["number"] for one in found["images"]] == list(range(before - 1, before - 101, -1))
            assert {one["ingested"] for one in found["images"]} == {205}
            return taken

        def night() -> float:
            dayobs = _night(chance.randrange(images))
            found, taken = _asked(connection, f"/images?limit=100&dayobs={dayobs}")
            assert {one["dayobs"] for one in found["images"]} == {dayobs}
            return taken

        def files() -> float:
            (_, obsid, *_) = _image(chance.randrange(images))
            found, taken = _asked(connection, f"/images/{obsid}")
            assert len(found) == 205
            return taken

        kinds: dict[str, Callable[[], float]] = {
            "presence, there": presence,
            "presence, not there": absence,
            "a page of 100 images": page,
            "100 images of a night": night,
            "the 205 files of an image": files,
        }
        worst = 0.0
        print(f"\n{known:,} files of {images:,} images known")
        for name, ask in kinds.items():
            for _ in range(20):
                ask()
            taken = sorted(ask() for _ in range(ASKED))
            late = taken[int(0.99 * len(taken))]
            worst = max(worst, late)
            print(f"{name}: median {1e3 * statistics.median(taken):.1f} ms, 99 % {1e3 * late:.1f} ms")
        connection.close()
        server.close()
    assert worst <= PROMISED
