"""What goes wrong around a ledger: kills at every edge, locks, lost, damaged, full files, a server away."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import edges
import pytest
from night import A, facts_of, files_of, keys_of, name_of, row, take, wait_for, want

import postgres_server
from raftwright.errors import FormatError, RaftwrightError, StorageError, UsageError
from raftwright.ledger import DeliveryPlan, Ledger, Outcome, owners
from raftwright.ledger.database import Change, Transaction
from raftwright.ledger.states import EDGES

Open = Callable[..., Ledger]

ALL = [
    (thing, old, new) for thing, steps in EDGES.items() for old, news in steps.items() for new in sorted(news)
]


@pytest.fixture(scope="module")
def spawn() -> Callable[..., int]:
    """Runs a function in a fresh process; its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["edges", "raftwright.ledger.postgres", "raftwright.ledger.sqlite"])

    def run(*arguments: object) -> int:
        process = context.Process(target=edges.take_and_die, args=arguments)
        process.start()
        process.join(30)
        if process.exitcode is None:
            process.kill()
            process.join(10)
            raise AssertionError("it hangs")
        code = process.exitcode
        process.close()
        return code

    return run


def test_a_process_killed_at_any_edge_leaves_the_old_state_or_the_new(
    url: str, opened: Open, spawn: Callable[..., int]
) -> None:
    """SIGKILL between the writing of a step and its commit, and right after it: nothing in between, ever, and
    an event for each step that was taken. Afterwards the step can be taken by somebody else."""
    ledger = opened(url)
    assert len({edges.number_of(edge) for edge in ALL}) == len(ALL) > 40
    for edge in ALL:
        _, old, new = edge
        edges.prepare(ledger, edge)
        begin = edges.state_of(ledger, edge)
        assert begin == (old if old not in edges.WORKED_ON else begin), edge
        told = edges.steps_of(ledger, edge)
        assert spawn(url, edge, "before") == -signal.SIGKILL, edge
        # What is claimed first, in a step of its own, is claimed by a dead process.
        between = old if old in edges.WORKED_ON else begin
        assert edges.state_of(ledger, edge) == between, edge
        more = [(begin, between)] if between != begin else []
        assert edges.steps_of(ledger, edge) == told + more, edge
        if url.startswith("sqlite"):
            assert spawn(url, edge, "after") == -signal.SIGKILL, edge
        else:
            edges.take(ledger, edge, lambda: None)
        assert edges.state_of(ledger, edge) == new, edge
        assert edges.steps_of(ledger, edge)[-1] == (old, new), edge


def test_another_who_holds_the_lock(sqlite_url: str, opened: Open) -> None:
    """A process that writes and does not end: said after a while, tried again, and readers read on."""
    ledger = opened(sqlite_url, busy=0.3)
    take(ledger, facts_of(1))
    other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("UPDATE image SET reason = 'x'")
    begun = time.monotonic()
    with pytest.raises(StorageError, match="locked") as said:
        ledger.claims.claim(want(A))
    assert 0.25 < time.monotonic() - begun < 5
    assert "tried again" in str(said.value)
    assert len(ledger.images.select()) == 1
    other.execute("ROLLBACK")
    other.close()
    assert ledger.claims.claim(want(*keys_of(facts_of(2))))


def test_a_reader_that_never_ends_holds_up_no_writer(sqlite_url: str, opened: Open) -> None:
    """D179: it sees what it saw when it began, and writers go on as if it were not there."""
    ledger = opened(sqlite_url, busy=0.3)
    take(ledger, facts_of(1))
    other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN")
    assert other.execute("SELECT count(*) FROM image").fetchone() == (1,)
    for number in range(2, 22):
        take(ledger, facts_of(number))  # one that waited would fail after 0.3 s
    assert other.execute("SELECT count(*) FROM image").fetchone() == (1,)
    other.execute("COMMIT")
    assert other.execute("SELECT count(*) FROM image").fetchone() == (21,)
    other.close()


def test_another_who_holds_rows(postgres_url: str, opened: Open) -> None:
    import psycopg

    ledger = opened(postgres_url, busy=0.3)
    image_id = take(ledger, facts_of(1))
    with psycopg.connect(postgres_url) as other:
        other.execute("SELECT * FROM image FOR UPDATE")
        with pytest.raises(StorageError, match="lock timeout"):
            ledger.images.judge(image_id)
        assert ledger.images.by_id(image_id).state == "capturing"
        other.rollback()
    assert ledger.images.judge(image_id).state == "complete"


def test_a_ledger_that_is_deleted_while_it_is_open(sqlite_url: str, opened: Open, tmp_path: Path) -> None:
    """What would be written into a file without a name would be lost: a new one is made."""
    ledger = opened(sqlite_url)
    (claim,) = ledger.claims.claim(want(A))
    for path in tmp_path.glob("ledger.db*"):
        path.unlink()
    assert not ledger.claims.holds(claim)
    assert ledger.images.select() == []
    assert not ledger.claims.end(claim, Outcome(state="done", files=(row(A),))), "nobody knows of the claim"
    assert [file.path for file in ledger.files.of_images()] == ["/archive/a.fits"]
    assert ledger.claims.claim(want(A))
    database = sqlite3.connect(tmp_path / "ledger.db")
    assert database.execute("SELECT count(*) FROM file").fetchone() == (1,), (
        "it is on the disk, under its name"
    )
    database.close()


def test_an_older_ledger_that_is_put_back(sqlite_url: str, opened: Open, tmp_path: Path) -> None:
    ledger = opened(sqlite_url)
    take(ledger, facts_of(1))
    copy = sqlite3.connect(tmp_path / "copy.db")
    source = sqlite3.connect(tmp_path / "ledger.db")
    source.backup(copy)
    source.close()
    copy.close()
    take(ledger, facts_of(2))
    for path in tmp_path.glob("ledger.db*"):
        path.unlink()
    os.rename(tmp_path / "copy.db", tmp_path / "ledger.db")
    assert [image.obsid for image in ledger.images.select()] == [name_of(1)]
    take(ledger, facts_of(3))
    assert [image.obsid for image in ledger.images.select()] == [name_of(1), name_of(3)]


def test_a_damaged_ledger_is_said_and_can_be_moved_away(
    sqlite_url: str, opened: Open, tmp_path: Path
) -> None:
    ledger = opened(sqlite_url)
    for number in range(40):
        take(ledger, facts_of(number))
    ledger.close()
    path = tmp_path / "ledger.db"
    with path.open("r+b") as stream:
        for page in range(2, os.path.getsize(path) // 4096):
            stream.seek(page * 4096)
            stream.write(b"\xa5" * 4096)

    def use() -> None:
        take(opened(sqlite_url), facts_of(50))

    for _ in range(2):
        with pytest.raises(FormatError, match=r"damaged.*ledger rebuild"):
            use()
    for each in tmp_path.glob("ledger.db*"):
        each.rename(tmp_path / f"bad-{each.name}")
    take(opened(sqlite_url), facts_of(50))


def test_damage_while_it_is_open(sqlite_url: str, opened: Open, tmp_path: Path) -> None:
    ledger = opened(sqlite_url)
    for number in range(40):
        take(ledger, facts_of(number))

    def damage() -> None:
        for path in (tmp_path / "ledger.db", tmp_path / "ledger.db-wal"):
            with path.open("r+b") as stream:
                for page in range(1, os.path.getsize(path) // 4096):
                    stream.seek(page * 4096)
                    stream.write(b"\xa5" * 4096)

    def use() -> None:
        for _ in range(3):
            damage()
            second = opened(sqlite_url)
            second.read("SELECT * FROM event")
            take(second, facts_of(60))

    with pytest.raises(FormatError, match="damaged"):
        use()
    for each in tmp_path.glob("ledger.db*"):
        each.unlink()
    take(ledger, facts_of(60))
    assert [image.obsid for image in ledger.images.select()] == [name_of(60)], "it goes on with a new one"


def test_a_full_disk_writes_nothing_by_halves(sqlite_url: str, opened: Open) -> None:
    ledger = opened(sqlite_url)
    take(ledger, facts_of(1))
    before = ledger.events.last()
    writer = ledger.database._writer  # type: ignore[attr-defined]
    (pages,) = writer.execute("PRAGMA page_count").fetchone()
    writer.execute(f"PRAGMA max_page_count = {pages}")
    done = 0

    def fill() -> None:
        nonlocal done
        for number in range(2, 200):
            take(ledger, facts_of(number))
            done = number

    with pytest.raises(StorageError, match="full") as said:
        fill()
    assert said.value.errno == 28
    writer.execute("PRAGMA max_page_count = 1073741823")
    images = ledger.images.select()
    assert len(images) in (max(done, 1), max(done, 1) + 1)
    for image in images[:done]:
        states = {source.state for source in ledger.images.sources(image.id)}
        assert states in ({"done"}, {"claimed"}, {"expected"}), "all of a commit, or nothing"
    assert ledger.events.last() >= before
    take(ledger, facts_of(300))


def test_an_owner_whose_clock_was_set_back_is_not_alive_for_years() -> None:
    here = owners.this_process()
    there = owners.Owner("far:1:00", "far", "boot", 1, 1)
    assert owners.alive(there, 100.0, 105.0, 10.0, here)
    assert not owners.alive(there, 100.0, 111.0, 10.0, here)
    assert not owners.alive(there, 5000.0, 105.0, 10.0, here), "it was renewed later than now"
    assert not owners.alive(owners.Owner("x", here.host, "another boot", 1, 1), 100.0, 101.0, 10.0, here)
    assert owners.alive(here, 100.0, 101.0, 10.0, here)


def test_a_change_that_is_not_as_it_should_be_is_none(ledger: Ledger) -> None:
    """Somebody was quicker again and again: nothing of the transaction is there, and the next one is fine."""
    image_id = ledger.images.announce(facts_of())
    tries = []

    def work(transaction: Transaction) -> None:
        tries.append(1)
        transaction.run("UPDATE image SET reason = 'x' WHERE id = ?", (image_id,))
        row = [("open", image_id, "22/0"), ("open", image_id, "nowhere")]
        transaction.update("source", ("state",), ("image_id", "location"), row, exact=True)
        transaction.note(Change("image", "x", "", "x", image_id))

    last = ledger.events.last()
    with pytest.raises(StorageError, match="again and again"):
        ledger.database.change(work)
    assert len(tries) == 20
    assert ledger.images.by_id(image_id).reason == ""
    assert {source.state for source in ledger.images.sources(image_id)} == {"expected"}
    assert ledger.events.last() == last

    def wrong(transaction: Transaction) -> None:
        transaction.run("UPDATE image SET reason = 'y' WHERE id = ?", (image_id,))
        raise UsageError("somebody made a mistake")

    with pytest.raises(UsageError):
        ledger.database.change(wrong)
    assert ledger.images.by_id(image_id).reason == ""
    assert ledger.images.move(image_id, "capturing")


def test_one_that_fails_spoils_no_other_in_the_same_commit(ledger: Ledger) -> None:
    """Several threads, one commit: who is at fault hears of it, the others are done."""
    ids = [ledger.images.announce(facts_of(number)) for number in range(1, 9)]
    ledger.images.move(ids[0], "complete")
    heard: list[int] = []
    gate = threading.Barrier(len(ids))

    def move(image_id: int) -> None:
        gate.wait()
        try:
            ledger.images.move(image_id, "capturing")
        except UsageError:
            heard.append(image_id)

    threads = [threading.Thread(target=move, args=(image_id,)) for image_id in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard == [ids[0]]
    assert [ledger.images.by_id(image_id).state for image_id in ids] == ["complete", *["capturing"] * 7]


# -- PostgreSQL


@pytest.fixture(scope="module")
def own_server() -> Iterator[postgres_server.PostgresServer]:
    """One that a test may shut down."""
    one = postgres_server.start(pytest.skip)
    yield one
    one.stop()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_a_server_that_is_restarted_in_the_middle(
    how: signal.Signals, own_server: postgres_server.PostgresServer, opened: Open
) -> None:
    """Nothing that was said to be done is lost, nothing is done twice, and whoever tries again goes on."""
    url = own_server.new_database()
    ledgers = [opened(url) for _ in range(2)]
    stop = threading.Event()
    done: list[list[str]] = [[], []]
    trouble: list[str] = []

    def again(what: Callable[[], object]) -> object:
        while True:
            try:
                return what()
            except StorageError as error:
                trouble.append(str(error))
                time.sleep(0.1)

    def work(ledger: Ledger, mine: list[str], base: int) -> None:
        number = base
        while not stop.is_set():
            number += 1
            facts = facts_of(number)
            image_id = again(lambda facts=facts: ledger.images.announce(facts))
            wanted = keys_of(facts)
            claims = []
            while len(claims) < 3:  # of a claim whose answer was lost we know nothing, and take it again
                found = again(lambda wanted=wanted: ledger.claims.claim(want(*wanted)))
                claims += found  # type: ignore[arg-type]
            ends = [
                (each, Outcome(state="done", files=files_of(facts, each.key.location))) for each in claims
            ]
            assert again(lambda ends=ends: ledger.claims.end_many(ends)) == [True] * 3
            plan = [DeliveryPlan(image_id=image_id, destination=f"d{base}", path=f"/{number}")]  # type: ignore[arg-type]
            again(lambda plan=plan: ledger.deliveries.plan(plan))
            (delivery,) = again(lambda: ledger.deliveries.claim(f"d{base}", 5))  # type: ignore[misc]
            assert again(lambda delivery=delivery: ledger.deliveries.end(delivery, "delivered"))
            mine.append(facts.obsid)

    threads = [
        threading.Thread(target=work, args=(ledger, mine, 1000 * n))
        for n, (ledger, mine) in enumerate(zip(ledgers, done, strict=True), 1)
    ]
    for thread in threads:
        thread.start()
    for _ in range(2):
        count = sum(map(len, done))
        wait_for(lambda count=count: sum(map(len, done)) > count + 3)
        own_server.shut(how)
        time.sleep(0.3)
        own_server.start()
    count = sum(map(len, done))
    wait_for(lambda: sum(map(len, done)) > count + 3)
    stop.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    reader = opened(url, read_only=True)
    for mine in done:
        for obsid in mine:
            (image,) = reader.images.get(obsid)
            assert {source.state for source in reader.images.sources(image.id)} == {"done"}
            assert len(reader.files.of(image.id)) == 9
            story = [
                (event.subject, event.new) for event in reader.events.of(image.id) if event.thing == "source"
            ]
            assert len([step for step in story if step[1] == "done"]) == 3, story
            assert [row.state for row in reader.deliveries.of(image.id)] == ["delivered"]
    numbers = [number for (number,) in reader.read("SELECT number FROM event ORDER BY number")]
    assert len(numbers) == len(set(numbers))


def test_a_server_that_stays_away_is_said_soon(
    own_server: postgres_server.PostgresServer, opened: Open
) -> None:
    url = own_server.new_database()
    ledger = opened(url, busy=2.0)
    take(ledger, facts_of(1))
    own_server.shut()
    begun = time.monotonic()
    with pytest.raises(StorageError, match="look after its server"):
        ledger.claims.claim(want(A))
    first = time.monotonic() - begun
    assert 1 < first < 8, "it is waited for a little"
    begun = time.monotonic()
    for what in (lambda: ledger.claims.claim(want(A)), lambda: ledger.images.select(), ledger.renew):
        with pytest.raises(StorageError):
            what()
    assert time.monotonic() - begun < 3, "then nobody waits any more"
    with pytest.raises(StorageError):
        opened(url, busy=0.1)
    own_server.start()
    assert ledger.claims.claim(want(*keys_of(facts_of(2))))


def test_a_client_that_is_stopped_keeps_nobody_waiting_for_ever(postgres_url: str, opened: Open) -> None:
    ledger = opened(postgres_url)
    (limit,) = [row[0] for row in ledger.read("SHOW idle_in_transaction_session_timeout")]
    assert limit == "30s"
    (limit,) = [row[0] for row in ledger.read("SHOW statement_timeout")]
    assert limit == "2min"


def test_passwords_are_in_no_message(opened: Open) -> None:
    with pytest.raises(RaftwrightError) as said:
        opened("postgresql://me:secret@127.0.0.1:1/ledger", busy=0.1)
    assert "secret" not in str(said.value)
    with pytest.raises(RaftwrightError) as said:
        opened("postgresql://me:secret@127.0.0.1:port/ledger?nonsense=1")
    assert "secret" not in str(said.value)


def test_without_psycopg_it_is_said_what_to_install() -> None:
    program = (
        "import sys\nsys.modules['psycopg'] = None\n"
        "from raftwright.ledger import open_ledger\n"
        "try:\n    open_ledger('postgresql://x/y')\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("MissingExtraError")
    assert "raftwright[postgres]" in done.stdout
