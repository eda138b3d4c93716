"""Same weights under two names are counted once; what is not the same is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from securitynet.catalog import links, store
from securitynet.catalog.catalog import Catalog
from securitynet.catalog.export import export, export_records
from securitynet.catalog.schema import CatalogEntry
from securitynet.catalog.store import Item, Measured
from securitynet.errors import ConfigurationError


def put(catalog: Catalog, *given: CatalogEntry) -> int:
    with catalog.database.write() as connection:
        change = store.begin_change(connection, "collect", "test")
        tally = store.upsert_entries(connection, change, "test", map(Item, given))
        linked = links.link_duplicates(connection, change, tally.touched)
        store.end_change(connection, change, tally)
    return linked


def entry(key: str, **codes: object) -> CatalogEntry:
    source, _, name = key.partition(":")
    return CatalogEntry(**{"key": key, "source": source, "name": name, **codes})


def standing(catalog: Catalog) -> dict[str, str | None]:
    keys = {e.id: e.key for e in catalog.query(duplicates=True)}
    return {key: keys.get(catalog.details(key).duplicate_of or "") for key in keys.values()}


def test_rules(sqlite_catalog: Catalog) -> None:
    file = "https://example.org/weights/a.pth"
    given = [
        entry("timm:a", checksum="sha256:11111111", classes=10),
        entry("torchvision:a", checksum="sha256:11111111", classes=10),
        entry("timm:other-head", checksum="sha256:11111111", classes=1000),
        entry("someone:copy", weights_link=file),
        entry("hf:copy", weights_link=file),
        entry("someone:page-1", weights_link="https://zenodo.org/records/10519652"),
        entry("someone:page-2", weights_link="https://zenodo.org/records/10519652"),
        entry("securitynet:b", reference="pytorchcv:b"),
        entry("pytorchcv:b", reference="pytorchcv:b"),
        entry("timm:vgg11.tv_in1k", classes=1000),
        entry("torchvision:vgg11@IMAGENET1K_V1", checksum="sha256:22222222", classes=1000),
        entry("timm:vgg13.tv_in1k", checksum="sha256:33333333", classes=1000),
        entry("torchvision:vgg13@IMAGENET1K_V1", checksum="sha256:44444444", classes=1000),
    ]
    # One after the other, in either order: the outcome is the same.
    for one in given:
        put(sqlite_catalog, one)
    assert {key: other for key, other in standing(sqlite_catalog).items() if other} == {
        "timm:a": "torchvision:a",
        "someone:copy": "hf:copy",
        "securitynet:b": "pytorchcv:b",
        "timm:vgg11.tv_in1k": "torchvision:vgg11@IMAGENET1K_V1",
    }
    assert put(sqlite_catalog, *given) == 0, "nothing new the second time"
    assert sqlite_catalog.query().count() == len(given) - 4


def test_order_makes_no_difference(tmp_path: object) -> None:
    given = [
        entry(f"{source}:x", checksum="sha256:aaaaaaaa") for source in ("someone", "timm", "torchvision", "pytorchcv")
    ]
    found = []
    for order in (given, given[::-1]):
        with Catalog("sqlite://") as catalog:
            for one in order:
                put(catalog, one)
            found.append(standing(catalog))
    assert found[0] == found[1]
    assert set(found[0].values()) == {None, "torchvision:x"}


def test_chains_have_one_chief(sqlite_catalog: Catalog) -> None:
    file = "https://example.org/a.pth"
    put(
        sqlite_catalog,
        entry("timm:a", checksum="sha1:1"),
        entry("hf:b", checksum="sha1:1", weights_link=file),
        entry("me:c", weights_link=file),
    )
    assert standing(sqlite_catalog) == {"timm:a": None, "hf:b": "timm:a", "me:c": "timm:a"}


def test_by_hand_goes_before_rules(sqlite_catalog: Catalog) -> None:
    a, b = entry("timm:a", checksum="sha1:1"), entry("hf:b", checksum="sha1:1")
    put(sqlite_catalog, a, b)
    sqlite_catalog.link("hf:b", None, note="another head")
    put(sqlite_catalog, b.model_copy(update={"year": 2020}))
    assert standing(sqlite_catalog)["hf:b"] is None
    sqlite_catalog.link("hf:b", "timm:a", note="the same after all")
    assert standing(sqlite_catalog)["hf:b"] == "timm:a"
    assert [state.note for state in sqlite_catalog.history("hf:b")][-1] == "the same after all"


def test_measurements_of_duplicates_count_for_the_chief(sqlite_catalog: Catalog) -> None:
    put(sqlite_catalog, entry("securitynet:b", reference="pytorchcv:b"), entry("pytorchcv:b", reference="pytorchcv:b"))
    sqlite_catalog.record("securitynet:b", [Measured("accuracy.test", 0.9, "published", "a paper")])
    assert sqlite_catalog.details("pytorchcv:b").measured[0].value == 0.9
    assert sqlite_catalog.to_frame().set_index("key").loc["pytorchcv:b", "accuracy.test"] == 0.9


def test_by_hand_makes_no_chains(sqlite_catalog: Catalog) -> None:
    put(sqlite_catalog, *(entry(f"s:{name}") for name in "abc"))
    sqlite_catalog.link("s:c", "s:b")
    sqlite_catalog.link("s:b", "s:a")
    assert standing(sqlite_catalog) == {"s:a": None, "s:b": "s:a", "s:c": "s:a"}


def test_a_withdrawn_entry_stands_for_none(sqlite_catalog: Catalog) -> None:
    same = {"checksum": "sha256:11111111", "classes": 10}
    put(sqlite_catalog, entry("torchvision:a", **same), entry("timm:a", **same), entry("x:a", **same), entry("y:a"))
    sqlite_catalog.link("y:a", "torchvision:a")
    sqlite_catalog.withdraw("torchvision:a", note="broken file")
    assert standing(sqlite_catalog) == {"timm:a": None, "x:a": "timm:a", "y:a": None}, "none is gone with it"
    with pytest.raises(ConfigurationError, match="cannot stand"):
        sqlite_catalog.link("y:a", "torchvision:a")
    sqlite_catalog.withdraw("torchvision:a", note="mended", restore=True)
    assert standing(sqlite_catalog)["x:a"] == "torchvision:a"


def test_export_and_import_count_what_was_measured_on_a_duplicate_once(catalog: Catalog, tmp_path: Path) -> None:
    published = Measured("accuracy.test", 0.9, "published", "https://example.org")
    with catalog.database.write() as connection:
        change = store.begin_change(connection, "import", "test")
        items = [Item(entry("pytorchcv:b", reference="pytorchcv:b")),
                 Item(entry("table:b", reference="pytorchcv:b"), measured=(published,))]  # fmt: skip
        tally = store.upsert_entries(connection, change, "test", items)
        links.link_duplicates(connection, change, tally.touched)
    (record,) = export_records(catalog.database, catalog.query())
    assert [(m["name"], m["value"]) for m in record["measurements"]] == [("accuracy.test", 0.9)]
    both = {r["key"]: len(r["measurements"]) for r in export_records(catalog.database, catalog.query(duplicates=True))}
    assert both == {"pytorchcv:b": 0, "table:b": 1}
    path = tmp_path / "out.jsonl"
    assert export(catalog.database, catalog.query(), path) == 1
    report = catalog.import_table(path)
    assert (report.entries.changed, report.entries.measurements) == (0, 0), "back into the same catalog: nothing new"
    with Catalog(str(tmp_path / "other.sqlite")) as other:
        other.import_table(path)
        assert other.to_frame().set_index("key").loc["pytorchcv:b", "accuracy.test"] == 0.9
