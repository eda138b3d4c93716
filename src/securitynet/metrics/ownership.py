"""Whether a suspect agrees with the owner's model more than independent models do, on images made to show it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from securitynet.metrics import rates
from securitynet.records import Direction, Measurement, Record

Verdict = Literal["copy", "no sign", "undecided"]

ALPHA = 0.05
"""Largest p-value that is called a copy."""


class Ownership(Record):
    """The comparison of a suspect with independent models.

    Attributes:
        match: ``fingerprint-match``: share of the fingerprint that the suspect classifies as the owner's model does.
        references: The same share for each independent model, in the order given.
        p_value: Share of models, the suspect among the independent ones, that match at least as well as the suspect.
        verdict: ``copy`` if the p-value is at most `ALPHA`; ``undecided`` if no suspect could reach that with so few
            references; otherwise ``no sign``.
    """

    match: Measurement
    references: tuple[float, ...]
    p_value: float
    verdict: Verdict

    def describe(self) -> str:
        """The verdict in sentences, with what it does not show."""
        value, count = self.match.value, len(self.references)
        assert value is not None and self.match.low is not None and self.match.high is not None
        numbers = f"{value:.1%} of {self.match.n} images ({self.match.low:.1%} to {self.match.high:.1%})"
        text = f"The suspect answers like your model on {numbers}"
        if not count:
            return f"{text}. Without independent models to compare with, that says nothing: give some as references."
        text += (
            f"; of {count} independent models the closest does on {max(self.references):.1%} (p = {self.p_value:.3f})."
        )
        if self.verdict == "copy":
            return (
                f"{text} It is a copy of your model, or was trained on its outputs, unless it shares with your model "
                "what the independent models do not, such as the same initial weights."
            )
        if self.verdict == "undecided":
            needed = count_fewest_references()
            return f"{text} {count} references cannot resolve {ALPHA:.0%}: {needed} or more are needed for a verdict."
        return (
            f"{text} It is not shown to be a copy: independent models are as close to your model. That does not clear "
            "it: copies that were distilled, that is, trained anew on its outputs, can be as far away (when this was "
            "measured, neither of two was recognised)."
        )


def count_fewest_references(alpha: float = ALPHA) -> int:
    """Return how many independent models are needed for a p-value of ``alpha`` at all."""
    return round(1 / alpha) - 1


def rank_suspect(matches: int, count: int, references: Sequence[float], *, level: float = 0.95) -> Ownership:
    """Rank the suspect's match among those of independent models.

    If the suspect is independent too, it is exchangeable with them, so the p-value is at most α in at most a share α of
    the cases, whatever the distribution (conformal p-value; Vovk et al., "Algorithmic learning in a random world",
    2005, section 2.2). Ties count against the accusation.

    Args:
        matches: Images of the fingerprint on which the suspect predicts what the owner's model predicts.
        count: Images of the fingerprint, at least 1.
        references: Shares of such images for the independent models.
        level: Confidence level of the interval of the suspect's share.
    """
    match = rates.rate("fingerprint-match", matches, count, direction=Direction.LOWER, level=level)
    assert match.value is not None
    at_least = sum(share >= match.value for share in references)
    p_value = (1 + at_least) / (len(references) + 1)
    verdict: Verdict = "no sign"
    if p_value <= ALPHA:
        verdict = "copy"
    elif len(references) < count_fewest_references():
        verdict = "undecided"
    return Ownership(match=match, references=tuple(references), p_value=p_value, verdict=verdict)
