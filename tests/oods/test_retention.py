"""What leaves a repository, what never does, and that registry, ledger and disk agree whenever one dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from oods_stand import Site, wait_for
from small_raws import ended, forked

from raftwright.butler import Incoming, Ingester, Repository, open_repository
from raftwright.cli import main
from raftwright.errors import FormatError
from raftwright.ledger import IngestRow, Ledger, open_ledger, tai
from raftwright.ledger.rebuilding import rebuild
from raftwright.oods import Oods, Places, leaving, retention
from raftwright.oods.inputs import Directory
from raftwright.oods.leaving import Leaving
from raftwright.oods.retention import Choice, Chooser, Space
from raftwright.oods.settings import Retention, Rule, Settings
from raftwright.report.auditing import Options, audit
from raftwright.report.book import open_book
from raftwright.report.verdicts import FINE

OLD = Retention(rules=[Rule(older_than=0.001, by="ingested")], copies=2, custodial=1)


def settings(site: Site, rules: Retention, **more: Any) -> Settings:
    return site.settings(retention=rules, **more)


def chosen(site: Site, rules: Retention, space: Space | None = None, **more: Any) -> Choice:
    with open_repository(site.repo) as repository:
        return Chooser(site.ledger, settings(site, rules, **more), repository).choose(space)


def removed(site: Site, rules: Retention, **more: Any) -> list[IngestRow]:
    with open_repository(site.repo, writeable=True) as repository:
        chooser = Chooser(site.ledger, settings(site, rules, **more), repository)
        choice = chooser.choose()
        leave = Leaving(site.ledger, "oods", repository, chooser, empty_directories=True)
        return leave.remove([row for row, _ in choice.going], "old")


def leaver(
    site: Site, repository: Repository, ledger: Ledger | None = None, rules: Retention = OLD
) -> Leaving:
    known = ledger or site.ledger
    chooser = Chooser(known, settings(site, rules), repository)
    return Leaving(known, "oods", repository, chooser, empty_directories=True)


def copied(site: Site, *endpoints: str, images: Sequence[int] | None = None) -> None:
    """Replicas of all files, as the hand-off tells them; `vault` is custodial."""
    for endpoint in endpoints:
        queue = site.ledger.replicas.queue(endpoint, custodial=endpoint == "vault")
        files = site.ledger.replicas.missing(endpoint, verified=False)
        plans = [
            {"image_id": file.image_id, "path": file.path, "target": Path(file.path).name}
            | {"bytes": file.bytes, "crc32c": file.crc32c, "destination": ""}
            for file in files
            if images is None or file.image_id in images
        ]
        from raftwright.ledger import DeliveryPlan

        site.ledger.replicas.plan(endpoint, [DeliveryPlan(**plan) for plan in plans])
        while rows := queue.claim(f"endpoint:{endpoint}", 100):
            assert all(queue.end_many([(row, "delivered", "", 0.0, row.bytes) for row in rows]))


def datasets(site: Site) -> set[str]:
    with open_repository(site.repo) as repository:
        return {str(ref.id) for ref in repository.find("LSSTCam")}


def consistent(site: Site) -> None:
    """The registry has no dataset whose file is gone, and the audit finds nothing wrong."""
    with open_repository(site.repo) as repository:
        for uri in repository.uris(repository.find("LSSTCam")).values():
            assert Path(uri.removeprefix("file://")).is_file(), uri
    with open_book(site.url) as book:
        for found in audit(book, Options(archive=site.raws.root)):
            assert found.verdict in FINE, found.to_dict()


def test_nothing_leaves_of_which_no_copies_are_known(site: Site) -> None:
    """D049, D131: unknown is keep; each of the required copies counts."""
    site.image()
    site.ingested(3)
    assert chosen(site, OLD).going == []
    copied(site, "a", "b")
    choice = chosen(site, OLD)
    assert choice.going == []
    assert choice.stayed == 3
    assert "1 custodial" in choice.staying[0][1]
    copied(site, "vault")
    assert len(chosen(site, OLD).going) == 3


def test_what_leaves_is_gone_from_registry_and_disk(site: Site) -> None:
    paths = site.image()
    site.ingested(3)
    copied(site, "a", "vault")
    assert len(removed(site, OLD)) == 3
    assert datasets(site) == set()
    assert not any(path.exists() or path.with_suffix(".json").exists() for path in paths)
    assert {row.state for row in site.rows()} == {"removed"}
    consistent(site)
    assert chosen(site, OLD).going == []


@pytest.mark.parametrize("how", ["pinned", "tag", "TAGGED collection"])
def test_pinned_and_tagged_data_stay(site: Site, how: str) -> None:
    site.image(1)
    site.image(2)
    rows = site.ingested(6)
    copied(site, "a", "vault")
    image_id = rows[0].image_id
    if how == "pinned":
        site.ledger.ingests.pin("for a paper", repository="oods", image_ids=[image_id])
    elif how == "tag":
        site.ledger.tags.tag("paper", [image_id])
    else:
        with open_repository(site.repo, writeable=True) as repository:
            from lsst.daf.butler import CollectionType

            repository.butler.registry.registerCollection("u/me/best", CollectionType.TAGGED)
            mine = [row.dataset_id for row in rows if row.image_id == image_id]
            repository.butler.registry.associate("u/me/best", repository.datasets(mine))
    assert {row.image_id for row, _ in chosen(site, OLD).going} == {rows[-1].image_id}
    assert len(removed(site, OLD)) == 3
    assert len(datasets(site)) == 3
    consistent(site)


def test_what_is_tagged_after_it_was_chosen_stays(site: Site) -> None:
    site.image()
    rows = site.ingested(3)
    copied(site, "a", "vault")
    with open_repository(site.repo, writeable=True) as repository:
        from lsst.daf.butler import CollectionType

        choice = Chooser(site.ledger, settings(site, OLD), repository).choose()
        leave = leaver(site, repository)
        repository.butler.registry.registerCollection("u/me/best", CollectionType.TAGGED)
        repository.butler.registry.associate("u/me/best", repository.datasets([rows[0].dataset_id]))
        gone = leave.remove([row for row, _ in choice.going], "old")
    assert {row.id for row in gone} == {row.id for row in rows[1:]}
    assert Path(rows[0].path).is_file()
    assert {row.state for row in site.rows()} == {"ingested", "removed"}
    consistent(site)


def _died_after(step: str) -> Callable[..., None]:
    """Kills this process once a step is done."""

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            function(*args, **more)
            os.kill(os.getpid(), signal.SIGKILL)

        return call

    def patch() -> None:
        from raftwright.ledger.files import Files
        from raftwright.ledger.ingests import Ingests

        owner, name = {
            "marked": (Ingests, "leave"),
            "registry": (Repository, "remove"),
            "list": (Files, "removed"),
            "disk": (Leaving, "_delete"),
            "written down": (Ingests, "removed"),
        }[step]
        setattr(owner, name, wrap(getattr(owner, name)))

    return patch


@pytest.mark.parametrize("step", ["marked", "registry", "list", "disk", "written down"])
def test_killed_after_each_step(site: Site, step: str) -> None:
    """D123: registry and disk agree, and the next start ends what was begun."""
    site.image(1)
    site.image(2)
    site.ingested(6)
    for service in site.started:
        service.stop()
    copied(site, "a", "vault")
    site.ledger.close()

    def work() -> None:
        _died_after(step)()
        with open_ledger(site.url) as ledger, open_repository(site.repo, writeable=True) as repository:
            choice = Chooser(ledger, settings(site, OLD), repository).choose()
            leave = leaver(site, repository, ledger)
            leave.remove([row for row, _ in choice.going], "old")

    assert ended(forked(work)) == -signal.SIGKILL
    site.ledger = open_ledger(site.url)
    with open_repository(site.repo) as repository:
        for uri in repository.uris(repository.find("LSSTCam")).values():
            assert Path(uri.removeprefix("file://")).is_file(), "no dataset without its file"
    site.oods(retention=OLD)
    wait_for(lambda: {row.state for row in site.rows()} == {"removed"})
    assert datasets(site) == set()
    assert not list(site.raws.root.rglob("*.fits"))
    consistent(site)


def test_a_file_that_vanished_does_not_stop_the_cleaner(site: Site) -> None:
    """D121, F46."""
    paths = site.image()
    site.ingested(3)
    copied(site, "a", "vault")
    paths[1].unlink()
    assert len(removed(site, OLD)) == 3
    consistent(site)


def test_a_file_that_cannot_be_deleted_is_tried_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.image()
    site.ingested(3)
    copied(site, "a", "vault")
    real = os.unlink

    def refuse(path: Any, **more: Any) -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(leaving.os, "unlink", refuse)
    assert removed(site, OLD) == []
    assert {row.state for row in site.rows()} == {"leaving"}
    monkeypatch.setattr(leaving.os, "unlink", real)
    with open_repository(site.repo, writeable=True) as repository:
        assert leaver(site, repository).resume() == 3
    consistent(site)


def test_age_counts_from_observation_or_from_ingest(site: Site) -> None:
    """D132: an image of last year that was ingested a moment ago."""
    site.image(header={"IMGTYPE": "OBJECT", "EXPTIME": 1.0, "DATE-BEG": "2025-11-23T01:02:03.456"})
    site.ingested(3)
    copied(site, "a", "vault")
    site.ledger.database.change(lambda t: t.run("UPDATE ingest SET observed_tai = ?", (tai() - 3e7,)))
    for by, number in (("observed", 3), ("ingested", 0)):
        rules = Retention(rules=[Rule(older_than=86400.0, by=by)], copies=2)  # type: ignore[arg-type]
        assert len(chosen(site, rules).going) == number, by


def test_the_first_rule_that_says_something_counts(site: Site) -> None:
    site.image()
    site.ingested(3)
    copied(site, "a", "vault")
    keep = Rule(older_than=1e7, dataset_types=["raw"])
    rules = Retention(rules=[keep, Rule(older_than=0.001, by="ingested")], copies=2)
    assert chosen(site, rules).going == []
    other = Rule(older_than=1e7, dataset_types=["guider"])
    rules = Retention(
        rules=[other, Rule(older_than=0.001, by="ingested", collections=["LSSTCam/*"])], copies=2
    )
    assert len(chosen(site, rules).going) == 3
    nothing = Retention(rules=[Rule(older_than=0.001, by="ingested", instruments=["LATISS"])], copies=2)
    assert chosen(site, nothing).going == []


def test_above_the_high_water_the_oldest_leave(site: Site) -> None:
    """D130, F15 of the disk: until it is at the low water, and no more than that."""
    for number in (1, 2, 3):
        site.image(number)
        site.ledger.database.change(
            lambda t, n=number: t.run("UPDATE image SET begin_tai = ? WHERE seqnum = ?", (1.8e9 + n, n))
        )
    rows = site.ingested(9)
    copied(site, "a", "vault")
    rules = Retention(high_water=0.9, low_water=0.8, copies=2, by="ingested")
    size = sum(row.bytes for row in rows)
    assert chosen(site, rules, Space(10 * size, 8 * size)).going == []
    choice = chosen(site, rules, Space(1000, 1000 - 99))
    assert choice.going, "a little above"
    assert choice.bytes >= 101 > choice.bytes - choice.going[-1][0].bytes
    all_of_it = chosen(site, rules, Space(10 * size, 10 * size))
    assert len(all_of_it.going) == 9
    assert all_of_it.lacking == size
    ages = [row.ingested_tai for row, _ in all_of_it.going]
    assert ages == sorted(ages, key=lambda one: one or 0.0)


def test_a_full_disk_with_nothing_that_may_leave(site: Site) -> None:
    site.image()
    site.ingested(3)
    choice = chosen(site, Retention(high_water=0.9, low_water=0.8, copies=2), Space(1000, 950))
    assert (choice.going, choice.lacking, choice.stayed) == ([], 150, 3)
    site.started[0].stop()
    service = site.oods(retention=Retention(quota=1, copies=2))
    wait_for(lambda: service.room_trouble)
    assert "more than the quota" in service.problems()[0]
    assert len(site.rows("ingested")) == 3


def test_the_quota(site: Site) -> None:
    for number in (1, 2):
        site.image(number)
    rows = site.ingested(6)
    copied(site, "a", "vault")
    size = sum(row.bytes for row in rows)
    choice = chosen(site, Retention(quota=size - 1, copies=2, by="ingested"))
    assert len(choice.going) == 1
    assert chosen(site, Retention(quota=size, copies=2)).going == []


def test_a_repository_with_files_of_its_own(site: Site) -> None:
    """`hardlink`: the archive's file is a copy, and stays."""
    paths = site.image()
    site.ingested(3, transfer="hardlink")
    assert chosen(site, OLD, transfer="hardlink").going == []
    with open_ledger(site.url) as ledger:
        ledger.files.all_verified(str(path) for path in paths)
    rules = Retention(rules=OLD.rules, copies=1)
    assert len(removed(site, rules, transfer="hardlink")) == 3
    assert all(path.is_file() for path in paths)
    assert not list(site.repo.rglob("*.fits"))
    consistent(site)


def test_what_the_archive_lost_is_no_copy(site: Site) -> None:
    """The ledger still has it as written and verified."""
    paths = site.image()
    site.ingested(3, transfer="hardlink")
    copied(site, "a")
    rules = Retention(rules=OLD.rules, copies=2)
    assert len(chosen(site, rules, transfer="hardlink").going) == 3
    paths[0].unlink()
    paths[1].with_suffix(".json").unlink()
    choice = chosen(site, rules, transfer="hardlink")
    assert [row.path for row, _ in choice.going] == [str(paths[2])]
    assert "2 verified copies" in choice.staying[0][1]


def test_an_older_version_leaves_alone(site: Site) -> None:
    """The dataset has the newer file; the older one goes without it."""
    old, *_ = site.image()
    site.ingested(3)
    new = old.with_name(f"{old.stem}.v2.fits")
    new.write_bytes(old.read_bytes())
    new.with_suffix(".json").write_bytes(old.with_suffix(".json").read_bytes())
    (row,) = [row for row in site.rows("ingested") if row.path == str(old)]
    with open_repository(site.repo, writeable=True) as repository:
        (outcome,) = Ingester(repository).ingest([Incoming.of(str(new))])
        assert outcome.state == "ingested"
        copied(site, "a", "vault")
        leave = leaver(site, repository)
        assert leave.remove([row], "replaced") == [row]
    assert not old.exists()
    assert new.exists()
    assert row.dataset_id in datasets(site)


FREE = Retention(rules=[Rule(older_than=0.001, by="ingested")], copies=0, unprotected=True)


def twice(site: Site) -> tuple[list[Path], list[Path]]:
    """Three raws of the archive, and copies of them in a directory, found after them; both `direct`."""
    paths = site.image()
    drop = site.path / "drop"
    shutil.copytree(paths[0].parent, drop)
    service = site.oods()
    site.ingested(3, service)
    service.stop()
    service = site.oods(directories=[Directory(path=str(drop), settle=0.1)])
    site.ingested(6, service)
    service.stop()
    rows = site.rows("ingested")
    assert len({row.dataset_id for row in rows}) == 3
    return paths, [drop / path.name for path in paths]


def test_a_file_that_came_twice_leaves_twice(site: Site) -> None:
    """What is `removed` is not there any more, whichever of the two the repository read."""
    paths, others = twice(site)
    assert len(chosen(site, FREE).going) == 6
    assert len(removed(site, FREE)) == 6
    assert not any(path.exists() or path.with_suffix(".json").exists() for path in (*paths, *others))
    assert {row.state for row in site.rows()} == {"removed"}
    assert datasets(site) == set()


def test_of_a_file_that_came_twice_one_stays(site: Site) -> None:
    """Of the copy nothing is known elsewhere: it stays, and the repository reads it from then on, also where
    whoever removed the other died before that was written down."""
    paths, others = twice(site)
    copied(site, "a", "vault")
    assert len(removed(site, OLD)) == 3
    assert not any(path.exists() for path in paths)
    assert {row.path for row in site.rows("queued")} == {str(path) for path in others}
    rows = site.ingested(3)
    assert {(row.path, row.uri) for row in rows} == {(str(path), f"file://{path}") for path in others}
    assert datasets(site) == {row.dataset_id for row in rows}
    consistent(site)
    assert chosen(site, OLD).going == []


def test_killed_while_one_of_two_leaves(site: Site) -> None:
    paths, others = twice(site)
    copied(site, "a", "vault")
    first = [row for row in site.rows("ingested") if row.path in {str(path) for path in paths}]
    with open_repository(site.repo, writeable=True) as repository:
        site.ledger.ingests.leave(first, "old")
        refs = repository.datasets([row.dataset_id for row in first])
        repository.remove(refs, at=repository.uris(refs))
        leaver(site, repository).resume()
    assert {row.state for row in site.rows() if row.id in {row.id for row in first}} == {"removed"}
    rows = site.ingested(3)
    assert {row.path for row in rows} == {str(path) for path in others}
    consistent(site)


def test_another_way_to_write_a_path_is_no_other_file(site: Site) -> None:
    """A directory that leads to the archive: what is pinned there is not taken away under its other name."""
    site.image()
    rows = site.ingested(3)
    site.started.pop().stop()
    link = site.path / "link"
    link.symlink_to(site.raws.root)
    site.ingested(6, site.oods(directories=[Directory(path=str(link), settle=0.1)]))
    site.ledger.ingests.pin("for a paper", repository="oods", ids=[row.id for row in rows])
    for row in site.rows("ingested"):
        if row.path.startswith(str(link)):
            site.ledger.ingests.unpin(repository="oods", ids=[row.id])
    assert len(removed(site, FREE)) == 3
    assert all(Path(row.path).is_file() for row in rows)
    assert datasets(site) == {row.dataset_id for row in rows}


def test_a_newer_file_that_comes_while_the_older_leaves(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The dataset has the newer file by then: it stays in the registry."""
    old, *_ = site.image()
    site.ingested(3)
    copied(site, "a", "vault")
    new = old.with_name(f"{old.stem}.v2.fits")
    new.write_bytes(old.read_bytes())
    new.with_suffix(".json").write_bytes(old.with_suffix(".json").read_bytes())
    (row,) = [row for row in site.rows("ingested") if row.path == str(old)]
    real = Repository.remove

    def late(self: Repository, refs: Any, **more: Any) -> Any:
        with open_repository(site.repo, writeable=True) as other:
            (outcome,) = Ingester(other).ingest([Incoming.of(str(new))])
            assert outcome.state == "ingested"
        return real(self, refs, **more)

    monkeypatch.setattr(Repository, "remove", late)
    with open_repository(site.repo, writeable=True) as repository:
        leaver(site, repository).remove([row], "old")
    assert new.is_file()
    assert row.dataset_id in datasets(site)


def test_a_dry_run_says_exactly_what_goes(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (1, 2):
        site.image(number)
    rows = site.ingested(6)
    copied(site, "a", "vault", images=[rows[0].image_id])
    config = site.path / "site.yaml"
    config.write_text(
        f"archive: {{root: {site.raws.root}}}\nledger: {{url: '{site.url}'}}\n"
        f"oods: {{repository: {site.repo}, retention: {{rules: [{{older_than: 1 ms, by: ingested}}]}}}}\n"
    )

    def run(*more: str) -> dict[str, Any]:
        capsys.readouterr()
        assert main(["oods", "retention", "--config", str(config), "--json", *more]) == 0
        return dict(json.loads(capsys.readouterr().out))

    before = run("--dry-run")
    assert len(datasets(site)) == 6, "nothing happened"
    done = run()
    assert [one["path"] for one in done["going"]] == [one["path"] for one in before["going"]]
    assert (len(before["going"]), before["staying_in_all"], done["removed"]) == (3, 3, 3)
    assert not any(Path(one["path"]).exists() for one in before["going"])
    assert all(Path(one["path"]).exists() for one in before["staying"])
    consistent(site)


def test_a_copy_that_is_damaged_after_the_choice_keeps_the_file(site: Site) -> None:
    """The ledger is asked once more right before a file goes, and when a removal is ended."""
    site.image()
    rows = site.ingested(3)
    copied(site, "a", "vault")
    with open_repository(site.repo, writeable=True) as repository:
        leave = leaver(site, repository)
        bad = {row.path: row for row in site.ledger.replicas.of(rows[0].image_id) if row.endpoint == "a"}
        site.ledger.replicas.damaged(bad[rows[0].path], "a flipped bit")
        gone = leave.remove(rows, "old")
        assert {row.id for row in gone} == {row.id for row in rows[1:]}
        assert Path(rows[0].path).is_file()
        assert rows[0].dataset_id in datasets(site)
        # Marked, out of the registry, and then it died: the copy is not good any more when it is ended.
        site.ledger.replicas.healed(bad[rows[0].path], "again")
        site.ledger.ingests.leave([rows[0]])
        repository.remove(repository.datasets([rows[0].dataset_id]))
        site.ledger.replicas.damaged(bad[rows[0].path], "again")
        assert leave.resume() == 0
    assert Path(rows[0].path).is_file()
    wait_for(lambda: rows[0].dataset_id in datasets(site))
    wait_for(lambda: len(site.rows("ingested")) == 1)
    site.ledger.replicas.healed(bad[rows[0].path], "again")
    consistent(site)


@pytest.mark.parametrize("how", ["other pixels", "longer", "a link"])
def test_what_stands_there_and_is_something_else_stays(site: Site, how: str) -> None:
    """Copies are elsewhere of what was ingested, not of what somebody put in its place."""
    paths = site.image()
    site.ingested(3)
    copied(site, "a", "vault")
    content = bytearray(paths[0].read_bytes())
    if how == "other pixels":
        content[-3000] ^= 1
    elif how == "longer":
        content += b"\0" * 2880
    paths[0].unlink()
    if how == "a link":
        precious = site.path / "precious.fits"
        precious.write_bytes(content)
        paths[0].symlink_to(precious)
    else:
        paths[0].write_bytes(content)
    assert len(removed(site, OLD)) == 2
    assert os.path.lexists(paths[0])
    assert len(datasets(site)) == 1
    (stayed,) = chosen(site, OLD).staying
    assert "any more" in stayed[1] or "not what was ingested" in stayed[1]


def test_every_sidecar_needs_its_copies_and_leaves(site: Site) -> None:
    """Also later ones, and never one that the ledger does not know."""
    first, *_ = site.image()
    site.ingested(3)
    copied(site, "a", "vault")
    later = first.with_name(f"{first.stem}.sidecar2.json")
    later.write_bytes(first.with_suffix(".json").read_bytes())
    assert len(chosen(site, OLD).going) == 2
    assert "sidecar" in chosen(site, OLD).staying[0][1]
    rebuild(site.ledger, site.raws.root)
    assert len(chosen(site, OLD).going) == 2, "known, and without copies"
    copied(site, "a", "vault")
    assert len(removed(site, OLD)) == 3
    assert not list(site.raws.root.rglob("*.sidecar2.json"))
    consistent(site)


def test_one_file_that_cannot_be_deleted_holds_no_other(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """D121."""
    for number in (1, 2):
        site.image(number)
    rows = site.ingested(6)
    copied(site, "a", "vault")
    real = os.unlink

    def refuse(path: Any, **more: Any) -> None:
        if str(path) == rows[0].path:
            raise PermissionError(1, "Operation not permitted", str(path))
        real(path, **more)

    monkeypatch.setattr(leaving.os, "unlink", refuse)
    with open_repository(site.repo, writeable=True) as repository:
        site.ledger.ingests.leave(rows[:3])
        leave = leaver(site, repository)
        assert leave.resume() == 2
        assert "cannot be deleted" in leave.trouble
        assert len(leave.remove(rows[3:], "old")) == 3
    assert [row.id for row in site.rows("leaving")] == [rows[0].id]


def test_another_repository_reads_the_same_file(site: Site, empty_repo: Path) -> None:
    """The registry of the other has no dataset whose file is gone; the last one deletes."""
    paths = site.image()
    rows = site.ingested(3)
    other = site.path / "other"
    shutil.copytree(empty_repo, other)
    service = Oods(site.settings(repository=str(other), name="second"), Places(ledger=site.url)).start()
    site.started.append(service)
    wait_for(lambda: len(site.ledger.ingests.select(repository="second", states=["ingested"])) == 3)
    copied(site, "a", "vault")
    assert len(removed(site, OLD)) == 3
    assert datasets(site) == set()
    assert all(path.is_file() for path in paths)
    with open_repository(other, writeable=True) as repository:
        chooser = Chooser(site.ledger, settings(site, OLD, name="second"), repository)
        leave = Leaving(site.ledger, "second", repository, chooser, empty_directories=True)
        assert len(leave.remove([row for row, _ in chooser.choose().going], "old")) == len(rows)
    assert not any(path.exists() for path in paths)
    consistent(site)


def test_two_retentions_at_once(site: Site) -> None:
    """One works, the other is told."""
    with open_ledger(site.url) as other, open_repository(site.repo, writeable=True) as repository:
        first, second = leaver(site, repository, other), leaver(site, repository)
        with first.alone(), pytest.raises(OSError, match="another retention"), second.alone():
            pass
        with second.alone():
            pass


def test_hard_links_and_other_file_systems_make_no_room(site: Site) -> None:
    """What frees nothing is not removed in vain, pass after pass."""
    site.image()
    site.ingested(3, transfer="hardlink")
    copied(site, "a", "vault")
    rules = Retention(high_water=0.5, low_water=0.4, copies=2)
    choice = chosen(site, rules, Space(1000, 900), transfer="hardlink")
    assert (choice.going, choice.lacking) == ([], 500)
    assert "hard link" in choice.staying[0][1]
    elsewhere = Retention(high_water=0.5, low_water=0.4, copies=2, disk="/proc")
    assert "another file system" in chosen(site, elsewhere, Space(1000, 900)).staying[0][1]


def test_a_backlog_leaves_some_at_a_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is chosen at a time is bounded, however much is old."""
    for number in (1, 2):
        site.image(number)
    site.ingested(6)
    site.started[0].stop()
    copied(site, "a", "vault")
    monkeypatch.setattr(retention, "_PAGE", 1)
    with open_repository(site.repo) as repository:
        assert len(Chooser(site.ledger, settings(site, OLD), repository).choose(most=2).going) == 2
    monkeypatch.setattr("raftwright.oods.service._MOST_LEAVING", 2)
    site.oods(retention=OLD)
    wait_for(lambda: {row.state for row in site.rows()} == {"removed"})
    consistent(site)


def test_rules_that_make_no_sense() -> None:
    with pytest.raises(FormatError, match="unprotected"):
        Retention(copies=0)
    with pytest.raises(FormatError, match="low_water"):
        Retention(high_water=0.5, low_water=0.6)
    assert Retention(copies=0, unprotected=True).copies == 0


@pytest.mark.parametrize("verb", ["pin", "again", "retention"])
def test_no_ledger_is_made_where_one_was_mistyped(
    site: Site, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    config = site.path / "site.yaml"
    config.write_text(
        f"archive: {{root: {site.raws.root}}}\nledger: {{url: '{site.path}/leger.db'}}\n"
        f"oods: {{repository: {site.repo}, retention: {{copies: 1}}}}\n"
    )
    more = ["MC_O_20261122_000123"] if verb == "pin" else []
    assert main(["oods", verb, *more, "--config", str(config)]) != 0
    assert "leger.db: there is no such ledger" in capsys.readouterr().err
    assert not (site.path / "leger.db").exists()


@pytest.mark.parametrize("how", ["pinned", "tagged paper"])
def test_what_is_pinned_while_it_leaves_stays(site: Site, how: str) -> None:
    """Somebody died between the mark and the removal; what was pinned or tagged since is not removed."""
    site.image()
    rows = site.ingested(3)
    copied(site, "a", "vault")
    with open_repository(site.repo, writeable=True) as repository:
        choice = Chooser(site.ledger, settings(site, OLD), repository).choose()
        assert len(site.ledger.ingests.leave([row for row, _ in choice.going], "old")) == 3
        if how == "pinned":
            site.ledger.ingests.pin("for a paper", repository="oods", ids=[rows[0].id])
        else:
            site.ledger.tags.tag("paper", [rows[0].image_id], [rows[0].detector])
        assert leaver(site, repository).resume() == 2
    assert Path(rows[0].path).is_file()
    assert {row.id for row in site.rows("ingested")} == {rows[0].id}
    assert datasets(site) == {rows[0].dataset_id}
    with open_repository(site.repo) as repository:
        told = Chooser(site.ledger, settings(site, OLD), repository).choose(held=True)
    assert [(row.id, why) for row, why in told.staying] == [(rows[0].id, f"is {how}")]
    consistent(site)


@pytest.mark.parametrize(("seconds", "said"), [(30 * 86400.0, "30 d"), (1.0, "1 s"), (5400.0, "90 min")])
def test_ages_are_told_in_units_of_people(site: Site, seconds: float, said: str) -> None:
    site.image()
    site.ingested(3)
    rules = Retention(rules=[Rule(older_than=seconds, by="ingested")], copies=0, unprotected=True)
    with open_repository(site.repo) as repository:
        choice = Chooser(site.ledger, settings(site, rules), repository).choose(now=tai() + 2 * seconds)
    assert {why for _, why in choice.going} == {f"ingested more than {said} ago"}
