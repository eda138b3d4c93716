"""The page's search against the catalog's own queries: the same entries in the same order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import securitynet.catalog
from securitynet.analysis import statistics
from securitynet.catalog.catalog import Catalog
from securitynet.web.column_store import list_rows
from securitynet.web.plot import compute_clustered_pearson
from securitynet.web.search import Search
from securitynet.web.state import State
from web_catalog import fill

STATES = [
    State(),
    State(text="net1*"),
    State(text="resnet"),
    State(text="cifar"),
    State(filters={"dataset": ("cifar10",)}),
    State(filters={"dataset": ("CIFAR-10", "SVHN"), "year": ("2014..2016",)}),
    State(filters={"dataset": ("CIFAR-10,SVHN",)}),
    State(filters={"dataset": ("!SVHN",)}),
    State(filters={"countries": ("China",), "purpose": ("security",)}),
    State(filters={"countries": ("!China",)}),
    State(filters={"countries": ("any",)}),
    State(filters={"countries": ("none",)}),
    State(filters={"year": ("none",)}),
    State(filters={"year": ("!2014",)}),
    State(filters={"year": ("2014,2016..2017",)}),
    State(filters={"year": (">=2016",), "family": ("vgg",)}),
    State(filters={"year": ("2013", "2014")}),
    State(filters={"venue": ("any",)}),
    State(filters={"family": ("none",)}),
    State(filters={"claimed_accuracy": ("0.6..",), "parameters": ("..1e6",)}),
    State(filters={"name": ("net5",)}),
]


@pytest.mark.parametrize("sort", ["", "year", "-year", "name", "-name", "dataset", "-claimed_accuracy"])
def test_the_same_as_the_catalogs_queries(filled: tuple[str, list[str]], sort: str) -> None:
    with securitynet.catalog.open(filled[0]) as catalog:
        search = Search(catalog)
        for state in STATES:
            asked = State(state.text, state.filters, sort)
            expected = [entry.id for entry in search.make_query(asked)]
            matches, numbers = search.find_page(asked, 200)
            assert matches.total == len(expected) and [row.id for row in search.read_rows(numbers)] == expected, asked
            _, second = search.find_page(replace(asked, page=2), 7)
            assert [entry.id for entry in search.read_entries(second)] == expected[7:14], asked


def test_facets_count_as_if_nothing_of_them_were_chosen(filled: tuple[str, list[str]]) -> None:
    with securitynet.catalog.open(filled[0]) as catalog:
        search = Search(catalog)
        state = State("net*", {"dataset": ("SVHN",), "countries": ("China",)})
        for facet in search.snapshot.count_facets(state):
            for choice in (*facet.choices, *facet.more):
                alone = state.without(facet.name)
                asked = State(alone.text, {**alone.filters, facet.name: (choice.value,)})
                assert search.make_query(asked).count() == choice.count, (facet.name, choice.value)
            assert all(choice.chosen for choice in facet.choices if choice.value in state.filters.get(facet.name, ()))


def test_facets_counted_together_have_the_counts_of_each(filled: tuple[str, list[str]]) -> None:
    with securitynet.catalog.open(filled[0]) as catalog:
        columns = Search(catalog).snapshot.columns
        rows = np.arange(0, 40, 3)
        counts = columns.count_facets(rows)
        assert list(counts) and all(
            counts[name].tolist() == columns.facets[name].count(rows).tolist() for name in counts
        )
        assert sum(counts["dataset"]) == len(rows)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.5, 1.0])
def test_rows_of_a_mask(share: float) -> None:
    mask = np.random.default_rng(1).random(10_003) < share
    assert list_rows(np.packbits(mask), len(mask)).tolist() == np.flatnonzero(mask).tolist()


def test_on_every_database(catalog: Catalog) -> None:
    ids = fill(catalog)
    search = Search(catalog)
    for state in STATES:
        expected = [entry.id for entry in search.make_query(state)]
        assert [row.id for row in search.read_rows(search.find_page(state, 200)[1])] == expected, state
    catalog.edit(ids[3], {"dataset": "MNIST"})
    catalog.withdraw(ids[4], note="gone")
    search.refresh()
    assert search.snapshot.match(State(filters={"dataset": ("MNIST",)})).total == 1
    assert search.snapshot.match(State()).total == 40
    assert np.isclose(search.snapshot.columns.numeric["stealing.accuracy"][0], 0.9)


def test_correlation_from_sums_is_that_of_models() -> None:
    random = np.random.default_rng(3)
    clusters = random.integers(0, 9, 400)
    x = random.normal(size=400) + clusters
    y = 0.4 * x + random.normal(size=400) * 2
    ours = compute_clustered_pearson(x, y, clusters)
    slow = statistics.estimate_correlation(x, y, clusters=clusters, resamples=500)
    assert (ours.n, ours.clusters) == (slow.n, slow.clusters)
    assert np.allclose([ours.value, ours.low, ours.high], [slow.value, slow.low, slow.high], atol=1e-9)
    noise = compute_clustered_pearson(x, random.normal(size=400), clusters)
    assert noise.low < 0 < noise.high
