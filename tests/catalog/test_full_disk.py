"""A catalog on a disk that is full after any number of pages."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import sqlite3

import pytest
import sqlalchemy as sa

from securitynet.catalog.catalog import Catalog
from securitynet.errors import SecurityNetError

PADDING = "x" * 400
"""Part of each name, so that an import takes many pages."""


@pytest.mark.parametrize("before", [0, 3])
def test_a_catalog_on_a_full_disk(tmp_path, before):
    """However many pages there is room for: an import is there whole or not at all, and can be done later."""

    def write(name, first, count):
        rows = [
            {"key": f"test:{number}", "source": "test", "name": f"net {number} {PADDING}"}
            for number in range(first, count)
        ]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return tmp_path / name

    old, new = write("old.jsonl", 0, before), write("new.jsonl", before, 40)
    with contextlib.closing(Catalog(str(tmp_path / "empty.sqlite"))) as catalog:
        if before:
            catalog.import_table(old)
        assert catalog.query().count() == before
    full = 0
    for pages in itertools.count(1, 5):
        path = tmp_path / f"{pages}.sqlite"
        shutil.copy(tmp_path / "empty.sqlite", path)
        with contextlib.closing(Catalog(str(path))) as catalog:
            limit = path.stat().st_size // 4096 + pages
            sa.event.listen(
                catalog.database.engine, "checkout", lambda c, *_, n=limit: c.execute(f"PRAGMA max_page_count = {n}")
            )
            try:
                catalog.import_table(new)
            except (SecurityNetError, OSError) as error:
                full += 1
                assert "full" in str(error) or "No space left" in str(error)
                assert catalog.query().count() == before
            else:
                assert catalog.query().count() == 40
                break
        with sqlite3.connect(path) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        with contextlib.closing(Catalog(str(path))) as catalog:
            catalog.import_table(new)
            assert catalog.query().count() == 40
    assert full >= 3
