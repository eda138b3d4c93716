"""SIGKILL in the middle, and two processes at once: nothing is lost, nothing is half there."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import sqlalchemy as sa

import securitynet.catalog
from command_line import Script, run_script
from securitynet.catalog.catalog import Catalog
from securitynet.catalog.database import CatalogError
from securitynet.catalog.tables import changes, entries, measurements, provenance, revisions

# Writes a table slowly: it says on stdout when a part has been written inside its open transaction.
SLOW = """
import sys, time
import securitynet.catalog
from command_line import Script, run_script
from securitynet.catalog import store

url, location, kind = sys.argv[1:]
real = store._upsert_batch
count = 0

def slow(*arguments):
    global count
    real(*arguments)
    count += 1
    print(count, flush=True)
    time.sleep({pause})

store._upsert_batch = slow
store._BATCH = 100
catalog = securitynet.catalog.open(url)
if kind == "import":
    catalog.import_table(location)
else:
    catalog.collect("pytorchcv")
print("done", flush=True)
"""


def start(url: str, location: Path, kind: str, pause: float) -> Script:
    return Script(SLOW.replace("{pause}", str(pause)), url, location, kind)


def contents(url: str) -> dict[str, int]:
    with securitynet.catalog.open(url) as catalog, catalog.database.read() as connection:
        tables = (entries, provenance, measurements, changes, revisions)
        found = {t.name: connection.execute(sa.select(sa.func.count()).select_from(t)).scalar_one() for t in tables}
        if catalog.database.sqlite:
            assert connection.execute(sa.text("PRAGMA integrity_check")).scalar_one() == "ok"
            connection.execute(sa.text("SELECT count(*) FROM entry_text WHERE entry_text MATCH 'resnet'")).scalar_one()
    return found


@pytest.mark.parametrize("kind", ["import", "collect"])
def test_kill_midway_then_run_again(url: str, published: Path, kind: str) -> None:
    with securitynet.catalog.open(url) as catalog:
        before = catalog.add({"name": "was there before"})
    process = start(url, published, kind, pause=30)
    assert process.stdout.readline() == "1\n", "a part has been written, not committed"
    process.kill()
    assert contents(url) == {"entries": 1, "provenance": 1, "measurements": 0, "changes": 1, "revisions": 0}
    with securitynet.catalog.open(url) as catalog:
        if kind == "import":
            catalog.import_table(published)
        else:
            catalog.collect("pytorchcv")
        assert catalog.get(before.key) == before
    found = contents(url)
    assert found["entries"] == found["provenance"] == 1 + {"import": 529, "collect": 539}[kind]


def test_two_processes_import_at_once(url: str, published: Path) -> None:
    # Neither finds any tables: they race to make them, too.
    both = [start(url, published, "import", pause=0.01) for _ in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    found = contents(url)
    assert found["entries"] == 529 and found["measurements"] == 3497
    assert found["changes"] == 1, "the second found everything as it should be"


def test_readers_go_on_while_one_writes(url: str, published: Path) -> None:
    with securitynet.catalog.open(url) as catalog:
        catalog.add({"name": "was there before"})
        process = start(url, published, "import", pause=0.2)
        assert process.stdout.readline() == "1\n"
        began = time.perf_counter()
        assert catalog.query().count() == 1, "what is not committed is not seen"
        assert time.perf_counter() - began < 0.5
        assert process.wait(timeout=120) == 0
        assert catalog.query().count() == 530


def test_a_writer_that_does_not_end_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("securitynet.catalog.database.WAIT_SECONDS", 0.2)
    path = str(tmp_path / "catalog.sqlite")
    with Catalog(path) as first, Catalog(path) as second, first.database.write():
        with pytest.raises(CatalogError, match=r"could not be written.*locked"):
            second.add({"name": "waits in vain"})
        assert second.query().count() == 0


def test_killed_while_the_tables_are_made(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'catalog.sqlite'}"
    code = (
        "import os, signal, sqlalchemy as sa, securitynet.catalog\n"
        "from alembic import op\n"
        "real = op.create_index\n"
        "count = iter(range(100))\n"
        "def create_index(*a, **k):\n"
        "    real(*a, **k)\n"
        "    if next(count) == 4: os.kill(os.getpid(), signal.SIGKILL)\n"
        "op.create_index = create_index\n"
        f"securitynet.catalog.open({url!r})\n"
    )
    assert run_script(code) == -9
    with Catalog(url) as catalog:
        assert catalog.query().count() == 0
