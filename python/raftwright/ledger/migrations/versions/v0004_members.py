"""Version 4: what is in containers. `0004.<dialect>.sql` never changes."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """From version 3. No row is rewritten."""
    script = Path(__file__).with_name(f"0004.{op.get_bind().dialect.name}.sql").read_text("utf-8")
    for statement in filter(str.strip, script.split(";\n")):
        op.get_bind().exec_driver_sql(statement)
