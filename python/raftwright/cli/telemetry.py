"""`raftwright telemetry`: simulated telemetry, for trials and tests."""

from __future__ import annotations

import queue
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import typer

from raftwright.cli.console import console
from raftwright.cli.options import JsonOption, duration, names
from raftwright.cli.signals import stopped_by_signals
from raftwright.errors import UsageError

__all__ = ["telemetry"]


def telemetry(
    endpoint: Annotated[
        str,
        typer.Argument(help="Of the DAQ's server whose images are followed; none: images of its own."),
    ] = "",
    spec: Annotated[
        str, typer.Option("--spec", metavar="CAMERA|FILE", help="What there is to tell.")
    ] = "LSSTComCam",
    events: Annotated[
        str, typer.Option("--events", metavar="URL", help="Where it is told.")
    ] = "tcp://127.0.0.1:5585",
    exposure: Annotated[
        str, typer.Option("--exposure", metavar="TIME", help="Length of an exposure.")
    ] = "2s",
    types: Annotated[
        list[str] | None,
        typer.Option("--types", metavar="BIAS,OBJECT", help="Image types, in turn.  [default: OBJECT]"),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="The same seed tells the same.")] = 1,
    faults: Annotated[
        list[str] | None,
        typer.Option(
            "--faults",
            metavar="late=0.1,never=0.05",
            help="Shares of images: late never twice doubled nan wrong_name out_of_range lost shuffled.",
            show_default=False,
        ),
    ] = None,
    every: Annotated[
        str, typer.Option("--every", metavar="TIME", help="Without a DAQ: from image to image.")
    ] = "17s",
    readout: Annotated[
        str, typer.Option("--readout", metavar="TIME", help="Without a DAQ: that an image takes.")
    ] = "2s",
    images: Annotated[int, typer.Option("--images", help="Without a DAQ: how many; 0: no end.")] = 0,
    json: JsonOption = False,
) -> None:
    """Tell of images what a simulated observatory would: events of the exposure, pointing, weather, ...

    Follows the images of a server (`raftwright serve`), or takes images of its own on a cadence.
    """
    del json
    console.command = "telemetry"
    from raftwright.header.telemetry import Settings, TelemetrySimulator
    from raftwright.service.logs import logging_to

    given = {
        "spec": spec,
        "daq": endpoint,
        "events": events,
        "seed": seed,
        "exposure": duration(exposure, "--exposure"),
        "image_types": tuple(names(types) or ("OBJECT",)),
        "faults": _shares(names(faults) or []),
        "every": duration(every, "--every"),
        "readout": duration(readout, "--readout"),
        "images": images,
    }
    try:
        settings = msgspec.convert(given, Settings)
    except msgspec.ValidationError as error:
        raise UsageError(f"{error}; see raftwright telemetry --help") from None
    service = TelemetrySimulator(settings)
    news: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()
    with logging_to(), stopped_by_signals(news):
        try:
            service.start()
            assert service.publisher is not None
            where = service.publisher.endpoint
            console.say(f"telemetry of {spec} at {where}")
            console.flush()
            console.event("ready", {"events": where, "spec": spec, "daq": endpoint or None})
            while True:
                try:
                    if news.get(timeout=3600.0) is None:
                        break
                except queue.Empty:
                    continue
        finally:
            service.stop()
    console.say(f"told {service.told} events of {service.followed} images")
    console.event("stopped", {"told": service.told, "images": service.followed})


def _shares(words: list[str]) -> dict[str, float]:
    shares: dict[str, float] = {}
    for word in words:
        name, _, share = word.partition("=")
        try:
            shares[name] = float(share or "1")
        except ValueError:
            raise UsageError(f"--faults: {word[:40]!r} is no share; write late=0.1") from None
    return shares
