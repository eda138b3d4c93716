"""Tables 3 to 5 of ML-Doctor, and utility against risk, on frames whose numbers are made up here."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pandas
import pytest

from securitynet.analysis import claims, findings, frames
from securitynet.analysis.figures import defenses, frontier
from securitynet.analysis.figures.base import MissingData
from securitynet.analysis.figures.declared import list_figures
from securitynet.analysis.papers import ml_doctor
from securitynet.analysis.study_frames import _condition
from securitynet.results.study_targets import StudyTargetRecord


def case(name, architecture="simple-cnn", dataset="digits", defense=None, accuracy=0.9, aucs=(), balanced=None, **more):
    """Rows of one target: its accuracy, AUCs (method, access, value), and white-box membership accuracy."""
    about = {
        "case": name, "model": f"model {name}", "architecture": architecture, "family": architecture,
        "dataset": dataset, "defense": defense, "epochs": 10, "seed": 0, "settings": "{}", **more,
    }  # fmt: skip

    def row(attack, measure, value, **how):
        return {**about, "attack": attack, "measure": measure, "value": value, "low": value - 0.05,
                "high": value + 0.05, "n": 100, **how}  # fmt: skip

    rows = [row("target", "test_accuracy", accuracy)]
    rows += [row("membership", "auc", value, method=method, access=access) for method, access, value in aucs]
    if balanced is not None:
        how = {"method": "ml-doctor-white-box", "access": "white-box", "auxiliary": "shadow"}
        rows.append(row("membership", "balanced-accuracy", balanced, **how))
    return rows


def made(name, *cases):
    return list_figures()[name].make(frames.tidy(list(itertools.chain(*cases))))


def table(drawn):
    return {str(row.iloc[0]): row for _, row in drawn.data.iterrows()}


def test_dp_sgd_is_compared_with_its_own_architecture_and_each_epsilon_has_a_column():
    drawn = made(
        "ml-doctor-table-3",
        case("a", balanced=0.7), case("b", "vgg19", balanced=0.9), case("c", balanced=0.8, seed=1),
        case("d", defense="dp-sgd", epsilon=9.36, setting="setting 2", balanced=0.51),
        case("e", defense="dp-sgd", epsilon=10.5, setting="setting 1", balanced=0.52),
        case("f", defense="dropout", balanced=0.6),
    )  # fmt: skip
    assert list(drawn.data.columns) == [
        "condition", "digits · no defense", "digits · dp-sgd, epsilon 9.36", "digits · dp-sgd, epsilon 10.5",
    ]  # fmt: skip
    row = table(drawn)["Membership, white-box, shadow"]
    assert row.iloc[1].startswith("0.700 [0.650, 0.750]")  # neither VGG19 nor the seed that nothing was defended with
    assert row.iloc[2].startswith("0.510 [0.460, 0.560]") and row.iloc[3].startswith("0.520")
    other = made(
        "ml-doctor-table-3", case("a", balanced=0.7, seed=5), case("c", balanced=0.8, seed=6),
        case("d", defense="dp-sgd", epsilon=9.36, setting="setting 2", balanced=0.51),
    )  # fmt: skip
    mean = table(other)["Membership, white-box, shadow"].iloc[1]
    assert mean.startswith("0.750") and "(2 models)" in mean  # no seed in common: all seeds count


def test_the_papers_tables_stand_beside_a_study_with_other_epochs_and_other_attributes():
    def inferred(target, auxiliary="shadow"):
        about = {**target[0], "attack": "attribute", "measure": "accuracy", "method": "embedding-mlp"}
        return [{**about, "auxiliary": auxiliary, "settings": f'{{"of": "{name}"}}', "value": 0.8} for name in "xy"]

    cases = [case("a", balanced=0.7), case("b", defense="dp-sgd", epsilon=10.0, setting="epsilon 10", balanced=0.5)]
    rows = [row for target in cases for row in (*target, *inferred(target))]
    both = pandas.concat([ml_doctor.read_tables(), frames.tidy(rows)], ignore_index=True)
    drawn = list_figures()["ml-doctor-table-3"].make(both)
    found = table(drawn)
    assert "epochs" not in drawn.caption and len(found) == len(drawn.data)  # one a condition
    row = found["Membership, white-box, shadow"]
    assert row["CelebA · no defense"].startswith("0.720") and row["digits · dp-sgd, epsilon 10"].startswith("0.500")
    assert found["Attribute inference, shadow"]["UTKFace · no defense"].startswith("0.800")
    assert found["Attribute inference, shadow: x"]["digits · no defense"].startswith("0.800")
    utility = list_figures()["ml-doctor-table-5"].make(both).data
    assert "epochs" not in utility and len(utility[utility["defense in use"] == "no defense"]) == 5


def test_a_student_is_compared_with_its_teachers_architecture():
    cases = [
        case("a", "vgg19", balanced=0.8), case("b", "vgg11", balanced=0.6), case("c", "simple-cnn", balanced=0.5),
        case("d", "vgg11", defense="distillation", teacher="vgg19", balanced=0.7),
    ]  # fmt: skip
    drawn = made("ml-doctor-table-4", *cases)
    row = table(drawn)["Membership, white-box, shadow"]
    assert [text[:5] for text in row.iloc[1:]] == ["0.800", "0.700"]
    assert "vgg19 → vgg11" in drawn.caption
    without = made("ml-doctor-table-4", *cases[1:])  # no teacher's architecture: the student's own
    assert [text[:5] for text in table(without)["Membership, white-box, shadow"].iloc[1:]] == ["0.600", "0.700"]
    alone = made("ml-doctor-table-4", cases[-1])
    assert "Nothing without a defense" in alone.caption and list(alone.data.columns)[1:] == ["digits · distillation"]
    with pytest.raises(MissingData, match="distillation"):
        made("ml-doctor-table-4", *cases[:3])


def test_utility_by_defense_and_its_settings_where_epsilons_differ_between_datasets():
    drawn = made(
        "ml-doctor-table-5",
        case("a", accuracy=0.9), case("b", dataset="fmnist", accuracy=0.8),
        case("c", defense="dp-sgd", epsilon=5.14, setting="setting 1", accuracy=0.7),
        case("d", defense="dp-sgd", epsilon=8.41, setting="setting 1", dataset="fmnist", accuracy=0.6),
        case("e", defense="top-k", setting="k 1"),
    )  # fmt: skip
    found = table(drawn)
    assert list(found) == ["no defense", "dp-sgd, setting 1", "top-k, k 1"]
    assert [text[:5] for text in found["dp-sgd, setting 1"].iloc[2:]] == ["0.700", "0.600"]
    assert found["top-k, k 1"].iloc[3] == defenses.ABSENT


def test_other_figures_leave_defended_targets_out():
    drawn = made("ml-doctor-2", case("a", balanced=0.7), case("b", defense="dp-sgd", balanced=0.5))
    assert set(drawn.data["case"]) == {"a"}
    assert set(made("ml-doctor-2", case("b", defense="dp-sgd", balanced=0.5)).data["case"]) == {"b"}


def test_epochs_are_not_shown_where_architectures_differ_as_well():
    other = [case("a", balanced=0.7), case("b", "vgg19", balanced=0.6, epochs=20)]
    with pytest.raises(MissingData, match="several numbers of epochs"):
        made("ml-doctor-9", *other)
    drawn = made("ml-doctor-9", *other, case("c", balanced=0.8, epochs=20))
    assert set(drawn.data["case"]) == {"a", "b", "c"}


def frontier_cases():
    black, white = "black-box", "white-box"
    return [
        case("plain", accuracy=0.9, aucs=[("loss", black, 0.7), ("nn", white, 0.8)]),
        case("rounded", defense="rounding", accuracy=0.9, aucs=[("loss", black, 0.6)]),
        case("noisy", defense="memguard", accuracy=0.9, aucs=[("loss", black, 0.35), ("other", black, 0.55)]),
        case("dp0", defense="dp-sgd", epsilon=8.0, accuracy=0.7, aucs=[("loss", black, 0.52), ("nn", white, 0.54)]),
        case("dp1", defense="dp-sgd", epsilon=8.0, accuracy=0.8, aucs=[("loss", black, 0.5), ("nn", white, 0.5)],
             seed=1),
        case("bad", defense="dropout", accuracy=0.6, aucs=[("loss", black, 0.9), ("nn", white, 0.9)]),
        case("elsewhere", dataset="svhn", aucs=[("loss", black, 0.6)]),
    ]  # fmt: skip


def test_utility_against_risk():
    drawn = made("utility-against-risk", *frontier_cases())
    rows = {(row["adversary"], row["name"]): row for _, row in drawn.data.iterrows()}
    asking = {name: row for (box, name), row in rows.items() if box == "black-box"}
    assert set(asking) == {"no defense", "rounding", "memguard", "dp-sgd, epsilon 8", "dropout"}  # one point a defense
    assert asking["no defense"]["risk"] == 0.7  # who asks has no weights
    noisy = asking["memguard"]
    assert (noisy["risk"], noisy["risk_low"], noisy["risk_high"]) == pytest.approx((0.65, 0.6, 0.7))  # turned
    assert noisy["attack"] == "loss"
    spent = asking["dp-sgd, epsilon 8"]
    assert spent["targets"] == 2 and (spent["accuracy"], spent["risk"]) == pytest.approx((0.75, 0.51))
    assert {name for name, row in asking.items() if row["best"]} == {"rounding", "dp-sgd, epsilon 8"}
    knowing = {name: row for (box, name), row in rows.items() if box == "white-box"}
    assert set(knowing) == {"no defense", "dp-sgd, epsilon 8", "dropout"}  # answers hold up nobody who has the weights
    assert knowing["no defense"]["risk"] == 0.8 and knowing["no defense"]["kind"] == frontier.PLAIN
    assert knowing["no defense"]["best"] and not knowing["dropout"]["best"]
    assert "rounding (accuracy 0.900, risk 0.600 [0.550, 0.650])" in drawn.caption
    assert set(drawn.data["dataset"]) == {"digits"}  # where nothing is defended, nothing is compared
    assert json.dumps(drawn.chart.to_dict())


def worst(rows, tpr, fpr):
    """A target with its true-positive rate on the worst records."""
    how = {"attack": "membership", "method": "lira-most-exposed", "access": "black-box", "measure": "tpr"}
    return [*rows, {**rows[0], **how, "at": f"fpr={fpr:g}", "value": tpr, "low": tpr - 0.05, "high": tpr + 0.05}]


def test_utility_against_the_worst_case_ignores_the_average():
    black = "black-box"
    cases = [
        worst(case("plain", accuracy=0.9, aucs=[("loss", black, 0.7)]), 0.8, 0.1),
        worst(case("hidden", defense="label-only", accuracy=0.9, aucs=[("loss", black, 0.5)]), 0.8, 0.1),
        worst(case("dp", defense="dp-sgd", epsilon=8.0, accuracy=0.8, aucs=[("loss", black, 0.6)]), 0.2, 0.1),
    ]
    drawn = made("utility-against-worst-case", *cases)
    rows = table(drawn)
    assert rows["label-only"]["risk"] == rows["no defense"]["risk"] == 0.8 and rows["dp-sgd, epsilon 8"]["risk"] == 0.2
    assert set(drawn.data["adversary"]) == {black} and json.dumps(drawn.chart.to_dict())
    cells = made("ml-doctor-table-3", *cases)
    assert table(cells)["LiRA on the most exposed records: TPR at 10% FPR"].iloc[2].startswith("0.200")
    assert len(made("ml-doctor-table-5", *cases).data) == 6  # utility and risk of each
    with pytest.raises(MissingData, match="lira-most-exposed"):
        made("utility-against-worst-case", *frontier_cases())


def test_without_defenses_each_model_is_a_point():
    models = [case(str(n), "resnet", accuracy=0.5 + n / 10, aucs=[("loss", None, 0.6 + n / 20)]) for n in range(4)]
    drawn = made("utility-against-risk", *models)
    assert list(drawn.data["name"]) == [f"model {n}" for n in range(4)] and drawn.data["best"].all()


def test_the_frontier_against_its_definition():
    rng = np.random.default_rng(0)
    utility, risk = rng.integers(0, 8, 60) / 8, rng.integers(0, 8, 60) / 8
    found = frontier.find_frontier(utility, risk)
    for i in range(60):
        surpassed = any(
            utility[j] >= utility[i] and risk[j] <= risk[i] and (utility[j] > utility[i] or risk[j] < risk[i])
            for j in range(60)
        )
        assert found[i] == (not surpassed)


def test_labels_do_not_cover_one_another():
    rng = np.random.default_rng(1)
    places = [(400 + float(x), 150 + float(y)) for x, y in rng.normal(0, 25, (14, 2))]
    widths = [60.0 + 5 * n for n in range(14)]
    found = frontier.place_labels(places, widths)
    boxes = [(one[0], one[1] - 6, one[0] + width, one[1] + 6) for one, width in zip(found, widths, strict=True) if one]
    assert len(boxes) > 8
    for one, other in itertools.combinations(boxes, 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


def test_a_label_without_room_is_left_out_and_none_covers_a_point():
    random = np.random.default_rng(0)
    places = [(200 + x, 150 + y) for x, y in random.uniform(0, 60, (60, 2))]
    points = [(x, y) for x in range(0, 460, 30) for y in range(0, 330, 30)]
    positions = frontier.place_labels(places, [90.0] * 60, [n < 3 for n in range(60)], points)
    boxes = [(one[0], one[1] - 6, one[0] + 90, one[1] + 6) for one in positions if one is not None]
    assert 0 < len(boxes) < 60
    for one, other in itertools.combinations(boxes, 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
    for left, top, right, bottom in boxes:
        assert not any(left < x < right and top < y < bottom for x, y in (*places, *points))


def test_no_leader_and_no_line_runs_through_a_label():
    random = np.random.default_rng(2)
    places = [(300 + x, 200 + y) for x, y in random.uniform(0, 40, (9, 2))]
    positions = frontier.place_labels(places, [110.0] * 9, [True] * 9, level=260.0)
    boxes = [one and (one[0], one[1] - 6, one[0] + 110, one[1] + 6) for one in positions]
    joined = 0
    for (x, y), one in zip(places, positions, strict=True):
        if one is None:
            continue
        assert not one[1] - 6 < 260 < one[1] + 6
        end = one[0] if one[0] > x else one[0] + 110
        for box in boxes:
            for share in np.linspace(0.01, 0.99, 25) if one[2] and box else ():
                across, down = x + share * (end - x), y + share * (one[1] - y)
                assert not (box[0] + 1 < across < box[2] - 1 and box[1] + 1 < down < box[3] - 1)
        joined += one[2]
    assert joined > 3


def test_claims_on_defenses_compare_the_same_target_with_and_without():
    """VGG19 is no yardstick for SimpleCNN: all defended targets are less at risk than their own originals."""
    rows = [case(f"v{n}", "vgg19", balanced=0.55, seed=n) for n in range(8)]
    for seed in range(8):
        rows.append(case(f"p{seed}", balanced=0.7 + seed / 100, seed=seed))
        rows.append(case(f"d{seed}", defense="dp-sgd", balanced=0.65 + seed / 101, seed=seed))
    found = findings.judge_claims(claims.EVERY, frames.tidy(list(itertools.chain(*rows))))
    (finding,) = [item for item in found if item.claim.name == "dp-sgd-membership"]
    assert finding.status == "supported" and finding.estimate.value == pytest.approx(-0.05, abs=0.001)
    assert finding.estimate.n == 8


def test_settings_and_what_was_spent_come_from_the_subjects_file():
    def of(training=None, **declared):
        record = StudyTargetRecord(
            key="k", label="l", status="ok", finished="now", training=training, declared=declared
        )
        return _condition(record)

    dp = {"name": "dp-sgd", "settings": {"preset": "celeba-2", "clipping_bound": 1.0}, "privacy": {"epsilon": 6.57}}
    assert of({"defense": dp}) == {"setting": "setting 2", "epsilon": 6.57, "teacher": None}
    student = {"name": "distillation", "settings": {"teacher": "vgg19", "temperature": 5.0, "alpha": 0.7},
               "teacher": {"architecture": "vgg19"}}  # fmt: skip
    assert of({"defense": student}) == {"setting": "temperature 5", "epsilon": None, "teacher": "vgg19"}
    assert of(defense="top-k", configure=["top-k.k=1"])["setting"] == "k 1"
    assert of(defense="top-k", configure=["top-k.k=3"])["setting"] is None  # the default
    assert of() == {"setting": None, "epsilon": None, "teacher": None}
    assert of({"defense": {"name": "gone", "settings": {"x": 1}}})["setting"] == "x 1"
