"""The tables of version 1, as `0001.<dialect>.sql` has them: a copy that never changes."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """From nothing."""
    script = Path(__file__).with_name(f"0001.{op.get_bind().dialect.name}.sql").read_text("utf-8")
    for statement in filter(str.strip, script.split(";\n")):
        op.get_bind().exec_driver_sql(statement)
