"""The inputs besides the archive: what there is of them, whether they are well, and their end."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from raftwright.errors import NotFoundError, RaftwrightError, UsageError
from raftwright.oods.arrivals import Arrivals
from raftwright.oods.hearing import Hearing, end_others
from raftwright.oods.listing import Listing
from raftwright.oods.notified import Intake, dead_letters
from raftwright.oods.scanning import Scanning
from raftwright.oods.stored import Stores
from raftwright.oods.topics import Topic
from raftwright.transfer.bucket import UnencryptedError
from raftwright.transfer.warming import Warming

if TYPE_CHECKING:
    from raftwright.camera import Camera
    from raftwright.ledger import Ledger
    from raftwright.metrics import Metrics
    from raftwright.oods.settings import Settings
    from raftwright.oods.telling import Teller
    from raftwright.service import Task

__all__ = ["Inputs"]

_log = logging.getLogger("raftwright.oods")


class Inputs:
    """Raises, when it is made, what is missing for an input: UsageError, NotFoundError (a bucket of that
    name), MissingExtraError, StorageError.

    Parameters
    ----------
    planned
        Is called when there is something to ingest.
    """

    def __init__(
        self,
        ledger: Ledger,
        settings: Settings,
        cameras: Sequence[Camera],
        teller: Teller,
        *,
        planned: Callable[[], None],
        name: str,
        metrics: Metrics,
    ) -> None:
        self._ledger = ledger
        self._settings = settings
        arrivals = Arrivals(ledger, settings, cameras, planned)
        known = {camera.code: camera for camera in cameras}
        self.scans = [
            Scanning(one, ledger, settings.name, arrivals, known, teller.refused)
            for one in settings.directories
        ]
        self.intake: Intake | None = None
        self.topic: Topic | None = None
        self.listings: list[Listing] = []
        self.hearings: dict[str, Hearing] = {}
        """By bucket."""
        self._stores: Stores | None = None
        self._warming = Warming(_log)
        self._doubts: dict[str, str] = {}
        try:
            if settings.notifications is not None:
                self._notified(arrivals, cameras, teller, name, metrics)
            end_others(ledger, settings.name, {one.subject for one in self.hearings.values()})
        except BaseException:
            self.close()
            raise

    def _notified(
        self, arrivals: Arrivals, cameras: Sequence[Camera], teller: Teller, name: str, metrics: Metrics
    ) -> None:
        wanted = self._settings.notifications
        assert wanted is not None
        dead = dead_letters(wanted, self._settings.repository)
        self._stores = stores = Stores(wanted)
        arrivals.remote = stores.document
        for bucket in dict.fromkeys(wanted.buckets):
            self._check(stores, bucket)
        self.intake = intake = Intake(
            wanted,
            self._ledger,
            self._settings.name,
            arrivals,
            stores,
            dead,
            refused=teller.refused,
            heard=self._heard,
            metrics=metrics,
        )
        if wanted.topic:
            self.topic = Topic(wanted, intake, name)
        if not wanted.reconcile or not wanted.buckets:
            _log.warning(
                "notifications: nothing is listed, so that what no notification tells of is not found; name"
                " buckets, and let reconcile be above 0"
            )
            return
        instruments = self._settings.instruments or [camera.name for camera in cameras]
        for bucket in dict.fromkeys(wanted.buckets):
            subject = f"{self._settings.name} {wanted.root(bucket)}"
            self.hearings[bucket] = hearing = Hearing(self._ledger, subject, wanted.silence, metrics)
            self.listings.append(Listing(bucket, wanted, instruments, stores, intake, hearing, metrics))

    def _check(self, stores: Stores, bucket: str) -> None:
        """A name that is wrong stops the start; a store that is away does not."""
        key = "oods.notifications.buckets"
        try:
            _log.info("notifications: %s", stores.bucket(bucket).check())
        except NotFoundError as error:
            raise NotFoundError(f"{key}: {error}") from None
        except UnencryptedError as error:
            raise UsageError(f"oods.{error}") from None
        except RaftwrightError as error:
            self._doubts[bucket] = f"{key}: {error}"
            _log.error("%s", self._doubts[bucket])
            self._warming.begin(bucket, stores.bucket(bucket).check, functools.partial(self._doubt, bucket))

    def _doubt(self, bucket: str, reason: str) -> None:
        self._doubts[bucket] = f"oods.notifications.buckets: {reason}" if reason else ""

    def _heard(self, bucket: str) -> None:
        if bucket in self.hearings:
            self.hearings[bucket].heard()

    # -- for the service

    def begin(self, task: Callable[..., Any], active: Callable[[], bool]) -> None:
        """Adds the tasks, by the service's way to do so."""

        def add(name: str, work: Callable[..., None]) -> None:
            def run(one: Task) -> None:
                work(one, active=active)

            task(name, run)

        for number, scan in enumerate(self.scans, 1):
            add(f"scan {number}", scan.keep)
        if self.topic is not None:
            add("notifications", self.topic.read)
        if self.intake is not None:
            add("set aside", self.intake.retry)
        for number, listing in enumerate(self.listings, 1):
            add(f"list {number}", listing.keep)

    @property
    def settled(self) -> bool:
        """Whether all were looked through, and nothing still grows."""
        return all(one.settled for one in self.scans) and all(one.settled for one in self.listings)

    @property
    def growing(self) -> int:
        """Files that were not whole."""
        return sum(scan.waiting for scan in self.scans)

    def alarms(self) -> list[str]:
        """A sentence for each input that is silent and should not be."""
        return [one.alarm for one in self.hearings.values() if one.alarm]

    def problems(self) -> list[str]:
        """A sentence each."""
        listed = {one.bucket for one in self.listings if one.trouble}
        parts = [
            *(one.trouble for one in self.scans),
            "" if self.topic is None else self.topic.trouble,
            "" if self.intake is None else self.intake.trouble,
            *(one.trouble for one in self.listings),
            *(said for bucket, said in self._doubts.items() if bucket not in listed),
        ]
        return [part for part in parts if part]

    def close(self) -> None:
        """Ends all connections."""
        self._warming.close()
        if self._stores is not None:
            self._stores.close()
