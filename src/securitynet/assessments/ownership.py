"""Is that model a copy of mine? Models are asked for labels only, on images that trained none of them.

Copies share the owner's errors beyond what independent models of the task share; how much those share is measured.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from securitynet.datasets.base import ImageDataset
from securitynet.datasets.ordering import shuffle
from securitynet.errors import ConfigurationError
from securitynet.metrics.ownership import Ownership, judge_suspect
from securitynet.models.targets.target import Target

FEWEST_IMAGES = 100
"""Fewer images show a copy only if it has the owner's weights."""

FEWEST_ERRORS = 10
"""Fewer errors of the owner's model say nothing about who shares them."""


def choose_images(records: NDArray[np.int64], count: int, seed: int = 0) -> NDArray[np.int64]:
    """Choose the images that all models are asked about, sorted.

    Args:
        records: Records that trained none of the models, if possible.
        count: Largest number of images.
        seed: Seed of the choice.

    Raises:
        ConfigurationError: If there are fewer than `FEWEST_IMAGES`.
    """
    if len(records) < FEWEST_IMAGES:
        raise ConfigurationError(
            f"Models are compared on images outside the training data; there are {len(records)}, and "
            f"{FEWEST_IMAGES} are needed.",
            hint="Use a dataset with more test records.",
        )
    return np.sort(records[shuffle(len(records), "ownership", seed)[:count]])


def predict_labels(model: Target, dataset: ImageDataset, records: NDArray[np.int64]) -> NDArray[np.int64]:
    """Query a model for the labels of records, N."""
    parts = [model.labels(images).numpy() for _, images in dataset.batches(records, model.batch_size)]
    return np.concatenate(parts).astype(np.int64)


def compare_with_suspect(
    owned: Target, suspect: Target, references: Sequence[Target], dataset: ImageDataset, records: NDArray[np.int64]
) -> Ownership:
    """Compare a suspect's predictions with the owner's, beside those of independent models.

    Args:
        owned: The owner's model, under any access.
        suspect: The model in question, under any access.
        references: Models of the same task that are known to be independent of the owner's and of each other: trained
            by others, or by the owner from other initial weights.
        dataset: Images and their true classes.
        records: The images; see `choose_images`.

    Raises:
        ConfigurationError: If the owner's model makes too few errors to share, or a reference makes all the errors of
            the owner's model or of the suspect.
    """
    truth = dataset.labels[records]
    own, doubted = predict_labels(owned, dataset, records), predict_labels(suspect, dataset, records)
    independent = [predict_labels(reference, dataset, records) for reference in references]
    if (errors := int((own != truth).sum())) < FEWEST_ERRORS:
        raise ConfigurationError(
            f"Copies are known by the errors that they share with your model; it makes {errors} on {len(records)} "
            f"images, and {FEWEST_ERRORS} are needed.",
            hint="Give more images (--count), or a dataset that is harder for it.",
        )
    for number, (reference, labels) in enumerate(zip(references, independent, strict=True), start=1):
        for other, name in ((own, "your model"), (doubted, "the suspect")):
            if (labels == other).all() and (labels != truth).sum() >= FEWEST_ERRORS:
                raise ConfigurationError(
                    f"Reference {number} ({reference.reference}) predicts what {name} predicts for all "
                    f"{len(records)} images, errors included, so it is no independent model.",
                    hint="Leave it out.",
                )
    return judge_suspect(own, doubted, independent, truth)
