"""Leaderboards: what others published and trials reproduced, side by side, the most robust first."""

from __future__ import annotations

import pytest

from securitynet.catalog.catalog import Catalog
from securitynet.catalog.leaderboard import list_leaderboards, make_leaderboard
from securitynet.catalog.names import tell_apart
from securitynet.catalog.store import Measured
from securitynet.errors import ConfigurationError


@pytest.fixture
def catalog() -> Catalog:
    """Two models of one name, and one that only trials attacked."""
    made = Catalog("sqlite://")
    published = {
        "a:strong": ("net", {"accuracy.test": 0.9, "accuracy.threat=Linf.reported": 0.6,
                             "accuracy.threat=Linf.autoattack": 0.55, "accuracy.threat=Linf.best-known": 0.54}),
        "b:weak": ("net", {"accuracy.test": 0.95, "accuracy.threat=Linf.reported": 0.8,
                           "accuracy.threat=Linf.autoattack": 0.2, "accuracy.threat=Linf.best-known": 0.1}),
        "c:own": ("own", {}),
    }  # fmt: skip
    for key, (name, values) in published.items():
        codes = {"key": key, "name": name, "source": key[0], "dataset": "CIFAR-10", "claimed_accuracy": 0.7}
        entry = made.add(codes)
        made.record(entry.id, [Measured(n, value, "published", "https://x.example") for n, value in values.items()])
    trials = {
        "evasion.pgd.robust-accuracy@epsilon=0.03": 0.3,
        "evasion.fgsm.robust-accuracy@epsilon=0.01": 0.5,
        "evasion.pgd.robust-accuracy@epsilon=0.1": 0.0,  # a larger perturbation says nothing about a smaller one
        "evasion.pgd.success@epsilon=0.03": 0.1,
    }
    for key in ("a:strong", "c:own"):
        made.record(made.get(key).id, [Measured(name, value, "trial", "t") for name, value in trials.items()])
    return made


def test_columns_say_who_says_what_and_the_lowest_known_value_decides(catalog: Catalog) -> None:
    board = make_leaderboard(catalog, "cifar10")
    assert [row.label for row in board.rows] == ["net (a)", "own", "net (b)"]
    strong, own, weak = board.rows
    assert strong.values == {
        "clean": 0.9, "reported": 0.6, "standard": 0.55, "best_known": 0.54, "reproduced": 0.3,
    }  # fmt: skip
    assert (strong.epsilon, board.epsilon) == (0.03, pytest.approx(8 / 255))
    assert own.values["clean"] == 0.7 and own.values["reported"] is None and own.values["reproduced"] == 0.3
    assert weak.values["reproduced"] is None and weak.epsilon is None
    assert list_leaderboards(catalog) == [("CIFAR-10", "Linf", 3)]


def test_a_trial_lowers_a_number_and_the_order(catalog: Catalog) -> None:
    entry = catalog.get("a:strong")
    catalog.record(entry.id, [Measured("evasion.auto-attack.robust-accuracy@epsilon=0.031", 0.05, "trial", "new")])
    board = make_leaderboard(catalog, "CIFAR-10")
    assert [row.label for row in board.rows] == ["own", "net (b)", "net (a)"]
    assert board.rows[2].values["reproduced"] == 0.05


def test_what_was_not_measured_is_no_zero_and_threats_are_named(catalog: Catalog) -> None:
    assert make_leaderboard(catalog, "CIFAR-10", "L2").rows == ()
    assert make_leaderboard(catalog, "SVHN").rows == ()
    with pytest.raises(ConfigurationError, match="no leaderboard for 'L0'"):
        make_leaderboard(catalog, "CIFAR-10", "L0")


def test_robustbench_gives_the_published_order() -> None:
    with Catalog("sqlite://") as made:
        made.collect("robustbench")
        offered = {(dataset, threat): count for dataset, threat, count in list_leaderboards(made)}
        board = make_leaderboard(made, "CIFAR-10")
        assert offered["CIFAR-10", "Linf"] == len(board.rows) > 80
        assert offered["ImageNet-1k", "corruptions"] >= 10
        last = [row for row in board.rows if row.label.startswith("Standard")]
        assert last[0].values["best_known"] == 0.0 and last[0] in board.rows[-5:]
        values = [row.values["best_known"] for row in board.rows]
        assert values == sorted(values, reverse=True)
        assert len({row.label for row in board.rows}) == len(board.rows)


def test_equal_names_are_told_apart_by_what_differs() -> None:
    rows = [
        {"id": "1", "key": "r:Linf:S", "name": "S", "dataset": "CIFAR-10", "threat": "Linf"},
        {"id": "2", "key": "r:L2:S", "name": "S", "dataset": "CIFAR-10", "threat": "L2"},
        {"id": "3", "key": "t:T", "name": "T"},
        {"id": "4", "key": "a:U", "name": "U", "dataset": "SVHN"},
        {"id": "5", "key": "b:U", "name": "U", "dataset": "SVHN"},
    ]
    assert tell_apart(rows) == {"1": "S (Linf)", "2": "S (L2)", "3": "T", "4": "U (a)", "5": "U (b)"}
