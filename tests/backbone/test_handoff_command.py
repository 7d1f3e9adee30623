"""`raftwright handoff`: what it does and says, as a command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from handoff_stand import Site, hidden_in

from raftwright.service import config as configuration


def raftwright(site: Site, *words: str, code: int = 0) -> dict[str, Any]:
    """Runs it with two endpoints; its JSON."""
    options = [
        "--out",
        str(site.root),
        "--to",
        f"near={site.place('near')}",
        "--to",
        f"far={site.place('far')}",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "raftwright", "handoff", words[0], *options, *words[1:], "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    if words[0] == "run":
        return {"events": [json.loads(line) for line in done.stdout.splitlines()]}
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_from_plan_to_mended(site: Site) -> None:
    """Dry-run, delivery, standing, a flipped bit, the scrub, and what an image has after each."""
    site.image(1, detectors=["R22_S00"])
    name = "CC_O_20261122_000001"
    planned = raftwright(site, "plan", "--dry-run")
    assert planned["endpoints"]["near"]["files"] == planned["endpoints"]["far"]["files"] == 3
    assert site.counts() == {}, "a dry run writes nothing"
    lacking = raftwright(site, "status", name, code=5)
    assert lacking["images"][0]["safe"] is False
    assert lacking["images"][0]["files"][0]["lacking"] == {"near": "not planned", "far": "not planned"}

    events = raftwright(site, "run", "--until-idle", "300ms")["events"]
    assert events[0]["event"] == "ready"
    assert events[-1]["brought"] == {"near": 3, "far": 3}
    assert [event["standing"] for event in events if event["event"] == "replica"] == ["verified"] * 6
    whole = raftwright(site, "status", name)
    assert all(file["verified"] == ["far", "near"] and file["safe"] for file in whole["images"][0]["files"])
    endpoints = raftwright(site, "status")["endpoints"]
    assert endpoints["near"]["replicas"] == {"verified": 3}
    assert endpoints["near"]["dead_letters"] == []
    assert endpoints["near"]["oldest_check_s"] >= 0

    spoilt = site.spoil(next(site.place("far").rglob("*.fits")))
    report = raftwright(site, "scrub", "--now", "--endpoint", "far")["endpoints"]
    assert list(report) == ["far"]
    assert {key: report["far"][key] for key in ("files", "damaged", "lost", "healed", "left")} == {
        "files": 3,
        "damaged": 1,
        "lost": 0,
        "healed": 1,
        "left": 0,
    }
    site.check("far", 1)
    assert hidden_in(site.place("far"), ".damaged") == [spoilt]
    assert raftwright(site, "plan")["queued"] == 0


def test_what_cannot_be_mended_is_an_exit_code(site: Site) -> None:
    site.image(1, detectors=["R22_S00"])
    raftwright(site, "run", "--until-idle", "200ms")
    for path in site.path.rglob("*.fits"):
        site.let_go(path)
        path.unlink()
    report = raftwright(site, "scrub", "--now", "--patience", "2s", code=5)["endpoints"]
    assert report["near"]["lost"] == report["near"]["left"] == 1
    assert raftwright(site, "status", "CC_O_20261122_000001", code=5)["images"][0]["safe"] is False


def test_a_scrub_beside_a_service(site: Site) -> None:
    """Both bring what is missing; each file is brought once."""
    site.image(1)
    service = site.hand_off(site.to("near"), site.to("far"))
    site.delivered("near", "far", count=7)
    for path in list(site.place("far").rglob("*.fits")):
        site.spoil(path)
    report = raftwright(site, "scrub", "--now")["endpoints"]
    assert report["far"]["damaged"] == report["far"]["healed"] == 3
    assert service.state == "ENABLED"
    site.check("far", 1)
    assert len(hidden_in(site.place("far"), ".damaged")) == 3


def test_dead_letters_are_shown_and_queued_again(site: Site) -> None:
    image = site.image(1, detectors=["R22_S00"])
    del image
    name = "LSSTComCam/20261122/CC_O_20261122_000001/CC_O_20261122_000001_R22_S00.fits"
    taken = site.place("far") / name
    taken.parent.mkdir(parents=True)
    taken.write_bytes(b"another")
    raftwright(site, "run", "--until-idle", "300ms")
    (letter,) = raftwright(site, "status")["endpoints"]["far"]["dead_letters"]
    assert (letter["state"], letter["target"]) == ("conflict", name)
    assert "another content" in letter["reason"]
    standing = raftwright(site, "status", "CC_O_20261122_000001", code=5)
    (lacking,) = [file["lacking"] for file in standing["images"][0]["files"] if file["lacking"]]
    assert lacking["far"].startswith("conflict")
    taken.unlink()
    assert raftwright(site, "again", "--image", "CC_O_20261122_000001")["queued"] == {"near": 0, "far": 1}
    raftwright(site, "run", "--until-idle", "300ms")
    site.check("far", 1)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("again", "--endpoint", "nobody"), 2, "there is no endpoint 'nobody'"),
        (("again", "--image", "nothing"), 1, "the ledger knows no such image"),
        (("status", "nothing"), 1, "the ledger knows no such image"),
    ],
)
def test_errors_are_one_line(site: Site, words: tuple[str, ...], code: int, said: str) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "raftwright",
            "handoff",
            *words,
            "--out",
            str(site.root),
            "--to",
            str(site.path),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == code
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_site_runs_it(site: Site, tmp_path: Path) -> None:
    """`raftwright up` builds it from its section."""
    path = tmp_path / "site.yaml"
    path.write_text(
        f"archive: {{root: {site.root}}}\nlife: {{pages: none, control: none}}\n"
        f"handoff:\n  endpoints: [{{name: far, kind: directory, root: {site.place('far')}}}]\n"
    )
    site.image(1)
    found = configuration.load([str(path)])
    found.common.make_run()
    with found.build("handoff"):
        site.delivered("far", count=7)
    site.check("far", 1)


def test_what_is_gone_for_good_is_said(site: Site) -> None:
    """A new disk under the name of the old one is not filled before; afterwards it is."""
    site.image(1, detectors=["R22_S00"])
    raftwright(site, "run", "--until-idle", "300ms")
    site.place("far").rename(site.path / "away")
    scrubbed = raftwright(site, "scrub", "--now", code=5)["endpoints"]["far"]
    assert scrubbed["lost"] == 0
    assert "handoff lost far" in scrubbed["trouble"]
    said = raftwright(site, "lost", "far", "--dry-run")
    assert (said["lost"], said["queued"]) == (3, 0)
    done = raftwright(site, "lost", "far")
    assert (done["lost"], done["queued"]) == (3, 3)
    raftwright(site, "run", "--until-idle", "300ms")
    site.check("far", 1)
    assert raftwright(site, "status", "CC_O_20261122_000001")["images"][0]["safe"]
    raftwright(site, "lost", "nowhere", code=1)
