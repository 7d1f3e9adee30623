"""Notifications of object stores: over Kafka and as a webhook, read by the Butler where the objects are."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from oods_stand import Site, wait_for
from small_raws import ended, forked
from store_stand import Store, free_port, image, post

sys.path.append(str(Path(__file__).resolve().parents[1] / "events"))  # for event_stand

pytest.importorskip("moto", reason="moto is not installed: pip install 'raftwright[test]'")
pytest.importorskip("confluent_kafka", reason="Kafka is not installed: pip install 'raftwright[kafka]'")

from event_stand import Broker

from raftwright.butler import open_repository
from raftwright.errors import FormatError, StorageError
from raftwright.events.deadletters import DeadLetters
from raftwright.events.notifications import StoredObject, build
from raftwright.ledger import open_ledger
from raftwright.ledger.ingests import Ingests
from raftwright.oods.inputs import Notifications
from raftwright.oods.settings import Settings
from raftwright.oods.web.settings import Web

SECRET = "what the store and we know"
QUICK = {"session.timeout.ms": 1500, "heartbeat.interval.ms": 200, "max.poll.interval.ms": 2500}
"""The mock cluster waits for a session after a member left; a real one does not."""


class Topic:
    """A topic of Kafka with a number of partitions."""

    def __init__(self, brokers: str, name: str) -> None:
        from confluent_kafka import Producer

        self.brokers, self.name = brokers, name
        self._producer = Producer({"bootstrap.servers": brokers})

    def send(self, *bodies: bytes) -> None:
        for body in bodies:
            self._producer.produce(self.name, body)
        assert self._producer.flush(20) == 0

    def settings(self, **more: Any) -> Notifications:
        return Notifications(brokers=self.brokers, topic=self.name, **more)


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker() as made:
        yield made


@pytest.fixture
def topic(broker: Broker, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Topic:
    from raftwright.events import kafka

    real = kafka.common_settings
    monkeypatch.setattr(kafka, "common_settings", lambda *given: {**real(*given), **QUICK})
    return Topic(broker.address, f"made-{abs(hash(request.node.name))}")


def letters(site: Site) -> list[Any]:
    dead = DeadLetters(site.repo / "dead-letters")
    return [dead.read(name) for name in dead.names()]


def test_the_butler_reads_objects_where_they_are(site: Site, store: Store, topic: Topic) -> None:
    """D127: keys come encoded; what was removed is of no interest; what has another size waits."""
    paths = image(site)
    told = [store.put(path, f"a place+1/{path.parent.name}/{path.name}") for path in paths]
    removed = build(StoredObject(**{**_fields(told[0]), "event": "ObjectRemoved:Delete"}))
    topic.send(removed, build(told[0]), build(told[1], told[2]), build(told[0]))
    rows = site.ingested(3, notifications=topic.settings())
    assert len(site.rows()) == 3
    where = "s3://raws/a%20place%2B1/MC_O_20261122_000123/"
    assert {row.uri.rpartition("/")[0] + "/" for row in rows} == {where}
    assert {row.bytes for row in rows} == {path.stat().st_size for path in paths}
    assert site.ledger.ingests.find("LSSTCam", "2026-11-23T01:01:55.123", 0, "R22_S11", "oods")
    with open_repository(site.repo) as repository:
        data = {"instrument": "LSSTCam", "exposure": 2026112200123, "detector": 94}
        raw = repository.butler.get("raw", data, collections=repository.chain_of("LSSTCam"))
        assert raw.header["GROUPID"] == "2026-11-23T01:01:55.123"
    short = StoredObject(**{**_fields(store.put(image(site, 124)[0])), "size": 2880})
    topic.send(build(short))
    (row,) = wait_for(lambda: [row for row in site.rows("queued") if row.reason])
    assert "instead of 2880" in row.reason


def _fields(thing: StoredObject) -> dict[str, Any]:
    return {name: getattr(thing, name) for name in StoredObject.__dataclass_fields__}


def test_bad_messages_hold_up_nothing(site: Site, store: Store, topic: Topic) -> None:
    """D113: each is a dead letter with its reason, and all that is good goes in."""
    paths = [path for number in (1, 2) for path in image(site, number)]
    good = [build(store.put(path)) for path in paths]
    bad = [b"", b"\xff\xfe", b"[]", b"{}", b'{"Records": 3}', b"{" * 5000, b'{"Records": [{}]}', b"null"]
    bodies = [body for pair in zip(bad, good, strict=False) for body in pair] + bad[len(good) :]
    topic.send(*bodies)
    site.ingested(len(paths), notifications=topic.settings())
    wait_for(lambda: len(letters(site)) == len(bad))
    assert all(letter.reason and letter.source.startswith(topic.name) for letter in letters(site))
    assert site.started[0].problems() == []


def test_names_that_are_none(site: Site, store: Store, topic: Topic) -> None:
    """Of other buckets, of other things, with tricks: nothing is read from there."""
    thing = store.put(image(site)[0])
    name = thing.key.rpartition("/")[2]
    keys = [f"../{name}", f"a/../../{name}", "evil.fits", "x/MC_O_20261122_000123_R22_S11.json"]
    others = [StoredObject(**{**_fields(thing), "key": key}) for key in keys]
    elsewhere = StoredObject(**{**_fields(thing), "bucket": "theirs"})
    topic.send(build(*others, elsewhere), build(thing))
    site.ingested(1, notifications=topic.settings(buckets=["raws"]))
    assert len(site.rows()) == 1
    assert sorted(row.what for row in site.ledger.quarantine.all()) == ["object"] * 3


def test_an_object_that_was_overwritten_is_a_conflict(site: Site, store: Store, topic: Topic) -> None:
    """D171: by its tag, though its size is the same; the store itself is asked."""
    thing = store.put(image(site)[0])
    topic.send(build(thing))
    service = site.oods(notifications=topic.settings())
    site.ingested(1, service)
    topic.send(build(StoredObject(**{**_fields(thing), "size": thing.size + 2880, "etag": "made up"})))
    topic.send(build(store.put(image(site, seed=8)[0], thing.key)))
    (row,) = wait_for(site.ledger.quarantine.all)
    assert "another content" in row.reason
    assert thing.etag in row.reason
    assert len(site.rows()) == 1
    assert "made up" not in row.reason, "what is said of the object is what it is"


def test_killed_before_the_ledger_has_it(site: Site, store: Store, topic: Topic) -> None:
    """D112: an offset is committed after the write, so that what nobody wrote down comes again."""
    told = [build(store.put(path)) for path in image(site)]
    topic.send(*told)
    wanted = site.settings(notifications=topic.settings())
    site.ledger.close()

    def work() -> None:
        from raftwright.oods import Oods, Places

        gc.freeze()  # what other tests left is not to be collected by a thread of librdkafka

        def die(*_: Any) -> int:
            os.kill(os.getpid(), signal.SIGKILL)
            return 0

        Ingests.plan = die  # type: ignore[method-assign]
        Oods(wanted, Places(ledger=site.url, camera="LSSTCam")).start()
        time.sleep(60)

    assert ended(forked(work)) == -signal.SIGKILL
    site.ledger = open_ledger(site.url)
    assert site.rows() == []
    site.ingested(3, notifications=topic.settings())


def test_the_ledger_is_away_for_a_while(
    site: Site, store: Store, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D112, D125: they wait, that is told, and nothing is lost."""
    real, broken = Ingests.plan, [True]

    def plan(self: Ingests, plans: Any) -> int:
        if broken[0]:
            raise StorageError(5, "the ledger is away; wait", "ledger")
        return real(self, plans)

    monkeypatch.setattr(Ingests, "plan", plan)
    topic.send(*(build(store.put(path)) for path in image(site)))
    service = site.oods(archive=False, notifications=topic.settings())
    wait_for(lambda: any("notifications wait" in one for one in service.problems()))
    broken[0] = False
    site.ingested(3, service)
    assert service.problems() == []


def test_a_webhook(site: Site, store: Store) -> None:
    """It answers when the ledger has it; whoever has no secret changes nothing."""
    port = free_port()
    web = Web(listen=f"127.0.0.1:{port}", tokens=["only for those who read"])
    told = Notifications(webhook=True, secret=SECRET)
    service = site.oods(web=web, notifications=told)
    url = f"http://127.0.0.1:{port}"
    things = [store.put(path) for path in image(site)]
    assert post(url, build(things[0]))[0] == 403
    assert post(url, build(things[0], secret="another secret altogether"))[0] == 403
    assert post(url, b"no JSON")[0] == 400
    assert post(url, b"x" * (17 << 20))[0] == 400
    assert site.rows() == []
    assert post(url, build(*things, secret=SECRET)) == (200, "3 new")
    assert len(site.rows()) == 3
    assert post(url, build(*things, secret=SECRET)) == (200, "0 new")
    site.ingested(3, service)
    with pytest.raises(urllib.error.HTTPError, match="401"):  # all else asks for a token
        urllib.request.urlopen(f"{url}/images", timeout=10)


def test_a_webhook_whose_ledger_is_away(site: Site, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def plan(*_: Any) -> int:
        raise StorageError(5, "the ledger is away; wait", "ledger")

    port = free_port()
    told = Notifications(webhook=True, secret=SECRET)
    site.oods(archive=False, web=Web(listen=f"127.0.0.1:{port}"), notifications=told)
    body = build(store.put(image(site)[0]), secret=SECRET)
    with monkeypatch.context() as patch:
        patch.setattr(Ingests, "plan", plan)
        assert post(f"http://127.0.0.1:{port}", body)[0] == 503
    assert post(f"http://127.0.0.1:{port}", body)[0] == 200


def test_settings_that_make_no_sense() -> None:
    for more in ({}, {"brokers": "a:1"}, {"topic": "a"}, {"webhook": True}, {"webhook": True, "secret": "x"}):
        with pytest.raises(FormatError):
            Notifications(**more)  # type: ignore[arg-type]
    with pytest.raises(FormatError, match="web"):
        Settings(repository="/r", notifications=Notifications(webhook=True, secret=SECRET))
