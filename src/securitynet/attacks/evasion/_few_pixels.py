"""What the attacks on few pixels share: how many pixels a budget allows, and the note where it allows none."""

from __future__ import annotations

import math
from collections.abc import Sequence


def count_pixels(share: float, height: int, width: int) -> int:
    """Return the number of pixels that a share of an image allows.

    Args:
        share: Largest share of the pixels, positive.
        height: Of the image.
        width: Of the image.
    """
    return min(math.floor(share * height * width * (1 + 1e-9)), height * width)


def describe_empty(epsilons: Sequence[float], height: int, width: int) -> tuple[str, ...]:
    """Return the note on budgets that allow no pixel; nothing if there are none.

    Args:
        epsilons: Budgets, each a share of the pixels in [0, 1].
        height: Of the images, in pixels.
        width: Of the images, in pixels.
    """
    empty = [f"{epsilon:g}" for epsilon in epsilons if not count_pixels(epsilon, height, width)]
    if not empty:
        return ()
    return (f"ε = {', '.join(empty)} allows less than one pixel of {height}×{width}; images were left as they are.",)
