"""What a report says about evasion: how many images evade at which budget, and whether gradients can be trusted."""

from __future__ import annotations

from collections.abc import Sequence

from securitynet.errors import NO_GRADIENTS
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
    "targeted-success@epsilon": Kind(
        "Correctly classified images that get the chosen class, up to ε = {value}", "share"
    ),
    "share@epsilon": Kind("Images that this part makes evade first, up to ε = {value}", "share"),
    "mean-corruption-accuracy": Kind("Mean accuracy under common corruptions", "share"),
    "corruption-drop": Kind("Accuracy drop by common corruptions", "points", chance=0.0),
    "corruption-accuracy": Kind("Accuracy, mean over severities", "share"),
    "corruption-accuracy@severity": Kind("Accuracy under corruptions of severity {value}, mean over kinds", "share"),
    "smoothed-accuracy": Kind("Accuracy of the smoothed model", "share"),
    "abstentions": Kind("Images on which the smoothed model abstains", "share"),
    "certified-accuracy@radius": Kind("Certified accuracy at an L2 radius of {value}", "share"),
    "queries@epsilon": Kind("Queries per image at ε = {value}, median"),
    "vanished-gradients": Kind("Images with a zero gradient", "share"),
    "unbounded-success": Kind("Images that evade when steps are unbounded", "share"),
}

ITERATED = {"pgd", "auto-attack", "apgd-t"}
"""Iterated white-box attacks, which neither a black-box attack nor a single step should beat."""

SINGLE_STEPS = {"evasion.fgsm", "evasion.fgsm-transfer"}
"""Attacks that take one step, and understate what an adversary can do."""

_NORMS = {"apgd-l1": "l1", "sparse-rs": "l0", "patch": "patch"}
"""Norms of attacks that have no choice of one."""

CHANGES = {
    "linf": "changes each pixel by at most {} of its range",
    "l2": "changes an image by at most {} in the Euclidean norm",
    "l1": "changes an image by at most {} in the sum of all values",
    "l0": "replaces at most {} of the pixels",
    "patch": "covers at most {} of an image by a square",
}
"""What the adversary does to an image, by norm."""

IN_UNITS = {"l2", "l1"}
"""Norms whose budgets are not shares."""

ENSEMBLE = "auto-attack"
"""The attack that should beat every other one with the same norm and budget."""


def write_sentences(document: ResultDocument, trials: Sequence[TrialSummary]) -> list[str]:
    """The strongest attack with and without the target's gradients, and a warning where gradients look masked."""
    lines = []
    for access in (Access.WHITE_BOX, Access.BLACK_BOX):
        for norm in CHANGES:
            chosen = [t for t in trials if t.threat_model.access is access and find_norm(t) == norm]
            if sentence := _strongest(document, chosen, norm):
                lines.append(sentence)
    lines += _of_corruptions(document, trials) + _of_certificates(document, trials)
    return lines + _warnings(document, trials)


def _of_corruptions(document: ResultDocument, trials: Sequence[TrialSummary]) -> list[str]:
    """Accuracy without an adversary, and the kind of corruption that costs most."""
    sentences = []
    for trial in trials:
        ending = f"{trial.name}.mean-corruption-accuracy"
        measured = {m.name: m for m in verdict.select_measurements(document, trial)}
        mean = words.write_numbers(measured[ending]) if ending in measured else None
        clean = words.write_numbers(measured[f"{trial.name}.clean-accuracy"]) if mean else None
        if mean is None or clean is None:
            continue
        kinds = [m for m in measured.values() if m.name.endswith(".corruption-accuracy") and m.value is not None]
        sentence = (
            "Without any adversary, common corruptions (noise, blur, weather, digital artefacts) change the accuracy "
            f"from {clean.value} to {mean.value} on average ({words.write_level(measured[ending])} interval "
            f"{words.keep_unbroken(mean.interval)})"
        )
        if kinds:
            worst = min(kinds, key=lambda m: m.value or 0.0)
            name = worst.name.removeprefix(f"{trial.name}.").removesuffix(".corruption-accuracy").replace("-", " ")
            sentence += f"; the worst is {name}, with {words.write_rate(worst.value or 0.0)}"
        sentences.append(f"{sentence}.")
    return sentences


def _of_certificates(document: ResultDocument, trials: Sequence[TrialSummary]) -> list[str]:
    """The certified accuracy at the largest radius, with what it is a certificate of."""
    sentences = []
    for trial in trials:
        start = f"{trial.name}.certified-accuracy@radius="
        certified = _by_epsilon(verdict.select_measurements(document, trial), start)
        positive = [radius for radius in certified if radius > 0]
        numbers = words.write_numbers(certified[min(positive)]) if positive else None
        if numbers is None:
            continue
        sentences.append(
            "A majority vote of the model over noisy images is certain to keep the right class of "
            f"{numbers.value} of the images ({words.keep_unbroken(numbers.interval)}) under any change of up to "
            f"{min(positive):g} in the Euclidean norm; the model without this vote has no such certificate."
        )
    return sentences


def _strongest(document: ResultDocument, trials: Sequence[TrialSummary], norm: str) -> str | None:
    """The attack with the highest success at the smallest budget that was tried, by the lower end of the interval."""
    successes = [(epsilon, trial, m) for trial in trials for epsilon, m in find_successes(document, trial).items()]
    if not successes:
        return None
    smallest = min(epsilon for epsilon, _, _ in successes)
    of_smallest = [(trial, m) for epsilon, trial, m in successes if epsilon == smallest]
    trial, success = max(of_smallest, key=lambda pair: (pair[1].low or 0.0, pair[1].value or 0.0))
    numbers = words.write_numbers(success)
    assert numbers is not None  # `find_successes` takes only those with a value
    who = trial.threat_model.in_words().removeprefix("The adversary ").removesuffix(".")
    share = norm not in IN_UNITS
    size = words.write_percent(smallest) if share else f"{smallest:g}"
    result = (
        f"An adversary who {who}, and {CHANGES[norm].format(size)}, makes the model misclassify "
        f"{numbers.value} of the images that it classifies correctly ({words.write_level(success)} interval "
        f"{words.keep_unbroken(numbers.interval)}), by {verdict.title_attack(trial.name)}"
    )
    more = find_successes(document, trial)
    largest = max(more)
    last = words.write_numbers(more[largest])
    if largest == smallest or last is None:
        return result + "."
    bound = words.write_percent(largest) if share else f"{largest:g}"
    return f"{result}; with up to {bound}, {last.value} ({words.keep_unbroken(last.interval)})."


def _warnings(document: ResultDocument, trials: Sequence[TrialSummary]) -> list[str]:
    """Signs of masked gradients: warnings of the attacks themselves, and black-box attacks that beat white-box ones."""
    sentences = []
    if blocked := find_blocked(document):
        sentences.append(
            f"{evasion.WARNING}: the model {NO_GRADIENTS}, so that {words.join_words(blocked)} could not run. Attacks "
            "that see outputs alone say little about an adversary who has the model and replaces the step that blocks "
            "gradients."
        )
    for trial in trials:
        notes = {m.note for m in verdict.select_measurements(document, trial) if m.note and evasion.WARNING in m.note}
        for note in sorted(notes)[:1]:
            sentences.append(f"{verdict.title_attack(trial.name)}: {note[note.index(evasion.WARNING) :]}")
    for white in (t for t in trials if t.threat_model.access is Access.WHITE_BOX):
        for black in (
            t for t in trials if t.threat_model.access is Access.BLACK_BOX and find_norm(t) == find_norm(white)
        ):
            if not _comparable(white, black):
                continue
            own, other = find_successes(document, white), find_successes(document, black)
            beaten = [e for e in sorted(own.keys() & other.keys()) if evasion.is_beaten(own[e], other[e])]
            if beaten:
                sentences.append(
                    f"{evasion.WARNING}: {verdict.title_attack(black.name)}, which does not see the model's gradients, "
                    f"does better at ε = {beaten[0]:g} than {verdict.title_attack(white.name)}, which follows them; "
                    "the intervals do not overlap. The model is less robust than its gradients suggest."
                )
    return sentences + _contradictions(document, trials) + _recoveries(document, trials)


def find_blocked(document: ResultDocument) -> list[str]:
    """Titles of the attacks that failed because the model passes no gradients.

    Args:
        document: The results on one target.
    """
    failed = [t for t in document.trials if t.name.startswith("evasion.") and t.status == "failed"]
    return list(dict.fromkeys(verdict.title_attack(t.name) for t in failed if NO_GRADIENTS in (t.reason or "")))


def _contradictions(document: ResultDocument, trials: Sequence[TrialSummary]) -> list[str]:
    """White-box attacks that do worse than one that they should beat: one step, or what is weaker than the ensemble."""
    sentences = []
    white = [t for t in trials if t.threat_model.access is Access.WHITE_BOX]
    for strong in (t for t in white if _method(t) in ITERATED):
        for weak in (t for t in white if find_norm(t) == find_norm(strong)):
            one_step = _method(weak) == "fgsm"
            if not one_step and not (_method(strong) == ENSEMBLE and _method(weak) in ITERATED - {ENSEMBLE}):
                continue
            own, other = find_successes(document, strong), find_successes(document, weak)
            trailing = [e for e in sorted(own.keys() & other.keys()) if evasion.is_weaker(own[e], other[e])]
            if not trailing:
                continue
            why = "which takes a single step" if one_step else "which should be the weaker attack"
            sentences.append(
                f"{evasion.WARNING}: at ε = {trailing[0]:g}, {verdict.title_attack(strong.name)} makes the model "
                f"misclassify {words.write_rate(own[trailing[0]].value or 0.0)} of the images, and "
                f"{verdict.title_attack(weak.name)}, {why}, {words.write_rate(other[trailing[0]].value or 0.0)}. The "
                "robust "
                f"accuracy of {verdict.title_attack(strong.name)} is too high: the model may be random, or its "
                "gradients may not lead to its errors."
            )
    return sentences


def _recoveries(document: ResultDocument, trials: Sequence[TrialSummary]) -> list[str]:
    """Attacks under which the model is more accurate at a larger budget, which includes the smaller one."""
    sentences = []
    for trial in trials:
        measured = verdict.select_measurements(document, trial)
        robust = _by_epsilon(measured, f"{trial.name}.robust-accuracy@epsilon=")
        drops = _by_epsilon(measured, f"{trial.name}.accuracy-drop@epsilon=")
        after = {
            epsilon: drop.model_copy(
                update={"value": 1 - (drop.value or 0.0), "low": _rest(drop.high), "high": _rest(drop.low)}
            )
            for epsilon, drop in drops.items()
        }
        pairs = evasion.find_recoveries(robust) or evasion.find_recoveries(after)
        if not pairs:
            continue
        smaller, larger = pairs[0]
        title = verdict.title_attack(trial.name)
        start = (
            f"{title}: accuracy under attack is higher at ε = {larger:g} than at ε = {smaller:g}, although the larger "
        )
        if _method(trial) in ITERATED:
            sentences.append(f"{evasion.WARNING}: {start}. The attack has not converged.")
        else:
            sentences.append(f"{start}: at {larger:g}, this attack understates what an adversary can do.")
    return sentences


def _rest(share: float | None) -> float | None:
    return None if share is None else 1 - share


def _by_epsilon(measurements: Sequence[Measurement], start: str) -> dict[float, Measurement]:
    return {
        float(m.name.removeprefix(start)): m for m in measurements if m.name.startswith(start) and m.value is not None
    }


def _comparable(white: TrialSummary, black: TrialSummary) -> bool:
    """Whether the white-box attack should do at least as well: one step against one step, or many against anything."""
    return _method(white) in ITERATED or (_method(white), _method(black)) == ("fgsm", "fgsm-transfer")


def find_successes(document: ResultDocument, trial: TrialSummary) -> dict[float, Measurement]:
    """Success by epsilon."""
    return _by_epsilon(verdict.select_measurements(document, trial), f"{trial.name}.success@epsilon=")


def _method(trial: TrialSummary) -> str:
    return trial.name.partition(".")[2].partition("@")[0]


def find_norm(trial: TrialSummary) -> str:
    """Norm of the perturbations, and ``patch`` for patches, whose budget is not that of scattered pixels."""
    return _NORMS.get(_method(trial), str(trial.configuration.get("norm", "linf")))
