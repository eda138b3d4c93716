"""Tests of claims: constructed cases whose truth is known, false alarms where nothing is there, what is missing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas
import pytest

from securitynet.analysis import claims, findings, frames
from securitynet.analysis import quantities as q
from securitynet.analysis.figures.declared import find_figure
from securitynet.analysis.hypotheses.claim import Claim
from securitynet.analysis.hypotheses.correlations import correlate, correlate_datasets
from securitynet.analysis.hypotheses.defenses import compare_defenses, compare_with_undefended
from securitynet.analysis.hypotheses.differences import (
    compare_all_groups,
    compare_groups,
    compare_groups_adjusted,
    compare_groups_relative,
    compare_relative,
    compare_values,
)
from securitynet.analysis.hypotheses.shares import average, average_ratio, compare_means, measure_share
from securitynet.analysis.hypotheses.tested import Test, decide_none, decide_outcome

Make = Callable[[float, np.random.Generator], pandas.DataFrame]
SIMULATIONS = 10


def models(random: np.random.Generator, datasets: int = 4, each: int = 12) -> pandas.DataFrame:
    """Models of six families on several datasets, with noise ``x`` and ``y``, each with an effect of the dataset."""
    n = datasets * each
    rows = pandas.DataFrame(
        {"case": [f"m{i}" for i in range(n)], "model": "m", "architecture": None, "epochs": 10, "seed": np.arange(n),
         "family": [f"f{i % 6}" for i in range(n)], "dataset": np.repeat([f"d{i}" for i in range(datasets)], each),
         "defense": None, "teacher": None, "setting": None, "epsilon": None}
    )  # fmt: skip
    for name in ("x", "y"):
        of_dataset = np.repeat(random.normal(0, 0.05, datasets), each)
        rows[name] = 0.5 + of_dataset + random.normal(0, 0.03, n)
    return rows


def with_slope(effect: float, random: np.random.Generator) -> pandas.DataFrame:
    rows = models(random)
    within = rows["x"] - rows.groupby("dataset")["x"].transform("mean")
    return rows.assign(y=rows["y"] + effect * within)


def with_slope_everywhere(effect: float, random: np.random.Generator) -> pandas.DataFrame:
    rows = models(random)
    return rows.assign(y=rows["y"] + effect * rows["x"])


def of_datasets(effect: float, random: np.random.Generator) -> pandas.DataFrame:
    rows = models(random, datasets=12, each=4)
    rows["x"] = np.repeat(np.arange(12), 4) / 12
    return rows.assign(y=rows["y"] + effect * rows["x"])


def with_second(effect: float, random: np.random.Generator) -> pandas.DataFrame:
    rows = models(random)
    return rows.assign(y=rows["x"] + effect + random.normal(0, 0.03, len(rows)))


def in_two_groups(effect: float, random: np.random.Generator) -> pandas.DataFrame:
    rows = models(random, datasets=1, each=60)
    second = np.arange(60) % 2 == 1
    family = [f"{'b' if late else 'a'}{i % 7}" for i, late in enumerate(second)]
    return rows.assign(group=np.where(second, "b", "a"), family=family, y=rows["y"] + effect * second)


def at_equal_covariate(effect: float, random: np.random.Generator) -> pandas.DataFrame:
    """The groups differ in x, and y follows x in both: their means of y differ although nothing does at equal x."""
    rows = in_two_groups(0.0, random)
    second = rows["group"] == "b"
    x = rows["x"] + 0.02 * second
    return rows.assign(x=x, y=0.5 + x + random.normal(0, 0.02, len(rows)) + effect * second)


def with_defense(effect: float, random: np.random.Generator) -> pandas.DataFrame:
    plain = models(random, datasets=2, each=10).assign(architecture="a", seed=np.tile(np.arange(10), 2))
    defended = plain.assign(defense="dp-sgd", case=plain["case"] + "d", x=plain["x"] + effect)
    defended["x"] += random.normal(0, 0.01, len(plain))
    student = plain.assign(defense="distillation", case=plain["case"] + "s")
    student["x"] += random.normal(0, 0.01, len(plain))
    return pandas.concat([plain, defended, student], ignore_index=True)


def as_shares(effect: float, random: np.random.Generator) -> pandas.DataFrame:
    rows = models(random, datasets=1, each=60)
    return rows.assign(y=(random.random(60) < 0.5 + effect).astype(float))


def as_ratios(effect: float, random: np.random.Generator) -> pandas.DataFrame:
    rows = models(random, datasets=1, each=40)
    x = np.exp(random.normal(0, 0.2, 40))
    return rows.assign(x=x, y=x * np.exp(effect + random.normal(0, 0.05, 40)))


def beside_another(effect: float, random: np.random.Generator) -> pandas.DataFrame:
    rows = with_second(effect, random).assign(group=lambda frame: frame["dataset"])
    return rows.assign(y=rows["y"].where(rows["dataset"] == "d1", rows["x"] + random.normal(0, 0.03, len(rows))))


CASES: dict[str, tuple[Test, Make, float, float]] = {
    "within": (correlate("x", "y"), with_slope, 2.0, 0.0),
    "pooled": (correlate("x", "y", estimand="pooled"), with_slope_everywhere, 3.0, 0.0),
    "ranks": (correlate("x", "y", "spearman"), with_slope, 2.0, 0.0),
    "between datasets": (correlate_datasets("x", "y"), of_datasets, 1.0, 0.0),
    "difference": (compare_values("x", "y"), with_second, 0.05, 0.0),
    "relative change": (compare_relative("x", "y"), with_second, 0.10, 0.0),
    "between": (compare_groups("y", "group", "a", "b"), in_two_groups, 0.08, 0.0),
    "adjusted": (compare_groups_adjusted("y", "x", "x", "group", "a", "b"), at_equal_covariate, 0.06, 0.0),
    "relative between": (compare_groups_relative("x", "y", "dataset", "d0", "d1"), beside_another, 0.15, 0.0),
    "defense": (compare_with_undefended("x", "dp-sgd"), with_defense, 0.03, 0.0),
    "defense, relatively": (compare_with_undefended("x", "dp-sgd", relative=True), with_defense, 0.06, 0.0),
    "weaker defense": (compare_defenses("x", "distillation", "dp-sgd"), with_defense, 0.04, 0.0),
    "share": (measure_share("y", above=0.5), as_shares, 0.4, 0.5),
    "mean": (average("y"), in_two_groups, 0.3, 0.5),
    "ratio of means": (compare_means("y", "x"), as_ratios, 0.5, 1.0),
    "mean ratio": (average_ratio("y", ("x",)), as_ratios, 0.5, 1.0),
}


def count_alarms(name: str, simulations: int) -> int:
    """How often a test at 5% finds something where nothing is there."""
    test, make, _, against = CASES[name]
    random = np.random.default_rng(1)
    alarms = 0
    for _ in range(simulations):
        rows = make(0.0, random)
        if name == "mean":
            rows = rows.assign(y=rows["y"] - rows["y"].mean() + 0.5 + random.normal(0, 0.03) / np.sqrt(len(rows)))
        alarms += decide_outcome(test(rows, 0.95), 1, against)[0] != "undecided"
    return alarms


@pytest.mark.parametrize("name", CASES)
def test_a_test_finds_what_is_there_and_rarely_what_is_not(name: str) -> None:
    test, make, effect, against = CASES[name]
    there = test(make(effect, np.random.default_rng(1)), 0.95)
    assert decide_outcome(there, 1, against)[0] == "supported"
    assert decide_outcome(there, -1, against)[0] == "contradicted"
    assert count_alarms(name, SIMULATIONS) <= 3, "more than 3 of 10 are less likely than 1 in 900"


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_false_alarms_are_as_rare_as_the_level_says(name: str) -> None:
    assert count_alarms(name, 100) <= 11, "more than 11 of 100 are less likely than 1 in 200"


@pytest.mark.parametrize("name", ["within", "difference"])
def test_none_needs_an_interval_within_the_margin(name: str) -> None:
    """Equivalence is found where nothing is there, excluded where much is, and left open where records are few."""
    test, make, effect, _ = CASES[name]
    margin = {"within": 0.45, "difference": 0.03}[name]
    random = np.random.default_rng(4)
    parts = [make(0.0, random) for _ in range(6)]
    nothing = pandas.concat([part.assign(dataset=part["dataset"] + str(n)) for n, part in enumerate(parts)])
    assert decide_none(test(nothing, 0.90), margin) == "supported"
    assert decide_none(test(make(effect, random), 0.90), margin) == "contradicted"
    few = make(0.0, random).iloc[:8]
    assert decide_none(test(few, 0.90), margin / 3) == "undecided", "that nothing is significant shows nothing"


def test_equivalence_is_rarely_claimed_at_the_margin() -> None:
    random = np.random.default_rng(5)
    margin = 0.02
    claimed = sum(
        decide_none(compare_values("x", "y")(with_second(margin, random), 0.90), margin) == "supported"
        for _ in range(SIMULATIONS)
    )
    assert claimed <= 3
    groups = sum(
        decide_none(compare_all_groups("y", "group")(in_two_groups(0.03, random), 0.90), 0.03) == "supported"
        for _ in range(SIMULATIONS)
    )
    assert groups <= 3


def test_equal_groups_by_hand() -> None:
    random = np.random.default_rng(6)
    rows = models(random, datasets=1, each=90).assign(group=np.tile(["a", "b", "c"], 30))
    rows["family"] = rows["case"]
    rows["y"] = 0.5 + random.normal(0, 0.005, 90) + 0.2 * (rows["group"] == "c")
    found = compare_all_groups("y", "group")(rows, 0.90)
    means = rows.groupby("group")["y"].mean()
    assert found.estimate.value == pytest.approx(max(abs(means["c"] - means["a"]), abs(means["c"] - means["b"])))
    assert decide_none(found, 0.05) == "contradicted"
    assert decide_none(compare_all_groups("y", "group")(rows[rows["group"] != "c"], 0.90), 0.05) == "supported"


def test_architectures_are_compared_on_the_same_data() -> None:
    """The harder dataset has more models of one architecture: means over all would differ, and nothing does."""
    random = np.random.default_rng(8)
    rows = models(random, datasets=2, each=40).assign(seed=np.tile(np.arange(20), 4))
    rows["architecture"] = np.tile(np.repeat(["a", "b"], 20), 2)
    rows["y"] = 0.5 + 0.3 * (rows["dataset"] == "d1") + random.normal(0, 0.01, 80)
    rows = rows.drop(index=rows.index[:15])
    matched = compare_all_groups("y", "architecture", match=("dataset", "epochs", "seed"))(rows, 0.90)
    assert decide_none(matched, 0.05) == "supported"
    assert (matched.estimate.n, matched.units) == (25, "pairs")  # 20 seeds and 5, of the 40 less 15 that are left
    assert "25 pairs" in matched.estimate.method and "models" not in matched.estimate.method
    assert decide_none(compare_all_groups("y", "architecture")(rows, 0.90), 0.05) != "supported"


def test_an_adjusted_difference_by_least_squares() -> None:
    random = np.random.default_rng(7)
    everything = at_equal_covariate(0.05, random)
    both = everything.groupby("group")["x"].agg(["min", "max"])
    rows = everything[everything["x"].between(both["min"].max(), both["max"].min())]
    design = np.column_stack([np.ones(len(rows)), rows["x"], rows["group"] == "b"]).astype(float)
    expected = np.linalg.lstsq(design, rows["y"].to_numpy(float), rcond=None)[0][2]
    found = compare_groups_adjusted("y", "x", "x", "group", "a", "b")(everything, 0.95)
    assert found.estimate.value == pytest.approx(expected)


def tidy(rows: list[dict[str, object]]) -> pandas.DataFrame:
    return frames.tidy([{"settings": "{}", "model": row["case"], **row} for row in rows])


def value(case: str, attack: str, measure: str, number: float, **about: object) -> dict[str, object]:
    return {"case": case, "attack": attack, "measure": measure, "value": number, "family": case, **about}


def claim(name: str) -> Claim:
    (found,) = [one for one in claims.EVERY if one.name == name]
    return found


def test_every_claim_has_a_name_of_its_own_and_a_margin_where_it_says_none() -> None:
    assert len({one.name for one in claims.EVERY}) == len(claims.EVERY) >= 70
    with pytest.raises(ValueError, match="margin"):
        Claim("c", "s", "p", {}, average("y"), 0, "mean")


def test_a_claim_never_judges_data_that_it_does_not_name() -> None:
    rows = [value(f"s{n}", "target", "test_accuracy", 0.7 + n / 100, purpose="security", dataset="digits")
            for n in range(8)]  # fmt: skip
    rows += [value(f"b{n}", "target", "test_accuracy", 0.9 + n / 100, purpose="benchmark", dataset="digits")
             for n in range(8)]  # fmt: skip
    (found,) = findings.judge_claims([claim("security-models-less-accurate")], tidy(rows))
    assert found.status == "not tested" and "no models of dataset CIFAR-10" in found.sentence
    on_cifar = [{**row, "dataset": "CIFAR-10", "family": "ResNet"} for row in rows]
    (found,) = findings.judge_claims([claim("security-models-less-accurate")], tidy(on_cifar))
    assert found.status == "supported" and "on CIFAR-10 (ResNet)" in found.sentence


def test_entries_without_the_quantity_change_no_cluster() -> None:
    """A catalog that was collected since holds thousands of entries, of unknown family, without any measurement."""
    random = np.random.default_rng(2)
    rows = []
    for number in range(40):
        year = 2012 + number % 8
        rows.append(value(f"m{number}", "stealing", "accuracy", 0.9 - 0.02 * (year - 2012) + random.normal(0, 0.02),
                          year=year, dataset="ImageNet-1k") | {"family": f"f{number % 10}"})  # fmt: skip
    only = findings.judge_claims([claim("newer-harder-to-steal")], tidy(rows))[0]
    more = [value(f"e{n}", "target", "test_accuracy", np.nan, year=2020, dataset="ImageNet-1k") | {"family": None}
            for n in range(50)]  # fmt: skip
    with_more = findings.judge_claims([claim("newer-harder-to-steal")], tidy([*rows, *more]))[0]
    assert only.sentence == with_more.sentence and "jackknife over 10 families" in with_more.sentence


def test_claims_look_at_undefended_targets_without_backdoors() -> None:
    rows = [value(f"p{n}", "stealing", "accuracy", 0.9 - n / 50, dataset="digits") for n in range(8)]
    rows += [value(f"p{n}", "target", "test_accuracy", 0.7 + n / 50, dataset="digits") for n in range(8)]
    plain = findings.judge_claims([claim("stealing-falls-with-accuracy")], tidy(rows))[0]
    more = [{**row, "case": f"d{row['case']}", "value": 0.5, "defense": "dp-sgd"} for row in rows]
    more += [{**row, "case": f"b{row['case']}", "value": 0.6, "backdoor": "badnets"} for row in rows]
    defended = findings.judge_claims([claim("stealing-falls-with-accuracy")], tidy([*rows, *more]))[0]
    assert plain.status == "supported" and defended.sentence == plain.sentence


def test_targets_are_compared_at_equal_epochs() -> None:
    """Ten epochs against ten; the target of 100 epochs is no yardstick for what the defense costs."""
    rows = []
    for seed in range(8):
        common = {"dataset": "digits", "architecture": "simple-cnn", "seed": seed}
        rows.append(value(f"a{seed}", "target", "test_accuracy", 0.80 + seed / 1000, epochs=10, **common))
        rows.append(value(f"b{seed}", "target", "test_accuracy", 0.95, epochs=100, **common))
        rows.append(value(f"c{seed}", "target", "test_accuracy", 0.70, epochs=10, defense="dp-sgd", **common))
    (found,) = findings.judge_claims([claim("dp-sgd-utility")], tidy(rows))
    assert found.estimate is not None and found.estimate.value == pytest.approx(-0.1035, abs=1e-4)
    table = find_figure("ml-doctor-table-5").make(tidy(rows)).data
    assert len(table) == 3 and set(table["epochs"]) == {10, 100}
    membership = [{**row, "attack": "membership", "measure": "balanced-accuracy", "method": "ml-doctor-white-box",
                   "auxiliary": "shadow"} for row in rows]  # fmt: skip
    shown = find_figure("ml-doctor-table-3").make(tidy([*rows, *membership])).data
    assert shown.filter(like="no defense").iloc[0, 0].startswith("0.80")


@pytest.mark.parametrize(("factor", "status"), [(1.0, "supported"), (1.3, "contradicted"), (0.7, "contradicted")])
def test_the_error_of_inversion_is_compared_relatively(factor: float, status: str) -> None:
    """Errors are of the order of 0.06 on one dataset and of 1 on another: the same share counts the same on both."""
    rows = []
    for dataset, error in (("CelebA", 0.06), ("Fashion-MNIST", 0.98)):
        for seed in range(6):
            plain = error * (1 + seed / 1000)
            about = {"dataset": dataset, "architecture": "simple-cnn", "seed": seed, "method": "fredrikson"}
            rows.append(value(f"{dataset}{seed}", "inversion", "mse", plain, **about))
            changed = plain * (factor + (seed - 2.5) / 1e4)
            rows.append(value(f"{dataset}{seed}d", "inversion", "mse", changed, defense="dp-sgd", **about))
    (found,) = findings.judge_claims([claim("dp-sgd-inversion-error")], tidy(rows))
    assert found.status == status and found.claim.margin == 0.1
    assert found.estimate is not None and found.estimate.value == pytest.approx(factor - 1)


def test_each_attribute_has_its_row() -> None:
    rows = []
    for name, number in (("slant", 0.8), ("thickness", 0.6)):
        how = {"method": "embedding-mlp", "auxiliary": "shadow", "dataset": "digits", "architecture": "a"}
        for defense in (None, "dp-sgd"):
            rows.append(value(f"m{defense}", "attribute", "accuracy", number, defense=defense, **how)
                        | {"settings": f'{{"of": "{name}"}}'})  # fmt: skip
    table = find_figure("ml-doctor-table-3").make(tidy(rows)).data
    assert list(table["condition"]) == [f"Attribute inference, shadow: {name}" for name in ("slant", "thickness")]


def test_epochs_and_budgets() -> None:
    rows = []
    for seed in range(6):
        for epochs, risk in ((10, 0.55), (50, 0.60), (100, 0.70), (300, 0.702)):
            risk += seed * epochs / 1e6
            rows.append(value(f"m{seed}-{epochs}", "membership", "balanced-accuracy", risk, seed=seed,
                              epochs=epochs, dataset="digits", architecture="a", method="ml-doctor-white-box",
                              auxiliary="shadow"))  # fmt: skip
    found = {one.claim.name: one for one in findings.judge_claims(claims.EVERY, tidy(rows))}
    assert found["epochs-membership"].status == "supported" and found["epochs-membership"].estimate.n == 18
    plateau = found["plateau-membership"]
    assert plateau.status == "supported" and plateau.estimate.value == pytest.approx(0.0025)
    budgets = []
    for n in range(8):
        for at, accuracy in (("budget=50", 0.4), ("budget=500", 0.6), (None, 0.7)):
            budgets.append(value(f"m{n}", "stealing", "accuracy", accuracy * (1 + n / 1000), at=at, dataset="digits",
                                 surrogate="usual"))  # fmt: skip
    (found_,) = findings.judge_claims([claim("budget-helps")], tidy(budgets))
    assert found_.status == "supported" and found_.estimate.value == pytest.approx(0.3, abs=0.002)
    (without,) = findings.judge_claims([claim("budget-helps")], tidy([row for row in budgets if row["at"] is None]))
    assert "no target was stolen with several query budgets" in without.sentence


def test_runtimes_and_flags() -> None:
    rows = []
    for n in range(80):
        rows.append(value(f"m{n}", "backdoor", "anomaly-index", 3.0 if n < 20 else 1.0, method="neural-cleanse",
                          seconds=900.0 + n, dataset="CIFAR-10"))  # fmt: skip
        for method, seconds in (("strip", 30.0), ("neo", 18.0)):
            rows.append(value(f"m{n}", "backdoor", "false-rejection-rate", 0.0, method=method, seconds=seconds,
                              dataset="CIFAR-10"))  # fmt: skip
    found = {one.claim.name: one for one in findings.judge_claims(claims.EVERY, tidy(rows))}
    assert found["neural-cleanse-flags"].status == "supported" and found["neural-cleanse-flags"].estimate.value == 0.25
    assert found["strip-flags-none"].status == "undecided", "80 models without an alarm leave room for 5%"
    assert found["neural-cleanse-slow"].status == "supported"
    assert found["neural-cleanse-slow"].estimate.value == pytest.approx(31.3, abs=0.1)
    assert q.STEALING_ACCURACY.label in found["stealing-falls-with-accuracy"].sentence
