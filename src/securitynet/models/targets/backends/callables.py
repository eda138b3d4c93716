"""A callable as a backend: images in, class scores out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from typing_extensions import override

from securitynet.errors import SecurityNetError, TargetError
from securitynet.models.targets.backends.base import Backend
from securitynet.models.targets.outputs import flatten_scores, take_scores

_ROWS = "Return one row of scores for each image, with a column for each class."


class CallableBackend(Backend):
    """A callable that takes a batch of images and returns a row of class scores for each: black-box.

    Args:
        function: Takes float32 images, N×C×H×W on the CPU; returns N×K probabilities or logits as a tensor, an array or
            nested lists, or one of the forms of `securitynet.models.targets.outputs.take_scores`.
        reference: Name of the model in results.
        checksum: Identifies it; see `securitynet.models.loading.content_digest.digest_callable`.
        batch_size: Largest number of images in one call; 256 by default.
        charges: Whether queries may cost money.
    """

    within_process = True

    def __init__(
        self,
        function: Callable[[torch.Tensor], Any],
        *,
        reference: str,
        checksum: str,
        batch_size: int | None = None,
        charges: bool = False,
    ) -> None:
        self._function = function
        self.reference = reference
        self.checksum = checksum
        self.charges = charges
        self._batch_size = batch_size or 256

    @property
    @override
    def batch_size(self) -> int:
        return self._batch_size

    @override
    def outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        images = inputs.detach().cpu().clone()  # a copy, because a function may change its argument
        try:
            with torch.no_grad():
                result = self._function(images)
        except SecurityNetError:
            raise
        except Exception as error:  # the user's code may raise anything
            raise TargetError(
                f"{self.reference} fails on a batch of images, {'×'.join(map(str, images.shape))} float32: "
                f"{type(error).__name__}: {(str(error) or 'no message').splitlines()[0]}",
                hint="It is called with a torch tensor of images, N×C×H×W, as the dataset's transform makes them, or "
                "in [0, 1] where there is none.",
            ) from error
        scores = self._take(result, len(inputs))
        self.num_classes = scores.shape[1]
        return scores

    def _take(self, result: Any, count: int) -> torch.Tensor:
        if isinstance(result, np.ndarray | np.generic) or (
            isinstance(result, list) and result and not isinstance(result[0], torch.Tensor)
        ):
            try:
                result = torch.as_tensor(np.asarray(result))
            except (TypeError, ValueError) as error:
                raise TargetError(f"{self.reference} returns no numbers: {error}.", hint=_ROWS) from error
        scores = take_scores(result, self.reference).detach().cpu()
        if scores.ndim == 1 and count == 1 and len(scores) > 1:
            scores = scores.unsqueeze(0)
        rows = flatten_scores(scores)
        if not scores.is_floating_point() and rows.ndim == 2 and rows.shape[1] == 1:
            hint = f"{_ROWS} One that only names classes returns one-hot rows of floating-point numbers."
            raise TargetError(
                f"{self.reference} returns a whole number for each image ({scores.dtype}), not scores.", hint=hint
            )
        if rows.ndim == 2 and rows.shape[1] == 1:
            raise TargetError(
                f"{self.reference} returns one number for each image.",
                hint=f"{_ROWS} For the probability p of the second of two classes: torch.stack([1 - p, p], dim=1).",
            )
        if rows.ndim != 2 or len(rows) != count:
            shape = "×".join(map(str, scores.shape)) or "no dimensions"
            raise TargetError(f"{self.reference} returns an array of {shape} for {count} images.", hint=_ROWS)
        return rows.float().clone()
