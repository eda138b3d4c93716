"""The report's text on defenses: those that were tried on this model, and the one that it was trained with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from securitynet.records import Measurement
from securitynet.reports import words
from securitynet.reports.families._membership_controls import find_blind_auc
from securitynet.results.document import DefenseEffect, DefenseEffects, ResultDocument


@dataclass(frozen=True)
class DefenseRow:
    """A row of the table of defenses.

    Attributes:
        name: Of the defense, with its settings.
        changes: What it changes: ``training``, ``outputs``, or nothing.
        auc: AUC of the strongest attack that still works, as text; None if it was not tried.
        attack: That attack.
        accuracy: On non-members, as text.
        outcome: Whether it helped, in words.
        seconds: How long the trial took, as text.
    """

    name: str
    changes: str
    auc: words.Numbers | None
    attack: str
    accuracy: words.Numbers | None
    outcome: str
    seconds: str


@dataclass(frozen=True)
class WhatHelps:
    """The section "What would help".

    Attributes:
        sentences: What the trials show.
        rows: One for the model without a defense, one for each defense, and one for the blind baseline.
        notes: Remarks on how the defenses were compared.
    """

    sentences: list[str]
    rows: list[DefenseRow]
    notes: tuple[str, ...]


def describe_tried_defenses(document: ResultDocument) -> WhatHelps | None:
    """The section "What would help"; None unless defenses were tried."""
    effects = document.remedies
    if effects is None:
        return None
    rows = [_row(effects.undefended, effects.undefended), *_output_only_rows(effects)]
    rows += [_row(tried, effects.undefended) for tried in effects.tried]
    rows += _blind_rows(document)
    return WhatHelps(_sentences(effects), rows, effects.notes)


def training_sentences(document: ResultDocument) -> list[str]:
    """Sentences on the defense that the model was trained with, from its record; empty if there was none."""
    defense: dict[str, Any] | None = (document.target.training or {}).get("defense")
    if not defense:
        return []
    said = [f"The model was trained with the defense {defense['name']}."]
    if defense["set_aside"]:
        said.append(
            f"It set {words.plural(defense['set_aside'], 'training record')} aside, which count neither as members "
            "nor as non-members here."
        )
    if privacy := defense["privacy"]:
        said.append(
            f"Its training spent epsilon = {privacy['epsilon']:.3g} at delta = {privacy['delta']:g}, according to the "
            f"{privacy['accountant']} accountant: noise multiplier {privacy['noise_multiplier']:.3g}, clipping bound "
            f"{privacy['clipping_bound']:g}, {privacy['steps']:,} steps on batches that include each of "
            f"{privacy['records']:,} records with probability {privacy['sample_rate']:.3g}."
        )
    if teacher := defense["teacher"]:
        said.append(
            f"Its teacher, {teacher['architecture']}, has an accuracy of {words.rate(teacher['test_accuracy'])} on "
            f"non-members, and the model agrees with it on {words.rate(teacher['agreement'])} of them."
        )
    return [*said, *defense["notes"]]


def describe_outcome(tried: DefenseEffect, undefended: DefenseEffect) -> str:
    """Whether a defense helped, in words that claim no more than the intervals show."""
    if tried.reason:
        return f"not tried: {tried.reason}"
    if tried is undefended or tried.name == "none":
        return "the model without a defense"
    if tried.auc is None:
        return (
            "no attack that was run still works" if tried.denied else "not measured: all attacks need the model itself"
        )
    helped = _apart(turned(tried.auc), _against(tried, undefended))
    costs = _apart(tried.accuracy, undefended.accuracy)
    said = "helps" if helped < 0 else "makes it worse" if helped > 0 else "no difference shown"
    if tried.auc.high is not None and tried.auc.high < 0.5:
        said += " (scores are reversed; an adversary who knows of the defense turns them round)"
    elif helped < 0 and tried.auc.low is not None and tried.auc.low <= 0.5:
        said += ", to no better than guessing"
    if tried.denied:
        said += f"; rules out {words.plural(len(tried.denied), 'attack')}"
    return f"{said}; costs accuracy" if costs < 0 else said


def _against(tried: DefenseEffect, undefended: DefenseEffect) -> Measurement | None:
    """What a defense is compared with: the strongest attack without it, among those that were run against it."""
    reference = tried.against or undefended.auc
    return reference if reference is None else turned(reference)


def turned(auc: Measurement) -> Measurement:
    """The AUC of an adversary who reverses scores that rank non-members above members."""
    if auc.value is None or auc.low is None or auc.high is None or auc.value >= 0.5:
        return auc
    return auc.model_copy(update={"value": 1 - auc.value, "low": 1 - auc.high, "high": 1 - auc.low})


def _apart(one: Measurement | None, other: Measurement | None) -> int:
    """-1 if one lies below the other with its whole interval, 1 if above, 0 if the intervals meet."""
    if one is None or other is None or one.high is None or one.low is None or other.low is None or other.high is None:
        return 0
    return -1 if one.high < other.low else 1 if one.low > other.high else 0


def _row(tried: DefenseEffect, undefended: DefenseEffect) -> DefenseRow:
    settings = ", ".join(
        f"{field} = {f'{value:g}' if isinstance(value, float) else value}" for field, value in tried.settings.items()
    )
    name = "no defense" if tried.name == "none" else f"{tried.name} ({settings})" if settings else tried.name
    if tried.epsilon is not None:
        name += f", epsilon {tried.epsilon:.3g} spent"
    return DefenseRow(
        name=name,
        changes={"none": "", "output": "outputs", "training": "training"}[tried.stage],
        auc=words.numbers(tried.auc) if tried.auc else None,
        attack=tried.attack or "",
        accuracy=words.numbers(tried.accuracy) if tried.accuracy else None,
        outcome=describe_outcome(tried, undefended),
        seconds=words.duration(tried.seconds) if tried.seconds else "",
    )


def _output_only_rows(effects: DefenseEffects) -> list[DefenseRow]:
    """The model without a defense under attacks that need only outputs, where a white-box attack was stronger.

    That row is what output defenses are compared with.
    """
    auc = next((tried.against for tried in effects.tried if tried.stage == "output" and tried.against), None)
    if auc is None or auc == effects.undefended.auc:
        return []
    accuracy = words.numbers(effects.undefended.accuracy) if effects.undefended.accuracy else None
    said = "the model without a defense, to an adversary who sees only outputs"
    return [DefenseRow("no defense, outputs only", "", words.numbers(auc), "", accuracy, said, "")]


def _blind_rows(document: ResultDocument) -> list[DefenseRow]:
    """The blind baseline, beside which each AUC must be read; a defense changes the model, and not the groups."""
    blind = find_blind_auc(document)
    if blind is None:
        return []
    said = "what comes without the model"
    return [DefenseRow("blind baseline, without the model", "", words.numbers(blind), "", None, said, "")]


def _sentences(effects: DefenseEffects) -> list[str]:
    if effects.undefended.auc is None:
        return []
    done = [tried for tried in effects.tried if tried.reason is None]
    said = [
        f"{words.plural(len(done), 'setting')} of defenses were tried against "
        f"{words.plural(len(effects.attacks), 'attack')} on this model and data. For each, the table shows the attack "
        "that does best against it."
    ]
    helped = [
        tried
        for tried in done
        if tried.auc is not None and _apart(turned(tried.auc), _against(tried, effects.undefended)) < 0
    ]
    free = [tried for tried in helped if _apart(tried.accuracy, effects.undefended.accuracy) >= 0]
    if not helped:
        said.append(
            "None of them is shown to weaken the strongest attack: all intervals overlap the one without a defense."
        )
        return said
    best = min(free or helped, key=lambda tried: (turned(tried.auc).value if tried.auc else None) or 1.0)
    assert best.auc is not None  # it helped
    cost = "without a measurable loss of accuracy" if best in free else "at a measurable cost in accuracy"
    name = _row(best, effects.undefended).name
    against = _against(best, effects.undefended)
    assert against is not None  # it is below that
    among = "" if best.against in (None, effects.undefended.auc) else " that needs only outputs"
    said.append(
        f"{len(helped)} of them {'weakens' if len(helped) == 1 else 'weaken'} the strongest attack by more than the "
        f"intervals. The best {cost} is {name}: the AUC of {best.attack} is {best.auc.value:.3f} "
        f"({best.auc.low:.3f} to {best.auc.high:.3f}); without a defense, that of the strongest attack{among} is "
        f"{against.value:.3f}. This defense was chosen among {len(done)} by the same number, so the estimate is "
        "optimistic: measure it again on the model that you release."
    )
    return said
