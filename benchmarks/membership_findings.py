"""The papers' findings on membership inference at small scale, with intervals.

Three claims, each on targets trained here from scratch:

1. AUC grows with the overfitting level (ML-Doctor, section 6.3; SecurityNet, section 4.2);
2. white-box access is at least as good as black-box access (ML-Doctor, section 6.1), all four scenarios;
3. the three largest posteriors are at least as good as all of them when classes are many (SecurityNet, section 4.2).

The first two use a part of CIFAR-10 (``parquet:PATH``). The many classes of the third are real images with finer real
labels: CIFAR-10's ten classes, each divided into ten by the mean brightness of its images, in deciles.

Usage: python benchmarks/membership_findings.py --dataset parquet:PATH [--only 1 2 3] [--cache FOLDER]
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

import numpy as np

from securitynet.attacks import ATTACKS
from securitynet.datasets import load, splits
from securitynet.datasets.base import ImageDataset
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.store.record_files import read_target_record
from securitynet.models.store.train_target import train_target
from securitynet.models.targets.signals import collect_signals
from securitynet.models.targets.target import Target


def trained(dataset: ImageDataset, cache: Path, name: str, **recipe) -> tuple[Target, TrialData, str]:
    out = cache / f"{name}.safetensors"
    target = train_target("simple-cnn", dataset, out=out, known=0.5, **recipe)
    facts = read_target_record(out)
    data = TrialData(dataset, splits.four_way(dataset, known=0.5), facts)
    return target, data, f"{facts.train_accuracy:.3f} / {facts.test_accuracy:.3f}"


def run(name: str, target: Target, data: TrialData, cache: Path, **fields) -> None:
    attack = ATTACKS.get(name)(**fields)
    for threat_model in attack.threat_models:
        start = time.perf_counter()
        output = attack(target, data, Context(cache=cache), threat_model)
        found = {m.name: m for m in output.measurements(level=0.95, fprs=(0.01,), seed=0)}
        auc, accuracy = found["auc"], found["balanced-accuracy"]
        print(
            f"  {name:22} {threat_model!s:20} AUC {auc.value:.3f} [{auc.low:.3f}, {auc.high:.3f}]  accuracy "
            f"{accuracy.value:.3f} [{accuracy.low:.3f}, {accuracy.high:.3f}]  {time.perf_counter() - start:.0f} s",
            flush=True,
        )


def overfitting(dataset: ImageDataset, cache: Path) -> None:
    print("1. AUC by overfitting level")
    for epochs in (4, 8, 12, 16, 24):
        target, data, accuracy = trained(dataset, cache, f"epochs-{epochs}", epochs=epochs, learning_rate=0.02)
        signals = collect_signals(target, dataset, data.judged, cache=cache)
        member = np.isin(signals.indices, data.splits.members)
        level = signals.correct[member].mean() - signals.correct[~member].mean()
        print(f" {epochs} epochs, accuracy {accuracy}, overfitting level {level:.3f}")
        for name in ("modified-entropy", "mlp-top3"):
            run(name, target, data, cache)
        run("ml-doctor-black-box", target, data, cache)


def access(dataset: ImageDataset, cache: Path) -> None:
    target, data, accuracy = trained(dataset, cache, "epochs-24", epochs=24, learning_rate=0.02)
    print(f"2. Access, at the paper's settings; accuracy {accuracy}")
    for name in ("ml-doctor-black-box", "ml-doctor-white-box"):
        run(name, target, data, cache)


def classes(dataset: ImageDataset, cache: Path) -> None:
    print("3. All posteriors or the largest three, by number of classes")
    for parts in (1, 10):
        finer = divided(dataset, parts)
        name = f"classes-{finer.num_classes}"
        target, data, accuracy = trained(finer, cache, name, epochs=24, learning_rate=0.02)
        print(f" {finer.num_classes} classes, accuracy {accuracy}")
        for scale in ("posterior", "logit"):
            print(f" scale {scale}")
            run("mlp-posteriors", target, data, cache, scale=scale, repeats=5)
            run("mlp-top3", target, data, cache, scale=scale, repeats=5)


def divided(dataset: ImageDataset, parts: int) -> ImageDataset:
    """The same images, each class divided by mean brightness into equally many."""
    brightness = np.concatenate(
        [images.float().mean(dim=(1, 2, 3)).numpy() for _, images in dataset.batches(np.arange(len(dataset)), 1024)]
    )
    labels = dataset.labels * parts
    for label in range(dataset.num_classes):
        rows = np.flatnonzero(dataset.labels == label)
        labels[rows] += brightness[rows].argsort().argsort() * parts // len(rows)
    names = tuple(f"{name} {part}" for name in dataset.class_names for part in range(parts))
    return dataclasses.replace(dataset, labels=labels, class_names=names, reference=f"{dataset.reference}/{parts}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--limit", type=int, default=6000)
    parser.add_argument("--only", type=int, nargs="*", default=[1, 2, 3])
    parser.add_argument("--cache", type=Path)
    arguments = parser.parse_args()
    dataset = load(arguments.dataset, limit=arguments.limit)
    with tempfile.TemporaryDirectory() as folder:
        cache = arguments.cache or Path(folder)
        for number, part in enumerate((overfitting, access, classes), start=1):
            if number in arguments.only:
                part(dataset, cache)


if __name__ == "__main__":
    main()
