"""Attacks of the package torchattacks (Kim, 2020), applied to networks or to the oracle of a target.

They draw from torch's global random state; each call seeds it and restores it afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from securitynet.errors import MissingExtra
from securitynet.randomness import isolate_random_state

INSTALL_HINT = "Install it with: pip install --no-deps torchattacks (or pip install 'securitynet[evasion]')."


def import_torchattacks() -> Any:
    """Import the package and return it.

    Raises:
        MissingExtra: If it is not installed.
    """
    try:
        import torchattacks
    except ImportError as error:
        missing = MissingExtra("torchattacks", "evasion", "This attack")
        missing.hint = f"{INSTALL_HINT} It requires an old `requests`, which it never uses."
        raise missing from error
    return torchattacks


class CountedModel(nn.Module):
    """Wraps a function as a network for the package.

    Args:
        compute: Maps images to logits.
        device: Device of the images.
    """

    def __init__(self, compute: Callable[[torch.Tensor], torch.Tensor], device: torch.device) -> None:
        super().__init__()
        self._answer = compute
        # The package looks for a parameter to determine the device.
        self.place = nn.Parameter(torch.zeros((), device=device), requires_grad=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the logits of images, on the same device."""
        return self._answer(images).to(self.place.device)


@contextmanager
def use_seed(seed: int) -> Iterator[None]:
    """Run a block with the global random state derived from a seed, and with gradients enabled."""
    with isolate_random_state(), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(seed)
        yield
