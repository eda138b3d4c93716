"""Runs the migrations on the connection that `securitynet.catalog.database` passes, inside its transaction."""

from __future__ import annotations

from alembic import context

from securitynet.catalog.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    transaction_per_migration=False,
)
context.run_migrations()
