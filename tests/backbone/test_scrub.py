"""Replicas that are read again where they are: what changed or went is found, said, and mended."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from handoff_stand import Site, files_in, hidden_in, wait_for

from raftwright.backbone import HandOff, scrubbing

DETECTORS = ["R22_S00", "R22_S01"]


def handed_over(site: Site, *endpoints: object, **more: object) -> HandOff:
    """Two images of five files each, at all endpoints."""
    for number in (1, 2):
        site.image(number, detectors=DETECTORS)
    service = site.hand_off(*endpoints, **more)  # type: ignore[arg-type]
    site.delivered(*(one.name for one in service.settings.endpoints), count=10)
    return service


def raws(site: Site, name: str) -> list[Path]:
    return sorted(site.place(name).rglob("*.fits"))


def mended(site: Site, name: str, count: int = 10) -> None:
    wait_for(lambda: site.states(name) == {"verified": count}, 10, lambda: site.states(name))


def told(site: Site, thing: str = "replica") -> list[tuple[str, str, str]]:
    """Steps of replicas, in their order: subject, old and new state."""
    return [(row.subject, row.old, row.new) for row in site.ledger.events.after(0, 100_000, [thing])]


def test_a_flipped_bit_is_found_and_mended(site: Site) -> None:
    """N34, F28: size and time are what they were; only reading finds it. What was damaged is kept aside."""
    service = handed_over(site, site.to("far"), site.to("near"))
    victim = raws(site, "far")[1]
    name = str(victim.relative_to(site.place("far")))
    spoilt = site.spoil(victim)
    service.command("scrub", {"endpoint": "far"})
    wait_for(lambda: hidden_in(site.place("far"), ".damaged"))
    mended(site, "far")
    site.check("far", 1, 2)
    assert hidden_in(site.place("far"), ".damaged") == [spoilt]
    steps = [(old, new) for subject, old, new in told(site) if subject == f"far {name}"]
    assert steps == [("", "verified"), ("verified", "damaged"), ("damaged", "verified")]
    assert service.scrubbers["far"].status()["damaged"] == 1
    assert not hidden_in(site.place("near"), ".damaged")


def test_a_file_that_is_lost_afterwards_comes_back(site: Site) -> None:
    service = handed_over(site, site.to("far"))
    for victim in raws(site, "far")[:3]:
        victim.unlink()
    service.command("scrub")
    wait_for(lambda: service.scrubbers["far"].status()["lost"] == 3)
    mended(site, "far")
    site.check("far", 1, 2)


def test_by_schedule_and_no_faster_than_allowed(site: Site) -> None:
    """Every replica is read again so long after it was last, bounded in bytes a second."""
    service = handed_over(site, site.to("far"), scrub={"every": 0.4, "rate": 100_000})
    victim = raws(site, "far")[0]
    site.spoil(victim)
    began, read = time.monotonic(), int(service.scrubbers["far"].status()["bytes"])  # type: ignore[call-overload]
    wait_for(lambda: ("damaged", "verified") in [step[1:] for step in told(site)], 15)
    site.check("far", 1, 2)
    wait_for(lambda: int(service.scrubbers["far"].status()["bytes"]) - read > 100_000)  # type: ignore[call-overload]
    passed = time.monotonic() - began
    assert int(service.scrubbers["far"].status()["bytes"]) - read < 100_000 * (passed + 1.0)  # type: ignore[call-overload]


def test_it_is_mended_from_another_endpoint(site: Site) -> None:
    """The archive has the file no more, or not as it was."""
    service = handed_over(site, site.to("far"), site.to("near"))
    expected = site.expected(1, 2)
    victims = raws(site, "far")
    for number, victim in enumerate(victims):
        site.spoil(victim)
        ours = next(site.root.rglob(victim.name))
        if number % 2:
            ours.unlink()
        else:
            site.spoil(ours)
    service.command("scrub", {"endpoint": "far"})
    wait_for(lambda: len(hidden_in(site.place("far"), ".damaged")) == len(victims))
    mended(site, "far")
    assert files_in(site.place("far")) == expected


@pytest.mark.parametrize("what", ["spoilt", "gone"])
def test_what_retention_took_is_mended_from_another_endpoint(site: Site, what: str) -> None:
    """Files that were removed from the archive on purpose have nothing but their replicas: one that is
    damaged or lost is brought from another, and where there is none that is a problem."""
    service = handed_over(site, site.to("far"), site.to("near"))
    expected = site.expected(1, 2)
    taken = [file for file in site.ledger.files.of(1) if file.kind == "raw"]
    site.ledger.files.removed([file.path for file in taken], "enough copies")
    for file in taken:
        Path(file.path).unlink()
    names = {Path(file.path).name for file in taken}
    for victim in [each for each in raws(site, "far") if each.name in names]:
        if what == "spoilt":
            site.spoil(victim)
        else:
            site.let_go(victim)
            victim.unlink()
    service.command("scrub", {"endpoint": "far"})
    wait_for(lambda: files_in(site.place("far")) == expected, 15, lambda: site.states("far"))
    mended(site, "far")
    assert service.problems() == []
    assert {file.status for file in site.ledger.files.of(1) if file.path in {one.path for one in taken}} == {
        "removed"
    }
    # With no other copy left, somebody has to look.
    for name in ("near", "far"):
        site.spoil(next(each for each in raws(site, name) if each.name in names))
    service.command("scrub")
    wait_for(lambda: any("far: 1 replica is damaged" in said for said in service.problems()), 15)


def test_without_a_good_copy_it_is_said_and_kept(site: Site) -> None:
    """Nothing is lost of what is left, nobody is told that all is well, and a command tries again."""
    service = handed_over(site, site.to("far", retries=1))
    victim = raws(site, "far")[0]
    ours = next(site.root.rglob(victim.name))
    good = ours.read_bytes()
    spoilt = site.spoil(victim)
    ours.unlink()
    service.command("scrub")
    wait_for(lambda: site.counts()["far"] == {"delivered": 9, "failed": 1}, 10, site.counts)
    assert site.states("far") == {"damaged": 1, "verified": 9}
    everything = [*hidden_in(site.place("far"), ".damaged"), *files_in(site.place("far")).values()]
    assert spoilt in everything
    wait_for(lambda: any("dead letter" in said for said in service.problems()))
    file = next(file for file in site.ledger.files.of(1) if file.path == str(ours))
    assert site.ledger.replicas.safe([file.id], 1) == set()
    ours.write_bytes(good)
    service.command("again")
    mended(site, "far")
    site.check("far", 1, 2)


def test_an_endpoint_that_is_not_mounted_has_lost_nothing(site: Site) -> None:
    service = handed_over(site, site.to("far"))
    away = site.path / "away"
    site.place("far").rename(away)
    service.command("scrub")
    wait_for(lambda: service.scrubbers["far"].trouble)
    assert site.states("far") == {"verified": 10}
    assert any("cannot be scrubbed" in said for said in service.problems())
    away.rename(site.path / "far")
    wait_for(lambda: not service.scrubbers["far"].trouble and service.scrubbers["far"].idle, 15)
    assert service.scrubbers["far"].status()["lost"] == 0
    assert service.scrubbers["far"].status()["files"] >= 10


def test_custodial_files_are_held_and_mended_all_the_same(site: Site) -> None:
    """Mode bits, and `chattr +i` where that may be: nobody changes them by mistake, root neither."""
    service = handed_over(site, site.to("vault", custodial=True))
    victim = raws(site, "vault")[0]
    assert not victim.stat().st_mode & 0o222
    assert all(row.custodial for row in site.ledger.replicas.of(1))
    ids = [file.id for file in site.ledger.files.of(1)]
    assert site.ledger.replicas.safe(ids, 1, custodial=1) == set(ids)
    held = _is_held(victim)
    if held:
        with pytest.raises(PermissionError):
            victim.open("r+b")
        with pytest.raises(PermissionError):
            victim.unlink()
    spoilt = site.spoil(victim)
    service.command("scrub")
    wait_for(lambda: hidden_in(site.place("vault"), ".damaged"))
    mended(site, "vault")
    assert hidden_in(site.place("vault"), ".damaged") == [spoilt]
    site.check("vault", 1, 2)
    assert _is_held(victim) == held, "what was mended is held as before"


def test_a_hold_that_is_none_is_said(site: Site) -> None:
    """A custodial endpoint that has mode bits alone is used, and it is told. Where it has to hold, what it
    does not hold counts for nothing."""
    commands = {
        "transfer": ["cp", "{file}", "{dest}"],
        "remote": ["sh", "-c", "chattr() { echo no >&2; return 1; }; {command}"],
    }
    weak = site.by_program("weak", "", commands=commands, custodial=True)
    strict = site.by_program("strict", "", commands=commands, custodial=True, immutable="required")
    site.image(1, detectors=["R22_S00"])
    service = site.hand_off(weak, strict)
    site.delivered_to("weak", 3)
    assert any("weak is custodial" in said and "mode bits alone" in said for said in service.problems())
    wait_for(lambda: any("strict" in said for said in service.problems()))
    assert "delivered" not in site.counts()["strict"]
    assert site.states("strict") == {}, "what is not held is no replica"


def test_a_hold_that_was_let_go_is_taken_again(site: Site) -> None:
    service = handed_over(site, site.to("vault", custodial=True))
    victim = raws(site, "vault")[0]
    if not _is_held(victim):
        pytest.skip("nobody may make files immutable here")
    site.let_go(victim)
    service.command("scrub")
    wait_for(lambda: service.scrubbers["vault"].idle)
    wait_for(lambda: _is_held(victim))


def test_what_nobody_reads_is_told_by_its_age(site: Site) -> None:
    service = handed_over(site, site.to("far"))
    time.sleep(0.3)
    before = service.report()["endpoints"]["far"]["scrub"]["oldest_check_s"]
    assert before >= 0.2
    service.command("scrub")
    wait_for(lambda: service.scrubbers["far"].status()["files"] == 10)
    wait_for(lambda: service.scrubbers["far"].idle)
    status = service.report()["endpoints"]["far"]["scrub"]
    assert status["oldest_check_s"] < before + 0.3
    assert status["bytes"] == sum(
        path.stat().st_size for path in site.place("far").rglob("*") if path.is_file()
    )


def _is_held(path: Path) -> bool:
    from raftwright.transfer.holding import is_immutable

    with path.open("rb") as stream:
        return is_immutable(stream.fileno())


def test_a_clock_that_goes_back_while_it_reads(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every replica is read, none of them again and again until the clock is where it was."""
    service = handed_over(site, site.to("far"))
    scrubber = service.scrubbers["far"]
    now = scrubbing.tai
    monkeypatch.setattr(scrubbing, "tai", lambda: now() + 3600.0)
    scrubber.now()
    monkeypatch.setattr(scrubbing, "tai", now)
    wait_for(lambda: scrubber.idle)
    assert 10 <= int(scrubber.status()["files"]) <= 20  # type: ignore[call-overload]


def test_without_a_better_one_what_is_damaged_stays_in_its_place(site: Site) -> None:
    """The copy in the archive is damaged too, with its size and time: nothing is moved for it."""
    service = handed_over(site, site.to("far", retries=1))
    victim = raws(site, "far")[0]
    ours = next(site.root.rglob(victim.name))
    spoilt = site.spoil(victim)
    site.spoil(ours, at=5000)
    service.command("scrub")
    wait_for(lambda: site.counts()["far"] == {"delivered": 9, "failed": 1}, 10, site.counts)
    assert site.states("far") == {"damaged": 1, "verified": 9}
    assert victim.read_bytes() == spoilt
    assert not hidden_in(site.place("far"), ".damaged")
    site.spoil(ours, at=5000)  # it is good again
    service.command("again")
    mended(site, "far")
    site.check("far", 1, 2)
    assert hidden_in(site.place("far"), ".damaged") == [spoilt]


def test_a_reading_that_failed_damages_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory or a line spoilt what was read; what is there is good."""
    service = handed_over(site, site.to("far"))
    sender = service.scrubbers["far"]._sender
    true, read = sender.crc32c, dict[str, int]()

    def once(target: str) -> str:
        read[target] = read.get(target, 0) + 1
        return "00000000" if read[target] == 1 and target.endswith(".fits") else true(target)

    monkeypatch.setattr(sender, "crc32c", once)
    service.command("scrub")
    wait_for(lambda: service.scrubbers["far"].status()["files"] == 10)
    assert site.states("far") == {"verified": 10}
    assert service.scrubbers["far"].status()["damaged"] == 0


def test_what_is_good_there_is_good_though_no_other_copy_is_left(site: Site) -> None:
    """Said to be damaged, or never entered, and the archive lost its own: it is read once more."""
    service = handed_over(site, site.to("far", retries=1))
    service.stop(2.0)
    victim = raws(site, "far")[0]
    next(site.root.rglob(victim.name)).unlink()
    row = next(row for row in site.ledger.replicas.at("far") if row.target.endswith(victim.name))
    assert site.ledger.replicas.damaged(row, "a reading that failed")
    site.hand_off(site.to("far", retries=1))
    mended(site, "far")


def test_what_is_no_file_is_no_replica(site: Site) -> None:
    """A link to another copy has the name: it is set aside, what it leads to is not touched."""
    service = handed_over(site, site.to("far"))
    first, second = raws(site, "far")[:2]
    elsewhere = site.path / "elsewhere"
    elsewhere.write_bytes(first.read_bytes())
    first.unlink()
    first.symlink_to(elsewhere)
    second.unlink()
    second.mkdir()
    service.command("scrub")
    wait_for(lambda: service.scrubbers["far"].status()["damaged"] == 2)
    mended(site, "far")
    site.check("far", 1, 2)
    assert first.is_file()
    assert not first.is_symlink()
    assert elsewhere.exists()
    aside = list((site.place("far") / ".damaged").rglob("*.fits.1"))
    assert sorted((path.is_symlink(), path.is_dir()) for path in aside) == [(False, True), (True, False)]


def test_what_cannot_be_read_is_told(site: Site) -> None:
    """A link leads out of the tree above it: nobody says that all is well."""
    service = handed_over(site, site.to("far"))
    folder = raws(site, "far")[0].parent
    folder.rename(site.path / "away")
    folder.symlink_to(site.path / "away")
    service.command("scrub")
    wait_for(lambda: any("5 replicas cannot be read" in said for said in service.problems()))
    assert any("is a link" in said for said in service.problems())
