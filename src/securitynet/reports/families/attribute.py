"""What a report says about attribute inference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from securitynet.records import Measurement
from securitynet.reports import verdict, words
from securitynet.reports.kinds import Kind
from securitynet.results.document import ResultDocument, TrialSummary

KINDS: dict[str, Kind] = {
    "gain": Kind("gain over class and majority", "points", chance=0.0),
    "accuracy": Kind("accuracy", "share"),
    "baseline-accuracy": Kind("accuracy by class and majority alone", "share"),
    "macro-f1-gain": Kind("gain in macro-F1", chance=0.0),
    "macro-f1": Kind("macro-F1"),
    "baseline-macro-f1": Kind("macro-F1 of the same predictions shuffled within each class"),
}

MOST_NAMED = 4
"""Attributes that get a sentence of their own; the others are counted."""


@dataclass(frozen=True)
class _BestAttack:
    """The attack that gains most on one attribute, with its measurements."""

    trial: TrialSummary
    name: str
    gain: Measurement
    accuracy: Measurement
    baseline: Measurement

    @property
    def sure(self) -> float:
        """The lower end of the gain's interval."""
        return self.gain.low if self.gain.low is not None else -1.0


def sentences(document: ResultDocument, trials: Sequence[TrialSummary]) -> list[str]:
    """What each attribute's best attack gains over predicting the attribute from the class, largest gain first."""
    attributes = sorted(_best(document, trials).values(), key=lambda one: (-one.sure, one.name))
    said = [_sentence(one) for one in attributes[:MOST_NAMED]]
    rest = attributes[MOST_NAMED:]
    if rest:
        gained = sum(one.sure > 0 for one in rest)
        said.append(
            f"Of {words.plural(len(rest), 'further attribute')}, {gained if gained else 'none'} "
            f"{'is' if gained == 1 else 'are'} inferred better than from the class alone."
        )
    return said


def _best(document: ResultDocument, trials: Sequence[TrialSummary]) -> dict[str, _BestAttack]:
    best: dict[str, _BestAttack] = {}
    for trial in trials:
        measured = {m.name.removeprefix(f"{trial.name}."): m for m in verdict.measurements_of(document, trial)}
        for full in measured:
            name, _, measure = full.rpartition(".")
            if measure != "gain" or not {f"{name}.accuracy", f"{name}.baseline-accuracy"} <= measured.keys():
                continue
            one = _BestAttack(
                trial, name, measured[full], measured[f"{name}.accuracy"], measured[f"{name}.baseline-accuracy"]
            )
            if name not in best or one.sure > best[name].sure:
                best[name] = one
    return best


def _sentence(one: _BestAttack) -> str:
    gain, accuracy, baseline = (words.numbers(measure) for measure in (one.gain, one.accuracy, one.baseline))
    assert gain is not None and accuracy is not None and baseline is not None  # these always have values
    who = one.trial.threat_model.in_words().removeprefix("The adversary ").removesuffix(".")
    return (
        f"An adversary who {who} infers the attribute “{one.name}” correctly for {accuracy.value} of the evaluated "
        f"records; the class and the most frequent value alone give {baseline.value}: a gain of {gain.value} "
        f"({words.level(one.gain)} interval {words.unbroken(gain.interval)}), {describe_gain(one.gain)}."
    )


def describe_gain(gain: Measurement) -> str:
    """What a gain shows, by its interval."""
    low, high = gain.low, gain.high
    assert low is not None and high is not None
    if low > 0:
        return "so the model reveals more than the class"
    if high < 0:
        return "so the attack does worse than the baseline"
    return "not distinguishable from no gain"
