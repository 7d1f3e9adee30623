"""A hand-off into the buffer of a receiving endpoint, which takes away what comes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from handoff_stand import Site, files_in, hidden_in, wait_for

from raftwright.backbone import receiving
from raftwright.backbone.settings import Endpoint
from raftwright.transfer.outcome import Job, RefusedError
from raftwright.transfer.sender import sender_of


@pytest.fixture
def taking(site: Site) -> Iterator[receiving.Endpoint]:
    """Takes in at once all that comes to `far`."""
    made = receiving.Endpoint(
        receiving.Settings(
            buffer=str(site.place("far")),
            storage=str(site.place("stored")),
            settle=0.0,
            verify="no",
            patience=0.0,
        )
    )
    made.start()
    yield made
    made.stop(2.0)


def to_buffer(site: Site) -> Endpoint:
    return site.to("far", storage=str(site.place("stored")))


def stored(site: Site) -> dict[str, bytes]:
    return {name: body for name, body in files_in(site.place("stored")).items() if "LSST" in name}


@pytest.fixture(autouse=True)
def any_content(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of the site are neither FITS nor JSON."""
    monkeypatch.setattr("raftwright.backbone.receiving.intake._cut", lambda *_: "")


def test_what_is_taken_away_is_there(site: Site, taking: receiving.Endpoint) -> None:
    """Brought, taken in, read again in the storage, mended there: never lost, never brought twice."""
    for number in range(1, 9):
        site.image(number)
    service = site.hand_off(to_buffer(site), scrub={"every": 0.0, "rate": 0})
    site.delivered("far", count=56)
    wait_for(lambda: stored(site) == site.expected(*range(1, 9)), said=lambda: len(stored(site)))
    assert taking.taken == 56
    service.command("scrub")
    wait_for(lambda: int(service.scrubbers["far"].status()["files"]) == 56)  # type: ignore[call-overload]
    assert site.states("far") == {"verified": 56}
    victim, lost = sorted(site.place("stored").rglob("*.fits"))[:2]
    spoilt = site.spoil(victim)
    lost.unlink()
    service.command("scrub")
    wait_for(lambda: service.scrubbers["far"].status()["lost"] == 1, 20)
    wait_for(lambda: service.scrubbers["far"].idle and site.states("far") == {"verified": 56}, 20)
    wait_for(lambda: stored(site) == site.expected(*range(1, 9)), said=lambda: len(stored(site)))
    assert hidden_in(site.place("stored"), ".damaged") == [spoilt]
    assert taking.taken == 58


def test_what_is_there_under_the_name(site: Site, tmp_path: Path) -> None:
    sender = sender_of(to_buffer(site).place)
    source = tmp_path / "x.fits"
    source.write_bytes(b"content")
    (site.place("stored") / "d").mkdir()
    (site.place("stored") / "d" / "x.fits").write_bytes(b"content")
    try:
        job = Job(path=str(source), target="d/x.fits", bytes=7, crc32c=sender.crc32c("d/x.fits"))
        assert sender.send(job).how == "there already"
        assert not files_in(site.place("far"))
        assert list(sender.walk()) == [("d/x.fits", 7)]
        assert sender.sizes("d") == {"x.fits": 7}
    finally:
        sender.close()


def test_one_that_is_taken_before_it_is_looked_at(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It left the buffer between its name and the look at it: that is no failure."""
    sender = sender_of(to_buffer(site).place)
    site.image(1)
    file = site.ledger.files.of(1)[0]
    job = Job(path=file.path, target="d/x", bytes=file.bytes, crc32c=file.crc32c)

    def taken(_: Job) -> None:
        there = site.place("stored") / "d" / "x"
        there.parent.mkdir()
        there.write_bytes(Path(file.path).read_bytes())
        raise RefusedError("is not what was written there a moment ago")

    monkeypatch.setattr(sender._buffer, "send", taken)  # type: ignore[attr-defined]
    assert sender.send(job).how == "there already"
    sender.close()
