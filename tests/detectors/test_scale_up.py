"""SCALE-UP against a plain loop, and its false rejections on clean images."""

import numpy as np
import pytest
import torch

from securitynet.detectors.scale_up import ScaleUp
from securitynet.errors import SplitError
from securitynet.methods.context import Context


def test_consistency_is_that_of_a_plain_loop(patched):
    target, data = patched[:2]
    images = data.dataset.batch(data.splits.scored_non_members[:12])
    fitted = ScaleUp(factors=(2, 4, 300)).deploy(target, data.dataset.batch(data.splits.known_non_members[:60]))
    labels, consistency = fitted.measure_consistency(images)
    for image, label, share in zip(images, labels, consistency, strict=True):
        copies = [np.minimum(image.numpy().astype(int) * factor, 255) / 255 for factor in (2, 4, 300)]
        expected = target.labels(torch.from_numpy(np.stack(copies)).float()).numpy()
        assert label == target.labels(image[None]).item() and share == pytest.approx((expected == label).mean())


def test_false_rejections_stay_near_the_chosen_rate(unpatched):
    target, data = unpatched
    detector = ScaleUp(false_rejection_rate=0.1, images=200)
    output = detector(target, data, Context(), detector.threat_models[0])
    measured = {m.name: m for m in output.measurements(level=0.95, fprs=(), seed=0)}
    assert measured["false-rejection-rate"].low <= 0.1 and "detection-rate" not in measured
    assert (output.calibration > output.threshold).mean() <= 0.1
    assert output.galleries()[0].images.shape[1] == 6


def test_too_few_clean_images_are_reported(patched):
    target, data = patched[:2]
    with pytest.raises(SplitError, match="SCALE-UP"):
        ScaleUp().deploy(target, data.dataset.batch(data.splits.known_non_members[:5]))
