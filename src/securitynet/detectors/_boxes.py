"""Squares at evenly spaced places of an image, and the patches in them; shared by scans that try patches by place."""

from __future__ import annotations

from collections.abc import Sequence

import torch

Box = tuple[int, int, int]
"""Top, left and side of a square, in pixels."""


def list_boxes(shape: tuple[int, ...], share: float, positions: int) -> list[Box]:
    """Squares that are evenly spaced over an image, from edge to edge.

    Args:
        shape: Height and width of the image.
        share: Side of the squares, as a share of the shorter side.
        positions: Most squares along each side; fewer where fewer differ.
    """
    side = max(1, min(round(share * min(shape)), min(shape) - 1))
    tops, lefts = (
        sorted({round(number * (length - side) / (positions - 1)) for number in range(positions)}) for length in shape
    )
    return [(top, left, side) for top in tops for left in lefts]


def put_patches(carriers: torch.Tensor, patches: torch.Tensor, boxes: Sequence[Box]) -> None:
    """Put the patch of each of B places into its N images, in place.

    Args:
        carriers: B×N×C×H×W.
        patches: B×C×s×s.
        boxes: The B places, all of side s.
    """
    for carrier, patch, (top, left, side) in zip(carriers, patches, boxes, strict=True):
        carrier[..., top : top + side, left : left + side] = patch


def take_patches(images: torch.Tensor, boxes: Sequence[Box]) -> torch.Tensor:
    """Cut the square of each of B places out of its image, B×C×s×s.

    Args:
        images: B×C×H×W.
        boxes: The B places, all of side s.
    """
    return torch.stack(
        [image[:, top : top + side, left : left + side] for image, (top, left, side) in zip(images, boxes, strict=True)]
    )
