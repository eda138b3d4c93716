"""The database's tables. One column of `entries` per code; what has several values a row lies beside it.

Nothing is deleted in place: a state that is replaced moves to ``revisions``, a measurement or an annotation that is
replaced keeps its row and gets the number of the change that ended it.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from securitynet.catalog.codebook import CodeInfo, load_codebook

metadata = sa.MetaData(naming_convention={"ix": "ix_%(table_name)s_%(column_0_N_name)s"})

BigKey = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _column_type(info: CodeInfo) -> Any:
    if info.several or info.kind == "object":
        return sa.JSON(none_as_null=True)
    return {"integer": sa.BigInteger(), "number": sa.Float(), "boolean": sa.Boolean()}.get(info.kind, sa.Text())


changes = sa.Table(
    "changes",
    metadata,
    sa.Column("number", BigKey, primary_key=True, autoincrement=True),
    sa.Column("time", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("note", sa.Text),
    sa.Column("added", sa.Integer, nullable=False, default=0),
    sa.Column("changed", sa.Integer, nullable=False, default=0),
)

entries = sa.Table(
    "entries",
    metadata,
    sa.Column("number", BigKey, primary_key=True, autoincrement=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("change", sa.ForeignKey("changes.number"), nullable=False),
    sa.Column("withdrawn", sa.Boolean, nullable=False),
    sa.Column("duplicate_of", sa.Text),
    sa.Column("duplicate_rule", sa.Text),
    *(sa.Column(info.name, _column_type(info), nullable=not info.required) for info in load_codebook().values()),
    sa.Column("search_text", sa.Text, nullable=False),
    sa.UniqueConstraint("key"),
)
for _info in load_codebook().values():
    if _info.ordered:
        sa.Index(f"ix_entries_{_info.name}", entries.c[_info.name], entries.c.number)
for _name in ("duplicate_of", "reference", "checksum", "weights_link", "weights_file"):
    # Of those that have a value only: else a planner may take this index to find the many that have none.
    _given = entries.c[_name].is_not(None)
    sa.Index(f"ix_entries_{_name}", entries.c[_name], sqlite_where=_given, postgresql_where=_given)

provenance = sa.Table(
    "provenance",
    metadata,
    sa.Column("entry", sa.ForeignKey("entries.number"), primary_key=True),
    sa.Column("sources", sa.JSON, nullable=False),
)

revisions = sa.Table(
    "revisions",
    metadata,
    sa.Column("subject", sa.Text, primary_key=True),
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("change", sa.ForeignKey("changes.number"), nullable=False),
    sa.Column("state", sa.JSON, nullable=False),
)

measurements = sa.Table(
    "measurements",
    metadata,
    sa.Column("number", BigKey, primary_key=True, autoincrement=True),
    sa.Column("entry", sa.ForeignKey("entries.number"), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("value", sa.Float, nullable=False),
    sa.Column("low", sa.Float),
    sa.Column("high", sa.Float),
    sa.Column("measured_by", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("change", sa.ForeignKey("changes.number"), nullable=False),
    sa.Column("ended", sa.ForeignKey("changes.number")),
    sa.CheckConstraint("measured_by IN ('published', 'trial')", name="measured_by"),
)
sa.Index("ix_measurements_entry", measurements.c.entry, measurements.c.name)

coder_values = sa.Table(
    "annotations",
    metadata,
    sa.Column("number", BigKey, primary_key=True, autoincrement=True),
    sa.Column("entry", sa.ForeignKey("entries.number"), nullable=False),
    sa.Column("code", sa.Text, nullable=False),
    sa.Column("coder", sa.Text, nullable=False),
    sa.Column("value", sa.JSON, nullable=False),
    sa.Column("change", sa.ForeignKey("changes.number"), nullable=False),
    sa.Column("ended", sa.ForeignKey("changes.number")),
)
sa.Index("ix_annotations_entry", coder_values.c.entry, coder_values.c.code)

papers = sa.Table(
    "papers",
    metadata,
    sa.Column("number", BigKey, primary_key=True, autoincrement=True),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("change", sa.ForeignKey("changes.number"), nullable=False),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("venue", sa.Text),
    sa.Column("venue_type", sa.Text),
    sa.Column("year", sa.Integer),
    sa.Column("paper_link", sa.Text),
    sa.Column("weights_link", sa.Text),
    sa.Column("note", sa.Text),
    sa.Column("source", sa.Text, nullable=False),
)

collections = sa.Table(
    "collections",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("cursor", sa.JSON, nullable=False),
    sa.Column("change", sa.ForeignKey("changes.number"), nullable=False),
)
