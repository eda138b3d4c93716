"""The base class of backdoor detectors."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from securitynet.errors import ConfigurationError
from securitynet.methods.base import Method
from securitynet.methods.data import TrialData


class Detector(Method):
    """A backdoor detector: it inspects a model or filters its inputs."""

    kind: ClassVar[Literal["attack", "detector"]] = "detector"


def list_clean_images(data: TrialData) -> NDArray[np.int64]:
    """List the known records that the model was not trained on, for searches that cannot do without.

    Args:
        data: Of the trial.

    Raises:
        ConfigurationError: If there are none, or the dataset has no images.
    """
    known = data.splits.known_non_members
    if not len(known) or data.dataset.images is None:
        raise ConfigurationError(
            "This search needs clean images that the model was not trained on; none are known.",
            hint="Use a split with known non-members (--known).",
        )
    return known
