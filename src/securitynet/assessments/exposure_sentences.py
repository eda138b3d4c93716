"""The exposure of single records in words that claim no more than the numbers show."""

from __future__ import annotations

from math import comb

from securitynet.assessments.exposure_result import RecordsExposure, Removal
from securitynet.metrics.vulnerability import PERMUTATIONS
from securitynet.records import Measurement

NOT_RESOLVABLE = "not resolvable"


def describe_exposure(result: RecordsExposure) -> list[str]:
    """Describe how exposed single records and groups are.

    Args:
        result: The result, without its sentences.
    """
    sentences = [
        f"Each of {result.shadow_models} models that were trained like the target, on half of the records each, was "
        f"attacked with LiRA. A record counts as identified above the threshold of a false-positive rate of "
        f"{result.fpr:g}."
    ]
    records = result.members + result.non_members
    if result.significant:
        sentences.append(
            f"{result.significant:,} of {records:,} records are identified as members more often than they are taken "
            f"for members where they are none ({result.level:.0%} confidence, corrected for the number of records)."
        )
    else:
        sentences.append(
            f"No record is shown to be identified more often as a member than as a non-member at a confidence of "
            f"{result.level:.0%}, corrected for {records:,} records."
        )
        least = records / comb(result.shadow_models, result.shadow_models // 2)
        if least > 1 - result.level:
            sentences.append(
                f"With {result.shadow_models} models a single record could not be: its p-value is at least {least:.2g} "
                "after the correction. More models (--shadows) resolve more."
            )
    ranking = result.reliability
    overlap = (
        f"Of the {result.top_share:.1%} most exposed members of one model, {ranking.value:.1%} are among those of "
        f"another model that was trained on them, too; with memberships exchanged by chance, {ranking.chance:.1%} "
        f"would be, and at most {ranking.chance_high:.1%} in {PERMUTATIONS} trials."
    )
    if ranking.value <= ranking.chance_high:
        overlap += " The ranking of a single model is not shown to be better than chance."
    sentences.append(overlap)
    for measurement in result.measurements:
        if measurement.name.startswith("loss.tnr"):
            sentences.append(
                f"The loss alone recognises {_write(measurement)} of the non-members at a false-negative rate of "
                f"{result.fpr:g}, a predictor of LiRA's true-positive rate, which is {_find_tpr(result)} here."
            )
    differing = [group for group in result.groups if group.differs(result.level)]
    if result.groups:
        named = "; ".join(
            f"{group.by} {group.name}, {_write(group.identified)} against {group.others:.1%}; of its non-members, "
            f"{_write(group.accused)} are taken for members"
            for group in differing
        )
        sentences.append(
            f"{len(differing)} of {len(result.groups)} groups differ from the other members in the share that is "
            f"identified ({result.level:.0%} confidence, corrected for their number){': ' if named else ''}{named}."
        )
    return [*sentences, *(describe_removal(result.removal) if result.removal is not None else [])]


def describe_removal(removal: Removal) -> list[str]:
    """Describe what the removal of records changed, beside the control.

    Args:
        removal: The removal.
    """
    count = len(removal.records)
    before, after, control = removal.before, removal.after, removal.control
    sentences = [
        f"Of the {count} records named, {before.identified} are identified as members of the target, "
        f"{after.identified} after training without them, and {control.identified} after training without {count} "
        "other members drawn at random. Each of these is one training.",
        f"The accuracy changes by {_write(removal.accuracy_change, signed=True)}.",
    ]
    change = removal.rest_change
    others = (
        f"Of {removal.rest:,} members that stayed, {after.rest_identified:,} are identified after the removal and "
        f"{control.rest_identified:,} in the control"
    )
    if change.low is not None and change.low > 0:
        others += ": removing records exposes others"
    elif change.high is not None and change.high < 0:
        others += ": fewer than in the control"
    else:
        others += ", which is no difference beyond the interval"
    return [*sentences, f"{others} ({_write(change, signed=True)})."]


def _find_tpr(result: RecordsExposure) -> str:
    return next((_write(m) for m in result.measurements if m.name.startswith("lira.tpr")), NOT_RESOLVABLE)


def _write(measurement: Measurement, *, signed: bool = False) -> str:
    if measurement.value is None or measurement.low is None or measurement.high is None:
        return NOT_RESOLVABLE
    form = "+.1%" if signed else ".1%"
    return f"{measurement.value:{form}} ({measurement.low:{form}} to {measurement.high:{form}})"
