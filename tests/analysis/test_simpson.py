"""Simpson's paradox, constructed: within each dataset two quantities go against each other, pooled they go together."""

from __future__ import annotations

import numpy as np
import pandas
import pytest

from securitynet.analysis import prediction, securitynet_claims
from securitynet.analysis import quantities as q
from securitynet.analysis.figures import groups, points
from securitynet.analysis.figures.base import Figure
from securitynet.analysis.hypotheses.correlations import correlate
from securitynet.analysis.hypotheses.tested import decide_outcome
from securitynet.analysis.simpson import correlate_within_datasets, describe_mixed_signs

DATASETS = ("CIFAR-10", "SVHN", "ImageNet-1k")


@pytest.fixture(scope="module")
def paradox() -> pandas.DataFrame:
    """Thirty models: y falls with x in each dataset, and rises with it over all."""
    random = np.random.default_rng(0)
    x = np.concatenate([centre + np.linspace(-0.05, 0.05, 10) for centre in (0.3, 0.5, 0.7)])
    y = np.repeat([0.3, 0.5, 0.7], 10) - np.tile(np.linspace(-0.05, 0.05, 10), 3) + random.normal(0, 0.003, 30)
    assert np.corrcoef(x, y)[0, 1] > 0.9
    return pandas.DataFrame(
        {"case": [f"m{n}" for n in range(30)], "model": [f"m{n}" for n in range(30)], "x": x, "y": y,
         "dataset": np.repeat(DATASETS, 10), "family": [f"f{n % 10}" for n in range(30)], "architecture": None,
         "purpose": "benchmark", "year": np.tile(np.arange(2012, 2022), 3)}
    )  # fmt: skip


def test_a_scatter_plots_correlations_are_within_datasets_whatever_the_colour(paradox: pandas.DataFrame) -> None:
    by_dataset = points.correlate_groups(paradox, "x", "y", "dataset", list(DATASETS), "y against x")
    assert [row["group"] for row in by_dataset][-2:] == [points.WITHIN_GROUPS, points.POOLED]
    *within, pooled = by_dataset
    assert all(float(str(row["r"])) < -0.9 for row in within)
    assert float(str(pooled["r"])) > 0.9 and pooled["p"] is None  # shown, not tested
    by_purpose = points.correlate_groups(paradox, "x", "y", "purpose", ["benchmark"], "y against x")
    assert len(by_purpose) == 1 and float(str(by_purpose[0]["r"])) < -0.9


def test_a_caption_names_groups_that_contradict_each_other(paradox: pandas.DataFrame) -> None:
    turned = paradox.assign(y=paradox["y"].where(paradox["dataset"] != "SVHN", 2 * paradox["x"]))
    table = pandas.DataFrame(points.correlate_groups(turned, "x", "y", "dataset", list(DATASETS), "y against x"))
    table["p_adjusted"] = None
    figure = Figure("f", "Title", "new", {}, points.draw)
    assert "The signs differ: positive in SVHN, negative in CIFAR-10, ImageNet-1k." in points.write_correlation_caption(
        figure, table
    )
    alike = pandas.DataFrame(points.correlate_groups(paradox, "x", "y", "dataset", list(DATASETS), "y against x"))
    alike["p_adjusted"] = None
    assert "signs differ" not in points.write_correlation_caption(figure, alike)
    assert "Pooled over groups the correlation would be +0.9" in points.write_correlation_caption(figure, alike)


def test_a_caption_says_why_there_is_no_correlation(paradox: pandas.DataFrame) -> None:
    for rows, why in ((paradox.assign(y=0.5), "n = 30, no correlation, as a quantity does not vary"),
                      (paradox.head(3), "n = 3, too few for a correlation")):  # fmt: skip
        table = pandas.DataFrame(points.correlate_groups(rows, "x", "y", "dataset", list(DATASETS), "y against x"))
        table["p_adjusted"] = None
        assert why in points.write_correlation_caption(Figure("f", "Title", "new", {}, points.draw), table)


def test_a_trend_over_the_years_is_within_datasets(paradox: pandas.DataFrame) -> None:
    """Later models are of the harder dataset; within each, values fall with the year."""
    rows = paradox.assign(year=paradox["year"] + paradox["dataset"].map(dict(zip(DATASETS, (0, 20, 40), strict=True))))
    figure = Figure(
        "f", "Title", "new", {"y": q.STEALING_ACCURACY}, groups.draw, options={"by": "year", "ordered": True}
    )
    drawn = groups.draw(rows, rows, figure)
    assert "Spearman's ρ with year, within datasets: −" in drawn.caption
    assert "Pooled over groups the correlation would be +" in drawn.caption


def test_findings_are_within_datasets_and_say_where_signs_differ(paradox: pandas.DataFrame) -> None:
    found = correlate("x", "y")(paradox, 0.95)
    assert found.estimate.value < -0.9 and found.label == "within 3 datasets"
    ((label, pooled),) = found.beside
    assert label == "pooled over 3 datasets" and pooled.value > 0.9
    assert "Pooled over groups the correlation would be +0.9" in found.notes[0]
    turned = paradox.assign(y=paradox["y"].where(paradox["dataset"] != "SVHN", 2 * paradox["x"]))
    assert "positive in SVHN" in correlate("x", "y")(turned, 0.95).notes[0]


def test_a_pooled_claim_is_no_finding_if_only_three_datasets_carry_it(paradox: pandas.DataFrame) -> None:
    found = correlate("x", "y", estimand="pooled")(paradox, 0.95)
    assert found.estimate.low > 0.8, "over models alone it would be beyond doubt"
    verdict, note = decide_outcome(found, 1)
    assert verdict == "undecided" and "too few to tell it from chance" in note


def test_a_relation_of_both_purposes_is_more_than_a_difference_between_them(paradox: pandas.DataFrame) -> None:
    """Membership falls with the overfitting level of benchmark and of security models, and rises with it over both."""
    (claim,) = [claim for claim in securitynet_claims.CLAIMS if claim.name == "membership-both-purposes"]
    rows = paradox[paradox["dataset"] != "ImageNet-1k"]
    rows = rows.assign(purpose=rows["dataset"].map({"CIFAR-10": "benchmark", "SVHN": "security"}), dataset="CIFAR-10")
    found = claim.test(rows, 0.95)
    ((label, within),) = found.beside
    assert found.label == "pooled over 2 purposes" and found.estimate.low > 0.5
    assert label == "within 2 purposes" and within.high < -0.5
    assert decide_outcome(found, 1)[0] == "undecided"


def test_a_predictions_correlation_is_within_datasets() -> None:
    """Annotations tell datasets apart, and nothing within them."""
    random = np.random.default_rng(3)
    rows = pandas.DataFrame(
        {"case": [f"m{n}" for n in range(60)], "model": [f"m{n}" for n in range(60)], "architecture": None,
         "family": [f"f{n % 10}" for n in range(60)], "dataset": np.repeat(DATASETS, 20),
         "y": np.repeat([0.2, 0.5, 0.8], 20) + random.normal(0, 0.02, 60)}
    )  # fmt: skip
    for name in (*prediction.NUMBERS, *prediction.PLAIN_NUMBERS, *prediction.WORDS):
        rows[name] = rows["dataset"] if name == "dataset" else None
    found = prediction.predict_families(rows, "y")
    assert found is not None
    assert np.corrcoef(found.table["predicted"], found.table["actual"])[0, 1] > 0.95
    assert found.correlation.value < 0.3


def test_groups_by_hand() -> None:
    x, y = np.array([1.0, 2, 3, 4, 1, 2, 3, 4, 5, 7]), np.array([1.0, 2, 3, 4, 4, 3, 2, 1, 5, 5])
    codes = np.array([1, 1, 1, 1, 2, 2, 2, 2, 3, 3])
    found = correlate_within_datasets(x, y, codes, {1: "a", 2: "b", 3: "few"})
    assert [(group.group, group.n, round(group.r, 9)) for group in found] == [("a", 4, 1.0), ("b", 4, -1.0)]
    assert describe_mixed_signs([("a", 1.0), ("b", -1.0)]) == "The signs differ: positive in a, negative in b."
    assert describe_mixed_signs([("a", 0.5), ("b", 0.2)]) is None
    assert describe_mixed_signs([("a", -0.5), ("b", -0.2)], pooled=-0.9) is None
    sentence = describe_mixed_signs([("a", -0.5), ("b", -0.2)], pooled=0.694)
    assert sentence is not None and "+0.694" in sentence and "negative in every group" in sentence
    assert describe_mixed_signs([("a", np.nan)], pooled=0.5) is None
