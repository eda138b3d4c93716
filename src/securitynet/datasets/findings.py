"""Properties of images that show only when they are decoded: whether they have colour, and which value is white.

They are cached, so that the next load need not decode everything to determine them again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from securitynet.datasets.base import Images
from securitynet.datasets.depth import choose_white, find_bits
from securitynet.datasets.lazy import start_workers
from securitynet.datasets.rendering import open_later
from securitynet.datasets.source import Pixels
from securitynet.datasets.store import explain_unwritable_cache
from securitynet.files import write_json
from securitynet.untrusted import read_stored

DEPTH_SAMPLE = 20_000
"""Most images that are decoded to find out which value is white, evenly spread over the dataset."""

_DARK = 24
_DARK_SAMPLE = 128


class ImageProperties:
    """Cached properties of the images of one content.

    Args:
        folder: Folder of cached datasets.
        content: Digest of the images before rendering.
    """

    def __init__(self, folder: Path, content: str) -> None:
        self.content = content
        self._folder = folder
        # Earlier versions stored in this folder that a dataset whose first images are grey has colour.
        self._path = folder / "colour" / f"{content[:32]}.json"
        self._values = self._read()

    @property
    def colour(self) -> bool:
        """Whether there is a colour image among images that start with a grey one."""
        return self._values.get("channels") == 3

    @property
    def white(self) -> int | None:
        """The value of white in images with more than eight bits; None if unknown."""
        value = self._values.get("white")
        return value if isinstance(value, int) and 255 <= value <= 65535 else None

    def remember(self, **values: int) -> None:
        """Store further properties.

        Raises:
            DatasetError: If the cache cannot be written to.
        """
        self._values |= values
        try:
            write_json(self._path, self._values)
        except OSError as error:
            raise explain_unwritable_cache(self._folder, error) from error

    def _read(self) -> dict[str, Any]:
        try:
            values = json.loads(read_stored(self._path))
        except (OSError, ValueError):
            return {}
        return values if isinstance(values, dict) else {}


def find_white_of(pixels: Pixels) -> int:
    """Determine the value of white in images with more than eight bits.

    The whole dataset is examined, whichever part of it is loaded: an image must not be brighter under a limit.

    Raises:
        DatasetError: If an image cannot be read.
    """
    count = len(pixels)
    sample = np.unique(np.linspace(0, count - 1, min(count, DEPTH_SAMPLE)).astype(np.int64))
    most = 0
    with start_workers() as pool:
        for start in range(0, len(sample), 1024):
            indices = sample[start : start + 1024]
            items = pixels.fetch(indices)
            openers = [
                open_later(item, pixels.name(int(index)))
                for index, item in zip(indices, items, strict=True)
                if not isinstance(item, np.ndarray)
            ]
            most = max(most, find_bits(openers, pool))
    return choose_white(most)


def note_dark(images: Images) -> list[str]:
    """A warning if all of some images are nearly black, as they are if a file's values do not reach its white."""
    count = images.shape[0]
    chosen = torch.from_numpy(np.unique(np.linspace(0, count - 1, min(count, _DARK_SAMPLE)).astype(np.int64)))
    brightest = int(images[chosen].max())
    if brightest >= _DARK or brightest == 0:
        return []
    return [
        f"WARNING: the images are nearly black: no pixel of {len(chosen)} of them is above {brightest} of 255. If "
        "their values mean something else than brightness, or fewer bits, convert them first."
    ]
