"""What cannot be had has a reason; strange names are set aside; nothing is fatal or goes on for ever."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from recovery import CHUNK, fits_in, path_of, wait_for

from hand_daq import HandImage, HandStore, name_of
from raftwright.catchup import Selection, Settings
from raftwright.catchup.disk import look, move_aside
from raftwright.catchup.listing import Listed, order_of
from raftwright.catchup.selection import detector_name, since_of
from raftwright.daq import Registers
from raftwright.errors import StorageError, UsageError
from raftwright.ledger import Ledger
from raftwright.rawfile.names import ImageName
from raftwright.stream.faults import Faults, Rule


def renamed(daq: HandStore, number: int, name: str) -> HandImage:
    """An image under a name that is none."""
    image = daq.make(number)
    image.base = msgspec.structs.replace(image.base, name=name)
    daq.put(image)
    return image


@pytest.mark.parametrize(
    "spelled", ["R22_S11", "22/11", "R22S11", "r22_s11", "22_11", " R22 S11 ", "R22/S11", "22.S11"]
)
def test_all_spellings_of_a_detector_are_one(spelled: str) -> None:
    """D097."""
    assert detector_name(spelled) == "R22_S11"


def test_detectors_that_are_no_science_ccds() -> None:
    """D097, D090: guiders and wavefront sensors."""
    assert detector_name("00/SG0") == detector_name("R00_G0") == "R00_SG0"
    assert detector_name("R44SW1") == detector_name("44_w1") == "R44_SW1"
    assert detector_name("something else") == "something else"


def test_since() -> None:
    assert since_of("20261122") == ("20261122", None)
    day, moment = since_of("2026-11-22T03:00:00")
    assert (day, moment) == ("20261120", 1795316400.0)
    assert since_of("3 d", now=86400.0 * 20000)[1] == 86400.0 * 19997
    assert since_of("") == ("", None)
    for wrong in ("20261340", "yesterday", "-3d", "12:30"):
        with pytest.raises(UsageError):
            since_of(wrong)
    with pytest.raises(UsageError):
        Selection.of(images=["../../etc/passwd"])


def test_a_selection_by_time() -> None:
    selection = Selection.of("2026-11-22T03:00:00")
    name = ImageName.parse(name_of(1))
    assert selection.wants(name, 1795316400.0)
    assert not selection.wants(name, 1795316399.0)
    assert selection.wants(name, None), "of unknown time it counts with its night"
    assert not selection.wants(ImageName.parse("CC_S_20261119_000001"), None)
    assert Selection.of("20261123", images=[name_of(1)]).wants(name, None), "asked for by name"


def test_policies() -> None:
    """D089, N14: oldest first, newest first, the sky first."""
    bias = Listed(ImageName.parse("CC_O_20261120_000001"), kind="BIAS")
    sky = Listed(ImageName.parse("CC_O_20261121_000002"), kind="OBJECT")
    new = Listed(ImageName.parse("CC_O_20261122_000001"))
    images = [new, sky, bias]
    assert sorted(images, key=lambda each: each.rank("oldest")) == [bias, sky, new]
    assert sorted(images, key=lambda each: each.rank("newest")) == [new, sky, bias]
    assert sorted(images, key=lambda each: each.rank("priority")) == [sky, new, bias]
    assert order_of(sky, "oldest") == ()


def test_images_come_in_the_order_of_the_policy(daq: HandStore, serve: Any, catch_up: Any) -> None:
    daq.add(*range(1, 7))
    told: list[str] = []
    catch_up(
        serve().endpoint,
        once=True,
        policy="newest",
        units=1,
        observer=lambda what, facts: told.append(facts["image"]) if what == "unit" else None,
    )
    assert told == sorted(told, reverse=True)
    assert len(told) == 18


def test_strange_names_are_set_aside_in_hex_and_shown(
    daq: HandStore, serve: Any, catch_up: Any, out: Path, ledger: Ledger
) -> None:
    """D027, D036, F29: two bad names are two entries, nothing is fatal, and no number is made up."""
    names = ["CC_S_20261122_1", "focus sweep #3", "MC_C_20261332_000001", "CC_S_20261122_000001.bak"]
    for number, name in enumerate(names):
        renamed(daq, 10 + number, name)
    daq.add(5)
    service = catch_up(serve().endpoint)
    wait_for(lambda: len(fits_in(out)) == 9)
    wait_for(lambda: len(list(service.survey.findings)) == 4)
    rows = {bytes.fromhex(row.name_hex).decode(): row for row in ledger.quarantine.all()}
    assert set(rows) == set(names)
    assert all("image name" in row.reason for row in rows.values())
    shown = {finding.image: finding for finding in service.survey.findings}
    assert set(shown) == set(names)
    assert {finding.action for finding in shown.values()} == {"never"}
    rounds = service.survey.rounds
    wait_for(lambda: service.survey.rounds >= rounds + 3)
    assert all(row.count == 1 for row in ledger.quarantine.all()), "said once"


def test_an_image_of_another_camera_or_with_a_bad_description_holds_nobody(
    daq: HandStore, serve: Any, catch_up: Any, out: Path, ledger: Ledger
) -> None:
    """D026, D027: each has its own reason."""
    strange = daq.make(1)
    strange.base = msgspec.structs.replace(strange.base, camera="NoSuchCam")
    daq.put(strange)
    broken = daq.make(2)
    broken.base = msgspec.structs.replace(broken.base, timestamp="yesterday")
    daq.put(broken)
    sick = daq.make(3)
    sick.trouble = StorageError(5, "the disk of the DAQ", "x")
    daq.put(sick)
    daq.add(4)
    service = catch_up(serve().endpoint)
    wait_for(lambda: len(fits_in(out)) == 9)
    wait_for(lambda: len(list(service.survey.findings)) == 3)
    reasons = {finding.image: finding.reason for finding in service.survey.findings}
    assert "NoSuchCam" in reasons[name_of(1)]
    assert "timestamp" in reasons[name_of(2)] or "time" in reasons[name_of(2)]
    assert reasons[name_of(3)]


def test_registers_that_contradict_the_stream_give_no_image_of_another_shape(
    daq: HandStore, serve: Any, catch_up: Any, out: Path, ledger: Ledger
) -> None:
    """D026: geometry unknown; a reason, no file, and the other boards come."""
    image = daq.make(1)
    source = image.sources["22/1"]
    registers = Registers.parse([3, 0, 21, 0, 0, 5, 0, 14, 0, 2, 1])
    source.base = msgspec.structs.replace(source.base, registers=registers)
    daq.put(image)
    service = catch_up(serve().endpoint, once=True)
    assert len(fits_in(out)) == 6
    (finding,) = service.survey.findings
    assert (finding.location, finding.action) == ("22/1", "never")
    assert "geometry" in finding.reason
    row = ledger.images.get(image.base.name)[0]
    sources = {source.location: source for source in ledger.images.sources(row.id)}
    assert (sources["22/1"].state, sources["22/1"].attempts) == ("failed", 1)
    assert "geometry" in sources["22/1"].reason
    assert row.state == "incomplete"
    assert "geometry" in row.reason
    catch_up(serve().endpoint, once=True)
    assert ledger.images.sources(row.id)[1].attempts == 1, "said once, not tried for ever"


def test_a_source_that_no_board_is_known_for(
    daq: HandStore, serve: Any, catch_up: Any, out: Path, ledger: Ledger
) -> None:
    """D090: what the camera does not have is said; what it has comes."""
    image = daq.make(1)
    source = image.sources.pop("22/1")
    source.base = msgspec.structs.replace(source.base, location="77/1", file="77-1.raw")
    image.sources["77/1"] = source
    daq.put(image)
    service = catch_up(serve().endpoint, once=True)
    assert len(fits_in(out)) == 6
    (finding,) = service.survey.findings
    assert (finding.location, finding.action) == ("77/1", "never")


@pytest.mark.parametrize(
    ("camera", "options", "count"),
    [
        ("LATISS", {"rafts": None}, 1),
        ("LSSTCam", {"rafts": ["R00"]}, 4),
    ],
)
def test_expected_sets_are_those_of_the_image(
    daq: HandStore,
    serve: Any,
    catch_up: Any,
    out: Path,
    ledger: Ledger,
    camera: str,
    options: Any,
    count: int,
) -> None:
    """D090, D066: AuxTel has one CCD, a corner raft guiders and wavefront sensors."""
    image = daq.put(daq.make(1, camera=camera, **options))
    catch_up(serve().endpoint, once=True, memory=512 << 20)
    row = ledger.images.get(image.base.name)[0]
    assert row.expected_detectors == count
    assert row.state == "complete"
    assert len(fits_in(out)) == count


def test_what_the_daq_has_no_more_is_lost_with_a_reason(
    captured: Any, catch_up: Any, out: Path, ledger: Ledger, daq: HandStore
) -> None:
    """D098: an image whose file is gone here, and which is gone there."""
    server, (image, other) = captured(1, 2)
    path_of(out, image, "R22_S11").unlink()
    daq.remove(image)
    row = ledger.images.get(image.base.name)[0]
    assert ledger.files.lost(str(path_of(out, image, "R22_S11")), "the audit says so")
    service = catch_up(server.endpoint, once=True)
    (finding,) = service.survey.findings
    assert (finding.image, finding.location, finding.action) == (image.base.name, "22/1", "never")
    assert "no more" in finding.reason
    sources = {source.location: source.state for source in ledger.images.sources(row.id)}
    assert sources == {"22/0": "done", "22/1": "gone", "22/2": "done"}
    assert ledger.images.by_id(row.id).state == "lost"
    service.stop()
    daq.put(other)
    image.removed = False
    daq.put(image)  # found again after all
    catch_up(server.endpoint, once=True)
    assert ledger.images.by_id(row.id).state == "complete"


def test_gaps_that_the_daq_has_for_good_are_not_asked_for_again(
    daq: HandStore, serve: Any, catch_up: Any, out: Path, ledger: Ledger
) -> None:
    """D032, D098: everything that there is was fetched; it is said how much never came."""
    image = daq.make(1)
    image.lose(2 * CHUNK, 3 * CHUNK, "22/1")
    daq.put(image)
    service = catch_up(serve().endpoint, retry=0.05)
    wait_for(lambda: [finding.action for finding in service.survey.findings] == ["never"])
    (finding,) = service.survey.findings
    assert (finding.location, finding.why) == ("22/1", "gaps")
    assert f"lacks {CHUNK} of its" in finding.reason
    asked = image.sources["22/1"].read_bytes
    rounds = service.survey.rounds
    wait_for(lambda: service.survey.rounds > rounds + 3)
    assert image.sources["22/1"].read_bytes == asked
    assert ledger.images.get(image.base.name)[0].state == "incomplete"


def test_gaps_that_close_later_are_repaired(
    daq: HandStore, serve: Any, catch_up: Any, out: Path, ledger: Ledger
) -> None:
    """F21: a board whose data come to the DAQ late."""
    image = daq.make(1)
    image.lose(2 * CHUNK, 3 * CHUNK, "22/1")
    daq.put(image)
    service = catch_up(serve().endpoint, retry=0.05)
    wait_for(lambda: [finding.action for finding in service.survey.findings] == ["never"])
    image.mend()
    service.look_again(image.base.name)
    wait_for(lambda: not list(service.survey.findings))
    assert len(fits_in(out)) == 12, "three files have a second version"
    assert ledger.images.get(image.base.name)[0].state == "complete"


def test_tries_have_an_end_and_a_reason(
    daq: HandStore, serve: Any, catch_up: Any, out: Path, ledger: Ledger
) -> None:
    """D089: bounded retry with pauses that grow; then it is given up, until somebody asks for it by name."""
    (image,) = daq.add(1)
    source = image.sources["22/1"]
    source.crc32c = "00000000"  # never what comes
    service = catch_up(serve().endpoint, retry=0.05, tries=3)
    wait_for(lambda: [finding.action for finding in service.survey.findings] == ["never"])
    (finding,) = service.survey.findings
    assert "given up after 3 attempts" in finding.reason
    assert "CRC" in finding.reason
    row = ledger.images.get(image.base.name)[0]
    attempts = [row for row in ledger.attempts.of(row.id) if row.subject == "22/1"]
    assert len(attempts) == 3
    assert all(row.reason for row in attempts)
    pauses = [b.began_tai - a.ended_tai for a, b in itertools.pairwise(attempts)]
    assert pauses[0] > 0.05
    assert pauses[1] > 0.1
    service.stop()
    source.crc32c = None
    catch_up(serve().endpoint, images=[image.base.name], once=True)
    assert len(fits_in(out)) == 9


def test_a_thousand_jobs_keep_to_the_limits(
    daq: HandStore, serve: Any, catch_up: Any, out: Path, ledger: Ledger
) -> None:
    """D089: so many sources at a time, so many bytes a second, with a counter and a time of arrival."""
    tiny = [3, 0, 2, 0, 0, 1, 0, 1, 0, 1, 1]
    images = [daq.make(n, registers=tiny, camera="LATISS", rafts=None) for n in range(1, 1001)]
    size = sum(source.base.bytes for image in images for source in image.sources.values())
    for image in images:
        daq.put(image)
    rate = size // 3
    begun = time.monotonic()
    service = catch_up(serve().endpoint, units=2, bandwidth=rate, chunk=64 << 10, writers=2)
    most = 0
    etas: list[Any] = []
    while service.progress.units_done < 1000 or not service.idle:
        most = max(most, len(service.in_flight()))
        facts = service.progress.to_dict()
        etas.append(facts["eta_s"])
        done = facts["bytes_done"]
        assert done <= rate * (time.monotonic() - begun + 0.3) + 2 * (64 << 10)
        assert time.monotonic() - begun < 120
        time.sleep(0.05)
    assert most == 2
    assert service.progress.units_done == 1000
    assert any(eta and eta > 0 for eta in etas)
    wait_for(lambda: len(ledger.images.select(states=["complete"], limit=2000)) == 1000)


def test_while_others_work_nothing_is_begun(
    daq: HandStore, serve: Any, catch_up: Any, forward: Any, out: Path, tmp_path: Path
) -> None:
    """N14: a forwarder has an image in hand; catching up waits, and has its turn at last."""
    server = serve()
    live = daq.make(1)
    live.hold(CHUNK)
    forwarder = forward(server.endpoint, deadline=30.0)
    daq.put(live)
    wait_for(lambda: forwarder.schedule.in_hand() == 3)
    forwarder.lookout.stop()  # it does not see what comes now
    daq.add(2)
    service = catch_up(server.endpoint, give_way=1.5)
    wait_for(lambda: service.engine.schedule.waiting() == 3 and service.meter.quiet)
    begun = time.monotonic()
    time.sleep(0.5)
    assert not service.in_flight()
    wait_for(lambda: len(fits_in(out)) >= 3)
    assert time.monotonic() - begun > 0.8, "it gave way for long enough, then one went on"
    live.mend()
    wait_for(lambda: len(fits_in(out)) == 18)
    assert not service.meter.quiet


def test_faults_on_the_way_end_in_whole_files(
    daq: HandStore, serve: Any, catch_up: Any, out: Path, ledger: Ledger
) -> None:
    """D098: chunks lost, doubled, damaged; and slices of a metered receiver are put together all the same."""
    images = daq.add(*range(1, 5))
    kinds = {"drop": 0.05, "duplicate": 0.05, "corrupt": 0.05, "reorder": 0.1}
    faults = Faults(tuple(Rule(kind, chance) for kind, chance in kinds.items()), seed=3)
    server = serve(faults=faults)
    service = catch_up(server.endpoint, bandwidth=2_000_000, chunk=8 << 10)
    wait_for(lambda: len(fits_in(out)) == 36 and service.idle, timeout=60.0)
    for image in images:
        row = ledger.images.get(image.base.name)[0]
        assert {each.missing for each in ledger.files.of(row.id, "raw") if not each.replaced_by} == {0}


def test_a_ledger_that_is_locked_is_waited_for(
    daq: HandStore, serve: Any, catch_up: Any, out: Path, ledger: Ledger
) -> None:
    """D093: while the ledger does not answer nothing is fetched; it is said, and it goes on by itself."""
    import sqlite3

    server = serve()
    service = catch_up(server.endpoint)
    wait_for(lambda: service.survey.rounds)
    other = sqlite3.connect(out / "ledger.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    daq.add(*range(1, 8))
    wait_for(lambda: service.problems(), timeout=30.0)
    assert fits_in(out) == set()
    other.execute("ROLLBACK")
    other.close()
    wait_for(lambda: len(fits_in(out)) == 63, timeout=30.0)
    wait_for(lambda: not service.problems(), timeout=30.0)


def test_a_directory_that_cannot_be_read_holds_nobody_else(
    daq: HandStore, serve: Any, catch_up: Any, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = daq.add(1, 2)
    bad = path_of(out, images[0], "R22_S00").parent
    scan = os.scandir

    def refuse(path: Any = ".") -> Any:
        if Path(path) == bad:
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr("raftwright.catchup.disk.os.scandir", refuse)
    service = catch_up(serve().endpoint)
    wait_for(lambda: len(fits_in(out)) == 9)
    (finding,) = wait_for(lambda: [each for each in service.survey.findings if each.action == "never"])
    assert finding.image == images[0].base.name
    assert "Permission denied" in finding.reason


def test_what_was_whole_is_looked_at_without_asking_the_daq(
    captured: Any, catch_up: Any, daq: HandStore, out: Path
) -> None:
    server, (image,) = captured(1)
    service = catch_up(server.endpoint, whole=0.2)
    wait_for(lambda: service.survey.rounds >= 3)
    asked = daq.asked[image.base.name]
    looked = service.survey.looked
    wait_for(lambda: service.survey.looked >= looked + 3)
    assert daq.asked[image.base.name] == asked
    path_of(out, image, "R22_S11").unlink()
    wait_for(lambda: len(fits_in(out)) == 9)


def test_moving_aside_never_moves_a_good_file(tmp_path: Path) -> None:
    from raftwright.rawfile.standing import digest

    path = tmp_path / "x.fits"
    path.write_bytes(b"good")
    assert move_aside(path, digest(path).crc32c) is None
    assert path.exists()
    first = move_aside(path, "00000000")
    path.write_bytes(b"good")
    second = move_aside(path, "00000000")
    assert first is not None
    assert second is not None
    assert first != second
    assert move_aside(path, "00000000") is None
    assert len(list(tmp_path.iterdir())) == 2
    name = ImageName.parse(name_of(1))
    assert look(tmp_path, name) == {}
    directory = tmp_path / name.dayobs / str(name)
    directory.mkdir(parents=True)
    (directory / "a").write_bytes(b"12")
    os.mkfifo(directory / "b")
    (directory / "c").symlink_to("nowhere")
    assert look(tmp_path, name) == {"a": 2}


def test_unknown_settings_are_refused() -> None:
    """D094."""
    with pytest.raises(msgspec.ValidationError, match="expiry"):
        msgspec.convert({"out": "x", "expiry": 20160}, Settings)
    assert Settings(out="/a").ledger_url == "/a/ledger.db"
    assert Settings(out="/a", ledger="none").ledger_url == ""
