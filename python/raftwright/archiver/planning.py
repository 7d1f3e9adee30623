"""What goes where: the deliveries that follow from the files of an image."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from raftwright.errors import RaftwrightError
from raftwright.ledger.rows import DeliveryPlan
from raftwright.transfer.naming import RANKS, priority, target

if TYPE_CHECKING:
    from raftwright.archiver.settings import Command, Destination
    from raftwright.ledger.rows import FileRow, ImageRow

__all__ = ["COMMAND", "Planner"]

_log = logging.getLogger("raftwright.archiver")

COMMAND: Final = "command:"
"""Before the name of a command where the ledger names a destination."""


class Planner:
    """Knows the destinations and commands."""

    def __init__(self, destinations: Sequence[Destination], commands: Sequence[Command]) -> None:
        self._destinations = destinations
        self._commands = commands

    def files(self, image: ImageRow, files: Iterable[FileRow]) -> list[DeliveryPlan]:
        """Deliveries of files that are known to be whole."""
        listed = list(files)
        plans: list[DeliveryPlan] = []
        for destination in self._destinations:
            if destination.instruments and image.instrument not in destination.instruments:
                continue
            for file in listed:
                if file.kind in destination.what:
                    plans += self._delivery(destination, image, file)
        for command in self._commands:
            if command.per == "file" and self._wants(command, image):
                plans += [
                    DeliveryPlan(
                        image_id=image.id,
                        destination=f"{COMMAND}{command.name}",
                        path=file.path,
                        target=file.detector,
                        bytes=file.bytes,
                        crc32c=file.crc32c,
                        priority=command.priority,
                        rank=RANKS["raw"],
                    )
                    for file in listed
                    if file.kind == "raw"
                ]
        return plans

    @staticmethod
    def _delivery(destination: Destination, image: ImageRow, file: FileRow) -> list[DeliveryPlan]:
        try:
            name = target(destination.layout, image, file.path, file.detector)
        except RaftwrightError as error:
            _log.error("%s cannot be delivered to %s: %s", file.path, destination.name, error)
            return []
        return [
            DeliveryPlan(
                image_id=image.id,
                destination=destination.name,
                path=file.path,
                target=name,
                bytes=file.bytes,
                crc32c=file.crc32c,
                priority=priority(destination.order, image.camera, file.detector),
                rank=RANKS[file.kind],
            )
        ]

    def image(self, image: ImageRow, directory: Path) -> list[DeliveryPlan]:
        """Commands for an image, once it is as complete as it gets."""
        return [
            DeliveryPlan(
                image_id=image.id,
                destination=f"{COMMAND}{command.name}",
                path=str(directory),
                priority=command.priority,
                rank=RANKS["raw"],
            )
            for command in self._commands
            if command.per == "image" and self._wants(command, image)
        ]

    @staticmethod
    def _wants(command: Command, image: ImageRow) -> bool:
        return not command.instruments or image.instrument in command.instruments
