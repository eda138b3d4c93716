"""LiRA, RMIA and BaVarIA with 1 to 64 shadow models and several queries: mean AUC and TPR at 1% over targets.

All attacks use the same shadow models. Each target is a model like the others, trained on a random half of the pool
that is not one of theirs. With ``independent``, training sets are drawn from all records instead of halving one pool.

Published for 16 Wide ResNets on CIFAR-10 (README of tensorflow/privacy, research/mi_lira_2021): LiRA online with a
fixed variance AUC 0.686, TPR at 0.1% 5.93%; offline 2.99%. ``--dataset cifar10 --architecture wrn-28-2 --epochs 100``
is that scale; the defaults run in minutes on two cores.

Usage: python benchmarks/attack_power.py [--dataset D] [--architecture A] [--epochs N] [--models 1 2 4 8]
       [--queries 1 2] [--targets N] [--augment A] [--design balanced|independent] [--cache FOLDER] [--device D]
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np

from securitynet.attacks import ATTACKS
from securitynet.datasets import load, splits
from securitynet.errors import ConfigurationError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.metrics import roc
from securitynet.models.store.model_record import read_target_record
from securitynet.models.store.train_target import train_target

NAMES = ("loss", "lira", "rmia", "bavaria", "lira-offline", "rmia-offline", "bavaria-offline")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--architecture", default="simple-cnn")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--learning-rate", type=float, default=0.05)
    parser.add_argument("--augment", default="none")
    parser.add_argument("--models", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--queries", type=int, nargs="+", default=[1])
    parser.add_argument("--targets", type=int, default=2)
    parser.add_argument("--design", default="balanced")
    parser.add_argument("--fpr", type=float, default=0.01)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    cache = arguments.cache or Path(tempfile.mkdtemp())
    dataset = load(arguments.dataset)
    rows: dict[tuple[str, int, int], list[tuple[float, float]]] = defaultdict(list)
    for number in range(arguments.targets):
        out = cache / f"target-{number}.safetensors"
        target = train_target(
            arguments.architecture,
            dataset,
            out=out,
            seed=number,
            split_seed=number,
            epochs=arguments.epochs,
            learning_rate=arguments.learning_rate,
            augment=arguments.augment,
            schedule="constant",
            device=arguments.device,
        )
        data = TrialData(dataset, splits.four_way(dataset, seed=number), read_target_record(out))
        for count in arguments.models:
            for queries in arguments.queries:
                for name in NAMES:
                    scores = run(name, count, queries, arguments, target, data, cache)
                    if scores is not None:
                        rows[name, count, queries].append(scores)
    print(f"{'attack':18} {'models':>6} {'queries':>7} {'AUC':>6} {f'TPR at {arguments.fpr:.1%}':>12}")
    for (name, count, queries), measured in rows.items():
        auc, tpr = np.mean(measured, axis=0)
        print(f"{name:18} {count:6} {queries:7} {auc:6.3f} {tpr:12.2%}")


def run(name, count, queries, arguments, target, data, cache) -> tuple[float, float] | None:
    """AUC and TPR at the FPR; None if the attack takes more shadow models."""
    attack_class = ATTACKS.get(ATTACKS.resolve(name).name)
    fields = {}
    if name != "loss":
        pool = attack_class.pool
        fields = {"queries": queries, "shadows": {"count": count, "pool": pool, "design": arguments.design}}
    try:
        attack = attack_class(**fields)
    except (ConfigurationError, ValueError):
        return None
    output = attack(target, data, Context(cache=cache, device=arguments.device), attack.threat_models[0])
    judged = output.held_out
    members, others = (output.scores[judged & group] for group in (output.is_member, ~output.is_member))
    above = np.sort(others)[::-1][round(arguments.fpr * len(others))]
    return roc.auc_value(members, others), float((members > above).mean())


if __name__ == "__main__":
    main()
