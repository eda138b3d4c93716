"""The report's text on defenses: those that were tried on this model, and the one that it was trained with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from securitynet.records import Measurement
from securitynet.reports import words
from securitynet.reports.families._membership_controls import find_blind_auc
from securitynet.results.document import DefenseEffect, DefenseEffects, ResultDocument

WORST = ("canaries", "exposed members")
"""Groups of the worst records, as sentences name them."""


@dataclass(frozen=True)
class DefenseRow:
    """A row of the table of defenses.

    Attributes:
        name: Of the defense, with its settings.
        changes: What it changes: ``training``, ``outputs``, or nothing.
        auc: AUC of the strongest attack that still works, as text; None if it was not tried.
        attack: That attack.
        canaries: TPR at a low FPR on canaries, as text; None if it was not measured.
        exposed: The same on the members that were most exposed without a defense.
        accuracy: On non-members, as text; the mean over the trainings where there are several.
        outcome: Whether it helped, in words.
        seconds: How long the trial took, as text.
    """

    name: str
    changes: str
    auc: words.Numbers | None
    attack: str
    canaries: words.Numbers | None
    exposed: words.Numbers | None
    accuracy: words.Numbers | None
    outcome: str
    seconds: str


@dataclass(frozen=True)
class WhatHelps:
    """The section "What would help".

    Attributes:
        sentences: What the trials show.
        rows: One for the model without a defense, one for each defense, and one for the blind baseline.
        fpr: The false-positive rate of the columns on the worst records, as text; empty without them.
        notes: Remarks on how the defenses were compared.
    """

    sentences: list[str]
    rows: list[DefenseRow]
    fpr: str
    notes: tuple[str, ...]


def describe_tried_defenses(document: ResultDocument) -> WhatHelps | None:
    """The section "What would help"; None unless defenses were tried."""
    effects = document.remedies
    if effects is None:
        return None
    baseline = next((tried for tried in effects.tried if tried.baseline and tried.worst is not None), None)
    rows = [_row(effects.undefended, effects.undefended), *_output_only_rows(effects)]
    rows += [_row(tried, effects.undefended, baseline) for tried in effects.tried]
    rows += _blind_rows(document)
    worst = effects.undefended.worst
    return WhatHelps(_sentences(effects, baseline), rows, f"{worst.fpr:.0%}" if worst else "", effects.notes)


def describe_training(document: ResultDocument) -> list[str]:
    """Sentences on the defense that the model was trained with, from its record; empty if there was none."""
    defense: dict[str, Any] | None = (document.target.training or {}).get("defense")
    if not defense:
        return []
    sentences = [f"The model was trained with the defense {defense['name']}."]
    if defense["set_aside"]:
        sentences.append(
            f"It set {words.count_noun(defense['set_aside'], 'training record')} aside, which count neither as members "
            "nor as non-members here."
        )
    if privacy := defense["privacy"]:
        sentences.append(
            f"Its training spent epsilon = {privacy['epsilon']:.3g} at delta = {privacy['delta']:g}, according to the "
            f"{privacy['accountant']} accountant: noise multiplier {privacy['noise_multiplier']:.3g}, clipping bound "
            f"{privacy['clipping_bound']:g}, {privacy['steps']:,} steps on batches that include each of "
            f"{privacy['records']:,} records with probability {privacy['sample_rate']:.3g}."
        )
    if teacher := defense["teacher"]:
        sentences.append(
            f"Its teacher, {teacher['architecture']}, has an accuracy of {words.write_rate(teacher['test_accuracy'])} "
            "on "
            f"non-members, and the model agrees with it on {words.write_rate(teacher['agreement'])} of them."
        )
    return [*sentences, *defense["notes"]]


def describe_outcome(tried: DefenseEffect, undefended: DefenseEffect, baseline: DefenseEffect | None = None) -> str:
    """Whether a defense helped, in words that claim no more than the intervals show.

    A defense helps if the records that are most at risk are shown to be less exposed. A lower average does not suffice:
    it may leave exactly these as they were (Aerni, Zhang and Tramèr, CCS 2024).

    Args:
        tried: The defense.
        undefended: The model without a defense.
        baseline: DP-SGD tuned for utility, if it was tried.
    """
    if tried.reason:
        return f"not tried: {tried.reason}"
    if tried is undefended or tried.name == "none":
        return "the model without a defense"
    if tried.auc is None and tried.worst is None:
        return (
            "no attack that was run still works" if tried.denied else "not measured: all attacks need the model itself"
        )
    sentences = [_describe_risk(tried, undefended)]
    if tried.auc is not None and tried.auc.high is not None and tried.auc.high < 0.5:
        sentences[0] += " (scores are reversed; an adversary who knows of the defense turns them round)"
    if tried.denied:
        sentences.append(f"rules out {words.count_noun(len(tried.denied), 'attack')}")
    if _apart(_accuracy(tried, undefended), _accuracy(undefended, tried)) < 0:
        sentences.append("costs accuracy")
    if baseline is not None and not tried.baseline and helps(tried, undefended) and not _beats(tried, baseline):
        sentences.append("not shown to beat DP-SGD tuned for utility")
    return "; ".join(sentences)


def helps(tried: DefenseEffect, undefended: DefenseEffect) -> bool:
    """Whether each group of the worst records that leaks without a defense is shown to leak less with it."""
    groups = compare_worst(tried, undefended)
    leaking = [change for leaks, change in groups.values() if leaks]
    return bool(leaking) and all(change < 0 for change in leaking) and all(change <= 0 for _, change in groups.values())


def compare_worst(tried: DefenseEffect, undefended: DefenseEffect) -> dict[str, tuple[bool, int]]:
    """For each group of the worst records, whether it leaks without the defense, and how the defense changes its risk.

    Args:
        tried: The defense.
        undefended: The model without a defense.

    Returns:
        Name of the group -> (whether it leaks, -1 if the risk is shown to be lower, 1 if higher, 0 otherwise); empty if
        it was not measured for both, or the records resolve no rate.
    """
    if tried.worst is None or undefended.worst is None:
        return {}
    pairs = {name: (_find_worst(tried, name), _find_worst(undefended, name)) for name in WORST}
    return {
        name: (_leaks(undefended, name), _apart(now, plain))
        for name, (now, plain) in pairs.items()
        if now is not None and plain is not None and now.value is not None and plain.low is not None
    }


def _find_worst(effect: DefenseEffect, name: str) -> Measurement | None:
    """The true-positive rate on a group of the worst records."""
    if effect.worst is None:
        return None
    return effect.worst.canaries if name == "canaries" else effect.worst.exposed


def _leaks(effect: DefenseEffect, name: str) -> bool:
    """Whether a group is shown to be identified more often than records that the model has not seen."""
    rate = _find_worst(effect, name)
    return effect.worst is not None and rate is not None and rate.low is not None and rate.low > effect.worst.fpr


def _describe_risk(tried: DefenseEffect, undefended: DefenseEffect) -> str:
    """Describe the effect of a defense on the worst records and on the average."""
    average = 0 if tried.auc is None else _apart(reverse_auc(tried.auc), _against(tried, undefended))
    groups = compare_worst(tried, undefended)
    if not groups:
        if average < 0:
            return "lowers the average; the worst records were not measured"
        return "makes it worse on average" if average > 0 else "no difference shown"
    also = {-1: ", though the average is lower", 0: "", 1: ", and the average is higher"}[average]
    worse = [name for name, (_, change) in groups.items() if change > 0]
    better = [name for name, (leaks, change) in groups.items() if leaks and change < 0]
    if worse:
        return f"makes it worse for {' and '.join(worse)}{also}"
    if helps(tried, undefended):
        return "helps"
    if better:
        rest = [name for name, (leaks, change) in groups.items() if leaks and change == 0]
        return f"helps {' and '.join(better)}, not {' and '.join(rest)}"
    if not any(leaks for leaks, _ in groups.values()):
        leaking = [name for name in groups if _leaks(tried, name)]
        if leaking:
            return f"with it, {' and '.join(leaking)} are shown to leak; without it, no leak of them is shown{also}"
        return f"the worst records show no leak that it could reduce{also}"
    return f"not shown to help the worst records{also}"


def _beats(tried: DefenseEffect, baseline: DefenseEffect) -> bool:
    """Whether a defense is shown to be more useful than the baseline or to leak less, and not worse in the other."""
    useful = _apart(_accuracy(tried, baseline), _accuracy(baseline, tried))
    changes = [change for _, change in compare_worst(tried, baseline).values()]
    return (useful > 0 and all(change <= 0 for change in changes)) or (
        useful >= 0 and any(change < 0 for change in changes) and all(change <= 0 for change in changes)
    )


def _accuracy(effect: DefenseEffect, other: DefenseEffect) -> Measurement | None:
    """The mean accuracy over trainings, where both have one; that of the single model otherwise."""
    if effect.worst is not None and other.worst is not None:
        return effect.worst.accuracy
    return effect.accuracy


def _against(tried: DefenseEffect, undefended: DefenseEffect) -> Measurement | None:
    """Choose what a defense is compared with: the strongest attack without it, among those run against it."""
    reference = tried.against or undefended.auc
    return reference if reference is None else reverse_auc(reference)


def reverse_auc(auc: Measurement) -> Measurement:
    """The AUC of an adversary who reverses scores that rank non-members above members."""
    if auc.value is None or auc.low is None or auc.high is None or auc.value >= 0.5:
        return auc
    return auc.model_copy(update={"value": 1 - auc.value, "low": 1 - auc.high, "high": 1 - auc.low})


def _apart(one: Measurement | None, other: Measurement | None) -> int:
    """-1 if one lies below the other with its whole interval, 1 if above, 0 if the intervals meet."""
    if one is None or other is None or one.high is None or one.low is None or other.low is None or other.high is None:
        return 0
    return -1 if one.high < other.low else 1 if one.low > other.high else 0


def _row(tried: DefenseEffect, undefended: DefenseEffect, baseline: DefenseEffect | None = None) -> DefenseRow:
    settings = ", ".join(
        f"{field} = {f'{value:g}' if isinstance(value, float) else value}" for field, value in tried.settings.items()
    )
    name = "no defense" if tried.name == "none" else f"{tried.name} ({settings})" if settings else tried.name
    if tried.epsilon is not None:
        name += f", epsilon {tried.epsilon:.3g} spent"
    if tried.baseline:
        name += ", tuned for utility"
    worst = tried.worst
    accuracy = worst.accuracy if worst else tried.accuracy
    return DefenseRow(
        name=name,
        changes={"none": "", "output": "outputs", "training": "training"}[tried.stage],
        auc=words.write_numbers(tried.auc) if tried.auc else None,
        attack=tried.attack or "",
        canaries=words.write_numbers(worst.canaries) if worst else None,
        exposed=words.write_numbers(worst.exposed) if worst and worst.exposed else None,
        accuracy=words.write_numbers(accuracy) if accuracy else None,
        outcome=describe_outcome(tried, undefended, baseline),
        seconds=words.write_duration(tried.seconds) if tried.seconds else "",
    )


def _output_only_rows(effects: DefenseEffects) -> list[DefenseRow]:
    """The model without a defense under attacks that need only outputs, where a white-box attack was stronger.

    That row is what output defenses are compared with.
    """
    auc = next((tried.against for tried in effects.tried if tried.stage == "output" and tried.against), None)
    if auc is None or auc == effects.undefended.auc:
        return []
    accuracy = words.write_numbers(effects.undefended.accuracy) if effects.undefended.accuracy else None
    sentence = "the model without a defense, to an adversary who sees only outputs"
    return [
        DefenseRow("no defense, outputs only", "", words.write_numbers(auc), "", None, None, accuracy, sentence, "")
    ]


def _blind_rows(document: ResultDocument) -> list[DefenseRow]:
    """The blind baseline, beside which each AUC must be read; a defense changes the model, and not the groups."""
    blind = find_blind_auc(document)
    if blind is None:
        return []
    sentence = "what comes without the model"
    label = "blind baseline, without the model"
    return [DefenseRow(label, "", words.write_numbers(blind), "", None, None, None, sentence, "")]


def _sentences(effects: DefenseEffects, baseline: DefenseEffect | None) -> list[str]:
    plain = effects.undefended
    if plain.auc is None:
        return []
    done = [tried for tried in effects.tried if tried.reason is None]
    sentences = [
        f"{words.count_noun(len(done), 'setting')} of defenses were tried against "
        f"{words.count_noun(len(effects.attacks), 'attack')} on this model and data. For each, the table shows the "
        "average "
        "AUC of the attack that does best against one training."
    ]
    if plain.worst is None:
        lower = [tried for tried in done if _lowers_average(tried, plain)]
        sentences.append(
            f"{len(lower)} of them {'lowers' if len(lower) == 1 else 'lower'} the average AUC by more than the "
            "intervals. Whether the records that are most at risk are better off was not measured, so none of them is "
            "called helpful."
        )
        return sentences
    worst = plain.worst
    sentences.append(
        f"What counts are the records that are most at risk. The model was trained {worst.trainings} times with each "
        f"defense, with {worst.records} records (canaries with a wrong label, and the members that were most exposed "
        "in this assessment) in about half of the trainings. LiRA attacks each training with the others as shadow "
        "models, which have the same defense. The table shows its true-positive rate at a false-positive rate of "
        f"{worst.fpr:.0%}; intervals include the differences between trainings."
    )
    helped = [tried for tried in done if helps(tried, plain)]
    if not any(leaks for leaks, _ in compare_worst(plain, plain).values()):
        sentences.append("Without a defense, no leak of these records is shown, so no defense could be seen to help.")
        return sentences
    if not helped:
        sentences.append("None of the defenses is shown to help them: intervals overlap with those without a defense.")
        return sentences
    free = [tried for tried in helped if _apart(_accuracy(tried, plain), _accuracy(plain, tried)) >= 0]
    best = min(free or helped, key=_worst_rate)
    cost = "without a measurable loss of accuracy" if best in free else "at a measurable cost in accuracy"
    now = best.worst.canaries if best.worst else None
    assert now is not None  # it helped, so it was measured
    sentences.append(
        f"{len(helped)} of them {'helps' if len(helped) == 1 else 'help'} all of these records that leak without a "
        f"defense. The best {cost} is {_row(best, plain).name}: the rate on canaries is {_words(now)}; without a "
        f"defense it is {_words(worst.canaries)}. It was chosen among {len(done)} by the same numbers, so the estimate "
        "is optimistic."
    )
    if baseline is None:
        sentences.append("There is no comparison with DP-SGD tuned for utility.")
    else:
        better = [tried for tried in helped if not tried.baseline and _beats(tried, baseline)]
        names = ", ".join(_row(tried, plain).name for tried in better)
        sentences.append(f"Shown to beat DP-SGD tuned for utility: {names or 'none'}.")
    return sentences


def _lowers_average(tried: DefenseEffect, undefended: DefenseEffect) -> bool:
    return tried.auc is not None and _apart(reverse_auc(tried.auc), _against(tried, undefended)) < 0


def _worst_rate(tried: DefenseEffect) -> float:
    """The larger of the rates of the two groups."""
    worst = tried.worst
    rates = [one.value for one in (worst.canaries, worst.exposed) if one is not None] if worst else []
    return max((rate for rate in rates if rate is not None), default=1.0)


def _words(rate: Measurement) -> str:
    numbers = words.write_numbers(rate)
    assert numbers is not None  # it was resolved
    return f"{numbers.value} ({numbers.interval})"
