"""What is in containers, what counts because of it, and the upgrade that brought it; on both databases."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from night import facts_of, name_of, take
from test_replicas import bring, whole
from test_tables import tables_of
from test_upgrade import _rows, _script

from raftwright.errors import ConflictError, FormatError, NotFoundError, UsageError
from raftwright.ledger import FileRow, Ledger, open_ledger
from raftwright.ledger.checking import check_ledger, counts_of
from raftwright.ledger.upgrading import kept_copy, upgrade
from raftwright.ledger.version import APPLICATION, VERSION

Open = Callable[..., Ledger]


def container(number: int = 1, version: int = 1, crc32c: str = "0000c0de", **more: Any) -> FileRow:
    name = name_of(number) + ("" if version == 1 else f".v{version}")
    values: dict[str, Any] = {
        "image": name_of(number),
        "daq_id": facts_of(number).daq_id,
        "path": f"/archive/{name}.zip",
        "bytes": 1000,
        "crc32c": crc32c,
        "version": version,
        "status": "written",
        "kind": "container",
        "verified": 1.7e9,
    }
    return FileRow(**{**values, **more})


def sums(files: list[FileRow]) -> dict[int, tuple[int, str]]:
    return {file.id: (file.bytes, file.crc32c) for file in files}


def entered(ledger: Ledger, files: list[FileRow], **more: Any) -> FileRow:
    row = container(**more)
    ledger.containers.enter(row, sums(files))
    found = ledger.files.by_path(row.path)
    assert found is not None
    return found


def test_a_name_has_one_content_for_ever(ledger: Ledger) -> None:
    files = whole(ledger)
    row = container()
    assert ledger.containers.enter(row, sums(files))
    assert not ledger.containers.enter(row, sums(files)), "it is there"
    (box,) = ledger.files.of(files[0].image_id, "container")
    assert ledger.containers.members(box.id) == sums(files)
    with pytest.raises(ConflictError, match="another container of that name"):
        ledger.containers.enter(msgspec.structs.replace(row, crc32c="00000001"), sums(files))
    ledger.files.lost(row.path)
    assert ledger.containers.enter(row, sums(files)), "it is back"
    for bad, members in ((msgspec.structs.replace(row, kind="raw"), sums(files)), (row, {})):
        with pytest.raises(UsageError):
            ledger.containers.enter(bad, members)
    with pytest.raises(NotFoundError):
        ledger.containers.enter(container(99), sums(files))
    assert check_ledger(ledger) == []
    assert counts_of(ledger)["file"]["container"] == 1


def test_a_lost_container_fetches_nothing(ledger: Ledger) -> None:
    """Its detectors are present by their own files."""
    files = whole(ledger)
    box = entered(ledger, files)
    before = [row.state for row in ledger.images.detectors(box.image_id)]
    ledger.files.verified(box.path, ok=False)
    assert [row.state for row in ledger.images.detectors(box.image_id)] == before


def test_safe_counts_what_is_in_a_good_container(ledger: Ledger) -> None:
    """D172: the rule of retention, with single files and containers mixed at several endpoints."""
    files = whole(ledger)
    assert len(files) > 1
    one, *rest = files
    ids = {file.id for file in files}
    box = entered(ledger, rest)
    bring(ledger, "far", [box])
    safe = ledger.replicas.safe
    assert safe(ids, ["far"]) == {file.id for file in rest}, "one is not in it"
    bring(ledger, "far", [one], custodial=True)
    assert safe(ids, ["far"]) == ids
    assert safe(ids, 2) == set(), "twice at one endpoint is once"
    assert safe(ids, 1, custodial=1) == {one.id}
    bring(ledger, "vault", [box], custodial=True)
    assert safe(ids, 2) == {file.id for file in rest}
    assert safe(ids, 1, custodial=1) == ids
    assert safe(ids, 1, but=["far"]) == {file.id for file in rest}
    (copy,) = ledger.replicas.at("vault")
    ledger.replicas.damaged(copy, "for the test")
    assert safe(ids, ["vault"]) == set()
    ledger.replicas.healed(copy, "for the test")
    assert safe([rest[0].id], ["vault"]) == {rest[0].id}
    ledger.files.removed([box.path], "all have it")
    assert safe([rest[0].id], ["vault"]) == {rest[0].id}, "what is there is there"
    ledger.database.change(
        lambda transaction: transaction.run("UPDATE file SET crc32c = 'ffffffff' WHERE id = ?", (rest[0].id,))
    )
    assert safe([rest[0].id], ["vault"]) == set(), "the container has it as it was"
    assert ledger.replicas.in_containers(box.image_id)[rest[-1].id] == {"far", "vault"} or len(rest) == 1


def test_what_no_endpoint_has_is_told(ledger: Ledger) -> None:
    """Of files that retention took: the ledger's word that nothing good is left of them."""
    files = whole(ledger)
    one, *rest = files
    box = entered(ledger, rest)
    bring(ledger, "far", files)
    bring(ledger, "near", [one])
    bring(ledger, "vault", [box])
    while ledger.replicas.all_lost("far", "for the test"):
        pass
    assert ledger.replicas.nowhere() == {}, "the archive has them"
    ledger.files.removed([file.path for file in files], "retention")
    assert ledger.replicas.nowhere() == {}
    missing = ledger.replicas.missing("far", sorted({file.kind for file in files}))
    assert {file.id for file in missing} == {one.id}, "near has it by itself"
    assert ledger.replicas.missing("new", sorted({file.kind for file in files})) == []
    (copy,) = ledger.replicas.at("near")
    ledger.replicas.damaged(copy, "for the test")
    assert ledger.replicas.nowhere() == {"far": 1, "near": 1}
    (copy,) = ledger.replicas.at("vault")
    ledger.replicas.lost(copy, "for the test")
    assert ledger.replicas.nowhere() == {"far": len(files), "near": 1}
    ledger.files.removed([box.path], "all have it")
    assert ledger.replicas.nowhere() == {"far": len(files), "near": 1, "vault": 1}


def test_units_say_what_lacks(ledger: Ledger) -> None:
    files = whole(ledger)
    image_id = files[0].image_id
    (unit,) = ledger.containers.units([image_id])
    assert (unit.standing(), unit.newest) == ("missing", None)
    assert unit.files == unit.lacking == len(files)
    entered(ledger, files[1:])
    (unit,) = ledger.containers.units([image_id, 99])
    assert (unit.standing(), unit.lacking) == ("old", 1)
    before = unit.newest
    assert before is not None
    second = entered(ledger, files, version=2, crc32c="0000beef", replaces=before.path)
    (unit,) = ledger.containers.units([image_id])
    assert (unit.standing(), unit.lacking, unit.newest) == ("whole", 0, second)
    assert [row.version for row in unit.containers] == [1, 2]
    ledger.files.removed([second.path], "for the test")
    (unit,) = ledger.containers.units([image_id])
    assert unit.standing() == "whole"
    assert unit.standing(["far"]) == "missing"
    ledger.files.lost(files[0].path)
    (unit,) = ledger.containers.units([image_id])
    assert unit.lacking == 0, "what is no more is not to be packed"
    ledger.containers.enter(second, sums(files))
    ledger.files.verified(second.path, ok=False)
    (unit,) = ledger.containers.units([image_id])
    assert unit.standing() == "damaged"
    assert check_ledger(ledger) == []


def test_images_by_pages(ledger: Ledger) -> None:
    for number in range(1, 6):
        take(ledger, facts_of(number))
        ledger.images.judge(ledger.images.get(name_of(number))[0].id)
    ids = ledger.containers.ids()
    assert len(ids) == 5
    assert ledger.containers.ids(limit=2) == ids[:2]
    assert ledger.containers.ids(after=ids[1]) == ids[2:]
    assert ledger.containers.ids(dayobs=20261122) == ids
    assert ledger.containers.ids(dayobs=20261123) == []
    assert ledger.containers.ids(instruments=["nothing"]) == []
    assert ledger.containers.ids(instruments=["nothing", "LSSTComCam"]) == ids
    assert {unit.standing() for unit in ledger.containers.units(ids)} == {"missing"}


def test_a_check_finds_members_of_nothing(ledger: Ledger) -> None:
    files = whole(ledger)
    box = entered(ledger, files)
    assert check_ledger(ledger) == []
    ledger.database.change(
        lambda transaction: transaction.run(
            "UPDATE member SET file_id = 999 WHERE file_id = ?", (files[0].id,)
        )
    )
    assert [fault.what for fault in check_ledger(ledger)] == [
        "containers have files in them that are not there, or of another image"
    ]
    ledger.database.change(lambda transaction: transaction.run("DELETE FROM member"))
    (fault,) = check_ledger(ledger)
    assert (fault.what, fault.examples) == ("containers are there with nothing in them", (box.path,))


# -- from version 2


@pytest.fixture
def second(url: str, project_root: Path) -> str:
    """A ledger of version 2, with a night in it and a replica."""
    versions = project_root / "python" / "raftwright" / "ledger" / "migrations" / "versions"
    dialect = "sqlite" if url.startswith("sqlite") else "postgresql"
    script = _script(project_root, dialect) + (versions / f"0002.{dialect}.sql").read_text()
    script += "UPDATE alembic_version SET version_num = '0002';\n"
    replica = (
        "INSERT INTO replica (image_id, file_id, endpoint, target, bytes, crc32c, verified_tai, checked_tai)"
        " VALUES (1, 1, 'far', 'a.fits', 10, '00000002', 1.7e9, 1.7e9)"
    )
    if dialect == "sqlite":
        database = sqlite3.connect(url.removeprefix("sqlite:///"))
        database.executescript(script)
        for statement, values in [*_rows(), (replica, ())]:
            database.execute(statement, values)
        database.execute(f"PRAGMA application_id = {APPLICATION}")
        database.execute("PRAGMA user_version = 2")
        database.commit()
        database.close()
    else:
        with psycopg.connect(url) as connection:
            connection.execute(script.encode())
            for statement, values in [*_rows(), (replica, ())]:
                connection.execute(statement.replace("?", "%s").encode(), values)
            for table in ("image", "file", "replica"):
                connection.execute(f"SELECT setval('{table}_id_seq', 100)".encode())
    return url


def test_a_ledger_of_version_2_is_upgraded(
    second: str, opened: Open, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    for read_only in (False, True):
        with pytest.raises(FormatError, match=r"version 2, .* `raftwright ledger upgrade`"):
            open_ledger(second, read_only=read_only)
    assert upgrade(second) == (2, VERSION)
    assert upgrade(second) == (VERSION, VERSION)
    assert (kept_copy(second, 2) is not None) == second.startswith("sqlite")
    new = (
        f"sqlite:///{tmp_path}/new.db"
        if second.startswith("sqlite")
        else request.getfixturevalue("server").new_database()
    )
    open_ledger(new).close()
    assert tables_of(second) == tables_of(new)
    ledger = opened(second)
    assert check_ledger(ledger) == []
    assert ledger.replicas.safe([1], ["far"]) == {1}
    (file,) = ledger.files.of(1)
    row = msgspec.structs.replace(container(7), image=file.image, daq_id=file.daq_id)
    assert ledger.containers.enter(row, {file.id: (file.bytes, file.crc32c)})
    box = ledger.files.by_path(row.path)
    assert box is not None
    bring(ledger, "near", [box])
    assert ledger.replicas.safe([1], ["far", "near"]) == {1}
    assert check_ledger(ledger) == []
