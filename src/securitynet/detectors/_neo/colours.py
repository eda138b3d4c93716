"""The dominant colours of images, by k-means on the pixels of many images at once."""

from __future__ import annotations

import torch

MOST_PIXELS = 4096
"""Largest number of pixels of an image to cluster; larger images are sampled evenly."""

MOST_ROUNDS = 50
"""Largest number of iterations of Lloyd's algorithm, which ends once no pixel changes its cluster."""

RESTARTS = 3
"""Number of random starts, of which the tightest clustering is used."""


def find_dominant_colours(images: torch.Tensor, clusters: int, streams: list[torch.Generator]) -> torch.Tensor:
    """Return the rounded centre of the largest cluster of each image's pixels, N×C uint8.

    Args:
        images: Images, N×C×H×W uint8.
        clusters: Number of clusters (Udeshi et al. 2019: 3).
        streams: Random numbers, one generator per image, N, so that a colour does not depend on the batch.
    """
    pixels = images.flatten(2).transpose(1, 2).float()
    if pixels.shape[1] > MOST_PIXELS:
        at = torch.linspace(0, pixels.shape[1] - 1, MOST_PIXELS, dtype=torch.float64).round().long()
        pixels = pixels[:, at]
    draws = torch.stack([torch.rand(RESTARTS, clusters, generator=stream, dtype=torch.float64) for stream in streams])
    clusterings = [_cluster(pixels, draws[:, restart]) for restart in range(RESTARTS)]
    centres, shares, spread = (torch.stack(values) for values in zip(*clusterings, strict=True))
    rows = torch.arange(len(images))
    best = spread.argmin(dim=0)
    largest = shares[best, rows].argmax(dim=1)
    return centres[best, rows, largest].round().clamp(0, 255).to(torch.uint8)


def _cluster(pixels: torch.Tensor, draws: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Run Lloyd's algorithm from k-means++ centres.

    Args:
        pixels: Pixels, N×P×C float32.
        draws: Random numbers in [0, 1), one per centre, N×K.

    Returns:
        Centres, N×K×C; their shares of the pixels, N×K; and the sums of squared distances, N.
    """
    clusters = draws.shape[1]
    centres = _starts(pixels, draws)
    before = None
    for _ in range(MOST_ROUNDS):
        squares = _squares(pixels, centres)
        owner = squares.argmin(dim=2)
        if before is not None and torch.equal(owner, before):
            break
        belongs = torch.nn.functional.one_hot(owner, clusters).to(pixels.dtype)
        counts = belongs.sum(dim=1)
        means = belongs.transpose(1, 2) @ pixels / counts.clamp_min(1)[..., None]
        centres = torch.where(counts[..., None] > 0, means, centres)  # an empty cluster stays where it was
        before = owner
    squares = _squares(pixels, centres)
    nearest = squares.min(dim=2)
    shares = torch.nn.functional.one_hot(nearest.indices, clusters).double().mean(dim=1)
    return centres, shares, nearest.values.double().sum(dim=1)


def _starts(pixels: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Choose starts by k-means++ (Arthur and Vassilvitskii, 2007): pixels drawn by squared distance to earlier ones."""
    rows = torch.arange(len(pixels))
    weights = torch.ones(pixels.shape[:2], dtype=torch.float64)
    chosen: list[torch.Tensor] = []
    for number in range(draws.shape[1]):
        steps = weights.cumsum(dim=1)
        wanted = draws[:, number : number + 1] * steps[:, -1:]
        at = torch.searchsorted(steps, wanted, right=True)[:, 0].clamp(max=pixels.shape[1] - 1)
        chosen.append(pixels[rows, at])
        nearest = _squares(pixels, torch.stack(chosen, dim=1)).min(dim=2).values
        weights = nearest.double()  # all 0 if there are fewer colours than clusters; then any pixel will do
    return torch.stack(chosen, dim=1)


def _squares(pixels: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Return squared distances, N×P×K, computed from differences, because products would lose precision."""
    return torch.stack([(pixels - centre[:, None]).square().sum(dim=2) for centre in centres.unbind(dim=1)], dim=2)
