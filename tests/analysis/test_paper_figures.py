"""Figures as in the papers: like architectures, panels without data, violins, order by complexity, published values."""

import json

import numpy as np
import pandas
import pytest
from scipy.stats import gaussian_kde
from typer.testing import CliRunner

from securitynet.analysis import frames
from securitynet.analysis.figures import groups, violins
from securitynet.analysis.figures.base import Figure
from securitynet.analysis.figures.declared import find_figure
from securitynet.analysis.figures.performance import order_by_ease
from securitynet.catalog.catalog import Catalog
from securitynet.catalog.store import Measured
from securitynet.cli.main import app


def model(number: int, measure: str, value: float, attack: str = "target", **columns: object) -> dict[str, object]:
    return {
        "case": f"{number}", "model": f"m{number}", "dataset": "CIFAR-10", "purpose": "benchmark", "family": "A",
        "attack": attack, "measure": measure, "value": value, "settings": "{}", **columns,
    }  # fmt: skip


def test_published_values_without_intervals_are_numbers() -> None:
    tidy = frames.tidy([model(1, "test_accuracy", 0.9, low=None, high=None)])
    assert tidy["low"].dtype == float and np.isnan(1 - tidy["low"].iloc[0])


def test_figure_2_leaves_out_benchmark_models_that_no_security_model_resembles() -> None:
    rows = [model(n, "test_accuracy", 0.9 + n / 1000, family="A" if n < 3 else "B") for n in range(6)]
    rows += [model(n, "test_accuracy", 0.8, purpose="security") for n in (10, 11)]
    rows += [
        model(n, "test_accuracy", 0.7, dataset="CIFAR-100", purpose=purpose)
        for n, purpose in ((20, "benchmark"), (21, "security"))
    ]
    drawn = find_figure("securitynet-2").make(frames.tidy(rows))
    assert sorted(drawn.data["model"]) == ["m0", "m1", "m10", "m11", "m2", "m20", "m21"]
    assert "3 models of others left out" in drawn.caption


def test_a_group_without_benchmark_models_of_its_families_keeps_its_security_models() -> None:
    frame = pandas.DataFrame(
        {"dataset": ["x", "x", "y"], "family": ["A", "B", "A"], "purpose": ["security", "benchmark", "benchmark"]}
    )
    assert groups.restrict_to_alike(frame, "dataset", "family").index.tolist() == [0]


def test_a_panel_without_data_says_so() -> None:
    rows = []
    for number in range(4):
        rows.append(model(number, "overfitting", 0.05 * number))
        rows.append(model(number, "auc", 0.5 + 0.02 * number, attack="membership", method="modified-entropy"))
    drawn = find_figure("securitynet-13").make(frames.tidy(rows))
    assert "Without data here: Prediction correctness" in drawn.caption and "MLP on posteriors: AUC" in drawn.caption
    assert "Blind baseline" not in drawn.caption.partition("Without data here")[2]
    chart = json.dumps(drawn.chart.to_dict(validate=False))
    assert "not measured on any model here" in chart and chart.count('"field": "text"') == 2  # they share the text


def test_figure_14_is_drawn_without_its_top_3_posteriors_and_says_so() -> None:
    rows = []
    for number in range(4):
        rows.append(model(number, "overfitting", 0.05 * number))
        rows.append(model(number, "auc", 0.5 + 0.02 * number, attack="membership", method="mlp-posteriors"))
    drawn = find_figure("securitynet-14").make(frames.tidy(rows))
    assert "Without data here: Modified entropy: AUC; MLP on the top 3 posteriors: AUC." in drawn.caption
    assert "Not drawn, for lack of data: SVHN, CIFAR-100, ImageNet-1k, CUB-200-2011." in drawn.caption


def test_panels_of_threat_models_without_data_are_drawn_empty() -> None:
    rows = [
        model(number, "agreement", 0.8, attack="stealing", method="ml-doctor-surrogate", auxiliary="shadow",
              surrogate="usual", dataset="digits", architecture="simple-cnn")
        for number in range(2)
    ]  # fmt: skip
    drawn = find_figure("ml-doctor-7").make(frames.tidy(rows))
    assert "Without data here: Membership, white-box, shadow; Inversion, shadow: accuracy; Attribute" in drawn.caption
    assert "Not drawn" not in drawn.caption
    chart = drawn.chart.to_dict(validate=False)
    panels = [panel for row in chart["vconcat"] for panel in row["hconcat"]]
    assert len(panels) == 4 and "not measured on any model here" in json.dumps(chart)


def test_poisoned_models_stand_apart() -> None:
    """The papers' models have no backdoor; a flagged model that has one is no false positive."""
    rows = []
    for number in range(6):
        about = {"purpose": "benchmark", "backdoor": "badnets" if number > 3 else None}
        rows += [
            model(number, "test_accuracy", 0.7 + number / 100, **about),
            model(number, "accuracy", 0.5 + number / 50, "stealing", auxiliary="partial", **about),
            model(number, "anomaly-index", 1.0 + 2 * (number > 2), "backdoor", method="neural-cleanse", **about),
        ]
    tidy = frames.tidy(rows)
    table = find_figure("securitynet-table-1").make(tidy).data
    assert list(table["flagged"]) == ["2 of 2", "1 of 4"] and list(table["backdoor"]) == ["badnets", "none"]
    drawn = find_figure("securitynet-5").make(tidy)
    assert len(drawn.data) == 4 and "2 targets with a backdoor left out." in drawn.caption
    alone = frames.tidy([row for row in rows if row["backdoor"]])
    assert len(find_figure("securitynet-5").make(alone).data) == 2, "where there are no others, they are shown"
    clean = frames.tidy([row for row in rows if not row["backdoor"]])
    assert "backdoor" not in find_figure("securitynet-table-1").make(clean).data
    assert "left out" not in find_figure("securitynet-5").make(clean).caption


def test_attacks_on_a_target_with_a_defense_and_of_unknown_architecture_are_drawn() -> None:
    rows = [model(0, "test_accuracy", 0.9), model(1, "test_accuracy", 0.8, defense="dp-sgd")]
    rows += [model(1, "agreement", 0.7, "stealing", auxiliary="shadow", method="ml-doctor-surrogate")]
    data = find_figure("ml-doctor-6").make(frames.tidy(rows)).data
    assert list(data["value"]) == [0.7] and list(data["architecture"]) == ["not known"]


def test_each_dataset_of_figure_5_has_its_own_axes() -> None:
    rows = []
    for number in range(8):
        dataset = "CIFAR-10" if number < 4 else "SVHN"
        rows.append(model(number, "test_accuracy", 0.9 + number / 100, dataset=dataset))
        rows.append(model(number, "accuracy", 0.8 - number / 50, attack="stealing", surrogate="usual", dataset=dataset))
    chart = find_figure("securitynet-5").make(frames.tidy(rows)).chart.to_dict(validate=False)
    panels = [panel for row in chart["vconcat"] for panel in row["hconcat"]]
    assert sorted(panel["title"]["text"] for panel in panels) == ["CIFAR-10", "SVHN"]


def test_the_outline_of_a_violin_is_a_kernel_estimate() -> None:
    values = np.random.default_rng(0).normal(0.4, 0.1, 60)
    places, heights = violins.estimate_density(values)
    expected = gaussian_kde(values)(places)
    assert np.allclose(heights, expected / expected.max()) and (places[0], places[-1]) == (values.min(), values.max())
    assert len(violins.estimate_density(values[:3])[0]) == 0 and len(violins.estimate_density(np.full(9, 0.5))[0]) == 0


def test_datasets_stand_from_the_easiest_to_the_hardest() -> None:
    accuracies = {"STL-10": 0.5, "CelebA": 0.7, "Fashion-MNIST": 0.9}
    rows = [model(n, "test_accuracy", value, dataset=name) for n, (name, value) in enumerate(accuracies.items())]
    rows.append(model(9, "auc", 0.5, attack="membership", dataset="UTKFace"))
    tidy = frames.tidy(rows)
    assert order_by_ease(tidy, tidy["dataset"]) == ["Fashion-MNIST", "CelebA", "STL-10", "UTKFace"]


@pytest.mark.parametrize("name", ["securitynet-18", "ml-doctor-4"])
def test_pictures_are_declared_and_say_what_they_need(name: str) -> None:
    assert "pictures of" in find_figure(name).missing(frames.tidy([model(1, "test_accuracy", 0.9)]))[0]


def test_pictures_of_the_most_suspicious_models_are_shown() -> None:
    rows = []
    for number in range(6):
        how = {"method": "neural-cleanse"}
        rows.append(model(number, "anomaly-index", float(number), "backdoor", **how))
        rows.append(model(number, "picture", 0.0, "backdoor", **how)
                    | {"settings": json.dumps({"row": "0", "column": "Mask", "png": "data:"})})  # fmt: skip
    caption = find_figure("securitynet-18").make(frames.tidy(rows)).caption
    assert [f"on m{number}" in caption for number in range(6)] == [False, False, True, True, True, True]
    assert "those of the largest anomaly index are shown" in caption


def test_draw_all_goes_on_after_a_figure_that_fails(tmp_path, monkeypatch) -> None:
    url = f"sqlite:///{tmp_path}/catalog.sqlite"
    with Catalog(url) as catalog:
        for name, accuracy in (("a", 0.9), ("b", 0.8), ("c", 0.7)):
            entry = catalog.add({"name": name, "source": "mine", "dataset": "CIFAR-10", "family": name})
            values = {"accuracy.test": accuracy, "membership.modified-entropy.auc": 0.6, "accuracy.gap": 0.1}
            catalog.record(entry.id, [Measured(n, v, "published", "paper") for n, v in values.items()])

    def fail(*_: object) -> None:
        raise TypeError("broken on purpose")

    whole = find_figure("utility-against-risk")
    broken = Figure("securitynet-1", "a title", "a source", {}, fail)
    chosen = {one.name: one for one in (broken, whole)}
    monkeypatch.setattr("securitynet.analysis.figures.declared.list_figures", lambda: chosen)
    done = CliRunner().invoke(
        app, ["figures", "draw", "all", "--from", "catalog", "--db", url, "--out", f"{tmp_path}/f"]
    )
    assert "securitynet-1 could not be drawn: TypeError: broken on purpose" in done.output
    assert done.exit_code != 0 and (tmp_path / "f" / "utility-against-risk.svg").is_file()
