"""What the tests of events share: a durable log, a broker, a wire that loses things, programs that die."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import zmq

from raftwright.errors import StorageError
from raftwright.events import Row

INSTRUMENT = "LSSTCam"
_MOCK = """
import ctypes, glob, os, sys, confluent_kafka
where = os.path.join(os.path.dirname(os.path.dirname(confluent_kafka.__file__)), "confluent_kafka.libs")
[path] = glob.glob(os.path.join(where, "librdkafka-*.so*"))
library = ctypes.CDLL(path)
for name in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_mock_cluster_new"):
    getattr(library, name).restype = ctypes.c_void_p
library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
error = ctypes.create_string_buffer(512)
conf = ctypes.c_void_p(library.rd_kafka_conf_new())
library.rd_kafka_conf_set(conf, b"log_level", b"0", error, 512)
client = ctypes.c_void_p(library.rd_kafka_new(0, conf, error, 512))
cluster = ctypes.c_void_p(library.rd_kafka_mock_cluster_new(client, 1))
library.rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 50)
print(library.rd_kafka_mock_cluster_bootstraps(cluster).decode(), flush=True)
for line in sys.stdin:
    if line.strip() == "away":
        library.rd_kafka_mock_broker_set_down(cluster, 1)
    else:
        library.rd_kafka_mock_broker_set_up(cluster, 1)
    print("done", flush=True)
os._exit(0)
"""


def wait_for(done: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.01)


class SqliteLog:
    """A log as a ledger keeps it: in a file, for several processes and threads."""

    def __init__(self, path: Path, id: str = "ledger-1") -> None:
        self.path = path
        self.id = id
        self.broken = False
        with self._open() as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute(
                "CREATE TABLE IF NOT EXISTS event"
                " (number INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT, fields TEXT, time TEXT)"
            )
            database.execute("CREATE TABLE IF NOT EXISTS cursor (name TEXT PRIMARY KEY, number INTEGER)")

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        if self.broken:
            raise StorageError(5, "the log is broken; mend it", str(self.path))
        database = sqlite3.connect(self.path, timeout=10)
        try:
            with database:
                yield database
        finally:
            database.close()

    def add(self, *rows: tuple[str, dict[str, Any]]) -> None:
        now = f"2026-11-22T04:05:06.{random.randrange(1000):03d}Z"
        with self._open() as database:
            database.executemany(
                "INSERT INTO event (kind, fields, time) VALUES (?, ?, ?)",
                [(kind, json.dumps(fields), now) for kind, fields in rows],
            )

    def after(self, number: int, limit: int) -> list[Row]:
        with self._open() as database:
            found = database.execute(
                "SELECT number, kind, fields, time FROM event WHERE number > ? ORDER BY number LIMIT ?",
                (number, limit),
            ).fetchall()
        return [Row(number, kind, json.loads(fields), time) for number, kind, fields, time in found]

    def last(self) -> int:
        with self._open() as database:
            return int(database.execute("SELECT coalesce(max(number), 0) FROM event").fetchone()[0])

    def cursor(self, name: str) -> int:
        with self._open() as database:
            row = database.execute("SELECT number FROM cursor WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row else 0

    def move_cursor(self, name: str, number: int) -> None:
        with self._open() as database:
            database.execute(
                "INSERT INTO cursor VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET number = max(number, ?)",
                (name, number, number),
            )


class Program:
    """A Python program in a process of its own, which can be killed."""

    def __init__(self, code: str, *arguments: str) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        self.end()

    def end(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


class Broker(Program):
    """librdkafka's mock cluster. It has four partitions a topic."""

    def __init__(self) -> None:
        super().__init__(_MOCK)
        self.address = self.line()
        assert self.address, "no mock cluster"
        self._topics = 0

    def url(self) -> str:
        """With a topic of its own."""
        self._topics += 1
        return f"kafka://{self.address}/test{self._topics}"

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Connections end, and none can be made."""
        self._say("away")
        try:
            yield
        finally:
            self._say("back")

    def _say(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        assert self.line() == "done"

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """Connections stand, and nobody answers."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


class Wire:
    """Stands between publisher and listeners; loses, doubles, delays and reorders events, from a seed."""

    def __init__(self, source: str, target: str, seed: int, *, rate: float = 0.1, alive: bool = True) -> None:
        self.lost = 0
        self.doubled = 0
        self.late = 0
        self._random = random.Random(seed)
        self._rate = rate
        self._alive = alive
        self._context = zmq.Context()
        self._in = self._context.socket(zmq.SUB)
        self._in.rcvhwm = 0
        self._in.subscribe("")
        self._in.connect(source)
        self._out = self._context.socket(zmq.PUB)
        self._out.sndhwm = 0
        self._out.bind(target)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        waiting: list[tuple[int, list[bytes]]] = []
        while not self._closing.is_set():
            waiting = [(steps - 1, frames) for steps, frames in waiting]
            for steps, frames in waiting:
                if steps <= 0:
                    self._out.send_multipart(frames)
            waiting = [entry for entry in waiting if entry[0] > 0]
            if not self._in.poll(5):
                continue
            frames = self._in.recv_multipart()
            chance = self._random.random()
            if frames[0] == b"alive":
                if self._alive and chance > self._rate:
                    self._out.send_multipart(frames)
            elif chance < self._rate:
                self.lost += 1
            elif chance < 2 * self._rate:
                self.doubled += 1
                self._out.send_multipart(frames)
                self._out.send_multipart(frames)
            elif chance < 3 * self._rate:
                self.late += 1
                waiting.append((self._random.randrange(1, 30), frames))
            else:
                self._out.send_multipart(frames)

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        self._context.destroy(linger=0)
