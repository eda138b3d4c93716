"""How much memory a search takes, known before it starts."""

from __future__ import annotations

from collections.abc import Sequence

from securitynet.detectors._neural_cleanse.blocks import choose_block_length, label_bytes
from securitynet.detectors._neural_cleanse.trigger_search import GROUP_NUMBERS
from securitynet.errors import ConfigurationError

STEP_COPIES = 4
"""Tensors as large as the triggered images of one step: these, their gradients, and temporary ones of both."""


def estimate_memory(shape: Sequence[int], images: int, labels: int, continued: int, *, screened: bool) -> int:
    """Estimate the largest number of bytes that a search holds at once, besides the network and its activations.

    Args:
        shape: Of an image, (C, H, W).
        images: Number of images.
        labels: Labels that are searched at all.
        continued: Labels that are searched in full.
        screened: Whether a short search of all labels comes first. The states of the labels that continue are kept.
    """
    channels, height, width = shape
    state = label_bytes(shape)
    block = min(choose_block_length(shape), labels)
    held = continued if screened else 0
    # A state is copied when it is stored, and the masks and patterns of the blocks (8 bits) when they are joined.
    results = 2 * continued * (channels + 1) * height * width
    pixels = images * channels * height * width
    return 2 * (block + held) * state + results + pixels + STEP_COPIES * 4 * GROUP_NUMBERS


def check_search_memory(needed: int, labels: int, continued: int, *, available: int | None) -> None:
    """Refuse a search that does not fit into the memory.

    Args:
        needed: What `estimate_memory` returned.
        labels: Labels that are searched at all.
        continued: Labels that are searched in full.
        available: What `securitynet.memory.read_available_memory` returned; None checks nothing.

    Raises:
        ConfigurationError: If more is needed than available.
    """
    if available is None or needed <= available:
        return
    raise ConfigurationError(
        f"A search of {labels:,} labels, {continued:,} of them in full, takes about {needed / 1e9:.1f} GB of memory "
        f"besides the network's; {available / 1e9:.1f} GB are free.",
        hint="Search fewer labels in full (screen_above, screen_lowest, screen_sample), give fewer images (images), "
        "or smaller ones (--image-size).",
    )
