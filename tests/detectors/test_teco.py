"""TeCo against a plain loop, and its false rejections on clean images."""

import numpy as np
import pytest
import torch

from securitynet.datasets.corruptions.kinds import corrupt
from securitynet.detectors.teco import Teco
from securitynet.errors import ConfigurationError, SplitError
from securitynet.methods.context import Context

STEADY = ("brightness", "contrast", "defocus-blur", "pixelate")
"""Kinds without random numbers."""


def test_scores_are_deviations_of_the_lowest_severities_that_change_the_prediction(patched):
    target, data = patched[:2]
    images = data.dataset.batch(data.splits.scored_non_members[:10])
    fitted = Teco(kinds=STEADY).deploy(target, data.dataset.batch(data.splits.known_non_members[:30]))
    scores = fitted.judge(images).scores
    for image, score in zip(images, scores, strict=True):
        label, lowest = target.labels(image[None]).item(), []
        for kind in STEADY:
            copies = [corrupt(image[None], kind, severity, torch.Generator()) for severity in range(1, 6)]
            changed = [number for number, copy in enumerate(copies, 1) if target.labels(copy).item() != label]
            lowest.append(min(changed, default=6))
        mean = sum(lowest) / len(lowest)
        assert score == pytest.approx((sum((value - mean) ** 2 for value in lowest) / len(lowest)) ** 0.5)
    assert len(set(scores.tolist())) > 1


def test_random_corruptions_do_not_depend_on_what_is_judged_together(patched):
    target, data = patched[:2]
    images, rows = data.dataset.batch(data.splits.non_members[:70]), np.arange(70)
    fitted = Teco(kinds=("gaussian-noise", "shot-noise")).deploy(
        target, data.dataset.batch(data.splits.known_non_members[:30])
    )
    for kind in ("gaussian-noise", "shot-noise", "fog"):
        together = fitted.corrupt(images, rows, kind, 5, "incoming")
        few = fitted.corrupt(images[60:66], rows[60:66], kind, 5, "incoming")
        assert torch.equal(together[60:66], few)
        assert not torch.equal(fitted.corrupt(images[:1], rows[1:2], kind, 5, "incoming"), together[:1])


def test_false_rejections_stay_near_the_chosen_rate(unpatched):
    target, data = unpatched
    detector = Teco(kinds=STEADY, false_rejection_rate=0.1, images=100, calibration=150)
    output = detector(target, data, Context(), detector.threat_models[0])
    measured = {m.name: m for m in output.measurements(level=0.95, fprs=(), seed=0)}
    assert measured["false-rejection-rate"].low <= 0.1 and "detection-rate" not in measured
    assert (output.calibration > output.threshold).mean() <= 0.1
    assert output.galleries()[0].images.shape[1] == 5


def test_wrong_kinds_and_too_few_images_are_reported(patched):
    target, data = patched[:2]
    with pytest.raises(ConfigurationError, match="no kind of corruption named rain"):
        Teco(kinds=("fog", "rain"))
    with pytest.raises(SplitError, match="TeCo"):
        Teco().deploy(target, data.dataset.batch(data.splits.known_non_members[:5]))
