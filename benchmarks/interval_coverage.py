"""How often intervals hold a known truth: every kind that the package prints, over sizes and distributions.

    python benchmarks/interval_coverage.py [--full] [KIND ...]

Each line: kind, sizes, case, share of simulations whose interval holds the truth, how often it lies wholly above and
wholly below, and how often a useless attack would be called more than guessing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import stats

from securitynet.analysis import statistics
from securitynet.metrics import attribute, epsilon, evasion, inversion, paired, paired_auc, rates, roc, trainings
from securitynet.records import Direction, Measurement
from securitynet.reports.families import membership


@dataclass(frozen=True)
class Effort:
    """Which sizes are simulated, and how often."""

    runs: int
    many: int
    groups: tuple[tuple[int, int], ...]
    sizes: tuple[int, ...]


FAST = Effort(120, 4000, ((50, 50), (1000, 1000)), (50, 1000))
FULL = Effort(
    1000, 20000, ((5, 5), (15, 8), (50, 50), (500, 50), (1000, 5000), (50000, 1000)), (50, 200, 1000, 5000, 50000)
)


@dataclass(frozen=True)
class Row:
    """What was simulated, and how often the interval held the truth."""

    kind: str
    sizes: str
    case: str
    runs: int
    above: float
    below: float
    alarms: float | None = None

    @property
    def held(self) -> float:
        return 1 - self.above - self.below


def row(kind: str, sizes: object, case: object, ends: object, truth: float, null: float | None = None) -> Row:
    low, high = (np.asarray(end) for end in ends)  # type: ignore[attr-defined]
    alarms = None if null is None else float((low > null + 1e-9).mean())
    above, below = float((low > truth + 1e-9).mean()), float((high < truth - 1e-9).mean())
    return Row(kind, str(sizes), str(case), len(low), above, below, alarms)


def simulate_rates(effort: Effort) -> Iterator[Row]:
    """One rate: accuracy, agreement, flagged models."""
    random = np.random.default_rng(0)
    for n in effort.sizes:
        for p in (0.0001, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0):
            yield row("rate", n, p, rates.compute_clopper_pearson(random.binomial(n, p, effort.many), n, 0.95), p)


def simulate_two_rates(effort: Effort) -> Iterator[Row]:
    """Overfitting, advantage (its null case: equal rates) and balanced accuracy."""
    random = np.random.default_rng(1)
    for m, n in effort.groups:
        for p, q in ((0.5, 0.5), (0.001, 0.001), (0.01, 0.01), (1.0, 0.99), (0.999, 0.9), (0.001, 0.999), (0.9, 0.4)):
            counts = (random.binomial(m, p, effort.many), m), (random.binomial(n, q, effort.many), n)
            null = 0.0 if p == q else None
            yield row("difference", (m, n), (p, q), rates.combine_rates(*counts, (1, -1), 0.95)[1:], p - q, null)
            yield row("mean of two", (m, n), (p, q), rates.combine_rates(*counts, (0.5, 0.5), 0.95)[1:], (p + q) / 2)


def simulate_pairs(effort: Effort) -> Iterator[Row]:
    """Gains and accuracy drops, and the ratio of accuracies."""
    random = np.random.default_rng(2)
    shares = ((0.5, 0.01, 0), (0.5, 0.1, 0.1), (0.99, 0.005, 0.005), (0, 0.5, 0.5), (0.999, 0.0005, 0.0005))
    for n in effort.sizes:
        for p in (*shares, (0.9, 0.05, 0.0), (0.5, 0.1, 0.01)):
            both, first, second, neither = random.multinomial(n, [*p, 1 - sum(p)], effort.many).T
            null = 0.0 if p[1] == p[2] else None
            yield row(
                "paired difference", n, p, paired.compute_paired_limits(first, second, n, 0.95), p[1] - p[2], null
            )
            some = both + second > 0
            ends = rates.compute_ratio_interval(both[some], first[some], second[some], neither[some], 0.95)
            yield row("paired ratio", n, p, ends, (p[0] + p[1]) / (p[0] + p[2]))


def simulate_means(effort: Effort) -> Iterator[Row]:
    """Means of bounded values: distances of posteriors, localisation, calibration gaps."""
    random = np.random.default_rng(3)
    cases: dict[str, tuple[Callable[..., np.ndarray], float]] = {
        "uniform": (lambda size: random.random(size), 0.5),
        "beta(0.1, 5)": (lambda size: random.beta(0.1, 5, size), 0.1 / 5.1),
        "rare": (lambda size: np.where(random.random(size) < 0.01, random.random(size), 0.0), 0.005),
        "constant but rare": (lambda size: np.where(random.random(size) < 0.001, 1.0, 0.3), 0.3007),
    }
    for n in effort.sizes:
        for name, (draw, truth) in cases.items():
            values = draw((min(effort.many // 10, max(200, 4_000_000 // n)), n))
            yield row("bounded mean", n, name, rates.compute_bounded_mean(values, (0, 1), 0.95), truth)


def _normal(auc: float, spread: float = 1.0) -> tuple[Callable[..., tuple[np.ndarray, np.ndarray]], float]:
    shift = float(stats.norm.ppf(auc)) * (1 + spread**2) ** 0.5
    return lambda g, m, n: (g.normal(shift, spread, m), g.normal(0, 1, n)), auc


def _two_scores(p: float, q: float) -> tuple[Callable[..., tuple[np.ndarray, np.ndarray]], float]:
    return lambda g, m, n: ((g.random(m) < p) * 1.0, (g.random(n) < q) * 1.0), 0.5 + (p - q) / 2


def simulate_auc(effort: Effort) -> Iterator[Row]:
    """AUC: guessing, near-perfect, ties, constant scores, outliers."""
    random = np.random.default_rng(4)
    cases = {f"normal {auc}": _normal(auc) for auc in (0.5, 0.8, 0.983, 0.9993)}
    cases |= {"normal 0.5, spread 0.3": _normal(0.5, 0.3), "normal 0.95, spread 3": _normal(0.95, 3.0)}
    cases |= {f"correctness {p}": _two_scores(*p) for p in ((1, 0.99), (0.99, 0.9), (0.999, 0.999), (1, 1), (0.5, 0.5))}
    cases["outliers 0.01"] = (lambda g, m, n: (np.ones(m), np.where(g.random(n) < 0.01, 2.0, 0.0)), 0.99)
    for m, n in effort.groups:
        for name, (draw, truth) in cases.items():
            ends = np.array([roc.compute_auc_limits(*draw(random, m, n), 0.95) for _ in range(effort.runs)]).T
            yield row("AUC", (m, n), name, ends, truth, 0.5 if truth == 0.5 else None)


def simulate_tpr(effort: Effort) -> Iterator[Row]:
    """TPR at each FPR that is resolved, and at those that are not."""
    random = np.random.default_rng(5)
    for m, n in effort.groups:
        for fpr in (0.1, 0.01, 0.001):
            if n * fpr < 0.5:
                continue
            for shift, spread in ((0.0, 1.0), (1.0, 1.0), (2.0, 1.0), (6.0, 1.0), (0.0, 3.0)):
                truth = float(stats.norm.sf((stats.norm.isf(fpr) - shift) / spread))
                draws = [(random.normal(shift, spread, m), random.normal(0, 1, n)) for _ in range(effort.runs)]
                ends = np.array([roc.compute_tpr_limits(*scores, fpr, 0.95) for scores in draws]).T
                yield row(f"TPR at {fpr}", (m, n), (shift, spread), ends, truth, fpr if truth == fpr else None)


def simulate_f1(effort: Effort) -> Iterator[Row]:
    """Macro-F1 of two values, of which one may be rare, without classes."""
    random = np.random.default_rng(6)
    for n in effort.sizes[:3]:
        for rare, right in ((0.5, 0.9), (0.1, 0.9), (0.5, 0.998)):
            ends = []
            for _ in range(effort.runs):
                truth = (random.random(n) < rare).astype(np.int64)
                truth[:2] = 0, 1
                said = np.where(random.random(n) < right, truth, 1 - truth)
                found = attribute.measure_attribute(truth, said, np.zeros_like(truth), np.zeros_like(truth))
                ends += [(m.low, m.high) for m in found if m.name == "macro-f1"]
            hits = rare * right, (1 - rare) * right
            said = rare * right + (1 - rare) * (1 - right)
            value = hits[0] / (rare + said) + hits[1] / (1 - rare + 1 - said)
            yield row("macro-F1", n, (rare, right), np.array(ends).T, value)


def simulate_clusters(effort: Effort) -> Iterator[Row]:
    """Inversion: hits that come by class."""
    random = np.random.default_rng(7)
    for classes, restarts in ((10, 3), (10, 10), (100, 2)):
        for p, rho in ((0.1, 0.3), (0.5, 0.05), (0.9, 0.8)):
            ends = []
            for _ in range(effort.runs):
                own = random.beta(p * (1 / rho - 1), (1 - p) * (1 / rho - 1), classes)
                hits = (random.random((classes, restarts)) < own[:, None]).ravel()
                of = np.repeat(np.arange(classes), restarts)
                found = inversion.measure_clustered_rate("x", hits, of, direction=Direction.LOWER)
                ends.append((found.low, found.high))
            yield row("clustered rate", (classes, restarts), (p, rho), np.array(ends).T, p)


def simulate_models(effort: Effort) -> Iterator[Row]:
    """Correlations and means over models, alone and in families."""
    random = np.random.default_rng(8)
    for sizes in ([1] * 8, [1] * 15, [1] * 30, [10] * 6, [40, 10, 5, 3, 1, 1]):
        family = np.repeat(np.arange(len(sizes)), sizes)
        clusters = None if max(sizes) == 1 else family
        for rho in (0.0, 0.6):
            ends: dict[str, list[tuple[float, float]]] = {"correlation": [], "mean": []}
            for _ in range(effort.runs):
                x, z = random.normal(size=(2, len(sizes)))[:, family] + 0.5 * random.normal(size=(2, len(family)))
                y = rho * x + (1 - rho**2) ** 0.5 * z
                found = statistics.estimate_correlation(x, y, clusters=clusters, resamples=1)
                ends["correlation"].append((found.low, found.high))
                found = statistics.estimate_mean(x, clusters=clusters)
                ends["mean"].append((found.low, found.high))
            name = f"{len(family)} models, {len(sizes)} families" if clusters is not None else f"{len(family)} models"
            yield row("correlation", name, rho, np.array(ends["correlation"]).T, rho, 0.0 if rho == 0 else None)
            yield row("mean over models", name, rho, np.array(ends["mean"]).T, 0.0)


def simulate_skewed(effort: Effort) -> Iterator[Row]:
    """Correlations of strongly skewed quantities over few models, two of them with a spread that grows with them."""
    random = np.random.default_rng(9)

    def draw_lognormal(n: int) -> tuple[np.ndarray, np.ndarray]:
        first, second = random.normal(size=(2, n))
        return np.exp(first), np.exp(0.6 * first + 0.8 * second)

    def draw_growing(spread: float) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
        def draw(n: int) -> tuple[np.ndarray, np.ndarray]:
            first = random.exponential(size=n)
            return first, first * (1 + spread * random.normal(size=n))

        return draw

    # For x ~ exp(1) and y = x(1 + c·e): cov = 1, var x = 1, var y = 2(1 + c²) - 1.
    cases = {"lognormal": (draw_lognormal, float(np.expm1(0.6) / np.expm1(1.0)))}
    cases |= {f"growing, {c}": (draw_growing(c), float(1 / np.sqrt(1 + 2 * c**2))) for c in (0.7, 1.5)}
    for n in (8, 15, 30):
        for name, (draw, truth) in cases.items():
            found = [statistics.estimate_correlation(*draw(n), resamples=1) for _ in range(effort.runs)]
            yield row("skewed correlation", f"{n} models", name, np.array([(f.low, f.high) for f in found]).T, truth)


def simulate_paired_auc(effort: Effort) -> Iterator[Row]:
    """The difference of two AUCs of the same records: useless, equal and correlated scores, and separated ones."""
    random = np.random.default_rng(10)
    for m, n in effort.groups:
        is_member = np.arange(m + n) < m
        for first, second, rho in ((0.0, 0.0, 0.0), (1.0, 1.0, 0.9), (0.5, 1.5, 0.5), (4.0, 5.0, 0.8)):
            truth = float(stats.norm.cdf(second / 2**0.5) - stats.norm.cdf(first / 2**0.5))
            ends = []
            for _ in range(effort.runs // 2):
                x, z = random.normal(size=(2, m + n))
                y = rho * x + (1 - rho**2) ** 0.5 * z
                found = paired_auc.measure_auc_difference("x", x + first * is_member, y + second * is_member, is_member)
                ends.append((found.low, found.high))
            null = 0.0 if truth == 0 else None
            yield row("AUC difference", (m, n), (first, second, rho), np.array(ends).T, truth, null)


def simulate_epsilon(effort: Effort) -> Iterator[Row]:
    """The lower bound on epsilon, for randomised response, whose epsilon is known; an end of an interval up to ∞."""
    random = np.random.default_rng(11)
    for m, n in effort.groups:
        is_member = np.arange(m + n) < m
        for truth in (0.0, 1.0, 4.0):
            right = 1 / (1 + np.exp(-truth))
            bounds = []
            for seed in range(effort.runs // 2):
                said = (random.random(m + n) < right) == is_member
                found = epsilon.measure_lower_bound(said + random.random(m + n) / 2, is_member, delta=0.0, seed=seed)
                bounds.append(found.value or 0.0)
            yield row("epsilon, one-sided", (m, n), truth, (bounds, np.full(len(bounds), np.inf)), truth)


def simulate_medians(effort: Effort) -> Iterator[Row]:
    """The median number of queries."""
    random = np.random.default_rng(12)
    for n in effort.sizes[:3]:
        for share, truth in ((0.05, 14), (0.5, 1), (0.001, 693)):
            found = [evasion.measure_median("x", random.geometric(share, n), level=0.95) for _ in range(effort.runs)]
            yield row("median", n, share, np.array([(f.low, f.high) for f in found]).T, truth)


def simulate_trainings(effort: Effort) -> Iterator[Row]:
    """Mean accuracy and AUC over further trainings on the same kind of records."""
    random = np.random.default_rng(13)
    for count, n in ((4, 50), (8, 200)):
        for between in (0.0, 0.2):
            ends: dict[str, list[tuple[float | None, float | None]]] = {"accuracy": [], "AUC": []}
            for _ in range(effort.runs // 4):
                difficulty = random.normal(size=n)
                skill = 1.0 + between * random.normal(size=count)
                hits = (skill[:, None] + 0.7 * difficulty + 0.714 * random.normal(size=(count, n)) > 0).sum(axis=1)
                found = trainings.measure_mean_rate("x", hits.astype(float), n, direction=Direction.HIGHER)
                ends["accuracy"].append((found.low, found.high))
                groups = [(s + random.normal(size=n), difficulty) for s in skill]
                found = trainings.measure_mean_auc("x", groups)
                ends["AUC"].append((found.low, found.high))
            accuracy, auc = (stats.norm.cdf(1 / (scale + between**2) ** 0.5) for scale in (1.0, 2.0))
            yield row("mean accuracy", (count, n), between, np.array(ends["accuracy"]).T, float(accuracy))
            yield row("mean AUC", (count, n), between, np.array(ends["AUC"]).T, float(auc))


def simulate_verdicts(effort: Effort) -> Iterator[Row]:
    """How often the sentences on the best of several useless attacks say that it is better, or worse, than guessing."""
    random = np.random.default_rng(14)
    for m, n in effort.groups:
        for attacks, shared in ((1, 0.0), (8, 0.0), (8, 0.8)):
            said = []
            for _ in range(max(effort.runs // 4, 40)):
                scores = shared**0.5 * random.normal(size=m + n) + (1 - shared) ** 0.5 * random.normal(
                    size=(attacks, m + n)
                )
                aucs = [roc.measure_auc(one[:m], one[m:]) for one in scores]
                fpr = next((fpr for fpr in (0.001, 0.01, 0.1) if n * fpr >= membership.MARGIN), None)
                tprs = [] if fpr is None else [roc.measure_tpr_at_fpr(one[:m], one[m:], fpr) for one in scores]
                verdicts = [membership.describe_auc(choose_best(aucs), attacks)]
                verdicts += [membership.describe_tpr(choose_best(tprs), None, attacks)] if tprs else []
                said.append([not text.count("not distinguishable") for text in verdicts])
            for name, share in zip(("AUC", "TPR"), np.mean(said, axis=0), strict=False):
                # Both directions count: nominal is 5%, of which half is "more than guessing".
                yield Row(f"verdict on {name}", str((m, n)), f"best of {attacks}, {shared}", len(said), 0, 0, share / 2)


def choose_best(measured: list[Measurement]) -> Measurement:
    return max(measured, key=lambda one: (one.low or 0.0, one.value or 0.0))


KINDS: dict[str, Callable[[Effort], Iterator[Row]]] = {
    "rates": simulate_rates,
    "two-rates": simulate_two_rates,
    "pairs": simulate_pairs,
    "means": simulate_means,
    "auc": simulate_auc,
    "tpr": simulate_tpr,
    "f1": simulate_f1,
    "clusters": simulate_clusters,
    "models": simulate_models,
    "skewed": simulate_skewed,
    "paired-auc": simulate_paired_auc,
    "epsilon": simulate_epsilon,
    "medians": simulate_medians,
    "trainings": simulate_trainings,
    "verdicts": simulate_verdicts,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--full", action="store_true", help="all sizes; minutes")
    arguments = parser.parse_args()
    for kind in arguments.kinds or KINDS:
        for found in KINDS[kind](FULL if arguments.full else FAST):
            alarms = "" if found.alarms is None else f"  false alarms {found.alarms:.3f}"
            print(
                f"{found.kind:18} {found.sizes:26} {found.case:24} held {found.held:.3f} "
                f"(above {found.above:.3f}, below {found.below:.3f}){alarms}",
                flush=True,
            )


if __name__ == "__main__":
    main()
