"""The tables as SQL, printed from `raftwright.ledger.schema`, and how that is done.

`python -m raftwright.ledger.printing` prints both files anew; a test says when that is to be done.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

__all__ = ["DIALECTS", "print_all", "printed"]

DIALECTS = ("sqlite", "postgresql")

_ALEMBIC = """\
CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
)"""


def printed(name: str) -> str:
    """The script that makes an empty ledger in a database of that dialect."""
    from sqlalchemy.schema import CreateIndex, CreateTable

    from raftwright.ledger.schema import VIEWS, metadata
    from raftwright.ledger.version import REVISION, VERSION

    dialect = _dialect(name)
    statements: list[Any] = []
    for table in metadata.sorted_tables:
        statements.append(CreateTable(table))
        statements += [CreateIndex(index) for index in sorted(table.indexes, key=lambda each: str(each.name))]
    lines = [str(statement.compile(dialect=dialect)).strip() for statement in statements]
    lines = ["\n".join(line.rstrip().replace("\t", "    ") for line in text.splitlines()) for text in lines]
    lines += [f"CREATE VIEW {view} AS {query.strip()}" for view, query in VIEWS.items()]
    lines += [
        _ALEMBIC,
        f"INSERT INTO alembic_version (version_num) VALUES ('{REVISION}')",
        f"INSERT INTO information (name, value) VALUES ('version', '{VERSION}')",
    ]
    return "-- Printed by `python -m raftwright.ledger.printing`; change schema.py instead.\n" + "".join(
        f"{line};\n" for line in lines
    )


def _dialect(name: str) -> Dialect:
    from sqlalchemy.dialects import postgresql, sqlite

    return postgresql.dialect() if name == "postgresql" else sqlite.dialect()  # type: ignore[no-untyped-call]


def print_all() -> None:
    """Writes both files."""
    for name in DIALECTS:
        Path(__file__).with_name("ddl").joinpath(f"{name}.sql").write_text(printed(name), "utf-8")


if __name__ == "__main__":
    print_all()
