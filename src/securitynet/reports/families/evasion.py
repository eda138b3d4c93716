"""What a report says about evasion: how many images evade at which budget, and whether gradients can be trusted."""

from __future__ import annotations

from collections.abc import Sequence

from securitynet.metrics import evasion
from securitynet.records import Access, Measurement
from securitynet.reports import verdict, words
from securitynet.reports.kinds import Kind
from securitynet.results.document import ResultDocument, TrialSummary

KINDS: dict[str, Kind] = {
    "clean-accuracy": Kind("Accuracy on the unperturbed images", "share"),
    "accuracy-drop@epsilon": Kind("Accuracy drop at ε = {value}", "points", chance=0.0),
    "robust-accuracy@epsilon": Kind("Robust accuracy up to ε = {value}", "share"),
    "success@epsilon": Kind("Correctly classified images that evade, up to ε = {value}", "share"),
    "surrogate-accuracy": Kind("Accuracy of the surrogate", "share"),
    "queries@epsilon": Kind("Queries per image at ε = {value}, median"),
    "vanished-gradients": Kind("Images with a zero gradient", "share"),
    "unbounded-success": Kind("Images that evade when steps are unbounded", "share"),
}

ITERATED = {"pgd", "auto-attack", "apgd-t"}
"""Iterated white-box attacks, which neither a black-box attack nor a single step should beat."""

ENSEMBLE = "auto-attack"
"""The attack that should beat every other one with the same norm and budget."""


def sentences(document: ResultDocument, trials: Sequence[TrialSummary]) -> list[str]:
    """The strongest attack with and without the target's gradients, and a warning where gradients look masked."""
    said = []
    for access in (Access.WHITE_BOX, Access.BLACK_BOX):
        for norm in ("linf", "l2"):
            chosen = [t for t in trials if t.threat_model.access is access and _norm(t) == norm]
            if sentence := _strongest(document, chosen, norm):
                said.append(sentence)
    return said + _warnings(document, trials)


def _strongest(document: ResultDocument, trials: Sequence[TrialSummary], norm: str) -> str | None:
    """The attack with the highest success at the smallest budget that was tried, by the lower end of the interval."""
    successes = [(epsilon, trial, m) for trial in trials for epsilon, m in _successes(document, trial).items()]
    if not successes:
        return None
    smallest = min(epsilon for epsilon, _, _ in successes)
    of_smallest = [(trial, m) for epsilon, trial, m in successes if epsilon == smallest]
    trial, success = max(of_smallest, key=lambda pair: (pair[1].low or 0.0, pair[1].value or 0.0))
    numbers = words.numbers(success)
    assert numbers is not None  # `_successes` takes only those with a value
    who = trial.threat_model.in_words().removeprefix("The adversary ").removesuffix(".")
    each = "each pixel by at most" if norm == "linf" else "an image by at most"
    size = f"{words.percent(smallest)} of its range" if norm == "linf" else f"{smallest:g} in the Euclidean norm"
    result = (
        f"An adversary who {who}, and changes {each} {size}, makes the model misclassify {numbers.value} of the images "
        f"that it classifies correctly ({words.level(success)} interval {words.unbroken(numbers.interval)}), by "
        f"{verdict.attack_title(trial.name)}"
    )
    more = _successes(document, trial)
    largest = max(more)
    last = words.numbers(more[largest])
    if largest == smallest or last is None:
        return result + "."
    bound = words.percent(largest) if norm == "linf" else f"{largest:g}"
    return f"{result}; with up to {bound}, {last.value} ({words.unbroken(last.interval)})."


def _warnings(document: ResultDocument, trials: Sequence[TrialSummary]) -> list[str]:
    """Signs of masked gradients: warnings of the attacks themselves, and black-box attacks that beat white-box ones."""
    said = []
    for trial in trials:
        notes = {m.note for m in verdict.measurements_of(document, trial) if m.note and evasion.WARNING in m.note}
        for note in sorted(notes)[:1]:
            said.append(f"{verdict.attack_title(trial.name)}: {note[note.index(evasion.WARNING) :]}")
    for white in (t for t in trials if t.threat_model.access is Access.WHITE_BOX):
        for black in (t for t in trials if t.threat_model.access is Access.BLACK_BOX and _norm(t) == _norm(white)):
            if not _comparable(white, black):
                continue
            own, other = _successes(document, white), _successes(document, black)
            beaten = [e for e in sorted(own.keys() & other.keys()) if evasion.beaten(own[e], other[e])]
            if beaten:
                said.append(
                    f"{evasion.WARNING}: {verdict.attack_title(black.name)}, which does not see the model's gradients, "
                    f"does better at ε = {beaten[0]:g} than {verdict.attack_title(white.name)}, which follows them; "
                    "the intervals do not overlap. The model is less robust than its gradients suggest."
                )
    return said + _contradictions(document, trials) + _recoveries(document, trials)


def _contradictions(document: ResultDocument, trials: Sequence[TrialSummary]) -> list[str]:
    """White-box attacks that do worse than one that they should beat: one step, or what is weaker than the ensemble."""
    said = []
    white = [t for t in trials if t.threat_model.access is Access.WHITE_BOX]
    for strong in (t for t in white if _method(t) in ITERATED):
        for weak in (t for t in white if _norm(t) == _norm(strong)):
            one_step = _method(weak) == "fgsm"
            if not one_step and not (_method(strong) == ENSEMBLE and _method(weak) in ITERATED - {ENSEMBLE}):
                continue
            own, other = _successes(document, strong), _successes(document, weak)
            trailing = [e for e in sorted(own.keys() & other.keys()) if evasion.trails(own[e], other[e])]
            if not trailing:
                continue
            why = "which takes a single step" if one_step else "which should be the weaker attack"
            said.append(
                f"{evasion.WARNING}: at ε = {trailing[0]:g}, {verdict.attack_title(strong.name)} makes the model "
                f"misclassify {words.rate(own[trailing[0]].value or 0.0)} of the images, and "
                f"{verdict.attack_title(weak.name)}, {why}, {words.rate(other[trailing[0]].value or 0.0)}. The robust "
                f"accuracy of {verdict.attack_title(strong.name)} is too high: the model may be random, or its "
                "gradients may not lead to its errors."
            )
    return said


def _recoveries(document: ResultDocument, trials: Sequence[TrialSummary]) -> list[str]:
    """Attacks under which the model is more accurate at a larger budget, which includes the smaller one."""
    said = []
    for trial in trials:
        measured = verdict.measurements_of(document, trial)
        robust = _by_epsilon(measured, f"{trial.name}.robust-accuracy@epsilon=")
        drops = _by_epsilon(measured, f"{trial.name}.accuracy-drop@epsilon=")
        after = {
            epsilon: drop.model_copy(
                update={"value": 1 - (drop.value or 0.0), "low": _rest(drop.high), "high": _rest(drop.low)}
            )
            for epsilon, drop in drops.items()
        }
        pairs = evasion.recoveries(robust) or evasion.recoveries(after)
        if not pairs:
            continue
        smaller, larger = pairs[0]
        title = verdict.attack_title(trial.name)
        start = (
            f"{title}: accuracy under attack is higher at ε = {larger:g} than at ε = {smaller:g}, although the larger "
        )
        if _method(trial) in ITERATED:
            said.append(f"{evasion.WARNING}: {start}. The attack has not converged.")
        else:
            said.append(f"{start}: at {larger:g}, this attack understates what an adversary can do.")
    return said


def _rest(share: float | None) -> float | None:
    return None if share is None else 1 - share


def _by_epsilon(measurements: Sequence[Measurement], start: str) -> dict[float, Measurement]:
    return {
        float(m.name.removeprefix(start)): m for m in measurements if m.name.startswith(start) and m.value is not None
    }


def _comparable(white: TrialSummary, black: TrialSummary) -> bool:
    """Whether the white-box attack should do at least as well: one step against one step, or many against anything."""
    return _method(white) in ITERATED or (_method(white), _method(black)) == ("fgsm", "fgsm-transfer")


def _successes(document: ResultDocument, trial: TrialSummary) -> dict[float, Measurement]:
    """Success by epsilon."""
    return _by_epsilon(verdict.measurements_of(document, trial), f"{trial.name}.success@epsilon=")


def _method(trial: TrialSummary) -> str:
    return trial.name.partition(".")[2].partition("@")[0]


def _norm(trial: TrialSummary) -> str:
    return str(trial.configuration.get("norm", "linf"))
