"""Endpoints that are down, slow, full, lying, and files that are not what they were: nothing is lost, nothing
is overwritten, and nobody waits for another."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from handoff_stand import Site, files_in, mounted, wait_for

from raftwright.backbone.planning import Planner
from raftwright.events import open_subscriber


def test_an_outage_is_survived(site: Site) -> None:
    """D148, F02, N32: nothing crashes, nothing is given up, all is delivered once it is over."""
    site.image(1)
    service = site.hand_off(site.to("far", retries=1), site.to("near"))
    site.delivered("far", "near", count=7)
    gone = site.path / "gone"
    site.place("far").rename(gone)
    for number in range(2, 8):
        site.image(number)
        time.sleep(0.3)
    site.delivered_to("near", 49)
    assert set(site.counts()["far"]) <= {"delivered", "queued", "sending"}
    assert any("far" in said for said in service.problems())
    assert service.state == "ENABLED", "an endpoint that is away is no fault of the hand-off"
    gone.rename(site.place("far").with_name("far"))
    site.delivered("far", "near", count=49)
    site.check("far", *range(1, 8))
    wait_for(lambda: not service.problems())


def test_a_new_file_starts_beside_a_large_one(site: Site) -> None:
    """D138: within a second, and at the other endpoint as well."""
    site.image(1, bytes=6_000_000, detectors=["R22_S00"])
    site.hand_off(site.to("slow", bandwidth=1_000_000, concurrency=2), site.to("fast"))
    wait_for(lambda: site.counts().get("slow", {}).get("sending"))
    site.delivered_to("fast", 3)
    began = time.monotonic()
    site.image(2, bytes=1000, detectors=["R22_S00"])
    site.delivered_to("fast", 6)
    assert time.monotonic() - began < 2.0
    begun = (
        "SELECT count(*) FROM delivery JOIN image ON image.id = delivery.image_id"
        " WHERE image.seqnum = 2 AND destination = 'endpoint:slow' AND attempts > 0"
    )
    wait_for(lambda: site.ledger.read(begun)[0][0] > 0, 1.0)
    assert site.counts()["slow"].get("sending"), "the large one is still on its way"


def test_hanging_dead_and_full_endpoints_hold_nobody(site: Site, tmp_path: Path) -> None:
    """D147, D142, D138, F40: many endpoints in one process; a program that is not there, one that says
    nothing and fails, one that hangs, a disk that is full."""
    absent = {"transfer": ["/no/such/program", "{file}", "{dest}"], "remote": ["sh", "-c", "{command}"]}
    bad = [
        site.by_program("mute", "sys.exit(3)", retries=1),
        site.by_program("hangs", "time.sleep(60)", timeout=0.5),
        site.by_program("absent", "", retries=1, commands=absent),
    ]
    with mounted(tmp_path / "full", "size=100k") as have_full:
        if have_full:
            bad.append(site.to("full"))
        service = site.hand_off(*bad, site.to("good"))
        for number in range(1, 4):
            began = time.monotonic()
            site.image(number)
            site.delivered_to("good", 7 * number)
            assert time.monotonic() - began < 4.0
        wait_for(lambda: service.problems())
        counts = site.counts()
        assert not any("delivered" in counts[name] for name in ("mute", "hangs", "absent"))
        if have_full:
            wait_for(lambda: any("full" in said for said in service.problems()), 10, service.problems)
            assert "failed" not in site.counts()["full"], "a full disk is an outage, no fault of a file"
        attempts = site.ledger.attempts.of(site.ledger.images.get("CC_O_20261122_000001")[0].id)
        for name in ("mute", "absent"):
            mine = [one for one in attempts if one.subject.startswith(f"endpoint:{name} ") and one.outcome]
            assert mine
            assert all(one.reason for one in mine if one.outcome in ("queued", "failed")), mine
        assert service.state == "ENABLED"
        site.check("good", 1, 2, 3)


def test_an_endpoint_that_corrupts(site: Site) -> None:
    """D136, D146: what arrives is read back; it gets no name, is sent again, and is a dead letter in the end,
    which is told, not tried for ever."""
    told = f"ipc://{site.path}/told"
    image = site.image(1, detectors=["R22_S00"])
    flip = (
        "body = bytearray(open(source, 'rb').read())\n"
        "body[len(body) // 2] ^= 1\n"
        "open(there, 'wb').write(body)\n"
    )
    with open_subscriber(told, kinds=["replica"]) as subscriber:
        site.hand_off(site.by_program("liar", flip, retries=2), publish=told)
        wait_for(lambda: site.counts() == {"liar": {"failed": 3}}, 20, site.counts)
        heard: list[dict[str, object]] = []
        until = time.monotonic() + 10
        while len(heard) < 3 and time.monotonic() < until:
            for event in subscriber.events(timeout=0.2):
                heard.append(dict(event.fields))
                subscriber.done(event)
    assert not files_in(site.place("liar"))
    assert site.states("liar") == {}
    assert {each["standing"] for each in heard} == {"failed"}
    assert all(each["reason"] for each in heard)
    tries = [one for one in site.ledger.attempts.of(image) if one.outcome]
    assert len(tries) == 9, "each was tried three times, and no more"


def test_dead_letters_are_listed_and_taken_up_again(site: Site) -> None:
    """D146: after the cause is mended, one command delivers them."""
    site.image(1, detectors=["R22_S00"])
    switch = site.path / "mended"
    program = f"sys.exit(7) if not os.path.exists({str(switch)!r}) else shutil.copyfile(source, there)"
    service = site.hand_off(site.by_program("moody", program, retries=0))
    wait_for(lambda: site.counts() == {"moody": {"failed": 3}}, 20, site.counts)
    wait_for(lambda: any("3 dead letters" in said for said in service.problems()), 15, service.problems)
    switch.touch()
    assert service.command("again") == {"queued": 3}
    site.delivered("moody", count=3)
    site.check("moody", 1)


def test_the_same_name_with_another_content(site: Site) -> None:
    """D143, F24: what is there stays, what we have stays, and it is told."""
    site.image(1, detectors=["R22_S00"])
    endpoint = site.to("far")
    name = "LSSTComCam/20261122/CC_O_20261122_000001/CC_O_20261122_000001_R22_S00.fits"
    taken = site.place("far") / name
    taken.parent.mkdir(parents=True)
    taken.write_bytes(b"something else")
    service = site.hand_off(endpoint)
    wait_for(lambda: site.counts() == {"far": {"delivered": 2, "conflict": 1}}, 10, site.counts)
    assert taken.read_bytes() == b"something else"
    assert site.expected(1)[name] != b"something else"
    time.sleep(0.5)
    assert site.counts() == {"far": {"delivered": 2, "conflict": 1}}, "nobody tries in vain"
    wait_for(lambda: any("1 dead letter" in said for said in service.problems()), 10)
    taken.rename(site.path / "moved")
    service.command("again", {"endpoint": "far"})
    site.delivered("far", count=3)
    site.check("far", 1)


def test_new_content_under_a_name_that_was_handed_over(site: Site) -> None:
    """D143: identity is name and sum. The one before stays there with its rows, the new one is a conflict."""
    image = site.image(1, detectors=["R22_S00"])
    service = site.hand_off(site.to("far"))
    site.delivered("far", count=3)
    before = files_in(site.place("far"))
    raw = next(file for file in site.ledger.files.of(image, "raw"))
    site.ledger.files.lost(raw.path, "by hand")
    row = site.file(Path(raw.path), "raw", 1, b"written anew", "R22_S00")
    site.ledger.files.enter([row])
    site.verify(image)
    wait_for(lambda: site.counts() == {"far": {"delivered": 3, "conflict": 1}}, 10, site.counts)
    assert files_in(site.place("far")) == before
    rows = [one for one in site.ledger.deliveries.of(image) if one.path == raw.path]
    assert sorted((one.crc32c, one.state) for one in rows) == sorted(
        [(raw.crc32c, "delivered"), (row.crc32c, "conflict")]
    )
    assert site.ledger.replicas.safe([raw.id], 1) == set(), "nobody has what is in the archive now"
    assert service.state == "ENABLED"


def test_a_file_that_changes_while_it_is_sent(site: Site) -> None:
    """What arrives is not what the ledger says, so it gets no name; once it is right again it goes."""
    image = site.image(1, detectors=["R22_S00"], bytes=400_000)
    raw = Path(next(file for file in site.ledger.files.of(image, "raw")).path)
    good = raw.read_bytes()
    stop = threading.Event()

    def meddle() -> None:
        while not stop.is_set():
            with raw.open("r+b") as stream:
                stream.seek(399_000)
                stream.write(os.urandom(500))
            time.sleep(0.005)

    site.hand_off(site.to("far", bandwidth=800_000, retries=1000))
    meddler = threading.Thread(target=meddle)
    meddler.start()
    try:
        wait_for(
            lambda: any(one.outcome == "queued" for one in site.ledger.attempts.of(image)), 10, site.counts
        )
        assert not list(site.place("far").rglob("*.fits"))
    finally:
        stop.set()
        meddler.join()
    raw.write_bytes(good)
    site.delivered("far", count=3)
    site.check("far", 1)


def test_the_archive_lost_it_and_another_endpoint_has_it(site: Site) -> None:
    """An endpoint that is added later gets a good copy, wherever that is."""
    image = site.image(1)
    near = site.to("near")
    first = site.hand_off(near)
    site.delivered("near", count=7)
    first.stop(2.0)
    expected = site.expected(1)
    raws = [Path(file.path) for file in site.ledger.files.of(image, "raw")]
    raws[0].unlink()
    raws[1].write_bytes(b"damaged in the archive")
    spoilt = bytearray(raws[2].read_bytes())
    spoilt[5] ^= 4
    raws[2].write_bytes(spoilt)
    site.hand_off(near, site.to("late"))
    site.delivered("near", "late", count=7)
    assert files_in(site.place("late")) == expected


@pytest.mark.parametrize(
    "name",
    [
        "CC_O_20261122_000001_R22_S00 with spaces.json",
        "CC_O_20261122_000001_{batch}{user}.json",
        "CC_O_20261122_000001_$(touch hit);`touch hit`'\".json",
        "CC_O_20261122_000001_new\nline.json",
        "-rf.json",
        "CC_O_20261122_000001_" + "x" * (255 - 26) + ".json",
    ],
)
def test_odd_names_go_through(site: Site, name: str) -> None:
    """D144, D009: nothing of a name is a word of a template, or of a shell, or an option."""
    image = site.image(1, detectors=[])
    directory = site.root / "20261122" / "CC_O_20261122_000001"
    row = site.file(directory / name, "sidecar", 1, b"odd", "R22_S00")
    site.ledger.files.enter([row])
    site.verify(image)
    site.hand_off(site.to("far"), site.by_program("program", "shutil.copyfile(source, there)"))
    site.delivered("far", "program", count=2)
    site.check("far", 1)
    site.check("program", 1)
    assert not list(site.path.rglob("hit"))


def test_names_that_would_leave_an_endpoint_go_nowhere(site: Site) -> None:
    """Hostile targets, as somebody may have written them into the queue."""
    from raftwright.ledger.rows import DeliveryPlan

    image = site.image(1, detectors=["R22_S00"])
    raw = next(file for file in site.ledger.files.of(image, "raw"))
    outside = site.path / "outside"
    outside.mkdir()
    (site.place("far") / "link").symlink_to(outside)
    targets = ["../outside/a", "/etc/raftwright-a", "a/../../outside/b", "link/c", "x" * 300, "a//b", "."]
    plans = [
        DeliveryPlan(
            image_id=image,
            destination="",
            path=raw.path,
            target=target,
            bytes=raw.bytes,
            crc32c=f"{number:08x}",
        )
        for number, target in enumerate(targets)
    ]
    site.ledger.replicas.plan("far", plans)
    site.hand_off(site.to("far", retries=0))
    wait_for(lambda: site.counts() == {"far": {"delivered": 3, "failed": len(targets)}}, 10, site.counts)
    assert not any(outside.iterdir())
    assert not Path("/etc/raftwright-a").exists()
    assert site.states("far") == {"verified": 3}


def test_a_partial_file_is_continued(site: Site) -> None:
    """D137: cut at about half, the rest costs less than 60 % of it once more."""
    size = 12 << 20
    image = site.image(1, bytes=size, detectors=["R22_S00"])
    raw = next(file for file in site.ledger.files.of(image, "raw"))
    first = site.hand_off(site.to("far", bandwidth=6 << 20, resumable=5 << 20))

    def half() -> bool:
        parts = [path.stat().st_size for path in site.place("far").rglob("*") if path.is_file()]
        return any(size * 0.45 < each < size for each in parts)

    wait_for(half, 10)
    first.stop(0.0)
    second = site.hand_off(site.to("far", resumable=5 << 20))
    site.delivered("far", count=3)
    site.check("far", 1)
    moved = [
        one.bytes
        for one in site.ledger.attempts.of(image)
        if one.outcome == "delivered" and raw.path in one.subject
    ]
    assert len(moved) == 1
    assert moved[0] < 0.6 * size
    assert second.state == "ENABLED"


def test_files_beyond_four_gigabytes_are_counted_right(site: Site) -> None:
    """D145: 32 bits are not enough. The file is sparse, and is planned and entered, not moved."""
    image = site.image(1, detectors=[])
    size = (4 << 30) + 12_345
    path = site.root / "20261122" / "CC_O_20261122_000001" / "CC_O_20261122_000001_R22_S00.fits"
    row = site.file(path, "raw", 1, b"", "R22_S00", bytes=size)
    os.truncate(path, size)
    site.ledger.files.enter([row])
    site.verify(image)
    planner = Planner(site.ledger, [site.to("far", what=["raw"])])
    assert [file.bytes for _, file, _ in planner.lacking(10)] == [size]
    assert planner.plan([image]) == 1
    queue = site.ledger.replicas.queue("far")
    (delivery,) = queue.claim("endpoint:far", 1)
    assert delivery.bytes == size
    queue.end_many([(delivery, "delivered", "", 0.0, size)])
    (replica,) = site.ledger.replicas.of(image)
    assert replica.bytes == size
    assert [one.bytes for one in site.ledger.attempts.of(image)] == [size]
