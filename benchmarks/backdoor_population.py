"""Neural Cleanse over a population: clean and backdoored models trained by the tool, both verdicts on each.

No timing against a peer: false- and true-positive rates with exact intervals, AUC, and how well the trigger is
located, for the paper's rule, the calibrated p-value, and the p-value against the other clean models (each clean
model is judged against the others, each backdoored one against all). Results are kept as JSON Lines and gone on with.

    python benchmarks/backdoor_population.py --clean 44 --implanted 22 --out population.jsonl
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

import securitynet.datasets
from securitynet.backdoors.base import make_backdoor
from securitynet.datasets import splits
from securitynet.detectors.neural_cleanse import NeuralCleanse
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.metrics import detection, low_outliers
from securitynet.models.store.train_target import train_target

TRAINING = {"epochs": 20, "optimizer": "adam", "learning_rate": 2e-3, "schedule": "cosine", "weight_decay": 0}


def one(kind: str, seed: int, dataset, arguments) -> dict:
    """Train a model and search it."""
    backdoor = None
    if kind == "implanted":
        backdoor = make_backdoor(arguments.backdoor, [f"target={seed % dataset.num_classes}", *arguments.set])
    start = time.perf_counter()
    target = train_target(
        arguments.architecture, dataset, split="public", split_seed=seed, seed=seed, device="cpu", backdoor=backdoor,
        **TRAINING,
    )  # fmt: skip
    trained = time.perf_counter()
    method = NeuralCleanse(images=arguments.images, epochs=arguments.epochs)
    data = TrialData(dataset, splits.make("public", dataset, seed=seed))
    output = method(target, data, Context(seed=seed), method.threat_models[0])
    found = {m.name: m.value for m in output.measurements(level=0.95, fprs=(), seed=0)}
    mask = np.zeros(dataset.image_shape[1:])
    overlap = None
    if backdoor is not None:
        top, left, height, width = backdoor.box(dataset.image_shape)
        mask[top : top + height, left : left + width] = 1
        row = output.pictured.tolist().index(seed % dataset.num_classes)
        overlap = detection.overlap(output.masks[row] / 255, mask).value
    return {
        "kind": kind, "seed": seed, "target": seed % dataset.num_classes, "norms": output.norms.tolist(),
        "p": found["p-value"], "index": found["anomaly-index"], "overlap": overlap,
        "smallest": int(output.labels[output.norms.argmin()]),
        "training_seconds": trained - start, "search_seconds": time.perf_counter() - trained,
    }  # fmt: skip


def show(rows: list[dict]) -> None:
    """Rates of the verdicts."""
    implanted = np.array([row["kind"] == "implanted" for row in rows])
    norms = [np.array(row["norms"]) for row in rows]
    clean = [n for n, bad in zip(norms, implanted, strict=True) if not bad]
    against = [
        low_outliers.against_reference(n, clean if bad else [c for c in clean if c is not n])
        for n, bad in zip(norms, implanted, strict=True)
    ]
    calibrated = [low_outliers.low_outlier(n[np.isfinite(n)]).p_value for n in norms]
    verdicts = {
        "rule (anomaly index above 2)": (np.array([row["index"] for row in rows]), 2.0 + 1e-12),
        "calibrated p-value, 5%": (1 - np.array(calibrated), 0.95),
        "against clean models, 5%": (1 - np.array(against), 0.95 - 1e-12),
    }
    print(f"{(~implanted).sum()} clean, {implanted.sum()} implanted")
    for name, (scores, threshold) in verdicts.items():
        measured = detection.population(scores, implanted, threshold)
        print(f"{name:30}", ", ".join(f"{m.name} {m.value:.3f} [{m.low:.3f}, {m.high:.3f}]" for m in measured))
    planted = [row for row in rows if row["kind"] == "implanted"]
    if planted:
        right = sum(row["smallest"] == row["target"] for row in planted)
        print(f"smallest trigger leads to the planted class: {right} of {len(planted)}; "
              f"median overlap with the patch {np.median([row['overlap'] for row in planted]):.2f}")  # fmt: skip
    print(f"median seconds: training {np.median([row['training_seconds'] for row in rows]):.1f}, "
          f"search {np.median([row['search_seconds'] for row in rows]):.1f}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--architecture", default="simple-cnn")
    parser.add_argument("--backdoor", default="badnets")
    parser.add_argument("--set", nargs="*", default=[], help="settings of the backdoor, FIELD=VALUE")
    parser.add_argument("--clean", type=int, default=44)
    parser.add_argument("--implanted", type=int, default=22)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--out", type=Path, default=Path("population.jsonl"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dataset = securitynet.datasets.load(arguments.dataset)
    rows = [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out.exists() else []
    done = {(row["kind"], row["seed"]) for row in rows}
    wanted = [("clean", seed) for seed in range(arguments.clean)]
    wanted += [("implanted", 1000 + seed) for seed in range(arguments.implanted)]
    with arguments.out.open("a") as file:
        for kind, seed in wanted:
            if (kind, seed) in done:
                continue
            rows.append(one(kind, seed, dataset, arguments))
            file.write(json.dumps(rows[-1]) + "\n")
            file.flush()
    show(rows)


if __name__ == "__main__":
    main()
