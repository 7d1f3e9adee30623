"""Peak anonymous memory of `raftwright assemble`, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from raftwright.errors import RaftwrightError

__all__ = ["peak_memory"]

# Imports what the command imports, then says what the process holds.
_IMPORTS_ONLY = """
import raftwright.cli, raftwright.assembly, raftwright.camera, raftwright.daq, raftwright.rawfile
raftwright.camera.camera({camera!r})
print(next(line for line in open("/proc/self/status") if line.startswith("RssAnon")).split()[1])
"""


def _anonymous_kib(process: int) -> int:
    try:
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


def peak_memory(
    arguments: Sequence[str], *, camera: str = "LSSTCam", timeout: float = 600.0
) -> tuple[float, float]:
    """Runs ``raftwright <arguments>`` and returns (peak, imports alone) of RssAnon in MB (10^6 bytes).

    The process is sampled about every millisecond. Linux only. Raises RaftwrightError when it fails.
    """
    imports = subprocess.run(  # our own interpreter and text
        [sys.executable, "-c", _IMPORTS_ONLY.format(camera=camera)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=True,
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "raftwright", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    peak = 0
    stop = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stop.is_set():
            peak = max(peak, _anonymous_kib(process.pid))
            time.sleep(0.001)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        _, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise RaftwrightError(f"raftwright {arguments[0]} took longer than {timeout} s") from None
    finally:
        stop.set()
        watcher.join()
    if process.returncode != 0:
        raise RaftwrightError(
            f"raftwright {arguments[0]} exited with {process.returncode}: {errors.strip()[-300:]}"
        )
    return peak * 1024 / 1e6, int(imports.stdout) * 1024 / 1e6
