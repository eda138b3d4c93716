"""LiRA, RMIA and BaVarIA with 1 to 16 shadow models and several queries: mean AUC and TPR at a low FPR over targets.

Networks are trained on halves of one pool of records, each record in exactly half of them. Each network is the target
in turn. With K shadow models, each record is compared with K/2 of the other networks that were trained on it and K/2
that were not (offline attacks: the latter alone; K = 1: one that was not), so all attacks use the same networks, and
numbers of models on either side tell nothing. A fifth of the non-members is the population of online RMIA and is not
judged. ``a`` of offline RMIA is tuned on two other networks in the role of the target.

Published order (Zarifzadeh et al., 2024, tables 1 to 3; Brännvall, 2026, abstract): RMIA far above LiRA with 1 to 4
models, little above it with many; BaVarIA at least as good as both with few. 16 Wide ResNets on CIFAR-10 (README of
tensorflow/privacy, research/mi_lira_2021): LiRA online with a fixed variance AUC 0.686, TPR at 0.1% 5.93%; offline
2.99%. See studies/membership-benchmark.toml for that scale.

Networks, outputs and FOLDER/power.csv, a row for each target and attack, are stored as they come, so an interrupted run
continues; a folder belongs to one setting of the networks. Intervals are over targets, which share networks and
records: they describe this pool.

Usage: python benchmarks/attack_power.py FOLDER [--dataset D] [--records N] [--architecture A] [--epochs N]
       [--models 1 2 4 8 16] [--queries 1 2 4 9] [--networks M] [--augment A] [--fpr F] [--device D]
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from securitynet.analysis import statistics
from securitynet.attacks import ATTACKS
from securitynet.attacks.membership._confidence import scale_confidence
from securitynet.attacks.membership._evidence import SignalEvidence, StandInTarget, Views, select_evidence
from securitynet.attacks.membership._reference import ReferenceAttack
from securitynet.attacks.membership._views import make_views
from securitynet.datasets import load
from securitynet.datasets.base import ImageDataset
from securitynet.errors import ConfigurationError
from securitynet.metrics import roc
from securitynet.models.shadows import ShadowPlan
from securitynet.models.store.cached_model import ModelSpec, obtain_model
from securitynet.models.targets.signals import collect_signals
from securitynet.models.training.recipe import Recipe

ONLINE = ("lira", "rmia", "bavaria")
OFFLINE = ("reference-calibration", "lira-offline", "rmia-offline", "bavaria-offline")
STAND_INS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--records", type=int, default=1600, help="in the pool")
    parser.add_argument("--architecture", default="simple-cnn")
    parser.add_argument("--networks", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=0.05)
    parser.add_argument("--schedule", default="constant")
    parser.add_argument("--augment", default="none")
    parser.add_argument("--models", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--queries", type=int, nargs="+", default=[1])
    parser.add_argument("--fpr", type=float, default=0.01)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    networks = train(arguments)
    path = arguments.folder / "power.csv"
    rows = read_rows(path)
    with path.open("a", newline="") as file:
        table = csv.writer(file)
        for target in range(arguments.networks):
            done = {key[1:] for key in rows if key[0] == target}
            for key, auc, tpr in measure(networks, target, arguments, done):
                table.writerow([target, *key, auc, tpr])
                rows[(target, *key)] = auc, tpr
            file.flush()
    print_table(rows, arguments.fpr)


def read_rows(path: Path) -> dict[tuple[int, str, int, int], tuple[float, float]]:
    """AUC and TPR by target, attack, models and queries, of an earlier run with the same folder."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        return {(int(r[0]), r[1], int(r[2]), int(r[3])): (float(r[4]), float(r[5])) for r in csv.reader(file)}


@dataclass(frozen=True, eq=False)
class Networks:
    """Scaled confidence of all records under all networks, V×M×N for V views, and which were trained on, M×N."""

    signals: NDArray[np.float64]
    included: NDArray[np.bool_]


def train(arguments: argparse.Namespace) -> Networks:
    """Train the networks, unless they are stored, and query them."""
    dataset: ImageDataset = load(arguments.dataset)
    pool = np.sort(np.random.default_rng(0).permutation(len(dataset))[: arguments.records])
    included = ShadowPlan(count=arguments.networks).training_sets(len(pool), seed=0)
    views = make_views(dataset, arguments.augment, max(arguments.queries))
    signals = []
    for number, inside in enumerate(included):
        recipe = Recipe(
            epochs=arguments.epochs,
            batch_size=arguments.batch_size,
            learning_rate=arguments.learning_rate,
            schedule=arguments.schedule,
            augment=arguments.augment,
            seed=number,
        )
        records = pool[inside]
        labels = dataset.labels[records]
        spec = ModelSpec(dataset, records, labels, dataset.num_classes, arguments.architecture, recipe)
        model = obtain_model(spec, kind="shadows", cache=arguments.folder, device=arguments.device)
        outputs = [collect_signals(model.target, view, pool, cache=arguments.folder) for view in views]
        signals.append([scale_confidence(output.logits, output.labels) for output in outputs])
        right = outputs[0].logits.argmax(axis=1) == outputs[0].labels
        print(f"network {number}: accuracy {right[inside].mean():.3f}, test {right[~inside].mean():.3f}", flush=True)
    return Networks(np.array(signals).swapaxes(0, 1), included)


def measure(
    networks: Networks, target: int, arguments: argparse.Namespace, done: set[tuple[str, int, int]]
) -> Iterator[tuple[tuple[str, int, int], float, float]]:
    """Attack one target: attack, models and queries, unless they are done; AUC; TPR at the FPR."""
    random = np.random.default_rng([1, target])
    is_member = networks.included[target]
    population = ~is_member & (random.random(len(is_member)) < 0.2)
    others = random.permutation(np.delete(np.arange(len(networks.included)), target))

    def judge(scores: NDArray[np.float64]) -> tuple[float, float]:
        members, rest = scores[is_member], scores[~is_member & ~population]
        return roc.compute_auc(members, rest), roc.measure_tpr_at_fpr(members, rest, arguments.fpr).value

    if ("loss", 0, 1) not in done:
        yield ("loss", 0, 1), *judge(networks.signals[0, target])
    for models in arguments.models:
        for queries in arguments.queries:
            for name in (*ONLINE, *OFFLINE):
                if (name in ONLINE and models < 2) or (name.startswith(("lira", "bavaria")) and models < 4):
                    continue
                if (name, models, queries) in done:
                    continue
                attack = configure(name, models, queries)
                sides = (models // 2 if name in ONLINE else 0, max(1, models // 2))
                evidence = compare(networks, target, others, sides, queries, attack)
                if name == "rmia-offline":
                    stand_ins = [
                        take_role(
                            compare(networks, other, np.setdiff1d(others, other), sides, queries, attack),
                            networks.included[other],
                        )
                        for other in others[:STAND_INS]
                    ]
                    attack = attack.tuned(stand_ins)
                scores = attack.score_views(evidence, select_evidence(evidence, population))
                yield (name, models, queries), *judge(scores)


def configure(name: str, models: int, queries: int) -> ReferenceAttack:
    """Return the attack; the number of models is only what it makes of them (such as the kind of variance)."""
    attack_class = ATTACKS.get(ATTACKS.resolve(name).name)
    assert issubclass(attack_class, ReferenceAttack)
    try:
        return attack_class(queries=queries, shadows={"count": models, "pool": attack_class.pool})
    except ConfigurationError:
        return attack_class(queries=queries, shadows={"count": attack_class.fewest_shadows, "pool": attack_class.pool})


def compare(
    networks: Networks,
    target: int,
    others: NDArray[np.int64],
    sides: tuple[int, int],
    queries: int,
    attack: ReferenceAttack,
) -> list[SignalEvidence]:
    """Return the evidence of all records, each beside the first networks of ``others`` with it and without it."""
    inside = networks.included[others]
    first = [np.argsort(~with_record, axis=0, kind="stable")[:side] for with_record, side in
             ((inside, sides[0]), (~inside, sides[1]))]  # fmt: skip
    chosen = others[np.concatenate(first)]
    included = np.repeat([True, False], sides)[:, None] & np.ones(chosen.shape, dtype=bool)
    assert (np.take_along_axis(networks.included, chosen, axis=0) == included).all()
    return [
        SignalEvidence(
            convert(view[target], attack), convert(np.take_along_axis(view, chosen, axis=0), attack), included
        )
        for view in networks.signals[:queries]
    ]


def convert(confidence: NDArray[np.float64], attack: ReferenceAttack) -> NDArray[np.float64]:
    """Return the attack's signal, which of two classes depends on the scaled confidence alone."""
    logits = np.stack([confidence.ravel(), np.zeros(confidence.size)], axis=1)
    return attack.signal(logits, np.zeros(len(logits), dtype=np.int64)).reshape(confidence.shape)


def take_role(evidence: Views, is_member: NDArray[np.bool_]) -> StandInTarget:
    """Put another network in the role of the target; every second non-member is its population."""
    population = ~is_member
    population[np.flatnonzero(population)[::2]] = False
    scored = ~population
    return StandInTarget(select_evidence(evidence, scored), select_evidence(evidence, population), is_member[scored])


def print_table(rows: dict[tuple[int, str, int, int], tuple[float, float]], fpr: float) -> None:
    print(f"{'attack':22} {'models':>6} {'queries':>7}  {'AUC':22} {f'TPR at {fpr:.1%}':26} TPR minus LiRA's")
    by_attack: dict[tuple[str, int, int], dict[int, tuple[float, float]]] = defaultdict(dict)
    for (target, *key), values in rows.items():
        by_attack[tuple(key)][target] = values
    for (attack, models, queries), found in sorted(by_attack.items(), key=lambda item: (item[0][2], item[0][1])):
        aucs, tprs = np.array([found[target] for target in sorted(found)]).T
        auc, tpr = statistics.estimate_mean(aucs), statistics.estimate_mean(tprs)
        lira = by_attack.get(("lira" if attack in ONLINE else "lira-offline", models, queries), {})
        against = ""
        if lira.keys() == found.keys() and not attack.startswith("lira"):
            gap = statistics.estimate_paired_difference(np.array([lira[target][1] for target in sorted(lira)]), tprs)
            against = f"{gap.value:+.2%} ({gap.low:+.2%} to {gap.high:+.2%})"
        print(
            f"{attack:22} {models:6} {queries:7}  {auc.value:.3f} ({auc.low:.3f} to {auc.high:.3f}) "
            f"{tpr.value:7.2%} ({tpr.low:.2%} to {tpr.high:.2%})  {against}"
        )


if __name__ == "__main__":
    main()
