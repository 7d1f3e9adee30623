"""`raftwright info`: what a raw file, a recording or a directory is, and how the package was built."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raftwright.cli.console import columns, console
from raftwright.cli.exits import Exit
from raftwright.cli.figures import count, pixels, size
from raftwright.cli.inputs import find_raw_files
from raftwright.cli.options import CameraOption, JsonOption
from raftwright.errors import NotFoundError, RaftwrightError, UsageError

if TYPE_CHECKING:
    from raftwright.daq import ImageInfo
    from raftwright.rawfile import RawFile

__all__ = ["info"]

_MOST_LISTED = 250
_PACKAGES = (
    "numpy",
    "astropy",
    "msgspec",
    "PyYAML",
    "pyzmq",
    "typer",
    "rich",
    "prometheus-client",
    "pillow",
    "fitsio",
)


def info(
    path: Annotated[
        str | None,
        typer.Argument(
            metavar="[PATH]", help="Raw file, container, recording, or a directory.", show_default=False
        ),
    ] = None,
    build: Annotated[
        bool, typer.Option("--build", help="How the package was built, and what it chose here.")
    ] = False,
    header: Annotated[bool, typer.Option("--header", help="All header cards of a raw file.")] = False,
    camera: CameraOption = None,
    json: JsonOption = False,
) -> None:
    """Tell what a path is, or with --build how this package was built and which kernels it runs."""
    del json
    console.command = "info"
    if (path is None) == (not build):
        raise UsageError("info wants a path or --build, one of the two")
    if path is None:
        _tell_build()
    elif os.path.isdir(path):
        _tell_directory(path, camera)
    elif os.path.lexists(path) and path.endswith(".zip"):
        from raftwright.cli.containers import tell_container

        tell_container(Path(path))
    elif os.path.lexists(path):
        _tell_file(Path(path), camera, header=header)
    else:
        raise NotFoundError(f"{path}: there is no such file or directory")


def _tell_build() -> None:
    import importlib.metadata

    from raftwright import _core

    facts: dict[str, Any] = dict(_core.build_info())
    facts["processors usable"] = _core.usable_processors()
    facts["python"] = f"{platform.python_implementation()} {platform.python_version()} ({sys.executable})"
    facts["system"] = f"{platform.system()} {platform.release()} {platform.machine()}"
    packages: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            packages[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            packages[package] = None
    rows: list[tuple[object, ...]] = []
    for name, value in facts.items():
        rows.append((name, " ".join(map(str, value)) if isinstance(value, (list, tuple)) else value or "-"))
    rows += [(name, version or "not installed") for name, version in packages.items()]
    console.say(*columns(rows))
    console.answer("ok", Exit.OK, {"build": facts, "packages": packages})


def _tell_directory(path: str, camera: str | None) -> None:
    from raftwright.daq import RecordedStore, open_recording
    from raftwright.daq.recording import is_recording

    if is_recording(path):
        _tell_recording(open_recording(path).info, path)
        return
    store = RecordedStore(path)
    names, problems = store.images(), store.problems()
    if names or problems:
        console.say(f"{path}: {count(len(names), 'recording')}")
        console.say(*(f"  {name}" for name in names[:_MOST_LISTED]))
        for problem in problems:
            console.note(problem)
        console.answer("ok", Exit.OK, {"kind": "store", "path": path, "images": names, "problems": problems})
        return
    _tell_raws(path, camera)


def _tell_recording(image: ImageInfo, path: str) -> None:
    from raftwright.camera import camera as find_camera

    try:
        camera = find_camera(image.camera)
    except RaftwrightError as error:
        camera = None
        console.note(error)
    octets = sum(source.bytes for source in image.sources)
    missing = sum(end - begin for source in image.sources for begin, end in source.gaps)
    console.say(
        f"{path}: recording of {image.name}",
        f"  camera {image.camera}, folder {image.folder}, taken {image.timestamp or 'at an unknown time'} TAI"
        f"{', ' + image.annotation if image.annotation else ''}",
        f"  {count(len(image.sources), 'source')}, {size(octets)} packed"
        f"{f', of which {size(missing)} never arrived' if missing else ', nothing missing'}",
    )
    rows: list[tuple[object, ...]] = [("location", "kind", "CCDs", "segments of", "bytes", "crc32c", "file")]
    sources: list[dict[str, Any]] = []
    for source in image.sources:
        board = camera.boards.get(source.location) if camera is not None else None
        slots = [detector.name for detector in board.detectors] if board is not None else []
        shape = f"{source.registers.width} x {source.registers.height}"
        short = " ".join(slots) or "?"
        rows.append(
            (source.location, source.kind, short, shape, source.bytes, source.crc32c or "-", source.file)
        )
        sources.append(
            {
                "location": source.location,
                "kind": source.kind,
                "detectors": slots,
                "width": source.registers.width,
                "height": source.registers.height,
                "registers": source.registers.as_list(),
                "bytes": source.bytes,
                "crc32c": source.crc32c,
                "file": source.file,
                "gaps": [list(gap) for gap in source.gaps],
            }
        )
    console.say(*("  " + line for line in columns(rows[: _MOST_LISTED + 1], right=(4,))))
    content = {
        "kind": "recording",
        "path": path,
        "image": image.name,
        "camera": image.camera,
        "folder": image.folder,
        "annotation": image.annotation,
        "timestamp": image.timestamp,
        "bytes": octets,
        "missing_bytes": missing,
        "sources": sources,
    }
    console.answer("ok", Exit.OK, content)


def _tell_file(path: Path, camera: str | None, *, header: bool) -> None:
    from raftwright.rawfile import open_raw

    raw = open_raw(path, camera=camera)
    content = _raw_content(raw)
    shape = content["segments"][0]["shape"] if content["segments"] else []
    octets = content["bytes"]
    total = sum(_product(segment["shape"]) for segment in content["segments"])
    packing = sorted({str(segment["compression"] or "plain") for segment in content["segments"]})
    console.say(f"{path}: FITS, {count(len(raw.fits), 'HDU')}, {size(octets)}")
    if content["image"] is not None:
        detector, of = content["detector"] or "unknown", content["camera"] or "an unknown camera"
        console.say(f"  image {content['image']}, detector {detector} of {of}")
    if total:
        packed = sum(raw.fits.info(segment["hdu"])["data_bytes"] for segment in content["segments"])
        ratio = f", {8 * packed / total:.2f} bits a pixel"
        console.say(
            f"  {count(len(content['segments']), 'image')} of {' x '.join(str(n) for n in reversed(shape))}, "
            f"{pixels(total)}, {', '.join(packing)}{ratio}"
        )
    if content["missing_pixels"]:
        console.say(f"  {count(content['missing_pixels'], 'pixel')} missing")
    for problem in content["problems"]:
        console.note(problem)
    if header:
        for hdu in range(len(raw.fits)):
            text = raw.fits.cards(hdu).decode("latin-1")
            console.say(f"--- HDU {hdu} {raw.fits.info(hdu)['name']}".rstrip())
            console.say(*(text[n : n + 80].rstrip() for n in range(0, len(text), 80)))
        content["header"] = dict(raw.header)
    else:
        rows: list[tuple[object, ...]] = [("HDU", "name", "kind", "shape", "compression", "bytes")]
        for hdu in range(min(len(raw.fits), _MOST_LISTED)):
            facts = raw.fits.info(hdu)
            size_text = " x ".join(str(n) for n in reversed(facts["shape"])) or "-"
            rows.append(
                (
                    hdu,
                    facts["name"] or "-",
                    facts["kind"],
                    size_text,
                    facts["compression"] or "-",
                    facts["data_bytes"],
                )
            )
        console.say(*("  " + line for line in columns(rows, right=(0, 5))))
    console.answer("ok", Exit.OK, content)


def _product(shape: list[int]) -> int:
    total = 1
    for length in shape:
        total *= length
    return total


def _raw_content(raw: RawFile) -> dict[str, Any]:
    problems: list[str] = []
    camera = detector = None
    try:
        camera = raw.camera.name
        detector = raw.detector.name
    except RaftwrightError as error:
        problems.append(str(error))
    segments = []
    for name, hdu in raw.segments.hdus.items():
        facts = raw.fits.info(hdu)
        segments.append(
            {"name": name, "hdu": hdu, "shape": list(facts["shape"]), "compression": facts["compression"]}
        )
    return {
        "kind": "raw file",
        "path": raw.path,
        "bytes": raw.path.stat().st_size,
        "image": raw.header.string("OBSID"),
        "camera": camera,
        "detector": detector,
        "missing_pixels": raw.missing_pixels,
        "hdus": len(raw.fits),
        "segments": segments,
        "problems": problems,
    }


def _tell_raws(path: str, camera: str | None) -> None:
    from raftwright.rawfile import open_raw

    files = find_raw_files([path])
    rows: list[tuple[object, ...]] = [("file", "detector", "bytes", "missing pixels")]
    entries: list[dict[str, Any]] = []
    for file in files:
        try:
            content = _raw_content(open_raw(file, camera=camera))
        except RaftwrightError as error:
            entries.append({"path": file, "error": str(error)})
            console.note(error)
            continue
        entries.append(
            {key: content[key] for key in ("path", "bytes", "image", "camera", "detector", "missing_pixels")}
        )
        rows.append(
            (file.name, content["detector"] or "?", content["bytes"], content["missing_pixels"] or "-")
        )
    images = sorted({str(entry["image"]) for entry in entries if entry.get("image")})
    octets = sum(int(entry.get("bytes", 0)) for entry in entries)
    some = ", ".join(images[:3]) + (" .." if len(images) > 3 else "")
    console.say(
        f"{path}: {count(len(files), 'raw file')} of {count(len(images), 'image')} ({some}), {size(octets)}"
    )
    console.say(*("  " + line for line in columns(rows[: _MOST_LISTED + 1], right=(2, 3))))
    console.answer("ok", Exit.OK, {"kind": "raw files", "path": path, "images": images, "files": entries})
