"""Version 3: what stores say of objects; whether what was set aside still is. `0003.<dialect>.sql` never
changes."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """From version 2. No row is rewritten."""
    script = Path(__file__).with_name(f"0003.{op.get_bind().dialect.name}.sql").read_text("utf-8")
    for statement in filter(str.strip, script.split(";\n")):
        op.get_bind().exec_driver_sql(statement)
