"""The operator's commands with ledgers that services wrote, on both databases; a bucket as a destination."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "archiver"))  # for s3_servers

from s3_servers import Bucket, true_server

import postgres_server
from raftwright.camera import camera
from raftwright.daq import Registers, simulate_image
from raftwright.ledger import (
    DeliveryPlan,
    FileRow,
    Outcome,
    UnitKey,
    facts_of,
    open_ledger,
    tai,
)
from raftwright.rawfile import WriteReport, write_image

Run = Callable[..., Any]

NAMES = ("CC_O_20261122_000001", "CC_O_20261122_000002")
SMALL = Registers(3, 0, 24, 0, 0, 16, 0, 40, 0, 6)


def _missing(reason: str) -> None:
    if os.environ.get("RAFTWRIGHT_REQUIRE_TOOLS") == "1":
        pytest.fail(
            f"{reason}, and RAFTWRIGHT_REQUIRE_TOOLS=1 says that no test may do without", pytrace=False
        )
    pytest.skip(reason)


@pytest.fixture(scope="module")
def server() -> Iterator[postgres_server.PostgresServer]:
    one = postgres_server.start(_missing)
    yield one
    one.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/elsewhere.db"
    return str(request.getfixturevalue("server").new_database())


def _written(url: str, root: Path) -> None:
    """Two images as services enter them: one complete and delivered, of the other a board failed."""
    model = camera("LSSTComCam")
    with open_ledger(url) as ledger:
        for name in NAMES:
            image = simulate_image("LSSTComCam", name, seed=1, registers=SMALL)
            report: WriteReport = write_image(image, root, durable=False)
            info = image.info
            number = ledger.images.announce(facts_of(info, model))
            ledger.images.times(name, end_readout_tai=tai() - 1)
            keys = [(UnitKey(name, info.id, source.location), "raw", source.bytes) for source in info.sources]
            for claim in ledger.claims.claim(keys):
                location = claim.key.location
                if name == NAMES[1] and location == "22/1":
                    ledger.claims.end(claim, Outcome(state="failed", reason="no answer", retry_after=9.0))
                    continue
                rows = tuple(
                    FileRow(
                        image=name,
                        daq_id=info.id,
                        location=location,
                        detector=file.detector,
                        path=str(file.path),
                        bytes=file.bytes,
                        adler32=file.adler32,
                        crc32c=file.crc32c,
                        status="written",
                    )
                    for file in report.files
                    if file.location == location
                )
                ledger.claims.end(claim, Outcome(state="done", received=1, files=rows))
            plans = [
                DeliveryPlan(
                    image_id=number,
                    destination="oods",
                    path=row.path,
                    target=f"LSSTComCam/20261122/{name}/{Path(row.path).name}",
                    bytes=row.bytes,
                    crc32c=row.crc32c,
                )
                for row in ledger.files.of(number)
            ]
            ledger.deliveries.plan(plans)
            for delivery in ledger.deliveries.claim("oods", 100):
                ledger.deliveries.end(delivery, "delivered", bytes=delivery.bytes)
            ledger.images.judge(number, late=True)


def test_every_command_on_both_databases(url: str, run: Run, tmp_path: Path) -> None:
    root = tmp_path / "raws"
    _written(url, root)
    where = ("--ledger", url)
    seen = run("status", *where, "--json").json
    assert seen["night"]["images"] == 2
    assert (seen["night"]["complete"], seen["night"]["incomplete"]) == (1, 1)
    assert [one["name"] for one in seen["destinations"]] == ["oods"]
    told = run("image", NAMES[1], *where, "--json").json["images"][0]
    assert told["image"]["state"] == "incomplete"
    assert {row["state"] for row in told["sources"]} == {"done", "failed"}
    assert [row["outcome"] for row in told["attempts"] if row["subject"] == "22/1"] == ["failed"]
    assert len(told["events"]) > 10
    assert run("image", NAMES[1], *where).code == 0
    found = run("audit", *where, "--archive", root, "--digests", "--json")
    # Of the failed board there are files all the same, which the ledger does not know.
    assert found.json["verdicts"] == {"OK": 1, "SOME MISSING": 1}
    assert found.code == 5
    (wrong,) = found.json["wrong"]
    assert (wrong["image"], wrong["found"], wrong["expected"]) == (NAMES[1], 6, 9)
    for path in root.rglob("*_R22_S1*"):
        os.utime(path, (1e9, 1e9))
    assert run("repair", *where, "--archive", root, "--json").json["actions"]["entered"] == 1
    assert run("audit", *where, "--archive", root, "--digests", "--json").json["verdicts"] == {"OK": 2}
    report = run("night-report", 20261122, *where, "--archive", root, "--json").json
    assert report["states"] == {"complete": 2}
    assert report["destinations"][0]["delivered"] == 15
    assert any(one["kind"] == "source failed" for one in report["incidents"])


def test_a_ledger_that_is_away(run: Run) -> None:
    done = run("status", "--ledger", "postgresql://me:secret@127.0.0.1:1/none")
    assert done.code == 1
    assert "cannot be reached" in done.err
    assert "secret" not in done.err


def test_a_bucket_that_lies(run: Run, tmp_path: Path) -> None:
    """A destination that said yes and has nothing, or something else, is found by looking at it."""
    pytest.importorskip("moto", reason="moto is not installed: pip install 'raftwright[test]'")
    pytest.importorskip("lsst.resources", reason="lsst-resources is not installed")
    root, url = tmp_path / "raws", f"sqlite:///{tmp_path}/ledger.db"
    _written(url, root)
    with true_server() as endpoint:
        bucket = Bucket(endpoint)
        site = tmp_path / "site.yaml"
        site.write_text(
            f"archive: {{root: {root}}}\nledger: {{url: '{url}'}}\narchiver:\n  destinations:\n"
            f"    - {{name: oods, kind: s3, root: s3://raws/raw, endpoint: '{endpoint}', access_key: x,"
            " secret_key: y}\n"
        )
        site.chmod(0o600)
        files = sorted((root / "20261122" / NAMES[0]).glob("*.fits"))
        key = f"raw/LSSTComCam/20261122/{NAMES[0]}/"
        for file in files[:-1]:
            bucket.put(key + file.name, file.read_bytes())
        flipped = bytearray(files[0].read_bytes())
        flipped[-1] ^= 1
        bucket.put(key + files[0].name, bytes(flipped))
        arguments = ("audit", "--config", site, "--destinations", "--image", NAMES[0], "--json")
        (wrong,) = run(*arguments).json["wrong"]
        assert wrong["verdict"] == "NOT DELIVERED"
        assert wrong["delivered"] == {"oods": {"there": 8, "of": 9}}
        assert {one["what"] for one in wrong["findings"]} == {"lies"}
        (closer,) = run(*arguments, "--digests").json["wrong"]
        assert {one["what"] for one in closer["findings"]} == {"lies", "taken"}
        done = run("repair", "--config", site, "--destinations", "--image", NAMES[0], "--json")
        assert done.json["actions"]["queued again"] == 1
    # And when it does not answer, that is said, and nothing is queued again for it.
    (away,) = run(*arguments).json["wrong"]
    assert {one["what"] for one in away["findings"]} == {"unreadable"}
