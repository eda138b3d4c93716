"""Pictures of trials as rows of a tidy frame: triggers of Neural Cleanse, reconstructions of model inversion."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from securitynet.records import TrialResult
from securitynet.results.store import TrialStore

MEASURE = "picture"
"""Measure of the rows; ``at`` says which picture, and ``settings`` holds it."""

SHOWN = ("backdoor.neural-cleanse", "neural-cleanse", "inversion.fredrikson", "inversion.generative")
"""Methods whose pictures the papers show."""

MOST_ROWS = 2
"""Rows of pictures that are taken from a trial, as many as in the papers' figures."""


def list_pictures(result: TrialResult, store: TrialStore, row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Rows with the first pictures of a trial; none if it has none, or its method is not installed.

    Args:
        result: The trial.
        store: Where its arrays are.
        row: Of a tidy frame, for the trial's columns.
    """
    from securitynet.assessments.method_settings import REGISTRIES
    from securitynet.errors import SecurityNetError

    try:
        output = REGISTRIES[result.spec.kind].get(result.spec.method).output
    except SecurityNetError:
        return
    arrays = store.load_arrays(result)
    if arrays is None:
        return
    try:
        galleries = output.from_arrays(arrays).galleries()
    except (LookupError, ValueError, TypeError):  # another version's, or no pictures at all
        return
    for gallery in galleries:
        for name, images in zip(gallery.rows[:MOST_ROWS], gallery.images[:MOST_ROWS], strict=True):
            for column, image in zip(gallery.columns, images, strict=True):
                settings = {"row": name, "column": column, "png": encode_png(image)}
                how = {"measure": MEASURE, "low": None, "high": None, "n": None}
                yield {**row, **how, "value": 0.0, "at": f"picture={name}/{column}", "settings": json.dumps(settings)}


def encode_png(pixels: NDArray[np.uint8]) -> str:
    """A PNG as a data URI.

    Args:
        pixels: C×H×W with 1 or 3 channels, 0 to 255.
    """
    image = Image.fromarray(np.ascontiguousarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
