"""Pictures of trials as rows of a tidy frame: triggers of Neural Cleanse, reconstructions of model inversion."""

from __future__ import annotations

import base64
import io
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from securitynet.errors import UnknownName
from securitynet.records import TrialResult
from securitynet.results.store import TrialStore

if TYPE_CHECKING:
    from securitynet.methods.output import Gallery

logger = logging.getLogger(__name__)

MEASURE = "picture"
"""Measure of the rows; ``at`` says which picture, and ``settings`` holds it."""

SHOWN = ("backdoor.neural-cleanse", "neural-cleanse", "inversion.fredrikson", "inversion.generative")
"""Methods whose pictures the papers show."""

MOST_ROWS = 2
"""Rows of pictures that are taken from a trial, as many as in the papers' figures."""


def list_pictures(result: TrialResult, store: TrialStore, row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Rows with the first pictures of a trial, as `load_galleries` returns them.

    Args:
        result: The trial.
        store: Where its arrays are.
        row: Of a tidy frame, for the trial's columns.
    """
    for gallery in load_galleries(result, store):
        for name, images in zip(gallery.rows[:MOST_ROWS], gallery.images[:MOST_ROWS], strict=True):
            for column, image in zip(gallery.columns, images, strict=True):
                settings = {"row": name, "column": column, "png": encode_png(image)}
                how = {"measure": MEASURE, "low": None, "high": None, "n": None}
                yield {**row, **how, "value": 0.0, "at": f"picture={name}/{column}", "settings": json.dumps(settings)}


def load_galleries(result: TrialResult, store: TrialStore) -> Sequence[Gallery]:
    """The galleries of a trial; none if it has none, or its method is not installed.

    Arrays from which its method cannot make them are left out, which is logged.

    Args:
        result: The trial.
        store: Where its arrays are.
    """
    from securitynet.assessments.method_settings import REGISTRIES

    try:
        output = REGISTRIES[result.spec.kind].get(result.spec.method).output
    except UnknownName:
        return ()
    arrays = store.load_arrays(result)
    if arrays is None:
        return ()
    try:
        galleries: Sequence[Gallery] = output.from_arrays(arrays).galleries()
    except Exception as error:  # anyone may have written the arrays, and what is made of them fails in any way
        logger.warning("The pictures of a trial of %s are left out: %s", result.spec.method, error)
        return ()
    return galleries


def encode_png(pixels: NDArray[np.uint8]) -> str:
    """A PNG as a data URI.

    Args:
        pixels: C×H×W with 1 or 3 channels, 0 to 255.
    """
    image = Image.fromarray(np.ascontiguousarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
