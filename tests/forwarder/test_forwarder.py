"""The forwarder on a good day: files, ledger, events, figures; and what it catches up."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

from stand import (
    BYTES,
    LOCATIONS,
    Forward,
    Serve,
    attempts_of,
    check_archive,
    fits_in,
    rows_of,
    states_of,
    units_of,
    wait_for,
)

from hand_daq import HandStore, name_of
from raftwright import rawfile
from raftwright.events import Event, open_subscriber


def test_images_become_files_events_and_rows(
    daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path, tmp_path: Path
) -> None:
    """D180: of one kind, with the pixels of the DAQ and no corrected ones beside them."""
    server = serve()
    seen: list[Any] = []
    endpoint = f"ipc://{tmp_path}/events"
    forwarder = forward(server.endpoint, events=endpoint, metrics="127.0.0.1:0", observer=seen.append)
    heard: list[Event] = []
    over = threading.Event()

    def listen() -> None:
        with open_subscriber(endpoint) as subscriber:
            while not over.is_set():
                heard.extend(subscriber.events(timeout=0.2))

    listener = threading.Thread(target=listen)
    listener.start()
    time.sleep(0.3)
    daq.add(1, 2)
    wait_for(lambda: len(seen) == 2)
    with urllib.request.urlopen(forwarder.page.url + "/status") as answer:
        status = json.load(answer)
    with urllib.request.urlopen(forwarder.page.url + "/metrics") as answer:
        metrics = answer.read().decode()
    wait_for(lambda: sum(event.kind == "imageWritten" for event in heard) == 2)
    over.set()
    listener.join()
    forwarder.stop()

    rows = check_archive(out, ledger, daq.all)
    assert len(rows) == 18
    assert {(row.kind, row.status, row.version, row.missing) for row in rows} == {("raw", "written", 1, 0)}
    for name, image in daq.all.items():
        report = rawfile.verify(out / "20261122" / name, image.simulated, threads=1)
        assert report.ok, report.errors
        assert report.compared == 9 * 16 * 28 * 16
        assert (out / "20261122" / name / f"{name}_expectedSensors.json").is_file()
    written = {event["path"]: event for event in heard if event.kind == "fileWritten"}
    assert set(written) == {row.path for row in rows}
    for row in rows:
        event = written[row.path]
        assert (event["bytes"], event["crc32c"], event["obsid"]) == (row.bytes, row.crc32c, row.image)
        assert f"{event['raft']}_{event['sensor']}" == row.detector
    (whole, _) = [event for event in heard if event.kind == "imageWritten"]
    assert (whole["files"], whole["missing_pixels"]) == (9, 0)
    assert whole["states"] == dict.fromkeys(LOCATIONS, "done")
    assert {one["image"]: one["files"] for one in seen} == {name_of(1): 9, name_of(2): 9}
    assert all(one["packed_bytes"] == 3 * BYTES and one["latency_s"] > 0 for one in seen)
    text = json.dumps(status)
    for key in ("units", "buffers", "credit", "waiting", "in_hand", "problems", "incomplete", "stream"):
        assert f'"{key}"' in text
    for figure in ("files", "stage", "buffers_used_bytes", "credit_bytes", "units_waiting"):
        assert f"raftwright_forwarder_{figure}" in metrics


def test_what_was_missed_is_caught_up_oldest_first_and_once(
    daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path
) -> None:
    server = serve()
    daq.add(1)
    first = forward(server.endpoint)
    wait_for(lambda: states_of(ledger)["done"] == 3)
    first.stop()
    daq.add(5, 3, 4, 2)
    seen: list[Any] = []
    # Room for one source at a time: the order is that of the schedule.
    second = forward(server.endpoint, observer=seen.append, memory=4 << 20, receivers=1, writers=1)
    wait_for(lambda: len(seen) == 4)
    wait_for(lambda: second.idle)
    second.stop()
    assert [one["image"] for one in seen] == [name_of(number) for number in (2, 3, 4, 5)]
    check_archive(out, ledger, daq.all)
    for image in daq.all.values():
        assert {source.read_bytes for source in image.sources.values()} == {BYTES}, "fetched twice"
    assert attempts_of(ledger) == {"claimed": 15, "done": 15}


def test_a_lost_journal_is_made_anew_from_the_disk(
    daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path
) -> None:
    server = serve()
    daq.add(1, 2)
    first = forward(server.endpoint)
    wait_for(lambda: states_of(ledger)["done"] == 6)
    first.stop()
    before = {row.path: (row.crc32c, row.bytes) for row in rows_of(ledger)}
    for path in out.glob("ledger.db*"):
        path.unlink()
    # One file is damaged, one is lost: their sources are fetched again, the others are not.
    damaged = next((out / "20261122" / name_of(1)).glob("*R22_S01.fits"))
    lost = next((out / "20261122" / name_of(2)).glob("*R22_S22.fits"))
    lost.unlink()
    lost.with_suffix(".json").unlink()
    data = bytearray(damaged.read_bytes())
    data[-3000] ^= 1
    damaged.write_bytes(data)
    second = forward(server.endpoint)
    wait_for(lambda: sum(states_of(ledger).values()) == 6 and second.idle)
    second.stop()
    units = units_of(ledger)
    assert units[name_of(1), "22/0"].state == "conflict", "a damaged file is not replaced, and not accepted"
    assert sum(unit.state == "done" for unit in units.values()) == 5
    reads = {
        (image.base.name, location): source.read_bytes // BYTES
        for image in daq.all.values()
        for location, source in image.sources.items()
    }
    assert reads == {key: 2 if key in {(name_of(1), "22/0"), (name_of(2), "22/2")} else 1 for key in reads}
    rows = {row.path: (row.crc32c, row.bytes) for row in rows_of(ledger) if row.status != "conflict"}
    assert len(rows) == 17
    for path, sums in rows.items():
        assert sums == before[path] or path == str(lost), "what is there is not written again"


def test_live_images_do_not_wait_for_the_backlog(
    daq: HandStore, serve: Serve, forward: Forward, ledger: Path
) -> None:
    server = serve()
    for number in range(1, 41):
        image = daq.make(number)
        for source in image.sources.values():
            source.on_read = lambda: time.sleep(0.002)
        daq.put(image)
    seen: list[Any] = []
    forward(server.endpoint, observer=seen.append)
    wait_for(lambda: len(seen) >= 2)
    behind = len(seen)
    live = daq.make(100)
    live.hold(0)
    daq.put(live)
    time.sleep(0.1)
    live.mend()
    wait_for(lambda: name_of(100) in [one["image"] for one in seen])
    names = [one["image"] for one in seen]
    assert len(names) < 41, "the backlog was over before: the test shows nothing"
    assert names.index(name_of(100)) - behind < 15
    wait_for(lambda: states_of(ledger)["done"] == 41 * 3, 20)


def test_files_are_there_only_once_when_nothing_is_new(
    daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path
) -> None:
    server = serve()
    daq.add(1)
    first = forward(server.endpoint)
    wait_for(lambda: states_of(ledger)["done"] == 3)
    time.sleep(1.0)  # some sweeps
    first.stop()
    assert len(fits_in(out)) == 9
    assert attempts_of(ledger) == {"claimed": 3, "done": 3}
