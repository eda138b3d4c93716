"""What a target's outputs are, as far as a sample of them shows, and what is said of it."""

from __future__ import annotations

import torch

from securitynet.models.targets import heads
from securitynet.models.targets.heads import Head


def doubt_head(stated: Head, outputs: torch.Tensor, notes: list[str]) -> None:
    """Warn if the outputs contradict the head that the user states: scores would be wrong without any sign of it.

    Logits and log-probabilities are treated alike: only confusing either with probabilities matters.
    """
    looks = heads.detect(outputs)
    if (looks == "probabilities") != (stated == "probabilities"):
        notes.append(f"WARNING: --head says {stated}; on {len(outputs)} images the outputs look like {looks}.")


def detect_head(outputs: torch.Tensor, notes: list[str]) -> Head:
    """Detect what a target's outputs are, N×K, and note it where they are not logits."""
    head = heads.detect(outputs)
    if head != "logits":
        notes.append(f"the model emits {head}, not logits (detected on {len(outputs)} images; --head overrides).")
    elif heads.looks_like_sigmoid(outputs):
        head = "sigmoid"
        notes.append(
            f"the outputs on {len(outputs)} images lie in [0, 1] without summing to 1: they are taken as sigmoids, and "
            "logits are recovered from them (--head logits if they are logits)."
        )
    return head


def note_scale(head: Head, outputs: torch.Tensor, notes: list[str]) -> None:
    """Say that probabilities are divided by the sum of their row where that is not 1."""
    scale = heads.find_row_total(outputs) if head == "probabilities" else None
    if scale is not None and not 0.98 <= scale <= 1.02:
        notes.append(
            f"the rows of probabilities sum to {scale:.4g} (on {len(outputs)} images), not to 1: each is divided by "
            "its sum (--head logits if they are logits)."
        )
