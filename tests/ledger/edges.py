"""Every edge of the states, as a step that can be taken in another process, which is killed in it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from night import facts_of, files_of, keys_of, name_of, wait_for, want

from raftwright.ledger import (
    ENDPOINT,
    Claim,
    DeliveryPlan,
    DeliveryRow,
    IngestPlan,
    IngestRow,
    Ledger,
    Outcome,
    open_ledger,
)
from raftwright.ledger.database import Transaction

Edge = tuple[str, str, str]
LOCATION = "22/0"
DETECTOR = "R22_S00"
WORKED_ON = ("claimed", "sending", "ingesting")
"""States of a thing that somebody works on."""


def number_of(edge: Edge) -> int:
    """Each edge has an image of its own."""
    return 1 + sum(ord(letter) * 31**n for n, letter in enumerate(reversed("/".join(edge)))) % 900_000


def state_of(ledger: Ledger, edge: Edge) -> str:
    """The state of the thing that the edge is of."""
    thing = edge[0]
    images = ledger.images.get(name_of(number_of(edge)))
    if not images:
        return ""
    (image,) = images
    if thing == "image":
        return image.state
    if thing == "header":
        return image.header_state
    if thing == "source":
        return {row.location: row.state for row in ledger.images.sources(image.id)}[LOCATION]
    if thing == "detector":
        return {row.detector: row.state for row in ledger.images.detectors(image.id)}[DETECTOR]
    if thing == "replica":
        return "".join(row.state for row in ledger.replicas.of(image.id))
    if thing == "ingest":
        return "".join(row.state for row in ledger.ingests.of(image.id))
    deliveries = ledger.deliveries.of(image.id)
    return deliveries[0].state if deliveries else ""


def steps_of(ledger: Ledger, edge: Edge) -> list[tuple[str, str]]:
    """What the events say of it."""
    (image,) = ledger.images.get(name_of(number_of(edge)))
    thing = edge[0]
    subject = {"source": LOCATION, "detector": DETECTOR}.get(thing)
    return [
        (event.old, event.new)
        for event in ledger.events.of(image.id)
        if event.thing == thing and subject in (None, event.subject)
    ]


def _claim(ledger: Ledger, edge: Edge) -> Claim:
    """A database may need a moment to see that somebody who had locked it is no more."""
    keys = [key for key in keys_of(facts_of(number_of(edge))) if key.location == LOCATION]
    found: list[Claim] = []
    wait_for(lambda: found.extend(ledger.claims.claim(want(*keys), again=True)) or found, 10)
    return found[0]


def _send(ledger: Ledger, edge: Edge) -> DeliveryRow:
    found: list[DeliveryRow] = []
    wait_for(lambda: found.extend(ledger.deliveries.claim(_destination(edge), 1)) or found, 10)
    return found[0]


def _deliver(ledger: Ledger, edge: Edge, ready: Callable[[], None]) -> None:
    """Brings a file to an endpoint."""
    image = ledger.images.get(name_of(number_of(edge)))[0]
    file = ledger.files.of(image.id)[0]
    endpoint, queue = _destination(edge), ledger.replicas.queue(_destination(edge))
    plan = DeliveryPlan(image_id=image.id, destination="", path=file.path, target="t", crc32c=file.crc32c)
    ledger.replicas.plan(endpoint, [plan])
    found: list[DeliveryRow] = []
    wait_for(lambda: found.extend(queue.claim(ENDPOINT + endpoint, 1)) or found, 10)
    ready()
    assert queue.end(found[0], "delivered")


def _ingest(ledger: Ledger, edge: Edge) -> IngestRow:
    found: list[IngestRow] = []
    wait_for(lambda: found.extend(ledger.ingests.claim(_destination(edge), 1)) or found, 10)
    return found[0]


def _end(ledger: Ledger, edge: Edge, state: str, missing: int = 0) -> None:
    facts = facts_of(number_of(edge))
    claim = _claim(ledger, edge)
    files = files_of(facts, LOCATION, missing=missing) if state in ("done", "incomplete") else ()
    assert ledger.claims.end(claim, Outcome(state=state, reason="because", files=files))  # type: ignore[arg-type]


def _lose(ledger: Ledger, edge: Edge) -> None:
    facts = facts_of(number_of(edge))
    (path,) = (file.path for file in files_of(facts, LOCATION) if file.detector == DETECTOR)
    assert ledger.files.lost(path, "gone")


def _image_id(ledger: Ledger, edge: Edge) -> int:
    return ledger.images.announce(facts_of(number_of(edge)))


def _destination(edge: Edge) -> str:
    return f"dest-{number_of(edge)}"


def prepare(ledger: Ledger, edge: Edge) -> None:
    """Brings the thing to where the edge begins."""
    thing, old, _ = edge
    image_id = _image_id(ledger, edge)
    if thing == "image" and old != "announced":
        if old in ("capturing", "complete", "incomplete", "lost"):
            ledger.images.move(image_id, old)
    elif thing == "source" and old != "expected":
        if old == "claimed":
            return  # by whoever takes the step: it is his
        _end(ledger, edge, old)
    elif thing == "detector" and old != "expected":
        if old == "missing":
            _end(ledger, edge, "gone")
        else:
            _end(ledger, edge, *(("done", 0) if old == "present" else ("incomplete", 3)))
    elif thing == "header" and old != "expected":
        if old == "missing":
            ledger.headers.missed(name_of(number_of(edge)))
        else:
            ledger.headers.put(name_of(number_of(edge)), 1, "/h", 1, "a", state=old)
    elif thing == "replica":
        _end(ledger, edge, "done")
        _deliver(ledger, edge, lambda: None)
        if old != "verified":
            assert getattr(ledger.replicas, old)(ledger.replicas.of(image_id)[0], "because")
    elif thing == "ingest":
        _prepare_ingest(ledger, edge, image_id)
    elif thing == "delivery":
        plan = DeliveryPlan(image_id=image_id, destination=_destination(edge), path=f"/{number_of(edge)}")
        ledger.deliveries.plan([plan])
        if old in ("delivered", "failed", "conflict"):
            (row,) = ledger.deliveries.claim(_destination(edge), 1)
            assert ledger.deliveries.end(row, old)


def _prepare_ingest(ledger: Ledger, edge: Edge, image_id: int) -> None:
    _, old, new = edge
    plan = IngestPlan(image_id=image_id, repository=_destination(edge), path=f"/{number_of(edge)}")
    assert ledger.ingests.plan([plan]) == 1
    if old in ("queued", "ingesting"):
        return
    row = _ingest(ledger, edge)
    if old in ("leaving", "removed"):
        assert ledger.ingests.end(row, "ingested")
        assert ledger.ingests.leave([row])
        assert old == "leaving" or ledger.ingests.removed([row])
    else:
        patience = 0.001 if new == "failed" else 100.0
        assert ledger.ingests.end(row, old, retry_after=patience if old == "waiting" else 0.0)


def take(ledger: Ledger, edge: Edge, ready: Callable[[], None]) -> None:
    """Takes the step; `ready` is called when all that leads to it is done."""
    thing, old, new = edge
    number = number_of(edge)
    if thing == "image":
        ready()
        assert ledger.images.move(ledger.images.get(name_of(number))[0].id, new)
    elif thing == "source":
        _take_source(ledger, edge, ready)
    elif thing == "detector":
        ready()
        if new == "missing":
            _end(ledger, edge, "gone") if old == "expected" else _lose(ledger, edge)
        else:
            _end(ledger, edge, *(("done", 0) if new == "present" else ("incomplete", 2)))
    elif thing == "header":
        ready()
        if new == "missing":
            assert ledger.headers.missed(name_of(number))
        else:
            assert ledger.headers.put(name_of(number), 2, "/h2", 1, "b", state=new)
    elif thing == "replica":
        row = ledger.replicas.of(ledger.images.get(name_of(number))[0].id)[0]
        if old == "removed":
            _deliver(ledger, edge, ready)
            return
        ready()
        assert getattr(ledger.replicas, "healed" if new == "verified" else new)(row, "because")
    elif thing == "ingest":
        _take_ingest(ledger, edge, ready)
    else:
        _take_delivery(ledger, edge, ready)


def _take_source(ledger: Ledger, edge: Edge, ready: Callable[[], None]) -> None:
    _, old, new = edge
    facts = facts_of(number_of(edge))
    if new == "claimed":
        ready()
        _claim(ledger, edge)
    elif old == "claimed":
        claim = _claim(ledger, edge)
        files = files_of(facts, LOCATION) if new in ("done", "incomplete") else ()
        ready()
        assert ledger.claims.end(claim, Outcome(state=new, files=files))  # type: ignore[arg-type]
    else:
        ready()
        assert ledger.files.open_again(ledger.images.get(facts.obsid)[0].id, LOCATION, "somebody asked")


def _take_delivery(ledger: Ledger, edge: Edge, ready: Callable[[], None]) -> None:
    _, old, new = edge
    if old == "queued":
        ready()
        _send(ledger, edge)
    elif old == "sending":
        row = _send(ledger, edge)
        ready()
        assert ledger.deliveries.end(row, new)
    else:
        ready()
        assert ledger.deliveries.again(_destination(edge), states=[old]) == 1


def _take_ingest(ledger: Ledger, edge: Edge, ready: Callable[[], None]) -> None:
    _, old, new = edge
    repository, ingests = _destination(edge), ledger.ingests
    rows = ingests.select(repository=repository)
    if old == "ingesting":
        row = _ingest(ledger, edge)
        ready()
        assert ingests.end(row, new, retry_after=100.0 if new == "waiting" else 0.0)
        return
    ready()
    if old == "queued":
        _ingest(ledger, edge)
    elif old == "waiting" and new == "queued":
        assert ingests.release(repository, [rows[0].image_id]) == 1
    elif new == "queued":
        assert ingests.again(repository, states=[old]) == 1
    elif old == "waiting":
        ingests.expire(repository)
    else:
        step = {"leaving": ingests.leave, "removed": ingests.removed, "ingested": ingests.unleave}[new]
        assert [row.id for row in step(rows)] == [rows[0].id]


def take_and_die(url: str, edge: Edge, when: str) -> None:
    """In a process of its own: killed before the commit of the step, or right after it."""
    ledger = open_ledger(url)
    ledger.renew()

    def ready() -> None:
        if when == "before":
            write = Transaction.write_events

            def write_and_die(self: Transaction, owner: str) -> None:
                write(self, owner)  # everything is written, and nothing is committed
                os.kill(os.getpid(), signal.SIGKILL)

            Transaction.write_events = write_and_die  # type: ignore[method-assign]

    take(ledger, edge, ready)
    os.kill(os.getpid(), signal.SIGKILL)
