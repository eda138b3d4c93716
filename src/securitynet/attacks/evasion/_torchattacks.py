"""Attacks of the package torchattacks (Kim, 2020) on our targets: a network or an oracle in, examples out.

They draw from torch's global random state; each call seeds it and gives it back as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from securitynet.errors import MissingExtra
from securitynet.randomness import isolated

INSTALL_HINT = "Install it with: pip install --no-deps torchattacks (or pip install 'securitynet[evasion]')."


def package() -> Any:
    """The package, imported.

    Raises:
        MissingExtra: If it is not installed.
    """
    try:
        import torchattacks
    except ImportError as error:
        missing = MissingExtra("torchattacks", "evasion", "This attack")
        missing.hint = f"{INSTALL_HINT} It asks for an old `requests`, which it never uses."
        raise missing from error
    return torchattacks


class CountedModel(nn.Module):
    """A function as a network: what the package calls.

    Args:
        answer: Images in, logits out.
        device: Where it expects its images.
    """

    def __init__(self, answer: Callable[[torch.Tensor], torch.Tensor], device: torch.device) -> None:
        super().__init__()
        self._answer = answer
        # The package looks at a parameter to learn the device.
        self.place = nn.Parameter(torch.zeros((), device=device), requires_grad=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of images, on the same device."""
        return self._answer(images).to(self.place.device)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """A block in which the global random state follows from a seed; gradients are on."""
    with isolated(), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(seed)
        yield
