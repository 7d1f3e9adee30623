"""The story of an image: `raftwright image`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from nights import FULL, TONIGHT, Archive, Nights

from raftwright.report.book import open_book
from raftwright.report.focal_plane import draw_plane
from raftwright.report.story import find_images, story

Run = Callable[..., Any]


def test_everything_about_an_image(busy: Archive, run: Run) -> None:
    answer = run("image", "CC_O_20261122_000007", busy.root, "--json").json
    (told,) = answer["images"]
    assert told["image"]["state"] == "incomplete"
    assert told["image"]["exposure_id"] == 2026112200007
    assert [row["location"] for row in told["sources"]] == ["22/0", "22/1", "22/2"]
    assert {row["detector"] for row in told["detectors"] if row["state"] != "present"} == {"R22_S11"}
    assert len(told["files"]) == 17
    assert {row["kind"] for row in told["files"]} == {"manifest", "raw", "sidecar"}
    assert told["headers"][0]["state"] == "complete"
    assert [row["new"] for row in told["events"] if row["thing"] == "image"] == [
        *("announced", "capturing", "incomplete")
    ]
    assert told["attempts"][0]["outcome"] == "done"
    assert told["latencies_s"]["complete"] is None
    assert 0 < told["latencies_s"]["first_file"] < told["latencies_s"]["last_file"] < 1


def test_for_people(busy: Archive, run: Run) -> None:
    done = run("image", "CC_O_20261122_000007", busy.root)
    assert (done.code, done.err) == (0, "")
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    assert max(map(len, done.out.splitlines())) <= 100
    assert lines[0] == "CC_O_20261122_000007 incomplete"
    assert "22/1: 3 chunks never came" in lines
    assert "R22 # . #" in lines
    assert "R22_S11 22/1 expected - 22/1: 3 chunks never came" in lines
    assert "22/1 science failed 18.4 kB 18.4 kB 1 22/1: 3 chunks never came" in lines
    assert any(line.startswith("first raw file 2026-11-22T") and line.endswith("s") for line in lines)
    assert any(line.endswith("source 3 of them expected -> claimed host:1") for line in lines)


def test_a_delivered_image(busy: Archive, run: Run) -> None:
    answer = run("image", "CC_O_20261122_000001", busy.root, "--json").json
    (told,) = answer["images"]
    assert told["latencies_s"]["complete"] == pytest.approx(0.51)
    assert told["latencies_s"]["delivered"] == pytest.approx(2.01)
    text = run("image", "CC_O_20261122_000001", busy.root).out
    assert "19/19" in text
    assert "19 delivered" in text


@pytest.mark.parametrize(
    "name", ["cc_o_20261122_000007", "CC_O_20261122_7", "2026112200007", " CC_O_20261122_000007 "]
)
def test_names_as_people_type_them(busy: Archive, name: str) -> None:
    with open_book(str(busy.root / "ledger.db")) as book:
        assert find_images(book, name) == [9]


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("CC_O_20261122_000023", "CC_O_20261122_000018, CC_O_20261122_000019, CC_O_20261122_000020"),
        ("2026112200023", "CC_O_20261122_000020"),
        ("000012", "CC_O_20261122_000012"),
        ("CC_O_20261122_00001x", "CC_O_20261122_00001"),
        ("\x1b[2Jzzz", "CC_O_20261122_000002"),
        ("zzz", "CC_O_20261122_000016, CC_O_20261122_000017"),
    ],
)
def test_a_name_that_is_not_there(busy: Archive, run: Run, name: str, near: str) -> None:
    done = run("image", name, busy.root)
    assert done.code == 1
    assert near in done.err
    assert "\x1b" not in done.err
    assert len(done.err.splitlines()) == 1


def test_two_images_of_one_name_are_both_told(busy: Archive, run: Run) -> None:
    busy.run(
        "INSERT INTO image (obsid, daq_id, camera, instrument, dayobs, seqnum, controller, exposure_id,"
        " announced_tai) SELECT obsid, 'ffff', camera, instrument, dayobs, seqnum, controller, exposure_id,"
        " announced_tai + 5 FROM image WHERE obsid = 'CC_O_20261122_000007'"
    )
    done = run("image", "CC_O_20261122_000007", busy.root)
    assert "The DAQ gave this name to 2 images" in done.out
    assert len(run("image", "CC_O_20261122_000007", busy.root, "--json").json["images"]) == 2


def test_a_header_that_came_before_the_image_is_in_its_story(busy: Archive) -> None:
    busy.run(
        "INSERT INTO event (at_tai, obsid, dayobs, thing, subject, new)"
        " VALUES (0, 'CC_O_20261122_000007', ?, 'header', '1', 'complete')",
        TONIGHT,
    )
    with open_book(str(busy.root / "ledger.db")) as book:
        events = story(book, 9).events
    assert sum(1 for row in events if row["thing"] == "header") == 1


def test_what_services_wrote_cannot_act_on_a_terminal(busy: Archive, run: Run) -> None:
    busy.run("UPDATE image SET reason = 'a' || char(27) || '[31mb' || char(10) || 'forged' WHERE id = 9")
    out = run("image", "CC_O_20261122_000007", busy.root).out
    assert "\x1b" not in out
    assert "a\\x1b[31mb\\nforged" in out


def test_a_full_focal_plane(archive: Archive, run: Run) -> None:
    archive.nights.connection.execute("BEGIN")
    full = Nights(archive.nights.connection, archive.root, camera="LSSTCam", code="MC", detectors=FULL)
    assert len(full.detectors) == 205
    full.image(TONIGHT, 1, absent=("R22_S11", "R00_SG0"), state="incomplete", reason="two are missing")
    archive.nights.connection.execute("COMMIT")
    out = run("image", "MC_O_20261122_000001", archive.root).out
    assert max(map(len, out.splitlines())) <= 100
    plane = [line.strip() for line in out.splitlines() if set(line.strip()) <= set("#. ") and "#" in line]
    assert len(plane) == 15
    assert sum(line.count("#") for line in plane) == 203
    assert plane[7].split("  ")[2] == "# . #"  # the middle of the middle
    # x to the right, y up: R00 is at the bottom left, its SG0 on the right of it, its SG1 above.
    assert plane[-2].startswith("# .  # # #")
    assert len(out.splitlines()) < 100


def test_places_in_the_map() -> None:
    raft = draw_plane({"R22_S00": "a", "R22_S22": "b", "R22_S01": "c"})
    assert raft == ["         b", "R22", "     a c"]
    assert draw_plane({"R00_S00": "#"})[2].split() == ["#"]
    plane = draw_plane({"R01_S11": "a", "R10_S11": "b"})
    assert [line.find("b") for line in plane[:3]] == [-1, 2, -1]
    assert [line.find("a") for line in plane[4:]] == [-1, 9, -1]
    assert draw_plane({"strange": "x"}) == ["strange x"]
