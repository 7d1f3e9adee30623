"""A place that is not the one that it was: what vanished as a whole is not lost, and not filled on another
disk."""

from __future__ import annotations

import shutil

import msgspec
import pytest
from handoff_stand import Site, files_in, mounted, wait_for

from raftwright.backbone.standing import endpoints_of, standing_of, unconfigured
from raftwright.report.auditing import Options, audit
from raftwright.report.book import open_book
from raftwright.report.places import endpoints_of as endpoints_of_configuration
from raftwright.report.verdicts import What


def test_a_mount_that_vanished_is_an_outage(site: Site) -> None:
    """Its directory is there, empty. Nothing is brought there and nothing is said to be lost; once it is
    back all goes on."""
    site.image(1)
    service = site.hand_off(site.to("far"), site.to("near"))
    site.delivered("far", "near", count=7)
    root, away = site.place("far"), site.path / "away"
    root.rename(away)
    root.mkdir()
    site.image(2)
    site.delivered_to("near", 14)
    service.command("scrub", {"endpoint": "far"})
    wait_for(lambda: service.scrubbers["far"].trouble and service.lanes and service.lanes.trouble("far"))
    assert "raftwright handoff lost far" in service.scrubbers["far"].trouble
    assert any("mount it" in one for one in service.problems())
    assert not files_in(root)
    assert site.states("far") == {"verified": 7}
    root.rmdir()
    away.rename(root)
    site.delivered("far", "near", count=14)
    site.check("far", 1, 2)
    wait_for(lambda: not service.scrubbers["far"].trouble)


def test_a_real_mount(site: Site) -> None:
    with mounted(site.path / "far", "size=4m") as done:
        if not done:
            pytest.skip("nobody may mount here")
        site.image(1)
        service = site.hand_off(site.to("far"))
        site.delivered("far", count=7)
    site.image(2)  # it is unmounted
    wait_for(lambda: service.lanes and service.lanes.trouble("far"))
    assert not list(site.place("far").iterdir())
    assert site.states("far") == {"verified": 7}


def test_one_that_begins_without_its_mount(site: Site) -> None:
    site.image(1)
    service = site.hand_off(site.to("far"))
    site.delivered("far", count=7)
    service.stop(2.0)
    shutil.move(site.place("far"), site.path / "away")
    site.place("far")
    site.image(2)
    service = site.hand_off(site.to("far"))
    wait_for(lambda: any("mount it" in one for one in service.problems()))
    assert not files_in(site.place("far"))


def test_somebody_else_s_files_are_not_ours(site: Site) -> None:
    """Another disk came under the name."""
    site.image(1)
    service = site.hand_off(site.to("far"))
    site.delivered("far", count=7)
    site.place("far").rename(site.path / "away")
    (site.place("far") / "lost+found").mkdir()
    service.command("scrub")
    wait_for(lambda: service.scrubbers["far"].trouble)
    assert site.states("far") == {"verified": 7}


def test_what_is_gone_for_good(site: Site) -> None:
    """Said so by a person, it is brought anew."""
    site.image(1)
    service = site.hand_off(site.to("far"), site.to("near"))
    site.delivered("far", "near", count=7)
    shutil.rmtree(site.place("far"))
    site.place("far")
    while site.ledger.replicas.all_lost("far", "a new disk", most=3):
        pass
    assert site.states("far") == {"lost": 7}
    assert site.states("near") == {"verified": 7}
    service._sweep_due = 0.0
    wait_for(lambda: site.states("far") == {"verified": 7})
    site.check("far", 1)
    steps = [
        row.new for row in site.ledger.events.after(0, 1000, ["replica"]) if row.subject.startswith("far")
    ]
    assert steps.count("lost") == 7


def test_two_names_of_one_directory_are_one_copy(site: Site) -> None:
    """By a link the configuration does not tell."""
    far = site.to("far")
    (site.path / "near").symlink_to(site.place("far"))
    site.image(1)
    service = site.hand_off(far, site.to("near"))
    wait_for(lambda: service.lanes and (service.lanes.trouble("far") or service.lanes.trouble("near")))
    assert any("the same directory" in one for one in service.problems())
    assert len(site.ledger.replicas.counts()) < 2


def test_an_endpoint_that_is_not_configured_counts_no_more(site: Site) -> None:
    """Renamed, its directory the same: that is one copy and not two."""
    image_id = site.image(1)
    service = site.hand_off(site.to("far"))
    site.delivered("far", count=7)
    service.stop(2.0)
    renamed = msgspec.structs.replace(site.to("far"), name="base")
    service = site.hand_off(renamed, site.to("near"), replicas=2)
    site.delivered_to("base", 7)
    site.delivered_to("near", 7)
    service.stop(2.0)
    shutil.rmtree(site.place("near"))
    site.place("near")
    while site.ledger.replicas.all_lost("near", "a new disk"):
        pass
    obsid = site.ledger.images.by_id(image_id).obsid
    files = standing_of(site.ledger, service.settings, obsid)[0].files
    assert not any(file.safe for file in files)
    assert {file.verified for file in files} == {("base",)}
    assert unconfigured(site.ledger, ["base", "near"]) == ["far"]
    assert endpoints_of(site.ledger, service.settings.endpoints)["far"]["kind"] == ""
    service = site.hand_off(renamed, site.to("near"), replicas=2)
    wait_for(lambda: any("handoff lost far" in one for one in service.problems()))


def test_the_audit_says_so_too(site: Site) -> None:
    """Not that each file was delivered and is not there; and its repair asks for nothing."""
    site.image(1)
    service = site.hand_off(site.to("far"))
    site.delivered("far", count=7)

    def findings() -> dict[What, str]:
        places = endpoints_of_configuration(service.settings.endpoints)
        with open_book(site.url) as book:
            images = list(audit(book, Options(archive=site.root, places=places)))
        return {
            finding.what: finding.reason
            for image in images
            for finding in image.findings
            if finding.destination
        }

    assert findings() == {}
    shutil.rmtree(site.place("far"))
    site.place("far")
    found = findings()
    assert set(found) == {What.UNREADABLE}
    assert "is it mounted" in found[What.UNREADABLE]
