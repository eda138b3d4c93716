"""How often what membership attacks conclude is right, against known truths, without networks.

    python benchmarks/membership_truths.py [--runs N] [KIND ...]

Each line: kind, sizes, case, number of simulations, share whose interval holds the truth, how often it lies wholly
above and wholly below, and how often a useless attack is called more than guessing. `interval_coverage.py` simulates
single intervals; here are attacks and verdicts that combine several.
"""

from __future__ import annotations

import argparse
import functools
import itertools
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from interval_coverage import Row, row
from securitynet.attacks.membership import _lira
from securitynet.attacks.membership._leave_one_out import score_each_model
from securitynet.attacks.membership.dataset_usage import UsageEstimate
from securitynet.attacks.membership.lira import LiRA
from securitynet.attacks.membership.range_membership import average_largest
from securitynet.metrics import groups, membership, roc, vulnerability
from securitynet.metrics.rates import compute_clopper_pearson
from securitynet.metrics.removal import judge_removal
from securitynet.models.shadows import ShadowPlan
from securitynet.records import Access, Auxiliary, Measurement, Queries, ThreatModel
from securitynet.reports import evidence
from securitynet.reports.families import membership as verdicts
from securitynet.results.document import DatasetDescription, ResultDocument, TargetDescription, TrialSummary

SIZES = ((37, 900), (250, 250), (3000, 60), (20000, 400))
"""Members and non-members."""

Scores = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Scores]

USELESS: dict[str, Draw] = {
    "normal": lambda g, n: g.normal(size=n),
    "heavy tails": lambda g, n: g.standard_cauchy(n),
    "ties": lambda g, n: np.round(g.normal(size=n)),
    "two scores": lambda g, n: (g.random(n) < 0.97) * 1.0,
    "saturated": lambda g, n: np.minimum(g.normal(size=n), 0.5),
    "constant": lambda g, n: np.ones(n),
}
"""Scores of useless attacks, the same for members and non-members."""


def tally(kind: str, size: object, case: str, ends: list[tuple[float, float]], truth: float, null: float | None) -> Row:
    """Count how often intervals hold a truth."""
    return row(kind, size, case, np.array(ends, dtype=float).T, truth, null)


def count_alarms(kind: str, size: object, case: str, alarms: list[bool]) -> Row:
    """Count how often something is said that is wrong."""
    return Row(kind, str(size), case, len(alarms), 0, 0, float(np.mean(alarms)))


def simulate_measures(runs: int) -> Iterator[Row]:
    """Everything that is measured of one attack that is useless, with a threshold tuned on half of the records."""
    random = np.random.default_rng(0)
    for m, n in SIZES:
        is_member = np.arange(m + n) < m
        for case, draw in USELESS.items():
            ends: dict[str, list[tuple[float, float]]] = {}
            for seed in range(runs if m < 10_000 else runs // 3):
                scores = draw(random, m + n)
                known = random.random(m + n) < 0.5
                known[[0, m]], known[[1, m + 1]] = True, False
                threshold = roc.find_best_threshold(scores[known & is_member], scores[known & ~is_member])
                for one in membership.measure_membership(
                    scores, is_member, threshold=threshold, held_out=~known, seed=seed
                ):
                    if one.value is not None and one.low is not None:
                        ends.setdefault(one.name, []).append((one.low, np.inf if one.high is None else one.high))
            for name, found in ends.items():
                if name.startswith("tpr") and case in ("ties", "two scores", "saturated", "constant"):
                    # A block of ties that is larger than the rate is left out: the truth is at most the rate.
                    rate = float(name.partition("=")[2])
                    yield count_alarms(name, (m, n), case, [low > rate + 1e-9 for low, _ in found])
                else:
                    truth = {"auc": 0.5, "balanced-accuracy": 0.5}.get(name, 0.0)
                    truth = float(name.partition("=")[2]) if name.startswith("tpr") else truth
                    yield tally(name, (m, n), case, found, truth, truth)


def simulate_true_negatives(runs: int) -> Iterator[Row]:
    """The true-negative rate at a low false-negative rate: useless, a tail among the non-members, separated, ties."""
    random = np.random.default_rng(1)
    for m, n in SIZES:
        for fnr in (0.1, 0.01):
            if not roc.resolves(m, fnr):
                continue
            quantile = float(stats.norm.ppf(fnr))
            # The share of non-members below the quantile of the members.
            cases = {
                "useless": (lambda k: random.normal(size=k), fnr),
                "shifted by 1": (lambda k: random.normal(-1, 1, k), float(stats.norm.cdf(quantile + 1))),
                "separated": (lambda k: random.normal(-6, 1, k), float(stats.norm.cdf(quantile + 6))),
                "wider": (lambda k: random.normal(0, 3, k), float(stats.norm.cdf(quantile / 3))),
            }
            for case, (draw, truth) in cases.items():
                ends = []
                for _ in range(runs if m < 10_000 else runs // 3):
                    found = vulnerability.compute_tnr_at_fnr(random.normal(size=m), draw(n), fnr)
                    ends.append((found.low, found.high))
                yield tally(f"TNR at {fnr}", (m, n), case, ends, truth, fnr if case == "useless" else None)
            # The lowest of three scores is a block of 0.4 · fnr among the members, and nothing lies below it.
            ends = []
            for _ in range(runs if m < 10_000 else runs // 3):
                levels = [
                    random.choice(3, size, p=p)
                    for size, p in ((m, (0.4 * fnr, 0.5, 0.5 - 0.4 * fnr)), (n, (0.2, 0.5, 0.3)))
                ]
                found = vulnerability.compute_tnr_at_fnr(*(one.astype(float) for one in levels), fnr)
                ends.append((found.low, found.high))
            yield tally(f"TNR at {fnr}", (m, n), "three scores", ends, 0.2, None)


def draw_signals(
    random: np.random.Generator,
    included: NDArray[np.bool_],
    gap: float,
    *,
    heavy: bool = False,
    alike: bool = False,
) -> Scores:
    """Draw scaled confidences M×N: records have own levels and, unless ``alike``, own spreads; models own levels."""
    models, records = included.shape
    noise = random.standard_t(4, included.shape) if heavy else random.normal(size=included.shape)
    spread = np.exp((0.0 if alike else 0.3) * random.normal(size=records))
    level = random.normal(0, 2, records) + random.normal(0, 0.3, (models, 1))
    return np.asarray(level + spread * noise + gap * included)


def simulate_usage(runs: int) -> Iterator[Row]:
    """The share of a dataset that was used: none, a part, all; attacks from useless to strong."""
    random = np.random.default_rng(2)
    for records, models in ((60, 16), (400, 16), (400, 8), (900, 32)):
        for gap in (0.0, 0.4, 2.0):
            for share in (0.0, 0.3, 1.0):
                ends, unresolved = [], 0
                for _ in range(runs):
                    order = random.random((models + 1, records)).argsort(axis=1)
                    included = order < records // 2
                    included[-1] = order[-1] < round(share * records)
                    signals = draw_signals(random, included, gap)
                    shadows, inside = signals[:-1], included[:-1]
                    estimate = UsageEstimate(
                        np.arange(records),
                        _lira.compute_online_ratio(signals[-1], shadows, inside) > 0,
                        included[-1],
                        LiRA().score_leave_one_out(shadows, inside) > 0,
                        inside,
                    )
                    found = estimate.measurements(level=0.95, fprs=(), seed=0)[0]
                    if found.value is None:
                        unresolved += 1
                    else:
                        ends.append((found.low, found.high))
                case = f"gap {gap}, share {share}, unresolved {unresolved / runs:.0%}"
                if ends:
                    yield tally("dataset usage", (records, models), case, ends, share, None)


def simulate_ranges(runs: int) -> Iterator[Row]:
    """Ranges of nine shifted copies, whose confidences are correlated; the member's own copy gains most."""
    random = np.random.default_rng(3)

    def draw(count: int, gap: float, rho: float) -> Scores:
        common = random.normal(size=count)
        views = rho**0.5 * common + (1 - rho) ** 0.5 * random.normal(size=(9, count))
        views[0] += gap
        views[1:5] += gap / 3
        return average_largest(views, 0.34)

    for rho in (0.3, 0.95):
        for gap in (0.0, 1.0, 5.0):
            truth = 0.5 if gap == 0 else roc.compute_auc(draw(1_000_000, gap, rho), draw(1_000_000, 0.0, rho))
            for m, n in SIZES:
                ends = [
                    roc.compute_auc_limits(draw(m, gap, rho), draw(n, 0.0, rho), 0.95)
                    for _ in range(runs if m < 10_000 else runs // 3)
                ]
                yield tally(
                    "range AUC", (m, n), f"gap {gap}, correlation {rho}", ends, truth, 0.5 if gap == 0 else None
                )


def simulate_users(runs: int) -> Iterator[Row]:
    """Groups of records of one user each, alike in confidence; the mean of a group is its score."""
    random = np.random.default_rng(4)

    def draw(count: int, size: int, gap: float, alike: float) -> Scores:
        own = alike**0.5 * random.normal(size=(count, 1))
        values = own + (1 - alike) ** 0.5 * random.normal(size=(count, size))
        return np.asarray((values + gap).mean(axis=1))

    for size in (4, 25):
        for alike in (0.0, 0.5):
            spread = (alike + (1 - alike) / size) ** 0.5
            for gap in (0.0, 0.3, 2.0):
                truth = float(stats.norm.cdf(gap / spread / 2**0.5))
                for m, n in ((9, 225), (62, 62), (750, 15), (5000, 100)):
                    ends = [
                        roc.compute_auc_limits(draw(m, size, gap, alike), draw(n, size, 0.0, alike), 0.95)
                        for _ in range(runs)
                    ]
                    case = f"gap {gap}, {size} records, alike {alike}"
                    yield tally("AUC of groups", (m, n), case, ends, truth, 0.5 if gap == 0 else None)


def simulate_groups(runs: int) -> Iterator[Row]:
    """Classes and attributes that do not differ: how often one of them is said to."""
    random = np.random.default_rng(5)
    for m, n in SIZES:
        for classes, fpr in ((2, 0.1), (10, 0.05), (40, 0.02)):
            is_member = np.arange(m + n) < m
            for case, draw in {"normal": USELESS["normal"], "ties": USELESS["ties"]}.items():
                said, off = [], []
                for _ in range(max(runs // 4, 60)):
                    scores = draw(random, m + n) + (0.5 * is_member if case == "normal" else 0)
                    threshold = np.sort(scores[~is_member])[n - 1 - max(roc.count_allowed(fpr, n), 0)]
                    columns = {
                        "class": (random.integers(0, classes, m + n), [str(k) for k in range(classes)]),
                        "attribute": (random.integers(-1, 3, m + n), ["a", "b", "c"]),
                    }
                    found = groups.compare_exposed_groups(scores, is_member, threshold, columns)
                    said.append(any(one.differs(0.95) for one in found))
                    truth = float(stats.norm.cdf(0.5 / 2**0.5)) if case == "normal" else 0.5
                    off.append(any(not one.auc.low <= truth <= one.auc.high for one in found))
                # Both directions count; half of them are "more".
                rows = (("a group differs", said), ("AUC of a group", off))
                for name, wrong in rows:
                    share = float(np.mean(wrong))
                    yield Row(name, str((m, n)), f"{classes} classes, {case}", len(wrong), share / 2, share / 2)


def simulate_removal(runs: int) -> Iterator[Row]:
    """The verdict on removed records: removed without a trace, and not removed."""
    random = np.random.default_rng(6)
    draws: dict[str, Callable[[tuple[int, int]], Scores]] = {
        "normal": lambda size: random.normal(size=size),
        "heavy tails": lambda size: random.standard_t(3, size=size),
        "skewed": lambda size: random.gamma(2, size=size) / 2**0.5,
        "skewed the other way": lambda size: -random.gamma(2, size=size) / 2**0.5,
        "two groups": lambda size: random.normal(size=size) + 6 * (random.random(size) < 0.1),
        "ties": lambda size: np.round(random.normal(size=size)),
    }
    for count in (19, 39):
        for case, draw in draws.items():
            for gap in (0.0, 2.0, 4.0):
                values = draw((10 * runs, count + 1))
                said = [judge_removal(20, one[0] + gap, one[1:]).verdict == "remembered" for one in values]
                if gap == 0:
                    yield count_alarms("removal", count, f"{case}, removed", said)
                else:
                    seen = f"{case}, kept, {gap:g} deviations: seen in {np.mean(said):.1%}"
                    yield Row("removal", str(count), seen, len(said), 0, 0)


def simulate_exposure(runs: int) -> Iterator[Row]:
    """Single records over leave-one-out targets: useless attacks, and twenty records of 200 exposed."""
    random = np.random.default_rng(7)
    for models, records, fpr, heavy in ((8, 300, 0.05, False), (16, 400, 0.05, True), (32, 250, 0.1, True)):
        significant, reliable = [], []
        for number in range(max(runs // 5, 40)):
            included = ShadowPlan(count=models).training_sets(records, seed=number)
            signals = draw_signals(random, included, 0.0, heavy=heavy)
            attack = functools.partial(attack_each, signals, number)
            found = vulnerability.measure_vulnerability(attack(included), included, fpr=fpr)
            significant.append(bool((found.p_values <= 0.05).any()))
            ranking = vulnerability.measure_reliability(attack, included, 0.01, seed=number)
            reliable.append(ranking.value > ranking.chance_high)
        yield count_alarms("a record is exposed", (models, records), f"useless, fpr {fpr}", significant)
        yield count_alarms("ranking is reliable", (models, records), f"useless, fpr {fpr}", reliable)
    for models, gap in itertools.product((16, 32, 64), (0.0, 1.0, 4.0)):
        exposed = np.arange(200) < 20
        limits, binomial, shares = [], [], []
        for number in range(max(runs // 5, 40)):
            included = ShadowPlan(count=models).training_sets(200, seed=number)
            signals = draw_signals(random, included, 0.0, alike=True) + gap * exposed * included
            found = vulnerability.measure_vulnerability(attack_each(signals, number, included), included, fpr=0.1)
            limits.append(found.rate_limits(0.95))
            binomial.append(compute_clopper_pearson(found.identified, found.member_of, 0.95))
            shares.append(found.identified / found.member_of)
        for name, group in (("exposed", exposed), ("others", ~exposed)):
            truth = float(np.stack(shares)[:, group].mean())
            for kind, intervals in (("share identified", limits), ("binomial intervals", binomial)):
                pairs = [zip(lows[group], highs[group], strict=True) for lows, highs in intervals]
                ends = [pair for lows_and_highs in pairs for pair in lows_and_highs]
                yield tally(kind, (models, 200), f"gap {gap}, {name}, truth {truth:.3f}", ends, truth, None)


def attack_each(signals: Scores, seed: int, is_member: NDArray[np.bool_]) -> Scores:
    """Attack each model with the others."""
    return score_each_model(signals, is_member, balanced=True, seed=seed)


def simulate_traces(runs: int) -> Iterator[Row]:
    """Loss traces that say nothing: the share of vulnerable records among those that they rank highest."""
    random = np.random.default_rng(8)
    for records, epochs in ((250, 8), (900, 25), (3000, 60)):
        shares = []
        for _ in range(runs):
            losses = random.gamma(2, size=(epochs, records)) * np.linspace(1, 0.1, epochs)[:, None]
            vulnerable = random.random(records) < 0.1
            shares.append(
                vulnerability.compute_precision(vulnerability.compute_loss_trace_iqr(losses), vulnerable, 0.1)
            )
        error = float(np.std(shares) / len(shares) ** 0.5)
        mean = float(np.mean(shares))
        yield Row(
            "loss traces",
            str((records, epochs)),
            f"mean precision {mean:.4f} for 0.1",
            runs,
            float(mean > 0.1 + 3 * error),
            float(mean < 0.1 - 3 * error),
        )


THREAT_MODEL = ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.PARTIAL)


def make_document(measured: dict[str, list[Measurement]], members: int, non_members: int) -> ResultDocument:
    """Build the result of an assessment whose trials measured these numbers."""
    return ResultDocument(
        created="2026-01-01T00:00:00+00:00",
        target=TargetDescription(
            reference="arch:a", checksum="0", preprocessing="none", normalize="none", head="logits", num_classes=2,
            access="white-box", precision="fp32",
        ),
        dataset=DatasetDescription(
            reference="d", fingerprint="0", records=members + non_members, classes=("a", "b"), image_shape=None,
            split="public", split_seed=0, split_fingerprint="0", membership="known", members=members,
            non_members=non_members, known_members=members // 2, known_non_members=non_members // 2,
        ),
        measurements=tuple(
            one.model_copy(update={"name": f"{name}.{one.name}"}) for name, ones in measured.items() for one in ones
        ),
        trials=tuple(
            TrialSummary(
                id=name, name=name, status="ok", reason=None, threat_model=THREAT_MODEL, configuration={},
                queries=Queries(), seconds={},
            )
            for name in measured
        ),
        not_assessed=(), queries={}, seconds={}, environment={}, settings={},
    )  # fmt: skip


MORE = ("guessing, which", "certainty", "far better", "clearly better", "slightly better", "better than guessing")


def claims_more(sentence: str) -> bool:
    """Whether a sentence of the verdict says that something is more than guessing."""
    if "not distinguishable" in sentence or "fewer than guessing" in sentence or "worse than guessing" in sentence:
        return False
    return any(words in sentence for words in (*MORE, "does better than overfitting alone"))


def simulate_verdicts(runs: int) -> Iterator[Row]:
    """Whole verdicts of several useless attacks, correctness and judgements of groups among them."""
    random = np.random.default_rng(9)
    names = [f"membership.{name}" for name in ("loss", "entropy", "rmia", "lira", "confidence", "gradient-norm")]
    for m, n in SIZES:
        is_member = np.arange(m + n) < m
        for case, shared in (("normal", 0.0), ("normal", 0.9), ("ties", 0.9), ("constant", 0.0)):
            said: dict[str, list[bool]] = {"AUC": [], "TPR": [], "overfitting": [], "any sentence": [], "grade": []}
            for seed in range(max(runs // (2 if m < 10_000 else 6), 60)):
                common = random.normal(size=m + n)
                measured = {}
                for name in names:
                    scores = shared**0.5 * common + (1 - shared) ** 0.5 * USELESS["normal"](random, m + n)
                    scores = np.round(scores) if case == "ties" else scores * (case != "constant")
                    measured[name] = measure(scores, is_member, seed)
                right = (random.random(m + n) < 0.9) * 1.0
                measured["membership.correctness"] = measure(right, is_member, seed)
                means = [one[: len(one) // 4 * 4].reshape(-1, 4).mean(axis=1) for one in (common[:m], common[m:])]
                judged = np.concatenate(means)
                measured["membership.group-membership"] = measure(judged, np.arange(len(judged)) < len(means[0]), seed)
                document = make_document(measured, m, n)
                lines = verdicts.write_sentences(document, document.trials)
                wrong = [claims_more(line) for line in lines]
                said["any sentence"].append(any(wrong))
                for key, words in (
                    ("AUC", "with an AUC"),
                    ("TPR", "false-positive rate"),
                    ("overfitting", "overfitting alone"),
                ):
                    said[key].append(any(one for one, line in zip(wrong, lines, strict=True) if words in line))
                found = evidence.find_membership(document, document.trials)
                said["grade"].append(any(one.low > one.chance for one in found))
            for key, alarms in said.items():
                yield count_alarms(f"verdict: {key}", (m, n), f"{case}, correlation {shared}", alarms)


def measure(scores: Scores, is_member: NDArray[np.bool_], seed: int) -> list[Measurement]:
    """Measure an attack whose threshold is tuned on every other record."""
    known = np.arange(len(scores)) % 2 == 0
    threshold = roc.find_best_threshold(scores[known & is_member], scores[known & ~is_member])
    return membership.measure_membership(scores, is_member, threshold=threshold, held_out=~known, seed=seed)


KINDS: dict[str, Callable[[int], Iterator[Row]]] = {
    "measures": simulate_measures,
    "true-negatives": simulate_true_negatives,
    "usage": simulate_usage,
    "ranges": simulate_ranges,
    "users": simulate_users,
    "groups": simulate_groups,
    "removal": simulate_removal,
    "exposure": simulate_exposure,
    "traces": simulate_traces,
    "verdicts": simulate_verdicts,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--runs", type=int, default=400, help="simulations per case, fewer where they are costly")
    arguments = parser.parse_args()
    for kind in arguments.kinds or KINDS:
        for found in KINDS[kind](arguments.runs):
            alarms = "" if found.alarms is None else f"  false alarms {found.alarms:.3f}"
            print(
                f"{found.kind:20} {found.sizes:14} {found.case:34} runs {found.runs:5} held {found.held:.3f} "
                f"(above {found.above:.3f}, below {found.below:.3f}){alarms}",
                flush=True,
            )


if __name__ == "__main__":
    main()
