"""Spectral signatures: poisoned training records lie at one end of the direction of the largest variance."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from typing_extensions import override

from securitynet.detectors._spectral.signatures import Signatures, compute_scores
from securitynet.detectors._training_data import FEWEST_CLEAN, FEWEST_RECORDS, TrainingDataDetector
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.methods.output import Output
from securitynet.models.targets.target import Target


class SpectralSignatures(TrainingDataDetector):
    """Scores the training records of each class along the first singular vector of the embeddings.

    Tran et al., "Spectral signatures in backdoor attacks" (2018), algorithm 1. The paper removes a fixed share of every
    class, poisoned or not. Here clean images decide: a class is suspect if more of its training records lie beyond all
    clean images, at one end, than chance allows (`securitynet.metrics.precedence`), and these records are.
    """

    output: ClassVar[type[Output]] = Signatures
    costs: ClassVar[str | None] = "computes the activations of thousands of training records"

    @override
    def run(self, target: Target, data: TrialData, context: Context) -> Signatures:
        embedded = self._embed(target, data, context, "The search for spectral signatures")
        classes = np.unique(embedded.labels)
        scores = np.full(len(embedded.members), np.nan)
        beyond = np.zeros(len(embedded.members), dtype=bool)
        p_values = np.full(len(classes), np.nan)
        for k, label in enumerate(classes.tolist()):
            mine = np.flatnonzero(embedded.labels == label)
            other = np.flatnonzero(data.dataset.labels[embedded.clean] == label)
            if len(mine) < FEWEST_RECORDS or len(other) < FEWEST_CLEAN:
                continue
            own, clean, p_values[k] = compute_scores(embedded.training[mine], embedded.beside[other])
            scores[mine], beyond[mine] = own, own > clean.max()
        return Signatures(embedded.members, embedded.labels, scores, beyond, classes, p_values, embedded.poisoned)
