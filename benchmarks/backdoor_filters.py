"""Filters of inputs and inspections of training data side by side: the same models, images and triggers for all.

No timing against a peer. For each kind of backdoor and each filter: the share of clean images that is stopped, that of
images on which the trigger works, and the AUC. For each inspection of training data: how often it accuses a class, and
the shares of poisoned and of other records that look poisoned. A backdoor that did not take (success below 80%) judges
no detector. Clean models show the false alarms.

Results are stored as JSON Lines, and a run goes on where an earlier one stopped:

    python benchmarks/backdoor_filters.py
    python benchmarks/backdoor_filters.py --dataset parquet:DIR --image-size 16 --architecture cifar-resnet20 --seeds 3
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import securitynet.datasets
from securitynet.backdoors.base import make_backdoor
from securitynet.datasets import splits
from securitynet.datasets.base import ImageDataset
from securitynet.detectors import DETECTORS
from securitynet.detectors._filters import InputFilter
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.store.train_target import train_target
from securitynet.models.training.poisoned_dataset import TOOK

TRAINING = {"optimizer": "adam", "learning_rate": 2e-3, "schedule": "cosine", "weight_decay": 0}

FILTERS = ("strip", "scale-up", "ibd-psc", "teco")
INSPECTIONS = ("activation-clustering", "spectral-signatures", "two-sample")

KINDS: dict[str, list[str] | None] = {
    "clean": None,
    "badnets": ["target=1", "rate=0.1"],
    "blended": ["target=1", "rate=0.1"],
    "warp": ["target=1", "strength=1", "rate=0.15"],
    "several-targets": ["target=1", "rate=0.24"],
    "source-specific": ["target=1"],
}
"""Backdoors with their settings."""


def judge_model(
    kind: str, seed: int, dataset: ImageDataset, arguments: argparse.Namespace, detectors: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Train a model, run the detectors on it, and return what each of them measured."""
    settings = KINDS[kind]
    backdoor = None if settings is None else make_backdoor(kind, [*settings, f"seed={seed}"])
    target = train_target(
        arguments.architecture, dataset, split="public", split_seed=seed, seed=seed, device="cpu", backdoor=backdoor,
        **{**TRAINING, "epochs": arguments.training_epochs},
    )  # fmt: skip
    data = TrialData(dataset, splits.make("public", dataset, seed=seed), backdoor=backdoor)
    accuracy = _measure_accuracy(target.module, dataset, data.splits.non_members)
    for name in detectors:
        cls = DETECTORS.get(name)
        fields = {"images": arguments.images} if issubclass(cls, InputFilter) else {}
        if "calibration" in cls.model_fields:
            fields["calibration"] = arguments.calibration
        detector, start = cls(**fields), time.process_time()
        context = Context(seed=seed)
        output = detector(target, data, context, detector.threat_models[0])
        measured = {m.name: m.value for m in output.measurements(level=0.95, fprs=(), seed=0)}
        yield {
            "kind": kind, "seed": seed, "detector": name, "accuracy": accuracy, **measured,
            "queries": context.queries().total, "seconds": time.process_time() - start,
        }  # fmt: skip


def _measure_accuracy(module: torch.nn.Module, dataset: ImageDataset, rows: np.ndarray) -> float:
    with torch.inference_mode():
        predicted = module(dataset.batch(rows).float() / 255).argmax(dim=1).numpy()
    return float((predicted == dataset.labels[rows]).mean())


def show(rows: list[dict[str, Any]]) -> None:
    """Print the two tables as Markdown: medians over the models of a kind, and how many of them are accused."""
    successes = {
        (row["kind"], row["seed"]): row["trigger-success-rate"]
        for row in rows
        if row.get("trigger-success-rate") is not None
    }
    rows = [row for row in rows if successes.get((row["kind"], row["seed"]), 1.0) >= TOOK]
    print("| backdoor | models | filter | clean images stopped | with the trigger stopped | AUC |")
    print("|---|---:|---|---:|---:|---:|")
    for kind in KINDS:
        for name in FILTERS:
            group = [row for row in rows if (row["kind"], row["detector"]) == (kind, name)]
            if group:
                cells = [_median(group, key, "{:.1%}") for key in ("false-rejection-rate", "detection-rate")]
                print(f"| {kind} | {len(group)} | {name} | {' | '.join(cells)} | {_median(group, 'auc', '{:.2f}')} |")
    print("\n| backdoor | models | inspection | accused | poisoned records found | others accused |")
    print("|---|---:|---|---:|---:|---:|")
    for kind in KINDS:
        for name in INSPECTIONS:
            group = [row for row in rows if (row["kind"], row["detector"]) == (kind, name)]
            if group:
                p_values = [next(row[key] for key in row if key.endswith("p-value")) for row in group]
                accused = sum(p_value is not None and p_value < 0.05 for p_value in p_values)
                false = "suspect-records" if kind == "clean" else "false-rejection-rate"
                cells = [_median(group, key, "{:.1%}") for key in ("detection-rate", false)]
                print(f"| {kind} | {len(group)} | {name} | {accused} of {len(group)} | {' | '.join(cells)} |")


def _median(group: list[dict[str, Any]], key: str, form: str) -> str:
    values = [row[key] for row in group if row.get(key) is not None]
    return form.format(float(np.median(values))) if values else ""


def main() -> None:
    """Train and judge what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits", help="dataset reference")
    parser.add_argument("--image-size", type=int, default=None)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--detectors", nargs="*", default=[*FILTERS, *INSPECTIONS])
    parser.add_argument("--seeds", type=int, default=1, help="models of each kind")
    parser.add_argument("--architecture", default="simple-cnn")
    parser.add_argument("--training-epochs", type=int, default=15)
    parser.add_argument("--images", type=int, default=500, help="clean images to judge")
    parser.add_argument("--calibration", type=int, default=500, help="clean images for thresholds")
    parser.add_argument("--out", type=Path, default=Path("filters.jsonl"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out.exists() else []
    done = {(row["kind"], row["seed"], row["detector"]) for row in rows}
    options = {} if arguments.image_size is None else {"size": arguments.image_size}
    dataset = securitynet.datasets.load(arguments.dataset, **options)
    with arguments.out.open("a") as file:
        for seed in range(arguments.seeds):
            for kind in arguments.kinds:
                missing = [name for name in arguments.detectors if (kind, seed, name) not in done]
                for row in judge_model(kind, seed, dataset, arguments, missing) if missing else ():
                    rows.append(row)
                    file.write(json.dumps(row) + "\n")
                    file.flush()
    show(rows)


if __name__ == "__main__":
    main()
