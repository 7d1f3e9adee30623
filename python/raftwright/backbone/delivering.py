"""The lanes of a hand-off: one for each endpoint, with what it sends by.

A replica comes from the archive. Where that has the file no more, or not as it was, it comes from another
endpoint that has a good one. What stands at its name there and is known to be damaged is set aside first;
anything else under its name is a conflict and stays.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from raftwright.backbone.presence import Presence
from raftwright.errors import ConflictError, NotFoundError, RaftwrightError
from raftwright.ledger.replicas import ENDPOINT
from raftwright.rawfile.standing import digest
from raftwright.transfer.lane import Ended, Lane, Limits
from raftwright.transfer.naming import before
from raftwright.transfer.outcome import Job, OutageError, RefusedError, Sent
from raftwright.transfer.sender import sender_of
from raftwright.transfer.warming import Warming

if TYPE_CHECKING:
    from raftwright.backbone.settings import Endpoint
    from raftwright.ledger import Ledger
    from raftwright.ledger.rows import DeliveryRow
    from raftwright.metrics import Metrics
    from raftwright.transfer.sender import Sender

__all__ = ["Lanes"]

_log = logging.getLogger("raftwright.backbone")

_BESIDE: Final = (
    "SELECT target, bytes, crc32c FROM delivery"
    " WHERE image_id = ? AND destination = ? AND path = ? AND state <> 'delivered'"
)
_IN_A_ROW: Final = 10
_HELD: Final = frozenset({"immutable", "legal hold"})


class Lanes:
    """Raises, when it is made, what is missing for an endpoint.

    `told` is called with each try that ended; `rotten` with a container of the archive that is not what it
    was, and why: it can be made anew. `active` says whether to take on work.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        ledger: Ledger,
        *,
        told: Callable[[Endpoint, Ended], None],
        rotten: Callable[[str, str], None],
        active: Callable[[], bool],
        metrics: Metrics,
    ) -> None:
        self._ledger = ledger
        self._rotten = rotten
        self.weak: dict[str, str] = {}
        """Custodial endpoints that cannot hold files against their owner, and how they hold them."""
        self._lock = threading.Lock()
        self._warming = Warming(_log)
        self._under_way: dict[tuple[str, str, str], tuple[float, Future[Sent]]] = {}
        self._lanes: dict[str, Lane] = {}
        self.senders: dict[str, Sender] = {}
        """By the names of the endpoints."""
        self.presences: dict[str, Presence] = {}
        for endpoint in endpoints:
            self.senders[endpoint.name] = sender = sender_of(endpoint.place)
            self.presences[endpoint.name] = presence = Presence(endpoint, sender, ledger)
            presence.others = self.presences.values()
            name = ENDPOINT + endpoint.name
            self._lanes[endpoint.name] = Lane(
                name,
                Limits(
                    concurrency=endpoint.concurrency,
                    timeout=endpoint.timeout,
                    retries=endpoint.retries,
                    backoff=endpoint.backoff,
                    longest=endpoint.longest,
                    in_a_row=max(_IN_A_ROW, 2 * endpoint.concurrency),
                ),
                ledger.replicas.queue(endpoint.name, custodial=endpoint.custodial),
                functools.partial(self._bring, endpoint),
                probe=presence.probe,
                told=functools.partial(told, endpoint),
                active=active,
                any_waiting=functools.partial(self._any_waiting, name),
                metrics=metrics,
            )

    def _any_waiting(self, name: str) -> bool:
        return self._ledger.deliveries.any_waiting(name)

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    def poke(self, endpoint: str | None = None) -> None:
        """There is something new in the queue of an endpoint, or of any."""
        for name, lane in self._lanes.items():
            if endpoint in (None, name):
                lane.poke()

    def warm(self) -> None:
        """Makes connections before the first image needs them. Waits for none of it."""
        for name, presence in self.presences.items():
            self._warming.begin(name, presence.warm, self._lanes[name].doubt)

    def idle(self, names: Collection[str] | None = None) -> bool:
        """Whether every queue, or those of some endpoints, is empty. Raises StorageError."""
        return not any(
            lane.in_flight() or self._any_waiting(lane.name)
            for name, lane in self._lanes.items()
            if names is None or name in names
        )

    def trouble(self, endpoint: str) -> str:
        """Why nothing goes there now."""
        return self._lanes[endpoint].trouble

    def status(self) -> dict[str, dict[str, Any]]:
        """As JSON, by endpoint. Raises StorageError."""
        waiting = self._ledger.deliveries.counts(delivered=False)
        return {
            name: {**lane.status(), "waiting": waiting.get(lane.name, {})}
            for name, lane in self._lanes.items()
        }

    def close(self) -> None:
        """Ends what runs, and all connections."""
        self._warming.close()
        for sender in self.senders.values():
            sender.close()

    # -- bringing, in a thread of a lane

    def _bring(self, endpoint: Endpoint, row: DeliveryRow) -> Sent:
        self.presences[endpoint.name].make_sure()
        if "sidecar" in endpoint.what:
            for path, _ in before(row):
                self._sidecar_first(endpoint, row, path)
        sent = self._together(endpoint, row)
        if endpoint.custodial and sent.held not in _HELD and endpoint.name not in self.weak:
            self.weak[endpoint.name] = how = "by mode bits alone" if sent.held else "by nothing"
            _log.warning("%s: is custodial, and its files are held %s", endpoint.name, how)
        return sent

    def _sidecar_first(self, endpoint: Endpoint, raw: DeliveryRow, path: str) -> None:
        """Whoever sees a file there has its header: one that is on its way goes with the file."""
        for row in self._ledger.read(_BESIDE, (raw.image_id, raw.destination, path)):
            values = {"path": path, "target": row[0], "bytes": row[1], "crc32c": row[2]}
            self._together(endpoint, msgspec.structs.replace(raw, **values))

    def _together(self, endpoint: Endpoint, row: DeliveryRow) -> Sent:
        """Brings a file, once for all threads that want it there now. One that hangs is not waited for by the
        next try."""
        now = time.monotonic()
        ours: tuple[float, Future[Sent]] = now, Future()
        with self._lock:
            theirs = self._under_way.get(_key(row))
            if theirs is not None and now - theirs[0] > endpoint.timeout:
                theirs = None
            if theirs is None:
                self._under_way[_key(row)] = ours
        if theirs is not None:
            try:
                return theirs[1].result(endpoint.timeout)
            except FutureTimeout:
                raise OutageError(f"{endpoint.name}: {row.target} is under way, and does not end") from None
        try:
            sent = self._one(endpoint, row)
        except BaseException as error:
            ours[1].set_exception(error)
            raise
        else:
            ours[1].set_result(sent)
            return sent
        finally:
            with self._lock:
                if self._under_way.get(_key(row)) is ours:
                    del self._under_way[_key(row)]

    def _one(self, endpoint: Endpoint, row: DeliveryRow) -> Sent:
        sender = self.senders[endpoint.name]
        try:
            return self._send(endpoint, sender, row, row.path)
        except OutageError:
            raise
        except (RefusedError, OSError) as refused:
            if _holds(row):
                raise
            with self._elsewhere(endpoint, row) as copy:
                if copy is None:
                    if row.path.endswith(".zip"):
                        self._rotten(row.path, str(refused))
                    there = _there(sender, row)
                    if there is None:
                        raise
                    return there
                _log.warning("%s: %s; it is taken from another endpoint", row.path, refused)
                return self._send(endpoint, sender, row, copy)

    def _send(self, endpoint: Endpoint, sender: Sender, row: DeliveryRow, path: str) -> Sent:
        job = Job(path=path, target=row.target, bytes=row.bytes, crc32c=row.crc32c)
        try:
            return sender.send(job)
        except ConflictError:
            if not self._is_damaged(endpoint, row):
                raise
        if path == row.path and not _holds(row):
            raise RefusedError(
                f"{path}: is not what the ledger says; what is damaged there stays in its place"
            )
        with contextlib.suppress(NotFoundError):
            aside = sender.set_aside(row.target, "damaged")
            _log.warning("%s: %s is damaged; it is kept as %s", endpoint.name, row.target, aside)
        return sender.send(job)

    def _is_damaged(self, endpoint: Endpoint, row: DeliveryRow) -> bool:
        """Whether what stands there is ours, and known to be damaged."""
        return any(
            replica.state == "damaged"
            and (replica.path, replica.target, replica.crc32c) == (row.path, row.target, row.crc32c)
            for replica in self._ledger.replicas.of(row.image_id)
            if replica.endpoint == endpoint.name
        )

    @contextlib.contextmanager
    def _elsewhere(self, endpoint: Endpoint, row: DeliveryRow) -> Iterator[str | None]:
        """A good copy of a file from another endpoint; None where none can be had."""
        with tempfile.TemporaryDirectory(prefix="raftwright-handoff-") as directory:
            copy = Path(directory) / "copy"
            for replica in self._ledger.replicas.of(row.image_id):
                sender = self.senders.get(replica.endpoint)
                if (
                    sender is None
                    or replica.endpoint == endpoint.name
                    or replica.state != "verified"
                    or (replica.path, replica.bytes, replica.crc32c) != (row.path, row.bytes, row.crc32c)
                ):
                    continue
                try:
                    found = sender.fetch(replica.target, copy)
                except (RaftwrightError, OSError) as error:
                    _log.warning(
                        "%s: %s cannot be had from there: %s", replica.endpoint, replica.target, error
                    )
                    continue
                if found == row.crc32c and copy.stat().st_size == row.bytes:
                    yield str(copy)
                    return
                copy.unlink()
            yield None


def _key(row: DeliveryRow) -> tuple[str, str, str]:
    """What is brought where."""
    return row.destination, row.target, row.crc32c


def _there(sender: Sender, row: DeliveryRow) -> Sent | None:
    """What stands there already, if it is good, read anew."""
    try:
        if sender.crc32c(row.target) == row.crc32c:
            return Sent(how="there already", place=row.target, held=sender.protect(row.target))
    except (RaftwrightError, OSError):
        pass
    return None


def _holds(row: DeliveryRow) -> bool:
    """Whether the file in the archive is what it was, read anew."""
    try:
        found = digest(Path(row.path))
    except (RaftwrightError, OSError):
        return False
    return (found.bytes, found.crc32c) == (row.bytes, row.crc32c)
