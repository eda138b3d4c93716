"""Importers: entries read from published tables, in Markdown, CSV, JSON Lines or Parquet, from a file or a URL.

A bad row is reported with its line and reason and does not stop the rest; with ``strict`` nothing is written then.
"""

from __future__ import annotations

from securitynet.catalog.importers.base import ImportProblem, ImportReport, Table
from securitynet.catalog.importers.read import read_published_table

__all__ = ["ImportProblem", "ImportReport", "Table", "read_published_table"]
