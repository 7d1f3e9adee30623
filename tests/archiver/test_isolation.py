"""Destinations of every bad kind beside a good one: the good one, and the camera, do not notice."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from archive_stand import Archive, files_in, wait_for
from s3_servers import Odd, closed_port, pause, s3, silent

from raftwright.archiver import Destination

pytest.importorskip("lsst.resources", reason="lsst-resources is not installed: pip install 'raftwright[s3]'")


@contextlib.contextmanager
def mounted(place: Path, options: str) -> Iterator[bool]:
    """A small file system of its own; False where nobody may mount one."""
    place.mkdir()
    program = shutil.which("mount")
    command = [program or "mount", "-t", "tmpfs", "-o", options, "none", str(place)]
    done = (
        program
        and os.geteuid() == 0
        and not subprocess.run(command, check=False, capture_output=True).returncode
    )
    try:
        yield bool(done)
    finally:
        if done:
            subprocess.run(["umount", "-l", str(place)], check=True)


def latencies(archive: Archive, name: str, numbers: range) -> list[float]:
    """Seconds from the last file of an image to its being whole at a destination, image by image."""
    found = []
    for number in numbers:
        (image,) = archive.take(number)
        begun = time.monotonic()
        image_id = archive.ledger.images.get(image.base.name)[0].id
        wait_for(lambda image_id=image_id: states_of(archive, image_id, name) == ["delivered"] * 19, 20)  # type: ignore[misc]
        found.append(time.monotonic() - begun)
    return sorted(found)


def directory(name: str, root: Path) -> Destination:
    return Destination(name=name, kind="directory", root=str(root), backoff=0.2, longest=0.5)


def states_of(archive: Archive, image_id: int, name: str) -> list[str]:
    return [row.state for row in archive.ledger.deliveries.of(image_id) if row.destination == name]


def test_one_bad_destination_never_holds_another(archive: Archive, tmp_path: Path) -> None:
    """D054, F47, N32, F40, F41: one dead, one silent, one slow, one full, one read-only, one lying, one good.

    Each has its own outcome; the good one is as fast as alone, and all catch up once they are well.
    """
    good = archive.to("good")
    alone = archive.archiver(good)
    before = latencies(archive, "good", range(1, 6))
    alone.stop()
    with contextlib.ExitStack() as stack:
        slow = stack.enter_context(Odd(pause(0.4)))
        liar = stack.enter_context(Odd(lambda key, body: None))
        quiet = stack.enter_context(silent())
        full, fixed = tmp_path / "full", tmp_path / "fixed"
        have_full = stack.enter_context(mounted(full, "size=64k"))
        have_fixed = stack.enter_context(mounted(fixed, "size=16m,ro"))
        dead = s3("dead", closed_port(), timeout=1.0)
        bad = [
            dead,
            s3("silent", quiet, timeout=0.5, concurrency=2),
            s3("slow", slow.endpoint, concurrency=2, timeout=20.0),
            s3("lying", liar.endpoint, retries=2, backoff=0.5, longest=1.0),
            Destination(
                name="absent", kind="directory", root=str(tmp_path / "absent"), backoff=0.05, longest=0.3
            ),
        ]
        if have_full:
            bad.append(directory("full", full))
        if have_fixed:
            bad.append(
                Destination(name="fixed", kind="directory", root=str(fixed), backoff=0.05, longest=0.3)
            )
        archiver = archive.archiver(good, *bad)
        after = latencies(archive, "good", range(11, 16))
        wait_for(lambda: archive.counts().get("lying", {}).get("failed", 0) >= 5, 20, archive.counts)
        counts = archive.counts()
        images = list(archive.store.all.values())
        archive.check(archive.place("good"), images)
        assert counts["good"] == {"delivered": 190}
        for name in ("dead", "silent", "absent", *(["fixed"] if have_fixed else [])):
            assert set(counts[name]) <= {"queued", "sending"}, (name, counts[name])
        if have_full:
            assert "failed" not in counts["full"]
            assert counts["full"].get("queued", 0) + counts["full"].get("sending", 0) > 0
        assert counts["slow"].get("delivered", 0) > 0
        assert not any("delivered" in counts[name] for name in ("lying", "dead", "silent", "absent"))
        problems = "\n".join(archiver.problems())
        for name in ("dead", "silent", "absent"):
            assert f"{name}: " in problems
        assert archiver.state == "ENABLED", "a destination that fails is no fault of the archiver"
        # What was missed comes by itself, once the place is there.
        (tmp_path / "absent").mkdir()
        expected = counts["absent"]["queued"] + counts["absent"].get("sending", 0)
        wait_for(lambda: archive.counts()["absent"] == {"delivered": expected}, 30, archive.counts)
        archiver.stop(0.5)
    print(f"good alone {before}, beside others {after}")
    assert after[2] < 2 * before[2] + 0.25, f"alone {before}, beside bad ones {after}"


def test_the_archive_does_not_wait_for_destinations(archive: Archive) -> None:
    """F09: images are judged complete whether anything takes their files or not."""
    with silent() as quiet:
        archive.archiver(s3("silent", quiet, timeout=30.0))
        images = archive.take(1, 2, 3)
        for image in images:
            wait_for(lambda image=image: archive.state(image) == "complete", 5)  # type: ignore[misc]


def test_threads_are_bounded_whatever_hangs(archive: Archive) -> None:
    with silent() as quiet:
        archive.archiver(s3("silent", quiet, timeout=0.3, concurrency=2))
        archive.take(1, 2)
        time.sleep(3.0)
        mine = [thread for thread in threading.enumerate() if thread.name.startswith(("silent", "probe"))]
        assert len(mine) <= 7, [thread.name for thread in mine]


def test_a_restart_in_the_middle_delivers_each_once(archive: Archive) -> None:
    """D052: 100 files, and an archiver that ends and begins again; what was left is sent, nothing twice."""
    with Odd(pause(0.01)) as server:
        bucket = s3("bucket", server.endpoint, concurrency=4, what=["raw"])
        archive.take(*range(1, 13), capture=True)
        for _ in range(6):
            archiver = archive.archiver(bucket)
            time.sleep(0.25)
            archiver.stop(0.0)
        archive.archiver(bucket)
        wait_for(lambda: archive.counts() == {"bucket": {"delivered": 108}}, 30, archive.counts)
        assert len(set(server.puts)) == 108
        assert len(server.objects) == 108
        raws = {path.name: path.read_bytes() for path in archive.root.rglob("*.fits")}
        assert {key.rsplit("/", 1)[1]: body for key, body in server.objects.items()} == raws


def test_files_of_a_priority_class_go_first(archive: Archive) -> None:
    """D053: what a CCD is for says the camera; SW in a name of an image changes nothing."""
    names = {}
    with Odd(pause(0.02)) as server:
        archive.take(1, camera="LSSTCam", rafts=["R22", "R44"])
        archive.archiver(
            s3(
                "first",
                server.endpoint,
                concurrency=1,
                order=["wavefront", "guider", "science"],
                what=["raw"],
            )
        )
        wait_for(lambda: archive.counts().get("first", {}) == {"delivered": 13}, 30, archive.counts)
        names = {path.rsplit("_", 2)[2].split(".")[0]: number for number, path in enumerate(server.puts)}
    assert sorted(names, key=names.__getitem__)[:2] == ["SW0", "SW1"]
    assert set(sorted(names, key=names.__getitem__)[2:4]) == {"SG0", "SG1"}


def test_the_sidecar_goes_first_however_it_comes(archive: Archive) -> None:
    """D166, F36, F37: an image is not seen without its sidecar, even where sending that fails for a while."""
    refused: set[str] = set()

    def put(key: str, body: bytes) -> bytes | int:
        if key.endswith(".json") and "expected" not in key and key not in refused:
            refused.add(key)
            return 400
        return body

    with Odd(put) as server:
        archive.archiver(s3("place", server.endpoint, concurrency=4))
        archive.take(1)
        wait_for(lambda: archive.counts().get("place") == {"delivered": 19}, 20, archive.counts)
        stored: list[str] = []
        for key in server.puts:
            if key in server.objects and key not in stored:
                stored.append(key)
        first = {key: number for number, key in enumerate(server.puts)}  # the last try of each counts
        for key in server.objects:
            if key.endswith(".fits"):
                assert first[key] > first[key.replace(".fits", ".json")]
    assert len(refused) == 9


def test_a_conflict_at_one_place_is_kept_and_told(archive: Archive) -> None:
    """D143, F24: another content under the name at one destination; the other has the file."""
    (image,) = archive.take(1)
    name = image.base.name
    there = archive.place("one") / "LSSTComCam" / "20261122" / name / f"{name}_R22_S11.fits"
    there.parent.mkdir(parents=True)
    there.write_bytes(b"something else")
    archive.archiver(archive.to("one"), archive.to("two"))
    wait_for(lambda: archive.counts().get("two") == {"delivered": 19})
    wait_for(lambda: archive.counts().get("one") == {"delivered": 18, "conflict": 1})
    assert there.read_bytes() == b"something else"
    assert len(files_in(archive.place("two"))) == 19
