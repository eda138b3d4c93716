"""What the last layer of a model emits: logits, log-probabilities, probabilities, or a sigmoid of each logit.

The kind is detected on a sample of raw outputs. All later steps use `to_logits` and `to_posteriors`, so a softmax is
neither forgotten nor applied twice (docs/architecture.md, "Traps").
"""

from __future__ import annotations

from typing import Literal

import torch

from securitynet.errors import AccessDenied, TargetError

Head = Literal["logits", "log-probabilities", "probabilities", "sigmoid", "answers", "labels"]
"""Kinds of outputs; ``sigmoid`` is the sigmoid of each class's logit. The last two are not emitted by models,
but by interfaces: posteriors with parts hidden, so that rows need not sum to 1; and predicted
classes, as rows with a single 1."""

HEADS: tuple[Head, ...] = ("logits", "log-probabilities", "probabilities", "sigmoid")
"""Kinds of outputs that models emit."""

_SMALLEST = torch.finfo(torch.float32).tiny
_TOLERANCE = 2e-2  # bfloat16 rounds a log-probability of -7 by 1.6%, the same way for all classes at worst
_MOST_ROUNDING = 0.1  # of the sum of a row of whole numbers
_LEAST_MOVE = 1e-4  # of the sum; outputs that vary less are alike for all images
# Variance of the sum, as a share of the sum of the variances: about 1 for logits that vary independently.
_MOST_SHARED = 0.01
_NEAR_END = 0.2  # a trained sigmoid is surer than this of some class and of the absence of another


def detect(outputs: torch.Tensor) -> Head:
    """Detect the kind of raw outputs from their values.

    Probabilities are non-negative and sum to 1 in each row, or to another number that is the same for all rows
    (`find_row_total`): percentages, votes of an ensemble, bytes of a quantised softmax. Log-probabilities are
    non-positive, and their exponentials sum to 1. The logits of a trained network satisfy neither over a whole sample.

    Args:
        outputs: N×K raw outputs, N at least 1. Rounding of half precision is tolerated: 2% of the sum.

    Raises:
        TargetError: If outputs are not finite (minus infinity is allowed: it is the logarithm of zero).
    """
    check_finite_outputs(outputs)
    values = outputs.double()
    sums = values.sum(dim=1)
    if values.min() >= -1e-6 and values.max() <= 1 + _TOLERANCE and (sums - 1).abs().max() <= _TOLERANCE:
        return "probabilities"
    sums = values.exp().sum(dim=1)
    if values.max() <= _TOLERANCE and (sums - 1).abs().max() <= _TOLERANCE:
        return "log-probabilities"
    return "logits" if find_row_total(outputs) is None else "probabilities"


def find_row_total(outputs: torch.Tensor) -> float | None:
    """Find the number to which all rows sum where outputs are probabilities times it, such as 100 for percentages.

    Logits that are never negative (of a last ReLU) vary in their sum about as much as they vary one by one; here the
    sum hardly varies, and the outputs do. Outputs that are alike for all images show nothing.

    Args:
        outputs: N×K finite raw outputs.

    Returns:
        The median sum, above 0; None if the rows do not share one. Whole numbers may each be rounded by 0.5.
    """
    values = outputs.double()
    sums = values.sum(dim=1)
    scale = float(sums.median())
    if len(values) < 2 or values.shape[1] < 2 or scale <= 0 or float(values.min()) < -1e-6 * scale:
        return None
    whole = bool((values == values.round()).all())
    rounding = min(0.5 * values.shape[1], _MOST_ROUNDING * scale) if whole else 0.0
    if float((sums - scale).abs().max()) > max(_TOLERANCE * scale, rounding):
        return None
    apart, together = float(values.var(dim=0).sum()), float(sums.var())
    moves = apart > (_LEAST_MOVE * scale) ** 2
    return scale if moves and together <= _MOST_SHARED * apart else None


def looks_like_sigmoid(outputs: torch.Tensor) -> bool:
    """Whether outputs that `detect` calls logits, N×K, are those of a trained network that ends in sigmoids.

    All of them lie in [0, 1] and come close to both ends. Small logits, such as those of a small untrained network, may
    also lie in [0, 1], but they do not fill it.
    """
    unit = bool(((outputs >= 0) & (outputs <= 1)).all())
    return unit and bool(outputs.min() < _NEAR_END) and bool(outputs.max() > 1 - _NEAR_END)


def check_finite_outputs(outputs: torch.Tensor) -> None:
    """Raise `TargetError` if any output is NaN or plus infinity, or a row holds no finite value."""
    bad = torch.isnan(outputs).any(dim=1) | (outputs == torch.inf).any(dim=1) | (outputs == -torch.inf).all(dim=1)
    count = int(bad.sum())
    if count:
        raise TargetError(
            f"The model's outputs are not finite for {count} of {len(outputs)} images (NaN or infinity).",
            hint="Check the weights, the preprocessing (--normalize) and the precision (--precision fp32).",
        )


def to_logits(outputs: torch.Tensor, head: Head) -> torch.Tensor:
    """Convert raw outputs, N×K, to logits up to a constant per row, float32: their softmax gives the posteriors.

    A probability of 0 becomes the logarithm of the smallest normal float32 (about -87), so that differences stay
    finite.

    Raises:
        AccessDenied: If the target reveals labels only.
    """
    outputs = outputs.float()
    if head == "labels":
        raise _labels_only("logits")
    if head in ("probabilities", "answers"):
        return outputs.clamp_min(_SMALLEST).log()
    if head == "sigmoid":
        # In double precision, because 1 - p cancels; where the sigmoid has rounded to 1, the logit was 17 or more.
        values = outputs.double().clamp(_SMALLEST, 1 - 2.0**-25)
        return (values.log() - (-values).log1p()).float()
    return outputs.clamp_min(torch.finfo(torch.float32).min / 4)


def to_posteriors(outputs: torch.Tensor, head: Head) -> torch.Tensor:
    """Convert raw outputs, N×K, to posteriors, float32; each row sums to 1, unless an interface has hidden part of it.

    Raises:
        TargetError: If a row of supposed probabilities has no positive value.
        AccessDenied: If the target reveals labels only.
    """
    if head == "labels":
        raise _labels_only("posteriors")
    if head == "answers":
        return outputs.float()
    if head == "probabilities":
        outputs = outputs.float().clamp_min(0)
        sums = outputs.sum(dim=1, keepdim=True)
        if (sums == 0).any():
            raise TargetError(
                "The model's outputs hold no positive value in a row: they are not probabilities.",
                hint="Say what the model emits with --head logits.",
            )
        return outputs / sums
    return (to_logits(outputs, head) if head == "sigmoid" else outputs.float()).softmax(dim=1)


def _labels_only(what: str) -> AccessDenied:
    return AccessDenied(
        f"This target reveals labels only; its {what} are hidden.",
        hint="Attacks that need labels only work: membership.label-only-boundary, membership.correctness, ...",
    )
