"""The doctor: what it finds on machines that are made up, and on this one."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from raftwright.doctor import Finding, Wishes, disk, examine, host, memory, network
from raftwright.metrics import Metrics, StatusServer
from raftwright.prompt import Pool


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine that is fit."""
    files = {
        "proc/meminfo": "MemTotal: 64000000 kB\nMemAvailable:   32000000 kB\nSwapTotal: 0 kB\n",
        "proc/sys/vm/swappiness": "60",
        "proc/sys/net/core/rmem_max": "33554432",
        "proc/sys/net/core/wmem_max": "33554432",
        "proc/sys/net/ipv4/tcp_rmem": "4096\t131072\t33554432",
        "proc/sys/net/ipv4/tcp_wmem": "4096\t16384\t33554432",
        "proc/self/cgroup": "0::/system.slice/forward.service",
        "proc/self/mountinfo": "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n",
        "sys/fs/cgroup/memory.max": "max",
        "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never",
        "sys/kernel/mm/transparent_hugepage/shmem_enabled": "always within_size advise [never] deny force",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance",
        "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "performance",
    }
    machine = tmp_path / "machine"
    for name, text in files.items():
        put(machine, name, text)
    return machine


def put(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text + "\n")


def only(findings: Iterable[Finding], check: str = "") -> Finding:
    [finding] = [finding for finding in findings if check in finding.check]
    return finding


def test_a_machine_that_is_fit(root: Path) -> None:
    wishes = Wishes(root=root)
    findings = [
        *host.governor(wishes),
        *memory.memory(wishes),
        *memory.swap(wishes),
        *memory.huge_pages(wishes),
        *network.kernel_buffers(wishes),
    ]
    assert [finding.level for finding in findings] == ["ok"] * len(findings)
    assert not any(finding.change for finding in findings)


@pytest.mark.parametrize(
    ("check", "files", "level", "found", "change"),
    [
        (
            host.governor,
            {"sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "powersave"},
            "warn",
            "performance (1), powersave (1)",
            "cpupower frequency-set --governor performance",
        ),
        (
            memory.memory,
            {"proc/meminfo": "MemAvailable: 2000000 kB"},
            "warn",
            "2.05 GB available",
            "--memory 824MB",
        ),
        (
            memory.memory,
            {"proc/meminfo": "MemAvailable: 500000 kB"},
            "fail",
            "512 MB available",
            "more memory",
        ),
        (
            memory.memory,
            {
                "sys/fs/cgroup/system.slice/memory.max": "1000000000",
                "sys/fs/cgroup/system.slice/memory.current": "200000000",
            },
            "warn",
            "800 MB left of this service's 1 GB",
            "--memory",
        ),
        (
            memory.swap,
            {"proc/meminfo": "SwapTotal: 8000000 kB"},
            "warn",
            "8.19 GB, vm.swappiness = 60",
            "sysctl -w vm.swappiness=1",
        ),
        (
            memory.huge_pages,
            {"sys/kernel/mm/transparent_hugepage/enabled": "always madvise [never]"},
            "warn",
            "never; in shared memory never",
            "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
        ),
    ],
)
def test_what_is_not_as_it_should_be(
    root: Path, check: Any, files: dict[str, str], level: str, found: str, change: str
) -> None:
    for name, text in files.items():
        put(root, name, text)
    finding = only(check(Wishes(root=root)))
    assert (finding.level, finding.found) == (level, found)
    assert change in finding.change


def test_kernel_buffers_that_are_small(root: Path) -> None:
    put(root, "proc/sys/net/core/rmem_max", "212992")
    put(root, "proc/sys/net/ipv4/tcp_wmem", "4096 16384 4194304")
    receive, send = network.kernel_buffers(Wishes(root=root))
    assert (receive.level, receive.change) == ("warn", "sudo sysctl -w net.core.rmem_max=16777216")
    assert (send.level, send.change) == ("warn", 'sudo sysctl -w net.ipv4.tcp_wmem="4096 16384 16777216"')


def test_a_quota_of_processors(root: Path) -> None:
    put(root, "sys/fs/cgroup/system.slice/cpu.max", "150000 100000")
    finding = only(host.processors(Wishes(root=root)), "processors")
    assert finding.level == "warn"
    assert finding.found.endswith(", at most 1.5 at a time")
    assert "--cpus" in finding.change


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = {}
    given: dict[int, tuple[int, int]] = {}
    monkeypatch.setattr(
        resource, "getrlimit", lambda what: given.get(what, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    )
    assert all(finding.level == "ok" for finding in host.limits(Wishes()))
    for what, limits in (
        (resource.RLIMIT_NOFILE, (1024, 65536)),
        (resource.RLIMIT_NOFILE, (1024, 1024)),
        (resource.RLIMIT_FSIZE, (1000, 1000)),
        (resource.RLIMIT_NPROC, (100, 100)),
        (resource.RLIMIT_AS, (1 << 30, 1 << 30)),
    ):
        given = {what: limits}
        [bad] = [finding for finding in host.limits(Wishes()) if finding.level != "ok"]
        assert "ulimit" in bad.change
        levels[what, limits] = bad.level
    assert list(levels.values()) == ["warn", "fail", "fail", "warn", "warn"]


def test_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    for state, level, said in (
        (None, "warn", "not told"),
        ((False, 16.0), "warn", "not synchronised"),
        ((True, 0.5), "warn", "synchronised, within 500 ms"),
        ((True, 0.002), "ok", "synchronised, within 2 ms"),
    ):
        monkeypatch.setattr(host, "clock_state", lambda state=state: state)
        finding = only(host.clock(Wishes()))
        assert (finding.level, finding.found) == (level, said)
        assert bool(finding.change) == (level != "ok")
    monkeypatch.undo()
    state = host.clock_state()
    assert state is None or state[1] >= 0


# --- disks -------------------------------------------------------------------------------------------------


def test_a_directory_that_will_do(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    findings = list(disk.directory_of(Wishes(root=root), out))
    assert [finding.check.rpartition(": ")[2] for finding in findings][:3] == [
        "space",
        "file system",
        "names",
    ]
    assert only(findings, "names").level == "ok"
    assert "ms" in only(findings, "fsync").found
    assert "/s, durable" in only(findings, "writing").found
    assert os.listdir(out) == [], "nothing is left behind"


def test_directories_that_will_not_do(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wishes = Wishes(root=root)
    absent = only(disk.directory_of(wishes, tmp_path / "absent"))
    assert (absent.level, absent.change) == ("fail", f"mkdir -p {tmp_path / 'absent'}")
    file = tmp_path / "file"
    file.touch()
    assert only(disk.directory_of(wishes, file)).found == "is no directory"
    closed = tmp_path / "closed"
    closed.mkdir()
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "may not write" in only(disk.directory_of(wishes, closed)).found
    monkeypatch.undo()

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    [failed] = [f for f in disk.directory_of(wishes, closed) if f.level == "fail"]
    assert failed.found == "cannot be written: No space left on device"
    monkeypatch.undo()
    assert os.listdir(closed) == []


def test_a_full_disk(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Facts:
        f_bavail, f_blocks, f_frsize, f_files, f_favail = 10, 1000, 4096, 1000, 5

    monkeypatch.setattr(os, "statvfs", lambda _: Facts)
    found = list(disk.directory_of(Wishes(root=root), tmp_path))
    assert only(found, "space").level == only(found, "inodes").level == "fail"
    assert only(found, "space").found == "41 kB free of 4.1 MB"


def test_kinds_of_file_systems(root: Path, tmp_path: Path) -> None:
    place = os.path.realpath(tmp_path)
    for mount, level, said in (
        ("- tmpfs tmpfs rw", "warn", "tmpfs: in memory"),
        ("- nfs4 host:/x rw", "warn", "nfs4: over a network"),
        ("- xfs /dev/sda ro", "fail", "xfs, mounted read-only"),
        ("- xfs /dev/sda rw", "ok", "xfs"),
    ):
        put(
            root,
            "proc/self/mountinfo",
            f"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:1 / {place} rw,relatime shared:3 {mount}",
        )
        finding = only(disk.directory_of(Wishes(root=root), tmp_path), "file system")
        assert (finding.level, finding.found) == (level, said)
    put(
        root,
        "proc/self/mountinfo",
        f"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:1 / {place}/a\\040b rw - xfs /dev/sdb rw\n"
        f"3 1 0:2 / {place}/proc rw - proc proc rw\n4 1 0:3 / {place}beside rw - xfs /dev/sdc rw",
    )
    finding = only(disk.directory_of(Wishes(root=root), tmp_path), "one file system")
    assert finding.found == f"others are mounted below it: {place}/a b"


# --- network -----------------------------------------------------------------------------------------------


@pytest.fixture
def taken() -> Iterator[int]:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield int(server.getsockname()[1])


def test_ports(taken: int) -> None:
    with StatusServer(Metrics()) as page:
        mine = only(network.ports(Wishes(metrics=page.url.removeprefix("http://"))))
    assert mine.level == "ok"
    assert mine.found.startswith("a service of raftwright answers")
    findings = list(network.ports(Wishes(metrics="127.0.0.1:1", bind=f"tcp://127.0.0.1:{taken}")))
    control = only(findings, "control")
    assert control.level == "fail"
    assert control.found == f"127.0.0.1:{taken}: in use by another program"
    assert f"ss -ltnp 'sport = :{taken}'" in control.change
    free = only(network.ports(Wishes(metrics="127.0.0.1:0")))
    assert free.level == "ok"


def test_a_port_of_somebody_who_says_nothing(taken: int) -> None:
    begun = time.monotonic()
    finding = only(network.ports(Wishes(metrics=f"127.0.0.1:{taken}")))
    assert finding.level == "fail"
    assert time.monotonic() - begun < 5


def test_keys(tmp_path: Path) -> None:
    from raftwright.stream.keys import KeyStore

    store = tmp_path / "keys"
    assert only(network.keys(Wishes(key_store=store))).level == "ok"
    absent = only(network.keys(Wishes(key_store=store, keys="me")))
    assert (absent.level, absent.change) == ("fail", "raftwright keys new me")
    KeyStore(store).new("me")
    assert only(network.keys(Wishes(key_store=store, keys="me"))).level == "ok"
    assert only(network.keys(Wishes(key_store=store, keys="you"))).level == "fail"
    store.chmod(0o755)
    wide = only(network.keys(Wishes(key_store=store, keys="me")))
    assert (wide.level, wide.change) == ("fail", f"chmod 700 {store}")


def test_a_daq_that_is_there_and_one_that_is_not(tmp_path: Path) -> None:
    absent = only(network.daq(Wishes(endpoint=str(tmp_path / "none"))))
    assert absent.level == "fail"
    from raftwright.daq import simulate_image, write_recording

    image = simulate_image("MiniCam", "MN_S_20261122_000001")
    write_recording(tmp_path / "store" / image.info.name, image, durable=False)
    there = only(network.daq(Wishes(endpoint=str(tmp_path / "store"))))
    assert there.found.startswith(f"1 images at {tmp_path / 'store'}")
    assert only(network.zeromq(Wishes()), "ZeroMQ").level == "ok"


def test_a_daq_over_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from raftwright.daq import open_store
    from raftwright.stream import Server
    from raftwright.stream.keys import KeyStore

    monkeypatch.setattr(network, "_PATIENCE", 1.0)
    store = KeyStore(tmp_path / "keys")
    server, client = store.new("daq"), store.new("me")
    endpoint = f"ipc://{tmp_path}/daq"
    with Server(open_store("simulated:MiniCam?count=3"), endpoint, keys=server):
        wishes = Wishes(endpoint=endpoint, keys="me", server_key=server.public, key_store=tmp_path / "keys")
        assert only(network.daq(wishes)).found.startswith(f"3 images at {endpoint}")
        wrong = wishes._replace(server_key=client.public)
        assert only(network.daq(wrong)).level == "fail"
    with Server(open_store("simulated:MiniCam?count=3"), f"{endpoint}2"):
        assert only(network.daq(Wishes(endpoint=f"{endpoint}2"))).level == "ok"
    gone = only(network.daq(Wishes(endpoint="tcp://127.0.0.1:1")))
    assert gone.level == "fail"
    assert gone.change.endswith("nc -vz 127.0.0.1 1")


# --- the whole ---------------------------------------------------------------------------------------------


def test_pools_that_were_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raftwright.prompt.place._home", lambda: tmp_path)
    with Pool(tmp_path / "live", 1 << 20) as pool:
        pool.prepare(1000, 1)
        dead = tmp_path / "dead"
        dead.mkdir()
        (dead / "slab-000001").write_bytes(b"x" * 100_000)
        (dead / "owner").write_text("999999\n")
        findings = list(memory.shared_memory(Wishes(prompt=1)))
    live, left = only(findings, "pool live"), only(findings, "pool dead")
    assert (live.level, left.level) == ("ok", "warn")
    assert f"of process {os.getpid()}" in live.found
    assert "left by process 999999" in left.found
    assert f"rm -r {dead}" in left.change
    assert list(memory.shared_memory(Wishes(prompt=0))) == []


def test_a_check_that_fails_or_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Wishes) -> Iterator[Finding]:
        yield Finding("first", "ok", "", "")
        raise RuntimeError("no")

    ended = threading.Event()

    def endless(_: Wishes) -> Iterator[Finding]:
        ended.wait(20)
        yield Finding("never", "ok", "", "")

    monkeypatch.setattr("raftwright.doctor._LONGEST", 0.3)
    monkeypatch.setattr(host, "CHECKS", (("broken", broken), ("endless", endless)))
    for module in (memory, disk, network):
        monkeypatch.setattr(module, "CHECKS", ())
    first, failed, late = examine(Wishes())
    ended.set()
    assert (first.check, failed.check, failed.level) == ("first", "broken", "warn")
    assert "RuntimeError: no" in failed.found
    assert (late.check, late.level, late.found) == ("endless", "fail", "no answer within 0.3 s")


def test_this_machine(tmp_path: Path) -> None:
    findings = list(examine(Wishes(out=(tmp_path,), metrics="127.0.0.1:0", key_store=tmp_path / "keys")))
    assert {finding.level for finding in findings} <= {"ok", "warn", "fail"}
    assert len(findings) > 15
    for finding in findings:
        assert finding.check
        assert finding.found
        assert finding.wanted
        assert bool(finding.change) == (finding.level != "ok"), finding
        assert "could not be looked at" not in finding.found, finding
