"""LiRA's and RMIA's scores from the outputs of sixteen shadow models, against plain NumPy after the papers."""

from __future__ import annotations

import numpy as np

from harness.row import Faster, Row, near, require

SHADOWS, CLASSES = 16, 10

ROW = Row(
    "Scores of LiRA and RMIA",
    unit="records",
    sizes=(1_000, 4_000, 16_000),
    aims=(Faster(1, "NumPy, LiRA", ours="ours, LiRA"), Faster(1, "NumPy, RMIA", ours="ours, RMIA")),
    rounds=7,
    allowance=15,
)


@ROW.inputs
def inputs(case):
    """Logits of a target and of shadow models, in whose training sets each record is eight times."""
    draws = np.random.default_rng(0)
    labels = draws.integers(0, CLASSES, case.size)
    included = draws.permuted(np.arange(SHADOWS)[:, None].repeat(case.size, axis=1) < SHADOWS // 2, axis=0)
    member = draws.random(case.size) < 0.5
    hardness = draws.normal(4, 2, case.size)
    logits = draws.normal(0, 1, (SHADOWS + 1, case.size, CLASSES))
    trained = np.concatenate([member[None], included])
    logits[:, np.arange(case.size), labels] += hardness + trained
    case.save("given", logits=logits.astype(np.float32), labels=labels, included=included, member=member)


def ours(name):
    def prepare(case):
        from securitynet.attacks import ATTACKS
        from securitynet.attacks.membership._evidence import SignalEvidence

        attack = ATTACKS.get(f"membership.{name}")()
        given = case.load("given")
        logits, labels, population = given["logits"], given["labels"], ~given["member"]

        def run():
            observed = attack.signal(logits[0], labels)
            shadows = np.stack([attack.signal(outputs, labels) for outputs in logits[1:]])
            evidence = SignalEvidence(observed, shadows, given["included"])
            return {"scores": attack.score(evidence, evidence.select(population))}

        return run

    return prepare


ROW.side("ours, LiRA")(ours("lira"))


@ROW.side("NumPy, LiRA")
def plain_lira(case):
    from rows.lira import likelihood_ratio

    given = case.load("given")
    rows = np.arange(case.size), given["labels"]

    def run():
        signals = []
        for outputs in given["logits"].astype(np.float64):
            posteriors = np.exp(outputs - outputs.max(axis=1, keepdims=True))
            posteriors /= posteriors.sum(axis=1, keepdims=True)
            own = posteriors[rows]
            posteriors[rows] = 0
            signals.append(np.log(own) - np.log(posteriors.sum(axis=1)))
        return {"scores": likelihood_ratio(signals[0], np.stack(signals[1:]), given["included"])}

    return run


ROW.side("ours, RMIA")(ours("rmia"))


@ROW.side("NumPy, RMIA")
def plain_rmia(case):
    """Zarifzadeh et al. (2024), equations 2 and 3: each record is compared with each of the population."""
    given = case.load("given")
    rows = np.arange(case.size), given["labels"]

    def run():
        signals = []
        for outputs in given["logits"].astype(np.float64):
            posteriors = np.exp(outputs - outputs.max(axis=1, keepdims=True))
            signals.append((posteriors / posteriors.sum(axis=1, keepdims=True))[rows])
        shadows, included = np.stack(signals[1:]), given["included"]
        inside = (shadows * included).sum(axis=0) / included.sum(axis=0)
        outside = (shadows * ~included).sum(axis=0) / (~included).sum(axis=0)
        ratios = signals[0] / (0.5 * (inside + outside))
        population = ratios[~given["member"]]
        return {"scores": np.array([(ratio / population >= 1).mean() for ratio in ratios])}

    return run


@ROW.check
def check(case, found):
    gap = near(found["ours, LiRA"]["scores"], found["NumPy, LiRA"]["scores"], 1e-6, "LiRA's scores")
    mine, theirs = found["ours, RMIA"]["scores"], found["NumPy, RMIA"]["scores"]
    population = int((~case.load("given")["member"]).sum())
    # Ours break ties of the counts, by less than one count.
    shares = near(mine * (population + 1) / population, theirs, 1.5 / population, "RMIA's scores")
    require(np.ptp(theirs) > 0.5, "all records have the same score")
    return f"LiRA's scores differ by {gap:.1g}, RMIA's by {shares:.1g} (ties are broken by less than one count)"
