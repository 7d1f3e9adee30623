"""What a service counts and times, and the page where that can be seen.

    metrics = Metrics("raftwright_forwarder")
    with metrics.stage("write"): ...
    metrics.counter("files", "Files written").add()
    metrics.drops("late", kind="pixels", bytes=1950720)
    server = StatusServer(metrics, "127.0.0.1:9557", status=lambda: {"service": "forwarder"})

The server, and prometheus-client with it, are imported when they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raftwright.metrics.figures import Counter, Gauge, Loss, Metrics, Stage, render

if TYPE_CHECKING:
    from raftwright.metrics.page import StatusServer

__all__ = ["Counter", "Gauge", "Loss", "Metrics", "Stage", "StatusServer", "render"]


def __getattr__(name: str) -> Any:
    if name == "StatusServer":
        from raftwright.metrics.page import StatusServer

        return StatusServer
    raise AttributeError(f"module 'raftwright.metrics' has no attribute {name!r}")
