"""Make a network fast for attacks: frozen weights, batch norms folded into convolutions, channels-last memory.

A fold is used only if a check on random inputs shows that it changes nothing but rounding.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import fx, nn
from torch.fx.experimental.optimization import fuse


def prepare(module: nn.Module, device: torch.device, example: torch.Tensor | None) -> nn.Module:
    """A frozen, folded, channels-last copy of ``module`` in evaluation mode on ``device``.

    Args:
        module: Any image classifier; left as it is.
        device: Where the copy shall run.
        example: A float batch 1×C×H×W of the input's shape, to check that folding keeps the outputs; None skips
            folding.
    """
    module = copy.deepcopy(module).eval().requires_grad_(False)
    folded = _fold(module, example) if example is not None else module
    placed = folded.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return cast(nn.Module, placed).requires_grad_(False).eval()


def _fold(module: nn.Module, example: torch.Tensor) -> nn.Module:
    if not any(isinstance(m, nn.BatchNorm2d) for m in module.modules()):
        return module
    try:
        folded = fuse(module)
    except Exception:  # torch.fx raises all sorts of errors on graphs it can't trace: those networks run unfolded
        return module
    if not isinstance(folded, fx.GraphModule):
        return module
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((4, *example.shape[1:]), generator=generator, dtype=example.dtype)
    try:
        with torch.inference_mode():
            expected, actual = module(images), folded(images)
    except RuntimeError:  # it does not take inputs of this shape, which the first real batch will report
        return module
    same = (
        isinstance(actual, torch.Tensor)
        and isinstance(expected, torch.Tensor)
        and bool(expected.isfinite().all())
        and torch.allclose(actual, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max().clamp_min(1e-6)))
    )
    return folded if same else module
