"""Figures of one's own studies: which surrogate is the larger one, what tags say, several studies together."""

import json

import numpy as np
import pytest

from securitynet.analysis import frames, sources, study_frames
from securitynet.analysis.figures.base import MissingData
from securitynet.analysis.figures.declared import find_figure
from securitynet.errors import ConfigurationError
from securitynet.metrics import roc
from securitynet.records import (
    Access,
    Auxiliary,
    DatasetIdentity,
    Direction,
    Measurement,
    SplitIdentity,
    TargetIdentity,
    ThreatModel,
    TrialResult,
    TrialSpec,
)
from securitynet.results.store import TrialStore
from securitynet.results.study_targets import Capabilities, StudyTargetRecord, StudyTargetStore

WHEN = "2026-01-01T00:00:00+00:00"


def measurement(name, value):
    low, high = value - 0.02, value + 0.02
    return Measurement(name=name, value=value, low=low, high=high, n=100, direction=Direction.LOWER, method="by hand")


def fill(folder, count=6, purpose="benchmark", surrogates=("simple-cnn", "cifar-resnet20"), start=0):
    """Targets, each stolen by two surrogates; the smaller one once more with a budget of queries."""
    for number in range(start, start + count):
        means = Capabilities(
            target=TargetIdentity(
                reference="arch:simple-cnn", checksum=f"{number:04}", preprocessing={}, head="logits"
            ),
            dataset=DatasetIdentity(reference="digits", fingerprint="f"),
            split=SplitIdentity(name="public", fingerprint="s"),
            access=Access.WHITE_BOX,
            shadow_data=False,
        )
        accuracy = 0.9 - 0.03 * number
        StudyTargetStore(folder).save(
            StudyTargetRecord(
                key=f"k{number}", label=f"m{number}", status="ok", means=means, membership="known", finished=WHEN,
                codes={"purpose": purpose}, measurements=(measurement("target.test_accuracy", accuracy),),
            )
        )  # fmt: skip
        for place, surrogate in enumerate(surrogates):
            for budgets in ([], [50]) if place == 0 else ([],):
                name = "stealing.securitynet-surrogate@partial"
                found = [measurement(f"{name}.accuracy", accuracy - 0.1 - 0.2 * place)]
                found += [measurement(f"{name}.accuracy@budget=50", 0.3)] if budgets else []
                spec = TrialSpec(
                    target=means.target, dataset=means.dataset, split=means.split, kind="attack",
                    method="stealing.securitynet-surrogate",
                    threat_model=ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.PARTIAL),
                    configuration={"architecture": surrogate, "budgets": budgets},
                )  # fmt: skip
                result = TrialResult(spec=spec, status="ok", measurements=tuple(found), finished=WHEN)
                TrialStore(folder).save(result)


def test_the_usual_surrogate_and_the_larger_one(tmp_path):
    fill(tmp_path)
    tidy = sources.load_frames(str(tmp_path))
    usual = find_figure("securitynet-5").make(tidy).data.set_index("case")["stealing"]
    larger = find_figure("securitynet-7").make(tidy).data.set_index("case")["stealing"]
    assert usual["k0"] == pytest.approx(0.8) and larger["k0"] == pytest.approx(0.6)
    assert set(find_figure("securitynet-19").make(tidy).data["budget"]) == {50}
    assert study_frames._depth("wrn-50-2") > study_frames._depth("resnet18") > study_frames._depth("simple-cnn")


def test_one_surrogate_is_the_usual_one(tmp_path):
    fill(tmp_path, surrogates=("cifar-resnet20",))
    tidy = sources.load_frames(str(tmp_path))
    assert not find_figure("securitynet-5").missing(tidy)
    with pytest.raises(MissingData, match="larger surrogate"):
        find_figure("securitynet-7").make(tidy)


def test_several_studies_together_count_a_trial_once(tmp_path):
    fill(tmp_path / "a")
    fill(tmp_path / "b", count=8, purpose="security", start=4)  # two targets are in both
    one = sources.load_frames(str(tmp_path / "a"))
    with pytest.raises(MissingData, match="security models"):
        find_figure("securitynet-9").make(one)
    both = sources.load_frames([str(tmp_path / "a"), str(tmp_path / "b")])
    assert both["case"].nunique() == 12
    assert len(both) == len(both.drop_duplicates(["case", *frames.HOW]))
    assert set(find_figure("securitynet-9").make(both).data["cluster"].str.partition(",")[0]) == {
        "benchmark",
        "security",
    }
    with pytest.raises(ConfigurationError, match="neither"):
        sources.load_frames([str(tmp_path / "a"), "nowhere"])


def rows(attack, method, measure, values, at=None, auxiliary=None):
    return [
        {"case": f"c{n}", "model": f"m{n}", "dataset": "digits", "attack": attack, "method": method, "at": at,
         "measure": measure, "value": value, "low": value, "high": value, "auxiliary": auxiliary, "settings": "{}"}
        for n, value in enumerate(values)
    ]  # fmt: skip


def test_the_heat_map_shows_whatever_attacks_there_are():
    frame = frames.tidy(
        rows("membership", "lira", "auc", [0.9, 0.5, 0.6], auxiliary="shadow")
        + rows("inversion", "generative", "accuracy", [0.7, 0.1, 0.2])
        + rows("evasion", "fgsm", "accuracy-drop", [0.5, 0.1, 0.2], at="epsilon=0.03")
    )
    drawn = find_figure("risk-heat-map").make(frame)
    assert list(drawn.data["attack"].unique()) == [
        "lira: AUC",
        "generative: accuracy",
        "fgsm: accuracy drop at ε = 0.03",
    ]
    assert list(drawn.data["_name"].unique()) == ["m0 · digits", "m2 · digits", "m1 · digits"]


def test_models_are_named_with_their_defense_unless_the_name_contains_it():
    frame = frames.tidy(rows("membership", "lira", "auc", [0.9, 0.5, 0.6], auxiliary="shadow"))
    frame["model"], frame["defense"] = (
        ["cnn digits", "cnn digits", "cnn digits relaxloss"],
        [None, "dp-sgd", "relaxloss"],
    )
    frame["epsilon"] = [None, 2.0, None]
    drawn = find_figure("risk-heat-map").make(frame)
    assert list(drawn.data["_name"]) == ["cnn digits", "cnn digits relaxloss", "cnn digits · dp-sgd, epsilon 2"]
    frame["defense"] = frame["epsilon"] = None
    frame["model"] = "cnn digits"
    assert sorted(find_figure("risk-heat-map").make(frame).data["_name"]) == [f"cnn digits · c{n}" for n in range(3)]


def test_bands_leave_out_attacks_without_a_threshold_at_low_rates():
    """Correctness has two scores: drawn at zero, it would look worse than guessing."""
    rates = {0.01: (0.1, 0.0), 0.1: (0.2, 0.0), 0.5: (0.7, 0.0), 1: (1.0, 1.0)}
    both = [
        row
        for fpr, values in rates.items()
        for method, value in zip(("entropy", "correctness"), values, strict=True)
        for row in rows("membership", method, "roc", [value], at=f"fpr={fpr}")
    ]
    drawn = find_figure("roc-bands").make(frames.tidy(both).assign(defense=None))
    assert set(drawn.statistics["method"]) == {"entropy"}
    assert "Not drawn, since its scores take too few values for these rates: correctness." in drawn.caption
    assert "correctness. Dataset: digits." in drawn.caption and "defense" not in drawn.caption
    weak = [row for row in both if row["at"] in ("fpr=0.01", "fpr=1")]  # no rate that only ties would explain
    assert set(find_figure("roc-bands").make(frames.tidy(weak)).statistics["method"]) == {"entropy", "correctness"}


def inferred(attribute, values, auxiliary="shadow"):
    settings = json.dumps({"of": attribute})
    gains = rows("attribute", "embedding-mlp", "gain", [value - 0.5 for value in values], auxiliary=auxiliary)
    accuracies = rows("attribute", "embedding-mlp", "accuracy", values, auxiliary=auxiliary)
    baselines = rows("attribute", "embedding-mlp", "baseline-accuracy", [0.5] * len(values), auxiliary=auxiliary)
    return [{**row, "settings": settings, "access": "white-box"} for row in gains + accuracies + baselines]


def test_each_inferred_attribute_is_named_wherever_it_is_shown():
    membership = rows("membership", "ml-doctor-white-box", "balanced-accuracy", [0.6, 0.7, 0.65], auxiliary="shadow")
    membership += rows("membership", "lira", "auc", [0.6, 0.7, 0.65], auxiliary="shadow")
    frame = frames.tidy([*membership, *inferred("slant", [0.8, 0.7, 0.6]), *inferred("thickness", [0.6, 0.6, 0.7])])
    frame["epochs"] = frame["case"].map({"c0": 5, "c1": 5, "c2": 10})
    found = find_figure("ml-doctor-10").make(frame)
    panels = set(found.statistics["panel"])
    assert "Attribute inference, shadow: slant against membership, white-box, shadow" in panels and len(panels) == 2
    frame["architecture"] = frame["case"].map({"c0": "a", "c1": "b", "c2": "a"})
    apart = find_figure("ml-doctor-9").make(frame)  # nothing of the step from b to a is an effect of the epochs
    assert set(apart.statistics["n"]) == {1} and "Means of the same architecture are joined." in apart.caption
    by_epochs = find_figure("ml-doctor-9").make(frame.assign(architecture="a")).caption
    assert "Attribute inference, shadow: slant, digits, 5 epochs 0.750" in by_epochs
    assert "Attribute inference, shadow: thickness, digits, 10 epochs 0.700" in by_epochs
    assert "from the class alone, without the model: slant 0.500 to 0.500; thickness 0.500 to 0.500." in by_epochs
    assert "Models trained for 5, 10 epochs are shown together." in find_figure("ml-doctor-7").make(frame).caption
    labels = set(find_figure("risk-heat-map").make(frame).data["attack"])
    alone = frames.tidy(
        rows("membership", "x", "blind-auc", [0.5, 0.5, 0.6]) + rows("target", None, "overfitting", [0, 1, 0])
    )
    assert "any of: Prediction correctness" in find_figure("securitynet-13").missing(alone)[0]  # a control is no attack
    assert {"embedding-mlp: accuracy gain: slant", "embedding-mlp: accuracy gain: thickness"} <= labels


def test_what_has_no_colour_of_its_own_is_named_instead_of_drawn():
    attributes = [f"attribute {number}" for number in range(8)]
    frame = frames.tidy([row for name in attributes for row in inferred(name, [0.6, 0.7])])
    drawn = find_figure("ml-doctor-5").make(frame.assign(architecture="a"))
    conditions = set(drawn.data["condition"])
    assert len(conditions) == 6
    missing = drawn.caption.partition("Not drawn, for lack of room: ")[2].partition(".")[0].split(", Attr")
    assert len(missing) == 2 and not conditions.intersection(missing)


def test_an_empty_panel_says_whether_the_attack_was_run():
    errors = rows("inversion", "fredrikson", "mse", [0.1, 0.2])
    without = find_figure("ml-doctor-3").make(frames.tidy(errors)).caption
    assert "Without data here: Inversion, shadow: accuracy." in without
    unjudged = rows("inversion", "generative", "accuracy", [None, None])
    run = find_figure("ml-doctor-3").make(frames.tidy([*errors, *unjudged]))
    assert "Inversion, shadow: accuracy (run, but it could not be judged)." in run.caption
    assert "Mean squared error" in json.dumps(run.chart.to_dict(validate=False))


def test_accuracy_under_attack_is_the_mean_over_models():
    frame = frames.tidy(
        rows("evasion", "fgsm", "robust-accuracy", [0.8, 0.9, 0.7], at="epsilon=0.01")
        + rows("evasion", "fgsm", "robust-accuracy", [0.2, 0.4, 0.3], at="epsilon=0.1")
        + rows("evasion", "pgd", "robust-accuracy", [0.1], at="epsilon=0.1")  # one epsilon makes no curve
    )
    drawn = find_figure("accuracy-under-attack").make(frame)
    assert drawn.statistics["value"].tolist() == pytest.approx([0.8, 0.3]) and set(drawn.statistics["n"]) == {3}
    assert "fgsm: 0.800" in drawn.caption and "pgd" not in drawn.caption and "defense" not in drawn.caption
    drawn = find_figure("accuracy-under-attack").make(frame.assign(defense=frame["case"].map({"c1": "relaxloss"})))
    assert drawn.caption.endswith("1 of 3 models has a defense.")


def test_each_panel_has_its_own_line_of_chance():
    frame = frames.tidy(
        rows("membership", "ml-doctor-white-box", "balanced-accuracy", [0.6, 0.7], auxiliary="shadow")
        + rows("inversion", "generative", "accuracy", [0.1, 0.2])
    )
    text = json.dumps(find_figure("ml-doctor-7").make(frame.assign(architecture="vgg19")).chart.to_dict(validate=False))
    assert text.count('"chance": 0.5') == 1  # membership's panel alone


def test_no_column_of_a_figure_holds_a_dot():
    """In the name of a field Vega takes a dot for a path, and draws nothing."""
    for number in (20, 21):
        assert not any("." in name for name in find_figure(f"securitynet-{number}").quantities)


def test_roc_curves_of_kept_scores_agree_with_the_measured_rates():
    random = np.random.default_rng(0)
    members, non_members = random.normal(0.7, 1, 300).round(1), random.normal(0, 1, 500).round(1)  # rounded: with ties
    arrays = {
        "scores": np.concatenate([members, non_members]),
        "is_member": np.arange(800) < 300,
        "held_out": np.zeros(800, dtype=bool),
    }
    row = {"case": "a", "attack": "membership", "method": "entropy", "measure": "auc", "at": None, "value": 0.7}
    rows = study_frames.tabulate_curve(arrays, row)
    assert {item["measure"] for item in rows} == {"roc"} and rows[-1]["value"] == 1.0
    assert min(float(item["at"].partition("=")[2]) for item in rows) >= 1 / 500
    for item, rate in zip(rows[:-1], study_frames.CURVE_RATES[-len(rows) : -1], strict=True):
        assert item["at"] == f"fpr={rate:.4g}"
        assert item["value"] == pytest.approx(
            roc.measure_tpr_at_fpr(members, non_members, float(rate)).value, abs=1e-12
        )
    assert study_frames.tabulate_curve({}, row) == []
    measured = {**row, "measure": "tpr", "at": "fpr=0.1", "value": 0.5}
    drawn = find_figure("roc-bands").make(frames.tidy([row, measured, *rows]))
    assert len(drawn.statistics) == len(rows)  # whole curves, where they are known


def test_a_long_table_lists_architectures_of_several_models():
    rows = [
        {"case": f"{n}", "model": f"m{n}", "architecture": "resnet" if n < 6 else f"a{n}", "dataset": "digits",
         "attack": "target", "measure": measure, "value": 0.5 + n / 1000}
        for n in range(60) for measure in ("test_accuracy", "train_accuracy")
    ]  # fmt: skip
    frame = frames.tidy(rows)
    wanted = [find_figure("ml-doctor-table-2").missing(frame)]
    assert wanted == [[]]
    drawn = find_figure("ml-doctor-table-2").make(frame)
    assert list(drawn.data["architecture"]) == ["resnet"] and "Not listed: 54 of 55 by architecture" in drawn.caption
    with pytest.raises(MissingData, match="a target with a defense"):
        find_figure("ml-doctor-table-5").make(frame)


def test_purposes_are_compared_where_models_of_both_were_measured():
    rows = [
        {"case": str(n), "dataset": "digits", "purpose": purpose, "attack": "target", "measure": "test_accuracy",
         "value": 0.9} for n, purpose in enumerate(["benchmark", "benchmark", "security"])
    ]  # fmt: skip
    frame = frames.tidy(rows)
    assert find_figure("securitynet-2").missing(frame) == []
    assert find_figure("securitynet-2").missing(frame[:2]) == ["security models with Target's test accuracy"]
