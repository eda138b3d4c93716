"""Whether a model still knows records that were to be removed from it, judged beside models that never had them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from securitynet.records import Record

Verdict = Literal["remembered", "no sign", "undecided"]

ALPHA = 0.025
"""Largest p-value that is called remembered: one tail of 95%, as in all other verdicts."""


class RemovalTest(Record):
    """The comparison of a model with models that were trained anew without the removed records.

    Attributes:
        records: Number of removed records.
        confidence: Mean scaled confidence of the model on them, log(p / (1 - p)) of the true class.
        retrained: The same for each model that was trained without them.
        p_value: Share of models, this one among the retrained ones, that are at least as confident as this one.
        below: Share of models that are at most as confident as this one; a small one means that the removal has left a
            mark of its own.
        verdict: ``remembered`` if the p-value is at most `ALPHA`; ``undecided`` if no model could reach that with so
            few retrained ones; otherwise ``no sign``.
    """

    records: int
    confidence: float
    retrained: tuple[float, ...]
    p_value: float
    below: float
    verdict: Verdict

    def describe(self) -> str:
        """The verdict in sentences, with what it does not show."""
        sentence = (
            f"On the {self.records:,} removed records, the model's mean scaled confidence is {self.confidence:.2f}; "
            f"that of {len(self.retrained)} models trained without them is {min(self.retrained):.2f} to "
            f"{max(self.retrained):.2f} (p = {self.p_value:.3f})."
        )
        if self.verdict == "remembered":
            return f"{sentence} The model still knows them, or was trained in another way than the models beside it."
        if self.verdict == "undecided":
            return (
                f"{sentence} {len(self.retrained)} models cannot resolve {ALPHA:.1%}: {count_fewest_retrained()} or "
                "more are "
                "needed for a verdict."
            )
        if self.below <= ALPHA:
            sentence += (
                " It is less confident on them than models that never had them, which may give their removal away."
            )
        return (
            f"{sentence} Nothing shows that it still knows them as a group. That does not prove that each of them was "
            "removed, and it says nothing about an adversary who also has the model from before."
        )


def count_fewest_retrained(alpha: float = ALPHA) -> int:
    """Return how many retrained models are needed for a p-value of ``alpha`` at all."""
    return round(1 / alpha) - 1


def judge_removal(records: int, confidence: float, retrained: Sequence[float]) -> RemovalTest:
    """Rank a model's confidence on removed records among that of models trained without them.

    A model from which the records were removed without a trace is exchangeable with the retrained ones, so the p-value
    is at most α in at most a share α of the cases, whatever the distribution (conformal p-value; Vovk et al.,
    "Algorithmic learning in a random world", 2005, section 2.2).

    Args:
        records: Number of removed records.
        confidence: Mean scaled confidence of the model on them.
        retrained: The same for the retrained models, at least one.
    """
    count = len(retrained)
    p_value = (1 + sum(value >= confidence for value in retrained)) / (count + 1)
    below = (1 + sum(value <= confidence for value in retrained)) / (count + 1)
    verdict: Verdict = "no sign"
    if p_value <= ALPHA:
        verdict = "remembered"
    elif count < count_fewest_retrained():
        verdict = "undecided"
    return RemovalTest(
        records=records,
        confidence=confidence,
        retrained=tuple(retrained),
        p_value=p_value,
        below=below,
        verdict=verdict,
    )
