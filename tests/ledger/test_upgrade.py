"""From a ledger of version 1 that holds a night to the tables of this release, on both databases."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from night import facts_of, keys_of, take, want
from test_tables import tables_of

from raftwright.errors import FormatError, StorageError
from raftwright.ledger import ENDPOINT, DeliveryPlan, IngestPlan, Ledger, open_ledger
from raftwright.ledger.checking import check_ledger, counts_of
from raftwright.ledger.upgrading import kept_copy, upgrade
from raftwright.ledger.version import APPLICATION, CHANGES, VERSION

_IMAGE = "CC_O_20261122_000007"
_NIGHT: dict[str, list[dict[str, Any]]] = {
    "image": [
        {
            "id": 1,
            "obsid": _IMAGE,
            "daq_id": "1f",
            "camera": "LSSTComCam",
            "instrument": "LSSTComCam",
            "folder": "raw",
            "dayobs": 20261122,
            "seqnum": 7,
            "controller": "O",
            "exposure_id": 2026112200007,
            "state": "complete",
            "header_state": "complete",
            "expected_sources": 1,
            "expected_detectors": 1,
            "announced_tai": 1.7e9,
            "group_id": "G",
            "settled_tai": 1.7e9,
            "complete_tai": 1.7e9,
            "exposure_time": 15.0,
            "target": 'M "31"; \\',
        },
        {
            "id": 2,
            "obsid": "CC_O_20261122_000008",
            "daq_id": "20",
            "camera": "LSSTComCam",
            "instrument": "LSSTComCam",
            "dayobs": 20261122,
            "seqnum": 8,
            "controller": "O",
            "exposure_id": 2026112200008,
            "announced_tai": 1.7e9,
            "expected_sources": 1,
        },
    ],
    "source": [
        {"image_id": 1, "location": "22/0", "state": "done", "expected": 10, "received": 10, "attempts": 1},
        {"image_id": 2, "location": "22/0", "expected": 10},
    ],
    "detector": [
        {"image_id": 1, "detector": "R22_S00", "location": "22/0", "purpose": "SCIENCE", "state": "present"}
    ],
    "file": [
        {
            "id": 1,
            "image_id": 1,
            "detector": "R22_S00",
            "location": "22/0",
            "path": "/archive/a.fits",
            "bytes": 10,
            "adler32": "00000001",
            "crc32c": "00000002",
            "status": "written",
            "written_tai": 1.7e9,
            "verified_tai": 1.7e9,
        }
    ],
    "header": [
        {
            "obsid": _IMAGE,
            "version": 1,
            "state": "complete",
            "path": "/h",
            "bytes": 3,
            "crc32c": "a",
            "made_tai": 1.7e9,
        }
    ],
    "delivery": [
        {
            "image_id": 1,
            "destination": "oods",
            "path": "/archive/a.fits",
            "crc32c": "00000002",
            "state": "delivered",
            "queued_tai": 1.7e9,
            "delivered_tai": 1.7e9,
        },
        {"image_id": 1, "destination": "s3", "path": "/archive/a.fits", "queued_tai": 1.7e9},
        {
            "image_id": 1,
            "destination": "tape",
            "path": "/archive/a.fits",
            "queued_tai": 1.7e9,
            "state": "sending",
            "attempts": 1,
            "owner": "x",
        },
    ],
    "attempt": [
        {
            "image_id": 1,
            "thing": "source",
            "subject": "22/0",
            "number": 1,
            "owner": "x",
            "began_tai": 1.7e9,
            "outcome": "done",
        },
        {
            "image_id": 1,
            "thing": "delivery",
            "subject": "tape /archive/a.fits",
            "number": 1,
            "owner": "x",
            "began_tai": 1.7e9,
        },
    ],
    "event": [
        {
            "at_tai": 1.7e9,
            "image_id": 1,
            "obsid": _IMAGE,
            "dayobs": 20261122,
            "thing": "image",
            "new": new,
            "detail": '{"reason":"\\u00e9"}',
        }
        for new in ("announced", "complete")
    ],
    "cursor": [{"name": "zmq", "number": 2}],
    "owner": [{"name": "x", "host": "h", "boot": "b", "pid": 1, "started": 1, "renewed": 1.0}],
    "early": [{"obsid": "CC_O_20261122_000009", "facts": '{"group_id": "G"}', "told_tai": 1.7e9}],
}


def _script(project_root: Path, dialect: str) -> str:
    """The tables of version 1, as that release made them."""
    versions = project_root / "python" / "raftwright" / "ledger" / "migrations" / "versions"
    return (versions / f"0001.{dialect}.sql").read_text() + (
        "CREATE TABLE alembic_version ( version_num VARCHAR(32) NOT NULL,"
        " CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num) );\n"
        "INSERT INTO alembic_version (version_num) VALUES ('0001');\n"
    )


def _rows() -> list[tuple[str, Sequence[Any]]]:
    return [
        (f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", tuple(row.values()))
        for table, rows in _NIGHT.items()
        for row in rows
    ]


@pytest.fixture
def old(url: str, project_root: Path) -> str:
    """A ledger of version 1, with a night in it."""
    if url.startswith("sqlite"):
        database = sqlite3.connect(url.removeprefix("sqlite:///"))
        database.executescript(_script(project_root, "sqlite"))
        for statement, values in _rows():
            database.execute(statement, values)
        database.execute(f"PRAGMA application_id = {APPLICATION}")
        database.execute("PRAGMA user_version = 1")
        database.execute("PRAGMA journal_mode = WAL")
        database.commit()
        database.close()
    else:
        with psycopg.connect(url) as connection:
            connection.execute(_script(project_root, "postgresql").encode())
            for statement, values in _rows():
                connection.execute(statement.replace("?", "%s").encode(), values)
            for table in ("image", "file"):
                connection.execute(f"SELECT setval('{table}_id_seq', 100)".encode())
    return url


def content_of(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of the tables of version 1, in the columns that they had."""
    found = {}
    for table, rows in _NIGHT.items():
        columns = sorted({name for row in rows for name in row})
        query = f"SELECT {', '.join(columns)} FROM {table} ORDER BY {', '.join(columns)}"
        if url.startswith("sqlite"):
            database = sqlite3.connect(url.removeprefix("sqlite:///"))
            found[table] = database.execute(query).fetchall()
            database.close()
        else:
            with psycopg.connect(url) as connection:
                found[table] = connection.execute(query.encode()).fetchall()
    return found


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "raftwright", *arguments], capture_output=True, text=True, timeout=60
    )


def _work(ledger: Ledger) -> None:
    """All that is new, with what was there before."""
    (image,) = ledger.images.get(_IMAGE)
    (file,) = ledger.files.of(image.id)
    assert (image.cur_index, image.group_id, image.target) == (None, "G", 'M "31"; \\')
    assert [row.path for row in ledger.replicas.missing("usdf")] == [file.path]
    plan = DeliveryPlan(image_id=image.id, destination="", path=file.path, target="a", crc32c=file.crc32c)
    assert ledger.replicas.plan("usdf", [plan]) == 1
    queue = ledger.replicas.queue("usdf")
    (row,) = queue.claim(ENDPOINT + "usdf", 9)
    assert queue.end(row, "delivered")
    assert ledger.replicas.safe([file.id], ["usdf"]) == {file.id}
    ingest = IngestPlan(image_id=image.id, repository="r", path=file.path, detector=file.detector)
    assert ledger.ingests.plan([ingest]) == 1
    assert ledger.ingests.end(ledger.ingests.claim("r", 1)[0], "ingested")
    assert len(ledger.ingests.find("LSSTComCam", "G", 0, "R22_S00")) == 1
    assert ledger.tags.tag("keep", [image.id]) == 1
    (left,) = ledger.deliveries.claim("tape", 9)
    assert ledger.deliveries.end(left, "delivered")
    tries = [each for each in ledger.attempts.of(image.id) if each.subject.startswith("tape ")]
    assert [(each.number, each.outcome) for each in tries] == [(1, "queued"), (2, "delivered")]
    (other,) = ledger.claims.claim(want(*keys_of(facts_of(8, daq_id="20"))[:1]))
    assert other.attempt == 1
    assert take(ledger, facts_of(9)) > 2
    assert ledger.images.get(facts_of(9).obsid)[0].group_id == "G", "what came early is kept too"


def test_a_ledger_of_version_1_is_upgraded(old: str, opened: Callable[..., Ledger]) -> None:
    before = content_of(old)
    assert {table: len(rows) for table, rows in before.items()} == {
        table: len(rows) for table, rows in _NIGHT.items()
    }
    for read_only in (False, True):
        with pytest.raises(FormatError, match=r"version 1, .* `raftwright ledger upgrade`") as said:
            open_ledger(old, read_only=read_only)
        assert "\n" not in str(said.value)
    assert content_of(old) == before, "whoever is refused changes nothing"
    assert upgrade(old) == (1, VERSION)
    assert upgrade(old) == (VERSION, VERSION)
    assert content_of(old) == before
    kept = kept_copy(old, 1)
    assert (kept is not None) == old.startswith("sqlite")
    if kept is not None:
        assert content_of(f"sqlite:///{kept}") == before
        with pytest.raises(FormatError, match="version 1"):
            open_ledger(kept)
    ledger = opened(old)
    assert check_ledger(ledger) == []
    _work(ledger)
    assert check_ledger(ledger) == []
    assert counts_of(ledger)["replica"] == {"verified": 1}


def test_upgraded_tables_are_those_of_a_new_ledger(
    old: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    upgrade(old)
    if old.startswith("sqlite"):
        new = f"sqlite:///{tmp_path}/new.db"
    else:
        new = request.getfixturevalue("server").new_database()
    open_ledger(new).close()
    assert tables_of(old) == tables_of(new)


def test_an_upgrade_is_done_at_once_or_not_at_all(old: str) -> None:
    """A table that is in the way, after others were made."""
    before = content_of(old)
    if old.startswith("sqlite"):
        database = sqlite3.connect(old.removeprefix("sqlite:///"))
        database.execute("CREATE TABLE tag (x)")
        database.close()
    else:
        with psycopg.connect(old) as connection:
            connection.execute("CREATE TABLE tag (x int)")
    with pytest.raises(StorageError, match="it is as it was"):
        upgrade(old)
    assert content_of(old) == before
    tables = {row[1] for row in tables_of(old)}
    assert not {"replica", "ingest", "image_group", "image.cur_index"} & tables
    with pytest.raises(FormatError, match="version 1"):
        open_ledger(old)


def test_two_who_upgrade_at_a_time(old: str) -> None:
    results: list[tuple[int, int]] = []
    threads = [threading.Thread(target=lambda: results.append(upgrade(old))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [(1, VERSION)] + [(VERSION, VERSION)] * 3


def test_the_command_says_what_it_did(old: str) -> None:
    for command in (["ledger", "show"], ["status"]):
        refused = _run(*command, "--ledger", old)
        assert refused.returncode != 0
        assert "raftwright ledger upgrade" in refused.stderr
        assert len(refused.stderr.strip().splitlines()) == 1, refused.stderr
    done = _run("ledger", "upgrade", "--ledger", old)
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert f"from version 1 to {VERSION}" in said
    assert all(CHANGES[version] in said for version in range(2, VERSION + 1))
    assert (".v1" in said) == old.startswith("sqlite")
    again = _run("ledger", "upgrade", "--ledger", old, "--json")
    assert {name: json.loads(again.stdout)[name] for name in ("from", "to", "kept")} == {
        "from": VERSION,
        "to": VERSION,
        "kept": None,
    }
    assert _run("ledger", "check", "--ledger", old).returncode == 0
