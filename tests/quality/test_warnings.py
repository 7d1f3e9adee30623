"""What Python warns of is an error in every test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FORGOTTEN = """
import gc

async def work():
    return 1

def test_it():
    work()
    gc.collect()
"""


def test_a_coroutine_that_nobody_waits_for_fails_its_test(project_root: Path, tmp_path: Path) -> None:
    """D067: under the configuration of this project."""
    path = tmp_path / "test_forgotten.py"
    path.write_text(FORGOTTEN)
    configuration = str(project_root / "pyproject.toml")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-c",
            configuration,
            "-p",
            "no:cacheprovider",
            "--rootdir",
            tmp_path,
            path,
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "was never awaited" in done.stdout
