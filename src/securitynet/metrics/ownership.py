"""Whether a suspect shares errors with the owner's model that neither the truth nor independent models explain.

Models of one task agree where they are right and where images are hard. What a copy has beyond that are the owner's own
errors: it keeps them if it started from the owner's weights, and learns them if it was trained on the owner's outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from securitynet.metrics import rates
from securitynet.records import Direction, Measurement, Record

Verdict = Literal["copy", "no sign", "undecided"]

ALPHA = 0.05
"""Largest p-value that is called a copy."""

MARGIN = 0.05
"""By how much the owner's model and the suspect may both be more accurate than every reference."""

_NOTHING = 1e-9
"""Variance that counts as none, as a share of an image."""


class Ownership(Record):
    """The comparison of a suspect with independent models.

    Attributes:
        agreement: ``agreement``: share of the images for which the suspect predicts what the owner's model predicts.
        shared: Partial correlation of the suspect's predictions with the owner's, in [-1, 1]; see
            `correlate_with_owner`.
        references: The same for each independent model, in the order given.
        p_value: Share of models, the suspect among the independent ones, with a correlation at least as high.
        comparable: Whether a reference is as accurate as the owner's model or the suspect, up to `MARGIN`. If none is,
            the two may share errors because only the hardest images are left to them.
        verdict: ``copy`` if the p-value is at most `ALPHA` and the references are comparable; ``undecided`` if they are
            not, or if no suspect could reach such a p-value with so few references; otherwise ``no sign``.
    """

    agreement: Measurement
    shared: float
    references: tuple[float, ...]
    p_value: float
    comparable: bool
    verdict: Verdict

    def describe(self) -> str:
        """The verdict in sentences, with what it does not show."""
        value, count = self.agreement.value, len(self.references)
        assert value is not None
        text = f"The suspect predicts what your model predicts for {value:.1%} of {self.agreement.n} images"
        if not count:
            return f"{text}. Without independent models to compare with, that says nothing: give some as references."
        text += (
            f". Beyond what the true classes and {count} independent models explain, its predictions correlate with "
            f"your model's by {self.shared:.2f}; those of the closest independent model by {max(self.references):.2f} "
            f"(p = {self.p_value:.3f})."
        )
        if self.verdict == "copy":
            return (
                f"{text} It is a copy of your model, or was trained on its outputs, unless it shares with your model "
                "what the independent models do not, such as the same initial weights."
            )
        if not self.comparable:
            return (
                f"{text} That is no verdict: your model and the suspect are both more accurate than every one of the "
                "independent models, and accurate models share the errors on the hardest images. Give references that "
                "are about as accurate."
            )
        if self.verdict == "undecided":
            needed = count_fewest_references()
            return f"{text} {count} references cannot resolve {ALPHA:.0%}: {needed} or more are needed for a verdict."
        return (
            f"{text} It is not shown to be a copy: an independent model is as close to your model. That does not clear "
            "it: a copy that was trained anew on its outputs and imitates it poorly can be as far away."
        )


def count_fewest_references(alpha: float = ALPHA) -> int:
    """Return how many independent models are needed for a p-value of ``alpha`` at all."""
    return round(1 / alpha) - 1


def correlate_with_owner(
    owner: NDArray[np.int64], others: NDArray[np.int64], truth: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Correlate each model's predictions with the owner's, given the true classes and all other models' predictions.

    Predictions stand for their indicator vectors, centred for each class, and the correlation is the partial one over
    all images and classes (Anderson, "An introduction to multivariate statistical analysis", 2003, section 2.5.3).
    Without the true classes, accurate models would be accused of copying accurate models. Inner products of indicator
    vectors are shares of equal predictions, so nothing of size images × classes is computed.

    Args:
        owner: Classes that the owner's model predicts, N.
        others: Classes that M other models predict, M×N. They are all treated alike.
        truth: True classes, N.

    Returns:
        One correlation for each of the M models, in [-1, 1]; 0 if the others explain all of its predictions, or all of
        the owner's.
    """
    products = _multiply(np.stack([truth, owner, *others]))
    scores = np.zeros(len(others))
    for number in range(len(others)):
        pair = [1, 2 + number]
        given = [0, *(2 + other for other in range(len(others)) if other != number)]
        explained = np.linalg.lstsq(products[np.ix_(given, given)], products[np.ix_(given, pair)], rcond=1e-9)[0]
        rest = products[np.ix_(pair, pair)] - products[np.ix_(pair, given)] @ explained
        if min(rest[0, 0], rest[1, 1]) > _NOTHING:
            scores[number] = np.clip(rest[0, 1] / np.sqrt(rest[0, 0] * rest[1, 1]), -1, 1)
    return scores


def _multiply(labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the inner products of centred indicator vectors, divided by the number of images, M×M for labels M×N."""
    shares = np.stack([np.bincount(row, minlength=int(labels.max()) + 1) for row in labels]) / labels.shape[1]
    equal = np.stack([(labels == row).mean(axis=1) for row in labels])
    return np.asarray(equal - shares @ shares.T, dtype=np.float64)


def judge_suspect(
    owner: NDArray[np.int64],
    suspect: NDArray[np.int64],
    references: Sequence[NDArray[np.int64]],
    truth: NDArray[np.int64],
    *,
    level: float = 0.95,
) -> Ownership:
    """Rank the suspect among independent models by `correlate_with_owner`.

    If the suspect is independent too and of their kind, it is exchangeable with them, so the p-value is at most α in at
    most a share α of the cases, whatever the distribution (conformal p-value; Vovk et al., "Algorithmic learning in a
    random world", 2005, section 2.2). Ties count against the accusation.

    Args:
        owner: Classes that the owner's model predicts, N, at least one.
        suspect: Classes that the suspect predicts, N.
        references: Classes that each independent model predicts, N each.
        truth: True classes, N.
        level: Confidence level of the interval of the agreement.
    """
    agreement = rates.rate(
        "agreement", int((suspect == owner).sum()), len(owner), direction=Direction.LOWER, level=level
    )
    own, *scores = correlate_with_owner(owner, np.stack([suspect, *references]), truth).tolist()
    # Rounding must not make an accusation of a tie.
    p_value = (1 + sum(score >= own - 1e-9 for score in scores)) / (len(scores) + 1)
    accuracy = [float((labels == truth).mean()) for labels in (owner, suspect, *references)]
    comparable = not references or min(accuracy[:2]) <= max(accuracy[2:]) + MARGIN
    verdict: Verdict = "no sign"
    if not comparable or len(scores) < count_fewest_references():
        verdict = "undecided"
    elif p_value <= ALPHA:
        verdict = "copy"
    return Ownership(
        agreement=agreement,
        shared=own,
        references=tuple(scores),
        p_value=p_value,
        comparable=comparable,
        verdict=verdict,
    )
