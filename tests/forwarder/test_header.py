"""Header documents: merged when they come in time, and never a reason to wait longer or to lose a pixel."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from stand import ROW, Forward, Serve, check_archive, fits_in, rows_of, wait_for

import raftwright
from hand_daq import HandImage, HandStore, name_of
from raftwright.capture.heading import header_path, read_header
from raftwright.errors import FormatError, StorageError
from raftwright.ledger import open_ledger
from raftwright.rawfile import makers, times
from raftwright.rawfile.makers import HeaderMakers, give_sign, take_sign_away


def document(image: str, **cards: Any) -> bytes:
    """As the header service writes it."""
    known = {"OBSID": image, "IMGTYPE": "OBJECT", "EXPTIME": 30.0, "HDRSTATE": "complete", **cards}
    records = [{"keyword": key, "value": value, "comment": ""} for key, value in known.items()]
    return yaml.safe_dump({"PRIMARY": records}).encode()


def put(out: Path, image: str, data: bytes, version: int = 1) -> Path:
    """Whole, under its name, as the header service does it."""
    path = header_path(out, image, version)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}")
    beside.write_bytes(data)
    beside.rename(path)
    return path


def add(daq: HandStore, *numbers: int) -> list[HandImage]:
    """Images of this moment: however a forwarder finds them, their headers may still be made."""
    images = [daq.make(number) for number in numbers]
    for image in images:
        image.base = msgspec.structs.replace(image.base, timestamp=times.iso(times.now()))
        daq.put(image)
    return images


def headers(out: Path) -> list[Any]:
    return [raftwright.open_raw(path, threads=1).header for path in sorted(fits_in(out))]


def states(out: Path) -> set[Any]:
    found = {header.get("HDRSTATE") for header in headers(out)}
    sidecars = [json.loads(path.with_suffix(".json").read_bytes()) for path in fits_in(out)]
    assert {sidecar.get("HDRSTATE") for sidecar in sidecars} == found, "sidecar and file say the same"
    return found


def header_state(ledger: Path, image: str) -> str:
    with open_ledger(ledger, read_only=True) as opened:
        return opened.images.get(image)[0].header_state


def whole(out: Path, ledger: Path, images: int) -> None:
    """On disk and told, which comes after."""
    wait_for(lambda: len(fits_in(out)) == 9 * images)
    wait_for(lambda: {Path(row.path) for row in rows_of(ledger)} == fits_in(out))


def test_a_header_that_is_there_first_is_merged(
    daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path
) -> None:
    """F32, D012: before the pixels."""
    put(out, name_of(1), document(name_of(1), OBJECT="M 31"))
    forward(serve().endpoint, header_wait=5.0)
    begun = time.monotonic()
    add(daq, 1)
    whole(out, ledger, 1)
    assert time.monotonic() - begun < 4, "nothing is waited for"
    for header in headers(out):
        assert (header["IMGTYPE"], header["EXPTIME"], header["OBJECT"]) == ("OBJECT", 30.0, "M 31")
    assert states(out) == {"complete"}


def test_a_header_that_comes_after_the_pixels_is_waited_for(
    daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path
) -> None:
    """F32, D012, D111: late, but in time; the pixels are shown before."""
    forwarder = forward(serve().endpoint, header_wait=10.0, writers=1)
    add(daq, 1)
    wait_for(lambda: forwarder.engine.heading.waiting == 3)
    assert fits_in(out) == set()
    assert forwarder.schedule.used < 64 << 20, "they are within the memory budget"
    put(out, name_of(1), document(name_of(1)))
    whole(out, ledger, 1)
    assert states(out) == {"complete"}


def test_a_writer_is_free_while_units_wait(
    daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path
) -> None:
    """D111: with one writer, an image that has its header passes one that has not."""
    forward(serve().endpoint, header_wait=20.0, writers=1)
    add(daq, 1)
    put(out, name_of(2), document(name_of(2)))
    add(daq, 2)
    whole(out, ledger, 1)
    assert all(name_of(2) in path.name for path in fits_in(out))
    put(out, name_of(1), document(name_of(1)))
    whole(out, ledger, 2)


def test_a_header_that_never_comes_leaves_flagged_files(
    daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path
) -> None:
    """F31, D092, D111: pixels are safe at the deadline; card, sidecar, event and ledger say what lacks."""
    seen: list[Any] = []
    events = f"ipc://{out.parent}/events"
    from raftwright.events import open_subscriber

    over = threading.Event()

    def listen() -> None:
        with open_subscriber(events) as subscriber:
            while not over.is_set():
                seen.extend(subscriber.events(timeout=0.2))

    listening = threading.Thread(target=listen)
    listening.start()
    forward(serve().endpoint, header_wait=0.4, events=events)
    time.sleep(0.3)
    begun = time.monotonic()
    (image,) = add(daq, 1)
    whole(out, ledger, 1)
    took = time.monotonic() - begun
    over.set()
    listening.join()
    assert 0.35 < took < 5
    assert states(out) == {"missing"}
    wait_for(lambda: header_state(ledger, name_of(1)) == "missing")
    check_archive(out, ledger, {name_of(1): image})
    written = [event for event in seen if event.kind == "fileWritten"]
    assert {event.fields.get("header") for event in written} == {"missing"}


@pytest.mark.parametrize(
    "data",
    [
        document(name_of(7)),
        document("CC_O_20261122_000001"),
        yaml.safe_dump({"PRIMARY": [{"keyword": "EXPTIME", "value": 3.0, "comment": ""}]}).encode(),
        b"\xff\xfe\x00 no YAML: [",
        b"",
        b"PRIMARY: 7\n",
        b"- 1\n",
    ],
    ids=["other number", "other controller", "no name", "no YAML", "empty", "no records", "a list"],
)
def test_a_header_that_is_not_right_is_not_used(
    daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path, data: bytes
) -> None:
    """D111, F33: of another image, broken, empty: as if there were none, and the reason is kept."""
    path = put(out, name_of(1), data)
    forward(serve().endpoint, header_wait=0.2)
    (image,) = add(daq, 1)
    whole(out, ledger, 1)
    assert states(out) == {"missing"}
    assert "EXPTIME" not in headers(out)[0]
    check_archive(out, ledger, {name_of(1): image})
    with open_ledger(ledger, read_only=True) as opened:
        wait_for(lambda: all(unit.state == "done" for unit in opened.claims.units()))
        assert all(str(path) in unit.reason for unit in opened.claims.units())


def test_what_is_no_file_is_not_waited_for(
    daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path
) -> None:
    """D111: a pipe, a directory or a loop under the name holds nothing up."""
    import os

    path = header_path(out, name_of(1))
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    other = header_path(out, name_of(2))
    other.mkdir(parents=True)
    third = header_path(out, name_of(3))
    third.parent.mkdir(parents=True)
    third.symlink_to(third)
    forward(serve().endpoint, header_wait=0.2)
    add(daq, 1, 2, 3)
    whole(out, ledger, 3)
    assert states(out) == {"missing"}


def test_nan_and_odd_text_in_a_header_make_valid_files(
    daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path
) -> None:
    """F33: NaN is undefined, odd characters do no harm, and the others are merged."""
    odd = document(name_of(1), RA=float("nan"), OBJECT="\u2603 \x07 \n", EXPTIME=float("inf"), SEEING=0.7)
    put(out, name_of(1), odd)
    forward(serve().endpoint, header_wait=1.0)
    (image,) = add(daq, 1)
    whole(out, ledger, 1)
    for header in headers(out):
        assert header["SEEING"] == 0.7
        assert header.get("RA") is None
        assert header.get("EXPTIME") is None
    check_archive(out, ledger, {name_of(1): image})
    done = raftwright.rawfile.verify(sorted(fits_in(out))[0])
    assert done.ok


def test_a_broken_header_that_is_mended_in_time_is_used(
    daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path
) -> None:
    """D111: each version of the file is read once, a better one counts."""
    put(out, name_of(1), b"[")
    forwarder = forward(serve().endpoint, header_wait=10.0)
    add(daq, 1)
    wait_for(lambda: forwarder.engine.heading.waiting == 3)
    put(out, name_of(1), document(name_of(1)), version=2)
    whole(out, ledger, 1)
    assert states(out) == {"complete"}


def test_the_wait_ends_with_the_forwarder(
    daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path
) -> None:
    """What waits for its header when the end comes is written as it is."""
    forwarder = forward(serve().endpoint, header_wait=60.0, drain=0.5)
    (image,) = add(daq, 1)
    wait_for(lambda: forwarder.engine.heading.waiting == 3)
    begun = time.monotonic()
    forwarder.stop()
    assert time.monotonic() - begun < 8
    assert len(fits_in(out)) == 9
    check_archive(out, ledger, {name_of(1): image})


def test_a_file_without_header_is_no_conflict_with_one_that_has_it(
    daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path
) -> None:
    """D096: the ledger is lost and a file is fetched again, now with its header: the first one stays."""
    first = forward(serve().endpoint, header_wait=0.0)
    (image,) = add(daq, 1)
    whole(out, ledger, 1)
    first.stop()
    put(out, name_of(1), document(name_of(1)))
    for path in out.glob("ledger.db*"):
        path.unlink()
    gone = sorted(fits_in(out))[0]
    was = {path: path.read_bytes() for path in fits_in(out)}
    gone.unlink()
    forward(serve().endpoint, header_wait=0.0)
    whole(out, ledger, 1)
    assert not list(out.rglob("*.conflict-*"))
    assert {path for path in was if path.read_bytes() != was[path]} == {gone}
    assert raftwright.open_raw(gone).header["HDRSTATE"] == "complete"
    check_archive(out, ledger, {name_of(1): image})


def test_a_repaired_file_has_the_header_that_came_meanwhile(
    daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path
) -> None:
    """F31: the version with gaps had no header; the one without gaps has."""
    image = daq.make(1)
    image.hold(5 * ROW, "22/1")
    server = serve()
    forward(server.endpoint, header_wait=0.0, deadline=0.5)
    daq.put(image)
    wait_for(lambda: len(fits_in(out)) == 9)
    put(out, name_of(1), document(name_of(1)))
    image.mend()
    wait_for(lambda: len(fits_in(out)) == 12)
    second = [raftwright.open_raw(path).header for path in fits_in(out) if ".v2." in path.name]
    assert {header["HDRSTATE"] for header in second} == {"complete"}


def test_reading_a_header_says_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "header.yaml"
    path.write_bytes(document(name_of(1)))
    assert read_header(path, name_of(1)).section("PRIMARY")["EXPTIME"].value == 30.0
    with pytest.raises(FormatError, match="OBSID is 'CC_S_20261122_000001', which is not"):
        read_header(path, name_of(2))


def latency(forwarder: Any) -> float:
    """Seconds from the last byte of a board to its files, at most."""
    return float(forwarder.metrics.stage("latency").snapshot()["p99_s"])


def test_where_nobody_makes_headers_nothing_is_waited_for(
    daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path
) -> None:
    """Of itself: no sign of a maker, no document, no wait."""
    forwarder = forward(serve().endpoint, header_wait=None)
    add(daq, 1)
    whole(out, ledger, 1)
    assert latency(forwarder) < 0.5
    assert states(out) == {"missing"}


def test_where_a_maker_is_known_the_first_header_is_waited_for(
    daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path
) -> None:
    """Its sign is in the archive before the forwarder begins."""
    give_sign(out, "CC")
    forwarder = forward(serve().endpoint, header_wait=None)
    begun = time.monotonic()
    add(daq, 1)
    wait_for(lambda: forwarder.engine.heading.waiting == 3)
    put(out, name_of(1), document(name_of(1)))
    whole(out, ledger, 1)
    assert states(out) == {"complete"}
    add(daq, 2)
    whole(out, ledger, 2)
    assert 0.55 < latency(forwarder) < time.monotonic() - begun, "but not for long"


def test_a_maker_of_another_camera_is_none(
    daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path
) -> None:
    give_sign(out, "MC")
    forwarder = forward(serve().endpoint, header_wait=None)
    add(daq, 1)
    whole(out, ledger, 1)
    assert latency(forwarder) < 0.5


def test_a_document_that_came_too_late_says_that_others_will_come(
    daq: HandStore, serve: Serve, forward: Forward, out: Path, ledger: Path
) -> None:
    """Whoever makes them: no sign is given."""
    forwarder = forward(serve().endpoint, header_wait=None)
    add(daq, 1)
    whole(out, ledger, 1)
    assert latency(forwarder) < 0.5
    put(out, name_of(1), document(name_of(1)))
    wait_for(lambda: forwarder.engine.heading._makers.known("CC"), 5.0)
    add(daq, 2)
    wait_for(lambda: forwarder.engine.heading.waiting == 3)
    put(out, name_of(2), document(name_of(2)))
    whole(out, ledger, 2)
    assert "complete" in {header["HDRSTATE"] for header in headers(out)}


def test_signs_of_makers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A maker that died is forgotten after a minute, one that ended at once; clocks need not agree."""
    import os

    now = [1000.0]
    monkeypatch.setattr(makers.time, "monotonic", lambda: now[0])

    def later(seconds: float) -> bool:
        now[0] += seconds
        return seen.known("CC")

    seen = HeaderMakers(tmp_path)
    assert not seen.known("CC")
    give_sign(tmp_path, "CC")
    assert not later(0.5), "it looks once a second"
    assert later(1.0)
    assert later(58.0)
    assert not later(3.0), "it died"
    sign = tmp_path / ".header" / "alive.CC"
    os.utime(sign, (5.0, 5.0))  # by a clock that is far off
    assert later(1.0), "but it changes"
    take_sign_away(tmp_path, "CC")
    assert not later(1.0)
    assert not later(100.0)
    sign.touch()
    os.utime(sign, (1e9, 1e9))
    seen = HeaderMakers(tmp_path)
    assert not later(1.0), "an old sign counts for nothing"
    seen.came("CC")
    assert later(3500.0)
    assert not later(200.0)
    with pytest.raises(StorageError, match="headers are made here"):
        give_sign(sign, "CC")


@pytest.mark.parametrize("error", [FormatError("a card that cannot be"), KeyError("nobody thought of it")])
def test_a_header_that_cannot_be_written_costs_no_pixel(
    daq: HandStore,
    serve: Serve,
    forward: Forward,
    out: Path,
    ledger: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    """D006, D037: one CCD whose header fails is written without it, flagged, never told as whole; the other
    boards have it."""
    from raftwright.rawfile import output

    usual = output.primary_cards

    def failing(exposure: Any, detector: Any, **more: Any) -> Any:
        if detector.name == "R22_S11" and exposure.document is not None:
            raise error
        return usual(exposure, detector, **more)

    monkeypatch.setattr(output, "primary_cards", failing)
    put(out, name_of(1), document(name_of(1)))
    forward(serve().endpoint, header_wait=5.0)
    (image,) = add(daq, 1)
    whole(out, ledger, 1)
    found = {path.stem[-7:]: raftwright.open_raw(path).header["HDRSTATE"] for path in fits_in(out)}
    assert found["R22_S11"] == "missing"
    assert [found[name] for name in found if name[4:6] != "S1"] == ["complete"] * 6
    wait_for(lambda: header_state(ledger, name_of(1)) == "missing")
    check_archive(out, ledger, {name_of(1): image})
    with open_ledger(ledger, read_only=True) as opened:
        reasons = {unit.location: unit.reason for unit in opened.claims.units()}
    assert "with its header it cannot be written" in reasons["22/1"]
    assert reasons["22/0"] == ""
