"""`imageInOODS`: what became of a file, in the observatory's fields and codes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from raftwright.errors import FormatError, RaftwrightError
from raftwright.events.codes import OodsStatus
from raftwright.rawfile.names import FileName

if TYPE_CHECKING:
    from raftwright.events import Publisher
    from raftwright.ledger.rows import IngestRow

__all__ = ["Teller"]

_log = logging.getLogger("raftwright.oods")

_LONGEST: Final = 500


class Teller:
    """Publishes, if there is a publisher, and never fails: events are hints, the ledger knows."""

    def __init__(self, publisher: Publisher | None, instruments: Mapping[str, str]) -> None:
        self.publisher = publisher
        self._instruments = instruments
        """By the code that names begin with."""
        self.told = 0

    def of(self, row: IngestRow, code: int, description: str) -> None:
        """A file is ingested, or will not be."""
        if self.publisher is None:
            return
        raft, _, sensor = row.detector.partition("_")
        try:
            self.publisher.publish(
                "imageInOODS",
                camera=row.instrument or "UNDEF",
                obsid=row.obsid or "??",
                raft=raft or "R??",
                sensor=sensor or "S??",
                statusCode=OodsStatus(code),
                description=description[:_LONGEST],
            )
            self.told += 1
        except RaftwrightError as error:
            _log.error("%s", error)

    def refused(self, path: str, reason: str) -> None:
        """A file that never became an ingest, where its name says whose it is."""
        if self.publisher is None:
            return
        try:
            name = FileName.parse(path)
        except FormatError:
            return  # there is nobody to tell of; the ledger has set it aside
        try:
            self.publisher.publish(
                "imageInOODS",
                camera=self._instruments.get(name.image.source, "UNDEF"),
                obsid=str(name.image),
                raft=name.raft,
                sensor=name.slot,
                statusCode=OodsStatus.INGEST_FAILURE,
                description=f"not taken: {reason}"[:_LONGEST],
            )
            self.told += 1
        except RaftwrightError as error:
            _log.error("%s", error)

    def close(self) -> None:
        """Closes the publisher."""
        if self.publisher is not None:
            self.publisher.close()
