"""Filters, sorting and paging, checked against the same questions asked in plain Python; on both databases."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from securitynet.catalog import store
from securitynet.catalog.catalog import Catalog
from securitynet.catalog.codebook import load_codebook
from securitynet.catalog.schema import CatalogEntry
from securitynet.catalog.store import Item
from securitynet.errors import ConfigurationError, UnknownName


def make(number: int) -> CatalogEntry:
    draw = random.Random(number)
    family = draw.choice(["ResNet", "VGG", "ConvNeXt V2", "EfficientViT (MIT)"])
    return CatalogEntry(
        key=f"test:{number}",
        source="test",
        name=f"{family.lower().split()[0]}{draw.choice([18, 50])}_{draw.choice(['aug', 'Größe', '模型'])}_{number}",
        family=family,
        dataset=draw.choice(["CIFAR-10", "CIFAR-100", "SVHN", None]),
        year=draw.choice([2015, 2016, 2020, None]),
        claimed_accuracy=draw.choice([0.5, 0.75, 0.9, round(draw.random(), 3), None]),
        elements=tuple(draw.sample(["attention", "dropout", "batch norm"], draw.randint(0, 2))),
        countries=tuple(draw.sample(["USA", "South Korea", "China"], draw.randint(0, 2))),
        affiliations=draw.choice([("Université 100%_", "MIT"), ("Université 100% x",), ()]),
        extra_data=draw.choice([True, False, None]),
        purpose=draw.choice(["benchmark", "security"]),
    )


ENTRIES = [make(number) for number in range(300)]


@pytest.fixture
def filled(catalog: Catalog) -> Catalog:
    with catalog.database.write() as connection:
        change = store.begin_change(connection, "import", "test")
        store.end_change(connection, change, store.upsert_entries(connection, change, "test", map(Item, ENTRIES)))
    return catalog


CASES: list[tuple[dict[str, object], Callable[[CatalogEntry], bool]]] = [
    ({"dataset": "cifar10"}, lambda e: e.dataset == "CIFAR-10"),
    ({"dataset": "CIFAR-10,svhn"}, lambda e: e.dataset in ("CIFAR-10", "SVHN")),
    ({"dataset": ["CIFAR-10", "SVHN"]}, lambda e: e.dataset in ("CIFAR-10", "SVHN")),
    ({"dataset": "!CIFAR-10"}, lambda e: e.dataset != "CIFAR-10"),
    ({"dataset": "none"}, lambda e: e.dataset is None),
    ({"dataset": "any"}, lambda e: e.dataset is not None),
    ({"family": "resnet"}, lambda e: e.family == "ResNet"),
    ({"family": "efficientvit (mit)"}, lambda e: e.family == "EfficientViT (MIT)"),
    ({"year": "2016"}, lambda e: e.year == 2016),
    ({"year": 2016}, lambda e: e.year == 2016),
    ({"year": "2015,2020"}, lambda e: e.year in (2015, 2020)),
    ({"year": "..2015,2020"}, lambda e: e.year in (2015, 2020)),
    ({"year": "!2015,2020"}, lambda e: e.year not in (2015, 2020)),
    ({"year": "..99999999999999999999999"}, lambda e: e.year is not None),
    ({"year": "99999999999999999999999"}, lambda e: False),
    ({"year": "2016.."}, lambda e: e.year is not None and e.year >= 2016),
    ({"year": "..2016"}, lambda e: e.year is not None and e.year <= 2016),
    ({"year": "2016..2019"}, lambda e: e.year is not None and 2016 <= e.year <= 2019),
    ({"year": "!2016..2019"}, lambda e: e.year is None or not 2016 <= e.year <= 2019),
    ({"claimed_accuracy": ">=0.75"}, lambda e: e.claimed_accuracy is not None and e.claimed_accuracy >= 0.75),
    ({"claimed_accuracy": "<0.75"}, lambda e: e.claimed_accuracy is not None and e.claimed_accuracy < 0.75),
    ({"claimed_accuracy": "0.5..0.9"}, lambda e: e.claimed_accuracy is not None and 0.5 <= e.claimed_accuracy <= 0.9),
    ({"elements": "attention"}, lambda e: "attention" in e.elements),
    ({"elements": "batch norm,dropout"}, lambda e: bool({"batch norm", "dropout"} & set(e.elements))),
    ({"elements": "!attention"}, lambda e: "attention" not in e.elements),
    ({"affiliations": "!Université 100%_"}, lambda e: "Université 100%_" not in e.affiliations),
    ({"affiliations": "Université 100%_"}, lambda e: "Université 100%_" in e.affiliations),
    ({"countries": "south korea"}, lambda e: "South Korea" in e.countries),
    ({"extra_data": "false"}, lambda e: e.extra_data is False),
    ({"extra_data": True}, lambda e: e.extra_data is True),
    ({"purpose": "!security"}, lambda e: e.purpose != "security"),
    ({"name": "vgg18_aug_1,VGG50_AUG_2"}, lambda e: e.name in ("vgg18_aug_1", "vgg50_aug_2")),
    ({"text": "resnet"}, lambda e: "resnet" in e.name),
    ({"text": "resnet50"}, lambda e: "resnet50" in e.name),
    ({"text": "ResNet 50 AUG"}, lambda e: "resnet50" in e.name and "aug" in e.name),
    ({"text": "GRÖSSE"}, lambda e: "Größe" in e.name),
    ({"text": "grosse"}, lambda e: "Größe" in e.name),
    ({"text": "模型"}, lambda e: "模型" in e.name),
    ({"text": "convn*"}, lambda e: e.family == "ConvNeXt V2"),
    ({"text": "convn"}, lambda e: e.family == "ConvNeXt V2"),
    ({"text": "zebra"}, lambda e: False),
    ({"text": "'; DROP TABLE entries --"}, lambda e: False),
    ({"text": 'vgg "aug" OR (x)'}, lambda e: False),
    (
        {"text": "aug", "dataset": "SVHN", "year": "2016..", "elements": "attention"},
        lambda e: "aug" in e.name and e.dataset == "SVHN" and (e.year or 0) >= 2016 and "attention" in e.elements,
    ),
]


def test_filters_give_what_plain_python_gives(filled: Catalog) -> None:
    seen = 0
    for arguments, keep in CASES:
        query = filled.query(**arguments)  # type: ignore[arg-type]
        expected = [entry.key for entry in ENTRIES if keep(entry)]
        assert [entry.key for entry in query] == expected, arguments
        assert query.count() == len(expected), arguments
        seen += bool(expected)
    assert seen >= len(CASES) - 5, "the cases must not be empty for want of matching entries"


@pytest.mark.parametrize("sort", ["year", "-year", "claimed_accuracy", "-claimed_accuracy", "-name", None])
def test_pages_join_to_the_whole_in_order(filled: Catalog, sort: str | None) -> None:
    query = filled.query("aug", purpose="benchmark", sort=sort)
    found, after, pages = [], None, 0
    while True:
        page = query.page(7, after)
        found += page.entries
        pages += 1
        after = page.after
        if after is None:
            break
    expected = [e for e in ENTRIES if "aug" in e.name and e.purpose == "benchmark"]
    if sort:
        code, down = sort.lstrip("-"), sort.startswith("-")
        known = [e for e in expected if getattr(e, code) is not None]
        if code == "name":
            known.sort(key=lambda e: e.name, reverse=True)
        else:
            # Equal ones stay in the order of entry, which turns round with the rest.
            known = sorted(known, key=lambda e: (getattr(e, code), int(e.key.partition(":")[2])), reverse=down)
        expected = known + [e for e in expected if getattr(e, code) is None]
    if sort == "-name":
        # Databases order other scripts' letters each in its way; the set and the paging are what counts.
        assert sorted(e.key for e in found) == sorted(e.key for e in expected)
    else:
        assert [e.key for e in found] == [e.key for e in expected]
    assert pages == -(-len(expected) // 7)


def test_many_matches_are_sorted_by_walking_the_index(filled: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = [e.key for e in filled.query("aug", sort="-claimed_accuracy")]
    monkeypatch.setattr("securitynet.catalog.query._SMALL_MATCH", 5)
    assert [e.key for e in filled.query("aug", sort="-claimed_accuracy")] == usual


def test_only_a_page_is_read(filled: Catalog) -> None:
    fetched: list[int] = []

    @sa.event.listens_for(filled.database.engine, "after_cursor_execute")
    def count(_connection: object, cursor: object, statement: str, *_: object) -> None:
        if "entries.name" in statement:  # whole rows, not numbers alone
            fetched.append(getattr(cursor, "rowcount", 0))

    if not filled.database.sqlite:
        filled.query(purpose="benchmark", sort="-year").page(10)
        assert fetched and max(fetched) <= 11, "the database handed over one page, and one row to know if there is more"
        return
    for sort in ("-year", None):
        steps = {}
        with filled.database.read() as connection:
            raw = connection.connection.driver_connection
            for limit in (5, 300):
                ticks: list[int] = []
                raw.set_progress_handler(lambda: ticks.append(1), 10)  # type: ignore[union-attr]  # noqa: B023
                filled.query(sort=sort)._rows(connection, limit, None)
                raw.set_progress_handler(None, 0)  # type: ignore[union-attr]
                steps[limit] = len(ticks)
        assert steps[5] * 10 < steps[300], "a short page costs a fraction of a full read"


def test_wrong_filters_say_what_is_wrong(sqlite_catalog: Catalog) -> None:
    with pytest.raises(UnknownName, match="dataset"):
        sqlite_catalog.query(datset="CIFAR-10")
    with pytest.raises(UnknownName, match="security"):
        sqlite_catalog.query(purpose="securty")
    with pytest.raises(ConfigurationError, match="no number"):
        sqlite_catalog.query(year="20x..")
    with pytest.raises(ConfigurationError, match="sorted by"):
        sqlite_catalog.query(sort="notes")
    with pytest.raises(ConfigurationError, match="mark of a page"):
        sqlite_catalog.query().page(5, "nonsense")


def test_codebook_covers_table_2() -> None:
    book = load_codebook()
    described = "task_type dataset topic_category training_size classes image_height venue venue_type year authors"
    table_2 = {*described.split(), "affiliations", "affiliation_types", "countries"}
    assert {name for name in table_2 if book[name].paper == "Table 2"} == table_2
    assert len(book["topic_category"].values) == 13
    assert all(info.meaning.endswith(".") for info in book.values())
    for info in book.values():
        if info.example:
            info.parse(info.example)


@pytest.mark.parametrize(
    "mark", ["x", "[{},1]", '["x",1]', "[2016,99999999999999999999999]", "[2016,true,1]", "[2016]"]
)
def test_marks_of_pages_that_no_page_gave(catalog: Catalog, mark: str) -> None:
    after = base64.urlsafe_b64encode(mark.encode()).decode()
    with pytest.raises(ConfigurationError, match="no mark of a page"):
        catalog.query(sort="year").page(5, after)


def test_a_mark_of_another_order_is_refused(filled: Catalog) -> None:
    after = filled.query(sort="year").page(5).after
    for other in ("name", None):
        with pytest.raises(ConfigurationError, match="no mark of a page"):
            filled.query(sort=other).page(5, after)
