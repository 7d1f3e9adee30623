"""From the DAQ's announcement to files at a destination."""

from __future__ import annotations

from archive_stand import Archive, files_in, wait_for


def test_an_image_is_announced_judged_and_delivered(archive: Archive) -> None:
    archiver = archive.archiver(archive.to("oods"), archive.to("copies", link="never"))
    (image,) = archive.take(1, capture=False)
    wait_for(lambda: archive.state(image) == "announced")
    row = archive.ledger.images.get(image.base.name)[0]
    assert (row.expected_sources, row.expected_detectors) == (3, 9)
    archive.hand.capture(image, ["22/0"])
    wait_for(lambda: len(files_in(archive.place("oods"))) == 7)
    assert archive.state(image) == "capturing"
    archive.hand.capture(image, ["22/1", "22/2"])
    wait_for(lambda: archive.state(image) == "complete")
    wait_for(
        lambda: archive.counts() == {name: {"delivered": 19} for name in ("oods", "copies")},
        10,
        archive.counts,
    )
    for name in ("oods", "copies"):
        archive.check(archive.place(name), [image])
    raws = list(archive.place("oods").rglob("*.fits"))
    assert all(path.stat().st_nlink == 2 for path in raws), "they are not linked"
    assert all(path.stat().st_nlink == 1 for path in archive.place("copies").rglob("*.fits"))
    assert not archiver.problems()
