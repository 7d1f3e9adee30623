"""A hand-off: every whole file goes to every endpoint that wants it, and is verified there."""

from __future__ import annotations

import stat
import time

from handoff_stand import Site, wait_for


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
    assert not stat.S_ISDIR(0)


def test_only_what_an_endpoint_wants(site: Site) -> None:
    site.image(1)
    site.image(2, instrument="LATISS")
    site.hand_off(site.to("raws", what=["raw"]), site.to("latiss", instruments=["LATISS"]))
    wait_for(lambda: site.counts() == {"raws": {"delivered": 6}, "latiss": {"delivered": 7}}, 10, site.counts)
    assert all(name.endswith(".fits") for name in site.expected(1) if name in site.place("raws").iterdir())
