"""What the tests of the OODS share: an archive of small raws with its ledger, a repository, services."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "butler"))  # for small_raws

from small_raws import Raws

from raftwright.ledger import IngestRow, Ledger, open_ledger
from raftwright.ledger.rebuilding import rebuild
from raftwright.oods import Oods, Places, Settings

__all__ = ["Site", "wait_for"]


def wait_for(what: Callable[[], Any], timeout: float = 20.0) -> Any:
    """The first true answer."""
    until = time.monotonic() + timeout
    while True:
        if answer := what():
            return answer
        assert time.monotonic() < until, f"waited {timeout} s in vain"
        time.sleep(0.02)


class Site:
    """An archive, its ledger, a repository; and OODSs that are stopped at the end."""

    def __init__(self, path: Path, empty: Path) -> None:
        self.path = path
        self.raws = Raws(path / "archive")
        self.raws.root.mkdir()
        self.repo = path / "repo"
        shutil.copytree(empty, self.repo)
        self.url = f"sqlite:///{path / 'ledger.db'}"
        self.ledger: Ledger = open_ledger(self.url)
        self.started: list[Oods] = []

    def image(self, number: int = 123, **more: Any) -> list[Path]:
        """Raws of an image, and the ledger told of them."""
        paths = self.raws.image(f"MC_O_20261122_{number:06d}", **more)
        rebuild(self.ledger, self.raws.root)
        return paths

    def settings(self, **more: Any) -> Settings:
        known: dict[str, Any] = {"repository": str(self.repo), "sweep": 0.3, "events_wait": 0.05}
        return Settings(**{**known, **more})

    def oods(self, publish: str = "", **more: Any) -> Oods:
        """Started."""
        places = Places(ledger=self.url, camera="LSSTCam", publish=publish)
        service = Oods(self.settings(**more), places).start()
        self.started.append(service)
        return service

    def ingested(self, number: int, service: Oods | None = None, **more: Any) -> list[IngestRow]:
        """Waits until so many files are ingested; all rows of them."""
        one = service or self.oods(**more)
        wait_for(lambda: len(self.rows("ingested")) >= number)
        wait_for(lambda: one.idle)
        return self.rows("ingested")

    def rows(self, *states: str) -> list[IngestRow]:
        return self.ledger.ingests.select(repository="oods", states=states or None)

    def close(self) -> None:
        for service in self.started:
            service.stop(0.0)
        self.ledger.close()
