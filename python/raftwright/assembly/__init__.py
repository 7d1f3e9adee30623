"""From the streams of the boards to CCDs and rafts.

`assemble` gives an image as arrays; `read_sources` hands over each source as it completes, for whoever
writes files or looks at pixels while the rest still comes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from raftwright.assembly.image import AssembledImage, Ccd, RaftImage
from raftwright.assembly.mosaics import paint
from raftwright.assembly.reading import CHUNK_BYTES, Progress, check_fill, read_sources
from raftwright.assembly.source import AssembledSource, PixelRuns
from raftwright.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from raftwright.camera import Board, Camera
    from raftwright.daq import DaqImage, Store

__all__ = [
    "CHUNK_BYTES",
    "AssembledImage",
    "AssembledSource",
    "Ccd",
    "PixelRuns",
    "Progress",
    "RaftImage",
    "assemble",
    "check_fill",
    "open_image",
    "paint",
    "read_sources",
    "select_boards",
]


def open_image(store: Store | DaqImage | str | os.PathLike[str], image: str | None = None) -> DaqImage:
    """The image that is meant: an image itself, one of a store by name, or a recording's directory.

    A store (or a directory of recordings) with one image needs no name. Raises NotFoundError, UsageError.
    """
    from raftwright.daq import DaqImage, open_store

    if isinstance(store, str | os.PathLike):
        store = open_store(os.fspath(store))
    if isinstance(store, DaqImage):
        if image is not None and store.info.name != image:
            raise NotFoundError(f"this is image {store.info.name}, not {image}")
        return store
    names = store.images()
    if image is None:
        if len(names) != 1:
            shown = ", ".join(names[:3]) + (" .." if len(names) > 3 else "")
            raise UsageError(
                f"the store has {len(names)} images{': ' + shown if names else ''}; name one of them"
            )
        image = names[0]
    return store.image(image)


def select_boards(
    image: DaqImage,
    camera: Camera,
    *,
    locations: Iterable[str] | None = None,
    rafts: Iterable[str] | None = None,
) -> list[Board]:
    """The boards of an image that are asked for: all, or those at ``locations`` or in ``rafts``.

    Raises NotFoundError for a location that the camera or the image does not have, and when none is left.
    """
    present = {source.location: source for source in image.info.sources}
    if not present:
        raise NotFoundError(f"{image.info.name} has no sources: there is nothing in it to assemble")
    if locations is None and rafts is None:
        return [camera.board(location) for location in present]
    chosen: dict[str, Board] = {}
    for location in locations or ():
        board = camera.board(location)
        if board.location not in present:
            known = ", ".join(sorted(present)) or "none"
            raise NotFoundError(f"{image.info.name} has no source at {location}; there are {known}")
        chosen[board.location] = board
    for name in rafts or ():
        raft = camera.raft(name)
        boards = [board for board in raft.boards if board.location in present]
        if not boards:
            raise NotFoundError(f"{image.info.name} has no source of raft {raft.name}")
        chosen.update((board.location, board) for board in boards)
    if not chosen:
        raise NotFoundError(
            f"no source of {image.info.name} was asked for; name at least one, or none for all"
        )
    return list(chosen.values())


def assemble(
    store: Store | DaqImage | str | os.PathLike[str],
    image: str | None = None,
    *,
    camera: Camera | str | None = None,
    locations: Sequence[str] | None = None,
    rafts: Sequence[str] | None = None,
    threads: int | None = None,
    fill: int = -1,
    progress: Progress | None = None,
) -> AssembledImage:
    """Assembles an image into int32 arrays in memory.

    Parameters
    ----------
    store
        A `Store`, an image of one, or the path of a recording or of a directory of recordings.
    image
        Name of the image, where the store has several.
    camera
        Camera, its name or its file; by default what the image says.
    locations, rafts
        Which boards (``["22/0"]``) or rafts (``["R22"]``) to read; everything by default.
    threads
        Workers; every processor by default.
    fill
        Value of pixels that never arrived. The default, -1, is no value that a pixel can have.
    progress
        Called with (bytes done, bytes in all).

    Returns
    -------
    AssembledImage
        ``result["R22_S11"].segments["Segment10"]`` is a (2048, 576) int32 view, without copy.

    Raises
    ------
    NotFoundError
        No such image, camera, location or raft.
    FormatError
        A source contradicts its description: registers, size, CRC-32C.
    """
    from raftwright.camera import camera as find_camera

    opened = open_image(store, image)
    if camera is None:
        camera = opened.info.camera
    if isinstance(camera, str | os.PathLike):
        camera = find_camera(camera)
    boards = select_boards(opened, camera, locations=locations, rafts=rafts)
    sources: list[AssembledSource] = []
    lock = threading.Lock()

    def keep(source: AssembledSource) -> None:
        with lock:
            sources.append(source)

    read_sources(opened, boards, keep, pixels=True, fill=fill, threads=threads, progress=progress)
    return AssembledImage(camera, opened.info, sources)
