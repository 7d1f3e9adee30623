"""A disk that fills is told long before it is full, and nothing is removed to make room."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from archive_stand import Archive, wait_for
from hypothesis import given
from hypothesis import strategies as st

from raftwright.archiver.fullness import LEVELS, Fullness, percent_used


@given(st.lists(st.floats(0, 100), max_size=40))
def test_every_level_is_told_once_until_it_is_over(course: list[float]) -> None:
    """D049, N15: 50, 80 and 95 %, whatever way it goes."""
    now = 0.0
    fullness = Fullness(Path("/archive"), lambda _: now)
    for now in course:
        before = fullness.level
        fullness.look()
        reached = max((level for level in LEVELS if now >= level), default=0.0)
        assert fullness.level >= reached, "it is told"
        assert fullness.level == reached or now > before - 2.0, "it is over"
        assert bool(fullness.trouble()) is (fullness.level >= 80.0)


def test_around_a_level_it_is_not_told_again_and_again(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    fullness = Fullness(Path("/archive"), lambda _: now)
    for now in [49.0, 50.0, *[79.0, 80.0] * 50, 94.9, 95.0, 94.0, 95.0, 40.0, 51.0]:
        fullness.look()
        assert now
    told = [(record.levelno, record.getMessage().split(": ")[1][:6]) for record in caplog.records]
    assert told == [
        (logging.WARNING, "50.0 %"),
        (logging.ERROR, "80.0 %"),
        (logging.ERROR, "95.0 %"),
        (logging.INFO, "40.0 %"),
        (logging.WARNING, "51.0 %"),
    ]


def test_a_disk_that_is_not_there_is_not_full(tmp_path: Path) -> None:
    assert percent_used(tmp_path / "no") == 0.0
    assert 0.0 < percent_used(tmp_path) <= 100.0


def test_an_archive_that_fills_up(
    tmp_path: Path, require_tool: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    """D049: problem and figure of the service; and every file stays, however full it gets."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    place = tmp_path / "small"
    place.mkdir()
    mount = [require_tool("mount"), "-t", "tmpfs", "-o", "size=24m", "none", str(place)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here")
    archive = Archive(place)
    archive.percent = percent_used
    try:
        (image,) = archive.take(1)
        service = archive.archiver()
        wait_for(lambda: archive.state(image) == "complete")
        files = sorted(archive.root.rglob("*.*"))
        assert not service.problems()
        for level in (50, 80, 95):
            room = os.statvfs(place)
            wanted = (level + 1) * (room.f_blocks * room.f_frsize) // 100
            used = (room.f_blocks - room.f_bfree) * room.f_frsize
            with (place / f"ballast {level}").open("wb") as stream:
                os.posix_fallocate(stream.fileno(), 0, wanted - used)
            wait_for(lambda: service.fullness.level == level)  # noqa: B023
            assert len(service.problems()) == (level >= 80)
            assert service.fullness.percent >= level
        assert any("disk are used" in record.message for record in caplog.records)
        assert f"{archive.root}: 95 % of its disk are used" in service.problems()[0]
        assert sorted(archive.root.rglob("*.*")) == files, "something was removed"
        for path in place.glob("ballast*"):
            path.unlink()
        wait_for(lambda: not service.problems())
    finally:
        archive.close()
        subprocess.run(["umount", "-l", str(place)], check=True)
