"""The one number of each family that its grade follows from, and what that number means for a person.

Each function takes a result and the finished trials of a family and returns the `FamilyEvidence`, or None if none of
the trials measured the number. Evidence is worse for the owner the higher it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from securitynet.assessments.known_methods import is_own
from securitynet.metrics import evasion as evasion_metrics
from securitynet.records import Measurement
from securitynet.reports import verdict, words
from securitynet.reports.families import _membership_controls as controls
from securitynet.reports.families import backdoor, evasion, membership
from securitynet.results.document import ResultDocument, TrialSummary
from securitynet.results.grades import DEFAULT_BOUNDS


@dataclass(frozen=True)
class FamilyEvidence:
    """The number that a grade follows from, as an interval on the scale of the table of grades.

    Attributes:
        scale: Key of the table, such as ``membership.auc``.
        measurement: The number.
        low: Lower end, corrected for the number of attacks that the number was chosen from.
        high: Upper end.
        chance: What guessing, or no attack, would give on the same scale.
        meaning: A sentence for a person who knows no metric; it holds where the number is better than chance.
        nothing: A sentence for the case that it is not shown to be better than chance.
        obstacle: Why the number can show nothing, or cannot show that there is nothing; None if it can.
        blocks: Whether the obstacle stands against any grade, rather than only against ``none shown``.
        factor: By which the measurement is multiplied on the scale.
    """

    scale: str
    measurement: Measurement
    low: float
    high: float
    chance: float
    meaning: str
    nothing: str
    obstacle: str | None = None
    blocks: bool = False
    factor: float = 1.0


STANDARD_BUDGETS = {"linf": 8 / 255, "l2": 0.5, "l1": 12.0, "l0": 0.05, "patch": 0.05}
"""Norm -> the largest change at which evasion is graded; the smallest one that was tried, if all are larger."""

ROUNDING = 1e-6
"""Names of measurements give six digits of a budget."""


def find_membership(document: ResultDocument, trials: Sequence[TrialSummary]) -> list[FamilyEvidence]:
    """The AUC of the strongest attack, and the members identified at a low rate of false accusations."""
    ranked = membership.rank_attacks(document)
    if not ranked:
        return []
    among, best = len(ranked), ranked[0]
    if controls.groups_differ(document):
        return [_find_matched(document, best, among)]
    evidence = [_describe_auc(best.auc, among, unit=best.unit)]
    quietest = membership.find_lowest_rate(ranked)
    if quietest is not None and quietest.tpr is not None and quietest.fpr:
        evidence.append(_describe_tpr(quietest.tpr, quietest.fpr, among, quietest.unit))
    overfitting = membership.find_overfitting(document)
    return [*evidence, _describe_overfitting(overfitting.auc, among + 1)] if overfitting is not None else evidence


def _describe_overfitting(auc: Measurement, among: int) -> FamilyEvidence:
    """What the two accuracies say, an identity: it makes a grade worse where the attacks that ran show less."""
    return dataclasses.replace(
        _describe_auc(auc, among),
        meaning=(
            "The model is right about more members than non-members. From that alone an attacker who is shown one "
            f"record from the training set and one from outside points to the right one {_of_hundred(_ends(auc)[1])} "
            "times; guessing is right 50 times. The attacks that ran show less."
        ),
    )


def _describe_auc(
    auc: Measurement,
    among: int,
    obstacle: str | None = None,
    *,
    blocks: bool = False,
    unit: membership.Unit = membership.RECORDS,
) -> FamilyEvidence:
    value, high = _ends(auc)[1:]
    attack = auc.name.removeprefix("membership.").removesuffix(".auc")
    reversed_ = (
        f"Members score lower than non-members in {attack}; an adversary who knows that reverses the scores, and has "
        f"an AUC of {1 - value:.2f}."
    )
    if not is_own("attack", f"membership.{attack}"):
        reversed_ += (
            " If its scores are losses or distances, let it return them with the opposite sign (-scores): higher must "
            "mean member."
        )
    return FamilyEvidence(
        scale="membership.auc",
        measurement=auc,
        low=membership.find_lower_end(auc, among),
        high=high,
        chance=0.5,
        meaning=(
            f"Shown one {unit.one} from the training set and one from outside, an attacker points to the right one "
            f"{_of_hundred(value)} times; guessing is right 50 times."
        ),
        nothing=(
            "No attack that ran does better than guessing at telling who was in the training set"
            f"{' with its scores as they are' if high < 0.5 else ''}."
        ),
        obstacle=obstacle or (reversed_ if high < 0.5 else None),
        blocks=blocks,
    )


def _describe_tpr(tpr: Measurement, fpr: float, among: int, unit: membership.Unit) -> FamilyEvidence:
    _, value, high = _ends(tpr)
    return FamilyEvidence(
        scale="membership.tpr-over-fpr",
        measurement=tpr,
        factor=1 / fpr,
        low=membership.find_lower_end(tpr, among) / fpr,
        high=high / fpr,
        chance=1.0,
        meaning=(
            f"An attacker who wrongly accuses {_of_hundred(fpr)} {unit.many} from outside identifies "
            f"{_of_hundred(value)} {unit.many} of the training set; guessing would identify {_of_hundred(fpr)}."
        ),
        nothing="No attack that ran identifies more records of the training set than guessing would.",
    )


def _find_matched(document: ResultDocument, best: membership.Strength, among: int) -> FamilyEvidence:
    """Where members and non-members differ anyway, only matched records can show what the model gives away."""
    differ = (
        "Members and non-members differ without the model, so that success on them does not show what the model gives "
        "away."
    )
    if best.matched is None or best.matched.value is None:
        return _describe_auc(best.auc, among, differ, blocks=True)
    again = controls.find_blind_auc(document, controls.MATCHED_BLIND_AUC)
    still = again is None or again.low is None or again.low > 0.5
    return _describe_auc(best.matched, among, differ if still else None, blocks=still)


def find_stealing(document: ResultDocument, trials: Sequence[TrialSummary]) -> list[FamilyEvidence]:
    """The agreement of the best surrogate with the target, beside that of a constant prediction."""
    measured = [(trial, _by_name(document, trial)) for trial in trials]
    able = [(t, m) for t, m in measured if {"agreement", "constant-agreement"} <= m.keys()]
    if not able:
        return []
    trial, best = max(able, key=lambda pair: _ends(pair[1]["agreement"])[:2])
    _, value, high = _ends(best["agreement"])
    constant = _ends(best["constant-agreement"])[1]
    queries = words.count_noun(trial.queries.unique, "image")
    return [
        FamilyEvidence(
            scale="stealing.agreement",
            measurement=best["agreement"],
            low=membership.find_lower_end(best["agreement"], len(able)),
            high=high,
            chance=constant,
            meaning=(
                f"By querying the model with {queries}, an attacker trains a copy that predicts the same class as the "
                f"model for {_of_hundred(value)} new images; always predicting one class gives "
                f"{_of_hundred(constant, '')}."
            ),
            nothing=(
                f"The copies that attackers trained from {queries} agree with the model no more than a constant "
                "prediction does."
            ),
        )
    ]


def find_inversion(document: ResultDocument, trials: Sequence[TrialSummary]) -> list[FamilyEvidence]:
    """How many reconstructions are recognised as the requested class, beside guessing."""
    able = [measured for trial in trials if "accuracy" in (measured := _by_name(document, trial))]
    if not able:
        return []
    strongest = max(able, key=lambda measured: _ends(measured["accuracy"]))
    best, judge = strongest["accuracy"], strongest.get("judge-accuracy")
    _, value, high = _ends(best)
    chance = 1 / document.target.num_classes
    return [
        FamilyEvidence(
            scale="inversion.accuracy",
            measurement=best,
            low=membership.find_lower_end(best, len(able)),
            high=high,
            chance=chance,
            meaning=(
                f"Of the images that an attacker reconstructs from the model, {_of_hundred(value)} are recognised as "
                f"the class that was asked for; guessing gives {_of_hundred(chance, '')}."
            ),
            nothing="The images that attackers reconstructed are not recognised as the class that was asked for.",
            obstacle=None if judge is None else _doubt_judge(judge),
        )
    ]


def _doubt_judge(judge: Measurement) -> str | None:
    """Why a judge cannot show that reconstructions are bad: it may miss images that are as good as real ones."""
    low, value, high = _ends(judge)
    if low >= DEFAULT_BOUNDS["inversion.accuracy"].moderate:
        return None
    return (
        f"But the classifier that judges them recognises {_of_hundred(value)} real images "
        f"(interval {100 * low:.0f} to {100 * high:.0f}), so it may miss good ones, too."
    )


def find_attribute(document: ResultDocument, trials: Sequence[TrialSummary]) -> list[FamilyEvidence]:
    """The largest gain over predicting an attribute from the class, or over random weights where that is smaller."""
    gains = []
    for trial in trials:
        measured = _by_name(document, trial)
        for full in measured:
            name, _, measure = full.rpartition(".")
            if measure == "gain" and {f"{name}.accuracy", f"{name}.baseline-accuracy"} <= measured.keys():
                pair = [measured[full], *([measured[over]] if (over := f"{name}.gain-over-random") in measured else [])]
                gains.append((min(pair, key=_ends), name, measured))
    if not gains:
        return []
    gain, name, measured = max(gains, key=lambda one: _ends(one[0]))
    high = _ends(gain)[2]
    accuracy, baseline = (_ends(measured[f"{name}.{what}"])[1] for what in ("accuracy", "baseline-accuracy"))
    return [
        FamilyEvidence(
            scale="attribute.gain",
            measurement=gain,
            low=_correct_difference(gain, len(gains)),
            high=high,
            chance=0.0,
            meaning=(
                f"From what the model computes for an image, an attacker infers “{name}” correctly for "
                f"{_of_hundred(accuracy)} records; the class alone gives {_of_hundred(baseline, '')}."
            ),
            nothing=(
                f"Training the model is not shown to make “{name}”, or another attribute, easier to infer than the "
                "class makes it."
            ),
        )
    ]


def find_evasion(document: ResultDocument, trials: Sequence[TrialSummary]) -> list[FamilyEvidence]:
    """The highest share of images that evade at the budget of `STANDARD_BUDGETS`, over all norms."""
    candidates = []
    for trial in trials:
        norm = evasion.find_norm(trial)
        successes = evasion.find_successes(document, trial)
        usual = [epsilon for epsilon in successes if epsilon <= STANDARD_BUDGETS.get(norm, 0.0) + ROUNDING]
        if successes and norm in evasion.CHANGES:
            epsilon = max(usual) if usual else min(successes)
            candidates.append((successes[epsilon], norm, epsilon))
    if not candidates:
        return []
    _, norm, epsilon = max(candidates, key=lambda one: _ends(one[0]))
    # The strongest attack at that budget may be one whose own smallest budget is another.
    own = [evasion.find_successes(document, trial) for trial in trials if evasion.find_norm(trial) == norm]
    success = max((one[epsilon] for one in own if epsilon in one), key=_ends)
    _, value, high = _ends(success)
    size = f"{epsilon:g}" if norm in evasion.IN_UNITS else words.write_percent(epsilon)
    single_steps = all(trial.name.partition("@")[0] in evasion.SINGLE_STEPS for trial in trials)
    masked = bool(evasion.find_blocked(document)) or any(
        m.note and evasion_metrics.WARNING in m.note for t in trials for m in verdict.select_measurements(document, t)
    )
    obstacle = "Only attacks of a single step ran, which understate what an adversary can do." if single_steps else None
    if masked:
        obstacle = "The gradients look masked, so that attacks that follow them understate what an adversary can do."
    return [
        FamilyEvidence(
            scale="evasion.success",
            measurement=success,
            low=membership.find_lower_end(success, len(candidates)),
            high=high,
            chance=0.0,
            meaning=(
                f"An attacker who {evasion.CHANGES[norm].format(size)} makes the model wrong on {_of_hundred(value)} "
                "images that it classifies correctly." + (f" {obstacle}" if masked else "")
            ),
            nothing="No image that was tried evades the model by a small change.",
            obstacle=obstacle,
        )
    ]


def find_backdoor(document: ResultDocument, trials: Sequence[TrialSummary]) -> list[FamilyEvidence]:
    """The joint verdict of the scans of the model; the only one's where one ran."""
    verdicts = []
    for trial in trials:
        measured = _by_name(document, trial)
        if "verdict" in measured and measured["verdict"].note:
            verdicts.append((measured["verdict"], trial))
    if not verdicts:
        return []
    worst, trial = max(verdicts, key=lambda pair: pair[0].value or 0.0)
    title = backdoor.SCANS.get(trial.name.partition("@")[0], verdict.title_attack(trial.name))
    source = f" ({title})"
    joint = backdoor.find_joint_verdict(document)
    if joint is not None:
        worst, source = joint, ""
    rank = worst.value or 0.0
    # A verdict is a rank, not a rate: its tests have used up the uncertainty, and 1 says that they could not decide.
    note = worst.note or ""
    return [
        FamilyEvidence(
            scale="backdoor.verdict",
            measurement=worst,
            low=rank,
            high=rank,
            chance=1.0,
            meaning=f"{note}{source}",
            nothing=f"{note}{source}",  # it says what the scans could not have seen
            obstacle=note if rank == 1.0 else None,
            blocks=True,
        )
    ]


FINDERS = {
    "membership": find_membership,
    "stealing": find_stealing,
    "inversion": find_inversion,
    "attribute": find_attribute,
    "evasion": find_evasion,
    "backdoor": find_backdoor,
}
"""Family -> its evidence; several pieces where a family is graded by several numbers, the main one first."""


def _by_name(document: ResultDocument, trial: TrialSummary) -> dict[str, Measurement]:
    """The measurements of a trial that have a value, by the part of their name after the trial's."""
    start = f"{trial.name}."
    return {m.name.removeprefix(start): m for m in verdict.select_measurements(document, trial) if m.value is not None}


def _ends(measurement: Measurement) -> tuple[float, float, float]:
    """Lower end, value and upper end of a measurement that has a value."""
    assert measurement.low is not None and measurement.value is not None and measurement.high is not None
    return measurement.low, measurement.value, measurement.high


def _correct_difference(measurement: Measurement, among: int) -> float:
    """The lower end of the interval of a difference that is the largest of several (Bonferroni)."""
    low, value, _ = _ends(measurement)
    if among <= 1:
        return low
    tail = (1 - measurement.level) / 2
    stretch = NormalDist().inv_cdf(1 - tail / among) / NormalDist().inv_cdf(1 - tail)
    return value - (value - low) * stretch


def _of_hundred(share: float, of: str = " of 100") -> str:
    """A share as a count among a hundred: ``12 of 100``; among more where a hundred would show none, or all."""
    if 0 < share < 0.01 and share * 10_000 >= 1:
        return f"{share * 10_000:.0f} of 10,000" if share * 1000 < 1 else f"{share * 1000:.0f} of 1,000"
    count = round(share * 100)
    if count == 0 and share > 0:
        return f"fewer than 1{of}"
    if count == 100 and share < 1:
        return f"more than 99{of}"
    return f"{count}{of}"
