"""How replicas stand, told: at each endpoint, and of an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from raftwright.cli.console import columns, console
from raftwright.cli.exits import Exit
from raftwright.cli.figures import count, seconds

if TYPE_CHECKING:
    from raftwright.backbone.standing import ImageStanding

__all__ = ["tell_endpoints", "tell_images"]

_SHOWN = 20


def tell_endpoints(endpoints: Mapping[str, Mapping[str, Any]]) -> None:
    """A line each, and their dead letters."""
    if not endpoints:
        console.say("no endpoints are configured")
    rows = []
    for name, each in endpoints.items():
        bad = ", ".join(f"{n} {state}" for state, n in each["replicas"].items() if state != "verified")
        waiting = ", ".join(f"{n} {state}" for state, n in each["waiting"].items())
        oldest = each["oldest_check_s"]
        rows.append(
            (
                name + _kind_of(each),
                f"{each['replicas'].get('verified', 0)} verified" + (f", {bad}" if bad else ""),
                waiting or ("nothing waits" if each["kind"] else f"gone? `raftwright handoff lost {name}`"),
                "" if oldest is None else f"oldest check {_age(oldest)} ago",
            )
        )
    console.say(*columns(rows))
    for each in endpoints.values():
        for letter in each["dead_letters"][:_SHOWN]:
            console.say(
                f"  {letter['endpoint']}: {letter['path']}: {letter['state']} after "
                f"{count(letter['attempts'], 'try', 'tries')}: {letter['reason']}"
            )


def _kind_of(endpoint: Mapping[str, Any]) -> str:
    if not endpoint["kind"]:
        return " (not configured)"
    return " (custodial)" if endpoint["custodial"] else ""


def tell_images(images: Sequence[ImageStanding]) -> None:
    """Of each file who has it and who lacks it; the end of the command."""
    import msgspec

    for image in images:
        console.say(f"{image.obsid}: {image.state}, " + ("safe" if image.safe else "not safe yet"))
        console.say(
            *columns(
                [
                    (
                        f"  {Path(file.path).name}",
                        f"verified at {', '.join(file.verified)}" if file.verified else "nowhere verified",
                        "; ".join(f"{name}: {why}" for name, why in file.lacking.items()),
                    )
                    for file in image.files
                ]
            )
        )
    safe = all(image.safe for image in images)
    listed = [{**msgspec.to_builtins(image), "safe": image.safe} for image in images]
    console.answer("ok" if safe else "faults", Exit.OK if safe else Exit.FAULTS, {"images": listed})
    if not safe:
        raise typer.Exit(Exit.FAULTS)


def _age(span: float) -> str:
    return (
        f"{span / 86400:.1f} d"
        if span >= 172_800
        else f"{span / 3600:.1f} h"
        if span >= 7200
        else seconds(span)
    )
