"""LiRA with shadow models trained for it, against a bare loop that trains and asks as many, and scores by NumPy."""

from __future__ import annotations

import dataclasses

import numpy as np

from harness.row import AtMost, Row, near, require
from rows._networks import SimpleCNN, bare_loop, loaded

RECIPE = {"epochs": 12, "learning_rate": 0.01, "schedule": "constant"}
MISLABELLED = 0.3
MEMBERS, NON_MEMBERS, KNOWN = 650, 1060, 60

ROW = Row(
    "LiRA, shadow models trained",
    unit="shadow models",
    sizes=(4, 16),
    aims=(AtMost(1.1, "bare loop"),),
    rounds=3,
    allowance=20,
)


def subject(case):
    """The target, its data, and the attack."""
    from securitynet.attacks.membership.lira import LiRA
    from securitynet.datasets import load
    from securitynet.datasets.splits import Splits
    from securitynet.methods.data import TrialData
    from securitynet.models.shadows import ShadowPlan, obtain_shadow
    from securitynet.models.training.recipe import Recipe

    digits = load("digits")
    draws = np.random.default_rng(0)
    order = draws.permutation(len(digits))
    # Digits are learned without remembering them: some are mislabelled, so that there is something to find.
    wrong = draws.random(len(digits)) < MISLABELLED
    labels = np.where(wrong, draws.integers(0, 10, len(digits)), digits.labels)
    digits = dataclasses.replace(digits, labels=labels, reference="digits/mislabelled")
    # A thousand non-members that tune nothing: fewer could not resolve a rate of false positives of 0.1%.
    members, non_members = order[:MEMBERS], order[MEMBERS : MEMBERS + NON_MEMBERS]
    nobody = np.empty(0, dtype=np.int64)
    splits = Splits(
        "benchmark",
        *map(np.sort, (members, non_members, members[:KNOWN], non_members[:KNOWN])),
        nobody,
        nobody,
    )
    target = obtain_shadow(
        digits, splits.members, "simple-cnn", Recipe(**RECIPE), device="cpu", cache=case.folder.parent / "target"
    ).target
    plan = ShadowPlan(count=case.size, architecture="simple-cnn", recipe=RECIPE)
    return target, TrialData(digits, splits), LiRA(shadows=plan)


@ROW.side("ours")
def ours(case):
    from securitynet.methods.context import Context

    target, data, attack = subject(case)

    def run():
        output = attack(target, data, Context(device=case.device), attack.threat_models[0])
        return {"scores": output.scores, "member": output.is_member, "held": output.held_out}

    return run


@ROW.side("bare loop")
def bare(case):
    """As many networks, from the same weights, on the same records in the same order; then algorithm 1 of the paper."""
    import torch

    from securitynet.models.shadows.outputs import plan_specs
    from securitynet.models.shadows.plan import resolve_training
    from securitynet.models.store.cached_model import build_fresh_network
    from securitynet.models.training.pixel_statistics import fit_normalization
    from securitynet.randomness import make_generator

    target, data, attack = subject(case)
    digits, judged = data.dataset, data.judged
    training = resolve_training(attack.shadows, target, None)
    images = digits.batch(np.arange(len(digits))).to(case.device)
    labels = torch.from_numpy(digits.labels).to(case.device)
    specs = []
    for spec in plan_specs(digits, data.splits, attack.shadows, training, 0):
        records = torch.from_numpy(spec.indices)
        orders = [
            [
                records[part]
                for part in torch.split(
                    torch.randperm(len(records), generator=make_generator(spec.recipe.seed, "order", epoch)), 64
                )
            ]
            for epoch in range(spec.recipe.epochs)
        ]
        steps = fit_normalization(digits, spec.indices)
        weights = {name: value.numpy().copy() for name, value in build_fresh_network(spec).state_dict().items()}
        specs.append((weights, steps.mean[0], steps.std[0], orders, spec))
    included = np.stack([np.isin(judged, spec.indices) for *_, spec in specs])

    def confidence(logits):
        """log p - log(1 - p) of the true class."""
        values = logits.double().cpu().numpy()
        rows = np.arange(len(values)), digits.labels[judged]
        own = values[rows]
        values[rows] = -np.inf
        peak = values.max(axis=1, keepdims=True)
        return own - (peak[:, 0] + np.log(np.exp(values - peak).sum(axis=1)))

    def run():
        asked = images[torch.from_numpy(judged)].float() / 255
        signals = []
        for weights, mean, std, orders, _ in specs:
            network = loaded(SimpleCNN(8, mean=mean, std=std), weights).to(case.device)
            bare_loop(network, images, labels, orders, RECIPE["learning_rate"])
            with torch.no_grad():
                signals.append(confidence(network(asked)))
        with torch.no_grad():
            observed = confidence(target.backend.module(target.preprocessing(asked)))
        return {"scores": likelihood_ratio(observed, np.stack(signals), included)}

    return run


def likelihood_ratio(observed, shadows, included):
    """Carlini et al. (2022), algorithm 1, a record at a time, with one variance for all records."""
    means, spreads = np.empty((2, len(observed))), []
    for group, chosen in enumerate((included, ~included)):
        squares = freedom = 0.0
        for record in range(len(observed)):
            values = shadows[chosen[:, record], record]
            means[group, record] = values.mean()
            squares += ((values - values.mean()) ** 2).sum()
            freedom += len(values) - 1
        spreads.append(np.sqrt(squares / freedom))
    logs = [
        -0.5 * ((observed - mean) / spread) ** 2 - np.log(spread) for mean, spread in zip(means, spreads, strict=True)
    ]
    return logs[0] - logs[1]


@ROW.check
def check(case, found):
    from scipy.stats import binomtest, rankdata

    mine, theirs = found["ours"], found["bare loop"]["scores"]
    member, held = mine["member"], mine["held"]
    told = []
    aucs = []
    for name, scores in (("ours", mine["scores"]), ("bare loop", theirs)):
        inside, outside = scores[held & member], scores[held & ~member]
        ranks = rankdata(np.concatenate([inside, outside]))
        aucs.append((ranks[: len(inside)].sum() - len(inside) * (len(inside) + 1) / 2) / (len(inside) * len(outside)))
        threshold = np.sort(outside)[-2]  # one of 1,000 lies above it
        caught = int((inside > threshold).sum())
        interval = binomtest(caught, len(inside)).proportion_ci(method="wilson")
        told.append(
            f"{name} {caught / len(inside):.2%} ({interval.low:.2%} to {interval.high:.2%}), AUC {aucs[-1]:.3f}"
        )
    alike = np.corrcoef(mine["scores"], theirs)[0, 1]
    # The last bit of a sum decides now and then which unit dies, and a network takes another way from there.
    require(alike > 0.9, f"scores correlate with {alike:.3f} only")
    near(aucs[0], aucs[1], 0.02, "AUC")
    return f"TPR at 0.1% FPR: {'; '.join(told)}; scores correlate with {alike:.4f}"
