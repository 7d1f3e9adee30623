"""The report of a night as files."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from raftwright.errors import StorageError
from raftwright.report.markdown import markdown
from raftwright.report.night import NightFigures
from raftwright.report.page import page

__all__ = ["to_dict", "write_report"]


def write_report(figures: NightFigures, directory: Path) -> tuple[Path, Path]:
    """Writes <dayobs>.md and <dayobs>.html, whole or not at all, in place of those of before. Raises
    StorageError."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(error.errno, f"cannot be made ({error.strerror})", str(directory)) from error
    written = []
    for ending, text in ((".md", markdown(figures)), (".html", page(figures))):
        path = directory / f"{figures.dayobs}{ending}"
        hidden = directory / f".{path.name}.{os.getpid()}.tmp"
        try:
            with hidden.open("w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            hidden.replace(path)
        except OSError as error:
            hidden.unlink(missing_ok=True)
            raise StorageError(error.errno, f"cannot be written ({error.strerror})", str(path)) from error
        written.append(path)
    return written[0], written[1]


def to_dict(figures: NightFigures) -> dict[str, Any]:
    """The figures for JSON, without the single images."""
    up = figures.availability
    return {
        "dayobs": figures.dayobs,
        "colour": figures.colour.value,
        "images": len(figures.images),
        "states": figures.states,
        "types": figures.types,
        "instruments": figures.instruments,
        "headers": figures.headers,
        "header_problems": figures.header_problems,
        "detectors": {"expected": figures.detectors, "present": figures.present},
        "missing_pixels": figures.missing_pixels,
        "raw_files": figures.files,
        "raw_bytes": figures.bytes,
        "latencies": [
            {
                "name": one.name,
                "images": one.number,
                "p50_s": one.p50_s,
                "p95_s": one.p95_s,
                "p99_s": one.p99_s,
                "longest_s": one.most_s,
                "below_zero": one.strange,
            }
            for one in figures.stages
        ],
        "buckets": figures.buckets,
        "losses": figures.losses,
        "late": [image.obsid for image in figures.late],
        "not_complete": {
            image.obsid: {"state": image.state, "reason": image.reason} for image in figures.open
        },
        "destinations": [asdict(one) for one in figures.destinations],
        "incidents": [one.to_dict() for one in figures.incidents],
        "availability": {
            "share": up.share,
            "observed_s": up.observed_s,
            "down_s": up.down_s,
            "longest_down_s": up.longest_down_s,
        },
        "scorecard": [
            {"name": one.name, "share": one.share, "colour": one.colour.value} for one in figures.scores
        ],
    }
