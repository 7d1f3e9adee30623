"""Version 2: replicas, ingests and tags; images by group. `0002.<dialect>.sql` never changes."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """From version 1. No row is rewritten."""
    script = Path(__file__).with_name(f"0002.{op.get_bind().dialect.name}.sql").read_text("utf-8")
    for statement in filter(str.strip, script.split(";\n")):
        op.get_bind().exec_driver_sql(statement)
