"""`raftwright camera`: the cameras that are known, and checking files of others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raftwright.cli.console import columns, console
from raftwright.cli.exits import Exit
from raftwright.cli.figures import count
from raftwright.cli.options import JsonOption

if TYPE_CHECKING:
    from raftwright.camera import Board, Camera, Detector

__all__ = ["app"]

app = typer.Typer(
    help="Cameras: what is built in, what one is made of, and whether a camera file is right.",
    rich_markup_mode=None,
    no_args_is_help=False,
)


@app.command("list")
def list_cameras(json: JsonOption = False) -> None:
    """List the built-in cameras."""
    from raftwright.camera import camera as find_camera
    from raftwright.camera import camera_names

    del json
    console.command = "camera list"
    cameras = [find_camera(name) for name in camera_names()]
    rows: list[tuple[object, ...]] = [("name", "code", "rafts", "boards", "CCDs", "what it is")]
    rows += [(c.name, c.code, len(c.rafts), len(c.boards), len(c.detectors), c.title) for c in cameras]
    console.say(*columns(rows, right=(2, 3, 4)))
    console.answer("ok", Exit.OK, {"cameras": [_summary(camera) for camera in cameras]})


@app.command("show")
def show_camera(
    name: Annotated[str, typer.Argument(metavar="NAME|FILE", help="Built-in camera or camera file.")],
    raft: Annotated[
        str | None, typer.Option("--raft", help="The detectors of this raft.", show_default=False)
    ] = None,
    detector: Annotated[
        str | None,
        typer.Option("--detector", help="The segments of this detector, by name or id.", show_default=False),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show a camera: its rafts and boards, the detectors of a raft, or the segments of a detector."""
    from raftwright.camera import camera as find_camera

    del json
    console.command = "camera show"
    camera = find_camera(name)
    if detector is not None:
        found = camera.detector(int(detector) if detector.isdecimal() and len(detector) < 6 else detector)
        _show_detector(camera, found)
        console.answer("ok", Exit.OK, {"detector": _detector(found, segments=True)})
        return
    if raft is not None:
        _show_raft(camera, raft)
        chosen = camera.raft(raft)
        content = [_detector(d) for d in chosen.detectors]
        console.answer("ok", Exit.OK, {"raft": chosen.name, "serial": chosen.serial, "detectors": content})
        return
    _show_whole(camera)
    whole = {**_summary(camera), "rafts": [_raft(camera, r.name) for r in camera.rafts]}
    console.answer("ok", Exit.OK, {"camera": whole})


@app.command("check")
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Camera file.")], json: JsonOption = False
) -> None:
    """Check a camera file: every contradiction in it, with its line. The exit code is 5 if there are any."""
    from raftwright.camera import camera as find_camera
    from raftwright.camera import check_file

    del json
    console.command = "camera check"
    problems = check_file(file)
    code = Exit.FAULTS if problems else Exit.OK
    console.say(*problems)
    content: dict[str, Any] = {
        "file": file,
        "problems": [{"line": p.line, "place": p.place, "message": p.message} for p in problems],
    }
    if problems:
        console.error(f"{file}: {count(len(problems), 'problem')}; the first: {problems[0]}")
    else:
        camera = find_camera(file)
        content["camera"] = _summary(camera)
        console.say(f"{file}: no problem. {_sentence(camera)}")
    console.answer("faults" if problems else "ok", code, content)
    raise typer.Exit(code)


def _sentence(camera: Camera) -> str:
    return (
        f"{camera.name}: {count(len(camera.rafts), 'raft')}, {count(len(camera.boards), 'board')}, "
        f"{count(len(camera.detectors), 'CCD')}"
    )


def _show_whole(camera: Camera) -> None:
    console.say(
        f"{camera.name}: {camera.title}",
        f"  image code {camera.code}, INSTRUME {camera.instrume}, TELESCOP {camera.telescop}",
        f"  {count(len(camera.rafts), 'raft')}, {count(len(camera.boards), 'board')}, "
        f"{count(len(camera.detectors), 'CCD')}",
        "",
    )
    rows: list[tuple[object, ...]] = [("raft", "serial", "CCDs", "type", "boards")]
    for raft in camera.rafts:
        types = "/".join(dict.fromkeys(detector.type.name for detector in raft.detectors))
        boards = " ".join(f"{board.name}={board.location}" for board in raft.boards)
        rows.append((raft.name, raft.serial, len(raft.detectors), types, boards))
    console.say(*columns(rows, right=(2,)))


def _show_raft(camera: Camera, name: str) -> None:
    raft = camera.raft(name)
    console.say(f"{camera.name} {raft.name}, serial {raft.serial}", "")
    rows: list[tuple[object, ...]] = [("detector", "id", "type", "serial", "board", "x mm", "y mm", "yaw")]
    for d in raft.detectors:
        place = (f"{d.x_mm:.2f}", f"{d.y_mm:.2f}", f"{d.yaw_deg:g}")
        rows.append((d.name, d.id, d.type.name, d.serial, d.location, *place))
    console.say(*columns(rows, right=(1, 5, 6, 7)))


def _show_detector(camera: Camera, d: Detector) -> None:
    g = d.type.geometry
    console.say(
        f"{camera.name} {d.name}, detector {d.id}, {d.kind}, {d.type.name} {d.serial}",
        f"  read by {d.raft}/{d.board} at {d.location}; in headers {d.header_raft} {d.header_slot}",
        f"  at x {d.x_mm:.3f} mm, y {d.y_mm:.3f} mm, yaw {d.yaw_deg:g} degrees",
        f"  segments of {g.width} x {g.height}: prescan {g.prescan}, {g.columns} columns, "
        f"overscan {g.overscan}; {g.rows} rows, overscan {g.parallel_overscan}",
        "",
    )
    rows: list[tuple[object, ...]] = [
        ("HDU", "segment", "amp", "tile", "flip", "gain", "noise", "saturation")
    ]
    for s in d.segments:
        flips = ("x" if s.flip_x else "") + ("y" if s.flip_y else "") or "-"
        rows.append(
            (
                s.index + 1,
                s.name,
                s.amp,
                f"{s.ix},{s.iy}",
                flips,
                f"{s.gain:.3f}",
                f"{s.read_noise:.2f}",
                f"{s.saturation:.0f}",
            )
        )
    console.say(*columns(rows, right=(0, 5, 6, 7)))


def _summary(camera: Camera) -> dict[str, Any]:
    return {
        "name": camera.name,
        "title": camera.title,
        "code": camera.code,
        "instrume": camera.instrume,
        "telescop": camera.telescop,
        "rafts": len(camera.rafts),
        "boards": len(camera.boards),
        "detectors": len(camera.detectors),
    }


def _board(board: Board) -> dict[str, Any]:
    return {
        "name": board.name,
        "location": board.location,
        "kind": board.kind,
        "bits": board.bits,
        "xor_mask": board.xor_mask,
        "channels": board.channels,
        "detectors": [detector.name for detector in board.detectors],
    }


def _raft(camera: Camera, name: str) -> dict[str, Any]:
    raft = camera.raft(name)
    return {
        "name": raft.name,
        "serial": raft.serial,
        "boards": [_board(board) for board in raft.boards],
        "detectors": [detector.name for detector in raft.detectors],
    }


def _detector(d: Detector, *, segments: bool = False) -> dict[str, Any]:
    g = d.type.geometry
    content: dict[str, Any] = {
        "name": d.name,
        "id": d.id,
        "kind": d.kind,
        "type": d.type.name,
        "vendor": d.type.vendor,
        "serial": d.serial,
        "location": d.location,
        "file_stem": d.file_stem,
        "x_mm": d.x_mm,
        "y_mm": d.y_mm,
        "yaw_deg": d.yaw_deg,
        "geometry": {
            "prescan": g.prescan,
            "columns": g.columns,
            "overscan": g.overscan,
            "rows": g.rows,
            "parallel_overscan": g.parallel_overscan,
        },
    }
    if segments:
        content["segments"] = [
            {
                "name": s.name,
                "amp": s.amp,
                "hdu": s.index + 1,
                "tile": [s.ix, s.iy],
                "flip_x": s.flip_x,
                "flip_y": s.flip_y,
                "gain": s.gain,
                "read_noise": s.read_noise,
                "saturation": s.saturation,
            }
            for s in d.segments
        ]
    return content
