"""The service as a whole: events in, documents and announcements out."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from observatory import Observatory, Process, Serve, names_in, values_of, wait_for, write_event

from hand_daq import HandStore
from raftwright.events import Event, open_publisher, open_subscriber
from raftwright.header import fetch_header, header_spec
from raftwright.header.service import HeaderService
from raftwright.header.simulated import Faults
from raftwright.header.telemetry import Settings as TelemetrySettings
from raftwright.header.telemetry import TelemetrySimulator
from raftwright.ledger.ledger import open_ledger
from raftwright.rawfile import times
from raftwright.rawfile.makers import HeaderMakers
from raftwright.service.base import Life
from raftwright.service.states import State
from raftwright.stream.server import Server

COMCAM = Observatory()
KINDS = ("startIntegration", "startReadout", "endReadout", "endOfImageTelemetry")


class Listener:
    """Hears what is announced."""

    def __init__(self, url: str) -> None:
        self.events: list[Event] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._listen, args=(url,), daemon=True)
        self._thread.start()

    def _listen(self, url: str) -> None:
        with open_subscriber(url) as subscriber:
            while not self._end.is_set():
                self.events += list(subscriber.events(timeout=0.05))

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event.kind == kind]

    def close(self) -> None:
        self._end.set()
        self._thread.join(5.0)


def put(directory: Path, number: int, *kinds: str, **changes: Any) -> str:
    """Puts telemetry and events of an image into the directory."""
    exposure = COMCAM.exposure(number)
    directory.mkdir(exist_ok=True)
    lines = [
        json.dumps({"kind": "telemetry", "fields": {"topic": topic, **fields}})
        for topic, fields in COMCAM.simulated.telemetry(exposure)
    ]
    with (directory / "telemetry.jsonl").open("a") as file:
        file.write("\n".join(lines) + "\n")
    time.sleep(0.15)
    events = COMCAM.events(exposure)
    for kind in kinds or KINDS:
        fields = {**events[kind], **(changes if kind == "endOfImageTelemetry" else {})}
        write_event(directory, f"{exposure.name}-{kind}-{len(os.listdir(directory))}", kind, fields)
    return str(exposure.name)


def path_of(archive: Path, obsid: str, version: int = 1) -> Path:
    tail = "" if version == 1 else f".v{version}"
    return archive / obsid.split("_")[2] / obsid / f"{obsid}_header{tail}.yaml"


def test_from_files_to_a_document(serve: Serve, tmp_path: Path) -> None:
    service = serve()
    obsid = put(tmp_path / "in", 1)
    path = path_of(tmp_path / "arc", obsid)
    wait_for(path.exists)
    values = values_of(path)
    assert (values["OBSID"], values["HDRSTATE"]) == (obsid, "complete")
    assert "HDRLACKS" not in values
    wait_for(lambda: service.announcer.announced)
    wait_for(lambda: len(names_in(tmp_path / "in" / "taken")) == 4)
    assert service.status()["recent"][0]["obsid"] == obsid
    assert service.problems() == []
    assert service.idle


def test_files_that_are_none_are_set_aside(serve: Serve, tmp_path: Path) -> None:
    """F65, F33: one bad file among good ones; NaN as Python writes it."""
    directory = tmp_path / "in"
    directory.mkdir()
    (directory / "a.json").write_text('{"kind": "startIntegration"}')
    (directory / "b.json").write_text('{"kind": "imageStored", "fields": {}}')
    (directory / "c.json").write_text("[1]")
    (directory / "d.json").write_text('{"kind": "endReadout", "fields": {"imageName": "../x"}}')
    (directory / "e.json").write_bytes(b"x" * 300_000)
    (directory / "f.jsonl").write_text('{"kind": "telemetry", "fields": {"topic": 7}}\nnonsense\n{"half a')
    service = serve()
    wait_for(lambda: len(names_in(directory / "refused")) == 5)
    dead = tmp_path / "arc" / ".header" / "dead"
    wait_for(lambda: len(names_in(dead)) == 7)
    obsid = put(directory, 1, measuredShutterOpenTime=float("nan"))
    path = path_of(tmp_path / "arc", obsid)
    wait_for(path.exists)
    assert values_of(path)["SHUTTIME"] is None
    assert values_of(path)["HDRLACKS"] == "SHUTTIME"
    assert service.status()["recent"][0]["lacking"] == ["SHUTTIME"]
    assert (directory / "f.jsonl").exists()


def test_announcements_say_size_and_digest_and_the_door_serves_it(serve: Serve, tmp_path: Path) -> None:
    """§6: largeFileObjectAvailable with size and MD5; D109 on the reader's side."""
    service = serve(events="tcp://127.0.0.1:*", door="127.0.0.1:0")
    assert service.publisher is not None
    listener = Listener(service.publisher.endpoint)
    wait_for(lambda: service.publisher is not None)
    time.sleep(0.3)
    try:
        obsid = put(tmp_path / "in", 1)
        (large,) = wait_for(lambda: listener.of("largeFileObjectAvailable"))
        (ready,) = wait_for(lambda: listener.of("headerReady"))
        data = path_of(tmp_path / "arc", obsid).read_bytes()
        assert (large["id"], large["mimeType"], large["version"]) == (obsid, "YAML", 1.0)
        assert fetch_header(large["url"], large["byteSize"], large["checkSum"], 5.0) == data
        assert (ready["obsid"], ready["version"], ready["partial"], ready["lacking"]) == (obsid, 1, False, [])
        assert ready["path"] == str(path_of(tmp_path / "arc", obsid))
        put(tmp_path / "in", 1, "endOfImageTelemetry", darkTime=15.75)
        wait_for(lambda: len(listener.of("headerReady")) == 2)
        second = listener.of("largeFileObjectAvailable")[1]
        assert second["url"].endswith(f"/{obsid}.v2.yaml")
        newest = fetch_header(second["url"], second["byteSize"], second["checkSum"], 5.0)
        assert values_of(newest)["DARKTIME"] == 15.75
        assert fetch_header(large["url"], large["byteSize"], large["checkSum"], 5.0) == data
        assert service.door is not None
        assert fetch_header(f"{service.door.url}/{obsid}.yaml") == newest
        for wrong in ("/../../etc/passwd", "/CC_O_20261122_000099.yaml", f"/{obsid}.v0.yaml", f"/{obsid}"):
            assert service.door.answer(wrong)[0] == 404
    finally:
        listener.close()


@pytest.mark.parametrize("late", [True, False], ids=["late", "never"])
def test_at_the_deadline_it_is_partial_flagged_and_told(serve: Serve, tmp_path: Path, late: bool) -> None:
    """D104, F31, F32."""
    service = serve(deadline=0.5, events="tcp://127.0.0.1:*")
    assert service.publisher is not None
    listener = Listener(service.publisher.endpoint)
    time.sleep(0.3)
    try:
        obsid = put(tmp_path / "in", 1, *KINDS[:3])
        path = path_of(tmp_path / "arc", obsid)
        wait_for(path.exists)
        values = values_of(path)
        assert values["HDRSTATE"] == "partial"
        assert values["HDRLACKS"] == "DARKTIME SHUTTIME" or values["HDRLACKS"] == "SHUTTIME DARKTIME"
        (first,) = wait_for(lambda: listener.of("headerReady"))
        assert first["partial"] is True
        assert set(first["lacking"]) == {"SHUTTIME", "DARKTIME"}
        if late:
            put(tmp_path / "in", 1, "endOfImageTelemetry")
            wait_for(path_of(tmp_path / "arc", obsid, 2).exists)
            assert values_of(path_of(tmp_path / "arc", obsid, 2))["HDRSTATE"] == "complete"
            wait_for(lambda: len(listener.of("headerReady")) == 2)
            assert listener.of("headerReady")[1]["partial"] is False
        assert values_of(path)["HDRSTATE"] == "partial"
    finally:
        listener.close()


def test_an_end_with_the_name_of_another_image(serve: Serve, tmp_path: Path) -> None:
    """The header of the image is partial at the deadline, nothing is made for the other name."""
    service = serve(deadline=0.4)
    obsid = put(tmp_path / "in", 1, imageName="CC_O_20261122_000777")
    wait_for(path_of(tmp_path / "arc", obsid).exists)
    assert values_of(path_of(tmp_path / "arc", obsid))["HDRSTATE"] == "partial"
    wait_for(lambda: service.collector.counts["end_without_start"] == 1)
    assert not (tmp_path / "arc" / "20261122" / "CC_O_20261122_000777").exists()


def test_an_archive_that_refuses_is_tried_again(serve: Serve, tmp_path: Path) -> None:
    """D107: no FAULT; the header is kept, and stored when the archive is back."""
    service = serve(journal=str(tmp_path / "journal"))
    (tmp_path / "arc" / "20261122").write_text("in the way")
    obsid = put(tmp_path / "in", 1)
    wait_for(service.problems)
    assert "is not stored yet" in service.problems()[0]
    assert service.state is State.ENABLED
    assert service.illness() == []
    (tmp_path / "arc" / "20261122").unlink()
    wait_for(path_of(tmp_path / "arc", obsid).exists)
    wait_for(lambda: not service.problems())


def test_the_ledger_knows_the_header_and_what_it_says(serve: Serve, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    service = serve(ledger=url)
    obsid = put(tmp_path / "in", 1)
    wait_for(lambda: service.announcer.announced)
    put(tmp_path / "in", 1, "endOfImageTelemetry", darkTime=15.75)
    wait_for(lambda: service.announcer.announced == 2)
    ledger = open_ledger(url)
    try:
        first, second = ledger.headers.of(obsid)
        assert (first.version, first.state, first.path) == (
            1,
            "complete",
            str(path_of(tmp_path / "arc", obsid)),
        )
        assert first.bytes == path_of(tmp_path / "arc", obsid).stat().st_size
        assert second.version == 2
        assert any("came twice" in problem for problem in second.problems)
        ((told,),) = ledger.read("SELECT facts FROM early WHERE obsid = ?", (obsid,))
        assert json.loads(told)["cur_index"] == 1
    finally:
        ledger.close()


class Log:
    """A ledger that fails at first."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.entered: list[tuple[str, int]] = []

    def enter(self, stored: Any) -> None:
        from raftwright.errors import StorageError

        if self.failures:
            self.failures -= 1
            raise StorageError(5, "the ledger is locked", "ledger.db")
        self.entered.append((str(stored.header.name), stored.version))

    def close(self) -> None:
        pass


def test_a_ledger_that_fails_is_tried_again_before_it_is_announced(serve: Serve, tmp_path: Path) -> None:
    log = Log(2)
    service = serve(log=log)
    obsid = put(tmp_path / "in", 1)
    wait_for(path_of(tmp_path / "arc", obsid).exists)
    assert service.announcer.announced == 0
    wait_for(lambda: service.announcer.announced == 1)
    assert log.entered == [(obsid, 1)]


def test_in_standby_it_collects_and_stores_and_announces_later(serve: Serve, tmp_path: Path) -> None:
    service = serve(life=Life(initial=State.STANDBY))
    obsid = put(tmp_path / "in", 1)
    wait_for(path_of(tmp_path / "arc", obsid).exists)
    wait_for(lambda: service.announcer.waiting == 1)
    service.command("start")
    service.command("enable")
    wait_for(lambda: service.announcer.announced == 1)


def test_it_ends_and_begins_again_on_the_same_ports(serve: Serve, tmp_path: Path) -> None:
    """D108."""
    first = serve(events="tcp://127.0.0.1:*", door="127.0.0.1:0")
    assert first.publisher is not None
    assert first.door is not None
    addresses = {"events": first.publisher.endpoint, "door": first.door.url.removeprefix("http://")}
    put(tmp_path / "in", 1, *KINDS[:2])
    wait_for(lambda: len(first.collector) == 1)
    before = threading.active_count()
    first.stop()
    assert threading.active_count() < before
    second = serve(**addresses)
    assert second.recovered_images == 1
    obsid = put(tmp_path / "in", 1, *KINDS[2:])
    wait_for(path_of(tmp_path / "arc", obsid).exists)
    assert values_of(path_of(tmp_path / "arc", obsid))["HDRSTATE"] == "complete"


def test_from_publishers_with_every_fault(serve: Serve, tmp_path: Path) -> None:
    """Simulated telemetry of 20 images with faults: each has a header, and none is taken for another's."""
    faults = Faults(
        late=0.2, late_by=0.6, never=0.15, twice=0.2, doubled=0.3, nan=0.2, wrong_name=0.1, out_of_range=0.2,
        lost=0.2, shuffled=0.3,
    )  # fmt: skip
    simulator = TelemetrySimulator(
        TelemetrySettings(spec="LSSTComCam", faults=faults, every=0.08, readout=0.04, images=20, exposure=1.0)
    )
    with open_publisher("tcp://127.0.0.1:*") as stand_in:
        endpoint = stand_in.endpoint
    simulator.settings = TelemetrySettings(**{**_fields(simulator.settings), "events": endpoint})
    service = serve(listen=[endpoint], deadline=1.2)
    time.sleep(0.3)
    with simulator:
        archive = tmp_path / "arc" / "20261122"
        wait_for(lambda: archive.exists() and len(os.listdir(archive)) == 20, 20.0)
        wait_for(lambda: service.idle and not simulator.in_flight(), 20.0)
    simulated = simulator.simulated
    for directory in sorted(archive.iterdir()):
        exposure = simulated.exposure(directory.name)
        documents = sorted(directory.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        values = values_of(documents[-1])
        assert values["OBSID"] == directory.name
        assert values["SEQNUM"] == exposure.name.seqnum
        assert values["GROUPID"].startswith("2026-11-22T12:")
        ended = any(
            told.kind == "endOfImageTelemetry" and told.fields["imageName"] == directory.name
            for told in simulated.after(exposure)
        )
        assert values["HDRSTATE"] == ("complete" if ended else "partial"), directory.name
        twice = [t.fields["darkTime"] for t in simulated.after(exposure) if t.kind == "endOfImageTelemetry"]
        if ended:
            assert values["DARKTIME"] == twice[-1]
    assert service.longest_lag < 0.5


def _fields(settings: Any) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.__struct_fields__}


def test_new_times_of_waiting_are_taken_while_it_runs(serve: Serve, tmp_path: Path) -> None:
    from raftwright.errors import UsageError

    service = serve()
    service.reload(msgspec.structs.replace(service.settings, deadline=5.0))
    assert service.collector.limits.deadline == 5.0
    with pytest.raises(UsageError, match=r"header\.archive cannot change"):
        service.reload(msgspec.structs.replace(service.settings, archive="/elsewhere"))


@pytest.mark.parametrize("moment", [KINDS[0], KINDS[2], KINDS[3], "stored"])
def test_killed_in_mid_exposure_nothing_is_lost(
    program: Callable[..., Process], tmp_path: Path, moment: str
) -> None:
    """F13: SIGKILL after each event; the next one goes on, and one final document comes of it."""
    command = ("header", "run", "--archive", "arc", "--spec", "LSSTComCam", "--directory", "in")
    first = program(*command)
    first.until("ready")
    kinds = KINDS[: KINDS.index(moment) + 1] if moment in KINDS else KINDS
    obsid = put(tmp_path / "in", 1, *kinds)
    if moment == "stored":
        first.until("header")
    else:
        wait_for(lambda: len(names_in(tmp_path / "in" / "taken")) == len(kinds))
    first.kill()
    shutil.rmtree(tmp_path / "in" / "taken")
    second = program(*command)
    assert second.until("ready")["recovered"] in (0, 1)
    left = KINDS[len(kinds) :]
    for kind in left:
        write_event(tmp_path / "in", f"late-{kind}", kind, COMCAM.events(COMCAM.exposure(1))[kind])
    path = path_of(tmp_path / "arc", obsid)
    wait_for(path.exists)
    if left:
        assert second.until("header")["state"] == "complete"
    assert second.end() == 0
    values = values_of(path)
    assert (values["HDRSTATE"], values["HDRVERS"]) == ("complete", 1)
    assert values["AZSTART"] == pytest.approx(120.0)
    assert "HDRLACKS" not in values
    assert os.listdir(path.parent) == [path.name]


def test_what_cannot_be_is_refused_at_the_start(tmp_path: Path) -> None:
    from raftwright.errors import NotFoundError, RaftwrightError
    from raftwright.header.settings import Settings

    with pytest.raises(NotFoundError):
        HeaderService(Settings(archive=str(tmp_path), spec="Nobody")).start()
    (tmp_path / "file").write_text("")
    with pytest.raises(RaftwrightError):
        HeaderService(Settings(archive=str(tmp_path / "file"), spec="LATISS")).start()
    with pytest.raises(RaftwrightError):
        HeaderService(Settings(archive=str(tmp_path / "a"), spec="LATISS", door="nowhere")).start()
    assert header_spec("LATISS").camera.name == "LATISS"


def test_it_says_that_it_lives_to_those_who_may_wait(serve: Serve, tmp_path: Path) -> None:
    """Whoever writes raw files into this archive knows at once, and knows the end."""
    sign = tmp_path / "arc" / ".header" / "alive.CC"
    service = serve()
    assert HeaderMakers(tmp_path / "arc").known("CC")
    assert not HeaderMakers(tmp_path / "arc").known("MC")
    was = sign.stat().st_mtime_ns
    service._sign()
    assert sign.stat().st_mtime_ns > was
    shutil.rmtree(sign.parent)
    (tmp_path / "arc" / ".header").write_text("in the way")
    service._sign()
    assert "headers are made here" in " ".join(service.problems())
    sign.parent.unlink()
    service._sign()
    assert service.problems() == []
    service.stop()
    assert not sign.exists()


def test_an_image_of_which_no_event_comes_has_a_header_of_what_the_daq_knows(
    serve: Serve, tmp_path: Path
) -> None:
    """D104: one that was read out while the service was not there, and one while it is; none of old ones."""
    daq = HandStore()

    def add(number: int, age: float) -> str:
        image = daq.make(number)
        stamp = times.iso(times.now() - int(age * 1e9))
        image.base = msgspec.structs.replace(image.base, timestamp=stamp, annotation="nobody tells")
        daq.put(image)
        return str(image.base.name)

    old, missed = add(1, 7200.0), add(2, 60.0)
    with Server(daq, f"ipc://{tmp_path}/daq", heartbeat=0.2) as server:
        service = serve(daq=server.endpoint, deadline=0.3, ledger=f"sqlite:///{tmp_path / 'ledger.db'}")
        path = path_of(tmp_path / "arc", missed)
        wait_for(path.exists)
        wait_for(lambda: service.announcer.announced)
        assert service.problems() == []
        with open_ledger(tmp_path / "ledger.db") as ledger:
            assert [row.state for row in ledger.headers.of(missed)] == ["partial"]
        live = add(3, 0.0)
        wait_for(path_of(tmp_path / "arc", live).exists)
        values = values_of(path)
        assert (values["OBSID"], values["HDRSTATE"]) == (missed, "partial")
        assert values["OBSANNOT"] == "nobody tells"
        assert values["DATE-TRG"] == daq.image(missed).info.timestamp[:23]
        assert not path_of(tmp_path / "arc", old).exists()
        begun = time.monotonic()
        service.stop(0.0)
        assert time.monotonic() - begun < 3.0, "nobody waits for notices any more"
        serve(daq=server.endpoint, deadline=0.1)
        time.sleep(1.0)
        assert names_in(path.parent) == [path.name], "it has one already"


class Buggy:
    """A publisher with a bug, and a ledger with one at first."""

    def __init__(self) -> None:
        self.entered = 0

    def publish(self, kind: str, **fields: Any) -> None:
        raise RuntimeError("nobody thought of this")

    def enter(self, stored: Any) -> None:
        self.entered += 1
        if self.entered == 1:
            raise KeyError("nor of that")

    def close(self) -> None:
        """Nothing is open."""


def test_no_bug_of_who_is_told_keeps_a_header(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is built again after a pause, and the next image comes."""
    monkeypatch.setattr("raftwright.header.service._LONGEST_PAUSE", 0.5)
    buggy = Buggy()
    service = serve(log=buggy)
    service.announcer._publisher = buggy  # type: ignore[assignment]
    for number in (1, 2):
        obsid = put(tmp_path / "in", number)
        wait_for(path_of(tmp_path / "arc", obsid).exists)
    wait_for(lambda: service.announcer.announced == 2)
    wait_for(lambda: service.idle)
    assert buggy.entered == 3
