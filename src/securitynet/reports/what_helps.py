"""What would help, and what the training spent: the report's words on defenses, all measured on this model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from securitynet.records import Measurement
from securitynet.reports import words
from securitynet.results.document import Remedies, ResultDocument, Tried


@dataclass(frozen=True)
class TriedRow:
    """One defense in the table.

    Attributes:
        name: Of the defense, with its settings.
        when: Whether it changes the training or the answers.
        auc: Of the strongest attack that still works, as text; None if it was not tried.
        attack: Which that is.
        accuracy: On non-members, as text.
        outcome: In words: whether it helped.
        seconds: It took.
    """

    name: str
    when: str
    auc: words.Numbers | None
    attack: str
    accuracy: words.Numbers | None
    outcome: str
    seconds: str


@dataclass(frozen=True)
class RemediesPart:
    """The section "what would help"."""

    sentences: list[str]
    rows: list[TriedRow]
    notes: tuple[str, ...]


def remedies(document: ResultDocument) -> RemediesPart | None:
    """The section, if defenses were tried."""
    found = document.remedies
    if found is None:
        return None
    rows = [_row(found.undefended, found.undefended), *_asked(found)]
    rows += [_row(tried, found.undefended) for tried in found.tried]
    return RemediesPart(_sentences(found), rows, found.notes)


def training_sentences(document: ResultDocument) -> list[str]:
    """What the model's record says of the defense it was trained with; empty if it was trained without."""
    defense: dict[str, Any] | None = (document.target.training or {}).get("defense")
    if not defense:
        return []
    said = [f"The model was trained with the defense {defense['name']}."]
    if defense["set_aside"]:
        said.append(
            f"For it, {words.plural(defense['set_aside'], 'training record')} were set aside, which are neither "
            "members nor non-members here."
        )
    if privacy := defense["privacy"]:
        said.append(
            f"Its training spent epsilon = {privacy['epsilon']:.3g} at delta = {privacy['delta']:g}, by the "
            f"{privacy['accountant']} accountant: noise multiplier {privacy['noise_multiplier']:.3g}, clipping bound "
            f"{privacy['clipping_bound']:g}, {privacy['steps']:,} steps on batches that each of {privacy['records']:,} "
            f"records joins with probability {privacy['sample_rate']:.3g}."
        )
    if teacher := defense["teacher"]:
        said.append(
            f"Its teacher, {teacher['architecture']}, has an accuracy of {words.rate(teacher['test_accuracy'])} on "
            f"non-members, and the model agrees with it on {words.rate(teacher['agreement'])} of them."
        )
    return [*said, *defense["notes"]]


def outcome(tried: Tried, undefended: Tried) -> str:
    """Whether a defense helped, claiming no more than the intervals say."""
    if tried.reason:
        return f"not tried: {tried.reason}"
    if tried is undefended or tried.name == "none":
        return "the model as it is"
    if tried.auc is None:
        return "no attack that was run still works" if tried.denied else "not told: all attacks need the model itself"
    helped = _apart(turned(tried.auc), _against(tried, undefended))
    costs = _apart(tried.accuracy, undefended.accuracy)
    said = "helps" if helped < 0 else "makes it worse" if helped > 0 else "no difference shown"
    if tried.auc.high is not None and tried.auc.high < 0.5:
        said += " (scores point the wrong way round; who knows of the defense turns them)"
    elif helped < 0 and tried.auc.low is not None and tried.auc.low <= 0.5:
        said += ", to no better than guessing"
    if tried.denied:
        said += f"; denies {words.plural(len(tried.denied), 'attack')} what it needs"
    return f"{said}; costs accuracy" if costs < 0 else said


def _against(tried: Tried, undefended: Tried) -> Measurement | None:
    """What a defense is compared with: the strongest attack without it, of those that it had to stand."""
    found = tried.against or undefended.auc
    return found if found is None else turned(found)


def turned(auc: Measurement) -> Measurement:
    """The AUC of an adversary who turns scores round that point the wrong way."""
    if auc.value is None or auc.low is None or auc.high is None or auc.value >= 0.5:
        return auc
    return auc.model_copy(update={"value": 1 - auc.value, "low": 1 - auc.high, "high": 1 - auc.low})


def _apart(one: Measurement | None, other: Measurement | None) -> int:
    """-1 if one lies below the other with its whole interval, 1 if above, 0 if the intervals meet."""
    if one is None or other is None or one.high is None or one.low is None or other.low is None or other.high is None:
        return 0
    return -1 if one.high < other.low else 1 if one.low > other.high else 0


def _row(tried: Tried, undefended: Tried) -> TriedRow:
    settings = ", ".join(
        f"{field} = {f'{value:g}' if isinstance(value, float) else value}" for field, value in tried.settings.items()
    )
    name = "no defense" if tried.name == "none" else f"{tried.name} ({settings})" if settings else tried.name
    if tried.epsilon is not None:
        name += f", epsilon {tried.epsilon:.3g} spent"
    return TriedRow(
        name=name,
        when={"none": "", "output": "answers", "training": "training"}[tried.stage],
        auc=words.numbers(tried.auc) if tried.auc else None,
        attack=tried.attack or "",
        accuracy=words.numbers(tried.accuracy) if tried.accuracy else None,
        outcome=outcome(tried, undefended),
        seconds=words.duration(tried.seconds) if tried.seconds else "",
    )


def _asked(found: Remedies) -> list[TriedRow]:
    """The model as it is for those who only ask it, where others were stronger; defenses of the answers start there."""
    auc = next((tried.against for tried in found.tried if tried.stage == "output" and tried.against), None)
    if auc is None or auc == found.undefended.auc:
        return []
    accuracy = words.numbers(found.undefended.accuracy) if found.undefended.accuracy else None
    said = "the model as it is, for who has answers only"
    return [TriedRow("no defense, answers only", "", words.numbers(auc), "", accuracy, said, "")]


def _sentences(found: Remedies) -> list[str]:
    if found.undefended.auc is None:
        return []
    done = [tried for tried in found.tried if tried.reason is None]
    said = [
        f"{words.plural(len(done), 'setting')} of defenses had to stand {words.plural(len(found.attacks), 'attack')} "
        f"on this model and this data. For each, the table shows the attack that does best against it."
    ]
    helped = [
        tried
        for tried in done
        if tried.auc is not None and _apart(turned(tried.auc), _against(tried, found.undefended)) < 0
    ]
    free = [tried for tried in helped if _apart(tried.accuracy, found.undefended.accuracy) >= 0]
    if not helped:
        said.append("None of them is shown to lower the strongest attack: their intervals meet that without a defense.")
        return said
    best = min(free or helped, key=lambda tried: (turned(tried.auc).value if tried.auc else None) or 1.0)
    assert best.auc is not None  # it helped
    cost = "without a measurable loss of accuracy" if best in free else "at a measurable cost in accuracy"
    name = _row(best, found.undefended).name
    against = _against(best, found.undefended)
    assert against is not None  # it is below that
    among = "" if best.against in (None, found.undefended.auc) else " that needs answers only,"
    said.append(
        f"{len(helped)} of them lower the strongest attack beyond its interval. The best {cost} is {name}: the AUC of "
        f"{best.attack} is {best.auc.value:.3f} ({best.auc.low:.3f} to {best.auc.high:.3f}), that of the strongest "
        f"attack{among} without a defense {against.value:.3f}. It was chosen among "
        f"{len(done)} by that same number, which flatters it: measure it again on the model that you release."
    )
    return said
