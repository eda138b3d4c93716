"""Per-sample gradients of the last layer, in closed form: one forward pass and no backward pass.

Where the last layer is linear and the loss is the cross-entropy of its softmax, the gradient of a sample's loss with
respect to the layer's weights is the outer product of ``posterior - one-hot label`` (K) and the layer's input (D). The
gradient with respect to the bias is the first factor. Only these two small factors are stored. Their product has K·D
entries per sample (2 million for 1,000 classes and 2,048 features), so it is computed for a few samples at a time, or
not at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from securitynet.datasets.base import ImageDataset
from securitynet.errors import ModelError
from securitynet.models.targets.signals import Progress
from securitynet.models.targets.target import Target
from securitynet.records import Access


@dataclass(frozen=True, eq=False)
class LastLayerGradients:
    """Inputs and residuals of the last linear layer of a target, for some records.

    Attributes:
        indices: Records, N int64.
        embeddings: Inputs of the layer, N×D float32.
        residuals: Posterior minus one-hot label, N×K float32; each row sums to 0.
        bias: Whether the layer has a bias.
    """

    indices: NDArray[np.int64]
    embeddings: torch.Tensor
    residuals: torch.Tensor
    bias: bool

    @property
    def length(self) -> int:
        """Number of entries of one gradient."""
        return self.residuals.shape[1] * (self.embeddings.shape[1] + int(self.bias))

    def norms(self) -> torch.Tensor:
        """Euclidean norms of the gradients, N float32, computed without building the gradients."""
        squares = self.embeddings.square().sum(dim=1) + float(self.bias)
        return (self.residuals.square().sum(dim=1) * squares).sqrt()

    def chunks(self, size: int) -> Iterator[torch.Tensor]:
        """Yield the gradients of at most ``size`` samples at a time; see `compute_last_layer_gradients`."""
        for start in range(0, len(self.indices), size):
            part = slice(start, start + size)
            yield compute_last_layer_gradients(self.residuals[part], self.embeddings[part], bias=self.bias)


def compute_last_layer_gradients(
    residuals: torch.Tensor, embeddings: torch.Tensor, *, bias: bool = True
) -> torch.Tensor:
    """Gradients of each sample's cross-entropy with respect to a last linear layer.

    Args:
        residuals: Posterior minus one-hot label, N×K.
        embeddings: Inputs of the layer, N×D.
        bias: Whether to append the gradient of the bias.

    Returns:
        N×(K·D), the K×D gradient of the weights in rows; N×(K·D + K) with that of the bias.
    """
    weights = torch.einsum("nk,nd->nkd", residuals, embeddings).flatten(1)
    return torch.cat([weights, residuals], dim=1) if bias else weights


def compute_residuals(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Posterior minus one-hot label, N×K float32, exact where the posterior of the label is close to 1.

    Args:
        logits: N×K, up to a constant per row.
        labels: N int64.
    """
    log_p = logits.double().log_softmax(dim=1)
    residuals = log_p.exp()
    rows = torch.arange(len(labels))
    # 1 - p of the label as the sum of the others: subtraction would lose the digits that separate members from others.
    residuals[rows, labels] = 0
    residuals[rows, labels] = -residuals.sum(dim=1)
    return residuals.float()


def capture_last_layer(
    target: Target,
    dataset: ImageDataset,
    indices: NDArray[np.int64],
    *,
    progress: Progress | None = None,
) -> LastLayerGradients:
    """Run the network once over records and capture the inputs of its last linear layer.

    Args:
        target: A target under white-box access.
        dataset: The dataset that holds the images.
        indices: Records, N int64.
        progress: Called with (records done, total records).

    Raises:
        AccessDenied: Under black-box access.
        ModelError: If the network does not end in a linear layer followed by a softmax: its gradients would differ from
            those computed here.
    """
    target.require(Access.WHITE_BOX, "gradients")
    network = target.module
    seen: list[tuple[nn.Linear, torch.Tensor, torch.Tensor]] = []

    def watch(layer: nn.Module, arguments: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        assert isinstance(layer, nn.Linear)
        seen.append((layer, arguments[0], output))

    linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    hooks = [layer.register_forward_hook(watch) for layer in linear]
    embeddings, residuals, bias, done = [], [], False, 0
    try:
        for chosen, images in dataset.batches(indices, target.batch_size):
            seen.clear()
            with torch.inference_mode():
                logits = network(images.to(target.backend.device)).float().cpu()
            if not seen:
                raise ModelError(f"{target.reference} has no linear layer whose gradients could be taken.")
            layer, received, emitted = seen[-1]
            _check_last(target, logits, emitted.float().cpu())
            bias = layer.bias is not None
            embeddings.append(received.float().cpu().clone())
            residuals.append(compute_residuals(logits, torch.from_numpy(dataset.labels[chosen])))
            done += len(chosen)
            if progress:
                progress(done, len(indices))
    finally:
        for hook in hooks:
            hook.remove()
    return LastLayerGradients(indices, torch.cat(embeddings), torch.cat(residuals).clone(), bias)


def _check_last(target: Target, logits: torch.Tensor, emitted: torch.Tensor) -> None:
    """Raise `ModelError` unless the softmax of the layer's output equals the posteriors of the network."""
    same = emitted.shape == logits.shape and torch.allclose(
        emitted.softmax(dim=1), logits.softmax(dim=1), rtol=1e-2, atol=1e-3
    )
    if not same:
        raise ModelError(
            f"{target.reference} does not end in a linear layer followed by a softmax, so the gradients of its last "
            "layer are not those of the closed form.",
            hint="Use attacks that need posteriors only.",
        )
