"""Events over Kafka, with a mock cluster in a process of its own."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from event_stand import Broker, Program, SqliteLog, wait_for

from raftwright.errors import StorageError, UsageError
from raftwright.events import DeadLetters, Event, Outbox, Row, Subscriber, open_publisher, open_subscriber
from raftwright.events.kafka import parse, read_options
from raftwright.events.kafka_publisher import KafkaPublisher
from raftwright.events.kafka_subscriber import KafkaSubscriber

QUICK = {"session.timeout.ms": 1500, "heartbeat.interval.ms": 200, "max.poll.interval.ms": 2500}


def group_of(url: str, **more: Any) -> KafkaSubscriber:
    """A member of a group of its own. (The mock cluster waits for a session after a member left.)"""
    return KafkaSubscriber(url, group=url, tuning=QUICK, **more)


def image(number: int, obsid: str = "") -> tuple[str, dict[str, Any]]:
    name = obsid or f"MC_{number:06d}"
    return "imageWritten", {"instrument": "LSSTCam", "obsid": name, "files": number}


def numbers(events: list[Event]) -> list[int]:
    return [event["files"] for event in events]


def hear(subscriber: Subscriber, count: int, seconds: float = 15.0) -> list[Event]:
    """So many events, or what came until then."""
    seen: list[Event] = []
    end = time.monotonic() + seconds
    while len(seen) < count and time.monotonic() < end:
        seen += subscriber.events(0.1)
    return seen


@pytest.fixture
def url(broker: Broker) -> str:
    return broker.url()


@pytest.fixture
def publisher(url: str) -> Iterator[KafkaPublisher]:
    with KafkaPublisher(url, name="p", tuning={"socket.timeout.ms": 2000}) as publisher:
        yield publisher


def test_events_arrive_and_offsets_follow_what_is_done(url: str, publisher: KafkaPublisher) -> None:
    """D059, D112: what was not done comes again, from each partition."""
    for number in range(100):
        publisher.publish(*image(number)[:1], **image(number)[1])
    with group_of(url) as subscriber:
        seen = hear(subscriber, 100)
        assert sorted(numbers(seen)) == list(range(100))
        assert len({event.place[1] for event in seen}) > 1, "several partitions"
        assert {(event.publisher, event.session, event.log) for event in seen} == {
            ("p", publisher.session, publisher.session)
        }
        last: dict[int, Event] = {}
        for event in seen:
            last[event.place[1]] = event
        left = {event["files"] for event in last.values()}
        for event in seen:
            if event["files"] not in left:
                subscriber.done(event)
    with group_of(url) as subscriber:
        seen = hear(subscriber, len(left))
        assert set(numbers(seen)) == left
        for event in seen:
            subscriber.done(event)
    with group_of(url) as subscriber:
        assert hear(subscriber, 1, 2.5) == []
    wait_for(lambda: publisher.delivered == 100)
    assert publisher.dropped == 0


def test_an_offset_in_the_middle_holds_those_behind_it(url: str, publisher: KafkaPublisher) -> None:
    """D112: not the last message decides, but the first that is not done."""
    for number in range(20):
        publisher.publish(*image(number)[:1], **image(number, "one")[1])
    with group_of(url) as subscriber:
        seen = hear(subscriber, 20)
        for event in seen:
            if event["files"] != 7:
                subscriber.done(event)
    with group_of(url) as subscriber:
        assert numbers(hear(subscriber, 13)) == list(range(7, 20))


def test_events_of_an_image_stay_in_order_and_kinds_are_chosen(url: str, publisher: KafkaPublisher) -> None:
    for number in range(300):
        publisher.publish(*image(number)[:1], **image(number, f"MC_{number % 7}")[1])
        publisher.publish("other", n=number)
    with group_of(url, kinds=frozenset({"imageWritten"})) as subscriber:
        seen = hear(subscriber, 300)
    assert {event.kind for event in seen} == {"imageWritten"}
    for obsid in {event["obsid"] for event in seen}:
        mine = [event["files"] for event in seen if event["obsid"] == obsid]
        assert mine == sorted(mine)
        assert len(mine) > 40


def test_who_only_listens_hears_what_is_told_from_now_on(url: str, publisher: KafkaPublisher) -> None:
    publisher.publish("before")
    wait_for(lambda: publisher.delivered == 1)
    with open_subscriber(url) as one, open_subscriber(url) as other:
        wait_for(lambda: one._feed._partitions and other._feed._partitions)  # type: ignore[attr-defined]
        publisher.publish("after")
        assert [event.kind for event in hear(one, 1)] == ["after"]
        assert [event.kind for event in hear(other, 1)] == ["after"]


def test_who_only_listens_keeps_no_account(url: str, publisher: KafkaPublisher) -> None:
    """Nobody says that anything is done, for months."""
    publisher.publish(*image(0)[:1], **image(0)[1])
    wait_for(lambda: publisher.delivered == 1)
    with open_subscriber(url) as subscriber:
        assert isinstance(subscriber, KafkaSubscriber)
        wait_for(lambda: subscriber._feed._partitions)
        for number in range(50):
            publisher.publish(*image(number)[:1], **image(number)[1])
        assert len(hear(subscriber, 50)) == 50
        assert all(len(each.progress) == 0 for each in subscriber._feed._partitions.values())


def test_a_bug_in_the_thread_that_fetches_keeps_nobody_waiting(
    url: str, publisher: KafkaPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins anew, and so does the thread that delivers; nothing that was not done is left out."""
    publisher.publish(*image(0)[:1], **image(0)[1])
    with group_of(url) as subscriber:
        assert numbers(hear(subscriber, 1)) == [0]
        usual, failed = subscriber._feed._fetch, threading.Event()

        def failing() -> None:
            if not failed.is_set():
                failed.set()
                raise RuntimeError("nobody thought of this")
            usual()

        monkeypatch.setattr(subscriber._feed, "_fetch", failing)
        wait_for(failed.is_set)
        monkeypatch.setattr(publisher, "_renew", lambda: {}["a bug"])
        publisher._broken = True
        publisher.publish(*image(1)[:1], **image(1)[1])
        assert set(numbers(hear(subscriber, 2, 25.0))) == {0, 1}
        assert publisher._thread.is_alive()
        publisher._broken = False


def test_one_bad_message_among_a_thousand(url: str, publisher: KafkaPublisher, tmp_path: Path) -> None:
    """D113, F65: a dead letter, 999 are dealt with, and the next start does not meet it again."""
    kafka = pytest.importorskip("confluent_kafka")
    producer = kafka.Producer({"bootstrap.servers": parse(url).brokers})
    bad = [b"", b"{", b"\xff\xfe", b'{"Records": []}', b"[" * 50_000]
    for number in range(1000):
        publisher.publish(*image(number)[:1], **image(number)[1])
        if number % 200 == 7:
            producer.produce(parse(url).topic, bad.pop(), key=f"MC_{number:06d}")
    assert producer.flush(10) == 0
    dead = DeadLetters(tmp_path / "dead")
    with group_of(url, dead=dead) as subscriber:
        for event in (seen := hear(subscriber, 1000)):
            subscriber.done(event)
        assert sorted(numbers(seen)) == list(range(1000))
        wait_for(lambda: list(subscriber.events(0.1)) == [] and subscriber.malformed == 5)
        subscriber.refuse(seen[3], "not ours")
    letters = [dead.read(name) for name in dead.names()]
    assert len(letters) == 6
    assert {letter.source.rpartition("/")[0] for letter in letters[:5]} <= {
        f"{parse(url).topic}/{number}" for number in range(4)
    }
    with group_of(url, dead=dead) as subscriber:
        assert hear(subscriber, 1, 2.5) == []
        assert subscriber.malformed == 0


def test_a_dead_letter_that_cannot_be_kept_stays_in_the_topic(url: str, tmp_path: Path) -> None:
    kafka = pytest.importorskip("confluent_kafka")
    producer = kafka.Producer({"bootstrap.servers": parse(url).brokers})
    producer.produce(parse(url).topic, b"{")
    assert producer.flush(10) == 0
    (tmp_path / "file").write_text("")
    with group_of(url, dead=DeadLetters(tmp_path / "file")) as subscriber:
        wait_for(lambda: not list(subscriber.events(0.1)) and subscriber.malformed == 1)
    dead = DeadLetters(tmp_path / "dead")
    with group_of(url, dead=dead) as subscriber:
        wait_for(lambda: not list(subscriber.events(0.1)) and subscriber.malformed == 1)
    assert len(dead.names()) == 1


def test_long_work_does_not_cost_the_membership(url: str, publisher: KafkaPublisher) -> None:
    """D082, scaled: work of 4 s where members must ask every 2.5 s; it is idle after, below 2 % of a core."""
    for number in range(10):
        publisher.publish(*image(number)[:1], **image(number)[1])
    with group_of(url) as subscriber:
        first = hear(subscriber, 10)
        assert len(first) == 10
        time.sleep(4.0)
        for event in first:
            subscriber.done(event)
        publisher.publish(*image(10)[:1], **image(10)[1])
        assert numbers(hear(subscriber, 1)) == [10]
        assert subscriber.repeated == 0
        cpu, wall = time.process_time(), time.monotonic()
        assert list(subscriber.events(1.5)) == []
        assert (time.process_time() - cpu) / (time.monotonic() - wall) < 0.02
    with group_of(url) as subscriber:
        assert numbers(hear(subscriber, 1)) == [10], "only that was not done"


def test_what_waits_is_bounded_while_the_caller_works(url: str, publisher: KafkaPublisher) -> None:
    with group_of(url) as subscriber:
        for number in range(10_000):
            publisher.publish(*image(number)[:1], **image(number)[1])
        wait_for(lambda: len(subscriber._feed._messages) >= 2000)
        time.sleep(1.0)
        assert len(subscriber._feed._messages) <= 2000 + 501
        assert len(hear(subscriber, 10_000)) == 10_000


def test_the_broker_is_away_for_a_while(url: str, publisher: KafkaPublisher, broker: Broker) -> None:
    """D060, F18: nobody waits, nothing is lost, the order of an image is kept."""
    tuning = {
        **QUICK,
        "session.timeout.ms": 30_000,
        "max.poll.interval.ms": 60_000,
        "socket.timeout.ms": 2000,
    }
    with KafkaSubscriber(url, group=url, tuning=tuning) as subscriber:
        publisher.publish(*image(0)[:1], **image(0)[1])
        for event in hear(subscriber, 1):
            subscriber.done(event)
        with broker.away():
            begun = time.monotonic()
            for number in range(1, 2001):
                publisher.publish(*image(number)[:1], **image(number, f"MC_{number % 5}")[1])
            assert time.monotonic() - begun < 1.0, "who tells never waits"
            assert publisher.relay("log", [Row(1, *image(5000, "row"), "t")], 0.5) == 0
            assert time.monotonic() - begun < 2.0
            time.sleep(3.0)
            assert list(subscriber.events(0.1)) == []
        seen = hear(subscriber, 2001, 30)
    assert publisher.dropped == 0
    assert sorted(number for number in numbers(seen) if number != 5000) == list(range(1, 2001))
    for obsid in {event["obsid"] for event in seen}:
        mine = [event["files"] for event in seen if event["obsid"] == obsid]
        assert mine == sorted(mine)
    assert numbers(seen).count(5000) == 1
    assert publisher.relay("log", [Row(1, *image(5000, "row"), "t")], 5.0) == 1, "it was delivered meanwhile"


def test_the_queue_is_bounded_while_nobody_is_there() -> None:
    with KafkaPublisher("kafka://127.0.0.1:9/x", tuning={"queue.buffering.max.messages": 100}) as publisher:
        begun = time.monotonic()
        for number in range(150):
            publisher.publish("x", n=number)
        assert publisher.dropped == 50
        assert publisher.relay("log", [Row(1, "x", {})], 0.3) == 0
        assert time.monotonic() - begun < 2.0
        publisher._closing.set()  # no five seconds for what cannot leave
        publisher._producer.purge()
    assert time.monotonic() - begun < 10.0


def test_what_an_outbox_tells_is_noted_after_it_is_delivered(
    url: str, broker: Broker, publisher: KafkaPublisher, tmp_path: Path
) -> None:
    log = SqliteLog(tmp_path / "log.db")
    log.add(*(image(number) for number in range(1, 1201)))
    log.add(("imageWritten", {"obsid": "nothing else"}), image(1201))
    dead = DeadLetters(tmp_path / "dead")
    outbox = Outbox(log, publisher, "kafka", dead=dead, every=0.05, timeout=1.0)
    with broker.away():
        with pytest.raises(Exception, match="took none"):
            outbox.step()
        assert log.cursor("kafka") == 0
    outbox.start()
    wait_for(lambda: log.cursor("kafka") == 1202, 20)
    outbox.stop()
    assert (outbox.skipped, len(dead.names()), outbox.relayed) == (1, 1, 1201)
    with group_of(url) as subscriber:
        seen = hear(subscriber, 1201)
        assert sorted(numbers(seen)) == list(range(1, 1202))
        log.broken = True
        outbox = Outbox(log, publisher, "kafka", every=0.05).start()
        wait_for(lambda: outbox.troubles >= 2)
        log.broken = False
        log.add(image(1202))
        outbox.wake()
        assert numbers(hear(subscriber, 1)) == [1202]
        outbox.stop()


def test_killed_between_delivery_and_note(url: str, tmp_path: Path) -> None:
    """F13: it is told again, never lost; the listener knows it by log and number."""
    log = SqliteLog(tmp_path / "log.db")
    log.add(*(image(number) for number in range(1, 301)))
    code = (
        "import sys, time, pathlib\nfrom event_stand import SqliteLog\n"
        "from raftwright.events import Outbox, open_publisher\n"
        "log = SqliteLog(pathlib.Path(sys.argv[1]))\n"
        "move, wait = log.move_cursor, float(sys.argv[3])\n"
        "def slow(name, number):\n    print('delivered', number, flush=True)\n    time.sleep(wait)\n"
        "    move(name, number)\n"
        "log.move_cursor = slow\n"
        "with open_publisher(sys.argv[2], name='p') as publisher:\n"
        "    Outbox(log, publisher, 'kafka', every=0.05).start()\n    sys.stdin.read()\n"
    )
    with group_of(url) as subscriber:
        with Program(code, str(log.path), url, "60") as program:
            assert program.line() == "delivered 300"
            program.kill()
        assert log.cursor("kafka") == 0
        with Program(code, str(log.path), url, "0") as program:
            wait_for(lambda: log.cursor("kafka") == 300)
        seen = hear(subscriber, 300)
        seen += subscriber.events(1.0)
        assert sorted(numbers(seen)) == list(range(1, 301))
        wait_for(lambda: not list(subscriber.events(0.1)) and subscriber.repeated == 300)
        for event in seen:
            subscriber.done(event)
    with group_of(url) as subscriber:
        assert hear(subscriber, 1, 2.5) == []


def test_a_listener_that_is_killed_loses_nothing(url: str, publisher: KafkaPublisher, tmp_path: Path) -> None:
    """D112: killed at any time; what it finished is in its own list."""
    code = (
        "import sys, os\nfrom raftwright.events.kafka_subscriber import KafkaSubscriber\n"
        "tuning = {'session.timeout.ms': 1000, 'heartbeat.interval.ms': 200, 'max.poll.interval.ms': 2000}\n"
        "with KafkaSubscriber(sys.argv[1], group=sys.argv[1], tuning=tuning) as subscriber:\n"
        "    print('up', flush=True)\n"
        "    for event in subscriber.events():\n"
        "        with open(sys.argv[2], 'a') as file:\n            print(event['files'], file=file)\n"
        "        subscriber.done(event)\n"
    )
    done = tmp_path / "done"
    done.touch()
    for number in range(4000):
        publisher.publish(*image(number)[:1], **image(number)[1])
    for round in range(2):
        before = len(done.read_text())
        with Program(code, url, str(done)) as program:
            assert program.line() == "up"
            wait_for(lambda before=before: len(done.read_text()) > before + 100, 20)
            time.sleep(0.05 * round)
            program.kill()
    with Program(code, url, str(done)) as program:
        wait_for(lambda: len(set(done.read_text().split())) == 4000, 30)
        program.kill()
    counts = Counter(done.read_text().split())
    assert set(counts) == {str(number) for number in range(4000)}


def test_two_of_a_group_share_the_work(url: str, publisher: KafkaPublisher) -> None:
    """Who joins takes partitions over; what the first had and did not do comes to the second, or again."""
    seen: list[list[Event]] = [[], []]
    over = threading.Event()

    def work(number: int, subscriber: Subscriber) -> None:
        while not over.is_set():
            for event in subscriber.events(0.1):
                seen[number].append(event)
                subscriber.done(event)

    with group_of(url) as one:
        first = threading.Thread(target=work, args=(0, one))
        first.start()
        publisher.publish(*image(0)[:1], **image(0)[1])
        wait_for(lambda: seen[0])
        with group_of(url) as two:
            second = threading.Thread(target=work, args=(1, two))
            second.start()
            wait_for(lambda: len(one._feed._partitions) == len(two._feed._partitions) == 2, 20)
            for number in range(1, 401):
                publisher.publish(*image(number)[:1], **image(number)[1])
            wait_for(lambda: len({e["files"] for part in seen for e in part}) == 401, 20)
            over.set()
            second.join()
        first.join()
    assert min(len(part) for part in seen) > 50


def test_urls() -> None:
    assert parse("kafka://a:9092,b.c:9093/summit") == ("a:9092,b.c:9093", "summit.events")
    assert parse("kafka://[::1]:9092/x").brokers == "[::1]:9092"
    for wrong in (
        *("kafka://", "kafka://a/x", "kafka://a:1", "kafka://a:1/", "kafka://a:1/b/c", "kafka://a:b/x"),
        *("kafka:a:1/x", "kafka://a:1,/x", "kafka://a:1/x?y", "kafka://a b:1/x"),
    ):
        with pytest.raises(UsageError, match="write kafka://"):
            open_publisher(wrong)
    with pytest.raises(UsageError, match="no name and password") as found:
        open_subscriber("kafka://user:sesame@a:1/x")
    assert "sesame" not in str(found.value)
    with pytest.raises(UsageError, match="open one for each"):
        open_subscriber("kafka://a:1/x", "tcp://127.0.0.1:1")


def test_secrets_come_from_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    """D018."""
    path = tmp_path / "kafka.conf"
    path.write_text("# ours\nsecurity.protocol = sasl_ssl\n\nsasl.username=me\nsasl.password = a=b \n")
    path.chmod(0o600)
    assert read_options(str(path), {}) == {
        "security.protocol": "sasl_ssl",
        "sasl.username": "me",
        "sasl.password": "a=b",
    }
    environment = {"RAFTWRIGHT_KAFKA_OPTIONS": str(path), "RAFTWRIGHT_KAFKA_SASL_PASSWORD": "other"}
    assert read_options("", environment)["sasl.password"] == "other"
    assert read_options("", {}) == {}
    for mode in (0o640, 0o604, 0o660):
        path.chmod(mode)
        with pytest.raises(UsageError, match="can be read by others; chmod 600") as found:
            read_options(str(path), {})
        assert "a=b" not in str(found.value)
    path.chmod(0o600)
    for line in ("acks=0", "plugin.library.paths=/tmp/x.so", "ssl.engine.location=/tmp/x", "sesame", "=x"):
        path.write_text(f"sasl.username=me\n{line}\n")
        with pytest.raises(UsageError, match="line 2: this is no security option") as found:
            read_options(str(path), {})
        assert "sesame" not in str(found.value)
    with pytest.raises(StorageError, match="cannot be read"):
        read_options(str(tmp_path / "nothing"), {})
    for other in (tmp_path, "/dev/null"):
        with pytest.raises((UsageError, StorageError), match=r"no file of yours|cannot be read"):
            read_options(str(other), {})
    path.write_bytes(b"\xff")
    with pytest.raises(UsageError, match="no text"):
        read_options(str(path), {})
    path.write_text("security.protocol = sesame\n")
    with pytest.raises(UsageError, match="refuses its settings") as found:
        open_publisher("kafka://127.0.0.1:9/x", options=str(path))
    assert "sesame" not in str(found.value)


def test_no_broker_library_is_loaded_for_zeromq() -> None:
    code = (
        "import sys\nfrom raftwright.events import open_publisher\n"
        "open_publisher('tcp://127.0.0.1:*').close()\n"
        "heavy = {'confluent_kafka', 'sqlalchemy', 'astropy', 'rich', 'structlog', 'asyncio'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_librdkafka_tells_our_log(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """What it has to say goes where everything goes, and not to the standard error."""
    with caplog.at_level(logging.WARNING, "raftwright.events"), KafkaPublisher("kafka://127.0.0.1:9/x"):
        wait_for(lambda: "Kafka" in caplog.text or "rdkafka" in caplog.text)
