"""The audit, and the repairs that follow from it: `raftwright audit`, `raftwright repair`."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nights import BEFORE, TONIGHT, Archive, Nights

from raftwright._core import crc32c
from raftwright.daq import Registers, simulate_image
from raftwright.errors import StorageError
from raftwright.ledger import open_ledger
from raftwright.report.auditing import Options, audit
from raftwright.report.book import open_book
from raftwright.report.places import read_place
from raftwright.report.verdicts import ImageAudit, Verdict, What

Run = Callable[..., Any]

BYTES = 2048
NAME = "CC_O_20261122_{:06d}"


class Site:
    """An archive of six images, each with its files, delivered to a directory by hard links."""

    def __init__(self, archive: Archive, oods: Path) -> None:
        self.archive = archive
        self.oods = oods
        self.ledger = str(archive.root / "ledger.db")
        nights = Nights(archive.nights.connection, archive.root, destinations=("oods",))
        archive.run("BEGIN")
        for number in (1, 2, 3, 4, 6):
            nights.image(TONIGHT, number, make_files=True, bytes=BYTES)
        archive.run("UPDATE file SET crc32c = ?", f"{crc32c(bytes(BYTES), 0):08x}")
        archive.run("UPDATE file SET crc32c = ? WHERE bytes = 500", f"{crc32c(bytes(500), 0):08x}")
        archive.run("UPDATE file SET crc32c = ? WHERE bytes = 700", f"{crc32c(bytes(700), 0):08x}")
        archive.run("UPDATE delivery SET crc32c = (SELECT crc32c FROM file WHERE file.path = delivery.path)")
        archive.run("COMMIT")
        for path, target in archive.nights.connection.execute("SELECT path, target FROM delivery"):
            (oods / target).parent.mkdir(parents=True, exist_ok=True)
            os.link(path, oods / target)

    def file(self, number: int, rest: str) -> Path:
        obsid = NAME.format(number)
        return self.archive.root / str(TONIGHT) / obsid / f"{obsid}_{rest}"

    def there(self, number: int, rest: str) -> Path:
        obsid = NAME.format(number)
        return self.oods / "LSSTComCam" / str(TONIGHT) / obsid / f"{obsid}_{rest}"

    def audit(self, **options: Any) -> dict[str, ImageAudit]:
        if options.pop("oods", False):
            options["places"] = [read_place(f"oods={self.oods}")]
        chosen = Options(archive=self.archive.root, **options)
        with open_book(self.ledger) as book:
            return {found.obsid: found for found in audit(book, chosen)}

    def one(self, number: int, **options: Any) -> ImageAudit:
        return self.audit(**options)[NAME.format(number)]


@pytest.fixture
def site(archive: Archive, tmp_path: Path) -> Site:
    return Site(archive, tmp_path / "oods")


def whats(found: ImageAudit) -> set[What]:
    return {finding.what for finding in found.findings}


def test_all_is_well(site: Site, run: Run) -> None:
    found = site.audit(oods=True, digests=True)
    verdicts = {name: one.verdict for name, one in found.items()}
    assert verdicts == {
        **{NAME.format(number): Verdict.OK for number in (1, 2, 3, 4, 6)},
        NAME.format(5): Verdict.NOT_TAKEN,
    }
    assert found[NAME.format(1)].delivered == {"oods": (19, 19)}
    done = run("audit", site.archive.root, "--destination", f"oods={site.oods}")
    assert (done.code, done.err) == (0, "")
    assert "looked at 5 images" in done.out


def test_each_verdict_has_its_reason(site: Site, run: Run) -> None:
    """D098, D175: gaps are found by comparing, each once, with a reason; the exit code says so."""
    site.file(1, "R22_S11.fits").unlink()
    site.file(2, "R22_S11.fits").write_bytes(b"x" * 77)
    shutil.rmtree(site.file(3, "").parent)
    site.there(4, "R22_S00.fits").unlink()
    shutil.rmtree(site.there(6, "").parent)
    done = run("audit", site.archive.root, "--destination", f"oods={site.oods}", "--json")
    assert done.code == 5
    assert done.json["verdicts"] == {
        "NONE SENT": 1,
        "SOME MISSING": 1,
        "DAMAGED": 1,
        "NONE DELIVERED": 1,
        "NOT DELIVERED": 1,
        "NOT TAKEN": 1,
    }
    wrong = {one["image"]: one for one in done.json["wrong"]}
    first = wrong[NAME.format(1)]
    assert (first["verdict"], first["found"], first["expected"]) == ("SOME MISSING", 8, 9)
    reasons = {finding["what"]: finding["reason"] for finding in first["findings"]}
    assert reasons["gone"] == "is in the ledger and not on the disk"
    assert wrong[NAME.format(2)]["findings"][0]["reason"] == "has 77 bytes, the ledger says 2,048"
    assert wrong[NAME.format(4)]["findings"][0]["destination"] == "oods"
    assert wrong[NAME.format(6)]["delivered"] == {"oods": {"there": 0, "of": 19}}
    text = run("audit", site.archive.root, "--destination", f"oods={site.oods}")
    assert max(map(len, text.out.splitlines())) <= 100
    assert f"{NAME.format(6)}  NONE DELIVERED, 9 of 9 CCDs" in text.out
    assert "oods: 19 times was delivered and is not there: expectedSensors.json" in text.out
    assert text.err.startswith("raftwright: error: 5 images are not as the ledger says")


def test_a_flipped_bit_needs_digests(site: Site) -> None:
    """F28: found by its sum, not by its size."""
    content = bytearray(BYTES)
    content[100] = 1
    site.file(1, "R22_S11.fits").write_bytes(content)
    assert site.one(1).verdict is Verdict.OK
    found = site.one(1, digests=True, oods=True)
    assert found.verdict is Verdict.DAMAGED
    assert What.SUM in whats(found)
    assert What.TAKEN in whats(found)  # the destination has the same file
    assert found.found == 8


def test_a_missing_sidecar_is_a_missing_file(site: Site) -> None:
    """N21: 205 FITS and 205 JSON."""
    site.file(1, "R22_S11.json").unlink()
    site.archive.run("DELETE FROM file WHERE path LIKE '%000001_R22_S11.json'")
    found = site.one(1)
    assert found.verdict is Verdict.SOME_MISSING
    assert whats(found) == {What.NO_SIDECAR}


def test_what_the_ledger_does_not_know(site: Site) -> None:
    for name in ("R22_S11.v2.fits", "R22_S12.v2.fits"):
        site.file(1, name).write_bytes(b"")
    os.utime(site.file(1, "R22_S11.v2.fits"), (1e9, 1e9))
    aside = site.file(2, "R22_S11.fits.conflict-0123abcd")
    aside.write_bytes(b"")
    left = site.file(3, "").parent / f".{NAME.format(3)}_R22_S11.fits.123-abc-1.tmp"
    left.write_bytes(b"")
    fresh = site.file(4, "").parent / f".{NAME.format(4)}_R22_S11.fits.123-abc-1.tmp"
    fresh.write_bytes(b"")
    os.utime(left, (1e9, 1e9))
    (site.archive.root / str(TONIGHT) / NAME.format(9)).mkdir()
    (site.archive.root / str(TONIGHT) / "odd").mkdir()
    found = site.audit()
    # The other one was written this minute: whoever did it enters it.
    assert [(one.what, one.subject[-8:]) for one in found[NAME.format(1)].findings] == [
        (What.UNKNOWN, ".v2.fits")
    ]
    assert whats(found[NAME.format(2)]) == {What.ASIDE}
    assert whats(found[NAME.format(3)]) == {What.TEMPORARY}
    assert found[NAME.format(4)].verdict is Verdict.OK  # somebody may still write it
    assert found[NAME.format(9)].verdict is Verdict.NOT_ANNOUNCED
    assert found["odd"].verdict is Verdict.MORE_FOUND
    assert {found[NAME.format(number)].verdict for number in (1, 2, 3)} == {Verdict.MORE_FOUND}
    # Numbers between the last image of the ledger and the one that is only on the disk were not taken.
    assert [one.obsid[-1] for one in found.values() if one.verdict is Verdict.NOT_TAKEN] == ["5", "7", "8"]


def test_a_ledger_that_contradicts_itself(site: Site) -> None:
    site.archive.run("UPDATE detector SET state = 'expected' WHERE image_id = 1 AND detector = 'R22_S11'")
    site.archive.run("UPDATE image SET state = 'incomplete', reason = 'no' WHERE id = 2")
    site.archive.run("UPDATE image SET expected_detectors = 10 WHERE id = 3")
    assert site.one(1).verdict is Verdict.IMPOSSIBLE
    assert site.one(2).verdict is Verdict.IMPOSSIBLE
    assert What.STATE in whats(site.one(3))


def test_young_images_wait_and_old_ones_do_not(site: Site) -> None:
    nights = Nights(site.archive.nights.connection, site.archive.root, destinations=("oods",))
    nights.image(TONIGHT, 7, state="announced", at=time.time() + 37)
    nights.image(TONIGHT, 8, state="announced", at=time.time() - 7200)
    assert site.one(7).verdict is Verdict.WAITING
    assert site.one(8).verdict is Verdict.NONE_SENT


def test_a_destination_that_has_other_things(site: Site) -> None:
    site.there(1, "R22_S11.fits").unlink()
    site.there(1, "R22_S11.fits").write_bytes(b"other")
    site.there(2, "R22_S99.fits").write_bytes(b"more")
    first, second = site.one(1, oods=True), site.one(2, oods=True)
    assert first.verdict is Verdict.NOT_DELIVERED
    assert whats(first) == {What.TAKEN}
    assert whats(second) == {What.STRANGE}
    assert second.verdict is Verdict.MORE_FOUND


def test_one_image_one_night_some_time(site: Site, run: Run) -> None:
    nights = Nights(site.archive.nights.connection, site.archive.root, destinations=("oods",))
    nights.image(BEFORE, 1, make_files=True)
    assert run("audit", site.archive.root, "--night", BEFORE, "--json").json["images"] == 1
    assert run("audit", site.archive.root, "--image", NAME.format(2), "--json").json["images"] == 1
    assert run("audit", site.archive.root, "--json").json["images"] == 6
    assert run("audit", site.archive.root, "--since", "1h", "--json").code in (0, 5)


def test_the_daq_is_asked(site: Site) -> None:
    """What the DAQ has and the ledger has not; and whether what is missing can still be had."""

    class Daq:
        def images(self) -> list[str]:
            return [NAME.format(1), NAME.format(8), NAME.format(9), "od\x1bd"]

        def underway(self) -> list[str]:
            return [NAME.format(9)]

    site.file(1, "R22_S11.fits").unlink()
    site.file(2, "R22_S11.fits").unlink()
    found = site.audit(daq=Daq())
    assert "still has it" in found[NAME.format(1)].findings[-1].reason
    assert "does not have it any more" in found[NAME.format(2)].findings[-1].reason
    assert found[NAME.format(8)].verdict is Verdict.NOT_ANNOUNCED
    assert NAME.format(9) not in found
    assert found["od\x1bd"].verdict is Verdict.MORE_FOUND


def test_the_audit_changes_nothing(site: Site, run: Run) -> None:
    site.file(1, "R22_S11.fits").unlink()
    before = _state(site)
    assert run("audit", site.archive.root, "--destination", f"oods={site.oods}", "--digests").code == 5
    assert _state(site) == before


def test_a_dry_run_says_all_and_changes_nothing(site: Site, run: Run) -> None:
    _spoil(site)
    before = _state(site)
    done = run("repair", site.archive.root, "--destination", f"oods={site.oods}", "--dry-run", "--json")
    assert _state(site) == before
    dry = [(one["action"], one["subject"].rpartition("/")[2]) for one in done.json["repairs"]]
    assert ("marked lost", f"{NAME.format(1)}_R22_S11.fits") in dry
    real = run("repair", site.archive.root, "--destination", f"oods={site.oods}", "--json")
    actions = [(one["action"], one["subject"].rpartition("/")[2]) for one in real.json["repairs"]]
    assert [one for one in dry if one[0] != "judged"] == [one for one in actions if one[0] != "judged"]
    text = run("repair", site.archive.root, "--dry-run").out
    assert "would be done in" in text


def test_repairs(site: Site, run: Run) -> None:
    _spoil(site)
    done = run("repair", site.archive.root, "--destination", f"oods={site.oods}", "--json")
    actions = {(one["image"][-1], one["action"]) for one in done.json["repairs"]}
    assert actions == {
        ("1", "marked lost"),
        ("1", "queued again"),
        ("2", "moved aside"),
        ("2", "marked damaged"),
        ("2", "left alone"),  # the destination has the damaged file under the name
        ("3", "removed"),
        ("4", "queued again"),
        ("6", "queued again"),
        ("1", "judged"),
        ("2", "judged"),
    }
    assert done.code == 5
    with open_ledger(site.ledger) as ledger:
        first = ledger.images.by_id(1)
        assert (first.state, "R22_S11" in first.reason) == ("incomplete", True)
        sources = {row.location: row.state for row in ledger.images.sources(1)}
        assert sources == {"22/0": "done", "22/1": "open", "22/2": "done"}
        assert {row.status for row in ledger.files.of(2) if row.detector == "R22_S11"} == {
            "damaged",
            "written",
        }
        queued = [row for row in ledger.deliveries.of(4) if row.state == "queued"]
        assert [Path(row.path).name for row in queued] == [f"{NAME.format(4)}_R22_S00.fits"]
        changes = {
            (row.thing, row.new) for row in ledger.events.after(0, 100_000) if row.owner == ledger.owner
        }
        del changes
        told = [row for row in ledger.events.after(0, 100_000) if row.number > 30]
        assert {("file", "lost"), ("file", "damaged"), ("file", "removed"), ("delivery", "queued")} <= {
            (row.thing, row.new) for row in told
        }
    aside = list(site.file(2, "").parent.glob("*.damaged-*"))
    assert [path.stat().st_size for path in aside] == [77]
    assert not site.file(2, "R22_S11.fits").exists()
    # A second time there is nothing more to do about it.
    again = run("repair", site.archive.root, "--destination", f"oods={site.oods}", "--json")
    assert {one["action"] for one in again.json["repairs"]} == {"left alone"}


def test_what_came_back_is_whole_again(site: Site, run: Run) -> None:
    path = site.file(1, "R22_S11.fits")
    away = path.rename(site.archive.root / "away")
    run("repair", site.archive.root)
    away.rename(path)
    assert What.BACK in whats(site.one(1))
    done = run("repair", site.archive.root, "--json")
    assert [one["action"] for one in done.json["repairs"]] == ["found again", "judged"], done.out
    assert site.one(1).verdict is Verdict.OK
    with open_ledger(site.ledger, read_only=True) as ledger:
        assert ledger.images.by_id(1).state == "complete"


def test_files_that_the_ledger_does_not_know_are_entered(archive: Archive, run: Run, tmp_path: Path) -> None:
    """As after a ledger that was put back from an hour ago: real files, read and summed."""
    from raftwright.camera import camera
    from raftwright.ledger import facts_of
    from raftwright.rawfile import write_image

    small = Registers(3, 0, 24, 0, 0, 16, 0, 40, 0, 6)
    image = simulate_image("LSSTComCam", NAME.format(1), seed=1, registers=small)
    written = write_image(image, archive.root, durable=False)
    archive.nights.connection.close()
    url = str(archive.root / "ledger.db")
    with open_ledger(url) as ledger:
        number = ledger.images.announce(facts_of(image.info, camera("LSSTComCam")))
    found = run("audit", archive.root, "--json")
    assert found.json["verdicts"] in ({"WAITING": 1}, {"NONE SENT": 1}, {"MORE FOUND": 1})
    foreign = written.directory / f"{NAME.format(1)}_R22_S12.v2.fits"
    other = simulate_image("LSSTComCam", NAME.format(2), seed=1, registers=small)
    source = (
        write_image(other, tmp_path / "other", durable=False).directory / f"{NAME.format(2)}_R22_S12.fits"
    )
    shutil.copy(source, foreign)
    for path in written.directory.iterdir():
        os.utime(path, (1e9, 1e9))
    done = run("repair", archive.root, "--json")
    actions = [one["action"] for one in done.json["repairs"]]
    assert actions.count("entered") == 1
    assert actions.count("left alone") == 1  # the one of another image
    with open_ledger(url, read_only=True) as ledger:
        assert ledger.images.by_id(number).state == "complete"
        assert {row.missing for row in ledger.files.of(number, "raw")} == {0}
        assert {row.state for row in ledger.images.detectors(number)} == {"present"}


def test_an_image_that_the_ledger_does_not_know_is_entered(archive: Archive, run: Run) -> None:
    from raftwright.rawfile import write_image

    small = Registers(3, 0, 24, 0, 0, 16, 0, 40, 0, 6)
    write_image(
        simulate_image("LSSTComCam", NAME.format(1), seed=1, registers=small), archive.root, durable=False
    )
    archive.nights.connection.close()
    assert run("audit", archive.root, "--json").json["verdicts"] == {"NOT ANNOUNCED": 1}
    dry = run("repair", archive.root, "--dry-run", "--json").json["repairs"]
    assert run("audit", archive.root, "--json").json["verdicts"] == {"NOT ANNOUNCED": 1}
    done = run("repair", archive.root, "--json")
    assert done.json["repairs"] == dry
    assert [(one["action"], one["subject"]) for one in dry][1] == ("entered", "19 files")
    assert run("audit", archive.root, "--json").json["verdicts"] == {"OK": 1}


def test_one_thing_that_fails_holds_up_nothing(site: Site, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _spoil(site)

    def no(*_: object) -> str:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("raftwright.report.repairing._move_aside", no)
    done = run("repair", site.archive.root, "--json")
    actions = {(one["image"][-1], one["action"]) for one in done.json["repairs"]}
    assert ("2", "failed") in actions
    assert ("3", "removed") in actions
    assert done.code == 5


def test_destinations_as_they_are_named(run: Run, site: Site) -> None:
    assert run("audit", site.archive.root, "--destination", "oods").code == 2
    assert run("audit", site.archive.root, "--destination", "oods=/nowhere").code == 1
    assert run("audit", site.archive.root, "--destinations").code == 2


def _spoil(site: Site) -> None:
    site.file(1, "R22_S11.fits").unlink()
    site.there(1, "R22_S11.fits").unlink()
    site.file(2, "R22_S11.fits").write_bytes(b"x" * 77)
    left = site.file(3, "").parent / f".{NAME.format(3)}_R22_S11.fits.123-abc-1.tmp"
    left.write_bytes(b"")
    os.utime(left, (1e9, 1e9))
    site.there(4, "R22_S00.fits").unlink()
    site.archive.run(
        "UPDATE delivery SET state = 'failed', delivered_tai = NULL WHERE image_id = 5 AND rank = 0"
    )


def _state(site: Site) -> tuple[Any, ...]:
    tables = ("image", "source", "detector", "file", "delivery", "event", "attempt")
    rows = tuple(
        site.archive.nights.connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
        for table in tables
    )
    files = tuple(
        sorted(
            (str(path), path.stat().st_size, path.stat().st_mtime_ns)
            for root in (site.archive.root / str(TONIGHT), site.oods)
            for path in root.rglob("*")
        )
    )
    return rows, files


def test_a_destination_that_is_away_is_asked_three_times(site: Site) -> None:
    class Away:
        name = "oods"
        asked = 0

        def sizes(self, folder: str) -> dict[str, int]:
            self.asked += 1
            raise StorageError(110, "no answer", "oods")

        def crc32c(self, target: str) -> str:
            raise AssertionError("unreachable")

        def instruments(self) -> frozenset[str]:
            return frozenset()

        def takes_containers(self) -> bool:
            return False

    away = Away()
    found = site.audit(places=[away])
    assert away.asked == 3
    assert [one.verdict for one in found.values()].count(Verdict.IMPOSSIBLE) == 5
    assert all(What.UNREADABLE in whats(one) for one in found.values() if one.verdict is Verdict.IMPOSSIBLE)


def test_versions_and_resends_count_once(site: Site) -> None:
    """D099: counts are of detectors and names, each once, however often something was written or sent."""
    later = site.file(1, "R22_S11.v2.fits")
    later.write_bytes(bytes(BYTES))
    site.file(1, "R22_S11.v2.json").write_bytes(bytes(500))
    for path, kind in ((later, "raw"), (later.with_suffix(".json"), "sidecar")):
        site.archive.run(
            "INSERT INTO file (image_id, kind, detector, location, version, path, bytes, crc32c, status,"
            " replaces, written_tai) SELECT 1, ?, 'R22_S11', '22/1', 2, ?, ?, crc32c, 'written', '', 0"
            " FROM file WHERE image_id = 1 AND kind = ? LIMIT 1",
            *(kind, str(path), path.stat().st_size, kind),
        )
    first = str(site.file(1, "R22_S11.fits"))
    site.archive.run("UPDATE file SET replaced_by = ?, missing = 7 WHERE path = ?", str(later), first)
    site.archive.run("UPDATE delivery SET attempts = 5 WHERE image_id = 1")
    found = site.one(1, oods=True, digests=True)
    assert (found.verdict, found.found) == (Verdict.OK, 9)
    assert found.delivered == {"oods": (19, 19)}
