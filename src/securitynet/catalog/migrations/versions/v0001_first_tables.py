"""The first tables, with full-text search for either database.

Written out, not taken from `securitynet.catalog.tables`: a migration must do tomorrow what it did today. A test
compares what the migrations make with what the tables say.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from securitynet.catalog.full_text import SQLITE_SEARCH

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BIG_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

POSTGRES_SEARCH = (
    """CREATE INDEX ix_entries_search ON entries
        USING gin (array_to_tsvector(string_to_array(search_text, ' '))) WITH (fastupdate = off)""",
)


def upgrade() -> None:
    """Make all tables, indexes and triggers."""
    op.create_table(
        "changes",
        sa.Column("number", BIG_KEY, primary_key=True),
        sa.Column("time", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("note", sa.Text()),
        sa.Column("added", sa.Integer(), nullable=False),
        sa.Column("changed", sa.Integer(), nullable=False),
    )
    op.create_table(
        "collections",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("cursor", sa.JSON(), nullable=False),
        sa.Column("change", BIG_KEY, sa.ForeignKey("changes.number"), nullable=False),
    )
    op.create_table(
        "entries",
        sa.Column("number", BIG_KEY, primary_key=True),
        sa.Column("id", sa.Text(), nullable=False, unique=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("change", BIG_KEY, sa.ForeignKey("changes.number"), nullable=False),
        sa.Column("withdrawn", sa.Boolean(), nullable=False),
        sa.Column("duplicate_of", sa.Text()),
        sa.Column("duplicate_rule", sa.Text()),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text()),
        sa.Column("revision", sa.Text()),
        sa.Column("checksum", sa.Text()),
        sa.Column("license", sa.Text()),
        sa.Column("weights_link", sa.Text()),
        sa.Column("code_link", sa.Text()),
        sa.Column("purpose", sa.Text()),
        sa.Column("purpose_detail", sa.Text()),
        sa.Column("publisher_type", sa.Text()),
        sa.Column("task_type", sa.Text()),
        sa.Column("dataset", sa.Text()),
        sa.Column("topic_category", sa.Text()),
        sa.Column("granularity", sa.Text()),
        sa.Column("training_size", sa.BigInteger()),
        sa.Column("classes", sa.BigInteger()),
        sa.Column("image_height", sa.BigInteger()),
        sa.Column("image_width", sa.BigInteger()),
        sa.Column("image_channels", sa.BigInteger()),
        sa.Column("pretraining", sa.JSON()),
        sa.Column("membership", sa.Text()),
        sa.Column("extra_data", sa.Boolean()),
        sa.Column("architecture", sa.Text()),
        sa.Column("family", sa.Text()),
        sa.Column("architecture_type", sa.Text()),
        sa.Column("elements", sa.JSON()),
        sa.Column("parameters", sa.BigInteger()),
        sa.Column("flops", sa.BigInteger()),
        sa.Column("head", sa.Text()),
        sa.Column("preprocessing", sa.JSON()),
        sa.Column("threat", sa.Text()),
        sa.Column("claimed_accuracy", sa.Float()),
        sa.Column("claimed_top5", sa.Float()),
        sa.Column("claimed_train_accuracy", sa.Float()),
        sa.Column("paper_title", sa.Text()),
        sa.Column("paper_link", sa.Text()),
        sa.Column("venue", sa.Text()),
        sa.Column("venue_type", sa.Text()),
        sa.Column("year", sa.BigInteger()),
        sa.Column("authors", sa.BigInteger()),
        sa.Column("affiliations", sa.JSON()),
        sa.Column("affiliation_types", sa.JSON()),
        sa.Column("countries", sa.JSON()),
        sa.Column("notes", sa.Text()),
        sa.Column("search_text", sa.Text(), nullable=False),
        sa.UniqueConstraint("key"),
    )
    op.create_index("ix_entries_authors", "entries", ["authors", "number"])
    op.create_index("ix_entries_claimed_accuracy", "entries", ["claimed_accuracy", "number"])
    op.create_index("ix_entries_classes", "entries", ["classes", "number"])
    op.create_index("ix_entries_dataset", "entries", ["dataset", "number"])
    op.create_index("ix_entries_family", "entries", ["family", "number"])
    op.create_index("ix_entries_flops", "entries", ["flops", "number"])
    op.create_index("ix_entries_image_height", "entries", ["image_height", "number"])
    op.create_index("ix_entries_name", "entries", ["name", "number"])
    op.create_index("ix_entries_parameters", "entries", ["parameters", "number"])
    op.create_index("ix_entries_training_size", "entries", ["training_size", "number"])
    op.create_index("ix_entries_year", "entries", ["year", "number"])
    op.create_table(
        "papers",
        sa.Column("number", BIG_KEY, primary_key=True),
        sa.Column("id", sa.Text(), nullable=False, unique=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("change", BIG_KEY, sa.ForeignKey("changes.number"), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("venue", sa.Text()),
        sa.Column("venue_type", sa.Text()),
        sa.Column("year", sa.Integer()),
        sa.Column("paper_link", sa.Text()),
        sa.Column("weights_link", sa.Text()),
        sa.Column("note", sa.Text()),
        sa.Column("source", sa.Text(), nullable=False),
    )
    op.create_table(
        "revisions",
        sa.Column("subject", sa.Text(), primary_key=True),
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("version", sa.Integer(), primary_key=True),
        sa.Column("change", BIG_KEY, sa.ForeignKey("changes.number"), nullable=False),
        sa.Column("state", sa.JSON(), nullable=False),
    )
    op.create_table(
        "annotations",
        sa.Column("number", BIG_KEY, primary_key=True),
        sa.Column("entry", BIG_KEY, sa.ForeignKey("entries.number"), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("coder", sa.Text(), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.Column("change", BIG_KEY, sa.ForeignKey("changes.number"), nullable=False),
        sa.Column("ended", BIG_KEY, sa.ForeignKey("changes.number")),
    )
    op.create_index("ix_annotations_entry", "annotations", ["entry", "code"])
    op.create_table(
        "measurements",
        sa.Column("number", BIG_KEY, primary_key=True),
        sa.Column("entry", BIG_KEY, sa.ForeignKey("entries.number"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("low", sa.Float()),
        sa.Column("high", sa.Float()),
        sa.Column("measured_by", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("change", BIG_KEY, sa.ForeignKey("changes.number"), nullable=False),
        sa.Column("ended", BIG_KEY, sa.ForeignKey("changes.number")),
        sa.CheckConstraint("measured_by IN ('published', 'trial')", name="measured_by"),
    )
    op.create_index("ix_measurements_entry", "measurements", ["entry", "name"])
    op.create_table(
        "provenance",
        sa.Column("entry", BIG_KEY, sa.ForeignKey("entries.number"), primary_key=True),
        sa.Column("sources", sa.JSON(), nullable=False),
    )
    for column in ("duplicate_of", "reference", "checksum", "weights_link"):
        given = sa.text(f"{column} IS NOT NULL")
        op.create_index(f"ix_entries_{column}", "entries", [column], sqlite_where=given, postgresql_where=given)
    dialect = op.get_bind().dialect.name
    for statement in SQLITE_SEARCH if dialect == "sqlite" else POSTGRES_SEARCH:
        op.execute(sa.text(statement))
