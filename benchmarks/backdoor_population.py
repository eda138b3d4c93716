"""Neural Cleanse over a population: clean and backdoored models trained by the tool, by kind of backdoor.

No timing against a peer. For each dataset and kind: how many models the verdict accuses ("backdoor found" or
"suspicious") and finds, with exact intervals, whether it names a true target, and what the paper's rule and the p-value
alone would have said. A backdoor that did not take (success below 80%) is counted and judges no detector.

Results are stored as JSON Lines, and a run goes on where an earlier one stopped. The defaults take a few minutes:

    python benchmarks/backdoor_population.py
    python benchmarks/backdoor_population.py --datasets digits parquet:DIR --kinds clean patch blended --seeds 20
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import securitynet.datasets
from securitynet.backdoors.badnets import Badnets
from securitynet.backdoors.base import Backdoor
from securitynet.backdoors.blended import Blended
from securitynet.backdoors.warp import Warp
from securitynet.datasets import splits
from securitynet.datasets.base import ImageDataset
from securitynet.detectors.neural_cleanse import NeuralCleanse
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.metrics import rates
from securitynet.metrics.backdoor_verdict import WORDS
from securitynet.models.store.train_target import train_target
from securitynet.models.training.poisoned_dataset import PoisonedDataset, TriggeredImages

TRAINING = {"epochs": 20, "optimizer": "adam", "learning_rate": 2e-3, "schedule": "cosine", "weight_decay": 0}
TOOK = 0.8
"""Attack success from which on a backdoor counts as planted."""


class SeveralTargets:
    """Several backdoors in one model, each with its own trigger and target.

    Args:
        parts: The backdoors.
    """

    def __init__(self, parts: Sequence[Backdoor]) -> None:
        self.parts = parts

    def poison(self, dataset: ImageDataset, members: np.ndarray) -> PoisonedDataset:
        """Poison a training set with all of them, each in other records."""
        current, done, records = dataset, np.empty(0, np.int64), []
        for part in self.parts:
            poisoned = part.poison(current, np.setdiff1d(members, done))
            done = np.union1d(done, poisoned.indices)
            current = dataclasses.replace(current, images=poisoned.images, labels=poisoned.labels, content_digest=None)
            records.append(poisoned.record)
        settings = {"parts": [record.settings for record in records]}
        record = records[0].model_copy(update={"settings": settings, "target": None, "poisoned": len(done)})
        return PoisonedDataset(poisoned.images, poisoned.labels, done, record)

    def triggered(self, dataset: ImageDataset, indices: np.ndarray) -> TriggeredImages:
        """Put the first trigger on records."""
        return self.parts[0].triggered(dataset, indices)


def make_kind(kind: str, dataset: ImageDataset, seed: int) -> tuple[object | None, list[int]]:
    """(a backdoor of a kind, its targets); None for a clean model."""
    side, classes = min(dataset.image_shape[1:]), dataset.num_classes
    goal = seed % classes
    if kind == "clean":
        return None, []
    if kind == "patch":
        return Badnets(target=goal, seed=seed), [goal]
    if kind == "large-patch":
        return Badnets(target=goal, seed=seed, size=round(0.375 * side), margin=0), [goal]
    if kind == "blended":
        return Blended(target=goal, seed=seed), [goal]
    if kind == "warp":
        return Warp(target=goal, seed=seed), [goal]
    if kind == "all-to-all":
        return Badnets(mapping="all-to-all", seed=seed), []
    count = int(kind.removeprefix("targets-"))
    corners = ("bottom-right", "top-left", "bottom-left", "top-right")
    goals = [(goal + 3 * number) % classes for number in range(count)]
    parts = [Badnets(target=g, corner=c, rate=0.08, seed=seed) for g, c in zip(goals, corners, strict=False)]
    return SeveralTargets(parts), goals


def judge_model(kind: str, seed: int, dataset: ImageDataset, arguments: argparse.Namespace) -> dict:
    """Train a model, search it, and return what was measured."""
    backdoor, goals = make_kind(kind, dataset, seed)
    start = time.process_time()
    target = train_target(
        arguments.architecture, dataset, split="public", split_seed=seed, seed=seed, device="cpu", backdoor=backdoor,
        **{**TRAINING, "epochs": arguments.training_epochs},
    )  # fmt: skip
    parts = splits.make("public", dataset, seed=seed)
    trained = time.process_time()
    success = None
    if backdoor is not None:
        shown = backdoor.triggered(dataset, parts.non_members[:1000])
        images = shown.images[torch.as_tensor(shown.indices)]
        with torch.inference_mode():
            success = float((target.module(images.float() / 255).argmax(dim=1).numpy() == shown.goals).mean())
    method = NeuralCleanse(
        patience=arguments.patience,
        images=arguments.images,
        epochs=arguments.epochs,
        restarts=arguments.restarts,
        batch_size=arguments.batch_size,
    )
    output = method(target, TrialData(dataset, parts), Context(seed=seed), method.threat_models[0])
    measured = {m.name: m for m in output.measurements(level=0.95, fprs=(), seed=0)}
    names = ("p-value", "anomaly-index", "smallest-trigger", "smallest-to-median", "fresh-success", "detectable-ratio")
    return {
        "dataset": dataset.reference, "kind": kind, "seed": seed, "targets": goals, "success": success,
        "verdict": int(measured["verdict"].value), "sentence": measured["verdict"].note,
        "label": None if measured["suspect-label"].value is None else int(measured["suspect-label"].value),
        **{name: measured[name].value if name in measured else None for name in names},
        "p-low": measured["p-value"].low, "p-high": measured["p-value"].high,
        "repeats": [[norm if np.isfinite(norm) else None for norm in one] for one in output.repeats],
        "training_seconds": trained - start, "search_seconds": time.process_time() - trained,
    }  # fmt: skip


def show(rows: list[dict]) -> None:
    """Print a row for each dataset and kind."""
    print(
        f"{'dataset':>10} {'kind':>12} {'took':>7} {'accused (95% interval)':>32} {'found':>7} {'undecided':>9} "
        f"{'label':>7} {'rule':>7} {'p<=5%':>7} {'norm/median':>11}"
    )
    for key in dict.fromkeys((row["dataset"].rpartition("/")[2], row["kind"]) for row in rows):
        group = [row for row in rows if (row["dataset"].rpartition("/")[2], row["kind"]) == key]
        took = [row for row in group if row["success"] is None or row["success"] >= TOOK]
        if not took:
            print(f"{key[0]:>10} {key[1]:>12} {f'0/{len(group)}':>7}")
            continue

        def count(hits: Sequence[bool]) -> str:
            return f"{sum(hits)}/{len(hits)}"

        accused = [row["verdict"] >= WORDS.index("suspicious") for row in took]
        low, high = rates.clopper_pearson(sum(accused), len(accused), 0.95)
        ratio = np.median([row["smallest-to-median"] or 1.0 for row in took])
        named = [row["label"] in row["targets"] for row in took] if took[0]["targets"] else []
        print(
            f"{key[0]:>10} {key[1]:>12} {f'{len(took)}/{len(group)}':>7} "
            f"{f'{count(accused)} ({100 * low:.0f}% to {100 * high:.0f}%)':>32} "
            f"{count([row['verdict'] == 3 for row in took]):>7} {count([row['verdict'] == 1 for row in took]):>9} "
            f"{count(named) if named else '':>7} "
            f"{count([(row['anomaly-index'] or 0) > 2 for row in took]):>7} "
            f"{count([(row['p-value'] or 1) <= 0.05 for row in took]):>7} {ratio:>11.2f}"
        )


def main() -> None:
    """Train and search what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="*", default=["digits"], help="dataset references")
    parser.add_argument(
        "--kinds",
        nargs="*",
        default=["clean", "patch", "large-patch", "blended", "targets-2", "targets-3"],
        help="clean, patch, large-patch, blended, warp, all-to-all, targets-2 to targets-4",
    )
    parser.add_argument("--seeds", type=int, default=3, help="models of each dataset and kind")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--architecture", default="simple-cnn")
    parser.add_argument("--training-epochs", type=int, default=20)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--patience", type=int, default=5)
    parser.add_argument("--restarts", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("population.jsonl"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out.exists() else []
    done = {(row["dataset"], row["kind"], row["seed"]) for row in rows}
    with arguments.out.open("a") as file:
        for reference in arguments.datasets:
            dataset = securitynet.datasets.load(reference)
            for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
                for kind in arguments.kinds:
                    if (dataset.reference, kind, seed) in done:
                        continue
                    rows.append(judge_model(kind, seed, dataset, arguments))
                    file.write(json.dumps(rows[-1]) + "\n")
                    file.flush()
    show(rows)


if __name__ == "__main__":
    main()
