"""Same weights under two names are counted once; what is not the same is not."""

from __future__ import annotations

from securitynet.catalog import links, store
from securitynet.catalog.catalog import Catalog
from securitynet.catalog.schema import CatalogEntry
from securitynet.catalog.store import Item, Measured


def put(catalog: Catalog, *given: CatalogEntry) -> int:
    with catalog.database.write() as connection:
        change = store.begin_change(connection, "collect", "test")
        tally = store.upsert(connection, change, "test", map(Item, given))
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
