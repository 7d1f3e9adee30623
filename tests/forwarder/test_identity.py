"""What belongs together is known by name: images, boards, folders, however they are announced or spelled."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stand import ROW, Forward, Serve, check_archive, fits_in, rows_of, states_of, units_of, wait_for

import raftwright
from hand_daq import HandStore, name_of
from raftwright.camera import camera as find_camera
from raftwright.daq import Notice, open_recording
from raftwright.daq.info import describe
from raftwright.errors import NotFoundError, RaftwrightError
from raftwright.ledger import open_ledger
from raftwright.rawfile.names import ImageName, image_directory, raw_file_name, sidecar_path
from raftwright.stream import NetworkStore


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(odd=st.text(max_size=80) | st.sampled_from(["22/0", "../../etc", "22/0\0", "/\n", "R22", "raw"]))
def test_strange_partitions_folders_and_locations_are_refused(odd: str) -> None:
    """D001: compared with the profile; a typed error with the text in it, shortened, and nothing else."""
    camera = find_camera("LSSTComCam")
    known = {"22/0", "22/1", "22/2"}
    for ask in (camera.board, camera.raft, find_camera):
        try:
            ask(odd)
        except RaftwrightError as error:
            assert str(error).isprintable()
            assert len(str(error)) < 2000
        else:
            assert odd in {*known, "R22"}


@pytest.mark.parametrize("odd", ["", "a/b", "..", "x" * 3000, "raw\0", "\ud800", "R99", "99/9", "*"])
def test_a_server_that_is_asked_for_what_cannot_be_lives(daq: HandStore, serve: Serve, odd: str) -> None:
    """D001: folder, image and location; compared with the catalogue."""
    daq.add(1)
    with NetworkStore(serve().endpoint) as store:
        if odd:
            assert store.images(odd) == []
        with pytest.raises(RaftwrightError):
            store.image(odd)
        with pytest.raises(NotFoundError):
            store.image(name_of(1)).source(odd)
        assert store.images() == [name_of(1)], "it lives"


def test_boards_that_the_camera_has_not_are_said_and_no_crash(
    daq: HandStore, serve: Serve, forward: Forward, out: Path
) -> None:
    """D001: a forwarder for boards that there are not takes nothing, and says why."""
    forwarder = forward(serve().endpoint, locations=["22/0", "99/9"])
    daq.add(1)
    wait_for(lambda: any("99/9" in problem for problem in forwarder.problems()))
    assert forwarder.phase == "running"
    assert fits_in(out) == set()


def test_stale_doubled_and_swapped_notices_change_no_identity(
    daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path
) -> None:
    """D002, F25: every image ends under its own name, once, whatever is announced and when."""
    forward(serve().endpoint)
    daq.add(1, 2)
    wait_for(lambda: states_of(ledger) == {"done": 6})
    slow, quick = daq.make(3), daq.make(4)
    slow.hold(5 * ROW)
    daq.put(slow)
    notices = [
        Notice(kind, name_of(number))  # type: ignore[arg-type]
        for kind in ("begun", "complete", "progress")
        for number in (1, 2, 3, 4, 99)
        for _ in range(3)
    ]
    random.Random(7).shuffle(notices)
    for notice in notices:
        daq.events.put(notice)
    daq.events.put(Notice("complete", name_of(3)))  # it is not
    daq.put(quick)
    wait_for(lambda: states_of(ledger) == {"done": 9, "claimed": 3})
    for notice in notices:
        daq.events.put(notice)
    time.sleep(0.3)
    assert not any(name_of(3) in path.name for path in fits_in(out)), "announced is not complete"
    slow.mend()
    wait_for(lambda: states_of(ledger) == {"done": 12})
    assert len(check_archive(out, ledger, daq.all)) == 36
    for image in daq.all.values():
        assert {source.read_bytes for source in image.sources.values()} == {16 * ROW}, "once"


@given(st.permutations(range(6)), st.sampled_from(["MC_O_20261122_000123", "AT_C_20240229_000001"]))
@settings(max_examples=20)
def test_names_are_functions_of_what_they_name(order: list[int], text: str) -> None:
    """D035: any order of calls, any repetition: the same, and nothing that was given is another after it."""
    name = ImageName.parse(text)
    calls: list[Any] = [
        lambda: raw_file_name(name, "R22", "S11"),
        lambda: raw_file_name(name, "R22", "S12", 2),
        lambda: image_directory(Path("/a"), name),
        lambda: sidecar_path(Path("/a") / raw_file_name(name, "R22", "S11")),
        lambda: str(name),
        lambda: ImageName.parse(text),
    ]
    usual = [call() for call in calls]
    for n in [*order, *reversed(order)]:
        assert calls[n]() == usual[n]
    assert name == ImageName.parse(text)


def test_boards_of_different_platforms_are_named(
    daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path
) -> None:
    """D038: no platform is taken for that of all; each file has its board's, and it is said which differ."""
    forwarder = forward(serve().endpoint)
    image = daq.make(1)
    for location, platform in (("22/0", "7.1"), ("22/1", "7.1"), ("22/2", "6.9")):
        source = image.sources[location]
        source.base = msgspec.structs.replace(source.base, platform=platform)
    daq.put(image)
    wait_for(lambda: states_of(ledger) == {"done": 3})
    (said,) = forwarder.problems()
    assert "6.9 on 22/2" in said
    assert "7.1 on 22/0, 22/1" in said
    found = {path.stem[-7:]: raftwright.open_raw(path).header["PLATFORM"] for path in fits_in(out)}
    assert {detector: platform for detector, platform in found.items() if platform == "6.9"} == {
        f"R22_S2{n}": "6.9" for n in range(3)
    }
    daq.add(2)
    wait_for(lambda: states_of(ledger) == {"done": 6})
    wait_for(lambda: not forwarder.problems())


def test_a_fetch_that_hangs_holds_up_nobody(
    daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path
) -> None:
    """D004: with one receiver, the next image is taken on and written, health is told, within a second."""
    forwarder = forward(serve().endpoint, receivers=1, writers=1)
    hanging = daq.make(1)
    hanging.hold(3 * ROW)
    daq.put(hanging)
    wait_for(lambda: states_of(ledger) == {"claimed": 3})
    begun = time.monotonic()
    daq.add(2)
    wait_for(lambda: sum(unit.state == "done" for unit in units_of(ledger).values()) == 3)
    assert time.monotonic() - begun < 1.0
    begun = time.monotonic()
    assert forwarder.status()["in_hand"] == 3
    assert time.monotonic() - begun < 1.0
    hanging.mend()
    wait_for(lambda: states_of(ledger) == {"done": 6})


def test_every_source_is_read_once_for_files_and_for_all_who_watch(
    daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path, pool: str
) -> None:
    """D030: two readers of pixels and the writer of files, one reading of the DAQ."""
    forwarder = forward(serve().endpoint, prompt=pool, prompt_memory=32 << 20)
    watches = [raftwright.watch(pool, timeout=10.0) for _ in range(2)]
    (image,) = daq.add(1)
    seen = [sorted(next(watch).name for _ in range(9)) for watch in watches]
    wait_for(lambda: states_of(ledger) == {"done": 3})
    assert seen[0] == seen[1] == sorted({row.detector for row in rows_of(ledger)})
    assert {source.read_bytes for source in image.sources.values()} == {16 * ROW}
    assert forwarder.schedule.in_hand() == 0


class Broken:
    """A publisher with a bug."""

    def publish(self, kind: str, **fields: Any) -> None:
        raise RuntimeError("nobody thought of this")

    def close(self) -> None:
        """Nothing is open."""


def test_no_event_that_cannot_be_told_costs_a_file(
    daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D161: whatever telling fails with, files are written, memory is free again, the next image comes."""
    monkeypatch.setattr("raftwright.forwarder.service.Forwarder._open_publisher", lambda self: Broken())
    forwarder = forward(serve().endpoint)
    daq.add(1, 2, 3)
    wait_for(lambda: states_of(ledger) == {"done": 9})
    check_archive(out, ledger, daq.all)
    wait_for(lambda: forwarder.schedule.used == 0)
    assert forwarder.idle or wait_for(lambda: forwarder.idle)


WRONG: dict[str, Any] = {
    "wrong": [3, 0, 21, 0, 0, 5, 0, 14, 0, 2, 1],
    "absent": None,
    "null": [None],
    "empty": [[]],
    "zeros": [0] * 11,
    "the nine of before": [0, 20, 0, 0, 5, 0, 14, 0, 2],
    "no numbers": ["3", "0"] * 5,
}


@pytest.mark.parametrize("how", WRONG)
def test_a_stream_that_cannot_be_decoded_is_kept_as_it_came(
    how: str,
    daq: HandStore,
    serve: Serve,
    forward: Forward,
    out: Path,
    ledger: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """D026, F30: registers that are wrong or absent cost no other board. No shape is made up; the stream
    outlives the DAQ's, and is files once registers are right."""
    image = daq.make(1)
    source = image.sources["22/1"]
    right = source.base.registers

    def tell(info: Any) -> dict[str, Any]:
        told = describe(info)
        for entry in told["sources"]:
            if entry["location"] == "22/1":
                del entry["registers"]
                if WRONG[how] is not None:
                    entry["registers"] = WRONG[how] if len(WRONG[how]) > 1 else WRONG[how][0]
        return told

    monkeypatch.setattr("raftwright.stream.control.describe", tell)
    daq.put(image)
    forwarder = forward(serve().endpoint)
    place = out / ".undecoded" / "22-1" / name_of(1)
    wait_for(place.exists)
    wait_for(lambda: states_of(ledger) == {"done": 2})
    assert len(fits_in(out)) == 6
    kept = open_recording(place)
    assert kept.info.locations == ("22/1",)
    assert kept.source("22/1").read(0, 16 * ROW) == source.data
    with open_ledger(ledger, read_only=True) as opened:
        (row,) = wait_for(lambda: [row for row in opened.quarantine.all() if row.what == "stream"])
    assert row.shown == f"{name_of(1)} 22/1"
    assert str(place) in row.reason
    assert "registers" in forwarder.lookout.strange[f"{name_of(1)} 22/1"]
    read = source.read_bytes
    forwarder.lookout.look_again(name_of(1))
    swept = forwarder.lookout.swept
    wait_for(lambda: forwarder.lookout.swept > swept)
    assert source.read_bytes == read, "once"
    daq.remove(image)
    mended = json.loads((place / "image.json").read_text())
    mended["sources"][0]["registers"] = right.as_list()
    (place / "image.json").write_text(json.dumps(mended))
    report = raftwright.rawfile.write_image(place, out.parent / "mended", durable=False)
    assert [file.detector for file in report.files] == [f"R22_S1{n}" for n in range(3)]
    truth = raftwright.assemble(image.simulated, threads=1)
    for file in report.files:
        raw = raftwright.open_raw(file.path)
        for segment, pixels in raw.segments.items():
            assert (pixels == truth[file.detector].segments[segment]).all()


def test_no_file_waits_for_a_clock(
    daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path
) -> None:
    """D078, D082: a file costs less than 50 ms in all; who has nothing to do needs less than 2 % of a CPU."""
    forwarder = forward(serve(heartbeat=5.0).endpoint, sweep=5.0, header_wait=None)
    wait_for(lambda: forwarder.idle)
    begun = time.monotonic()
    daq.add(*range(1, 13))
    wait_for(lambda: states_of(ledger) == {"done": 36}, 20)
    assert (time.monotonic() - begun) / 108 < 0.05
    wait_for(lambda: forwarder.idle)
    time.sleep(1.0)
    used, begun = time.process_time(), time.monotonic()
    time.sleep(4.0)
    share = (time.process_time() - used) / (time.monotonic() - begun)
    assert share < 0.02, f"{share:.1%} of a CPU for nothing"


def test_no_process_is_started_for_an_image(
    daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D178."""

    def refuse(*args: Any, **more: Any) -> Any:
        raise AssertionError("a process was started")

    forward(serve().endpoint, header_wait=None)
    for where, name in (("subprocess", "Popen"), ("os", "fork"), ("os", "posix_spawn"), ("os", "system")):
        monkeypatch.setattr(f"{where}.{name}", refuse)
    daq.add(1, 2)
    wait_for(lambda: states_of(ledger) == {"done": 6})
    check_archive(out, ledger, daq.all)
