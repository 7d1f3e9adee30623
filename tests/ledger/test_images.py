"""Images: announced, judged, moved along edges; what is known of them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from night import A, facts_of, files_of, keys_of, name_of, row, take, want

from raftwright.errors import FormatError, NotFoundError, UsageError
from raftwright.ledger import Ledger, Outcome
from raftwright.ledger import facts_of as facts_of_daq
from raftwright.ledger.images import exposure_id
from raftwright.rawfile.names import ImageName


def test_an_image_is_announced_once(ledger: Ledger) -> None:
    facts = facts_of()
    image_id = ledger.images.announce(facts)
    assert ledger.images.announce(facts) == image_id
    image = ledger.images.by_id(image_id)
    assert (image.state, image.expected_sources, image.expected_detectors) == ("announced", 3, 9)
    assert (image.dayobs, image.seqnum, image.controller, image.exposure_id) == (
        20261122,
        1,
        "O",
        2026112200001,
    )
    assert (image.camera, image.instrument, image.trigger_tai) == ("LSSTComCam", "LSSTComCam", 1.8e9)
    assert [(event.thing, event.new, event.detail["detectors"]) for event in ledger.events.of(image_id)] == [
        ("image", "announced", 9)
    ]
    other = ledger.images.announce(facts_of(daq_id="2e"))
    assert other != image_id
    assert {row.id for row in ledger.images.get(facts.obsid)} == {image_id, other}
    assert [row.id for row in ledger.images.get(facts.obsid, "2e")] == [other]


def test_a_claim_may_come_before_the_announcement(ledger: Ledger) -> None:
    facts = facts_of()
    claims = ledger.claims.claim(want(*keys_of(facts)[:1]))
    (image,) = ledger.images.get(facts.obsid)
    assert (image.camera, image.state, image.expected_detectors) == ("", "capturing", 0)
    assert ledger.images.judge(image.id).state == "capturing", "nobody knows yet what it must have"
    assert ledger.claims.end(claims[0], Outcome(state="done", files=files_of(facts, claims[0].key.location)))
    assert ledger.images.judge(image.id).state == "capturing"
    assert ledger.images.announce(facts) == image.id
    image = ledger.images.by_id(image.id)
    assert (image.camera, image.expected_sources, image.expected_detectors) == ("LSSTComCam", 3, 9)
    assert {source.kind for source in ledger.images.sources(image.id)} == {"science"}
    take_rest = ledger.claims.claim(want(*keys_of(facts)))
    ledger.claims.end_many(
        [(each, Outcome(state="done", files=files_of(facts, each.key.location))) for each in take_rest]
    )
    assert ledger.images.judge(image.id).state == "complete"


def test_what_is_complete_and_what_is_not(ledger: Ledger) -> None:
    facts = facts_of()
    image_id = take(ledger, facts, "22/0")
    assert ledger.images.judge(image_id).state == "capturing", "the rest may come yet"
    late = ledger.images.judge(image_id, late=True)
    assert late.state == "incomplete"
    assert late.reason.startswith("6 detectors are not whole (R22_S10, R22_S11,"), late.reason
    assert "expected" in late.reason
    assert late.settled_tai is not None
    take(ledger, facts, "22/1", state="incomplete", missing=7)
    event = ledger.events.of(image_id)[-1]
    take(ledger, facts, "22/2")
    judged = ledger.images.judge(image_id)
    assert (judged.state, judged.complete_tai) == ("incomplete", None)
    assert "3 x pixels are missing" in judged.reason
    event = ledger.events.of(image_id)[-1]
    assert event.detail["gaps"] == {"R22_S10": 7, "R22_S11": 7, "R22_S12": 7}
    assert event.detail["missing"] == []
    numbers = ledger.events.last()
    assert ledger.images.judge(image_id) == judged
    assert ledger.events.last() == numbers, "what is said is not said again"
    (claim,) = ledger.claims.claim(want(keys_of(facts)[1]), again=True)
    files = tuple(
        type(file)(
            **{
                **{name: getattr(file, name) for name in file.__struct_fields__},
                "path": file.path.replace(".fits", ".v2.fits"),
                "version": 2,
                "replaces": file.path,
            }
        )
        for file in files_of(facts, "22/1")
    )
    assert ledger.claims.end(claim, Outcome(state="done", files=files))
    done = ledger.images.judge(image_id)
    assert (done.state, done.reason) == ("complete", "")
    assert done.complete_tai is not None
    assert len(ledger.read("SELECT 1 FROM obscore")) == 9, "one row a CCD, the newest version"


def test_only_verified_files_count_where_that_is_asked_for(ledger: Ledger) -> None:
    image_id = take(ledger, facts_of())
    assert ledger.images.judge(image_id, verified=True).state == "capturing"
    files = ledger.files.of(image_id)
    assert ledger.files.all_verified(file.path for file in files[1:]) == 8
    assert ledger.images.judge(image_id, verified=True).state == "capturing"
    assert ledger.images.judge(image_id, verified=True, late=True).reason.endswith("1 x not verified yet")
    assert ledger.files.verified(files[0].path)
    assert ledger.images.judge(image_id, verified=True).state == "complete"
    assert all(file.verified for file in ledger.files.of(image_id))


@pytest.mark.parametrize("how", ["lost", "damaged"])
def test_a_file_that_is_lost_is_fetched_again(ledger: Ledger, how: str) -> None:
    facts = facts_of()
    image_id = take(ledger, facts)
    assert ledger.images.judge(image_id).state == "complete"
    path = files_of(facts, "22/1")[0].path
    if how == "lost":
        assert ledger.files.lost(path)
        assert not ledger.files.lost(path), "known already"
    else:
        assert ledger.files.verified(path, False, "the CRC-32C is another")
    image = ledger.images.by_id(image_id)
    assert image.state == "incomplete"
    assert "R22_S10" in image.reason
    states = {each.detector: each.state for each in ledger.images.detectors(image_id)}
    assert states["R22_S10"] == "missing"
    assert {each.location: each.state for each in ledger.images.sources(image_id)}["22/1"] == "open"
    assert len(ledger.read("SELECT 1 FROM obscore")) == 8
    take(ledger, facts, "22/1")
    assert ledger.images.judge(image_id).state == "complete"
    file = ledger.files.by_path(path)
    assert file is not None
    assert file.status == "written"
    story = [(each.old, each.new) for each in ledger.events.of(image_id) if each.subject == path]
    assert story == [("", "written"), ("written", how), (how, "written")]
    assert not ledger.files.lost("/nowhere/at/all.fits")


def test_images_move_along_edges_only(ledger: Ledger) -> None:
    image_id = ledger.images.announce(facts_of())
    assert ledger.images.move(image_id, "incomplete", "late", {"deadline": 30})
    assert not ledger.images.move(image_id, "incomplete", "late")
    assert ledger.images.move(image_id, "incomplete", "late, and the DAQ is silent")
    assert ledger.images.move(image_id, "complete")
    with pytest.raises(UsageError, match="no step from complete to lost"):
        ledger.images.move(image_id, "lost")
    with pytest.raises(UsageError, match="no state"):
        ledger.images.move(image_id, "finished")
    with pytest.raises(NotFoundError):
        ledger.images.move(image_id + 1, "lost")
    assert [event.new for event in ledger.events.of(image_id)] == [
        *("announced", "incomplete", "incomplete", "complete")
    ]


def test_images_are_selected(ledger: Ledger) -> None:
    ids = [
        ledger.images.announce(facts_of(number, day=day)) for day in (20261121, 20261122) for number in (1, 2)
    ]
    ledger.images.move(ids[2], "incomplete", "x")
    assert [row.id for row in ledger.images.select(20261122)] == ids[2:]
    assert [row.id for row in ledger.images.select(states=["announced"])] == [ids[0], ids[1], ids[3]]
    assert ledger.images.select(states=[]) == []
    assert [row.id for row in ledger.images.select(after_id=ids[0], limit=2)] == ids[1:3]
    assert [row.id for row in ledger.images.select(instrument="LSSTCam")] == []
    assert ledger.images.states([name_of(2), "x"]) == {(name_of(2), "1f"): "announced"}


def test_times_and_facts(ledger: Ledger) -> None:
    image_id = ledger.images.announce(facts_of())
    obsid = name_of(1)
    assert ledger.images.times(obsid, begin_tai=1.8e9, end_tai=1.8e9 + 30, end_readout_tai=math.nan) == 1
    assert (
        ledger.images.facts(obsid, image_type="OBJECT", exposure_time=30, ra=math.inf, target="M\0 51") == 1
    )
    assert ledger.images.facts(name_of(2), image_type="BIAS") == 0
    with pytest.raises(UsageError, match="no facts"):
        ledger.images.facts(obsid, state="complete")
    image = ledger.images.by_id(image_id)
    assert (image.begin_tai, image.end_tai, image.end_readout_tai) == (1.8e9, 1.8e9 + 30, None)
    assert (image.image_type, image.exposure_time, image.ra, image.target) == (
        "OBJECT",
        30.0,
        None,
        "M\\0 51",
    )
    (view,) = ledger.read('SELECT id, day_obs, observation_type, begin_mjd_tai, "group" FROM exposure')
    assert view[:3] == (2026112200001, 20261122, "OBJECT")
    assert view[3] == pytest.approx(1.8e9 / 86400 + 40587)


def test_what_is_told_before_the_announcement_is_kept(ledger: Ledger) -> None:
    obsid = name_of(3)
    assert ledger.images.facts(obsid, image_type="BIAS", target="x") == 0
    assert ledger.images.facts(obsid, target="M 51") == 0
    assert ledger.images.times(obsid, begin_tai=1.8e9) == 0
    image = ledger.images.by_id(ledger.images.announce(facts_of(3)))
    assert (image.image_type, image.target, image.begin_tai) == ("BIAS", "M 51", 1.8e9)
    assert ledger.read("SELECT * FROM early") == []
    with pytest.raises(FormatError):
        ledger.images.facts("nobody knows", target="x")


def test_ids_of_the_daq_are_the_same_with_and_without_zeros(ledger: Ledger) -> None:
    """Files have them without: what is rebuilt from them is not another image."""
    image_id = ledger.images.announce(facts_of(daq_id="00001F"))
    assert ledger.images.announce(facts_of(daq_id="1f")) == image_id
    (image,) = ledger.images.get(name_of(1), "01f")
    assert (image.id, image.daq_id) == (image_id, "1f")
    assert take(ledger, facts_of(daq_id="0001f")) == image_id


def test_paths_are_absolute(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    image_id = ledger.images.announce(facts_of())
    file = row(A, "archive/a.fits")
    assert ledger.files.enter([file]) == 1
    assert ledger.files.enter([row(A, str(tmp_path / "archive/a.fits"))]) == 0
    assert [each.path for each in ledger.files.of(image_id)] == [str(tmp_path / "archive/a.fits")]
    assert ledger.files.verified("archive/a.fits")
    assert ledger.files.lost("archive/a.fits")


def test_headers(ledger: Ledger) -> None:
    facts = facts_of()
    assert ledger.headers.put(facts.obsid, 1, "/h.yaml", 10, "0a", "m", "partial", ["RA is NaN"])
    assert not ledger.headers.put(facts.obsid, 1, "/h.yaml", 10, "0a", "m", "partial")
    with pytest.raises(Exception, match="with other bytes"):
        ledger.headers.put(facts.obsid, 1, "/h.yaml", 10, "0b", "m", "partial")
    image_id = ledger.images.announce(facts)
    assert ledger.images.by_id(image_id).header_state == "partial", "it may come before the DAQ tells"
    other = ledger.images.announce(facts_of(2))
    assert ledger.headers.missed(name_of(2))
    assert not ledger.headers.missed(name_of(2))
    assert not ledger.headers.missed(facts.obsid), "there is one"
    assert ledger.images.by_id(other).header_state == "missing"
    assert ledger.headers.put(name_of(2), 1, "/h2.yaml", 10, "0a", "m", "complete")
    assert ledger.headers.put(name_of(2), 2, "/h2.v2.yaml", 11, "0b", "m", "partial")
    assert ledger.images.by_id(other).header_state == "complete"
    assert [(row.version, row.state) for row in ledger.headers.of(name_of(2))] == [
        (1, "complete"),
        (2, "partial"),
    ]
    (first,) = ledger.headers.of(facts.obsid)
    assert first.problems == ("RA is NaN",)
    story = [(each.old, each.new, each.image_id) for each in ledger.events.after(0, things=["header"])]
    assert story == [
        ("", "partial", None),
        *(("expected", "missing", other), ("missing", "complete", other), ("complete", "complete", other)),
    ]


def test_quarantine(ledger: Ledger) -> None:
    assert ledger.quarantine.put("image", "AT_X_\udcff\n\x1b[2J", "no name of an image")
    assert not ledger.quarantine.put("image", "AT_X_\udcff\n\x1b[2J", "no name of an image")
    assert ledger.quarantine.put("file", b"\xff\xfe" * 5000, "no name at all")
    second, first = ledger.quarantine.all()
    assert (first.count, first.shown) == (2, "AT_X_\\xff\\n\\x1b[2J".replace("\\xff", "\\\\xff"))
    assert bytes.fromhex(first.name_hex) == b"AT_X_\xff\n\x1b[2J"
    assert len(second.name_hex) <= 4096
    assert second.shown.isascii()
    assert [event.thing for event in ledger.events.after(0)] == ["quarantine"] * 2


def test_what_is_set_aside_is_tried_again_and_settled(ledger: Ledger) -> None:
    """It stands until somebody has dealt with it; once more for the same reason it is news again."""
    book = ledger.quarantine
    for name in ("/drop/a.fits", "/drop/b.fits", "/dropped/c.fits", b"/drop/\xff.fits"):
        assert book.put("file", name, "is cut")
    assert book.put("object", "/drop/a.fits", "no name")
    assert {row.name for row in book.standing("file", "/drop/")} == {
        "/drop/a.fits",
        "/drop/b.fits",
        "/drop/\udcff.fits",
    }
    assert book.standing("file", again=True) == []
    assert (book.again("file", "/drop/"), book.again("file", "/drop/")) == (3, 0)
    assert len(book.standing("file", "/drop/", again=True)) == 3
    assert book.put("file", "/drop/a.fits", "is cut"), "it was asked for"
    assert not book.put("file", "/drop/a.fits", "is cut")
    assert book.settle("file", ["/drop/b.fits", "/drop/\udcff.fits", "/nothing"], "it was taken") == 2
    assert book.settle("file", ["/drop/b.fits"], "it was taken") == 0
    assert [row.name for row in book.standing("file", "/drop/")] == ["/drop/a.fits"]
    assert len(book.all()) == 5
    assert book.put("file", "/drop/b.fits", "is cut"), "it came back"
    assert len(book.standing("file", limit=2)) == 2


def test_what_has_no_row_is_noted(ledger: Ledger) -> None:
    ledger.events.note("input", "oods s3://b", "heard", "silent", reason="nothing\x00 came", files=3)
    ledger.events.note("input", "oods s3://a", "heard", "silent")
    ledger.events.note("input", "oods s3://a", "silent", "heard")
    found = ledger.events.newest("input")
    assert [(row.subject, row.new) for row in found] == [("oods s3://b", "silent"), ("oods s3://a", "heard")]
    assert found[0].detail["files"] == 3
    assert ledger.events.newest("output") == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("MC_O_20261122_000001", 2026112200001),
        ("MC_C_20231004_000007", 3023100400007),
        ("MC_C_20231005_000007", 2023100500007),
        ("MC_H_20261122_000001", 4026112200001),
        ("MC_P_20250417_000001", 5025041700001),
        ("MC_P_20250418_000001", 2025041800001),
        ("MC_O_20261122_123456", 0),
        ("MC_X_20261122_000001", 0),
    ],
)
def test_exposure_numbers_are_those_of_the_translators(name: str, expected: int) -> None:
    assert exposure_id(ImageName.parse(name)) == expected


def test_a_name_that_is_none_is_refused(ledger: Ledger) -> None:
    facts = facts_of()
    for name in ("CC_O_20261122_1", "CC_O_20260230_000001", "\0"):
        with pytest.raises(FormatError):
            ledger.images.announce(type(facts)(**{**_fields(facts), "obsid": name}))
    assert facts_of_daq is not None


def _fields(facts: object) -> dict[str, object]:
    return {name: getattr(facts, name) for name in type(facts).__struct_fields__}  # type: ignore[attr-defined]
