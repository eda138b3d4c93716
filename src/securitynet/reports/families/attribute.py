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
    "random-gain": Kind("the same gain from random weights", "points", chance=0.0),
    "gain-over-random": Kind("gain over random weights", "points", chance=0.0),
    "pixel-gain": Kind("the same gain from pixels", "points", chance=0.0),
    "gain-over-pixels": Kind("gain over pixels", "points", chance=0.0),
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
    over_random: Measurement | None = None
    random: Measurement | None = None
    pixels: Measurement | None = None

    @property
    def sure(self) -> float:
        """What the target's training gives away at least, by the intervals: more than the class and random weights."""
        ends = [m.low for m in (self.gain, self.over_random) if m is not None and m.low is not None]
        return min(ends, default=-1.0)


def write_sentences(document: ResultDocument, trials: Sequence[TrialSummary]) -> list[str]:
    """Describe the gain of each attribute's best attack over prediction from the class, largest first."""
    attributes = sorted(_best(document, trials).values(), key=lambda one: (-one.sure, one.name))
    lines = [_sentence(one) for one in attributes[:MOST_NAMED]]
    rest = attributes[MOST_NAMED:]
    if rest:
        gained = sum(one.sure > 0 for one in rest)
        beside = " and from random weights" if any(one.over_random is not None for one in rest) else ""
        lines.append(
            f"Of {words.count_noun(len(rest), 'further attribute')}, {gained if gained else 'none'} "
            f"{'is' if gained == 1 else 'are'} inferred better than from the class alone{beside}."
        )
    return lines


def _best(document: ResultDocument, trials: Sequence[TrialSummary]) -> dict[str, _BestAttack]:
    best: dict[str, _BestAttack] = {}
    for trial in trials:
        measured = {m.name.removeprefix(f"{trial.name}."): m for m in verdict.select_measurements(document, trial)}
        for full in measured:
            name, _, measure = full.rpartition(".")
            if measure != "gain" or not {f"{name}.accuracy", f"{name}.baseline-accuracy"} <= measured.keys():
                continue
            one = _BestAttack(
                trial,
                name,
                measured[full],
                measured[f"{name}.accuracy"],
                measured[f"{name}.baseline-accuracy"],
                measured.get(f"{name}.gain-over-random"),
                measured.get(f"{name}.random-gain"),
                measured.get(f"{name}.pixel-gain"),
            )
            if name not in best or one.sure > best[name].sure:
                best[name] = one
    return best


def _sentence(one: _BestAttack) -> str:
    gain, accuracy, baseline = (words.write_numbers(measure) for measure in (one.gain, one.accuracy, one.baseline))
    assert gain is not None and accuracy is not None and baseline is not None  # these always have values
    who = one.trial.threat_model.in_words().removeprefix("The adversary ").removesuffix(".")
    return (
        f"An adversary who {who} infers the attribute “{one.name}” correctly for {accuracy.value} of the evaluated "
        f"records; the class and the most frequent value alone give {baseline.value}: a gain of {gain.value} "
        f"({words.write_level(one.gain)} interval {words.keep_unbroken(gain.interval)}), {describe_gain(one.gain)}."
        f"{_compare_with_random(one)}"
    )


def _compare_with_random(one: _BestAttack) -> str:
    """Compare the gain with that of random weights and of pixels, and say what the difference means."""
    over, random = (words.write_numbers(m) if m is not None else None for m in (one.over_random, one.random))
    if over is None or random is None or one.over_random is None:
        return ""
    pixels = words.write_numbers(one.pixels) if one.pixels is not None else None
    beside = "" if pixels is None else f", and pixels alone {pixels.value}"
    if (one.over_random.low or 0.0) > 0:
        meaning = "training this network made the attribute easier to infer"
    else:
        meaning = "it is not shown that training this network made the attribute easier to infer"
    return (
        f" Random weights of the same architecture give a gain of {random.value}{beside}; the trained network's gain "
        f"minus that of random weights is {over.value} (interval {words.keep_unbroken(over.interval)}), so {meaning}."
    )


def describe_gain(gain: Measurement) -> str:
    """Describe what the interval of a gain shows."""
    low, high = gain.low, gain.high
    assert low is not None and high is not None
    if low > 0:
        return "more than the class reveals"
    if high < 0:
        return "so the attack does worse than the baseline"
    return "not distinguishable from no gain"
