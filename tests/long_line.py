"""A long line as a process of its own: a relay of TCP connections that delays, loses packets, and can be cut.

What it is of: the time that bytes are under way, and a packet that is lost, which holds up what is behind it
until it was sent again, a round trip later. What it is not of: how much a kernel lets be under way.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import random
import select
import subprocess
import sys
import time
from typing import IO, Any, Final

_PACKET: Final = 1448
_PIECE: Final = 1 << 18
_MOST: Final = 64 << 20
"""Bytes that are under way in one direction of a connection."""


def everywhere(endpoint: str) -> str:
    """What a server at all addresses announces, so that clients stay at the near end of the line."""
    return f"tcp://*:{endpoint.rpartition(':')[2]}"


def ports_of(server: Any) -> list[int]:
    """All of a server in this process, that of the control socket first."""
    named = server.endpoints
    return [int(one.rpartition(":")[2]) for one in (named["control"], named["notices"], *named["data"])]


class LongLine:
    """Listens at the server's own ports of another address of the loopback, `host`, and passes on.

    `rtt` in seconds, `loss` the share of packets. Everything by chance comes from `seed`.
    """

    host = "127.0.0.2"

    def __init__(self, ports: list[int], *, rtt: float = 0.18, loss: float = 0.0, seed: int = 1) -> None:
        self.rtt = rtt
        self._process = subprocess.Popen(
            [sys.executable, __file__, f"{rtt}", f"{loss}", f"{seed}", *map(str, ports)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._port = ports[0]
        self._answer("ready")

    @property
    def endpoint(self) -> str:
        """Of the control socket at its near end."""
        return f"tcp://{self.host}:{self._port}"

    def cut(self) -> None:
        """Ends all connections; takes no other."""
        self._tell("cut")

    def mend(self) -> None:
        """Takes connections again."""
        self._tell("mend")

    def counts(self) -> dict[str, int]:
        """Bytes, packets that were lost, connections."""
        return {
            key: int(value) for key, value in (entry.split("=") for entry in self._tell("counts").split())
        }

    def close(self) -> None:
        """The end."""
        self._process.kill()
        self._process.wait(10)
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def _tell(self, what: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        return self._answer(what)

    def _answer(self, what: str) -> str:
        out: IO[str] | None = self._process.stdout
        assert out is not None
        assert select.select([out], [], [], 20.0)[0], "the line says nothing"
        word, _, rest = out.readline().strip().partition(" ")
        assert word == what, f"the line said {word!r}"
        return rest


class _Relay:
    """In its own process."""

    def __init__(self, rtt: float, loss: float, seed: int) -> None:
        self._half, self._rtt, self._loss = rtt / 2, rtt, loss
        self._chance = random.Random(seed)
        self._left = self._gap()
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []
        self.bytes = self.lost = self.connections = 0

    async def listen(self, ports: list[int]) -> None:
        for port in ports:

            async def take(near: asyncio.StreamReader, back: asyncio.StreamWriter, port: int = port) -> None:
                task = asyncio.current_task()
                assert task is not None
                self._tasks.add(task)
                try:
                    await self._connection(near, back, port)
                finally:
                    self._tasks.discard(task)

            self._servers.append(await asyncio.start_server(take, LongLine.host, port, limit=4 * _PIECE))

    def cut(self) -> None:
        self._open.clear()
        for task in list(self._tasks):
            task.cancel()

    def mend(self) -> None:
        self._open.set()

    async def _connection(self, near: asyncio.StreamReader, back: asyncio.StreamWriter, port: int) -> None:
        away: asyncio.StreamWriter | None = None
        try:
            if not self._open.is_set():
                return
            # The first packets of a connection go there and back before anything else does.
            await asyncio.sleep(self._rtt)
            far, away = await asyncio.open_connection("127.0.0.1", port, limit=4 * _PIECE)
            self.connections += 1
            ways = {asyncio.create_task(self._pass(*way)) for way in ((near, away), (far, back))}
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for writer in (back, away):
                if writer is not None:
                    writer.transport.abort()

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        held = 0

        async def read() -> None:
            nonlocal held
            last = 0.0
            while True:
                data = await source.read(_PIECE)
                last = max(last, self._due(len(data)))
                held += len(data)
                under_way.put_nowait((last, data))
                if not data:
                    return
                while held > _MOST:
                    await asyncio.sleep(0.002)

        reading = asyncio.create_task(read())
        try:
            while True:
                due, data = await under_way.get()
                await asyncio.sleep(due - time.monotonic())
                if not data:
                    return
                sink.write(data)
                await sink.drain()
                held -= len(data)
                self.bytes += len(data)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    def _due(self, size: int) -> float:
        """When so many bytes that leave now are at the other end."""
        due = time.monotonic() + self._half
        self._left -= max(1, size // _PACKET)
        if self._left < 0:
            self.lost += 1
            self._left = self._gap()
            due += self._rtt
        return due

    def _gap(self) -> float:
        """Packets until the next one that is lost."""
        return self._chance.expovariate(self._loss) if self._loss else math.inf


async def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("rtt", type=float)
    parser.add_argument("loss", type=float)
    parser.add_argument("seed", type=int)
    parser.add_argument("ports", type=int, nargs="+")
    given = parser.parse_args()
    relay = _Relay(given.rtt, given.loss, given.seed)
    await relay.listen(given.ports)
    print("ready", flush=True)
    orders = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while order := (await orders.readline()).decode().strip():
        if order == "cut":
            relay.cut()
        elif order == "mend":
            relay.mend()
        rest = f" bytes={relay.bytes} lost={relay.lost} connections={relay.connections}"
        print(f"{order}{rest if order == 'counts' else ''}", flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main())
