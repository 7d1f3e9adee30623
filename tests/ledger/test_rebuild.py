"""A ledger that is lost, or older than the archive: made anew from files, equal in what a disk can tell."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from night import counts, wait_for

from hand_daq import HandStore, name_of
from raftwright import _core
from raftwright.errors import NotFoundError
from raftwright.forwarder import Forwarder
from raftwright.ledger import Ledger, open_ledger
from raftwright.ledger.rebuilding import Rebuilt, rebuild
from raftwright.ledger.version import VERSION

ROW = 28 * 108


def a_night(daq: HandStore, forwarder: Callable[..., Forwarder], url: str, archive: Path) -> None:
    """Whole images, one with gaps, one that was repaired, one of which another has the name, a header."""
    daq.add(1, 2)
    gaps = daq.make(3)
    gaps.lose(2 * ROW, 3 * ROW)
    daq.put(gaps)
    repaired = daq.make(4)
    repaired.lose(5 * ROW, 6 * ROW, "22/1")
    daq.put(repaired)
    first = forwarder(url)
    wait_for(lambda: counts(url) == {"done": 8, "incomplete": 4})
    first.stop()
    repaired.mend()
    again = daq.make(1, seed=5)
    again.base = msgspec.structs.replace(again.base, id="00ab")
    daq.remove(daq.all[name_of(1)])
    daq.put(again)
    with open_ledger(url) as ledger:
        (image,) = ledger.images.get(name_of(4))
        ledger.database.change(
            lambda transaction: transaction.run(
                "UPDATE source SET next_try = 0 WHERE image_id = ?", (image.id,)
            )
        )
    second = forwarder(url)
    wait_for(lambda: counts(url) == {"done": 9, "incomplete": 3, "conflict": 3})
    second.stop()
    header = archive / "20261122" / name_of(2) / f"{name_of(2)}_header.yaml"
    header.write_text(
        f"# header of {name_of(2)}, complete, version 1\nPRIMARY:\n- {{keyword: IMGTYPE, value: BIAS}}\n"
        "- {keyword: DATE-BEG, value: '2026-11-22T01:02:03.500'}\n"
        "- {keyword: GROUPID, value: '2026-11-22T01:02:00.000'}\n- {keyword: CURINDEX, value: 2}\n"
    )
    with open_ledger(url) as ledger:
        data = header.read_bytes()
        sums = f"{_core.crc32c(data):08x}"
        ledger.headers.put(name_of(2), 1, str(header), len(data), sums, state="complete")
        ledger.images.facts(name_of(2), image_type="BIAS", group_id="2026-11-22T01:02:00.000", cur_index=2)
        ledger.images.times(name_of(2), begin_tai=1795309323.5)
        for image in ledger.images.select():
            ledger.images.judge(image.id, late=True)


def truth(url: str) -> dict[str, Any]:
    """What the disk can tell."""
    found: dict[str, Any] = {}
    with open_ledger(url, read_only=True) as ledger:
        for image in ledger.images.select():
            key = (image.obsid, image.daq_id)
            assert key not in found
            found[key] = {
                "image": (
                    *(
                        image.camera,
                        image.instrument,
                        image.dayobs,
                        image.seqnum,
                        image.controller,
                        image.folder,
                    ),
                    *(image.exposure_id, image.expected_sources, image.expected_detectors, image.state),
                    *(
                        image.header_state,
                        image.trigger_tai,
                        image.begin_tai,
                        image.end_tai,
                        image.image_type,
                    ),
                    *(image.group_id, image.cur_index),
                ),
                "sources": [
                    (
                        each.location,
                        each.kind,
                        each.state,
                        each.expected,
                        each.received if each.state == "done" else 0,
                    )
                    for each in ledger.images.sources(image.id)
                ],
                "detectors": ledger.images.detectors(image.id)
                and [
                    (each.detector, each.location, each.purpose, each.state, each.missing_pixels)
                    for each in ledger.images.detectors(image.id)
                ],
                "files": [
                    (
                        *(file.path, file.detector, file.location, file.version, file.bytes, file.adler32),
                        *(
                            file.crc32c,
                            file.missing,
                            file.status == "conflict",
                            file.replaces,
                            file.replaced_by,
                        ),
                    )
                    for file in ledger.files.of(image.id, "raw")
                ],
                "headers": [
                    (header.version, header.state, header.path, header.bytes, header.crc32c)
                    for header in ledger.headers.of(image.obsid)
                ],
            }
    return found


@pytest.mark.parametrize("how", ["anew", "completed"])
def test_a_night_is_found_again(
    url: str, how: str, daq: HandStore, forwarder: Callable[..., Forwarder], archive: Path, tmp_path: Path
) -> None:
    """F43: the ledger is deleted after a night, or restored from before its second half."""
    a_night(daq, forwarder, url, archive)
    before = truth(url)
    assert len(before) == 5
    if how == "anew":
        if url.startswith("sqlite"):
            for path in tmp_path.glob("ledger.db*"):
                path.unlink()
            new = url
        else:
            new = f"sqlite:///{tmp_path}/new.db"  # also a change of the database
    else:
        new = f"sqlite:///{tmp_path}/restored.db"
        with open_ledger(new) as ledger:
            partial = tmp_path / "partial"
            shutil.copytree(archive / "20261122" / name_of(1), partial / "20261122" / name_of(1))
            ledger.images.announce(_facts(url, name_of(3)))
            ledger.claims.claim([(unit.key, "raw", unit.expected) for unit in ledger.claims.units()])
    with open_ledger(new) as ledger:
        done = rebuild(ledger, archive)
    assert (done.images, done.strange, done.damaged, done.lost) == (5, 0, 0, 0), done.listed
    assert done.bytes > 0
    after = truth(new)
    assert after.keys() == before.keys()
    for key, image in before.items():
        for part, rows in image.items():
            assert after[key][part] == rows, (key, part)
    with open_ledger(new) as ledger:
        last = ledger.events.last()
        again = rebuild(ledger, archive)
        assert (again.bytes, again.new_files, again.new_images) == (0, 0, 0), "nothing is read twice"
        assert ledger.events.last() == last, "and nothing happens twice"
    assert truth(new) == after
    # The services go on with it as if nothing had been.
    one = forwarder(new)
    wait_for(lambda: one.idle)
    one.stop()
    assert {key: image["files"] for key, image in truth(new).items()} == {
        key: image["files"] for key, image in after.items()
    }


def _facts(url: str, obsid: str) -> Any:
    from raftwright.ledger import DetectorFacts, ImageFacts, SourceFacts

    with open_ledger(url, read_only=True) as ledger:
        (image,) = ledger.images.get(obsid)
        return ImageFacts(
            obsid=obsid,
            daq_id=image.daq_id,
            camera=image.camera,
            instrument=image.instrument,
            folder=image.folder,
            trigger_tai=image.trigger_tai,
            sources=tuple(
                SourceFacts(s.location, s.kind, s.expected) for s in ledger.images.sources(image.id)
            ),
            detectors=tuple(
                DetectorFacts(d.detector, d.location, d.purpose) for d in ledger.images.detectors(image.id)
            ),
        )


@pytest.fixture
def small(daq: HandStore, forwarder: Callable[..., Forwarder], archive: Path, sqlite_url: str) -> str:
    """Two whole images and their ledger."""
    daq.add(1, 2)
    one = forwarder(sqlite_url)
    wait_for(lambda: counts(sqlite_url) == {"done": 6})
    one.stop()
    return sqlite_url


def test_a_ledger_of_before_the_last_image(
    small: str, daq: HandStore, forwarder: Callable[..., Forwarder], archive: Path, tmp_path: Path
) -> None:
    """Restored from an hour ago: the sweep of a forwarder brings it to the truth too, without fetching."""
    old = tmp_path / "old.db"
    shutil.copy(tmp_path / "ledger.db", old)
    daq.add(3)
    one = forwarder(small)
    wait_for(lambda: counts(small) == {"done": 9})
    one.stop()
    expected = truth(small)
    read = {name: image.sources["22/0"].read_bytes for name, image in daq.all.items()}
    two = forwarder(f"sqlite:///{old}")
    wait_for(lambda: counts(str(old)) == {"done": 9})
    two.stop()
    assert {name: image.sources["22/0"].read_bytes for name, image in daq.all.items()} == read, (
        "nothing fetched"
    )
    after = truth(str(old))
    (third,) = (key for key in after if key[0] == name_of(3))
    assert after[third]["files"] == expected[third]["files"]
    assert after[third]["detectors"] == expected[third]["detectors"]


def test_a_rebuild_while_forwarders_work(
    small: str, daq: HandStore, forwarder: Callable[..., Forwarder], archive: Path, tmp_path: Path
) -> None:
    new = f"sqlite:///{tmp_path}/new.db"
    daq.add(*range(3, 12))
    one = forwarder(new)
    with open_ledger(new) as ledger:
        while not one.idle:
            rebuild(ledger, archive)
        rebuild(ledger, archive)
    wait_for(lambda: counts(new) == {"done": 33})
    one.stop()
    with open_ledger(new) as ledger:
        judged = [ledger.images.judge(image.id) for image in ledger.images.select()]
        assert {(image.state, image.reason) for image in judged} == {("complete", "")}
        files = list(ledger.files.of_images())
        assert len(files) == len({file.path for file in files}) == 99


def test_what_is_damaged_is_not_taken_for_whole(small: str, archive: Path, tmp_path: Path) -> None:
    """F44: it is fetched again."""
    paths = sorted(archive.rglob("*.fits"))
    data = bytearray(paths[0].read_bytes())
    data[-2880 + 200] ^= 1  # of the last tiles
    paths[0].write_bytes(data)
    paths[1].write_bytes(b"no FITS file")
    paths[2].with_suffix(".json").unlink()
    with open_ledger(tmp_path / "new.db") as ledger:
        done = rebuild(ledger, archive)
        assert (done.damaged, done.strange) == (1, 1), done.listed
        assert str(paths[1]) in done.listed[0][0]
        assert done.states == {"complete": 1, "incomplete": 1}
        (image,) = ledger.images.select(states=["incomplete"])
        missing = {each.detector for each in ledger.images.detectors(image.id) if each.state != "present"}
        assert missing == {paths[0].stem[-7:], paths[1].stem[-7:]}
        assert ledger.quarantine.all()[0].what == "file"
        source = {each.location: each.state for each in ledger.images.sources(image.id)}["22/0"]
        assert source == "incomplete", "it is fetched again"


def test_strange_names_are_set_aside(small: str, archive: Path, tmp_path: Path) -> None:
    """D: nothing is made up for a name that is none, and nothing else waits for it."""
    day = archive / "20261122"
    (day / "CC_O_20261123_000001").mkdir()
    (day / "not an image \udcff").mkdir()
    (day / name_of(1) / "CC_S_20261122_000002_R22_S00.fits").write_bytes(b"x")
    (day / name_of(1) / "core.1234").write_bytes(b"x")
    (archive / "lost+found").mkdir()
    (archive / "20261124").write_text("no directory")
    with open_ledger(tmp_path / "new.db") as ledger:
        done = rebuild(ledger, archive)
        assert (done.images, done.files, done.strange) == (2, 18, 4), done.listed
        assert done.states == {"complete": 2}
        assert len(ledger.quarantine.all()) == 4


def test_files_that_went_are_lost(small: str, archive: Path) -> None:
    gone = sorted(archive.rglob("*.fits"))[0]
    gone.unlink()
    with open_ledger(small) as ledger:
        for image in ledger.images.select():
            assert ledger.images.judge(image.id).state == "complete"
        done = rebuild(ledger, archive)
        assert done.lost == 1
        file = ledger.files.by_path(str(gone))
        assert file is not None
        assert file.status == "lost"
        assert done.states == {"complete": 1, "incomplete": 1}


def test_a_manifest_alone_is_no_other_image(small: str, archive: Path, tmp_path: Path) -> None:
    day = archive / "20261122"
    (day / name_of(7)).mkdir()
    manifest = (day / name_of(1) / f"{name_of(1)}_expectedSensors.json").read_text()
    (day / name_of(7) / f"{name_of(7)}_expectedSensors.json").write_text(manifest)
    with open_ledger(tmp_path / "new.db") as ledger:
        assert rebuild(ledger, archive).states == {"complete": 2, "incomplete": 1}
        (image,) = ledger.images.get(name_of(7))
        assert (image.daq_id, image.expected_detectors, image.expected_sources) == ("", 9, 3)
        facts = msgspec.structs.replace(_facts(small, name_of(1)), obsid=name_of(7), daq_id="77")
        assert ledger.images.announce(facts) == image.id, "it is the one that the DAQ tells of"
        assert [each.daq_id for each in ledger.images.get(name_of(7))] == ["77"]
        assert rebuild(ledger, archive).images == 3
        assert [each.daq_id for each in ledger.images.get(name_of(7))] == ["77"]


def test_the_command(small: str, archive: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        done = subprocess.run(
            [sys.executable, "-m", "raftwright", "ledger", *arguments, "--json"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, json.loads(done.stdout)

    new = tmp_path / "sub" / "new.db"
    code, dry = run("rebuild", str(archive), "--ledger", str(new), "--dry-run")
    assert (code, dry["images"], dry["new_images"], dry["files"], dry["bytes"]) == (0, 2, 2, 18, 0)
    assert not new.exists()
    code, done = run("rebuild", str(archive), "--ledger", str(new))
    assert (code, done["images"], done["new_files"], done["states"]) == (0, 2, 18 + 18 + 2, {"complete": 2})
    code, dry = run("rebuild", str(archive), "--ledger", str(new), "--dry-run")
    assert (code, dry["new_images"], dry["new_files"]) == (0, 0, 0)
    code, shown = run("show", "--ledger", str(new))
    assert shown["counts"]["image"] == {"complete": 2}
    assert shown["counts"]["file"] == {"manifest": 2, "raw": 18, "sidecar": 18}
    code, checked = run("check", "--ledger", str(new))
    assert (code, checked["faults"]) == (0, [])
    with open_ledger(new) as ledger:
        ledger.database.change(lambda transaction: transaction.run("UPDATE detector SET state = 'missing'"))
    code, checked = run("check", "--ledger", str(new))
    assert (code, [fault["count"] for fault in checked["faults"]]) == (5, [2])
    code, upgraded = run("upgrade", "--ledger", str(new))
    assert (code, upgraded["from"], upgraded["to"]) == (0, VERSION, VERSION)
    code, failed = run("rebuild", str(tmp_path / "nowhere"))
    assert (code, failed["status"]) == (1, "error")


def test_a_rebuild_that_is_stopped_goes_on(small: str, archive: Path, tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    def stop(_: Rebuilt, obsid: str) -> None:
        raise StoppedError

    new: Ledger
    with open_ledger(tmp_path / "new.db") as new:
        with pytest.raises(StoppedError):
            rebuild(new, archive, progress=stop)
        assert len(new.images.select()) == 1
        done = rebuild(new, archive)
        assert (done.images, done.new_images) == (2, 1)
        assert 0 < done.bytes < sum(path.stat().st_size for path in archive.rglob("*.fits"))
    with pytest.raises(NotFoundError):
        rebuild(None, tmp_path / "nowhere", dry_run=True)
