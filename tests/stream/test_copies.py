"""A pixel crosses user space once: from ZeroMQ's frame into its plane. Copies are counted to prove it.

A library that is loaded before all others counts what goes through memcpy and memmove of the receiving
process, in calls of a kibibyte or more. The same process reading the plain way, which copies, shows that it
counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from raftwright.camera import camera
from raftwright.daq import MemoryImage, simulate_image
from raftwright.errors import NotFoundError
from raftwright.stream import Server

NAME = "CC_S_20261122_000001"
PLACE = "22/0"
ROWS = 5000
PULLS = 4

COUNTER = r"""
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
static _Atomic uint64_t copied;
uint64_t bytes_copied(void) { return copied; }
static void* forward(void* to, const void* from, size_t size) {
  unsigned char* a = to;
  const unsigned char* b = from;
  if (size >= 1024) copied += size;
  for (; size >= 8; size -= 8, a += 8, b += 8) __builtin_memcpy(a, b, 8);  /* one load, one store */
  while (size-- > 0) *a++ = *b++;
  return to;
}
void* memcpy(void* restrict to, const void* restrict from, size_t size) { return forward(to, from, size); }
void* __memcpy_chk(void* to, const void* from, size_t size, size_t room) {
  if (size > room) __builtin_trap();
  return forward(to, from, size);
}
void* memmove(void* to, const void* from, size_t size) {
  if ((uintptr_t)to - (uintptr_t)from >= size) return forward(to, from, size);
  if (size >= 1024) copied += size;
  while (size-- > 0) ((unsigned char*)to)[size] = ((const unsigned char*)from)[size];
  return to;
}
"""

CLIENT = r"""
import ctypes, json, sys, time
from raftwright import _core
from raftwright.camera import camera
from raftwright.stream import NetworkStore, Receiver

counter = ctypes.CDLL(sys.argv[2]).bytes_copied
counter.restype = ctypes.c_uint64
layout = camera("LSSTComCam").board("22/0").layout
told = {}
with NetworkStore(sys.argv[1]) as store, Receiver(store) as receiver:
    name = store.images()[0]
    source = store.image(name).source("22/0")
    info = source.info
    for what in ("aligned", "askew"):
        before = counter()
        for _ in range(int(sys.argv[3])):
            readout = _core.Readout(layout, info.registers.width, info.registers.height)
            if what == "askew":
                readout.add(0, bytes(1000))  # from there on every chunk begins within a row
            fetch = receiver.fetch(name, info, readout, deadline=time.monotonic() + 30)
            while fetch.outcome is None:
                receiver.run(1.0)
            assert fetch.outcome == "complete", fetch.reason
        told[what] = counter() - before, receiver.stats["copied_bytes"]
    before = counter()
    source.read(0, info.bytes)
    told["plain"] = counter() - before, 0
json.dump({"bytes": info.bytes, **told}, sys.stdout)
"""


class Lone:
    """A store of one image."""

    def __init__(self, image: MemoryImage) -> None:
        self.only = image

    def folders(self) -> list[str]:
        return ["raw"]

    def images(self, folder: str | None = None) -> list[str]:
        return [self.only.info.name]

    def underway(self) -> list[str]:
        return []

    def image(self, name: str) -> MemoryImage:
        if name != self.only.info.name:
            raise NotFoundError("no such image")
        return self.only

    def notices(self, timeout: float | None = None) -> Any:
        return iter(())


@pytest.fixture(scope="module")
def counter(tmp_path_factory: pytest.TempPathFactory, require_tool: Callable[[str], str]) -> Path:
    """The library that counts."""
    if os.environ.get("LD_PRELOAD"):
        pytest.skip("another library is loaded before all others")
    place = tmp_path_factory.mktemp("counter")
    (place / "counter.c").write_text(COUNTER)
    library = place / "counter.so"
    options = ["-O2", "-fno-builtin", "-fno-tree-loop-distribute-patterns", "-shared", "-fPIC"]
    subprocess.run(
        [require_tool("g++"), *options, "-x", "c", "counter.c", "-o", str(library)], cwd=place, check=True
    )
    return library


def test_pixels_are_copied_by_nobody(serve: Callable[..., Server], counter: Path) -> None:
    info = simulate_image(
        camera("LSSTComCam"), NAME, registers=[3, 0, 20, 0, 0, 5, 0, ROWS - 2, 0, 2, 1]
    ).info
    source = msgspec.structs.replace(info.sources[0], crc32c=None)
    assert source.location == PLACE
    data = np.random.default_rng(1).bytes(source.bytes)
    server = serve(Lone(MemoryImage(msgspec.structs.replace(info, sources=(source,)), {PLACE: data})))
    environment = {**os.environ, "LD_PRELOAD": str(counter), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, server.endpoint, str(counter), str(PULLS)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    size = told["bytes"]
    assert size == 28 * ROWS * camera("LSSTComCam").board(PLACE).sample_bytes
    copied, by_the_core = told["aligned"]
    assert by_the_core == 0
    # libzmq reads the first 8 KiB of a frame together with what came before it.
    assert copied < 0.01 * PULLS * size, f"{copied} bytes copied for {PULLS * size}"
    copied, by_the_core = told["askew"]
    chunks = -(-size // (4 << 20)) + 1
    assert 0 < by_the_core <= PULLS * (chunks + 1) * 2 * 28 * 108
    assert copied < 0.02 * PULLS * size
    assert told["plain"][0] >= size, "the counter does not count"
