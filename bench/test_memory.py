"""Memory of assembling a full raft into files: anonymous memory above that of the imports."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from raftwright.bench import peak_memory
from raftwright.bench.figures import ram_directory
from raftwright.daq import simulate_image, write_recording

LIMIT_MB = 300
NAME = "MC_S_20260101_000001"


@pytest.mark.parametrize("threads", [1, 2])
def test_a_full_raft_needs_less_than_its_limit(threads: int) -> None:
    with tempfile.TemporaryDirectory(dir=ram_directory(), prefix="raftwright-bench-") as text:
        place = Path(text)
        image = simulate_image("LSSTCam", NAME, seed=1, rafts=["R22"])
        assert sum(source.bytes for source in image.info.sources) == 3 * 127_401_984
        write_recording(place / NAME, image, durable=False)
        arguments = ["assemble", str(place / NAME), "--out", str(place / "raws"), "--threads", str(threads)]
        peak, imports = peak_memory(arguments)
        files = list((place / "raws").rglob("*.fits"))
    assert len(files) == 9
    assert 0 < peak - imports < LIMIT_MB
