"""IBD-PSC against the paper's formula with batch norms that are not folded, and its false rejections."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from backdoored import Sealed, target_of
from securitynet.detectors.ibd_psc import IbdPsc
from securitynet.errors import AccessDenied, ModelError
from securitynet.methods.context import Context
from securitynet.models.targets.target import Target
from securitynet.records import Access


@pytest.fixture(scope="module")
def normalised():
    """A network with batch norms whose statistics are those of no images, and a target of it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = []
        for channels, out in ((1, 8), (8, 8), (8, 8)):
            layers += [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
        network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * 64, 10)).eval()
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.running_mean.normal_()
                norm.running_var.uniform_(0.5, 2)
                nn.init.normal_(norm.weight, 1, 0.3)
                nn.init.normal_(norm.bias, 0, 0.3)
    return network, target_of(network, (1, 8, 8), "normalised")


def measure_plainly(network, images, layers, factor):
    """Posteriors of the original predictions after γ and β of the last batch norms were multiplied."""
    changed = copy.deepcopy(network)
    norms = [layer for layer in changed.modules() if isinstance(layer, nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms[len(norms) - layers :]:
            norm.weight *= factor
            norm.bias *= factor
        labels = network(images).argmax(dim=1)
        return changed(images).softmax(dim=1), labels


def test_consistency_is_that_of_scaled_batch_norms(normalised, digits):
    network, target = normalised
    tuning = digits.batch(np.arange(100))
    fitted = IbdPsc(factor=3.0, error=0.05, count=2).deploy(target, tuning)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in target.module.modules()), "they are folded"
    inputs = tuning.float() / 255
    errors = []
    for number in (1, 2, 3):
        posteriors, labels = measure_plainly(network, inputs, number, 3.0)
        errors.append(float((posteriors.argmax(dim=1) != labels).float().mean()))
    start = next((number for number, error in enumerate(errors, 1) if error > 0.05), 2)
    assert fitted.start == start
    images = digits.batch(np.arange(200, 230))
    expected = torch.zeros(30)
    numbers = range(start, min(start + 2, 4))
    for number in numbers:
        posteriors, labels = measure_plainly(network, images.float() / 255, number, 3.0)
        expected += posteriors[torch.arange(30), labels] / len(numbers)
    np.testing.assert_allclose(fitted.measure_consistency(images), expected.numpy(), rtol=1e-4, atol=1e-5)


def test_false_rejections_stay_near_the_chosen_rate_and_all_passes_are_counted(unpatched):
    target, data = unpatched
    detector = IbdPsc(false_rejection_rate=0.1, images=300, calibration=300)
    context = Context()
    output = detector(target, data, context, detector.threat_models[0])
    measured = {m.name: m for m in output.measurements(level=0.95, fprs=(), seed=0)}
    rate = measured["false-rejection-rate"]
    # Threshold and rate are both from a few hundred images: the interval twice as wide.
    assert abs(rate.value - 0.1) < rate.high - rate.low
    assert context.queries().total > len(output.clean) + len(output.calibration)


def test_the_weights_are_needed(patched):
    target, data = patched[:2]
    known = data.dataset.batch(data.splits.known_non_members[:60])
    with pytest.raises(AccessDenied):
        IbdPsc().deploy(Target(Sealed(target.backend), access=Access.BLACK_BOX), known)
    linear = target_of(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), (1, 8, 8), "linear")
    with pytest.raises(ModelError, match="hidden layers"):
        IbdPsc().deploy(linear, known)
