"""What a study of a population shows: each statement of docs/results/public-networks.md, with its interval and n.

``python benchmarks/public_population.py docs/results/public-networks`` reads the results of ``study run`` (or what
``study merge --redact`` copied of them) and prints Markdown.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from securitynet.analysis import statistics
from securitynet.metrics.rates import compute_clopper_pearson
from securitynet.records import Measurement
from securitynet.results.store import TrialStore
from securitynet.results.study_targets import StudyTargetRecord, StudyTargetStore, make_target_key

Floats = NDArray[np.float64]
_MEMBERSHIP = ("correctness", "loss", "confidence", "entropy", "modified-entropy", "gradient-norm", "mlp-top3")
_VERDICTS = ("nothing found", "undecided", "suspicious", "backdoor found")
_SURROGATE = "stealing.securitynet-surrogate@partial"


@dataclass
class Network:
    """A target of the study, with all that was measured on it.

    Attributes:
        record: Its record.
        values: Name of a measurement -> the measurement.
        statuses: How many of its trials ended how.
        reasons: Reasons why trials were skipped.
    """

    record: StudyTargetRecord
    values: dict[str, Measurement] = field(default_factory=dict)
    statuses: Counter[str] = field(default_factory=Counter)
    reasons: set[str] = field(default_factory=set)


def read_networks(folder: Path) -> list[Network]:
    """All targets of a study with their measurements.

    Args:
        folder: Its results.
    """
    networks = {record.means.key: Network(record) for record in StudyTargetStore(folder) if record.means is not None}
    for trial in TrialStore(folder):
        spec = trial.spec
        network = networks.get(make_target_key(spec.target, spec.dataset, spec.split, spec.precision))
        if network is None:
            continue
        network.statuses[trial.status] += 1
        network.reasons |= {trial.reason} if trial.status == "skipped" and trial.reason else set()
        network.values |= {measurement.name: measurement for measurement in trial.measurements}
    for network in networks.values():
        network.values |= {measurement.name: measurement for measurement in network.record.measurements}
    return list(networks.values())


def list_values(networks: list[Network], name: str) -> Floats:
    """One value a network, NaN where it was not measured.

    Args:
        networks: The networks.
        name: Of the measurement.
    """
    measured = (network.values.get(name) for network in networks)
    return np.asarray([np.nan if item is None or item.value is None else item.value for item in measured], dtype=float)


def describe(networks: list[Network]) -> Iterator[str]:
    """The lines of the table.

    Args:
        networks: From `read_networks`.
    """
    # Only networks with all trials, so that every statement is about the same networks.
    most = max((network.statuses["ok"] for network in networks), default=0)
    used = [network for network in networks if 0 < network.statuses["ok"] == most]
    left_out = Counter(reason for network in networks for reason in network.reasons)
    yield f"{len(used)} networks with all trials; {len(networks) - len(used)} without"
    for reason, count in left_out.items():
        yield f"- left out, {count} network{'s' if count > 1 else ''}: {reason}"
    yield ""
    yield "| what | value, 95% interval | n |"
    yield "|---|---|---:|"
    for name in ("test_accuracy", "overfitting"):
        values = list_values(used, f"target.{name}")
        shown = f"{_mean(values, (-1, 1))}; from {values.min():.3f} to {values.max():.3f}"
        shown += f"; median {np.median(values):.3f}" if name == "overfitting" else ""
        yield _row(name.replace("_", " "), shown, used)
    yield from _describe_membership(used)
    yield from _describe_stealing(used)
    yield from _describe_evasion(used)
    yield from _describe_backdoors(used)


def _describe_membership(used: list[Network]) -> Iterator[str]:
    blind = list_values(used, "membership.loss.blind-auc")
    yield _row("AUC of the blind baseline (no model)", f"{blind.min():.3f} to {blind.max():.3f}", used)
    for attack in _MEMBERSHIP:
        auc = list_values(used, f"membership.{attack}.auc")
        above = sum(_is_above(network, f"membership.{attack}.auc", 0.5) for network in used)
        tpr = list_values(used, f"membership.{attack}.tpr@fpr=0.01")
        shown = f"{_mean(auc)}; largest {np.nanmax(auc):.3f}; interval above 0.5 for {above}"
        yield _row(f"AUC of {attack}", f"{shown}; TPR at 1% FPR {_mean(tpr)}", used)
    overfitting = list_values(used, "target.overfitting")
    leaking = [network for network in used if _is_above(network, "membership.loss.auc", 0.5)]
    if leaking:
        theirs = list_values(leaking, "target.overfitting")
        shown = f"from {theirs.min():.3f} to {theirs.max():.3f}"
        yield _row("overfitting where the interval of loss is above 0.5", shown, leaking)
    for attack in ("loss", "entropy"):
        auc = list_values(used, f"membership.{attack}.auc")
        yield from _correlate(f"overfitting and AUC of {attack}", overfitting, auc, used)


def _describe_stealing(used: list[Network]) -> Iterator[str]:
    accuracy = list_values(used, "target.test_accuracy")
    for budget in (250, 1000):
        agreement = list_values(used, f"{_SURROGATE}.agreement@budget={budget}")
        constant = list_values(used, f"{_SURROGATE}.constant-agreement@budget={budget}")
        shown = f"{_mean(agreement)}; of a constant guess {_mean(constant)}"
        yield _row(f"agreement of a surrogate, {budget:,} queries", shown, used)
    agreement = list_values(used, f"{_SURROGATE}.agreement@budget=1000")
    yield from _correlate("test accuracy and agreement", accuracy, agreement, used)
    ratio = list_values(used, f"{_SURROGATE}.accuracy-ratio@budget=1000")
    yield _row("accuracy of the surrogate, as a share of the target's", _mean(ratio), used)


def _describe_evasion(used: list[Network]) -> Iterator[str]:
    accuracy = list_values(used, "target.test_accuracy")
    for attack in ("fgsm", "pgd"):
        for epsilon in ("0.01", "0.03"):
            success = list_values(used, f"evasion.{attack}.success@epsilon={epsilon}")
            yield _row(f"success of {attack.upper()}, ε = {epsilon}", _mean(success), used)
    drop = list_values(used, "evasion.fgsm.accuracy-drop@epsilon=0.01")
    success = list_values(used, "evasion.fgsm.success@epsilon=0.01")
    yield from _correlate("test accuracy and drop by FGSM, ε = 0.01", accuracy, drop, used)
    yield from _correlate("test accuracy and success of FGSM, ε = 0.01", accuracy, success, used)


def _describe_backdoors(used: list[Network]) -> Iterator[str]:
    verdicts = list_values(used, "backdoor.neural-cleanse.verdict")
    for number, words in enumerate(_VERDICTS):
        yield _row(f"Neural Cleanse: {words}", _share(int((verdicts == number).sum()), len(used)), used)
    flagged = list_values(used, "backdoor.neural-cleanse.flagged-labels")
    shown = _share(int((flagged > 0).sum()), len(used))
    yield _row("Neural Cleanse: flagged by the paper's rule (2 deviations)", shown, used)
    for detector in ("strip", "neo"):
        measured = [network.values[f"backdoor.{detector}.false-rejection-rate"] for network in used]
        counts = [(round((m.value or 0.0) * m.n), m.n) for m in measured]
        stopped, images = (sum(part) for part in zip(*counts, strict=True))
        mean = _mean(np.asarray([m.value for m in measured], dtype=float))
        shown = f"{_share(stopped, images)} of the images; mean over networks {mean}"
        yield _row(f"{detector.upper()}: clean images stopped", shown, used)


def _row(what: str, value: str, networks: list[Network]) -> str:
    return f"| {what} | {value} | {len(networks)} |"


def _correlate(what: str, x: Floats, y: Floats, used: list[Network]) -> Iterator[str]:
    """A correlation over all networks and, as groups may differ in both quantities, over the commonest architecture."""
    yield _row(f"correlation of {what}", _correlation(x, y), used)
    names = [str(network.record.codes.get("architecture")) for network in used]
    commonest, count = Counter(names).most_common(1)[0]
    if count < len(used):
        own = np.asarray([name == commonest for name in names])
        chosen = [network for network in used if network.record.codes.get("architecture") == commonest]
        yield _row(f"correlation of {what}, {commonest} only", _correlation(x[own], y[own]), chosen)


def _is_above(network: Network, name: str, bound: float) -> bool:
    measurement = network.values.get(name)
    return measurement is not None and measurement.low is not None and measurement.low > bound


def _mean(values: Floats, bounds: tuple[float, float] = (0, 1)) -> str:
    estimate = statistics.estimate_mean(values, bounds=bounds)
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def _correlation(x: Floats, y: Floats) -> str:
    estimate = statistics.estimate_correlation(x, y)
    return f"r = {estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})" if estimate.resolved else "–"


def _share(count: int, total: int) -> str:
    low, high = compute_clopper_pearson(count, total, 0.95)
    return f"{count} of {total} ({float(low):.1%} to {float(high):.1%})"


if __name__ == "__main__":
    for line in describe(read_networks(Path(sys.argv[1]))):
        print(line)
