"""What becomes of images whatever comes, does not come, or comes twice."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from archive_stand import Archive, files_in, wait_for

from hand_daq import name_of
from raftwright.errors import FormatError, UsageError
from raftwright.events import Event, open_subscriber
from raftwright.rawfile import open_raw
from raftwright.rawfile.document import read_header_document
from raftwright.rawfile.standing import digest

DOCUMENT = """PRIMARY:
- {keyword: EXPTIME, value: 30.0}
- {keyword: OBJECT, value: NGC 253}
- {keyword: HDRVERS, value: 1}
"""


class Listener:
    """Everything that an archiver tells."""

    def __init__(self, endpoint: str, *kinds: str) -> None:
        self.subscriber = open_subscriber(endpoint, kinds=kinds or None)
        self.heard: list[Event] = []
        self.more(0.3)

    def more(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.heard += itertools.islice(self.subscriber.events(timeout=left), 1)

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.heard if event.kind == kind]

    def wait(self, kind: str, count: int = 1, timeout: float = 10.0) -> list[Event]:
        until = time.monotonic() + timeout
        while len(self.of(kind)) < count and time.monotonic() < until:
            self.more(0.05)
        assert len(self.of(kind)) >= count, [event.kind for event in self.heard]
        return self.of(kind)


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/told"


@pytest.fixture
def listen(endpoint: str) -> Iterator[Callable[..., Listener]]:
    """Hears what is told there, of some kinds or of all."""
    made: list[Listener] = []

    def begin(*kinds: str) -> Listener:
        made.append(Listener(endpoint, *kinds))
        return made[-1]

    yield begin
    for one in made:
        one.subscriber.close()


def test_what_is_told_of_an_image(archive: Archive, endpoint: str, listen: Callable[..., Listener]) -> None:
    """D062, N21: the observatory's own messages, with every field; nothing empty that must not be."""
    archive.archiver(archive.to("oods", site="usdf"), publish=endpoint)
    listener = listen()
    (image,) = archive.take(1)
    (complete,) = listener.wait("imageComplete")
    assert complete["obsid"] == image.base.name
    assert (complete["state"], complete["expected"], complete["present"]) == ("complete", 9, 9)
    (written,) = listener.wait("fitsFilesWritten")
    names = [path.relative_to(archive.root).as_posix() for path in sorted(archive.root.rglob("*.fits"))]
    assert sorted(written["relativeFileNames"].split(":")) == names
    assert len(written["fileNode"].split(":")) == 9
    listener.wait("delivered", 19)
    (summary,) = listener.wait("fileTransferPerImageSummary")
    expected = {
        "site": "usdf",
        "dayObs": "20261122",
        "obsId": image.base.name,
        "expected": 9,
        "written": 9,
        "transferredBeforeResend": 9,
        "missingBeforeResend": 0,
        "resendCount": 0,
        "transferredAfterResend": 9,
        "missingAfterResend": 0,
    }
    assert {key: summary[key] for key in expected} == expected
    archiver = archive.started[0]
    assert (
        archiver.command("nightlySummary", {"dayobs": 20261122})["sites"]["usdf"]["transferredAfterResend"]
        == 9
    )
    (night,) = listener.wait("fileTransferNightlySummary")
    assert (night["written"], night["missingAfterResend"], night["dayObs"]) == (9, 0, "20261122")
    assert 0 <= night["maxFullDiskPercent"] <= 100


def test_counts_are_of_files_and_not_of_messages(archive: Archive, endpoint: str) -> None:
    """D099, F07: sent again and again, counted once."""
    archiver = archive.archiver(archive.to("oods"), publish=endpoint)
    archive.take(1)
    archive.settled()
    wait_for(lambda: archive.counts().get("oods") == {"delivered": 19})
    for _ in range(2):
        archive.ledger.deliveries.again("oods", states=("delivered",))
        wait_for(lambda: archive.counts().get("oods") == {"delivered": 19})
    with pytest.raises(UsageError, match="there is no destination 'ods'; there are oods"):
        archiver.command("again", {"destination": "ods"})  # D014: and not a success that did nothing
    sums = archiver.command("nightlySummary", {"dayobs": 20261122})["sites"]["oods"]
    assert (sums["written"], sums["transferredAfterResend"], sums["resendCount"]) == (9, 9, 18)
    assert sums["transferredBeforeResend"] == 0
    assert len(files_in(archive.place("oods"))) == 19


def test_a_source_that_dies_is_told_within_ten_seconds(
    archive: Archive, endpoint: str, listen: Callable[..., Listener]
) -> None:
    """D011, F21: nothing comes from one board any more, while the image is read out."""
    archive.archiver(publish=endpoint, late=2.0)
    listener = listen("imageIncomplete", "imageComplete")
    image = archive.store.make(1)
    image.hold(48384)
    image.sources["22/1"].arrived = [(0, 20000)]
    archive.store.put(image)
    for location in ("22/0", "22/2"):
        image.sources[location].final = True
    begun = time.monotonic()
    told, *_ = listener.wait("imageIncomplete")
    assert time.monotonic() - begun < 10.0
    assert (told["obsid"], told["location"], told["raft"]) == (image.base.name, "22/1", "R22")
    assert "20000 of 48384" in told["reason"]
    wait_for(lambda: archive.state(image) == "incomplete")
    # It comes after all.
    image.mend()
    archive.hand.capture(image)
    wait_for(lambda: archive.state(image) == "complete")
    listener.wait("imageComplete", 2)
    assert [event["state"] for event in listener.of("imageComplete")] == ["incomplete", "complete"]


def test_what_nobody_fetched_is_told(
    archive: Archive, endpoint: str, listen: Callable[..., Listener]
) -> None:
    """D005: every CCD that there should be ends in a state, with an event; late is not lost."""
    archive.archiver(publish=endpoint, late=0.7)
    listener = listen()
    (image,) = archive.take(1, capture=False)
    wait_for(lambda: archive.state(image) == "announced")
    archive.hand.capture(image, ["22/0", "22/2"])
    (told,) = listener.wait("imageIncomplete")
    assert told["location"] == "22/1"
    (complete,) = listener.wait("imageComplete")
    assert (complete["state"], complete["present"]) == ("incomplete", 6)
    assert sorted(complete["missing"]) == ["R22_S10", "R22_S11", "R22_S12"]
    assert all(reason for reason in complete["missing"].values())
    row = archive.ledger.images.get(image.base.name)[0]
    assert "R22_S10" in row.reason
    archive.hand.capture(image, ["22/1"])
    wait_for(lambda: archive.state(image) == "complete")
    assert len(listener.wait("imageComplete", 2)) == 2


def test_one_of_205_is_missing(archive: Archive, endpoint: str, listen: Callable[..., Listener]) -> None:
    """N21, D177: a full focal plane but one board of it; found and named within 10 s."""
    archive.archiver(archive.to("oods"), publish=endpoint, sweep=1.0, late=8.0, readout=60.0)
    listener = listen("imageComplete")
    image = archive.store.make(1, camera="LSSTCam", rafts=None)
    archive.hand.announce(image)
    locations = list(image.info.locations)
    archive.hand.capture(image, [location for location in locations if location != "41/1"])
    archive.store.put(image)
    begun = time.monotonic()
    (told,) = listener.wait("imageComplete", timeout=30)
    assert time.monotonic() - begun < 10.0
    assert (told["expected"], told["present"]) == (205, 202)
    assert sorted(told["missing"]) == ["R41_S10", "R41_S11", "R41_S12"]
    wait_for(lambda: archive.counts().get("oods") == {"delivered": 405}, 30, archive.counts)


def test_the_expected_ccds_are_those_of_each_image(archive: Archive) -> None:
    """D066: an image of some boards is complete with these."""
    archive.archiver()
    some = archive.store.make(1, camera="LSSTCam", rafts=["R22", "R00"])
    archive.store.put(some)
    wait_for(lambda: archive.ledger.images.get(some.base.name))
    archive.hand.capture(some)
    wait_for(lambda: archive.state(some) == "complete")
    assert archive.ledger.images.get(some.base.name)[0].expected_detectors == 13


def test_events_are_not_needed(archive: Archive) -> None:
    """D072, F06: no notice and no event came; the catalogue and the ledger say it all."""
    images = archive.take(1, 2, 3)
    while not archive.store.events.empty():
        archive.store.events.get()
    archive.archiver(archive.to("oods"))
    wait_for(lambda: [archive.state(image) for image in images] == ["complete"] * 3)
    late = archive.store.make(4)
    archive.store.all = {**archive.store.all, late.base.name: late}
    wait_for(lambda: archive.state(late) == "announced")
    archive.hand.capture(late)
    wait_for(lambda: archive.state(late) == "complete")
    wait_for(lambda: archive.counts().get("oods") == {"delivered": 76})


def test_hints_that_lie_do_no_harm(archive: Archive, tmp_path: Path) -> None:
    """F07, F08, D059: events of files that are not there, of images that nobody knows, and twice."""
    from raftwright.events import open_publisher

    endpoint = f"ipc://{tmp_path}/hints"
    with open_publisher(endpoint, name="liar") as liar:
        archive.archiver(archive.to("oods"), listen=[endpoint])
        time.sleep(0.3)
        (image,) = archive.take(1)
        for obsid in (image.base.name, image.base.name, name_of(999)):
            liar.publish(
                "fileWritten",
                instrument="LSSTComCam",
                obsid=obsid,
                raft="R22",
                sensor="S11",
                location="22/1",
                path="/no/such/file.fits",
                bytes=1,
                crc32c="00000000",
                version=1,
            )
        wait_for(lambda: archive.counts().get("oods") == {"delivered": 19})
    assert not archive.ledger.images.get(name_of(999))
    assert archive.state(image) == "complete"


@pytest.mark.parametrize("how", ["flip", "cut", "gone"])
def test_a_file_that_is_not_what_was_written(how: str, archive: Archive, endpoint: str) -> None:
    """D016, F28: found by its sum before it goes anywhere; the source is to be fetched again."""
    (image,) = archive.take(1)
    path = next(archive.root.rglob("*_R22_S11.fits"))
    content = bytearray(path.read_bytes())
    path.unlink()
    if how == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif how == "cut":
        path.write_bytes(content[:-2880])
    archive.archiver(archive.to("oods"), late=0.5)
    row = archive.ledger.images.get(image.base.name)[0]
    states = lambda: {one.detector: one.state for one in archive.ledger.images.detectors(row.id)}  # noqa: E731
    wait_for(lambda: states()["R22_S11"] == "missing")
    wait_for(lambda: archive.state(image) == "incomplete")
    wait_for(lambda: archive.counts().get("oods") == {"delivered": 17}, 10, archive.counts)
    assert not any("R22_S11" in name for name in files_in(archive.place("oods")))
    sources = {one.location: one.state for one in archive.ledger.images.sources(row.id)}
    assert sources["22/1"] == "open", "nobody will fetch it again"
    path.unlink(missing_ok=True)
    archive.hand.capture(image, ["22/1"], again=True)
    wait_for(lambda: archive.state(image) == "complete")
    wait_for(lambda: len(files_in(archive.place("oods"))) == 19)


def test_files_that_nobody_entered_are_found(archive: Archive) -> None:
    """D005, F12: a forwarder that died between the names of its files and the ledger."""
    archive.archiver(archive.to("oods"), late=0.5)
    (image,) = archive.take(1, capture=False)
    wait_for(lambda: archive.state(image) == "announced")
    archive.hand.capture(image, ["22/0", "22/1"])
    archive.hand.capture(image, ["22/2"], enter=False)
    wait_for(lambda: archive.state(image) == "complete")
    wait_for(lambda: archive.counts().get("oods") == {"delivered": 19})


def test_a_repaired_file_is_delivered_beside_the_first(archive: Archive) -> None:
    """Gaps that are filled later: both versions go, and the image is complete then."""
    archive.archiver(archive.to("oods"))
    image = archive.store.make(1)
    image.lose(10000, 20000, "22/0")
    archive.store.put(image)
    archive.hand.announce(image)
    archive.hand.capture(image)
    wait_for(lambda: archive.state(image) == "incomplete")
    wait_for(lambda: archive.counts().get("oods") == {"delivered": 19})
    image.mend()
    archive.hand.capture(image, ["22/0"], again=True)
    wait_for(lambda: archive.state(image) == "complete")
    wait_for(lambda: archive.counts().get("oods") == {"delivered": 25}, 10, archive.counts)
    archive.check(archive.place("oods"), [image])
    assert len([name for name in files_in(archive.place("oods")) if ".v2." in name]) == 6


def test_of_two_archivers_one_works(archive: Archive) -> None:
    """F14: the second waits, and takes over when the first ends."""
    first = archive.archiver(archive.to("oods"), instrument="LSSTComCam")
    second = archive.archiver(archive.to("oods"), instrument="LSSTComCam")
    other = archive.archiver(instrument="LATISS")
    assert (first.active, second.active, other.active) == (True, False, True)
    images = archive.take(1)
    wait_for(lambda: archive.counts().get("oods") == {"delivered": 19})
    assert second.report()["destinations"]["oods"]["delivered"] == 0
    first.stop(1.0)
    wait_for(lambda: second.active)
    images += archive.take(2)
    wait_for(lambda: archive.counts().get("oods") == {"delivered": 38})
    archive.check(archive.place("oods"), images)


def test_images_of_others_are_not_ours(archive: Archive) -> None:
    archive.archiver(archive.to("oods", instruments=["LATISS"]), instrument="LSSTComCam")
    archive.store.put(archive.store.make(1, camera="LSSTCam", rafts=["R22"]))
    (image,) = archive.take(2)
    wait_for(lambda: archive.state(image) == "complete")
    assert not archive.ledger.images.get(name_of(1))
    assert archive.counts() == {}


def test_strange_names_are_set_aside(archive: Archive) -> None:
    """D143: what has no name of an image is nobody's file; the others go on."""
    import msgspec

    archive.archiver()
    image = archive.store.make(1)
    for name in ("MC_O_20261322_000001", "../../etc/passwd", "x y"):
        odd = archive.store.make(2)
        odd.base = msgspec.structs.replace(odd.base, name=name)
        archive.store.all = {**archive.store.all, name: odd}
    archive.store.put(image)
    wait_for(lambda: archive.state(image) == "announced")
    wait_for(lambda: len(archive.ledger.quarantine.all()) == 3)
    time.sleep(1.0)
    assert {row.count for row in archive.ledger.quarantine.all()} == {1}, "it is said again and again"


def test_a_header_that_comes_late(archive: Archive) -> None:
    """D008, D056, F37: raw files stay, later sidecars stand beside them and go everywhere too."""
    archive.archiver(archive.to("oods"))
    (image,) = archive.take(1)
    wait_for(lambda: archive.counts().get("oods") == {"delivered": 19})
    before = files_in(archive.root)
    name = image.base.name
    path = archive.root / "20261122" / name / f"{name}_header.yaml"
    second = DOCUMENT.replace("NGC 253", "M 31").replace("HDRVERS, value: 1", "HDRVERS, value: 2")
    for version, text in ((1, DOCUMENT), (2, second)):
        if version == 2:
            path = path.with_name(f"{name}_header.v2.yaml")
        path.write_text(text)
        found = digest(path)
        archive.ledger.headers.put(name, version, str(path), found.bytes, found.crc32c)
        expected = {"delivered": 19 + 10 * version}
        wait_for(lambda expected=expected: archive.counts().get("oods") == expected)  # type: ignore[misc]
        for raw in archive.root.rglob("*.fits"):
            assert open_raw(raw).header["OBJECT"] == ("NGC 253" if version == 1 else "M 31")
    archive.check(archive.place("oods"), [image])
    after = files_in(archive.root)
    raws = [key for key in before if key.endswith((".fits", ".json"))]
    assert all(after[key] == before[key] for key in raws), "something was changed in place"
    kinds = {file.kind for file in archive.ledger.files.of(1)}
    assert kinds == {"raw", "sidecar", "manifest", "header"}


def test_a_header_that_is_none_holds_nothing(archive: Archive) -> None:
    archiver = archive.archiver(archive.to("oods"))
    (image,) = archive.take(1)
    name = image.base.name
    path = archive.root / "20261122" / name / f"{name}_header.yaml"
    path.write_bytes(b"PRIMARY: [\x00")
    found = digest(path)
    archive.ledger.headers.put(name, 1, str(path), found.bytes, found.crc32c)
    other = path.with_name(f"{name}_header.v2.yaml")
    wait_for(lambda: archive.counts().get("oods") == {"delivered": 20})
    archive.ledger.headers.put(name, 2, str(other), 5, "00000000")
    (next_image,) = archive.take(2)
    wait_for(lambda: archive.state(next_image) == "complete")
    assert not list(archive.root.rglob("*.sidecar2.json"))
    assert archiver.state == "ENABLED"


def test_a_header_that_was_there_makes_no_sidecar(archive: Archive) -> None:
    (image,) = archive.take(1, capture=False)
    archive.hand.announce(image)
    name = image.base.name
    path = archive.root / "20261122" / name / f"{name}_header.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(DOCUMENT)
    found = digest(path)
    archive.ledger.headers.put(name, 1, str(path), found.bytes, found.crc32c)
    archive.hand.capture(image, document=read_header_document(path))
    archive.archiver(archive.to("oods"))
    wait_for(lambda: archive.counts().get("oods") == {"delivered": 20})
    time.sleep(0.5)
    assert not list(archive.root.rglob("*.sidecar2.json"))


_FAR_AWAY = """
import sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from archive_stand import Archive, wait_for
archive = Archive(Path(sys.argv[1]))
archive.archiver(archive.to("oods"))
(image,) = archive.take(1)
wait_for(lambda: archive.counts().get("oods") == {"delivered": 19})
archive.close()
"""


def test_the_day_is_that_of_the_name(tmp_path: Path) -> None:
    """D064, F52: neither the clock nor the zone of the host says where a file goes."""
    here = Path(__file__).resolve().parent
    environment = {**os.environ, "TZ": "Pacific/Kiritimati"}
    subprocess.run(
        [sys.executable, "-c", _FAR_AWAY, str(tmp_path), str(here), str(here.parent)],
        env=environment,
        check=True,
        timeout=60,
    )
    names = files_in(tmp_path / "oods")
    assert len(names) == 19
    assert all(name.startswith("LSSTComCam/20261122/CC_S_20261122_000001/") for name in names)


@pytest.mark.parametrize("how", ["restored", "deleted"])
def test_a_ledger_of_before_is_put_back(how: str, archive: Archive, tmp_path: Path) -> None:
    """The ledger is restored from before an image, or is gone, while the archiver runs: what is entered again
    is judged and queued again, and found to be there already."""
    import sqlite3

    archive.archiver(archive.to("oods"))
    images = archive.take(1)
    wait_for(lambda: archive.counts().get("oods") == {"delivered": 19})
    with sqlite3.connect(archive.root / "ledger.db") as connection:
        connection.execute("VACUUM INTO ?", (str(tmp_path / "before.db"),))
    connection.close()
    images += archive.take(2, 3)
    wait_for(lambda: archive.counts().get("oods") == {"delivered": 57})
    for path in archive.root.glob("ledger.db*"):
        path.unlink()
    if how == "restored":
        (tmp_path / "before.db").rename(archive.root / "ledger.db")
    for image in images:
        archive.hand.announce(image)
        archive.hand.capture(image, claimed=how == "deleted" or image is not images[0])
    wait_for(lambda: archive.counts().get("oods") == {"delivered": 57}, 20, archive.counts)
    wait_for(lambda: [archive.state(image) for image in images] == ["complete"] * 3)
    archive.check(archive.place("oods"), images)


def test_memory_and_threads_stay(archive: Archive) -> None:
    """D065, D082: many images leave no threads behind, and who has nothing to do does nothing."""
    import threading

    archiver = archive.archiver(archive.to("oods"), sweep=1.0)
    archive.take(1)
    wait_for(lambda: archive.counts().get("oods") == {"delivered": 19})
    before = threading.active_count()
    archive.take(*range(2, 12))
    wait_for(lambda: archive.counts().get("oods") == {"delivered": 209}, 20)
    # D078: nothing sleeps for each file.
    spans = [
        row.delivered_tai - row.queued_tai
        for image_id in range(2, 12)
        for row in archive.ledger.deliveries.of(image_id)
        if row.delivered_tai is not None
    ]
    assert sorted(spans)[len(spans) // 2] < 1.0
    wait_for(lambda: threading.active_count() <= before, 3.0)
    wait_for(lambda: archiver.idle)
    began, used = time.monotonic(), time.process_time()
    time.sleep(3.0)
    share = (time.process_time() - used) / (time.monotonic() - began)
    assert share < 0.05, f"{share:.1%} of a processor for nothing"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "directory", "root": "relative"}, "root"),
        ({"kind": "s3", "root": "/data"}, "root"),
        ({"kind": "s3", "root": "s3://"}, "root"),
        ({"kind": "s3", "root": "s3://b?x=1"}, "root"),
        ({"kind": "directory", "root": "/x", "layout": "{file}"}, "layout"),
        ({"kind": "directory", "root": "/x", "layout": "{obsid}/{nothing}/{file}"}, "nothing"),
        ({"kind": "directory", "root": "/x", "layout": "../{obsid}/{file}"}, "layout"),
        ({"kind": "directory", "root": "/x", "timeout": 0.0}, "timeout"),
        ({"kind": "directory", "root": "/x", "what": []}, "what"),
        ({"kind": "s3", "root": "s3://raws", "access_key": "x"}, "access_key"),
        ({"kind": "directory", "root": "/x", "endpoint": "http://x"}, "endpoint"),
    ],
)
def test_destinations_that_cannot_be(changes: dict[str, Any], said: str) -> None:
    """D061, D084: refused before anything runs, with the key."""
    from raftwright.archiver import Destination

    with pytest.raises(FormatError, match=said):
        Destination(name="x", **changes)


def test_settings_that_cannot_be(archive: Archive) -> None:
    from raftwright.archiver import Settings

    with pytest.raises(FormatError, match="twice"):
        Settings(destinations=[archive.to("a"), archive.to("a")])
    with pytest.raises(FormatError, match="parallel"):
        Settings(destinations=[archive.to("a", concurrency=40), archive.to("b", concurrency=40)])
