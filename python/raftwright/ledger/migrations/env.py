"""What Alembic runs: migrations on the connection that `raftwright.ledger.upgrading` has made."""

from __future__ import annotations

from alembic import context

from raftwright.ledger.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
