"""Catching up: what the DAQ has and the archive lacks comes, CCD by CCD, and nothing else."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from recovery import CHUNK, fits_in, is_right, path_of, wait_for

from hand_daq import HandStore, free_port
from raftwright import open_raw
from raftwright.catchup.findings import totals
from raftwright.ledger import DeliveryPlan, Ledger

DETECTORS = {f"R22_S{row}{column}" for row in range(3) for column in range(3)}


def test_an_image_that_nobody_captured_comes(
    daq: HandStore, serve: Any, catch_up: Any, out: Path, ledger: Ledger
) -> None:
    """D093, D098: the ledger knows nothing, the disk has nothing."""
    images = daq.add(1, 2)
    told: list[Any] = []
    service = catch_up(serve().endpoint, once=True, observer=lambda what, facts: told.append((what, facts)))
    assert list(service.survey.findings) == []
    for image in images:
        for detector in sorted(DETECTORS):
            assert is_right(image, path_of(out, image, detector), detector)
        row = ledger.images.get(image.base.name)[0]
        assert row.state == "complete"
        assert {each.detector for each in ledger.images.detectors(row.id)} == DETECTORS
        assert {each.state for each in ledger.images.detectors(row.id)} == {"present"}
    assert service.progress.to_dict()["units_done"] == 6
    assert service.progress.files == 18
    assert Counter(what for what, _ in told)["unit"] == 6


def test_only_the_missing_ccds_are_written_and_only_their_boards_read(
    captured: Any, catch_up: Any, out: Path, ledger: Ledger
) -> None:
    """D091: one CCD is gone; its board is read, its file written, and nothing else touched."""
    server, (image,) = captured(1)
    path = path_of(out, image, "R22_S11")
    before = {each: each.stat().st_mtime_ns for each in out.rglob("*.fits")}
    was = path.read_bytes()
    path.unlink()
    read = {where: source.read_bytes for where, source in image.sources.items()}
    service = catch_up(server.endpoint, once=True)
    assert list(service.survey.findings) == []
    assert path.read_bytes() == was, "the same bytes again: its time of creation is kept"
    del before[path]
    assert {each: each.stat().st_mtime_ns for each in before} == before
    again = {where for where, source in image.sources.items() if source.read_bytes > read[where]}
    assert again == {"22/1"}
    assert service.progress.files == 1
    row = ledger.images.get(image.base.name)[0]
    assert row.state == "complete"
    lost = [event for event in ledger.events.of(row.id) if event.thing == "file" and event.new == "lost"]
    assert [event.subject for event in lost] == [str(path)]


def test_a_detector_by_any_of_its_names_is_fetched_alone(
    daq: HandStore, serve: Any, catch_up: Any, out: Path, ledger: Ledger
) -> None:
    """D091, D097: 22/11 is R22_S11, and only its file is written."""
    (image,) = daq.add(1)
    service = catch_up(serve().endpoint, once=True, detectors=["22/11", "r22s20"])
    name = image.base.name
    assert fits_in(out) == {f"{name}_R22_S11.fits", f"{name}_R22_S20.fits"}
    assert is_right(image, path_of(out, image, "R22_S11"), "R22_S11")
    states = {row.location: row.state for row in ledger.images.sources(ledger.images.get(name)[0].id)}
    assert states == {"22/0": "expected", "22/1": "open", "22/2": "open"}
    service.stop()
    catch_up(serve().endpoint, once=True)
    assert len(fits_in(out)) == 9
    assert ledger.images.get(name)[0].state == "complete"


def test_a_damaged_file_is_moved_aside_and_fetched_again(
    captured: Any, catch_up: Any, out: Path, ledger: Ledger
) -> None:
    """The audit told the ledger that the sums of a file do not hold."""
    server, (image,) = captured(1)
    path = path_of(out, image, "R22_S02")
    good = path.read_bytes()
    bad = bytearray(good)
    bad[len(bad) // 2] ^= 1
    path.write_bytes(bad)
    assert ledger.files.verified(str(path), False, "its CRC-32C is another")
    service = catch_up(server.endpoint, once=True)
    assert list(service.survey.findings) == []
    assert path.read_bytes() == good
    (aside,) = path.parent.glob("*.damaged-*")
    assert aside.read_bytes() == bad, "nothing is deleted"
    row = ledger.images.get(image.base.name)[0]
    assert row.state == "complete"
    assert {file.status for file in ledger.files.of(row.id, "raw")} <= {"written", "unchanged"}


def test_a_damaged_file_that_a_forwarder_met_first(
    captured: Any, catch_up: Any, forward: Any, out: Path, ledger: Ledger
) -> None:
    """A forwarder overwrites nothing and leaves a conflict; catching up makes the image whole in the end."""
    server, (image,) = captured(1)
    path = path_of(out, image, "R22_S02")
    good = path.read_bytes()
    path.write_bytes(good[:-2880] + bytes(2880))
    ledger.files.verified(str(path), False, "its CRC-32C is another")
    forwarder = forward(server.endpoint)
    wait_for(lambda: ledger.claims.counts().get("conflict"))
    forwarder.stop()
    service = catch_up(server.endpoint, once=True)
    assert list(service.survey.findings) == []
    assert path.read_bytes() == good
    assert ledger.images.get(image.base.name)[0].state == "complete"


def test_a_file_of_another_size_is_found_without_an_audit(
    captured: Any, catch_up: Any, out: Path, ledger: Ledger
) -> None:
    server, (image,) = captured(1)
    path = path_of(out, image, "R22_S00")
    good = path.read_bytes()
    path.write_bytes(good[:-2880])
    catch_up(server.endpoint, once=True)
    assert path.read_bytes() == good
    assert ledger.images.get(image.base.name)[0].state == "complete"


def test_a_sidecar_that_is_gone_comes_back(captured: Any, catch_up: Any, out: Path) -> None:
    server, (image,) = captured(1)
    sidecar = path_of(out, image, "R22_S00").with_suffix(".json")
    was = sidecar.read_bytes()
    sidecar.unlink()
    service = catch_up(server.endpoint, once=True)
    assert sidecar.read_bytes() == was
    assert list(service.survey.findings) == []


def test_files_that_the_ledger_lost_are_entered_and_not_fetched(
    captured: Any, catch_up: Any, out: Path
) -> None:
    """D093: the ledger is new; what stands whole is entered by its sums, and no pixel is asked for."""
    server, images = captured(1, 2)
    for path in out.glob("ledger.db*"):
        path.unlink()
    read = [source.read_bytes for image in images for source in image.sources.values()]
    service = catch_up(server.endpoint, once=True)
    assert list(service.survey.findings) == []
    assert [source.read_bytes for image in images for source in image.sources.values()] == read
    for image in images:
        assert service.ledger.images.get(image.base.name)[0].state == "complete"


def test_without_a_ledger_daq_and_disk_are_compared(captured: Any, catch_up: Any, out: Path) -> None:
    """D093: no ledger at all."""
    server, images = captured(1, 2)
    for path in out.glob("ledger.db*"):
        path.unlink()
    lost = path_of(out, images[1], "R22_S22")
    lost.unlink()
    service = catch_up(server.endpoint, once=True, ledger="none")
    assert lost.is_file()
    assert service.progress.units_done == 1
    assert list(service.survey.findings) == []
    assert not list(out.glob("ledger.db*"))
    own = service._own_ledger
    service.stop()
    assert not own.exists(), "its own ledger goes with it"


def test_without_a_daq_it_says_what_is_missing(captured: Any, catch_up: Any, out: Path) -> None:
    """D093: no DAQ; ledger and disk are compared, and it is said what is lost."""
    _, (image,) = captured(1)
    path_of(out, image, "R22_S11").unlink()
    service = catch_up("", once=True)
    (finding,) = service.survey.findings
    assert (finding.action, finding.why, finding.detectors) == ("wait", "lost", ("R22_S11",))
    assert "DAQ" in finding.reason


def test_an_archive_that_is_not_there_loses_nothing(
    captured: Any, catch_up: Any, out: Path, ledger: Ledger
) -> None:
    """D093: the disk is not mounted: its files are not lost, and nothing is fetched."""
    server, (image,) = captured(1)
    night = out / "20261122"
    night.rename(out / "elsewhere")
    service = catch_up(server.endpoint)
    wait_for(lambda: service.survey.rounds >= 2)
    row = ledger.images.get(image.base.name)[0]
    assert {file.status for file in ledger.files.of(row.id, "raw")} == {"written"}
    assert {finding.action for finding in service.survey.findings} == {"wait"}
    assert "mounted" in next(iter(service.survey.findings)).reason
    (out / "elsewhere").rename(night)
    wait_for(lambda: not list(service.survey.findings))
    assert service.progress.units_done == 0


def test_by_itself_after_an_outage(daq: HandStore, serve: Any, catch_up: Any, out: Path) -> None:
    """D095: on a timer, at the start, and after the DAQ was away."""
    server = serve(f"tcp://127.0.0.1:{free_port()}")
    endpoint = server.endpoint
    daq.add(1)
    service = catch_up(endpoint, every=60.0)
    wait_for(lambda: len(fits_in(out)) == 9)  # at the start
    server.stop()
    daq.add(2)
    service.look_again()
    wait_for(lambda: not service.survey.daq, timeout=30.0)  # a question waits for 10 s
    assert any("DAQ" in problem for problem in service.problems())
    serve(endpoint)
    wait_for(lambda: len(fits_in(out)) == 18, timeout=30.0)
    assert not service.problems()
    service.reload(msgspec.structs.replace(service.settings, every=0.2))
    daq.add(3)
    wait_for(lambda: len(fits_in(out)) == 27)  # on the timer


def test_a_trial_changes_nothing(captured: Any, catch_up: Any, out: Path, daq: HandStore) -> None:
    server, (image,) = captured(1)
    path_of(out, image, "R22_S11").unlink()
    daq.add(2)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.fits")}
    service = catch_up(server.endpoint, dry=True)
    findings = {(finding.image, finding.location): finding for finding in service.survey.findings}
    assert len(findings) == 4
    assert findings[image.base.name, "22/1"].why == "lost"
    assert totals(service.survey.findings) == {"fetch": 10, "wait": 0, "never": 0}
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.fits")} == before
    with pytest.raises(Exception, match="read"):
        service.ledger.images.announce(None)


def test_live_and_recovered_files_are_equal_but_for_stated_keywords(
    captured: Any, catch_up: Any, out: Path, daq: HandStore, serve: Any, tmp_path: Path
) -> None:
    """D096: date, index, exposure time and all else of a recovered image are those of the live one."""
    server, (image,) = captured(1)
    other = tmp_path / "other"
    other.mkdir()
    catch_up(server.endpoint, out=str(other), once=True)
    stated = {"DATE", "MJD", "CHECKSUM"}
    for detector in sorted(DETECTORS):
        live, late = open_raw(path_of(out, image, detector)), open_raw(path_of(other, image, detector))
        assert list(live.header) == list(late.header)
        differ = {key for key in live.header if live.header[key] != late.header[key]}
        assert differ <= stated
        assert live.header["DATE-TRG"] == late.header["DATE-TRG"]
        assert [live.segment_header(name).text for name in live.segments] == [
            late.segment_header(name).text for name in late.segments
        ]


def test_a_recovered_file_has_the_header_that_the_live_one_had(
    daq: HandStore, serve: Any, forward: Any, catch_up: Any, out: Path, ledger: Ledger
) -> None:
    """D096, D092: the document stands in the archive; with it the same bytes come again."""
    image = daq.make(1)
    name = image.base.name
    records = {"OBSID": name, "IMGTYPE": "OBJECT", "EXPTIME": 30.0, "CURINDEX": 2, "HDRSTATE": "complete"}
    document = out / "20261122" / name / f"{name}_header.yaml"
    document.parent.mkdir(parents=True)
    listed = [{"keyword": key, "value": value, "comment": ""} for key, value in records.items()]
    document.write_text(yaml.safe_dump({"PRIMARY": listed}))
    server = serve()
    forwarder = forward(server.endpoint)
    daq.put(image)
    wait_for(lambda: len(fits_in(out)) == 9 and forwarder.idle)
    forwarder.stop()
    was = {path: path.read_bytes() for path in out.rglob("*.fits")}
    for path in list(was)[::3]:
        path.unlink()
    catch_up(server.endpoint, once=True)
    assert {path: path.read_bytes() for path in out.rglob("*.fits")} == was
    header = open_raw(next(iter(was))).header
    assert (header["EXPTIME"], header["CURINDEX"], header["HDRSTATE"]) == (30.0, 2, "complete")


def test_deliveries_that_were_given_up_on_are_asked_for_again(
    captured: Any, catch_up: Any, out: Path, ledger: Ledger
) -> None:
    """D098: what a destination has not is no less missing than what the disk has not."""
    server, (image,) = captured(1)
    row = ledger.images.get(image.base.name)[0]
    (file, *_) = ledger.files.of(row.id, "raw")
    ledger.deliveries.plan([DeliveryPlan(image_id=row.id, destination="oods", path=file.path)])
    (delivery,) = ledger.deliveries.claim("oods", 1)
    ledger.deliveries.end(delivery, "failed", "the bucket is full")
    catch_up(server.endpoint)
    wait_for(lambda: ledger.deliveries.counts()["oods"] == {"queued": 1})
    (delivery,) = ledger.deliveries.claim("oods", 1)
    ledger.deliveries.end(delivery, "failed", "it is still full")
    time.sleep(1.0)
    assert ledger.deliveries.counts()["oods"] == {"failed": 1}, "not before an hour has passed"


def test_what_is_read_out_or_young_is_left_alone(
    daq: HandStore, serve: Any, catch_up: Any, out: Path
) -> None:
    """D087, F27: an image that is still being written, and one that is younger than the limit."""
    image = daq.make(1)
    image.hold(5 * CHUNK)
    daq.put(image)
    fresh = daq.make(2)
    fresh.base = msgspec.structs.replace(fresh.base, timestamp="")  # nobody knows when; it counts from now
    daq.put(fresh)
    service = catch_up(serve().endpoint, young=1.2)
    wait_for(lambda: service.survey.rounds >= 2)
    assert fits_in(out) == set()
    assert service.progress.units_done == 0
    wait_for(lambda: len(fits_in(out)) == 9)
    assert all("_000002_" in name for name in fits_in(out))
    image.mend()
    wait_for(lambda: len(fits_in(out)) == 18)


def test_a_race_with_a_forwarder_fetches_nothing_twice(
    daq: HandStore, serve: Any, catch_up: Any, forward: Any, out: Path, ledger: Ledger
) -> None:
    """D087: both look at the same images at the same moment; every source is read once."""
    server = serve()
    ready = threading.Barrier(2)

    def more() -> None:
        ready.wait()
        daq.add(*range(1, 13))

    adding = threading.Thread(target=more)
    adding.start()
    forwarder = forward(server.endpoint, sweep=0.1)
    service = catch_up(server.endpoint, every=0.1, give_way=0.0)
    other = catch_up(server.endpoint, every=0.1, give_way=0.0)
    ready.wait()
    adding.join()
    wait_for(lambda: len(fits_in(out)) == 12 * 9, timeout=40.0)
    wait_for(lambda: forwarder.idle and service.idle and other.idle)
    for image in daq.all.values():
        for where, source in image.sources.items():
            assert source.read_bytes == source.base.bytes, f"{image.base.name} {where} was fetched twice"
    attempts = Counter(
        (row.image_id, row.subject)
        for name in daq.all
        for image in ledger.images.get(name)
        for row in ledger.attempts.of(image.id)
        if row.thing == "source"
    )
    assert len(attempts) == 36
    assert set(attempts.values()) == {1}
    assert not list(out.rglob("*.conflict-*"))


def test_stopped_in_the_middle_gives_back_what_it_has(
    daq: HandStore, serve: Any, catch_up: Any, out: Path, ledger: Ledger
) -> None:
    """D088: jobs stand in the ledger; what was begun is open again, and another one ends it."""
    images = daq.add(*range(1, 5))
    server = serve()
    service = catch_up(server.endpoint, bandwidth=100_000, drain=0.0)
    wait_for(lambda: service.in_flight())
    time.sleep(0.2)
    service.stop()
    states = Counter(
        row.state
        for image in images
        for row in ledger.images.sources(ledger.images.get(image.base.name)[0].id)
    )
    assert "claimed" not in states
    catch_up(server.endpoint, once=True)
    assert len(fits_in(out)) == 36
