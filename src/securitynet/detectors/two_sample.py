"""Two-sample classifier: whether the training records of a class can be distinguished from clean images of it."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from typing_extensions import override

from securitynet.detectors._training_data import FEWEST_CLEAN, FEWEST_RECORDS, TrainingDataDetector
from securitynet.detectors._two_sample.discriminant import ClassifiedRecords, compare_with_clean
from securitynet.detectors._two_sample.features import compute_features, draw_filters
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.output import Output
from securitynet.models.targets.target import Target
from securitynet.randomness import derive_seed, make_generator
from securitynet.records import Access, Auxiliary, ThreatModel


class TwoSample(TrainingDataDetector):
    """Trains a classifier for each class to distinguish its training records from clean images, and tests it on others.

    A classifier two-sample test (Lopez-Paz and Oquab, 2017; `securitynet.detectors._two_sample.discriminant`). It sees
    the images, and not their embeddings: a network embeds records that it was trained on differently from others,
    poisoned or not, so embeddings would differ for every model that memorises. The target is queried only for the
    labels of records with a known ``trigger``.
    """

    threat_models: ClassVar[tuple[ThreatModel, ...]] = (
        ThreatModel(access=Access.BLACK_BOX, auxiliary=Auxiliary.PARTIAL),
    )
    output: ClassVar[type[Output]] = ClassifiedRecords
    costs: ClassVar[str | None] = "trains two classifiers for each class of the training data"

    @override
    def run(self, target: Target, data: TrialData, context: Context) -> ClassifiedRecords:
        records = self._collect(target, data, context, "The two-sample classifier")
        classes = np.unique(records.labels)
        scores = np.full(len(records.members), np.nan)
        beyond = np.zeros(len(records.members), dtype=bool)
        p_values = np.full(len(classes), np.nan)
        for k, label in enumerate(classes.tolist()):
            if context.progress:
                context.progress(k, len(classes))
            mine = np.flatnonzero(records.labels == label)
            other = records.clean[data.dataset.labels[records.clean] == label]
            if len(mine) < FEWEST_RECORDS or len(other) < FEWEST_CLEAN:
                continue
            seed = derive_seed(context.seed, "two-sample", label)
            images = records.images[torch.from_numpy(np.concatenate([records.members[mine], other]))]
            features = compute_features(images, draw_filters(images, make_generator(seed, "two-sample filters")))
            scores[mine], beyond[mine], p_values[k] = compare_with_clean(
                features[: len(mine)], features[len(mine) :], np.random.default_rng(seed)
            )
        if context.progress:
            context.progress(len(classes), len(classes))
        return ClassifiedRecords(records.members, records.labels, scores, beyond, classes, p_values, records.poisoned)
