"""`raftwright serve`: a store, or a camera on a cadence, published over the network."""

from __future__ import annotations

import errno
import functools
import os
import queue
import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from raftwright.cli.console import console
from raftwright.cli.figures import count, rate, seconds, size
from raftwright.cli.options import (
    JsonOption,
    KeyStoreOption,
    LocationsOption,
    MetricsOption,
    Pattern,
    PatternOption,
    RaftsOption,
    SeedOption,
    SizeOption,
    duration,
    names,
    octets,
)
from raftwright.cli.signals import stopped_by_signals
from raftwright.errors import FormatError, RaftwrightError, StorageError, UsageError

if TYPE_CHECKING:
    from raftwright.daq import CadenceStore, Frames, Notice, Store
    from raftwright.stream import Server

__all__ = ["serve"]

_MOST_NEWS: Final = 10_000
"""Images that may wait to be told."""
_FEWEST_FILES: Final = 128


def serve(
    store: Annotated[
        str | None,
        typer.Argument(
            metavar="[STORE]",
            help="Directory of recordings, a recording, or a store such as simulated:LSSTComCam?count=3.",
            show_default=False,
        ),
    ] = None,
    camera: Annotated[
        str | None,
        typer.Option(
            "--camera",
            metavar="NAME|FILE",
            help="A simulated camera that takes an image every so often.",
            show_default=False,
        ),
    ] = None,
    frames: Annotated[
        str | None,
        typer.Option(
            "--frames", metavar="STORE", help="The images of this store as new readouts.", show_default=False
        ),
    ] = None,
    bind: Annotated[
        str, typer.Option("--bind", metavar="ENDPOINT", help="tcp://HOST:PORT (0: any port) or ipc://PATH.")
    ] = "tcp://127.0.0.1:5570",
    every: Annotated[str, typer.Option("--every", metavar="TIME", help="From image to image.")] = "17s",
    readout: Annotated[str, typer.Option("--readout", metavar="TIME", help="That an image takes.")] = "2s",
    number: Annotated[
        int | None,
        typer.Option("--count", min=1, help="Images in all.  [default: no end]", show_default=False),
    ] = None,
    keep: Annotated[int, typer.Option("--keep", min=1, help="Images that stay; older ones go.")] = 100,
    start: Annotated[int, typer.Option("--start", min=0, help="Number of the first image.")] = 1,
    day: Annotated[
        str | None,
        typer.Option(
            "--day",
            metavar="YYYYMMDD",
            help="In the names.  [default: dayobs of the start]",
            show_default=False,
        ),
    ] = None,
    epoch: Annotated[
        str | None,
        typer.Option(
            "--epoch",
            metavar="TIME|FILE",
            help="When the first image begins (Unix time), or a file to keep that in: a server that is "
            "started again with it goes on as if it had never stopped.",
            show_default=False,
        ),
    ] = None,
    seed: SeedOption = 1,
    pattern: PatternOption = Pattern.SKY,
    small: SizeOption = None,
    registers: Annotated[
        str | None,
        typer.Option("--registers", metavar="N,N,..", help="Readout registers instead.", show_default=False),
    ] = None,
    rafts: RaftsOption = None,
    locations: LocationsOption = None,
    distinct: Annotated[
        int | None,
        typer.Option(
            "--distinct", min=1, max=1000, help="So many different images only, in turn.", show_default=False
        ),
    ] = None,
    losing: Annotated[
        float, typer.Option("--losing", min=0, max=1, help="Share of the sources that have a gap.")
    ] = 0.0,
    memory: Annotated[str, typer.Option("--memory", metavar="SIZE", help="For pixels kept at hand.")] = "1GB",
    data_sockets: Annotated[int, typer.Option("--data-sockets", min=1, max=64, help="For pixels.")] = 2,
    io_threads: Annotated[int, typer.Option("--io-threads", min=1, max=64, help="Of ZeroMQ.")] = 2,
    heartbeat: Annotated[str, typer.Option("--heartbeat", metavar="TIME", help="Sign of life.")] = "1s",
    keys: Annotated[
        str | None,
        typer.Option("--keys", metavar="NAME", help="Encrypt, with these keys.", show_default=False),
    ] = None,
    allowed: Annotated[
        bool, typer.Option("--allowed", help="Let in only clients that `keys allow` named.")
    ] = False,
    key_store: KeyStoreOption = None,
    faults: Annotated[
        str, typer.Option("--faults", metavar="SPEC", help="E.g. drop=0.01,delay=0.01:200ms,cut=0.001.")
    ] = "",
    fault_seed: Annotated[int, typer.Option("--fault-seed", help="The same seed, the same faults.")] = 0,
    metrics: MetricsOption = None,
    run_for: Annotated[
        str | None, typer.Option("--for", metavar="TIME", help="Stop after this time.", show_default=False)
    ] = None,
    json: JsonOption = False,
) -> None:
    """Publish images over the network: recordings, a directory that new ones appear in, or a simulated
    camera on a cadence.

    Runs until it is stopped. One line tells the endpoint as soon as clients may connect, then one line each
    image that is complete; with --json these are JSON objects, one a line.
    """
    from raftwright.stream.faults import Faults
    from raftwright.stream.server import Server

    del json
    console.command = "serve"
    if sum(given is not None for given in (store, camera, frames)) != 1:
        raise UsageError("give one of: a store, --camera, --frames")
    plan = Faults.parse(faults, fault_seed) if faults else None
    until = None if run_for is None else time.monotonic() + duration(run_for, "--for")
    pair, clients = _keys(keys, allowed, key_store)
    _raise_limit()
    news: queue.SimpleQueue[Notice | None] = queue.SimpleQueue()
    live: CadenceStore | None = None
    source: Store
    if store is not None:
        from raftwright.daq import open_store

        source = open_store(store)
    else:
        from raftwright.daq import CadenceStore
        from raftwright.daq.epoch import read_epoch

        began, first_day = read_epoch(epoch, day)
        source = live = CadenceStore(
            _frames(
                camera,
                frames,
                seed,
                pattern,
                small,
                registers,
                names(rafts),
                names(locations),
                distinct,
                losing,
            ),
            every=duration(every, "--every"),
            readout=duration(readout, "--readout"),
            count=number,
            keep=keep,
            start=start,
            day=first_day,
            epoch=began,
            memory=octets(memory, "--memory"),
        )
    server = Server(
        source,
        bind,
        data_sockets=data_sockets,
        keys=pair,
        allowed=clients,
        faults=plan,
        io_threads=io_threads,
        heartbeat=duration(heartbeat, "--heartbeat"),
        name=store or frames or f"simulated {camera}",
        observer=functools.partial(_note_image, news),
    )
    page = None
    with stopped_by_signals(news):
        try:
            server.start()
            page = _page(server, metrics)
            _ready(server, source, live, None if page is None else page.url)
            _tell(source, news, until)
        finally:
            if page is not None:
                page.close()
            server.stop()
            if live is not None:
                live.close()
    _last(server)


def _frames(
    camera: str | None,
    frames: str | None,
    seed: int,
    pattern: Pattern,
    small: str | None,
    registers: str | None,
    rafts: list[str] | None,
    locations: list[str] | None,
    distinct: int | None,
    losing: float,
) -> Frames:
    from raftwright.camera import camera as find_camera
    from raftwright.daq import Registers, ReplayedFrames, SimulatedFrames, open_store
    from raftwright.daq.small import small_registers

    if frames is not None:
        return ReplayedFrames(open_store(frames))
    found = find_camera(camera or "")
    shape = None
    if registers is not None:
        try:
            shape = Registers.parse([int(value) for value in registers.split(",")])
        except (ValueError, FormatError) as error:
            raise UsageError(f"--registers {registers[:60]}: {error}") from None
    elif small is not None:
        shape = small_registers(small, found)
    return SimulatedFrames(
        found,
        seed,
        rafts=rafts,
        locations=None if locations is None else [found.board(place).location for place in locations],
        pattern=pattern.value,
        registers=shape,
        distinct=distinct,
        losing=losing,
    )


def _keys(name: str | None, allowed: bool, directory: str | None) -> tuple[Any, Any]:
    """The server's pair and what gives the keys of clients, or None."""
    if name is None:
        if allowed:
            raise UsageError("--allowed needs --keys: clients are known by their keys")
        return None, None
    from raftwright.stream.keys import KeyStore

    store = KeyStore(directory)
    pair = store.secret(name)
    if allowed:
        store.allowed_keys()  # what is wrong with the list is said now
    return pair, store.allowed_keys if allowed else None


def _raise_limit() -> None:
    """As many open files as this user may have: every pull of a recording needs one. Raises StorageError
    where there are so few that libzmq would end the process."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < _FEWEST_FILES:
        raise StorageError(
            errno.EMFILE, f"only {hard} files can be open, {_FEWEST_FILES} are needed; raise it (ulimit -n)"
        )
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):
        console.note(f"up to {soft} files can be open; raise the limit (ulimit -n) for many clients")


def _page(server: Server, address: str | None) -> Any:
    if address is None:
        return None
    from raftwright.metrics import Metrics, StatusServer

    figures = Metrics("raftwright_server")
    for name, help in (
        ("bytes", "Bytes of pixels sent"),
        ("chunks", "Chunks sent"),
        ("pulls", "Pulls that are open"),
        ("peers", "Connections with pulls"),
        ("in_flight", "Bytes that ZeroMQ holds"),
        ("buffers", "Bytes of buffers"),
        ("pulls_lost", "Pulls given up because their client was gone"),
    ):
        figures.gauge(name, help, read=functools.partial(_number, server, name))

    def status() -> dict[str, Any]:
        numbers = server.status()
        limit = server.memory
        return {
            "service": "server",
            "state": "serving",
            "buffers": {"used": numbers["data"].get("buffers", 0), "limit": limit},
            **numbers,
        }

    return StatusServer(figures, address, status=status)


def _number(server: Server, name: str) -> float:
    return float(server.status()["data"].get(name, 0))


def _ready(server: Server, store: Store, live: CadenceStore | None, page: str | None) -> None:
    complete = len(store.images())
    said = f"serving {server.name} at {server.endpoint}: {count(complete, 'image')}"
    if live is not None:
        said += f", one every {live.every:g} s"
    console.say(said + ("" if page is None else f"; figures at {page}"))
    console.flush()
    console.event(
        "ready",
        {
            "endpoint": server.endpoint,
            "endpoints": server.endpoints,
            "session": server.session,
            "store": server.name,
            "images": complete,
            "epoch": None if live is None else live.epoch,
            "metrics": page,
            "pid": os.getpid(),
        },
    )


def _note_image(news: queue.SimpleQueue[Notice | None], notice: Notice) -> None:
    """Keeps what is to be told, within reason: nobody may be reading it."""
    if notice.kind == "complete" and news.qsize() < _MOST_NEWS:
        news.put(notice)


def _tell(store: Store, news: queue.SimpleQueue[Notice | None], until: float | None) -> None:
    """One line an image, until the time is over."""
    while until is None or time.monotonic() < until:
        wait = 3600.0 if until is None else max(0.0, until - time.monotonic())
        try:
            notice = news.get(timeout=wait)
        except queue.Empty:
            continue
        if notice is None:
            return
        try:
            info = store.image(notice.image).info
        except (RaftwrightError, OSError):
            continue  # gone already
        total = sum(source.bytes for source in info.sources)
        console.say(f"{info.name}: {count(len(info.sources), 'source')}, {size(total)}")
        console.flush()
        console.event(
            "image",
            {"image": info.name, "sources": len(info.sources), "bytes": total, "time": time.time()},
        )


def _last(server: Server) -> None:
    numbers = server.status()
    sent, taken = numbers["data"].get("bytes", 0), numbers["seconds"]
    done = ", ".join(f"{kind} {n}" for kind, n in sorted(numbers["faults"].items()))
    console.say(
        f"served {size(sent)} in {seconds(taken)} ({rate(sent, taken)})"
        + (f"; faults: {done}" if done else "")
    )
    console.event("stopped", numbers)
