"""Gradients of a loss with respect to the images given to a frozen network: the basis of evasion and transfer attacks.

The weights are frozen, so a backward pass computes only the gradients of activations. On a CPU, whole batches run in
parallel, each forward and backward pass on one thread (`securitynet.models.targets.threads`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from securitynet.errors import NO_GRADIENTS, TargetError
from securitynet.models.targets.backends.module import choose_batch
from securitynet.models.targets.target import Target
from securitynet.models.targets.threads import compute_equal_size, make_network_threads
from securitynet.records import Access

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Logits N×K and labels N in; one loss per image out, N."""


def compute_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each image, N, as it is usually computed.

    Its gradient loses precision where the posterior of the label is close to 1, and is 0 where single precision cannot
    distinguish it from 1. `log_odds` has a gradient in the same direction without this problem.
    """
    return functional.cross_entropy(logits, labels, reduction="none")


def log_odds(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Log-odds against the label, ``log(1 - p) - log(p)`` for the posterior p of the label, N.

    The cross-entropy is ``log(1 + exp(log_odds))``, so both gradients have the same direction. This one does not vanish
    for a confident model, because nothing is subtracted from 1.
    """
    of_label = functional.one_hot(labels, logits.shape[1]).bool()
    others = logits.masked_fill(of_label, -torch.inf).logsumexp(dim=1)
    return others - logits.gather(1, labels[:, None])[:, 0]


CONFIDENT = 1e-4
"""Where 1 - p is smaller than this, the gradient of the cross-entropy has lost digits in single precision."""


def compute_stable_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The cross-entropy, replaced by the log-odds where 1 - p is below `CONFIDENT`, N.

    The gradient has the direction of the cross-entropy's for every image, but only for images with a larger 1 - p also
    its length. Use it where only the direction matters.
    """
    odds = log_odds(logits, labels)
    confident = odds.detach() < math.log(CONFIDENT / (1 - CONFIDENT))
    return torch.where(confident, odds, compute_cross_entropy(logits, labels))


def compute_margin_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The largest logit of another class minus that of the label, N: positive where the image is misclassified.

    Carlini and Wagner, "Towards evaluating the robustness of neural networks" (2017), their f6.
    """
    of_label = functional.one_hot(labels, logits.shape[1]).bool()
    return logits.masked_fill(of_label, -torch.inf).amax(dim=1) - logits.gather(1, labels[:, None])[:, 0]


@dataclass(frozen=True, eq=False)
class Pass:
    """One forward and backward pass.

    Attributes:
        gradients: Of each image's own loss with respect to its pixels, N×C×H×W float32.
        logits: N×K float32.
    """

    gradients: torch.Tensor
    logits: torch.Tensor


class InputGradients:
    """Computes gradients with respect to images; one object serves all passes over one target.

    Args:
        target: A target under white-box access. Its precision is used for the passes.
        loss: Function of logits (N×K) and labels (N) that returns N losses; each may depend on its own row only.
        part: Images per batch; chosen by image size if None. It changes results by rounding only.

    Raises:
        AccessDenied: Under black-box access.
    """

    def __init__(self, target: Target, *, loss: Loss = compute_cross_entropy, part: int | None = None) -> None:
        target.require(Access.WHITE_BOX, "gradients")
        self.loss = loss
        self._reference = target.reference
        self._module = target.module
        self._device = target.backend.device
        self._sides = target.preprocessing.input_size
        self._part = part
        self._half = target.precision == "bf16"
        # One batch after another occupies a GPU; a CPU needs one batch per core.
        self._threads = make_network_threads(self._module, self._device)

    def __call__(self, images: torch.Tensor, labels: torch.Tensor) -> Pass:
        """Compute gradients and logits for images.

        Args:
            images: N×C×H×W, floating point in [0, 1], or uint8.
            labels: N int64, in [0, K): the class for which the loss is computed.

        Returns:
            Gradients and logits, on the device of ``images``.

        Raises:
            TargetError: If the network rejects the images, a label is out of range, an output is not finite, or no
                gradient reaches the images.
        """
        images = images.detach()
        images = images.float() / 255 if images.dtype == torch.uint8 else images.float()
        size = self._size(images)
        gradients = torch.empty(images.shape, device=images.device)
        rows: list[torch.Tensor] = [torch.empty(0)] * -(-len(images) // size)

        def work(module: torch.nn.Module, places: torch.Tensor) -> torch.Tensor:
            first, last = int(places[0]), int(places[-1]) + 1
            computed, rows[first // size] = self._pass(module, images[first:last], labels[first:last])
            gradients[first:last] = computed.to(images.device)
            return places

        places = torch.arange(len(images))
        if self._threads is not None:
            self._threads.map(work, places, size)
        else:
            for part in torch.split(places, size):
                work(self._module, part)
        return Pass(gradients, torch.cat(rows).to(images.device))

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Run a forward pass only: logits of float images in [0, 1], N×K on their device; it counts no query."""
        size = self._size(images)

        def work(module: torch.nn.Module, part: torch.Tensor) -> torch.Tensor:
            with torch.no_grad(), torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._half):
                result: torch.Tensor = module(part.to(self._device)).float()
            return result

        try:
            if self._threads is not None:
                return self._threads.map(work, images.detach(), size).to(images.device)
            return torch.cat([work(self._module, part) for part in torch.split(images, size)]).to(images.device)
        except RuntimeError as error:
            raise self._explained(error) from error

    def _size(self, images: torch.Tensor) -> int:
        if self._part:
            return self._part
        most = choose_batch((images.shape[1], *(self._sides or images.shape[2:])), self._device)
        if self._half:
            most *= 2  # as many bytes
        if self._threads is None:
            return most
        return compute_equal_size(len(images), most)

    def _pass(
        self, module: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        leaf = images.to(self._device).clone().requires_grad_()
        labels = labels.to(self._device)
        try:
            with torch.inference_mode(False), torch.enable_grad():
                with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._half):
                    logits = module(leaf).float()
                self._check(logits, labels)
                (gradient,) = torch.autograd.grad(self.loss(logits, labels).sum(), leaf)
        except RuntimeError as error:
            raise self._explained(error) from error
        # NaN (infinity times zero) has no direction, so it is treated as no gradient. Not in place: the gradient of a
        # sum over pixels is one number in memory.
        return gradient.nan_to_num(0.0), logits.detach()

    def _check(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        if not logits.requires_grad:
            raise TargetError(f"{self._reference} {NO_GRADIENTS}.", hint="Run black-box attacks on it.")
        if int(labels.max()) >= logits.shape[1]:
            raise TargetError(
                f"{self._reference} has {logits.shape[1]} classes; a label is {int(labels.max())}.",
                hint="Choose the dataset that the model was trained on.",
            )
        if not bool(logits.isfinite().all()):
            raise TargetError(
                f"{self._reference} returns values that are not finite (NaN or infinity).",
                hint="Check the weights, the preprocessing (--normalize) and the precision (--precision fp32).",
            )

    def _explained(self, error: RuntimeError) -> TargetError:
        words = str(error).splitlines()[0]
        if "out of memory" in words.lower():
            return TargetError(
                f"{self._reference} ran out of memory while gradients were taken.", hint="Use a smaller --batch-size."
            )
        return TargetError(f"{self._reference} gives no gradients for such images: {words}")
