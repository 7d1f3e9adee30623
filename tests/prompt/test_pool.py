"""The pool: which slab is next, what a full one does, what is taken over from one that died."""

from __future__ import annotations

import errno
import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prompt_boards import SMALL, board_bytes, image_name, is_whole, meta, publish, serial_of, write

from raftwright.camera import Geometry
from raftwright.errors import FormatError, StorageError, UsageError
from raftwright.metrics import Metrics
from raftwright.prompt import Pool, pool_directory, pools, watch
from raftwright.prompt.layout import HEADER_BYTES
from raftwright.prompt.slabs import file_bytes

TALL = Geometry(3, 40, 7, 300, 6)


def files(place: Path) -> list[str]:
    return sorted(name for name in os.listdir(place) if name.startswith("slab-"))


def test_a_slab_is_memory_on_a_page(open_pool: Callable[..., Pool]) -> None:
    pool = open_pool()
    slab = pool.lend(1000)
    assert slab is not None
    assert (slab.memory.nbytes, slab.nbytes) == (1000, 1000)
    assert slab.memory.ctypes.data % 4096 == 0
    assert slab.memory.flags.writeable
    slab.discard()
    slab.discard()
    with pytest.raises(UsageError, match="published or discarded"):
        slab.memory  # noqa: B018
    with pytest.raises(UsageError, match="holds nothing"):
        pool.lend(0)


def test_slabs_are_made_as_needed_then_used_again_oldest_first(
    open_pool: Callable[..., Pool], place: Path
) -> None:
    pool = open_pool(3)
    for serial in range(1, 4):
        assert publish(pool, serial)
    assert len(files(place)) == 3
    for serial in range(4, 9):
        assert publish(pool, serial)
        with watch(place, since="all", timeout=0) as ccds:
            assert sorted({serial_of(ccd) for ccd in ccds}) == [serial - 2, serial - 1, serial]
    assert len(files(place)) == 3


def test_slabs_are_made_ahead_as_far_as_there_is_room(open_pool: Callable[..., Pool], place: Path) -> None:
    pool = open_pool(4)
    assert pool.prepare(board_bytes(), 2) == 2
    assert pool.prepare(board_bytes(), 2) == 0, "they are there already"
    made = files(place)
    for serial in (1, 2):
        assert publish(pool, serial)
    assert files(place) == made, "those that were made ahead are not used"
    assert pool.prepare(board_bytes(), 9) == 2
    with watch(place, since="all", timeout=0) as ccds:
        assert {serial_of(ccd) for ccd in ccds} == {1, 2}, "boards had to go for empty slabs"
    pool.close()
    assert pool.prepare(board_bytes(), 1) == 0


def test_the_memory_of_a_writer_is_not_lent_twice(open_pool: Callable[..., Pool]) -> None:
    pool = open_pool(1)
    slab = pool.lend(board_bytes())
    assert slab is not None
    write(slab, 1)
    kept = slab.memory[10:]  # e.g. a readout whose files are not written yet
    slab.publish(meta(1))
    assert pool.lend(board_bytes()) is None
    before = kept.copy()
    assert np.array_equal(kept, before)
    del kept
    assert publish(pool, 2)


def test_a_forgotten_slab_comes_back(open_pool: Callable[..., Pool]) -> None:
    pool = open_pool(1)
    slab = pool.lend(board_bytes())
    assert pool.lend(board_bytes()) is None
    del slab
    gc.collect()
    with pool.lend(board_bytes()):  # type: ignore[union-attr]
        pass
    assert publish(pool, 1)
    assert pool.status()["lent"] == 0


def test_what_readers_hold_is_a_loss_in_the_preview(open_pool: Callable[..., Pool], place: Path) -> None:
    metrics = Metrics()
    pool = open_pool(2, metrics=metrics)
    reader = watch(place, timeout=1)
    publish(pool, 1)
    publish(pool, 2)
    held = [next(reader) for _ in range(4)]
    begun = time.monotonic()
    assert pool.lend(board_bytes()) is None
    assert time.monotonic() - begun < 0.5
    assert "readers hold all" in pool.problem
    assert (pool.status()["held_by_readers"], pool.status()["lost"]) == (2, 1)
    assert metrics.snapshot()["drops"] == {
        "pixels": {},
        "preview": {"prompt: slabs held": {"count": 1, "bytes": board_bytes()}},
    }
    assert all(is_whole(ccd) for ccd in held)
    for ccd in held[:2]:
        ccd.release()
    assert publish(pool, 3)
    assert pool.problem == ""
    assert all(is_whole(ccd) for ccd in held[2:])


def test_too_large_and_too_full(open_pool: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = Metrics()
    pool = open_pool(2, metrics=metrics)
    assert pool.lend(1 << 30) is None
    assert "does not fit" in pool.problem

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        assert pool.lend(board_bytes()) is None
    assert "no room for" in pool.problem
    assert set(metrics.snapshot()["drops"]["preview"]) == {"prompt: too large", "prompt: shared memory full"}
    assert (pool.status()["used"], pool.status()["slabs"], files(pool.directory)) == (0, 0, [])
    assert publish(pool, 1)
    with pytest.raises(UsageError, match="holds nothing"):
        Pool(pool.directory / "other", bytes=10)


def test_memory_is_there_before_it_is_lent(open_pool: Callable[..., Pool], place: Path) -> None:
    pool = open_pool(100)
    slab = pool.lend(1 << 20)
    assert slab is not None
    [name] = files(place)
    assert (place / name).stat().st_blocks * 512 >= file_bytes(1 << 20)


def test_sizes_that_change(open_pool: Callable[..., Pool], place: Path) -> None:
    pool = open_pool(bytes=4 * file_bytes(board_bytes(TALL)))
    for serial in range(1, 6):
        assert publish(pool, serial, TALL)
    assert len(files(place)) == 4
    for serial in range(6, 80):  # smaller ones: the large files make room
        assert publish(pool, serial)
        assert pool.status()["used"] <= pool.limit
    assert len(files(place)) == pool.limit // file_bytes(board_bytes())
    assert publish(pool, 80, TALL)
    with watch(place, since="all", timeout=0) as ccds:
        assert all(is_whole(ccd) for ccd in ccds)


def test_a_rare_size_is_not_the_only_one_that_goes(open_pool: Callable[..., Pool], place: Path) -> None:
    pool = open_pool(bytes=5 * file_bytes(board_bytes(TALL)))
    serial = 0
    for _ in range(40):  # three large boards and one small one, again and again
        for geometry in (TALL, TALL, TALL, SMALL):
            serial += 1
            assert publish(pool, serial, geometry)
    with watch(place, since="all", timeout=0) as ccds:
        left = sorted({serial_of(ccd) for ccd in ccds})
    assert left[-3:] == [serial - 2, serial - 1, serial]
    assert left[0] >= serial - 2 * len(left), f"old boards stay: {left}"


def test_few_slabs_at_most(open_pool: Callable[..., Pool], place: Path) -> None:
    pool = open_pool(100, slabs=2)
    for serial in range(1, 8):
        assert publish(pool, serial)
    assert len(files(place)) == 2


def test_slabs_made_ahead(open_pool: Callable[..., Pool], place: Path) -> None:
    pool = open_pool(3.5)
    assert pool.prepare(board_bytes(), 10) == 3
    assert len(files(place)) == 3
    assert publish(pool, 1)
    assert len(files(place)) == 3


def test_planes_outside_the_slab_are_refused(open_pool: Callable[..., Pool], place: Path) -> None:
    pool = open_pool(1)
    for changes in ({"planes": (0,) * 7 + (board_bytes(),)}, {"planes": (-4,) * 8}, {"planes": (0,) * 7}):
        slab = pool.lend(board_bytes())
        assert slab is not None
        with pytest.raises(FormatError):
            slab.publish(meta(1, **changes))
    with watch(place, since="all", timeout=0) as ccds:
        assert list(ccds) == []
    assert publish(pool, 1)


def test_the_end_removes_what_nobody_holds(open_pool: Callable[..., Pool], place: Path) -> None:
    pool = open_pool()
    for serial in (1, 2, 3):
        publish(pool, serial)
    lent = pool.lend(board_bytes())
    assert lent is not None
    [held, *_] = list(watch(place, since="all", timeout=0, images=image_name(2)))
    pool.close()
    pool.close()
    assert len(files(place)) == 2
    assert is_whole(held)
    assert lent.publish(meta(4)) is False
    assert len(files(place)) == 1
    with pytest.raises(UsageError, match="closed"):
        pool.lend(10)
    again = open_pool()
    assert (again.serial, again.status()["held_by_readers"]) == (3, 1)
    held.release()


def test_one_process_at_a_time(open_pool: Callable[..., Pool], place: Path) -> None:
    pool = open_pool()
    with pytest.raises(StorageError, match=f"in use by process {os.getpid()}; name another one"):
        Pool(place)
    pool.close()
    open_pool()


WRITER = """
import sys, time
from pathlib import Path
from typing import Any
from raftwright.prompt import Pool
from raftwright.prompt.slabs import file_bytes
from prompt_boards import *
pool = Pool(Path(sys.argv[1]), int(sys.argv[2]))
for serial in range(1, int(sys.argv[3]) + 1):
    publish(pool, serial)
slab = pool.lend(board_bytes())
slab.memory[:] = 7
print("ready", flush=True)
time.sleep(60)
"""


def dead_pool(place: Path, boards: int, published: int, start: Callable[..., Any]) -> None:
    """A pool whose process was killed while it wrote one more board."""
    process = start(WRITER, place, boards * file_bytes(board_bytes()), published)
    assert process.stdout.readline() == "ready\n"
    with pytest.raises(StorageError, match=f"in use by process {process.pid}"):
        Pool(place)
    [facts] = [pool for pool in pools(place.parent) if pool.path == place]
    assert (facts.alive, facts.owner) == (True, process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait(10)


def test_a_dead_pool_is_taken_over(
    open_pool: Callable[..., Pool], place: Path, start: Callable[..., Any]
) -> None:
    dead_pool(place, 4, 3, start)
    [facts] = [pool for pool in pools(place.parent) if pool.path == place]
    assert (facts.alive, facts.slabs) == (False, 4)
    assert facts.bytes >= 4 * board_bytes()
    reader = watch(place, since="all", timeout=0.5)
    held = next(reader)
    pool = open_pool(4)
    assert (pool.serial, len(files(place)), pool.status()["used"]) == (3, 4, pool.limit)
    for serial in range(4, 10):
        assert publish(pool, serial)
        assert is_whole(held)
    assert (serial_of(held), pool.serial, len(files(place))) == (1, 9, 4)
    rest = list(reader)
    assert all(is_whole(ccd) for ccd in rest)
    seen = {serial_of(ccd) for ccd in rest}
    assert seen >= {1, 9}
    assert reader.missed == 9 - len(seen)


def test_a_smaller_pool_takes_over(
    open_pool: Callable[..., Pool], place: Path, start: Callable[..., Any]
) -> None:
    dead_pool(place, 6, 5, start)
    pool = open_pool(2)
    assert pool.status()["used"] <= pool.limit
    assert publish(pool, 6)
    with watch(place, since="all", timeout=0) as ccds:
        assert {serial_of(ccd) for ccd in ccds} == {5, 6}


def test_what_is_no_slab_is_no_harm(open_pool: Callable[..., Pool], place: Path) -> None:
    pool = open_pool()
    for serial in (1, 2, 3, 4):
        publish(pool, serial)
    pool._closed = True  # as if it had died: its files stay
    os.close(pool._owner)
    pool._socket.context.destroy(linger=0)  # type: ignore[union-attr]
    names = files(place)
    whole = (place / names[0]).read_bytes()
    (place / names[0]).write_bytes(whole[:100])
    (place / names[1]).write_bytes(b"x" * len(whole))
    with open(place / names[2], "r+b") as file:
        file.seek(200)
        file.write(b"\0\0\0")  # in the description
    (place / "slab-000777").symlink_to("/etc/passwd")
    (place / "pool").write_bytes(b"of another version")
    with watch(place, since="all", timeout=0.1) as ccds:
        assert list(ccds) == []
    again = open_pool()
    assert again.serial == 4
    with watch(place, since="all", timeout=0.1) as ccds:
        assert {serial_of(ccd) for ccd in ccds} == {4}
    assert ccds.missed == 1
    for serial in range(5, 12):
        assert publish(again, serial)


def test_directories_of_others_are_refused(place: Path) -> None:
    place.mkdir(mode=0o755)
    place.chmod(0o755)
    with pytest.raises(StorageError, match="of this user alone"):
        Pool(place)
    place.chmod(0o700)
    link = place.with_name("link")
    link.symlink_to(place)
    with pytest.raises(StorageError, match="of this user alone"):
        Pool(link)
    with Pool(place / "deeper"):
        assert (place / "deeper").stat().st_mode & 0o777 == 0o700
        for name in os.listdir(place / "deeper"):
            assert name == "notices" or (place / "deeper" / name).stat().st_mode & 0o077 == 0


def test_names_of_pools() -> None:
    assert pool_directory("default") == Path(f"/dev/shm/raftwright-{os.getuid()}/default")
    assert pool_directory("./here") == Path("./here")
    assert pool_directory(Path("here")) == Path("here")
    for name in ("", "..", ".hidden", "a b", "x" * 65):
        with pytest.raises(UsageError, match="no name for a pool"):
            pool_directory(name)


def test_a_fork_leaves_the_pool_to_its_parent(open_pool: Callable[..., Pool], place: Path) -> None:
    pool = open_pool(2)
    slab = pool.lend(board_bytes())
    assert slab is not None
    write(slab, 1)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            slab.publish(meta(77))
            del slab
            gc.collect()
            try:
                pool.lend(10)
            except UsageError:
                code = 0
            pool.close()
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert slab.publish(meta(1))
    assert publish(pool, 2)
    with watch(place, since="all", timeout=0) as ccds:
        seen = list(ccds)
    assert {serial_of(ccd) for ccd in seen} == {1, 2}
    assert all(is_whole(ccd) for ccd in seen)


def test_the_header_is_as_long_as_it_says(open_pool: Callable[..., Pool], place: Path) -> None:
    publish(open_pool(), 1)
    [name] = files(place)
    assert (place / name).read_bytes()[12:16] == HEADER_BYTES.to_bytes(4, sys.byteorder)
