"""The papers' numbers beside ours: ML-Doctor's own tables and SecurityNet's published one, against pandas."""

from __future__ import annotations

import csv
import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas
import pytest

from securitynet.analysis import claims, findings, frames, sources
from securitynet.analysis import quantities as q
from securitynet.analysis.figures.declared import find_figure, list_figures
from securitynet.analysis.ml_doctor_quantities import INVERSION, MEMBERSHIP, STEALING
from securitynet.analysis.papers import every, ml_doctor, securitynet
from securitynet.analysis.papers.compare import compare_with_papers, describe_papers
from securitynet.cli.findings import describe_claim, describe_number


@pytest.fixture(scope="module")
def tables() -> pandas.DataFrame:
    return sources.load_frames("ml-doctor")


def test_names_are_unique_and_figures_exist() -> None:
    printed = [*securitynet.PRINTED, *securitynet.DATABASE, *ml_doctor.PRINTED, *ml_doctor.CELLS]
    assert len({one.name for one in printed}) == len(printed)
    assert {name for one in printed for name in one.figures} <= list_figures().keys()
    known = {one.name for one in printed}
    assert {name for claim in claims.EVERY for name in claim.printed} <= known


def test_the_paper_s_tables_hold_all_cells(tables: pandas.DataFrame) -> None:
    cells = [cell for cell in ml_doctor.read_cells() if cell.where.startswith("Table")]
    counts = pandas.Series([cell.where for cell in cells]).value_counts()
    assert counts.to_dict() == {"Table 2": 40, "Table 3": 116, "Table 4": 72, "Table 5": 12}
    assert tables["case"].nunique() == 20 + 8 + 4  # Table 2, two epsilons on four datasets, four students
    rows = frames.widen(tables, {"gap": q.OVERFITTING}).set_index("case")["gap"].dropna()
    assert len(rows) == 20 and rows["ml-doctor/STL-10/simple-cnn"] == pytest.approx(0.48)


def test_ml_doctor_s_correlations_pooled_and_within_against_pandas(tables: pandas.DataFrame) -> None:
    chosen = [claim for claim in claims.EVERY if claim.name.startswith(("overfitting-", "membership-against-"))]
    found = {one.claim.name: one for one in findings.judge_claims(chosen, tables)}
    wide = frames.widen(tables[tables["defense"].isna()], {
        "x": MEMBERSHIP["black_shadow"], "w": MEMBERSHIP["white_shadow"], "y": STEALING["stealing_shadow"],
        "i": INVERSION["inversion_accuracy"], "o": q.OVERFITTING,
    })  # fmt: skip
    for name, x, y, pooled, within in (
        ("membership-against-stealing", "x", "y", -0.878, -0.074),
        ("overfitting-stealing", "o", "y", -0.943, 0.871),
        ("overfitting-membership", "o", "w", 0.982, 0.583),
        ("membership-against-inversion", "w", "i", -0.704, 0.392),
    ):
        rows = wide[["dataset", x, y]].dropna()
        centred = rows[[x, y]] - rows.groupby("dataset")[[x, y]].transform("mean")
        outcome = found[name].tested
        assert outcome is not None and outcome.label == "pooled over 4 datasets"
        assert outcome.estimate.value == pytest.approx(rows[x].corr(rows[y])) == pytest.approx(pooled, abs=5e-4)
        ((label, beside),) = outcome.beside
        assert label == "within 4 datasets"
        assert beside.value == pytest.approx(centred[x].corr(centred[y])) == pytest.approx(within, abs=5e-4)
        assert found[name].status == "undecided", "eight targets of four datasets"
    (number,) = every.compare_every(tables)
    assert number.printed.value == -0.90 and number.agreement == "agrees"
    assert json.dumps([describe_claim(one) for one in found.values()])
    drawn = find_figure("ml-doctor-10").make(tables)
    assert "−0.90 in the paper, −0.88" in drawn.caption


def test_dp_sgd_and_the_error_of_inversion_against_pandas(tables: pandas.DataFrame) -> None:
    (chosen,) = [claim for claim in claims.EVERY if claim.name == "dp-sgd-inversion-error"]
    (found,) = findings.judge_claims([chosen], tables)
    rows = frames.widen(tables, {"error": INVERSION["inversion_error"]})
    rows = rows[rows["architecture"] == "simple-cnn"]
    plain = rows[rows["defense"].isna()].set_index("dataset")["error"]
    defended = rows[rows["defense"] == "dp-sgd"]
    change = defended["error"] / defended["dataset"].map(plain) - 1
    assert found.status == "supported" and found.estimate is not None and found.estimate.n == 8
    assert found.estimate.value == pytest.approx(change.mean()) == pytest.approx(0.01 / 0.98 / 4)


@pytest.mark.real_data
def test_the_published_table_s_numbers_against_pandas(published: pandas.DataFrame) -> None:
    compared = {item.printed.name: item for item in every.compare_every(published, database=True)}
    wide = frames.widen(published, {"accuracy": q.TARGET_ACCURACY, "gap": q.OVERFITTING,
                                    "stealing": q.STEALING_ACCURACY,
                                   "agreement": q.STEALING_AGREEMENT, "other": q.STEALING_OTHER_DATA,
                                   "larger": q.STEALING_LARGER, "auc": q.MODIFIED_ENTROPY_AUC})  # fmt: skip
    benchmark = wide[wide["purpose"] == "benchmark"]
    on = {securitynet.shorten_dataset(str(name)): rows for name, rows in benchmark.groupby("dataset")}
    expected = {
        "agreement-accuracy": benchmark[benchmark["dataset"].isin(securitynet.DATASETS)][["stealing", "agreement"]]
        .corr().iloc[0, 1],
        **{f"stealing-{name}": on[name]["stealing"].corr(on[name]["accuracy"])
           for name in ("cifar10", "svhn", "imagenet1k", "cifar100")},
        **{f"ratio-{name}": on[name]["stealing"].mean() / on[name]["accuracy"].mean()
           for name in ("cifar10", "svhn", "imagenet1k")},
        **{f"other-data-{name}": (on[name]["other"] / on[name]["stealing"] - 1).mean()
           for name in ("svhn", "cifar10", "cifar100", "cub2002011")},
        **{f"larger-surrogate-{name}": (on[name]["larger"] / on[name]["stealing"] - 1).mean()
           for name in ("svhn", "cifar10", "cifar100")},
        **{f"membership-{name}": on[name]["auc"].corr(on[name]["gap"]) for name in ("cifar10", "imagenet1k")},
        "models-all": 529, "models-benchmark": 437, "models-security": 92,
    }  # fmt: skip
    for name, number in expected.items():
        assert compared[name].here.value == pytest.approx(number), name
    differing = compared["membership-imagenet1k"]
    assert differing.agreement == "differs" and round(differing.here.value, 3) == 0.927
    assert next(iter(compared)) == "membership-imagenet1k", "what differs most is said first"
    assert compared["other-data-cub2002011"].here_text.startswith("−21.4")
    assert "stealing-security-high" not in compared, "the table has no high-performing security model"
    assert json.dumps([describe_number(item) for item in compared.values()])
    text = every.describe_for("securitynet-13", published)
    assert "Differs from the paper: Modified entropy × overfitting level, ImageNet-1k: 0.247 in the paper" in text
    assert "no high-performing cluster" in find_figure("securitynet-9").make(published).caption


@pytest.mark.real_data
@pytest.mark.slow
def test_the_published_table_s_claims(published: pandas.DataFrame) -> None:
    names = ("stealing-low-cluster", "stealing-high-cluster", "high-accuracy-imagenet", "other-data-svhn",
             "agreement-follows-accuracy")  # fmt: skip
    chosen = [claim for claim in claims.EVERY if claim.name in names]
    found = {one.claim.name: one for one in findings.judge_claims(chosen, published)}
    assert found["stealing-low-cluster"].status == "supported"
    high = found["stealing-high-cluster"]
    assert high.status == "not tested" and "accuracies of 68 to 82%" in high.sentence
    assert found["high-accuracy-imagenet"].estimate.value == 1.0
    assert found["other-data-svhn"].status == "supported"
    assert found["agreement-follows-accuracy"].status == "supported"


def test_further_claims_from_ml_doctor_s_columns_as_printed(tables: pandas.DataFrame) -> None:
    """Recomputed from the file of printed cells, by no code that findings use."""
    text = files("securitynet.analysis.papers").joinpath("ml_doctor.csv").read_text(encoding="utf-8").splitlines()
    cells = pandas.DataFrame(csv.DictReader(text)).query("where.str.startswith('Table')")
    long = cells.melt(["where", "architecture", "defense", "quantity"], var_name="dataset").query("value != ''")
    rows = long.astype({"value": float}).pivot_table(
        index=["dataset", "architecture", "defense"], columns="quantity", values="value"
    )
    plain = rows.xs("", level="defense")
    dp = rows[rows.index.get_level_values("defense").str.startswith("dp-sgd")].droplevel("defense")
    pooled = plain[["black_partial", "stealing_partial"]].dropna()
    centred = pooled - pooled.groupby("dataset").transform("mean")
    hardest = 1 - plain["test"].groupby("dataset").max()
    expected = {
        "membership-against-stealing-partial": pooled.corr().iloc[0, 1],
        "complexity-inversion": hardest.corr(plain["inversion_accuracy"].groupby("dataset").mean(), "spearman"),
        "shadow-steals-better": (plain["stealing_shadow"] - plain["stealing_partial"]).mean(),
        "white-box-partial-stronger": (plain["white_partial"] - plain["black_partial"]).mean(),
        **{f"dp-sgd-{claim}": (dp[name] - plain[name].reindex(dp.index)).mean()
           for claim, name in (("membership", "white_shadow"), ("inversion", "inversion_accuracy"),
                               ("stealing", "stealing_shadow"), ("utility", "test"))},
    }  # fmt: skip
    chosen = [claim for claim in claims.EVERY if claim.name in expected]
    found = {one.claim.name: one for one in findings.judge_claims(chosen, tables)}
    for name, value in expected.items():
        assert found[name].estimate is not None and found[name].estimate.value == pytest.approx(value), name
    tested = found["membership-against-stealing-partial"].tested
    assert tested is not None and tested.label == "pooled over 4 datasets"
    assert tested.beside[0][1].value == pytest.approx(centred.corr().iloc[0, 1])


@pytest.mark.real_data
def test_further_claims_from_the_published_columns(published: pandas.DataFrame, shared_data: Path) -> None:
    """Recomputed from the table as it is published, where 0 stands for what was not measured."""
    text = (shared_data / "securitynet-database.md").read_text(encoding="utf-8").split("## Benchmark Models\n")[1]
    head, _, *body = [[cell.strip() for cell in line.strip("| ").split("|")]
                      for line in text.split("\n\n")[0].splitlines()]  # fmt: skip
    table = pandas.DataFrame(body, columns=head)
    names = {"Test Accuracy": "target", "Overfit Gap": "gap", "Model Stealing Accuracy": "stealing",
             "Correct Auc": "correctness", "M_entropy AUC": "entropy", "Year": "year"}  # fmt: skip
    values = table[[*names]].astype(float).replace(0, np.nan).rename(columns=names).assign(data=table["Data Name"])
    paper = values[values["data"].isin(["CIFAR-10", "CIFAR-100", "SVHN", "ImageNet1k", "CUB-200-2011"])]
    imagenet, birds = (paper[paper["data"] == name] for name in ("ImageNet1k", "CUB-200-2011"))

    def within(x: str, y: str) -> float:
        rows = paper[["data", x, y]].dropna()
        centred = rows[[x, y]] - rows.groupby("data")[[x, y]].transform("mean")
        return float(centred[x].corr(centred[y]))

    expected = {
        "stealing-falls-with-accuracy": within("target", "stealing"),
        "membership-follows-overfitting": within("gap", "entropy"),
        "correctness-weaker": (paper["entropy"] - paper["correctness"]).mean(),
        "cub-below-imagenet": birds["stealing"].mean() - imagenet["stealing"].mean(),
        "newer-more-accurate": imagenet["year"].corr(imagenet["target"], "spearman"),
        "membership-cub": (birds["entropy"].dropna() > 0.8).mean(),
    }
    chosen = [claim for claim in claims.EVERY if claim.name in expected]
    found = {one.claim.name: one for one in findings.judge_claims(chosen, published)}
    for name, value in expected.items():
        assert found[name].estimate is not None and found[name].estimate.value == pytest.approx(value), name
    for name in ("stealing-falls-with-accuracy", "membership-follows-overfitting"):
        tested = found[name].tested
        assert tested is not None and tested.label == "within 5 datasets"


def test_a_cell_is_compared_with_the_mean_over_seeds() -> None:
    about = {"attack": "target", "measure": "test_accuracy", "dataset": "CelebA", "architecture": "simple-cnn",
             "settings": "{}", "model": "m"}  # fmt: skip
    rows = [{**about, "case": f"p{n}", "value": 0.70 + n / 100, "seed": n} for n in range(3)]
    rows += [{**about, "case": f"d{n}", "value": 0.40 + n / 1000, "seed": n, "defense": "dp-sgd",
              "setting": "setting 1", "epsilon": 5.14} for n in range(3)]  # fmt: skip
    found = {item.printed.name: item for item in every.compare_every(frames.tidy(rows))}
    plain = found["Table 2/CelebA/simple-cnn/test"]
    assert plain.agreement == "agrees" and plain.here.value == pytest.approx(0.71) and plain.here.n == 3
    defended = found["Table 5/CelebA/simple-cnn/dp-sgd/setting 1/test"]
    assert defended.agreement == "differs" and defended.here.value == pytest.approx(0.401)
    assert found["Table 3/CelebA/simple-cnn/dp-sgd/setting 1/epsilon"].agreement == "agrees"
    text = describe_papers(list(found.values()))
    assert text.index("Differs from the paper") < text.index("In agreement")
    assert not compare_with_papers(securitynet.PRINTED, frames.tidy(rows)), "nothing of SecurityNet's is in such data"


def test_the_interval_decides_on_agreement() -> None:
    (ratio,) = [one for one in securitynet.PRINTED if one.name == "accuracy-imagenet-mean"]
    about = {"attack": "target", "measure": "test_accuracy", "dataset": "ImageNet-1k", "settings": "{}"}
    for centre, agreement in ((0.731, "agrees"), (0.70, "agrees"), (0.60, "differs")):
        values = centre + np.linspace(-0.08, 0.08, 9)
        rows = [{**about, "case": f"m{n}", "model": f"m{n}", "value": number} for n, number in enumerate(values)]
        (found,) = compare_with_papers([ratio], frames.tidy(rows))
        assert found.agreement == agreement


def test_models_that_were_not_stolen_are_not_counted_as_stolen() -> None:
    (stolen,) = [one for one in securitynet.PRINTED if one.name == "stolen-models"]
    about = {"dataset": "CIFAR-10", "settings": "{}", "purpose": "benchmark"}
    rows = [
        {**about, "case": name, "model": name, "attack": attack, "measure": measure, "value": 0.8}
        for name, attack, measure in (
            ("stolen", "stealing", "accuracy"),
            ("stolen", "target", "test_accuracy"),
            ("known", "target", "test_accuracy"),
        )
    ]
    assert [item.here.value for item in compare_with_papers([stolen], frames.tidy(rows))] == [1.0]
