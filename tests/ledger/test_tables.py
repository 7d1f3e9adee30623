"""The tables: one definition, and three ways to them that agree."""

from __future__ import annotations

import datetime
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from night import facts_of, take

from raftwright.errors import FormatError, NotFoundError
from raftwright.ledger import open_ledger
from raftwright.ledger.postgres import _type_of
from raftwright.ledger.printing import DIALECTS, printed
from raftwright.ledger.schema import VIEWS, metadata
from raftwright.ledger.states import EDGES
from raftwright.ledger.upgrading import engine_of, upgrade
from raftwright.ledger.version import VERSION

_QUERIES = (
    """SELECT 'column', table_name || '.' || column_name,
        data_type || ' ' || is_nullable || ' ' || coalesce(column_default, '')
        FROM information_schema.columns WHERE table_schema = 'public'""",
    "SELECT 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    """SELECT 'constraint', conrelid::regclass || '.' || conname, pg_get_constraintdef(oid)
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace""",
    "SELECT 'view', viewname, definition FROM pg_views WHERE schemaname = 'public'",
    "SELECT 'row', name, value FROM information",
    "SELECT 'row', 'alembic', version_num FROM alembic_version",
)


def tables_of(url: str) -> set[tuple[str, ...]]:
    """Everything that is defined in a database, as it tells it."""
    if url.startswith("sqlite"):
        database = sqlite3.connect(url.removeprefix("sqlite:///"))
        found = database.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        found += database.execute("SELECT 'row', name, value FROM information").fetchall()
        found += database.execute("SELECT 'row', 'alembic', version_num FROM alembic_version").fetchall()
        database.close()
    else:
        with psycopg.connect(url) as connection:
            found = []
            for query in _QUERIES:
                found += connection.execute(query).fetchall()
    assert len(found) > 20
    return {tuple(re.sub(r"\s+", " ", str(part)).strip() for part in row) for row in found}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_scripts_are_those_of_the_schema(dialect: str, project_root: Path) -> None:
    path = project_root / "python" / "raftwright" / "ledger" / "ddl" / f"{dialect}.sql"
    assert path.read_text() == printed(dialect), "run `python -m raftwright.ledger.printing`"


@pytest.mark.parametrize("where", ["sqlite", "postgresql"])
def test_migrations_lead_to_the_same_tables(
    where: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if where == "sqlite":
        made, migrated, by_hand = (f"sqlite:///{tmp_path}/{name}.db" for name in "abc")
        Path(migrated.removeprefix("sqlite:///")).touch()
    else:
        server = request.getfixturevalue("server")
        made, migrated, by_hand = (server.new_database() for _ in range(3))
    open_ledger(made).close()
    assert upgrade(migrated) == (0, VERSION)
    assert upgrade(migrated) == upgrade(made) == (VERSION, VERSION)
    assert tables_of(made) == tables_of(migrated)
    engine = engine_of(by_hand)
    with engine.begin() as connection:
        metadata.create_all(connection)
        for name, query in VIEWS.items():
            connection.exec_driver_sql(f"CREATE VIEW {name} AS {query.strip()}")
    engine.dispose()
    assert not _without_rows(made) ^ _without_rows(by_hand)
    with open_ledger(migrated) as ledger:
        assert ledger.images.judge(take(ledger, facts_of())).state == "complete"


def _without_rows(url: str) -> set[tuple[str, ...]]:
    if not url.startswith("sqlite"):
        with psycopg.connect(url) as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS alembic_version (version_num VARCHAR(32) NOT NULL)"
            )
    else:
        database = sqlite3.connect(url.removeprefix("sqlite:///"))
        database.execute("CREATE TABLE IF NOT EXISTS alembic_version (version_num VARCHAR(32) NOT NULL)")
        database.close()
    return {row for row in tables_of(url) if row[0] != "row" and "alembic_version" not in row[1]}


def test_tables_have_the_states_of_the_edges(url: str) -> None:
    with open_ledger(url) as ledger:
        image_id = ledger.images.announce(facts_of())
        for thing in ("image", "source", "detector"):
            key = "id" if thing == "image" else "image_id"
            with pytest.raises(Exception, match="state_is_known"):
                ledger.database.change(
                    lambda transaction, thing=thing, key=key: transaction.run(
                        f"UPDATE {thing} SET state = 'finished' WHERE {key} = ?", (image_id,)
                    )
                )
    assert all(new in steps for steps in EDGES.values() for edges in steps.values() for new in edges)


def test_arrays_have_the_types_of_their_columns() -> None:
    """PostgreSQL is given whole columns, whose types stand in the code."""
    from sqlalchemy import BigInteger, Float, Integer

    for table in metadata.tables.values():
        for column in table.columns:
            expected = (
                *(("bigint", "integer") if isinstance(column.type, BigInteger) else ()),
                *(("integer", "bigint") if isinstance(column.type, Integer) else ()),
                *(("double precision",) if isinstance(column.type, Float) else ()),
            ) or ("text",)
            assert _type_of(column.name) in expected, f"{table.name}.{column.name}"
            if isinstance(column.type, BigInteger):
                assert _type_of(column.name) == "bigint", f"{table.name}.{column.name}"


def test_a_ledger_on_sqlite_loads_no_sqlalchemy(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from raftwright.ledger import open_ledger\n"
        f"open_ledger({str(tmp_path / 'ledger.db')!r}).close()\n"
        "heavy = {'sqlalchemy', 'alembic', 'psycopg', 'asyncio', 'astropy', 'rich', 'structlog', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"


def test_what_is_no_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with pytest.raises(NotFoundError):
        open_ledger(path, read_only=True)
    path.write_bytes(b"not a database, but long enough to be looked at as one" * 100)
    with pytest.raises(FormatError, match="ledger rebuild"):
        open_ledger(path)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as database:
        database.execute("CREATE TABLE t (x)")
    database.close()
    for refuse in (open_ledger, upgrade):
        with pytest.raises(FormatError, match="no ledger"):
            refuse(other)
    with sqlite3.connect(other) as database:
        database.execute(f"PRAGMA application_id = {0x52574A31}")
    database.close()
    for refuse in (open_ledger, upgrade):
        with pytest.raises(FormatError, match="journal of a forwarder of an earlier release"):
            refuse(other)


@pytest.mark.parametrize(("version", "said"), [(0, "ledger upgrade"), (9, "use one that knows it")])
def test_other_versions_are_refused(url: str, version: int, said: str) -> None:
    with open_ledger(url) as ledger:
        ledger.database.change(
            lambda transaction: transaction.run(
                "UPDATE information SET value = ? WHERE name = 'version'", (str(version),)
            )
        )
    if url.startswith("sqlite"):
        database = sqlite3.connect(url.removeprefix("sqlite:///"))
        database.execute(f"PRAGMA user_version = {version}")
        database.close()
    with pytest.raises(FormatError, match=said):
        open_ledger(url)


def test_tables_of_somebody_else_are_left_alone(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE image (x int)")
    with pytest.raises(FormatError, match="somebody else"):
        open_ledger(postgres_url)


def test_times_are_tai(ledger: Any) -> None:
    image_id = ledger.images.announce(facts_of())
    image = ledger.images.by_id(image_id)
    now = datetime.datetime.now(datetime.UTC).timestamp()
    assert image.announced_tai - now == pytest.approx(37, abs=5)


def test_the_edges_are_those_of_the_documentation(project_root: Path) -> None:
    text = (project_root / "docs" / "ledger.md").read_text().split("## States")[1].split("## Who")[0]
    told: dict[str, dict[str, frozenset[str]]] = {}
    thing = ""
    for line in text.splitlines():
        parts = [part.strip() for part in line.strip("| ").split("|")] if line.startswith("|") else []
        if line.startswith("| |"):
            parts.insert(0, "")
        if len(parts) != 3 or parts[0] == "thing" or set(parts[0]) == {"-"}:
            continue
        thing = parts[0].split(" ")[0] or thing
        for old in parts[1].split(", "):
            told.setdefault(thing, {})[old] = frozenset(parts[2].split(", "))
    told["header"]["complete"] = frozenset()
    assert told == {name: dict(steps) for name, steps in EDGES.items()}


def test_the_tables_are_those_of_the_documentation(project_root: Path) -> None:
    text = (project_root / "docs" / "ledger.md").read_text().split("## Tables")[1].split("## States")[0]
    told = set(re.findall(r"^\| `([a-z]+)` ", text, re.MULTILINE))
    assert told == set(metadata.tables) - {"information"}
    assert all(f"`{view}`" in text for view in VIEWS)
