"""Figures from frames: the published table's correlations with intervals, what is missing, files of all kinds."""

import csv
import json

import altair as alt
import numpy as np
import pandas
import pytest

from securitynet.analysis import claims, findings, frames, sources
from securitynet.analysis.figures import files, render
from securitynet.analysis.figures.base import MissingData
from securitynet.analysis.figures.declared import find_figure, list_figures
from securitynet.analysis.frames import Quantity, parse_name
from securitynet.errors import ConfigurationError, UnknownName


def rows(n, seed=0, dataset="digits", slope=-1.0):
    random = np.random.default_rng(seed)
    accuracy = random.uniform(0.6, 0.9, n)
    values = {"test_accuracy": ("target", accuracy), "accuracy": ("stealing", 0.9 + slope * (accuracy - 0.6))}
    return [
        {"case": f"{dataset}{i}", "model": f"<b>m{i}</b>", "family": f"f{i % 6}", "dataset": dataset, "attack": attack,
         "purpose": "benchmark", "settings": "{}", "measure": measure, "value": value + random.normal(0, 1e-3), "n": 50}
        for measure, (attack, column) in values.items() for i, value in enumerate(column)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def hand_made():
    return frames.tidy([*rows(30), *rows(20, 1, "svhn")])


@pytest.mark.parametrize(
    "name, attack, method, auxiliary, measure, at",
    [
        ("accuracy.test", "target", None, None, "test_accuracy", None),
        ("membership.lira.auc", "membership", "lira", None, "auc", None),
        ("membership.lira.tpr@fpr=0.001", "membership", "lira", None, "tpr", "fpr=0.001"),
        ("stealing.knockoff@partial.agreement", "stealing", "knockoff", "partial", "agreement", None),
        ("stealing.auxiliary=imagenet.accuracy", "stealing", None, "out-of-distribution", "accuracy", None),
        ("evasion.fgsm.accuracy-drop@epsilon=0.03", "evasion", "fgsm", None, "accuracy-drop", "epsilon=0.03"),
    ],
)
def test_names_of_measurements(name, attack, method, auxiliary, measure, at):
    how = parse_name(name)
    assert (how["attack"], how["method"], how["auxiliary"], how["measure"], how["at"]) == (
        attack, method, auxiliary, measure, at,
    )  # fmt: skip
    assert json.loads(parse_name("stealing.surrogate=wrn-50.accuracy")["settings"]) == {"surrogate": "wrn-50"}


def test_the_settings_that_most_cases_have_count():
    frame = frames.tidy(
        [{"case": c, "attack": "x", "settings": s, "measure": "m", "value": v}
         for c, s, v in [("a", "{}", 1.0), ("b", "{}", 2.0), ("b", '{"k": 1}', 9.0)]]
    )  # fmt: skip
    assert frames.take(frame, Quantity("q", ("m",)))["value"].to_dict() == {"a": 1.0, "b": 2.0}


def test_a_figure_states_n_interval_and_test(hand_made):
    drawn = find_figure("securitynet-5").make(hand_made)
    by_group = drawn.statistics.set_index("group")
    assert by_group.loc["digits", "r"] == pytest.approx(-1, abs=0.01) and by_group.loc["digits", "n"] == 30
    assert "n = 30" in drawn.caption and "digits −" in drawn.caption and "p " in drawn.caption
    assert len(drawn.data) == 50


def test_a_figure_says_what_it_lacks(hand_made):
    with pytest.raises(MissingData, match="top 3"):
        find_figure("securitynet-14").make(hand_made)
    with pytest.raises(UnknownName, match="securitynet-5"):
        find_figure("securitynet-55")


def test_a_format_is_named_with_or_without_its_dot():
    assert [files.read_suffix(text) for text in ("png", ".png", ".PNG", " svg ")] == [".png", ".png", ".png", ".svg"]
    with pytest.raises(ConfigurationError, match="no format 'gif'"):
        files.read_suffix("gif")


def test_files_of_all_kinds(hand_made, tmp_path):
    one = find_figure("securitynet-5")
    drawn = one.make(hand_made)
    for suffix, start in [(".svg", b"<svg"), (".png", b"\x89PNG"), (".pdf", b"%PDF"), (".html", b"<!DOCTYPE")]:
        path = tmp_path / f"figure{suffix}"
        files.write_figure(one, drawn, path)
        assert path.read_bytes().startswith(start)
    page = (tmp_path / "figure.html").read_text()
    assert "<b>m0" not in page and "http" not in page.replace("http://www.w3.org", "")
    files.write_figure(one, drawn, tmp_path / "figure.csv")
    table = list(csv.DictReader((tmp_path / "figure.csv").open()))
    assert len(table) == 50 and {"model", "target", "stealing"} <= set(table[0])
    with pytest.raises(ConfigurationError, match="suffix of a known format"):
        files.write_figure(one, drawn, tmp_path / "figure.gif")


def test_roc_bands_are_medians_and_quartiles():
    rates = {0.01: [0.0, 0.02, 0.04, 0.1, 0.2], 0.1: [0.1, 0.2, 0.3, 0.4, 0.5]}
    frame = frames.tidy(
        [{"case": str(n), "attack": "membership", "method": "lira", "measure": "tpr", "at": f"fpr={fpr}",
          "value": value} for fpr, values in rates.items() for n, value in enumerate(values)]
    )  # fmt: skip
    table = find_figure("roc-bands").make(frame).statistics.set_index("fpr")
    assert table.loc[0.01, ["low", "median", "high"]].tolist() == pytest.approx([0.02, 0.04, 0.1])
    assert table.loc[0.1, ["low", "median", "high"]].tolist() == pytest.approx([0.2, 0.3, 0.4])
    with pytest.raises(MissingData, match="true-positive"):
        find_figure("roc-bands").make(frame[:0])


def test_sources_refuse_what_is_not_there(tmp_path):
    with pytest.raises(ConfigurationError, match="neither"):
        sources.load_frames("nowhere")
    with pytest.raises(ConfigurationError, match="no models"):
        sources.load_frames("catalog", db=str(tmp_path / "empty.db"))
    with pytest.raises(ConfigurationError, match="Write COLUMN=VALUE"):
        sources.parse_where(["dataset"])
    assert sources.parse_where(["dataset=a, b", "year=2016"]) == {"dataset": ["a", "b"], "year": ["2016"]}


def test_findings_follow_the_data(hand_made):
    claim = next(c for c in claims.EVERY if c.name == "stealing-falls-with-accuracy")
    rising = frames.tidy(rows(30, slope=1.0))
    random = frames.tidy([{**r, "value": np.random.default_rng(i).random()} for i, r in enumerate(rows(30))])
    for frame, status in [(hand_made, "supported"), (rising, "contradicted"), (random, "undecided")]:
        (found,) = findings.judge_claims([claim], frame)
        assert found.status == status and status.capitalize() in found.sentence
    assert findings.judge_claims([claim], hand_made[hand_made["attack"] == "target"])[0].status == "not tested"


@pytest.mark.real_data
def test_the_published_correlations_with_intervals(published):
    table = find_figure("securitynet-5").make(published).statistics.set_index("group")
    known = {"CIFAR-10": -0.703, "CIFAR-100": -0.780, "SVHN": -0.579, "CUB-200-2011": -0.637}
    for dataset, r in known.items():
        assert table.loc[dataset, "r"] == pytest.approx(r, abs=5e-4)
        assert table.loc[dataset, "low"] < r < table.loc[dataset, "high"]


@pytest.mark.real_data
@pytest.mark.slow
def test_all_figures_of_the_published_table_are_drawn(published, tmp_path):
    drawn = []
    for one in list_figures().values():
        if one.source.startswith("SecurityNet") and not one.missing(published):
            files.write_figure(one, one.make(published), tmp_path / f"{one.name}.svg")
            drawn.append(int(one.name.removeprefix("securitynet-").removeprefix("table-")))
    assert {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16, 17} <= set(drawn)


def test_a_chart_is_one_svg_whatever_was_drawn_before():
    chart = alt.Chart(pandas.DataFrame({"x": [1, 2], "y": [1, 2]})).mark_line(clip=True).encode(x="x", y="y")
    first, second = render.to_svg(chart), render.to_svg(chart)
    assert first == second and 'id="part-0"' in first and "url(#part-0)" in first


@pytest.mark.parametrize(("models", "drawn"), [(12, True), (41, False)])
def test_few_models_are_drawn_with_their_intervals(models, drawn):
    """Five points between 0.495 and 0.515 look like a trend, until their intervals show that each contains one half."""
    ended = [{**row, "low": row["value"] - 0.03, "high": row["value"] + 0.03} for row in rows(models)]
    figure = find_figure("securitynet-5").make(frames.tidy(ended))
    assert ("intervals of single models" in figure.caption) == drawn
    marks = [layer["mark"]["type"] for layer in figure.chart.to_dict()["layer"]]
    assert ("rule" in marks) == drawn
