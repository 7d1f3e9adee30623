"""`raftwright mirror`, as processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from mirror_stand import Stand, wait_for


def mirror(stand: Stand, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "raftwright", "mirror", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PATH": "/usr/bin:/bin", "XDG_STATE_HOME": str(stand.path / "state"), **_paths()},
    )


def _paths() -> dict[str, str]:
    import os

    return {key: os.environ[key] for key in ("PYTHONPATH", "HOME") if key in os.environ}


def test_once_dry_status_check(stand: Stand) -> None:
    both = (str(stand.source), str(stand.far))
    stand.write("d/new\nname", b"1234")
    stand.write("b", b"b")
    (stand.source / "out").symlink_to("/etc/passwd")
    leads = "is a link that leads out of the tree, to /etc/passwd"
    tried = mirror(stand, "once", *both, "--dry-run", "--json")
    assert tried.returncode == 0, tried.stderr
    last = json.loads(tried.stdout.splitlines()[-1])
    assert last["plans"]["source"] == [
        {"path": "b", "bytes": 1, "what": "new", "reason": ""},
        {"path": "out", "bytes": 11, "what": "skipped", "reason": leads},
        {"path": "d/new\\nname", "bytes": 4, "what": "new", "reason": ""},
    ]
    assert "2 files, 5 B, to be brought; nothing was done" in mirror(stand, "once", *both, "--dry-run").stdout
    (stand.source / "out").unlink()
    assert stand.there() == {}
    assert not (stand.path / "state").exists()
    assert mirror(stand, "status", *both).returncode == 1
    done = mirror(stand, "once", *both, "--settle", "100ms")
    assert done.returncode == 0, done.stderr
    assert "2 mirrored, 2 of them now" in done.stdout
    assert "d/new\\nname: new, 4 B" in done.stdout
    assert stand.same()
    status = json.loads(mirror(stand, "status", *both, "--json").stdout)
    assert status["trees"]["source"]["files"] == {"mirrored": 2}
    assert mirror(stand, "check", *both, "--checksum").returncode == 0
    (stand.far / "b").write_bytes(b"x")
    checked = mirror(stand, "check", *both, "--checksum")
    assert checked.returncode == 5
    assert "b: damaged, is brought again" in checked.stdout
    stand.write("c", b"ours")
    (stand.far / "c").write_bytes(b"theirs")
    done = mirror(stand, "once", *both, "--settle", "100ms")
    assert done.returncode == 5
    assert (stand.far / "b").read_bytes() == b"b"
    assert "c: conflict: another content" in mirror(stand, "status", *both).stdout
    assert mirror(stand, "retry", *both).stdout == "source: 1 file, 0 ingests\n"


def test_nothing_is_written_into_the_tree(stand: Stand) -> None:
    """What would be is refused, by whatever links; a directory that is not there is said at once."""
    stand.write("b", b"b")
    (stand.source / "in").mkdir()
    (stand.path / "link").symlink_to(stand.source / "in")
    both = (str(stand.source), str(stand.far))
    inside = str(stand.source / "manifest.db")
    for words, said in (
        ((str(stand.source), str(stand.path / "link")), "is in the tree"),
        ((*both, "--manifest", inside), "the manifest would be in the tree"),
        ((str(stand.path / "nothing"), str(stand.far)), "there is no such directory"),
        ((str(stand.source), str(stand.path / "nothing")), "there is no such directory"),
    ):
        done = mirror(stand, "once", *words)
        assert done.returncode in (1, 2)
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
    assert sorted(path.name for path in stand.source.rglob("*")) == ["b", "in"]
    assert stand.there() == {}


def test_run_until_it_is_stopped(stand: Stand) -> None:
    """As a service of a site: a configuration, two trees, SIGTERM; what is wrong with a file is said with its
    line."""
    second, far = stand.path / "second", stand.path / "far2"
    second.mkdir()
    far.mkdir()
    site = stand.path / "site.yaml"
    site.write_text(
        f"archive: {{root: {stand.path}/archive}}\n"
        "mirror:\n"
        "  trees:\n"
        f"    - {{name: one, source: {stand.source}, to: {{name: one, kind: directory, root:"
        f" {stand.far}}}, settle: 100 ms}}\n"
        f"    - {{name: two, source: {second}, to: {{name: two, kind: directory, root: {far}}}, settle:"
        f" 100 ms}}\n"
    )
    stand.write("a", b"a")
    (second / "b").write_bytes(b"b")
    process = subprocess.Popen(
        [sys.executable, "-m", "raftwright", "mirror", "run", "--config", str(site), "--json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(lambda: stand.same() and (far / "b").exists(), 20)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["event"] for event in (events[0], events[-1])] == ["ready", "stopped"]
    assert {event["path"] for event in events if event["event"] == "file"} == {"a", "b"}
    assert (stand.path / "archive" / ".mirror").is_dir()
    from raftwright.service import config

    stand.write("later", b"later")
    with config.load([str(site)]).build("mirror") as service:
        wait_for(lambda: stand.same() and service.idle)
        assert {name: tree["files"] for name, tree in service.status()["trees"].items()} == {
            "one": {"mirrored": 2},
            "two": {"mirrored": 1},
        }
    site.write_text(site.read_text().replace("settle", "setle"))
    wrong = mirror(stand, "run", "--config", str(site))
    assert wrong.returncode != 0
    assert "line 4" in wrong.stderr
    assert "settle" in wrong.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("once",), "name SOURCE and DEST"),
        (("once", "/nowhere", "/tmp", "--deleted", "shred"), "Invalid enum value"),
        (("once", "/tmp/x", "/tmp/x/y"), "into itself"),
    ],
)
def test_what_cannot_be_meant(stand: Stand, words: tuple[str, ...], said: str) -> None:
    done = mirror(stand, *words)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_tree_that_is_not_there(stand: Stand, tmp_path: Path) -> None:
    """Said at once; of a site the other trees are mirrored, and it is waited for."""
    done = mirror(stand, "once", str(tmp_path / "none"), str(stand.far))
    assert done.returncode == 1
    assert "mount what belongs there" in done.stderr
    site = tmp_path / "site.yaml"
    far = {"name": "one", "kind": "directory", "root": str(stand.far)}
    tree = {"name": "one", "source": str(tmp_path / "none"), "to": far}
    site.write_text(json.dumps({"archive": {"root": str(tmp_path / "a")}, "mirror": {"trees": [tree]}}))
    done = mirror(stand, "once", "--config", str(site), "--patience", "500ms")
    assert done.returncode == 5
    assert "is it mounted?" in done.stdout
    assert "Errno" not in done.stdout + done.stderr


def test_status_tells_why_a_file_waits(tmp_path: Path) -> None:
    """`once` sends people there."""
    from raftwright.mirror.listing import Facts
    from raftwright.mirror.manifest import Manifest
    from raftwright.mirror.tables import Directory, read_status

    manifest = Manifest(tmp_path / "m.db")
    root = Directory(id=0, path="", times=(1, 2, 3, 4), print=b"", trusted=False, names=set())
    manifest.directory(root)
    for name in ("a", "b"):
        manifest.found(root.id, name, Facts("file", 1, 2, 3, 4), 0.0, 0)
    (entry,) = manifest.claim(1)
    manifest.put_off(entry, 1e18, "Unable to locate credentials")
    manifest.close()
    assert read_status(tmp_path / "m.db", 10)["listed"] == [
        {"path": entry.path, "state": "waiting", "reason": "Unable to locate credentials"}
    ]
