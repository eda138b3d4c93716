"""Writing and reading: idempotence, history, corrections that stay, on both kinds of database."""

from __future__ import annotations

import datetime
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import securitynet.catalog
from securitynet.catalog import store
from securitynet.catalog.catalog import Catalog
from securitynet.catalog.database import CatalogError, Database, find_newest_revision
from securitynet.catalog.history import state_at
from securitynet.catalog.schema import CatalogEntry
from securitynet.catalog.store import Item, Measured
from securitynet.catalog.tables import changes, entries, measurements, metadata, revisions
from securitynet.errors import ConfigurationError, UnknownName


def entry(name: str = "resnet20", **codes: object) -> CatalogEntry:
    return CatalogEntry(**{"key": f"test:{name}", "source": "test", "name": name, "dataset": "CIFAR-10", **codes})


def put(catalog: Catalog, *items: Item, source: str = "library 1.0") -> store.Tally:
    with catalog.database.write() as connection:
        change = store.begin_change(connection, "collect", source)
        tally = store.upsert_entries(connection, change, source, items)
        store.end_change(connection, change, tally)
    return tally


def rows(catalog: Catalog, table: sa.Table) -> list[sa.RowMapping]:
    with catalog.database.read() as connection:
        return list(connection.execute(sa.select(table)).mappings())


def test_migrations_make_the_tables_that_the_code_declares(catalog: Catalog) -> None:
    with catalog.database.read() as connection:
        context = MigrationContext.configure(connection, opts={"include_name": _declared})
        differences = compare_metadata(context, metadata)
    # Search indexes are made by hand in the migration; every column, table and other index must match.
    assert [d for d in differences if "entry_text" not in str(d) and "ix_entries_search" not in str(d)] == []


def test_the_newest_migration_is_the_one_whose_file_has_the_largest_number() -> None:
    config = Config()
    config.set_main_option("script_location", "securitynet.catalog:migrations")
    assert find_newest_revision() == ScriptDirectory.from_config(config).get_current_head()


def test_opening_a_catalog_of_todays_tables_loads_no_alembic(tmp_path: Path) -> None:
    path = str(tmp_path / "catalog.sqlite")
    Catalog(path).close()
    code = f"import sys, securitynet.catalog as c; c.open({path!r}); assert 'alembic' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def _declared(name: str | None, kind: str, _parents: object) -> bool:
    return kind != "table" or name in metadata.tables


def test_same_items_again_change_nothing(catalog: Catalog) -> None:
    item = Item(entry(elements=("attention", "dropout"), preprocessing={"mean": (0.5,), "input_size": [3, 32, 32]}))
    assert put(catalog, item).added == 1
    again = put(catalog, item, source="library 2.0")
    assert (again.added, again.changed, again.unchanged) == (0, 0, 1)
    assert len(rows(catalog, changes)) == 1, "a change that did nothing leaves no record"
    assert catalog.get("test:resnet20") == item.entry


def test_update_keeps_the_state_before(catalog: Catalog) -> None:
    put(catalog, Item(entry(year=2015)))
    put(catalog, Item(entry(year=2016, license="mit")), source="library 2.0")
    assert catalog.get("resnet20").year == 2016
    first, second = catalog.history("resnet20")
    assert (first.entry.year, first.entry.license, first.source) == (2015, None, "library 1.0")
    assert second.differences == {"year": (2015, 2016), "license": (None, "mit")}
    assert second.sources["year"] == "library 2.0" and second.sources["dataset"] == "library 1.0"
    assert first.time < second.time


def test_state_at_a_time(catalog: Catalog) -> None:
    put(catalog, Item(entry(year=2015)))
    between = datetime.datetime.now(datetime.timezone.utc).isoformat()
    put(catalog, Item(entry(year=2016)))
    states = catalog.history("resnet20")
    past, present = state_at(states, between), state_at(states, "2999-01-01")
    assert past is not None and past.entry.year == 2015
    assert present is not None and present.entry.year == 2016
    assert state_at(states, "2000-01-01") is None
    with pytest.raises(ConfigurationError, match="no time"):
        state_at(states, "yesterday")


def test_what_a_person_corrected_is_kept_by_machines(catalog: Catalog) -> None:
    put(catalog, Item(entry(year=2015)))
    catalog.edit("resnet20", {"year": "2016"}, note="the venue's year")
    tally = put(catalog, Item(entry(year=2015, license="mit")), source="library 2.0")
    assert tally.kept == 1
    found = catalog.details("resnet20")
    assert (found.entry.year, found.entry.license) == (2016, "mit")
    assert found.sources["year"].startswith("person:")
    assert [state.kind for state in catalog.history("resnet20")] == ["collect", "edit", "collect"]


def test_edit_checks_values_and_clears(catalog: Catalog) -> None:
    put(catalog, Item(entry(year=2015)))
    with pytest.raises(ConfigurationError, match="claimed_accuracy"):
        catalog.edit("resnet20", {"claimed_accuracy": "91.7"})
    with pytest.raises(UnknownName, match="benchmark"):
        catalog.edit("resnet20", {"purpose": "benchmrk"})
    with pytest.raises(ConfigurationError, match="never changes"):
        catalog.edit("resnet20", {"key": "x"})
    catalog.edit("resnet20", {"year": ""})
    assert catalog.get("resnet20").year is None
    assert len(catalog.history("resnet20")) == 2


def test_add_withdraw_and_restore(catalog: Catalog) -> None:
    added = catalog.add({"name": "mine", "dataset": "cifar10", "architecture": "resnet20"})
    assert (added.dataset, added.family, added.classes) == ("CIFAR-10", "ResNet", 10)
    with pytest.raises(ConfigurationError, match="already"):
        catalog.add({"name": "mine", "dataset": "CIFAR-10", "key": added.key})
    catalog.withdraw("mine", note="weights are gone")
    assert catalog.query().count() == 0
    assert catalog.query(withdrawn=True).count() == 1
    assert catalog.details("mine").withdrawn
    catalog.withdraw("mine", note="they are back", restore=True)
    assert catalog.query().count() == 1
    assert [state.note for state in catalog.history("mine")] == [None, "weights are gone", "they are back"]


def test_measurements_are_rows_that_say_who_measured_them(catalog: Catalog) -> None:
    paper, trial = "https://arxiv.org/abs/2310.12665", "0" * 32
    put(catalog, Item(entry(), measured=(Measured("accuracy.test", 0.9, "published", paper),)))
    assert catalog.record("resnet20", [Measured("accuracy.test", 0.91, "trial", trial, 0.90, 0.92)]) == 1
    assert catalog.record("resnet20", [Measured("accuracy.test", 0.91, "trial", trial, 0.90, 0.92)]) == 0
    assert catalog.record("resnet20", [Measured("accuracy.test", 0.92, "trial", trial)]) == 1
    assert {(m.value, m.measured_by) for m in catalog.details("resnet20").measured} == {
        (0.9, "published"),
        (0.92, "trial"),
    }
    kept = rows(catalog, measurements)
    assert len(kept) == 3 and sum(row["ended"] is not None for row in kept) == 1, "the old value is kept, ended"
    frame = catalog.to_frame()
    assert frame["accuracy.test"].tolist() == [0.92], "our own measurement goes before a published one"


def test_an_error_writes_nothing(catalog: Catalog) -> None:
    with pytest.raises(RuntimeError, match="on purpose"), catalog.database.write() as connection:
        change = store.begin_change(connection, "import", "x")
        store.upsert_entries(connection, change, "x", [Item(entry())])
        raise RuntimeError("on purpose")
    assert rows(catalog, entries) == [] and rows(catalog, changes) == [] and rows(catalog, revisions) == []


def test_identifiers(catalog: Catalog) -> None:
    put(
        catalog,
        Item(entry("a", reference="timm:a")),
        Item(entry("twin")),
        Item(entry("twin", key="test:other", dataset="SVHN")),
    )
    found = catalog.get("a")
    assert all(
        catalog.get(text) == found for text in (found.id, found.id[:8], found.key, "timm:a", f"catalog:{found.id}")
    )
    with pytest.raises(ConfigurationError, match="2 entries"):
        catalog.get("twin")
    with pytest.raises(CatalogError, match="no catalog entry"):
        catalog.get("zzz")
    with pytest.raises(UnknownName, match="twin"):
        catalog.get("twinn")


def test_a_file_of_something_else_is_refused(tmp_path: object) -> None:
    import sqlite3
    from pathlib import Path

    path = Path(str(tmp_path)) / "other.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE songs (title TEXT)")
    with pytest.raises(CatalogError, match="something else"):
        Database(str(path))
    text = Path(str(tmp_path)) / "notes.txt"
    text.write_text("no database at all, but long enough to be looked at" * 100)
    with pytest.raises(CatalogError, match="cannot be opened"):
        Database(str(text))
    with pytest.raises(ConfigurationError, match="SQLite or PostgreSQL"):
        Database("mysql://nobody@localhost/x")


def test_opening_needs_no_torch() -> None:
    import subprocess
    import sys

    code = (
        "import sys, securitynet.catalog; assert 'sqlalchemy' not in sys.modules; securitynet.catalog.open('sqlite://');"
        "assert not {'torch', 'timm', 'torchvision'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_in_memory_is_usable() -> None:
    with securitynet.catalog.open("sqlite://") as catalog:
        catalog.add({"name": "mine"})
        assert catalog.query().count() == 1
