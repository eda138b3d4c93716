"""Sample grids as PNG files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from securitynet.files import write_atomically

_GAP = 1


def write_grid(path: Path, images: torch.Tensor, columns: int) -> None:
    """Write images as one PNG, row by row with a gap of one pixel; the file is written completely or not at all.

    Args:
        path: The file to write.
        images: N×C×H×W in [0, 1]; C is 1 or 3.
        columns: Number of images in a row.
    """
    pixels = (images.detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    count, channels, height, width = pixels.shape
    rows = -(-count // columns)
    grid = np.zeros((rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, channels), dtype=np.uint8)
    for number, image in enumerate(pixels):
        top, left = (number // columns) * (height + _GAP), (number % columns) * (width + _GAP)
        grid[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    with write_atomically(path) as stream:
        Image.fromarray(grid[..., 0] if channels == 1 else grid).save(stream, format="PNG")
