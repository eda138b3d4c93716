"""AutoAttack and the authors' own program on the same networks and images: robust accuracy, part by part.

    python benchmarks/auto_attack.py AUTHORS [--networks digits tutorial resnet20] [--norms linf l2] [--images 200]

AUTHORS is a folder with a copy of github.com/fra31/auto-attack, which is not a requirement of this project. Each part
runs alone on all images, by both programs and, to show what chance does, some by the authors' with another seed. An
image withstands the attack if it withstands each part. No timing. `docs/evasion.md` quotes a run. Rows are stored as
JSON Lines, and a run goes on where an earlier one stopped.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import securitynet.datasets
from public_networks import open_tutorial_networks
from securitynet.attacks.evasion._norms import ROUNDING, measure_norms
from securitynet.attacks.evasion.auto_attack import AutoAttack
from securitynet.datasets import splits
from securitynet.datasets.base import ImageDataset
from securitynet.methods.data import TrialData
from securitynet.models.loading.load import load_target
from securitynet.models.store.train_target import train_target
from securitynet.models.targets.target import Target
from securitynet.records import Access

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
PARTS = ("apgd-ce", "apgd-t", "fab-t", "square")

EPSILONS = {
    "digits": {"linf": 0.13, "l2": 0.65},
    "tutorial": {"linf": 0.01, "l2": 0.25},
    "resnet20": {"linf": 0.003, "l2": 0.1},
}
"""Budgets at which some of the images withstand the attack: elsewhere all programs agree on 0 or on 1."""


@dataclass(frozen=True)
class Part:
    """A part of the attack and its budgets.

    Attributes:
        name: One of `PARTS`.
        norm: ``linf`` or ``l2``.
        epsilon: Largest norm of a perturbation.
        queries: Queries of the square attack for an image.
    """

    name: str
    norm: Any
    epsilon: float
    queries: int


@contextmanager
def open_network(name: str) -> Iterator[tuple[Target, ImageDataset]]:
    """A target under white-box access, and its dataset."""
    if name == "digits":
        digits = securitynet.datasets.load("digits")
        recipe = {"epochs": 20, "optimizer": "adam", "learning_rate": 2e-3, "weight_decay": 0}
        yield train_target("simple-cnn", digits, split="public", seed=0, device="cpu", **recipe), digits
        return
    cifar = securitynet.datasets.load(f"parquet:{SHARED / 'cifar10-jpeg'}")
    if name == "tutorial":
        with open_tutorial_networks(SHARED / "tutorial-nets", "net-02.pth") as networks:
            yield networks["net-02"], cifar
    else:
        weights = SHARED / "cifar10-resnets" / "resnet20-12fca82f.th"
        reference = "arch:cifar-resnet20"
        yield load_target(reference, weights=weights, normalize="imagenet", access=Access.WHITE_BOX), cifar


def run_authors(target: Target, images: torch.Tensor, labels: torch.Tensor, part: Part, seed: int) -> torch.Tensor:
    """Perturb images by a part of the authors' program with its standard settings, n×C×H×W."""
    package = importlib.import_module("autoattack")
    norm = {"linf": "Linf", "l2": "L2"}[part.norm]
    attack = package.AutoAttack(target.module, norm=norm, eps=part.epsilon, seed=seed, version="standard",
                                device="cpu", verbose=False)  # fmt: skip
    attack.attacks_to_run = [part.name]
    attack.square.n_queries = part.queries
    examples: torch.Tensor = attack.run_standard_evaluation(images, labels, bs=len(images)).detach()
    return examples


def run_ours(target: Target, images: torch.Tensor, labels: torch.Tensor, part: Part, seed: int) -> torch.Tensor:
    """Perturb the correctly classified images by one part of this project's attack, n×C×H×W."""
    attack = AutoAttack(norm=part.norm, epsilons=(part.epsilon,), queries=part.queries)
    classes = int(target.module(images[:1]).shape[1])
    chosen = next(one for one in attack.make_parts(target, classes, tuple(images.shape[1:])) if one.name == part.name)
    rows = target.module(images).argmax(dim=1) == labels
    examples = images.clone()
    examples[rows] = chosen.search(images[rows], labels[rows], part.epsilon, seed)[0].detach()
    return examples


def judge(target: Target, images: torch.Tensor, examples: torch.Tensor, labels: torch.Tensor, part: Part) -> np.ndarray:
    """Whether each image is still classified correctly; an example outside the budget does not count."""
    inside = measure_norms(examples - images, part.norm) <= part.epsilon * (1 + ROUNDING) + ROUNDING
    with torch.no_grad():
        clean, attacked = (target.module(one).argmax(dim=1) == labels for one in (images, examples))
    robust: np.ndarray = (clean & (attacked | ~inside)).numpy()
    return robust


def compare_part(
    target: Target, images: torch.Tensor, labels: torch.Tensor, part: Part, again: bool
) -> dict[str, list[bool]]:
    """Whether each image withstands a part, by either program and by the authors' with another seed."""
    seeds = (0, 1) if again else (0,)
    made = {f"authors {seed}": run_authors(target, images, labels, part, seed) for seed in seeds}
    made["ours"] = run_ours(target, images, labels, part, 0)
    return {name: judge(target, images, one, labels, part).tolist() for name, one in made.items()}


def show(rows: list[dict]) -> None:
    """Print the table; an image withstands all parts if it withstands each of them."""
    print("| network | \u03b5 | part | authors | ours | authors, other seed | images that differ: ours, other seed |")
    print("|---|---:|---|---:|---:|---:|---:|")
    for key in dict.fromkeys((row["network"], row["norm"], row["epsilon"], row["images"]) for row in rows):
        group = {
            row["part"]: row for row in rows if (row["network"], row["norm"], row["epsilon"], row["images"]) == key
        }
        if set(PARTS) <= set(group):
            group["all four"] = {
                name: np.all([group[part][name] for part in PARTS], axis=0).tolist() for name in ("authors 0", "ours")
            }
        for part, row in group.items():
            first, ours, other = (
                np.array(row[name]) if name in row else None for name in ("authors 0", "ours", "authors 1")
            )
            cells = ["" if one is None else f"{100 * one.mean():.1f}" for one in (first, ours, other)]
            differ = [str(int((first != one).sum())) for one in (ours, other) if one is not None]
            print(f"| {key[0]} | {key[1]} {key[2]:g} | {part} | {' | '.join(cells)} | {', '.join(differ)} |")


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("authors", type=Path, help="folder with the authors' package `autoattack`")
    parser.add_argument("--networks", nargs="*", default=list(EPSILONS), choices=list(EPSILONS))
    parser.add_argument("--norms", nargs="*", default=["linf", "l2"], choices=["linf", "l2"])
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=PARTS)
    parser.add_argument("--again", nargs="*", default=["square"], choices=PARTS, help="parts for another seed")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--queries", type=int, default=5000, help="queries of the square attack, in both programs")
    parser.add_argument("--out", type=Path, default=Path("auto_attack.jsonl"))
    options = parser.parse_args()
    sys.path.insert(0, str(options.authors))
    torch.set_num_threads(1)
    rows = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    rows = [row for row in rows if row["part"] != "square" or row.get("queries", 5000) == options.queries]
    done = {(row["network"], row["norm"], row["epsilon"], row["part"], row["images"]) for row in rows}
    with options.out.open("a") as file:
        for name in options.networks:
            keys = [
                (name, norm, EPSILONS[name][norm], part, options.images)
                for norm in options.norms
                for part in options.parts
            ]
            if set(keys) <= done:
                continue
            with open_network(name) as (target, dataset):
                data = TrialData(dataset, splits.make("public", dataset, seed=0))
                sample = AutoAttack(samples=options.images).sample(target, data, 0)
                images, labels = dataset.batch(sample).float() / 255, torch.from_numpy(dataset.labels[sample])
                for key in keys:
                    if key in done:
                        continue
                    _, norm, epsilon, name_of_part, _ = key
                    part = Part(name_of_part, norm, epsilon, options.queries)
                    start = time.process_time()
                    robust = compare_part(target, images, labels, part, part.name in options.again)
                    spent = time.process_time() - start
                    rows.append(
                        {
                            **dict(zip(("network", "norm", "epsilon", "part", "images"), key, strict=True)),
                            **robust,
                            "queries": options.queries,
                            "seconds": spent,
                        }
                    )
                    file.write(json.dumps(rows[-1]) + "\n")
                    file.flush()
    show(rows)


if __name__ == "__main__":
    main()
