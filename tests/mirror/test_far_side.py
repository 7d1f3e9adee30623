"""Far sides that are down, full, corrupting, lose files, or are no directory; and what is in the way
there."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mirror_stand import Stand, wait_for

from raftwright.transfer import directory


def test_down_and_back(stand: Stand) -> None:
    """Nothing is given up; what waits is brought when it is back, and what came meanwhile."""
    stand.write("a", b"a")
    with stand.mirror() as mirror:
        wait_for(stand.same, why=mirror.status)
        away = stand.path / "away"
        os.rename(stand.far, away)
        stand.write("b", b"b")
        wait_for(lambda: any("no such directory" in one for one in mirror.status()["problems"]))
        stand.write("c", b"c")
        time.sleep(0.5)
        assert not stand.far.exists(), "it wrote where nothing is mounted"
        os.rename(away, stand.far)
        wait_for(stand.same, why=mirror.status)
        wait_for(lambda: mirror.status()["problems"] == [])


def test_full(stand: Stand, tmp_path: Path) -> None:
    """F: a file system without room; the old content stays until the new one is there."""
    place = tmp_path / "small"
    place.mkdir()
    if (
        os.getuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(place)], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("cannot mount here")
    try:
        stand.far = place
        stand.write("a", b"a" * 100_000)
        with stand.mirror() as mirror:
            wait_for(stand.same, why=mirror.status)
            stand.write("a", b"b" * 350_000)
            wait_for(lambda: any("No space left" in one for one in mirror.status()["problems"]))
            assert stand.there() == {"a": b"a" * 100_000}
            stand.write("a", b"c" * 10_000)
            wait_for(stand.same, why=mirror.status)
            assert stand.versions() == {"a": [b"a" * 100_000]}
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


def test_corrupting(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not there as it was sent has no name there, and is sent again."""
    real = directory.pour
    times: list[int] = []

    def pour(reader: int, writer: int, *more: Any) -> int:
        moved = real(reader, writer, *more)
        if len(times) < 3:
            times.append(os.pwrite(writer, b"X", 5))
        return moved

    monkeypatch.setattr(directory, "pour", pour)
    stand.write("a", b"0123456789")
    stand.once()
    assert len(times) == 3
    assert stand.there() == {"a": b"0123456789"}


def test_losing_and_damaging_afterwards(stand: Stand) -> None:
    """A check finds what is lost and what has flipped a bit; both are brought again, the damaged one is
    kept."""
    for name in ("lost", "short", "flipped", "well"):
        stand.write(name, name.encode() * 100)
    stand.once()
    (stand.far / "lost").unlink()
    (stand.far / "short").write_bytes(b"short")
    with (stand.far / "flipped").open("r+b") as stream:
        stream.write(b"F")
    with stand.mirror() as mirror:
        found = mirror.obey("check", {})["tree"]
        assert {item["path"]: item["what"] for item in found["listed"]} == {
            "lost": "lost",
            "short": "damaged",
        }
        found = mirror.obey("check", {"read": True, "tree": "tree"})["tree"]
        assert ("flipped", "damaged") in [(item["path"], item["what"]) for item in found["listed"]]
        wait_for(lambda: {k: v for k, v in stand.there().items() if "/" not in k} == stand.files())
    kept = {path.name for path in (stand.far / ".damaged").rglob("*")}
    assert kept == {"short.1", "flipped.1"}


def test_another_content_that_we_did_not_bring(stand: Stand) -> None:
    """It is left as it is and told; or kept as a version, where the policy says so."""
    (stand.far / "a").write_bytes(b"theirs")
    (stand.far / "same").write_bytes(b"same")
    stand.write("a", b"ours")
    stand.write("same", b"same")
    done = stand.once()
    assert {item["path"]: item["state"] for item in done} == {"a": "conflict", "same": "mirrored"}
    assert stand.there()["a"] == b"theirs"
    assert stand.once() == []
    with stand.mirror(strange="version") as mirror:
        assert mirror.obey("retry", {}) == {"tree": {"files": 1, "ingests": 0}}
        wait_for(stand.same, why=mirror.status)
    assert stand.versions() == {"a": [b"theirs"]}


def test_links_there_lead_nothing_out(stand: Stand, tmp_path: Path) -> None:
    """Somebody puts a link where a directory was: nothing is written through it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    os.symlink(outside, stand.far / "a")
    stand.write("a/b", b"b")
    done = stand.once()
    assert [item["state"] for item in done] == ["conflict"]
    assert "is no directory there" in done[0]["reason"]
    assert list(outside.iterdir()) == []


def test_a_link_that_becomes_a_directory_here(stand: Stand, tmp_path: Path) -> None:
    """The trick of a tree: first a link, that is mirrored, and then a directory of the same name."""
    outside = tmp_path / "outside"
    outside.mkdir()
    os.symlink(outside, stand.source / "a")
    stand.once(links="copy")
    assert os.readlink(stand.far / "a") == str(outside)
    (stand.source / "a").unlink()
    stand.write("a/passwd", b"evil")
    stand.once(links="copy")
    assert list(outside.iterdir()) == []
    assert stand.there() == {"a/passwd": b"evil"}


@pytest.mark.parametrize("policy", ["inside", "copy", "skip"])
def test_links_of_the_tree(stand: Stand, policy: str) -> None:
    """Links are made or left out, and told; never followed."""
    stand.write("d/file", b"content")
    links = {
        "in": "d/file",
        "d/up": "../d/file",
        "out": "/etc/passwd",
        "d/out": "../../../etc/passwd",
        "dir": "d",
        "d/trick": "../dir/../../etc",
    }
    for name, text in links.items():
        os.symlink(text, stand.source / name)
    os.symlink("loop", stand.source / "loop")
    os.mkfifo(stand.source / "pipe")
    done = {item["path"]: item for item in stand.once(links=policy)}
    made = {name for name in (*links, "loop") if os.path.islink(stand.far / name)}
    inside = {"in", "d/up", "dir", "loop"}
    assert made == {"inside": inside, "copy": {*links, "loop"}, "skip": set()}[policy]
    assert {name for name, item in done.items() if item["state"] == "skipped"} == {
        *links,
        "loop",
        "pipe",
    } - made
    assert all(item["reason"] for item in done.values() if item["state"] == "skipped")
    assert (stand.far / "d/file").read_bytes() == b"content"
    if made:
        (stand.source / "in").unlink()
        os.symlink("dir", stand.source / "in")
        stand.once(links=policy)
        assert os.readlink(stand.far / "in") == "dir"


def test_directories_that_become_links_while_it_looks(stand: Stand, tmp_path: Path) -> None:
    """A directory is replaced by a link out of the tree between finding and reading: nothing of there is
    read."""
    outside = tmp_path / "secret"
    outside.mkdir()
    (outside / "file").write_bytes(b"secret")
    stand.write("d/file", b"mine")
    with stand.mirror(watch="never", every=60.0, settle=1.0) as mirror:
        wait_for(lambda: mirror.trees["tree"].manifest.waiting())
        os.rename(stand.source / "d", stand.source / "e")
        os.symlink(outside, stand.source / "d")
        time.sleep(1.5)
        assert b"secret" not in stand.there().values()
        mirror.obey("look", {})
        wait_for(lambda: stand.there().get("e/file") == b"mine", why=mirror.status)
        assert b"secret" not in stand.there().values()


NAMES = [
    "-rf",
    "..hidden",
    "...",
    "with space",
    " leading",
    "new\nline",
    "tab\tand\rreturn",
    "quote'\"`$(x)",
    "ünï",
    "back\\slash",
    "*?[a]",
    "%s{file}",
    "~",
    "\x1b[31mred",
    "x" * 255,
    b"\xff\xfe not utf-8".decode("utf-8", "surrogateescape"),
    b"half \xc3".decode("utf-8", "surrogateescape"),
    "a" * 100 + "/" + "b" * 255 + "/" + "c" * 255,
]


def test_hostile_names(stand: Stand) -> None:
    """They are names like all others: new, changed, renamed."""
    for name in NAMES:
        stand.write(name, name.encode("utf-8", "surrogateescape"))
    stand.once(exclude=[])
    assert stand.same()
    for name in NAMES:
        stand.write(name, b"changed")
    stand.once(exclude=[])
    assert stand.same()
    assert len(stand.versions()) == len(NAMES)
    for name in NAMES:
        if "/" not in name:
            os.rename(stand.source / name, stand.source / (name[:-1] + "_"))
    assert {item["how"] for item in stand.once(exclude=[])} == {"renamed"}
    assert {name: stand.there()[name] for name in stand.files()} == stand.files()


# -- what is gone


def test_kept_by_default(stand: Stand) -> None:
    stand.write("a", b"a")
    stand.once()
    (stand.source / "a").unlink()
    with stand.mirror() as mirror:
        time.sleep(1.5)
        assert mirror.status()["trees"]["tree"]["files"] == {"gone": 1}
    assert stand.there() == {"a": b"a"}


def test_removed_after_a_time_of_our_own(stand: Stand) -> None:
    """Counted while the mirror runs; what was changed is no part of it."""
    stand.write("a", b"a")
    stand.write("b", b"b")
    stand.once()
    stand.write("b", b"b2")
    (stand.source / "a").unlink()
    with stand.mirror(deleted="remove-after", remove_after=3.0) as mirror:
        wait_for(lambda: stand.there() == {"b": b"b2"}, why=mirror.status)
        assert stand.versions() == {"a": [b"a"], "b": [b"b"]}
        wait_for(lambda: stand.versions() == {"b": [b"b"]}, why=mirror.status)
    stand.write("a", b"a again")
    stand.once(deleted="remove-after")
    assert stand.there() == {"a": b"a again", "b": b"b2"}


def test_it_brakes_where_much_vanishes(stand: Stand) -> None:
    """An accident is not mirrored: what vanished stays there until somebody says that it is meant."""
    for number in range(150):
        stand.write(f"{number}", b"x")
    stand.once()
    for number in range(140):
        (stand.source / f"{number}").unlink()
    with stand.mirror(deleted="mark") as mirror:
        wait_for(lambda: any("vanished" in one for one in mirror.status()["problems"]))
        time.sleep(1.0)
        assert len(stand.there()) == 150
        assert mirror.obey("accept", {}) == {"tree": {"files": 140}}
        wait_for(stand.same, why=mirror.status)
        wait_for(lambda: mirror.status()["problems"] == [])
    assert len(stand.versions()) == 140


# -- places that are no directories


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A bucket of a true server, as a place."""
    pytest.importorskip("lsst.resources")
    server_module = pytest.importorskip("moto.server")
    import boto3

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    client.create_bucket(Bucket="mirror")
    try:
        yield {
            "kind": "s3",
            "root": "s3://mirror/tree",
            "endpoint": endpoint,
            "access_key": "x",
            "secret_key": "y",
            "client": client,
        }
    finally:
        client.close()
        server.stop()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_bucket(stand: Stand, bucket: dict[str, Any]) -> None:
    """Versions, renames and deletions where nothing can be renamed."""
    client = bucket.pop("client")

    def objects() -> dict[str, bytes]:
        found = {}
        for one in client.list_objects_v2(Bucket="mirror").get("Contents", ()):
            with contextlib.suppress(client.exceptions.NoSuchKey):  # it went meanwhile
                found[one["Key"].removeprefix("tree/")] = client.get_object(Bucket="mirror", Key=one["Key"])[
                    "Body"
                ].read()
        return found

    stand.write("d/a", b"first")
    stand.write("b", b"b")
    stand.once(bucket)
    assert objects() == {"d/a": b"first", "b": b"b"}
    stand.write("d/a", b"second")
    os.rename(stand.source / "b", stand.source / "c")
    stand.once(bucket)
    now = objects()
    versions = {name: now.pop(name) for name in list(now) if name.startswith(".versions/")}
    assert now == {"d/a": b"second", "c": b"b"}
    assert list(versions.values()) == [b"first"]
    (stand.source / "c").unlink()
    with stand.mirror(bucket, deleted="mark") as mirror:
        wait_for(lambda: time.sleep(0.1) or "c" not in objects(), why=mirror.status)
    assert sorted(objects().values()) == [b"b", b"first", b"second"]
