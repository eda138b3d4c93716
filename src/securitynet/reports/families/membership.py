"""What a report says about membership inference: the strongest attack, and the members identified at a low FPR."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from securitynet.records import Measurement
from securitynet.reports import verdict, words
from securitynet.reports.families import _membership_controls as controls
from securitynet.reports.kinds import Kind
from securitynet.results.comparison import MeasuredDifference
from securitynet.results.document import ResultDocument, TrialSummary

KINDS: dict[str, Kind] = {
    "advantage": Kind("Advantage", "points", chance=0.0),
    "balanced-accuracy": Kind("Balanced accuracy", "share", chance=0.5),
    "blind-auc": Kind("AUC of the blind baseline, which never sees the model", chance=0.5),
    "matched-auc": Kind("AUC on matched records", chance=0.5),
    "share": Kind("Non-members that are copies of members", "share"),
    "epsilon-lower-bound@delta": Kind("ε at least, for δ = {value}", one_sided=True),
}

DEGREES = (
    (0.95, "close to certainty"),
    (0.75, "far better than guessing"),
    (0.60, "clearly better than guessing"),
)
"""(least lower end of the interval, words) for an AUC."""

SLIGHT = 0.55
"""An AUC whose whole interval lies between 0.5 and this is only slightly better than guessing."""


IDENTITY = "membership.correctness"
"""The attack whose AUC is one half plus half the overfitting level, for any model."""

MARGIN = 10
"""A verdict mentions an FPR only if at least this many non-members are expected above its threshold."""


@dataclass(frozen=True)
class Unit:
    """What an attack judges.

    Attributes:
        one: One of them.
        many: Several of them.
        members: Those that were trained on.
        non_members: Those that were not.
    """

    one: str = "record"
    many: str = "records"
    members: str = "members"
    non_members: str = "non-members"


RECORDS = Unit()

UNITS = {
    "membership.group-membership": Unit(
        "group of records", "groups of records", "groups of members", "groups of non-members"
    ),
    "membership.lira-most-exposed": Unit(
        "of the most exposed records", "of the most exposed records", "the most exposed members", "non-members"
    ),
}
"""Attacks that do not judge every record by itself; their success is no statement on single records, or on all."""


@dataclass(frozen=True)
class Strength:
    """The result of one membership attack.

    Attributes:
        trial: The attack.
        auc: Its AUC.
        tpr: Its TPR at the lowest FPR that has at least `MARGIN` non-members; None if there is none.
        matched: Its AUC on matched records, where members and non-members differ without the model.
    """

    trial: TrialSummary
    auc: Measurement
    tpr: Measurement | None
    matched: Measurement | None = None

    @property
    def unit(self) -> Unit:
        """What the attack judges."""
        return UNITS.get(self.trial.name.partition("@")[0], RECORDS)

    @property
    def fpr(self) -> float | None:
        """The FPR of ``tpr``."""
        return None if self.tpr is None else words.find_kind(self.tpr.name).fpr


def write_sentences(document: ResultDocument, trials: Sequence[TrialSummary]) -> list[str]:
    """What the strongest membership attack achieves, and the best TPR at the lowest FPR; nothing if none ran.

    Where a blind baseline distinguishes the groups, each sentence says so, and none calls the attack's AUC a success.
    """
    ranked = rank_attacks(document)
    if not ranked:
        return []
    best = ranked[0]
    auc = words.write_numbers(best.auc)
    assert auc is not None  # `rank_attacks` takes only those with a value
    who = best.trial.threat_model.in_words().removeprefix("The adversary ").removesuffix(".")
    differ = controls.groups_differ(document)
    compared = "but the groups differ anyway" if differ else describe_auc(best.auc, len(ranked))
    lines = [
        *controls.describe_difference(document),
        f"An adversary who {who} can distinguish {best.unit.members} from {best.unit.non_members} with an AUC of "
        f"{auc.value} ({words.write_level(best.auc)} interval {words.keep_unbroken(auc.interval)}): {compared}.",
    ]
    if differ:
        usable = best.matched is not None and best.matched.value is not None
        verdict_there = describe_auc(best.matched, len(ranked)) if best.matched is not None and usable else None
        lines.append(controls.describe_matched(document, best.matched, verdict_there))
    quietest = find_lowest_rate(ranked)
    if quietest is not None and quietest.tpr is not None:
        same = quietest.trial.id == best.trial.id
        lines.append(
            describe_tpr(
                quietest.tpr,
                None if same else verdict.title_attack(quietest.trial.name),
                len(ranked),
                differ=differ,
                unit=quietest.unit,
            )
        )
    overfitting = None if differ else describe_overfitting(document)
    return [*lines, overfitting] if overfitting else lines


def describe_auc(auc: Measurement, among: int = 1) -> str:
    """Compare an AUC with guessing, by its interval.

    Args:
        auc: Of the strongest attack.
        among: How many attacks it is the strongest of.
    """
    assert auc.low is not None and auc.high is not None
    if auc.low <= 0.5 <= auc.high:
        return "not distinguishable from guessing, as 0.5 lies in the interval"
    if auc.high < 0.5:
        return "worse than guessing, as members score below non-members"
    low = find_lower_end(auc, among)
    if low <= 0.5:
        return f"not distinguishable from guessing, as the best of {among} attacks that only guess may reach this value"
    for least, degree in DEGREES:
        if low >= least:
            return degree
    return "slightly better than guessing" if auc.high <= SLIGHT else "better than guessing"


def describe_tpr(
    tpr: Measurement, attack: str | None = None, among: int = 1, *, differ: bool = False, unit: Unit = RECORDS
) -> str:
    """A sentence on a TPR at an FPR, compared with guessing by its interval.

    Args:
        tpr: The rate.
        attack: Title of the attack; None if the sentence before has named it.
        among: How many attacks it is the best of.
        differ: Whether members and non-members differ without the model.
        unit: What the attack judges.
    """
    numbers, fpr = words.write_numbers(tpr), words.find_kind(tpr.name).fpr
    assert numbers is not None and fpr is not None and tpr.low is not None and tpr.high is not None
    guess = words.write_percent(fpr)
    if find_lower_end(tpr, among) > fpr:
        compared = f"more than guessing, which identifies {guess}"
    elif tpr.high < fpr:
        compared = f"fewer than guessing, which identifies {guess}"
    else:
        compared = f"not distinguishable from guessing, which identifies {guess}"
    if differ:
        compared = f"guessing identifies {guess}, and the groups differ anyway"
    who = "they identify" if attack is None else f"the attack “{attack}” identifies"
    members = unit.members if unit.members.startswith("the ") else f"the {unit.members}"
    return (
        f"At a false-positive rate of {guess} {who} {numbers.value} of {members} ({words.write_level(tpr)} "
        f"interval {words.keep_unbroken(numbers.interval)}): {compared}."
    )


def describe_choice(document: ResultDocument) -> str | None:
    """Describe how the attack of the verdict was chosen; None if there was only one."""
    ranked = rank_attacks(document)
    if len(ranked) < 2:
        return None
    return (
        f"{verdict.title_attack(ranked[0].trial.name)} is the strongest of {len(ranked)} attacks: the confidence "
        "interval of its AUC has the highest lower end. The report says that it beats guessing only if the interval "
        "corrected for this choice lies above chance as well."
    )


def describe_identity(document: ResultDocument) -> str | None:
    """That the AUC of prediction correctness is no finding, where it was measured."""
    measured = find_identity(document)
    if measured is None:
        return None
    alone = rank_attacks(document)[0].trial.id == measured.trial.id
    return (
        "The AUC of prediction correctness is an identity, one half plus half the overfitting level: it says nothing "
        f"that the two accuracies do not say{'' if alone else ', and does not count among the attacks'}."
    )


def describe_overfitting(document: ResultDocument) -> str | None:
    """That accuracy alone distinguishes better than all attacks, where it does; None otherwise."""
    measured = find_overfitting(document)
    numbers = words.write_numbers(measured.auc) if measured is not None else None
    if measured is None or numbers is None:
        return None
    return (
        f"No attack does better than overfitting alone, which gives an AUC of {numbers.value} "
        f"({words.write_level(measured.auc)} interval {words.keep_unbroken(numbers.interval)}): the model is right "
        "about more "
        "members than non-members."
    )


def describe_unresolved(document: ResultDocument) -> str | None:
    """A sentence on requested false-positive rates that need more non-members; None if there are none."""
    unresolved = {words.find_kind(m.name).fpr for m in document.measurements if m.value is None}
    rates = sorted(fpr for fpr in unresolved if fpr is not None)
    if not rates:
        return None
    copies = document.controls.copies if document.controls is not None else None
    n = document.dataset.non_members - (copies.non_members if copies else 0)
    return (
        f"{n:,} non-members resolve no false-positive rate below about {words.write_rate(3.7 / n)}; "
        f"nothing can be said about {words.join_words([words.write_percent(fpr) for fpr in rates])}."
    )


def rank_attacks(document: ResultDocument) -> list[Strength]:
    """Attacks that have an AUC, strongest first: by the lower end of its interval, then by the AUC.

    Those that do not judge every record by itself come last. The lower end is what an attack achieves at least. TPRs
    could not order the attacks: those that train on some of the records are evaluated on fewer, and resolve other FPRs.
    Prediction correctness is an identity rather than an attack, and is left out unless nothing else has an AUC.
    """
    strengths = [
        strength
        for trial in verdict.select_finished(document, "membership")
        if (strength := _measure(document, trial)) is not None
    ]
    attacks = [strength for strength in strengths if not _is_identity(strength.trial)] or strengths
    return sorted(attacks, key=lambda s: (s.unit == RECORDS, s.auc.low or 0.0, _value(s.auc)), reverse=True)


def find_identity(document: ResultDocument) -> Strength | None:
    """What prediction correctness achieves; None if it was not measured."""
    identities = [trial for trial in verdict.select_finished(document, "membership") if _is_identity(trial)]
    return next((strength for trial in identities if (strength := _measure(document, trial)) is not None), None)


def find_overfitting(document: ResultDocument) -> Strength | None:
    """What prediction correctness achieves, where it is shown to be more than any attack achieves; None otherwise.

    Its interval is corrected as one more attack's: a choice among more numbers must not raise false alarms.
    """
    ranked, measured = rank_attacks(document), find_identity(document)
    if measured is None or ranked[0].trial.id == measured.trial.id:
        return None
    most = max(0.5, *(_value(strength.auc) for strength in ranked))
    return measured if find_lower_end(measured.auc, len(ranked) + 1) > most else None


def _is_identity(trial: TrialSummary) -> bool:
    return trial.name.partition("@")[0] == IDENTITY


def _measure(document: ResultDocument, trial: TrialSummary) -> Strength | None:
    """The result of a finished trial; None if it has no AUC."""
    measured = verdict.select_measurements(document, trial)
    auc = next((m for m in measured if m.name == f"{trial.name}.auc" and m.value is not None), None)
    if auc is None:
        return None
    rates = [(words.find_kind(m.name).fpr, m) for m in measured if m.value is not None]
    resolved = [(fpr, m) for fpr, m in rates if fpr is not None and fpr * _non_members(document, m) >= MARGIN]
    matched = next((m for m in measured if m.name == f"{trial.name}.matched-auc"), None)
    return Strength(trial, auc, min(resolved, key=lambda pair: pair[0])[1] if resolved else None, matched)


def _non_members(document: ResultDocument, measurement: Measurement) -> float:
    """Number of non-members behind a measurement: an attack that knows some records is evaluated on the others."""
    dataset, copies = document.dataset, document.controls.copies if document.controls is not None else None
    members = dataset.members - (copies.members if copies else 0)
    non_members = dataset.non_members - (copies.non_members if copies else 0)
    return measurement.n * non_members / max(members + non_members, 1)


def find_lower_end(measurement: Measurement, among: int) -> float:
    """The lower end of an interval that holds for the best of several attacks (Bonferroni).

    The distance from the value grows as the normal quantile does, on the scale of the arcsine of the square root.

    Args:
        measurement: A rate, or an AUC.
        among: Number of attacks that it was chosen from.
    """
    assert measurement.value is not None and measurement.low is not None
    if among <= 1 or measurement.low <= 0:
        return measurement.low
    stretch = _compute_stretch(measurement.level, among)
    value, low = (math.asin(math.sqrt(share)) for share in (measurement.value, measurement.low))
    return math.sin(max(value - (value - low) * stretch, 0.0)) ** 2


def find_lowest_rate(ranked: list[Strength]) -> Strength | None:
    """The attack that identifies most members at the lowest FPR that any attack resolves; None if none does.

    It need not be the one with the highest AUC: an attack with few different scores may have that and yet identify
    nobody at a low FPR. The lower end of the interval decides here as well.
    """
    judged = [strength for strength in ranked if strength.unit == RECORDS] or ranked
    resolved = [strength for strength in judged if strength.fpr is not None]
    if not resolved:
        return None
    lowest = min(strength.fpr for strength in resolved if strength.fpr is not None)
    at_lowest = [strength for strength in resolved if strength.fpr == lowest]
    return max(at_lowest, key=lambda s: ((s.tpr.low or 0.0) if s.tpr else 0.0, _value(s.tpr)))


def compare_membership(
    documents: Sequence[ResultDocument],
    labels: Sequence[str],
    subtract: Callable[[int, int], Mapping[str, MeasuredDifference]],
) -> list[str]:
    """Name the target that leaks most, for each attack that has an AUC on all targets.

    Args:
        documents: The results, one per target.
        labels: Names of the targets.
        subtract: Returns the differences between two targets, by measurement: the second's value minus the first's.
    """
    sentences = []
    per_target = [{s.trial.name: s.auc for s in rank_attacks(document)} for document in documents]
    pairs = math.comb(len(documents), 2)
    for name in [n for n in per_target[0] if all(n in aucs for aucs in per_target)]:
        order = sorted(range(len(documents)), key=lambda number: -_value(per_target[number][name]))
        most, least = order[0], order[-1]
        difference = subtract(least, most).get(f"{name}.auc")
        if difference is None:
            continue
        numbers = [words.write_numbers(per_target[number][name]) for number in (most, least)]
        auc = [f"{n.value} ({words.keep_unbroken(n.interval)})" for n in numbers if n is not None]
        interval = _widen(difference.difference, pairs)
        shown = interval.low is not None and interval.low > 0
        why = f"the difference is {words.write_change(difference.old, difference.new, interval)[2]}"
        why += " on the same records" if difference.paired else ""
        why += f", corrected for {pairs} pairs of targets" if pairs > 1 else ""
        why += "; the model is the same, so it comes from the records" if difference.verdict == "other records" else ""
        sentences.append(
            f"{verdict.title_attack(name)} {'distinguishes' if shown else 'is not shown to distinguish'} members from "
            f"non-members better for “{labels[most]}” than for “{labels[least]}”: AUC\u00a0"
            f"{' against '.join(auc)}; {why}."
        )
    differing = [f"“{label}”" for label, one in zip(labels, documents, strict=True) if controls.groups_differ(one)]
    if differing and sentences:
        sentences.insert(
            0,
            f"Members and non-members of {words.join_words(differing)} differ anyway: a classifier that never sees the "
            "model tells them apart. What attacks achieve there is not what the model gives away.",
        )
    return sentences


def _widen(difference: Measurement, among: int) -> Measurement:
    """An interval that holds for all of several differences (Bonferroni); its ends move as the normal quantile does."""
    assert difference.value is not None and difference.low is not None and difference.high is not None
    stretch = _compute_stretch(difference.level, among)
    low, high = (difference.value + (end - difference.value) * stretch for end in (difference.low, difference.high))
    return difference.model_copy(update={"low": max(low, -1.0), "high": min(high, 1.0)})


def _compute_stretch(level: float, among: int) -> float:
    """By how much an interval grows that holds for all of several values at its level (Bonferroni)."""
    tail = (1 - level) / 2
    return NormalDist().inv_cdf(1 - tail / among) / NormalDist().inv_cdf(1 - tail)


def _value(measurement: Measurement | None) -> float:
    return -1.0 if measurement is None or measurement.value is None else measurement.value
