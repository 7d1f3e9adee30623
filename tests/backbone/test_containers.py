"""Containers: one file for each image, made, handed over, counted, made again."""

from __future__ import annotations

import json
import os
import time
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from container_stand import SOON, add_sidecar, box, boxes, obsid, packer, ready, settle, unit, whole
from handoff_stand import Site, configuration, endpoint, files_in, hidden_in, running, wait_for

import raftwright.backbone.packing as packing
from raftwright.backbone.packing import Packer
from raftwright.backbone.settings import Settings
from raftwright.backbone.standing import containers_of, standing_of
from raftwright.errors import FormatError, StorageError
from raftwright.ledger import DetectorFacts, ImageFacts, SourceFacts
from raftwright.ledger.checking import check_ledger
from raftwright.ledger.rebuilding import rebuild_image

# -- handing over


def test_an_endpoint_gets_one_file_for_each_image(site: Site) -> None:
    """D172: a container with an index instead of many small files."""
    ready(site, 1, 2)
    service = site.hand_off(site.to("far", what=["container"]), site.to("near"), containers=SOON)
    site.delivered_to("far", 2, timeout=20)
    site.delivered_to("near", 14)
    assert sorted(files_in(site.place("far"))) == [
        f"LSSTComCam/20261122/{obsid(number)}/{obsid(number)}.zip" for number in (1, 2)
    ]
    for number in (1, 2):
        whole(site, number)
        there = site.place("far") / "LSSTComCam" / "20261122" / obsid(number) / box(site, number).name
        assert there.read_bytes() == box(site, number).read_bytes()
        with zipfile.ZipFile(there) as opened:
            assert opened.testzip() is None
            for info in opened.infolist()[:-2]:
                assert opened.read(info) == (box(site, number).parent / info.filename).read_bytes()
    assert site.states("far") == {"verified": 2}
    assert check_ledger(site.ledger) == []
    assert service.report()["containers"]["packed"] == 2


def test_no_container_where_nobody_takes_one(site: Site) -> None:
    ready(site, 1)
    service = site.hand_off(site.to("near"), containers=SOON)
    site.delivered("near", count=7)
    time.sleep(0.5)
    assert not box(site, 1).exists()
    assert service.report()["containers"]["waiting"] == 0


def test_a_file_that_came_later_makes_the_next_version(site: Site) -> None:
    """A late sidecar, then a repaired raw: each version has everything, none is changed."""
    ready(site, 1)
    site.hand_off(site.to("far", what=["container"]), containers=SOON)
    site.delivered_to("far", 1)
    first = box(site, 1).read_bytes()
    add_sidecar(site, 1)
    site.delivered_to("far", 2)
    whole(site, 1, 2)
    assert box(site, 1).read_bytes() == first
    old, new = boxes(site, 1)
    assert (old.replaced_by, new.replaces) == (new.path, old.path)
    assert len(files_in(site.place("far"))) == 2
    assert check_ledger(site.ledger) == []


def test_an_image_waits_for_what_may_come(site: Site) -> None:
    """Not before its files were quiet, nor before it is complete with its header, or the patience is over."""
    site.image(1, verified=False)
    some = packer(site, settle=30.0, patience=1000.0)

    def why() -> str:
        standing = some.standing(unit(site, 1))
        assert standing.state == "missing"
        assert (standing.wait > 0) == bool(standing.reason)
        return standing.reason

    assert "announced" in why()
    settle(site, 1)
    assert "7 of its files were not yet found to hold" in why()
    site.verify(1)
    assert "a moment ago" in why()
    site.ledger.database.change(lambda transaction: transaction.run("UPDATE file SET written_tai = 1.0"))
    assert why() == ""
    for state, header, said in (
        ("complete", "missing", ""),
        ("complete", "expected", "its header is expected"),
        ("complete", "partial", "its header is partial"),
        ("incomplete", "complete", "the image is incomplete"),
    ):
        settle(site, 1, state=state, header=header)
        site.ledger.database.change(
            lambda transaction: transaction.run("UPDATE image SET settled_tai = ?", (packing.tai(),))
        )
        assert why() == said
        settle(site, 1, state=state, header=header)
        assert why() == "", "long ago"


def test_pixels_go_first(site: Site) -> None:
    """Nothing is packed where that would fill the disk: it is told, and tried again."""
    ready(site, 1)
    with pytest.raises(StorageError, match="would leave less than 90% of the file system free"):
        packer(site, reserve=0.9).pack(unit(site, 1))
    service = site.hand_off(
        site.to("far", what=["container"]), containers=msgspec.structs.replace(SOON, reserve=0.9)
    )
    wait_for(lambda: any("cannot be packed" in one for one in service.problems()))
    assert not box(site, 1).exists()


# -- what counts


def test_a_copy_of_the_container_is_one_of_each_file_in_it(site: Site) -> None:
    """The rule of retention: as the files are now, and where the container is good."""
    ready(site, 1)
    site.hand_off(site.to("far", what=["container"], custodial=True), containers=SOON)
    site.delivered_to("far", 1)
    files = [file for file in site.ledger.files.of(1) if file.kind != "container"]
    ids = {file.id for file in files}
    replicas = site.ledger.replicas
    assert replicas.safe(ids, ["far"]) == ids
    assert replicas.safe(ids, 1, custodial=1) == ids
    assert replicas.safe(ids, 2) == replicas.safe(ids, ["near"]) == set()
    assert replicas.safe(ids, 1, but=["far"]) == set()
    assert replicas.safe(ids, 1, checked_since=packing.tai() + 5) == set()
    # One that came later is in no container.
    late = add_sidecar(site, 1)
    row = site.ledger.files.by_path(str(late))
    assert row is not None
    assert row.id not in replicas.safe([row.id], ["far"])
    # One that has other bytes now than in the container.
    other = files[0]
    for column, value in (("crc32c", "00000000"), ("bytes", other.bytes + 1)):
        before = getattr(other, column)
        for now in (value, before):
            site.ledger.database.change(
                lambda transaction, column=column, now=now: transaction.run(
                    f"UPDATE file SET {column} = ? WHERE id = ?", (now, other.id)
                )
            )
            assert (other.id in replicas.safe([other.id], ["far"])) == (now == before)
    # The container itself is not good there.
    (replica,) = [one for one in replicas.at("far") if one.path == str(box(site, 1))]
    replicas.damaged(replica, "for the test")
    assert not replicas.safe(ids, ["far"]) & ids or len(boxes(site, 1)) == 2


def test_an_image_is_safe_by_its_container(site: Site) -> None:
    """`handoff status OBSID`: which files an endpoint has in its container, which not."""
    ready(site, 1)
    service = site.hand_off(site.to("far", what=["container"]), containers=SOON)
    site.delivered_to("far", 1)
    (found,) = standing_of(site.ledger, service.settings, obsid(1))
    assert found.safe
    assert len(found.files) == 8
    service.stop()
    late = add_sidecar(site, 1)
    (found,) = standing_of(site.ledger, service.settings, obsid(1))
    assert not found.safe
    (one,) = [file for file in found.files if not file.safe]
    assert (one.path, dict(one.lacking)) == (str(late), {"far": "no container there has it as it is"})
    (standing,) = containers_of(site.ledger, service.settings)
    assert (standing.state, standing.lacking) == ("old", 1)


def test_a_container_counts_whatever_became_of_single_files_before(site: Site) -> None:
    """`handoff status OBSID` of an endpoint that took single files once, which were lost; and of one that is
    not configured any more: what it has is not called verified."""
    ready(site, 1)
    before = site.hand_off(site.to("far"))
    site.delivered("far", count=7)
    before.stop()
    while site.ledger.replicas.all_lost("far", "for the test"):
        pass
    service = site.hand_off(site.to("far", what=["container"]), containers=SOON)
    wait_for(lambda: site.states("far") == {"lost": 7, "verified": 1}, 15, lambda: site.states("far"))
    (found,) = standing_of(site.ledger, service.settings, obsid(1))
    assert found.safe
    assert [(file.verified, dict(file.lacking)) for file in found.files] == [(("far",), {})] * 8
    other = Settings(endpoints=[site.to("new", what=["container"])])
    (found,) = standing_of(site.ledger, other, obsid(1))
    assert not found.safe
    assert {file.verified for file in found.files} == {()}


def test_a_container_goes_when_all_endpoints_have_it(site: Site) -> None:
    """`keep: until-replicated`: it is `removed` in the ledger, its files stay; a new endpoint gets it made
    anew, with the same bytes."""
    ready(site, 1)
    going = msgspec.structs.replace(SOON, keep="until-replicated")
    first = site.hand_off(site.to("far", what=["container"]), containers=going)
    wait_for(lambda: boxes(site, 1) and boxes(site, 1)[0].status == "removed", said=site.counts)
    wait_for(lambda: not box(site, 1).exists())
    assert site.states("far") == {"verified": 1}
    time.sleep(0.5)
    assert len(boxes(site, 1)) == 1
    assert not box(site, 1).exists(), "it is not made again"
    assert check_ledger(site.ledger) == []
    ids = {file.id for file in site.ledger.files.of(1) if file.kind != "container"}
    assert site.ledger.replicas.safe(ids, ["far"]) == ids
    first.stop()
    site.hand_off(site.to("far", what=["container"]), site.to("new", what=["container"]), containers=going)
    site.delivered_to("new", 1, timeout=20)
    wait_for(lambda: not box(site, 1).exists())
    assert files_in(site.place("new")) == files_in(site.place("far"))
    assert len(boxes(site, 1)) == 1


def test_a_container_goes_though_retention_was_faster(site: Site) -> None:
    """One endpoint was away for long, and what the container is of left the archive meanwhile: it is brought
    still, and goes when all have it."""
    ready(site, 1)
    going = msgspec.structs.replace(SOON, keep="until-replicated")
    away = site.place("away")
    service = site.hand_off(
        site.to("far", what=["container"]), site.to("late", what=["container"]), containers=going, start=False
    )
    site.place("late").rename(away / "late")
    service.start()
    site.started.append(service)
    site.delivered_to("far", 1, timeout=20)
    taken = [file.path for file in site.ledger.files.of(1) if file.kind in ("raw", "sidecar")]
    site.ledger.files.removed(taken, "enough copies")
    for path in taken:
        os.unlink(path)
    (away / "late").rename(site.path / "late")
    site.delivered_to("late", 1, timeout=20)
    wait_for(lambda: boxes(site, 1)[0].status == "removed", 15)
    wait_for(lambda: not box(site, 1).exists())
    time.sleep(0.5)
    assert not [said for said in service.problems() if "packed" in said]
    assert len(boxes(site, 1)) == 1


def test_a_container_that_is_damaged_there_and_gone_here(site: Site) -> None:
    """It is made anew from its files: the same bytes, under the same name; what was there is kept aside."""
    ready(site, 1)
    service = site.hand_off(
        site.to("far", what=["container"]), containers=msgspec.structs.replace(SOON, keep="until-replicated")
    )
    wait_for(lambda: boxes(site, 1) and boxes(site, 1)[0].status == "removed")
    (there,) = (path for path in site.place("far").rglob("*.zip"))
    good = there.read_bytes()
    spoilt = site.spoil(there)
    service.scrubbers["far"].now()
    wait_for(lambda: there.is_file() and there.read_bytes() == good, 20, lambda: site.states("far"))
    wait_for(lambda: site.states("far") == {"verified": 1})
    assert hidden_in(site.place("far"), ".damaged") == [spoilt]


def test_a_scrub_by_hand_mends_it_too(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """`raftwright handoff scrub`, without a service."""
    from raftwright.cli import main

    ready(site, 1)
    going = {"settle": 0, "patience": 0, "reserve": 0, "keep": "until-replicated"}
    config = configuration(site, [endpoint(site, "far", what=["container"])], containers=going)
    with running(config):
        wait_for(lambda: boxes(site, 1) and boxes(site, 1)[0].status == "removed")
        wait_for(lambda: not box(site, 1).exists())
    (there,) = (path for path in site.place("far").rglob("*.zip"))
    good = there.read_bytes()
    site.spoil(there)
    assert main(["handoff", "scrub", "--now", "--config", str(config), "--json"]) == 0
    assert there.read_bytes() == good
    assert site.states("far") == {"verified": 1}
    capsys.readouterr()


def test_a_container_that_rots_here_is_made_anew(site: Site) -> None:
    """A bit of it flips before it left: its files are good, so it is."""
    ready(site, 1)
    some = packer(site)
    some.pack(unit(site, 1))
    good = box(site, 1).read_bytes()
    spoilt = site.spoil(box(site, 1))
    site.hand_off(site.to("far", what=["container"]), containers=SOON)
    site.delivered_to("far", 1, timeout=20)
    assert list(files_in(site.place("far")).values()) == [good]
    (aside,) = box(site, 1).parent.glob("*.damaged-*")
    assert aside.read_bytes() == spoilt
    whole(site, 1)


def test_a_file_that_rots_here_is_in_no_container(site: Site) -> None:
    ready(site, 1)
    raw = next(box(site, 1).parent.glob("*.fits"))
    site.spoil(raw)
    with pytest.raises(FormatError, match=r"the ledger says .* `raftwright audit --digests`"):
        packer(site).pack(unit(site, 1))
    assert not box(site, 1).exists()
    assert boxes(site, 1) == []


def test_what_cannot_be_made_again_is_said(site: Site) -> None:
    """Files of it were removed from the archive: a smaller one never takes its place."""
    ready(site, 1)
    some = packer(site)
    some.pack(unit(site, 1))
    raw = next(box(site, 1).parent.glob("*.fits"))
    site.ledger.files.removed([str(raw)], "retention")
    raw.unlink()
    box(site, 1).unlink()
    site.ledger.files.lost(str(box(site, 1)), "it is not there")
    with pytest.raises(FormatError, match="cannot be made again, 1 of its files"):
        some.pack(unit(site, 1))
    add_sidecar(site, 1)
    made = some.pack(unit(site, 1))
    assert (Path(made.path), made.members) == (box(site, 1, 2), 7)
    old, new = boxes(site, 1)
    assert (old.replaced_by, new.replaces) == ("", ""), "both count: neither has everything"


# -- what stands there already


@pytest.mark.parametrize("what", ["truncated", "empty", "foreign", "of another image"])
def test_a_name_on_the_disk_is_never_the_mark_of_what_is_done(site: Site, what: str) -> None:
    """D162, F44: a zip that somebody left is read; what is none is set aside with the reason, and done
    again."""
    ready(site, 1, 2)
    some = packer(site)
    some.pack(unit(site, 2))
    other = box(site, 2).read_bytes()
    left = {
        "truncated": other[: len(other) // 2],
        "empty": b"",
        "foreign": b"something else",
        "of another image": other,
    }[what]
    box(site, 1).write_bytes(left)
    standing = some.standing(unit(site, 1))
    assert standing.state == "half done"
    made = some.pack(unit(site, 1))
    assert made.how == "packed"
    (aside,) = made.aside
    assert Path(aside).read_bytes() == left
    assert aside.startswith(f"{box(site, 1)}.damaged-")
    whole(site, 1)
    ((shown, reason),) = site.ledger.read("SELECT shown, reason FROM quarantine")
    assert Path(aside).name in shown
    assert reason


@pytest.mark.parametrize("what", ["link", "directory"])
def test_what_is_no_file_and_has_the_name_stays(site: Site, what: str) -> None:
    """The container gets the next one, and is no link to what somebody else may change."""
    ready(site, 1)
    if what == "link":
        box(site, 1).symlink_to(site.path / "elsewhere")
    else:
        box(site, 1).mkdir()
    made = packer(site).pack(unit(site, 1))
    assert (made.path, made.how) == (str(box(site, 1, 2)), "packed")
    whole(site, 1, 2)
    assert os.path.lexists(box(site, 1))


def test_a_container_that_somebody_named_and_died_is_taken(site: Site) -> None:
    """D162: between the name and the ledger."""
    ready(site, 1)
    some = packer(site)
    some.pack(unit(site, 1))
    body = box(site, 1).read_bytes()
    site.ledger.database.change(lambda transaction: transaction.run("DELETE FROM member"))
    site.ledger.database.change(
        lambda transaction: transaction.run("DELETE FROM file WHERE kind = 'container'")
    )
    made = some.pack(unit(site, 1))
    assert (made.how, made.aside) == ("adopted", ())
    assert box(site, 1).read_bytes() == body
    whole(site, 1)
    # One that is older than the files by now is entered, and the next version made.
    site.ledger.database.change(lambda transaction: transaction.run("DELETE FROM member"))
    site.ledger.database.change(
        lambda transaction: transaction.run("DELETE FROM file WHERE kind = 'container'")
    )
    add_sidecar(site, 1)
    assert some.pack(unit(site, 1)).how == "packed"
    whole(site, 1, 2)
    assert [row.version for row in boxes(site, 1)] == [1, 2]


def test_two_who_pack_at_a_time(site: Site) -> None:
    """The bytes are the same, so both are right."""
    ready(site, 1)
    one, other = packer(site), packer(site)
    before = unit(site, 1)
    assert one.pack(before).how == "packed"
    assert other.pack(before).how in ("packed", "adopted", "there")
    whole(site, 1)
    assert len(boxes(site, 1)) == 1


def test_what_another_named_meanwhile_is_not_set_aside(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two find the same truncated zip; one is through with it, and with the container, before the other."""
    ready(site, 1)
    left = b"PK truncated"
    box(site, 1).write_bytes(left)
    real, other = packing.check_container, packer(site)

    def slowly(path: Any, **more: Any) -> Any:
        try:
            return real(path, **more)
        finally:
            monkeypatch.setattr(packing, "check_container", real)
            assert other.pack(unit(site, 1)).how == "packed"

    monkeypatch.setattr(packing, "check_container", slowly)
    assert packer(site).pack(unit(site, 1)).how in ("there", "adopted")
    whole(site, 1)
    assert [path.read_bytes() for path in box(site, 1).parent.glob("*.damaged-*")] == [left]


def _namesake(site: Site, number: int) -> int:
    """Another image with the name of one, as of a DAQ that gave it twice; it stands in the same directory."""
    image_id = site.ledger.images.announce(
        ImageFacts(
            obsid=obsid(number),
            daq_id="beef",
            camera="LSSTComCam",
            instrument="LSSTComCam",
            sources=(SourceFacts("22/1", "science", 48384),),
            detectors=(DetectorFacts("R22_S10", "22/1", "SCIENCE"),),
        )
    )
    path = box(site, number).with_name(f"{obsid(number)}_R22_S10.fits")
    row = site.file(path, "raw", number, b"pixels" * 100, "R22_S10", daq_id="beef", location="22/1")
    site.ledger.files.enter([row])
    site.verify(image_id)

    def work(transaction: Any) -> None:
        site.ledger.images.move_in(transaction, image_id, "complete", "for the test")
        transaction.run(
            "UPDATE image SET header_state = 'complete', settled_tai = 1.0 WHERE id = ?", (image_id,)
        )

    site.ledger.database.change(work)
    return image_id


@pytest.mark.parametrize("was", ["there", "removed", "not entered yet"])
def test_two_images_of_one_name_have_containers_of_their_own(site: Site, was: str) -> None:
    """The one is no stray of the other, and neither takes the other's name."""
    ready(site, 1)
    other = _namesake(site, 1)
    first, *_ = site.ledger.images.get(obsid(1))
    some = packer(site)
    if was == "not entered yet":  # named a moment ago, by another thread
        (mine,) = site.ledger.containers.units([first.id])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(site.ledger.containers, "enter", lambda *_: (_ for _ in ()).throw(OSError(5, "x")))
            with pytest.raises(OSError, match="x"):
                some.pack(mine)
    else:
        (mine,) = site.ledger.containers.units([first.id])
        assert some.pack(mine).how == "packed"
    if was == "removed":
        site.ledger.files.removed([str(box(site, 1))], "for the test")
        box(site, 1).unlink()
    (theirs,) = site.ledger.containers.units([other])
    made = some.pack(theirs)
    assert (made.how, made.path, made.members, made.aside) == ("packed", str(box(site, 1, 2)), 1, ())
    (mine,) = site.ledger.containers.units([first.id])
    made = some.pack(mine)
    assert made.how == {"there": "there", "removed": "there", "not entered yet": "adopted"}[was]
    assert made.aside == ()
    for image_id in (first.id, other):
        (now,) = site.ledger.containers.units([image_id])
        assert now.standing() == "whole"
        assert len(now.containers) == 1
    assert not list(box(site, 1).parent.glob("*.damaged-*"))
    assert check_ledger(site.ledger) == []


def test_a_file_that_is_again_what_it_was_once(site: Site) -> None:
    """Damaged, made otherwise, and then the first one came back: the container of that content is old, and
    is not made for ever."""
    ready(site, 1)
    some = packer(site)
    assert some.pack(unit(site, 1)).path == str(box(site, 1))
    path = box(site, 1).with_name(f"{obsid(1)}_R22_S00.json")
    bodies = [path.read_bytes(), b"other"]
    for version, body in ((2, bodies[1]), (3, bodies[0])):
        path.unlink()
        site.ledger.files.lost(str(path))
        site.ledger.files.enter([site.file(path, "sidecar", 1, body, "R22_S00")])
        site.ledger.files.all_verified([str(path)])
        assert some.pack(unit(site, 1)).path == str(box(site, 1, version))
        whole(site, 1, version)
    assert box(site, 1, 3).read_bytes() == box(site, 1).read_bytes()


def test_an_image_that_is_read_out_is_not_packed_by_hand(site: Site) -> None:
    site.image(1)
    standing = packer(site).standing(unit(site, 1))
    assert standing.wait > 0
    assert standing.reason == "the image is announced"


def test_a_rebuild_knows_what_is_in_a_container(site: Site, tmp_path: Path) -> None:
    """`raftwright ledger rebuild`: by the containers themselves. A damaged one is set aside."""
    from raftwright.camera import camera
    from raftwright.daq import simulate_image
    from raftwright.ledger import open_ledger
    from raftwright.ledger.rebuilding import rebuild
    from raftwright.rawfile import write_image

    found = camera("MiniCam")
    names = ["MN_O_20261122_000007", "MN_O_20261122_000008"]
    root = tmp_path / "other"
    for name in names:
        write_image(simulate_image(found, name, seed=3), root, camera=found, durable=False)
    url = f"sqlite:///{tmp_path}/first.db"
    with open_ledger(url) as ledger:
        rebuild(ledger, root)
        chosen = msgspec.structs.replace(SOON, always=True)
        some = Packer(ledger, lambda: chosen, ())
        units = ledger.containers.units(ledger.containers.ids())
        made = [some.pack(each) for each in units]
        assert len(made) == 2
        want = ledger.read(
            "SELECT path, bytes, crc32c, version FROM file WHERE kind = 'container' ORDER BY path"
        )
        inside = "SELECT box.path, file.path, member.crc32c FROM member JOIN file ON file.id = member.file_id"
        inside += " JOIN file AS box ON box.id = member.container_id ORDER BY 1, 2"
        members = ledger.read(inside)
    with open_ledger(f"sqlite:///{tmp_path}/second.db") as ledger:
        assert rebuild(ledger, root).strange == 0
        assert (
            ledger.read(
                "SELECT path, bytes, crc32c, version FROM file WHERE kind = 'container' ORDER BY path"
            )
            == want
        )
        assert ledger.read(inside) == members
        assert check_ledger(ledger) == []
        assert rebuild(ledger, root).new_files == 0
    body = bytearray(Path(made[0].path).read_bytes())
    body[200] ^= 1
    Path(made[0].path).write_bytes(body)
    with open_ledger(f"sqlite:///{tmp_path}/third.db") as ledger:
        result = rebuild(ledger, root)
        assert [path for path, _ in result.listed] == [made[0].path]
        assert len(ledger.read("SELECT 1 FROM file WHERE kind = 'container'")) == 1
        assert rebuild_image(ledger, Path(made[1].path).parent).new_files == 0


def test_the_audit_lists_what_is_half_done(site: Site) -> None:
    """D162: missing, older than the files, damaged, and what stands there that the ledger does not have."""
    from raftwright.report.auditing import Options, audit
    from raftwright.report.book import open_book
    from raftwright.report.places import endpoints_of

    ready(site, 1, 2, 3, 4, 5, 6)
    some = packer(site)
    for number in (2, 3, 4, 5):
        some.pack(unit(site, number))
    add_sidecar(site, 3)
    site.ledger.files.verified(str(box(site, 4)), ok=False, reason="for the test")
    box(site, 5).unlink()
    box(site, 6).write_bytes(b"PK")
    os.utime(box(site, 6), (1, 1))
    options = Options(
        archive=site.root, places=endpoints_of([site.to("far", what=["container"])]), settle=0.0
    )
    with open_book(site.url) as book:
        said = {
            image.obsid: [
                (one.what.value, one.reason)
                for one in image.findings
                if ".zip" in str(one) or "cont" in str(one)
            ]
            for image in audit(book, options, now=packing.tai() + 100)
        }
    assert ("container", "has no container") in said[obsid(1)]
    assert [one for one in said[obsid(2)] if one[0] != "unplanned"] == []
    assert ("container", "is older than the image: 1 file is not in it") in said[obsid(3)]
    assert any(what == "container" and "damaged" in why for what, why in said[obsid(4)]) or any(
        what == "back" for what, _ in said[obsid(4)]
    )
    assert any(what == "gone" for what, _ in said[obsid(5)])
    assert any(what == "unknown" and "container" in why for what, why in said[obsid(6)])


def test_repair_and_the_packer_mend_a_container(site: Site) -> None:
    """Cut after it was entered, gone, and one that the ledger does not have: `raftwright repair`, then
    `handoff pack`."""
    from raftwright.report.auditing import Options, audit
    from raftwright.report.book import open_book
    from raftwright.report.repairing import Repairer

    ready(site, 1, 2)
    some = packer(site)
    good = {number: Path(some.pack(unit(site, number)).path).read_bytes() for number in (1, 2)}
    box(site, 1).write_bytes(good[1][:-100])
    box(site, 2).unlink()
    with open_book(site.url) as book:
        found = list(audit(book, Options(archive=site.root, settle=0.0), now=packing.tai() + 100))
    repairs = [repair for image in found for repair in Repairer(site.ledger).repair(image)]
    done = {(one.action, Path(one.subject).name) for one in repairs}
    assert {("marked damaged", f"{obsid(1)}.zip"), ("marked lost", f"{obsid(2)}.zip")} <= done
    assert (unit(site, 1).standing(), unit(site, 2).standing()) == ("damaged", "lost")
    for number in (1, 2):
        assert some.pack(unit(site, number)).how == "packed"
        assert box(site, number).read_bytes() == good[number]
        whole(site, number)


# -- the command


def test_the_command(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """`raftwright handoff pack`: a dry run, images, all; what cannot be packed is told, the rest is done."""
    from raftwright.cli import main

    ready(site, 1, 2, 3)
    config = configuration(site, [endpoint(site, "far", what=["container"])], containers={"reserve": 0})
    options = ["--config", str(config), "--json"]

    def run(*arguments: str) -> tuple[int, Any]:
        code = main(["handoff", *arguments, *options])
        return code, json.loads(capsys.readouterr().out)

    code, said = run("pack", "--dry-run")
    assert (code, said["packed"], [one["was"] for one in said["images"]]) == (0, 3, ["missing"] * 3)
    assert not list(site.root.rglob("*.zip"))
    code, said = run("status")
    assert [one["state"] for one in said["containers"]] == ["missing"] * 3
    code, said = run("pack", obsid(2))
    assert (code, said["packed"], said["images"][0]["members"]) == (0, 1, 7)
    site.spoil(next(box(site, 3).parent.glob("*.fits")))
    code, said = run("pack", "--night", "20261122")
    assert (code, said["packed"], said["there"], said["failed"]) == (5, 1, 1, 1)
    assert "the ledger says" in said["images"][2]["error"]
    assert main(["handoff", "pack", "XX_O_20261122_000099", *options]) != 0
    capsys.readouterr()
    code, said = run("status", obsid(1))
    assert code == 5
    for number in (1, 2):
        whole(site, number)


def test_settings_that_make_no_sense() -> None:
    for wrong in ({"workers": 0}, {"reserve": 1.0}, {"keep": "never"}, {"settle": -1}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({"containers": wrong}, Settings)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(
            {"endpoints": [{"name": "a", "kind": "directory", "root": "/a", "what": ["zip"]}]}, Settings
        )
