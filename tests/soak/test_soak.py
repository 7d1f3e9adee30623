"""The short soak: a minute of small images under all faults, with processes killed at random moments."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

NIGHT = Path(__file__).with_name("night.py")


@pytest.mark.timeout(280)
@pytest.mark.parametrize("seed", [1])
def test_every_pixel_of_a_bad_night_is_right_or_marked(seed: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, str(NIGHT), "--images", "150", "--every", "0.2", "--kill-every", "3"),
            *("--seed", str(seed), "--settle", "150", "--place", str(tmp_path), "--json"),
        ],
        capture_output=True,
        text=True,
        timeout=270,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["files"] >= 150 * 9
    assert result["killed"], "nobody was killed: the test shows nothing"
