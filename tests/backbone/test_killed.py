"""Hand-offs that are killed at any moment: every file is verified at every endpoint, once, and undamaged."""

from __future__ import annotations

import random
import time
from collections import Counter

from handoff_stand import Site, configuration, endpoint, files_in, hidden_in, running, wait_for


def test_killed_again_and_again_while_it_hands_over(site: Site) -> None:
    """F12, F13, F05: three endpoints of two kinds, images that come meanwhile, SIGKILL at random points."""
    chance = random.Random(20261122)
    program = site.by_program("program", "shutil.copyfile(source, there)")
    assert program.commands is not None
    config = configuration(
        site,
        [
            endpoint(site, "far", bandwidth="3 MB"),
            endpoint(site, "vault", custodial=True),
            {
                **endpoint(site, "program", kind="command"),
                "commands": {"transfer": program.commands.transfer, "remote": program.commands.remote},
            },
        ],
        replicas=3,
    )
    numbers = range(1, 7)
    for number in numbers:
        site.image(number, bytes=200_000)
        done = sum(states.get("delivered", 0) for states in site.counts().values())
        with running(config):
            wanted = done + chance.randrange(1, 18)
            wait_for(
                lambda wanted=wanted: (  # type: ignore[misc]
                    sum(states.get("delivered", 0) for states in site.counts().values()) >= wanted
                ),
                20,
                site.counts,
            )
            time.sleep(chance.uniform(0.0, 0.05))
    with running(config) as process:
        site.delivered("far", "vault", "program", count=7 * len(numbers), timeout=40)
        process.terminate()
        assert process.wait(20) == 0
    for name in ("far", "vault", "program"):
        site.check(name, *numbers)
        assert site.states(name) == {"verified": 7 * len(numbers)}
    for number in numbers:
        rows = site.ledger.events.of(number)
        ended = Counter(one.subject for one in rows if one.thing == "delivery" and one.new == "delivered")
        assert set(ended.values()) == {1}, "something was delivered twice"
        entered = Counter(one.subject for one in rows if one.thing == "replica")
        assert set(entered.values()) == {1}


def test_killed_while_it_mends(site: Site) -> None:
    """What is damaged and lost afterwards is found and mended, whoever dies meanwhile; nothing of it is
    thrown away."""
    chance = random.Random(7)
    config = configuration(
        site,
        [endpoint(site, "far", concurrency=1), endpoint(site, "near")],
        scrub={"every": "500 ms", "rate": "0"},
    )
    for number in (1, 2, 3):
        site.image(number, bytes=50_000)
    with running(config):
        site.delivered("far", "near", count=21, timeout=30)
    spoilt = [site.spoil(victim) for victim in sorted(site.place("far").rglob("*.fits"))[:6]]
    for victim in sorted(site.place("near").rglob("*.fits"))[-3:]:
        victim.unlink()
    found = "SELECT count(*) FROM event WHERE thing = 'replica' AND new IN ('damaged', 'lost')"
    for _ in range(5):
        with running(config):
            before = site.ledger.read(found)[0][0]
            until = time.monotonic() + 2.0
            while time.monotonic() < until and site.ledger.read(found)[0][0] == before:
                time.sleep(0.002)
            time.sleep(chance.uniform(0.0, 0.03))
    with running(config):
        for name in ("far", "near"):
            wait_for(
                lambda name=name: files_in(site.place(name)) == site.expected(1, 2, 3),  # type: ignore[misc]
                30,
                lambda name=name: site.states(name),  # type: ignore[misc]
            )
            wait_for(
                lambda name=name: site.states(name) == {"verified": 21},  # type: ignore[misc]
                20,
                site.counts,
            )
    assert sorted(hidden_in(site.place("far"), ".damaged")) == sorted(spoilt)
    assert not hidden_in(site.place("near"), ".damaged")


def test_the_second_takes_over_when_the_first_is_killed(site: Site) -> None:
    """F14."""
    config = configuration(site, [endpoint(site, "far")])
    with running(config) as first, running(config) as second:
        site.image(1)
        site.delivered("far", count=7)
        first.kill()
        first.wait()
        site.image(2)
        site.delivered("far", count=14, timeout=20)
        second.terminate()
        assert second.wait(20) == 0
    site.check("far", 1, 2)
