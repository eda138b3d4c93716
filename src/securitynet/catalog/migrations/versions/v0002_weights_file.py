"""The weights file of an entry, and the end of duplicates that shared a network but not their weights.

Links that were made because two entries have the same ``arch:`` or ``python:`` reference are undone: such a reference
names a network, which says nothing about the weights. Links made by hand, or for other reasons, stay.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; separate entries that are no duplicates."""
    op.add_column("entries", sa.Column("weights_file", sa.Text()))
    present = sa.text("weights_file IS NOT NULL")
    op.create_index(
        "ix_entries_weights_file", "entries", ["weights_file"], sqlite_where=present, postgresql_where=present
    )
    op.execute(
        "UPDATE entries SET duplicate_of = NULL, duplicate_rule = NULL WHERE duplicate_rule = 'reference' "
        "AND (reference LIKE 'arch:%' OR reference LIKE 'python:%')"
    )
