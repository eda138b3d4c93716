"""What is found out about images while they are decoded: whether they have colour, and which value is white.

It is kept in the cache, so that the next load need not decode everything to learn it again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from securitynet.datasets.base import Images
from securitynet.datasets.depth import choose_white, find_bits
from securitynet.datasets.lazy import workers
from securitynet.datasets.rendering import open_later
from securitynet.datasets.source import Pixels
from securitynet.datasets.store import unwritable_cache
from securitynet.files import write_json

DEPTH_SAMPLE = 20_000
"""Most images that are decoded to find out which value is white, evenly spread over the dataset."""

_DARK = 24
_DARK_SAMPLE = 128


class Findings:
    """What the cache knows about images of one content.

    Args:
        folder: Of cached datasets.
        content: Digest of the images before rendering.
    """

    def __init__(self, folder: Path, content: str) -> None:
        self.content = content
        self._folder = folder
        # In the folder of an earlier version, which kept there that a dataset which begins in grey has colour.
        self._path = folder / "colour" / f"{content[:32]}.json"
        self._values = self._read()

    @property
    def colour(self) -> bool:
        """Whether there is a colour image among images that began as grey."""
        return self._values.get("channels") == 3

    @property
    def white(self) -> int | None:
        """The value that is white in images of more than eight bits; None if that is not known."""
        value = self._values.get("white")
        return value if isinstance(value, int) and 255 <= value <= 65535 else None

    def remember(self, **values: int) -> None:
        """Keep further findings.

        Raises:
            DatasetError: If the cache cannot be written to.
        """
        self._values |= values
        try:
            write_json(self._path, self._values)
        except OSError as error:
            raise unwritable_cache(self._folder, error) from error

    def _read(self) -> dict[str, Any]:
        try:
            values = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        return values if isinstance(values, dict) else {}


def find_white_of(pixels: Pixels) -> int:
    """The value that is white among images of more than eight bits.

    All of a dataset is looked at, whatever part of it is loaded: the same image must not be brighter under a limit.

    Raises:
        DatasetError: If an image cannot be read.
    """
    count = len(pixels)
    sample = np.unique(np.linspace(0, count - 1, min(count, DEPTH_SAMPLE)).astype(np.int64))
    most = 0
    with workers() as pool:
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
    """A warning if all of some images are nearly black, as they are where a file's values do not reach its white."""
    count = images.shape[0]
    chosen = torch.from_numpy(np.unique(np.linspace(0, count - 1, min(count, _DARK_SAMPLE)).astype(np.int64)))
    brightest = int(images[chosen].max())
    if brightest >= _DARK or brightest == 0:
        return []
    return [
        f"WARNING: the images are nearly black: no pixel of {len(chosen)} of them is above {brightest} of 255. If "
        "their values mean something else than brightness, or fewer bits, convert them first."
    ]
