"""What a report says about model stealing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from securitynet.metrics import rates
from securitynet.records import Measurement
from securitynet.reports import verdict, words
from securitynet.reports.kinds import Kind
from securitynet.results.document import ResultDocument, TrialSummary

_MEASURES = {
    "accuracy": Kind("Accuracy of the surrogate", "share"),
    "agreement": Kind("Agreement with the target", "share"),
    "accuracy-ratio": Kind("Accuracy relative to the target's"),
    "agreement-on-errors": Kind("Agreement on the target's errors", "share"),
    "calibration-gap": Kind("Mean confidence minus accuracy", "points", chance=0.0),
    "posterior-distance": Kind("Distance from the target's posteriors"),
    "constant-agreement": Kind("Agreement of a constant prediction", "share"),
    "queried-share": Kind("Images to evaluate on that were queried, and are left out", "share"),
    "transfer": Kind("Adversarial examples of the surrogate that fool the target", "share"),
    "transfer-gain": Kind("The same, minus noise of that size", "points", chance=0.0),
}

KINDS: dict[str, Kind] = {
    **_MEASURES,
    **{f"{name}@budget": replace(kind, label=f"{kind.label}, {{value}} queries") for name, kind in _MEASURES.items()},
}


def write_sentences(document: ResultDocument, trials: Sequence[TrialSummary]) -> list[str]:
    """How closely the best surrogate matches the target, with how many queries, and whether more queries helped."""
    measured_trials = [(trial, _by_name(document, trial)) for trial in trials]
    able = [(trial, measured) for trial, measured in measured_trials if "agreement" in measured]
    if not able:
        return []
    trial, measured = max(able, key=lambda pair: (pair[1]["agreement"].low or 0.0, pair[1]["agreement"].value or 0.0))
    agreement, constant = measured["agreement"], measured["constant-agreement"]
    numbers = words.write_numbers(agreement)
    assert numbers is not None  # an agreement always has a value
    who = trial.threat_model.in_words().removeprefix("The adversary ").removesuffix(".")
    lines = [
        f"An adversary who {who}, and queries the model with {words.count_noun(trial.queries.unique, 'image')}, "
        f"obtains a surrogate that agrees with the model on {numbers.value} of the images that neither was trained on "
        f"({words.write_level(agreement)} interval {words.keep_unbroken(numbers.interval)}): "
        f"{describe_agreement(agreement, constant)}."
    ]
    queried = measured.get("queried-share")
    if queried is not None and queried.value is not None:
        lines.append(
            f"{round(queried.value * queried.n):,} of the {queried.n:,} images to be judged on had been queried, by "
            "their content, and are left out."
        )
    ratio = measured.get("accuracy-ratio")
    written = words.write_numbers(ratio) if ratio is not None else None
    if ratio is not None and written is not None:
        lines.append(
            f"Its accuracy is {written.value} times the model's ({words.write_level(ratio)} interval "
            f"{words.keep_unbroken(written.interval)})."
        )
    growth = _growth(measured)
    return [*lines, growth] if growth else lines


def describe_agreement(agreement: Measurement, constant: Measurement) -> str:
    """Compare an agreement with that of a constant prediction, by its interval."""
    guess = f"always predicting the same class would agree on {words.write_rate(constant.value or 0.0)}"
    low, high, least = agreement.low or 0.0, agreement.high or 0.0, constant.value or 0.0
    if low <= least <= high:
        return f"not distinguishable from a constant prediction, as {guess}"
    if high < least:
        return f"less than a constant prediction, as {guess}"
    return guess


def _by_name(document: ResultDocument, trial: TrialSummary) -> dict[str, Measurement]:
    start = f"{trial.name}."
    return {m.name.removeprefix(start): m for m in verdict.select_measurements(document, trial)}


def _growth(measured: dict[str, Measurement]) -> str | None:
    """Whether the largest budget gave more agreement than the smallest; None without a curve."""
    curve = {
        int(name.partition("=")[2]): m
        for name, m in measured.items()
        if name.startswith("agreement@budget=") and m.value is not None
    }
    if len(curve) < 2:
        return None
    few, many = min(curve), max(curve)
    first, last = words.write_numbers(curve[few]), words.write_numbers(curve[many])
    assert first is not None and last is not None
    pair = (
        f"{first.value} ({words.keep_unbroken(first.interval)}) with {few:,} queries and {last.value} "
        f"({words.keep_unbroken(last.interval)}) with {many:,}"
    )
    gain = rates.subtract_measurement(curve[many], curve[few])
    assert gain.low is not None and gain.high is not None
    if gain.low <= 0 <= gain.high:
        return f"More queries are not shown to help: the agreement is {pair}."
    return f"More queries {'help' if gain.low > 0 else 'reduce the agreement'}: it is {pair}."
