"""A hand-off: every whole file goes to every endpoint that wants it, and is verified there."""

from __future__ import annotations

import time
from pathlib import Path

from handoff_stand import Site, files_in, wait_for


def test_every_file_goes_to_every_endpoint(site: Site) -> None:
    """N34, D136: copies, read back, read-only, and in the ledger."""
    first = site.image(1)
    site.hand_off(site.to("near"), site.to("far"))
    second = site.image(2)
    site.delivered("near", "far", count=14)
    for name in ("near", "far"):
        site.check(name, 1, 2)
        assert site.states(name) == {"verified": 14}
        for path in site.place(name).rglob("*.fits"):
            now = path.stat()
            assert not now.st_mode & 0o222
            assert now.st_nlink == 1, "a link is no second copy"
    rows = site.ledger.replicas.of(first)
    files = {file.path: file for file in site.ledger.files.of(first)}
    for row in rows:
        assert (row.bytes, row.crc32c, row.adler32) == (
            files[row.path].bytes,
            files[row.path].crc32c,
            files[row.path].adler32,
        )
    ids = [file.id for file in site.ledger.files.of(second)]
    assert site.ledger.replicas.safe(ids, ["near", "far"]) == set(ids)


def test_what_nobody_found_to_hold_goes_nowhere(site: Site) -> None:
    """D139: a file that may still be growing is none of ours."""
    image = site.image(1, verified=False)
    site.hand_off(site.to("near"))
    time.sleep(0.7)
    assert site.counts() == {}
    site.verify(image)
    site.delivered("near", count=7, timeout=7.0)
    site.check("near", 1)


def test_news_make_it_fast_and_the_sweep_makes_it_certain(site: Site) -> None:
    site.hand_off(site.to("near"), sweep=3600.0)
    began = time.monotonic()
    site.image(1)
    site.delivered("near", count=7)
    assert time.monotonic() - began < 3.0


def test_only_what_an_endpoint_wants(site: Site) -> None:
    site.image(1)
    site.image(2, instrument="LATISS")
    site.hand_off(site.to("raws", what=["raw"]), site.to("latiss", instruments=["LATISS"]))
    wait_for(lambda: site.counts() == {"raws": {"delivered": 6}, "latiss": {"delivered": 7}}, 10, site.counts)
    assert all(name.endswith(".fits") for name in files_in(site.place("raws")))
    assert files_in(site.place("latiss")) == site.expected(2, instrument="LATISS")


def test_the_sidecar_is_there_before_its_file(site: Site) -> None:
    """However many files are under way at a time."""
    for number in range(1, 6):
        site.image(number)
    site.hand_off(site.to("near", concurrency=8))
    while site.counts().get("near", {}).get("delivered", 0) < 35:
        for path in site.place("near").rglob("*.fits"):
            assert path.with_suffix(".json").is_file(), path
    site.check("near", *range(1, 6))


def test_an_idle_hand_off_reads_no_data(site: Site) -> None:
    """D140: sweeps ask the ledger; no file is opened, no sum is taken anew."""
    for number in range(1, 4):
        site.image(number, bytes=1_000_000)
    endpoint = site.to("near")
    service = site.hand_off(endpoint, sweep=0.2)
    site.delivered("near", count=21)
    wait_for(lambda: service.idle)
    before = bytes_read()
    time.sleep(1.5)
    assert bytes_read() - before < 2_000_000, "nine files of a megabyte each were not read"
    again = site.hand_off(endpoint, sweep=0.2)  # nor by one that is started anew
    wait_for(lambda: again.phase == "running")
    time.sleep(0.5)
    assert bytes_read() - before < 4_000_000


def bytes_read() -> int:
    """Bytes that this process has read, whether from the disk or not."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("rchar:"):
            return int(line.split()[1])
    raise AssertionError("no /proc/self/io")


def test_of_several_one_works(site: Site) -> None:
    """F14: and the other goes on when it ends."""
    endpoint = site.to("near")
    first, second = site.hand_off(endpoint), site.hand_off(endpoint)
    assert (first.active, second.active) == (True, False)
    site.image(1)
    site.delivered("near", count=7)
    first.stop(2.0)
    site.image(2)
    site.delivered("near", count=14)
    site.check("near", 1, 2)


def test_new_images_go_before_a_backlog(site: Site) -> None:
    """F01: after an outage the oldest of the backlog goes first, and what is new before all of it."""
    absent = site.to("far", concurrency=1)
    site.place("far").rmdir()
    service = site.hand_off(absent, backlog=0.5)
    for number in range(1, 4):
        site.image(number, detectors=["R22_S00"])
    wait_for(lambda: sum(site.counts().get("far", {}).values()) == 9)
    wait_for(lambda: service.problems())
    endpoint = "endpoint:far"
    wait_for(lambda: site.ledger.read("SELECT min(priority) FROM delivery")[0][0] >= 10_000, 10)
    site.image(9, detectors=["R22_S00"])
    wait_for(lambda: sum(site.counts().get("far", {}).values()) == 12)
    site.place("far").mkdir(exist_ok=True)
    site.delivered("far", count=12)
    rows = site.ledger.read(
        "SELECT image.seqnum FROM delivery JOIN image ON image.id = delivery.image_id"
        " WHERE destination = ? ORDER BY delivered_tai",
        (endpoint,),
    )
    order = [row[0] for row in rows]
    # But for the file that found out that the place is back.
    assert order[:4].count(9) == 3, order
    rest = [each for each in order[1:] if each != 9]
    assert rest == sorted(rest), order


def test_a_ledger_that_was_lost(site: Site, tmp_path: Path) -> None:
    """What is there already is read there, and counts again; nothing is sent twice."""
    site.image(1)
    endpoint = site.to("far")
    first = site.hand_off(endpoint)
    site.delivered("far", count=7)
    first.stop(2.0)
    before = {path: path.stat().st_ino for path in site.place("far").rglob("*.fits")}
    anew = Site(tmp_path, f"sqlite:///{tmp_path / 'anew.db'}")
    try:
        anew.image(1)  # the same bytes: they are of the same seed
        anew.hand_off(endpoint)
        anew.delivered("far", count=7)
        assert anew.states("far") == {"verified": 7}
        assert sum(one.bytes for one in anew.ledger.attempts.of(1)) == 0
    finally:
        for one in anew.started:
            one.stop(2.0)
        anew.ledger.close()
    assert {path: path.stat().st_ino for path in site.place("far").rglob("*.fits")} == before


def test_bandwidth_is_bounded(site: Site) -> None:
    """The fast endpoint does not wait for the slow one (D147)."""
    site.image(1, bytes=100_000)
    began = time.monotonic()
    site.hand_off(site.to("slow", bandwidth=200_000), site.to("fast"))
    site.delivered_to("fast", 7)
    fast = time.monotonic() - began
    site.delivered_to("slow", 7)
    slow = time.monotonic() - began
    assert slow > (3 * 100_000 / 200_000) * 0.7
    assert fast < slow / 2
    site.check("slow", 1)
