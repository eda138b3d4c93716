"""Does halving one fixed pool bias the vulnerability of single records, against training sets from the population?

The same records are judged in two designs; each is in half of the training sets of both, all of one size:

- fixed pool: training sets are halves of one pool that holds the judged records (Carlini et al., 2022);
- population: each training set has its own half of the judged records, and is filled up with records drawn anew from
  all others of the dataset.

Each model is attacked by LiRA with the others of its design as shadow models. For each judged record: its AUC, the
chance that it scores higher under a model that was trained on it than under one that was not; the gap between its mean
confidences; and the deviation of its confidence under models of one side, over which the gap is judged. Jälkö et al.
(2026, arXiv 2605.25819) find that a fixed pool makes records look more vulnerable.

Usage: python benchmarks/finite_population.py FOLDER [--models M] [--size N] [--judged J] [--epochs E] [--device D]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from securitynet.analysis import statistics
from securitynet.attacks.membership._confidence import scale_confidence
from securitynet.attacks.membership._leave_one_out import score_each_model
from securitynet.datasets import load
from securitynet.datasets.base import ImageDataset
from securitynet.metrics import roc
from securitynet.models.store.cached_model import ModelSpec, obtain_model
from securitynet.models.targets.signals import collect_signals
from securitynet.models.training.recipe import Recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", type=int, default=48, help="of each design")
    parser.add_argument("--size", type=int, default=200, help="training records of a model")
    parser.add_argument("--judged", type=int, default=80)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--architecture", default="simple-cnn")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    dataset = load(arguments.dataset)
    order = np.random.default_rng(0).permutation(len(dataset))
    judged, pool = np.sort(order[: arguments.judged]), np.sort(order[: 2 * arguments.size])
    found = {}
    for design in ("fixed pool", "population"):
        sets = draw_sets(design, dataset, judged, pool, arguments)
        signals, included = [], []
        for number, records in enumerate(sets):
            recipe = Recipe(epochs=arguments.epochs, learning_rate=0.05, schedule="constant", seed=number)
            spec = ModelSpec(
                dataset, records, dataset.labels[records], dataset.num_classes, arguments.architecture, recipe
            )
            model = obtain_model(spec, kind="shadows", cache=arguments.folder, device=arguments.device)
            outputs = collect_signals(model.target, dataset, judged, cache=arguments.folder)
            signals.append(scale_confidence(outputs.logits, outputs.labels))
            included.append(np.isin(judged, records))
        found[design] = measure(np.array(signals), np.array(included))
        print_row(design, found[design])
    difference = {name: found["fixed pool"][name] - found["population"][name] for name in found["population"]}
    print_row("difference", difference)


def draw_sets(
    design: str,
    dataset: ImageDataset,
    judged: NDArray[np.int64],
    pool: NDArray[np.int64],
    arguments: argparse.Namespace,
) -> list[NDArray[np.int64]]:
    """Training sets of one design; each judged record is in exactly half of them, and all have the same size."""
    random = np.random.default_rng(1)
    count, size = arguments.models, arguments.size
    if design == "fixed pool":
        inside = draw_halves(random, count, len(pool))
        return [pool[row] for row in inside]
    others = np.setdiff1d(np.arange(len(dataset)), judged)
    inside = draw_halves(random, count, len(judged))
    filled = [random.choice(others, size - int(row.sum()), replace=False) for row in inside]
    return [np.sort(np.concatenate([judged[row], rest])) for row, rest in zip(inside, filled, strict=True)]


def draw_halves(random: np.random.Generator, count: int, records: int) -> NDArray[np.bool_]:
    """Pairs of complementary halves, so that each record is in half of the sets and each set has half of them."""
    rows = []
    for _ in range(count // 2):
        half = random.permutation(records) < records // 2
        rows += [half, ~half]
    return np.array(rows)


def measure(signals: NDArray[np.float64], included: NDArray[np.bool_]) -> dict[str, NDArray[np.float64]]:
    """AUC, gap and deviation of each judged record."""
    scores = score_each_model(signals, included, balanced=True)
    aucs, gaps, deviations = [], [], []
    for record, inside in enumerate(included.T):
        first, second = signals[inside, record], signals[~inside, record]
        aucs.append(roc.compute_auc(scores[inside, record], scores[~inside, record]))
        gaps.append(first.mean() - second.mean())
        deviations.append(np.sqrt((first.var(ddof=1) + second.var(ddof=1)) / 2))
    return {"AUC": np.array(aucs), "gap": np.array(gaps), "deviation": np.array(deviations)}


def print_row(name: str, values: dict[str, NDArray[np.float64]]) -> None:
    cells = [(key, statistics.estimate_mean(array)) for key, array in values.items()]
    text = "; ".join(f"{key} {mean.value:.3f} ({mean.low:.3f} to {mean.high:.3f})" for key, mean in cells)
    print(f"{name}, {len(values['AUC'])} records: {text}", flush=True)


if __name__ == "__main__":
    main()
