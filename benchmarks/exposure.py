"""Exposure of single records without shadow models, against LiRA, on many small targets.

For each of several recipes, models are trained on the members of different splits, with their losses kept. Each takes
the role of the target in turn, with the others of its recipe as shadow models (leave-one-out LiRA). Three questions:

- does the interquartile range of a record's loss trace (arXiv 2411.05743) find the records that LiRA identifies?
  Precision among the 1%, 3% and 10% ranked highest, beside that of the final loss and of chance;
- does the true-negative rate of the loss attack (arXiv 2510.19773) predict LiRA's TPR, over all targets? Rank
  correlations, beside those of the overfitting level and of the AUC of the loss;
- how reliable is the ranking of one model?

The null case repeats the first two questions for models whose members are exchanged for records that they were not
trained on. Trained models are kept in the folder, and a run that was stopped continues.

Usage: python benchmarks/exposure.py FOLDER [--models N] [--dataset D] [--architecture A] [--fpr F] [--device D]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from securitynet.analysis import statistics
from securitynet.attacks.membership._confidence import log_confidence, scale_confidence
from securitynet.attacks.membership._leave_one_out import score_each_model
from securitynet.datasets import load
from securitynet.metrics import roc, vulnerability
from securitynet.models.store.effective_splits import restore_splits
from securitynet.models.store.record_files import read_target_record
from securitynet.models.store.train_target import train_target
from securitynet.models.targets.signals import collect_signals
from securitynet.models.training.loss_traces import read_loss_traces

RECIPES = {
    "8 epochs": {"epochs": 8},
    "25 epochs": {"epochs": 25},
    "60 epochs": {"epochs": 60},
}
SHARES = (0.01, 0.03, 0.1)


class Models:
    """The models of one recipe: signals, losses, members and traces over all N records."""

    def __init__(self, name: str, recipe: dict[str, float], arguments: argparse.Namespace) -> None:
        dataset = load(arguments.dataset)
        everything = np.arange(len(dataset))
        self.signals, self.losses, self.included, self.traces, self.overfitting = [], [], [], [], []
        for number in range(arguments.models):
            out = arguments.folder / name.replace(" ", "-").replace(",", "") / f"{number}.safetensors"
            target = train_target(
                arguments.architecture,
                dataset,
                out=out,
                seed=number,
                split_seed=number,
                learning_rate=0.05,
                schedule="constant",
                device=arguments.device,
                keep_losses=True,
                **recipe,
            )
            record = read_target_record(out)
            assert record is not None
            outputs = collect_signals(target, dataset, everything, cache=arguments.folder / "cache")
            self.signals.append(scale_confidence(outputs.logits, outputs.labels))
            self.losses.append(-log_confidence(outputs.logits, outputs.labels))
            self.included.append(np.isin(everything, restore_splits(record, dataset).members))
            kept = read_loss_traces(out, record.key)
            assert kept is not None
            trace = np.full((len(kept.losses), len(dataset)), np.nan)
            trace[:, kept.records] = kept.losses
            self.traces.append(trace)
            self.overfitting.append(record.overfitting)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", type=int, default=16, help="of each recipe")
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--architecture", default="simple-cnn")
    parser.add_argument("--fpr", type=float, default=0.01)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    rows: list[dict[str, float | str]] = []
    for name, recipe in RECIPES.items():
        models = Models(name, recipe, arguments)
        included = np.array(models.included)
        scores = score_each_model(np.array(models.signals), included, balanced=False)
        rows += measure_targets(name, models, scores, included, arguments.fpr)
        shuffled = shuffle_members(included)
        rows += measure_targets(f"{name}, null", models, scores, shuffled, arguments.fpr)
        signals = np.array(models.signals)
        ranking = vulnerability.measure_reliability(
            lambda members, signals=signals: score_each_model(signals, members, balanced=False), included, 0.03
        )
        print(
            f"{name}: of the 3% most exposed members of one model, {ranking.value:.1%} are those of another "
            f"(by chance {ranking.chance:.1%}, at most {ranking.chance_high:.1%})",
            flush=True,
        )
    report(rows)


def shuffle_members(included: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Exchange the members of each target for as many records that it was not trained on."""
    random = np.random.default_rng(0)
    exchanged = np.zeros_like(included)
    for row, inside in zip(exchanged, included, strict=True):
        row[random.choice(np.flatnonzero(~inside), int(inside.sum()), replace=False)] = True
    return exchanged


def measure_targets(
    name: str, models: Models, scores: NDArray[np.float64], members: NDArray[np.bool_], fpr: float
) -> list[dict[str, float | str]]:
    """One row per target; non-members are those that it was not trained on, without the records taken for members."""
    rows = []
    for target, inside in enumerate(members):
        outside = ~inside & ~models.included[target]
        others = np.sort(scores[target][outside])
        above = scores[target][inside] > others[len(others) - 1 - roc.count_allowed(fpr, len(others))]
        losses = models.losses[target]
        row: dict[str, float | str] = {
            "recipe": name,
            "LiRA's TPR": float(above.mean()),
            "TNR of the loss": float(
                vulnerability.compute_tnr_at_fnr(-losses[inside], -losses[outside], fpr).value or np.nan
            ),
            "AUC of the loss": roc.compute_auc(-losses[inside], -losses[outside]),
            "overfitting": models.overfitting[target],
        }
        if (members[target] == models.included[target]).all():  # traces of members only
            spread = vulnerability.compute_loss_trace_iqr(models.traces[target][:, inside])
            for share in SHARES:
                row[f"IQR {share:.0%}"] = vulnerability.compute_precision(spread, above, share)
                row[f"loss {share:.0%}"] = vulnerability.compute_precision(losses[inside], above, share)
        rows.append(row)
    return rows


def report(rows: list[dict[str, float | str]]) -> None:
    """Print precisions by recipe, and correlations over all targets."""
    for name in dict.fromkeys(row["recipe"] for row in rows):
        chosen = [row for row in rows if row["recipe"] == name]
        means = {key: np.mean([float(row[key]) for row in chosen]) for key in chosen[0] if key != "recipe"}
        print(f"{name} ({len(chosen)} targets): " + ", ".join(f"{key} {value:.3f}" for key, value in means.items()))
    for null in (False, True):
        chosen = [row for row in rows if str(row["recipe"]).endswith("null") is null]
        truth = np.array([float(row["LiRA's TPR"]) for row in chosen])
        recipe = np.array([row["recipe"] for row in chosen])
        for key in ("TNR of the loss", "AUC of the loss", "overfitting"):
            values = np.array([float(row[key]) for row in chosen])
            over_all = statistics.estimate_correlation(values, truth, kind="spearman")
            within = statistics.estimate_correlation(values, truth, kind="spearman", strata=recipe)
            fitted = stats.linregress(values, truth)
            error = float(np.sqrt(np.mean((truth - fitted.intercept - fitted.slope * values) ** 2)))
            print(
                f"{'null: ' if null else ''}{key} and LiRA's TPR over {len(chosen)} targets: rank correlation "
                f"{over_all.value:.2f} ({over_all.low:.2f} to {over_all.high:.2f}), within recipes {within.value:.2f} "
                f"({within.low:.2f} to {within.high:.2f}), error of the straight line {error:.3f}"
            )


if __name__ == "__main__":
    main()
