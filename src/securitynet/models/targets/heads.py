"""What a model's last layer emits: logits, log-probabilities, probabilities, or a sigmoid of each logit.

The kind is detected on a sample of raw outputs, and every later step goes through `to_logits` and `to_posteriors`, so
that a softmax is neither forgotten nor applied twice (docs/architecture.md, "Traps").
"""

from __future__ import annotations

from typing import Literal

import torch

from securitynet.errors import AccessDenied, TargetError

Head = Literal["logits", "log-probabilities", "probabilities", "sigmoid", "answers", "labels"]
"""What outputs are; ``sigmoid`` is the sigmoid of each class's logit by itself. The last two are not emitted by models,
but by interfaces before them: posteriors of which something is missing, so that rows need not sum to 1; and predicted
classes, as rows with a single 1."""

HEADS: tuple[Head, ...] = ("logits", "log-probabilities", "probabilities", "sigmoid")
"""What a model may emit."""

_SMALLEST = torch.finfo(torch.float32).tiny
_TOLERANCE = 2e-2  # bfloat16 rounds a log-probability of -7 by 1.6%, the same way for all classes at worst
_NEAR_END = 0.2  # a trained sigmoid is surer than this of some class and of the absence of another


def detect(outputs: torch.Tensor) -> Head:
    """Tell the kind of raw outputs by what they satisfy.

    Probabilities are non-negative and sum to 1 in each row; log-probabilities are non-positive and their exponentials
    sum to 1. Logits of a trained network satisfy neither on a whole sample.

    Args:
        outputs: N×K raw outputs, N at least 1. The rounding of half precision is tolerated: 2% in the sum.

    Raises:
        TargetError: If outputs are not finite (minus infinity is allowed: it is the logarithm of zero).
    """
    check_finite(outputs)
    values = outputs.double()
    sums = values.sum(dim=1)
    if values.min() >= -1e-6 and values.max() <= 1 + _TOLERANCE and (sums - 1).abs().max() <= _TOLERANCE:
        return "probabilities"
    sums = values.exp().sum(dim=1)
    if values.max() <= _TOLERANCE and (sums - 1).abs().max() <= _TOLERANCE:
        return "log-probabilities"
    return "logits"


def looks_like_sigmoid(outputs: torch.Tensor) -> bool:
    """Whether outputs that `detect` takes for logits, N×K, are those of a trained network that ends in sigmoids.

    All lie in [0, 1] and reach near both ends. Small logits can lie in [0, 1] by chance, as those of a small untrained
    network do, but they do not fill it.
    """
    unit = bool(((outputs >= 0) & (outputs <= 1)).all())
    return unit and bool(outputs.min() < _NEAR_END) and bool(outputs.max() > 1 - _NEAR_END)


def check_finite(outputs: torch.Tensor) -> None:
    """Raise `TargetError` if any output is NaN or plus infinity, or a row holds no finite value."""
    bad = torch.isnan(outputs).any(dim=1) | (outputs == torch.inf).any(dim=1) | (outputs == -torch.inf).all(dim=1)
    count = int(bad.sum())
    if count:
        raise TargetError(
            f"The model's outputs are not finite for {count} of {len(outputs)} images (NaN or infinity).",
            hint="Check the weights, the preprocessing (--normalize) and the precision (--precision fp32).",
        )


def to_logits(outputs: torch.Tensor, head: Head) -> torch.Tensor:
    """Logits up to a constant per row: what a softmax turns into the posteriors. float32, N×K.

    A probability of 0 becomes the logarithm of the smallest normal float32 (about -87), so that differences stay
    finite.

    Raises:
        AccessDenied: If only labels are answered.
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
    """Posteriors, float32, N×K, each row summing to 1; those of an interface are what it answers.

    Raises:
        TargetError: If what should be probabilities is zero for all classes.
        AccessDenied: If only labels are answered.
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
        f"This target answers with labels only; its {what} are hidden.",
        hint="Attacks that need labels only work: membership.label-only-boundary, membership.correctness, ...",
    )
