"""Gradient norms in closed form against autograd, one record at a time."""

import numpy as np
import torch

from securitynet.attacks.membership.gradient_norm import GradientNorm, log_norms
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.gradients import LastLayerGradients


def test_is_the_norm_of_the_gradient_of_each_record(overfitted, tmp_path):
    target, splits, dataset = overfitted
    attack = GradientNorm()
    output = attack(target, TrialData(dataset, splits), Context(cache=tmp_path), attack.threat_models[0])
    network = target.module
    layer = [module for module in network.modules() if isinstance(module, torch.nn.Linear)][-1]
    try:
        layer.requires_grad_(True)
        for at in range(0, 240, 6):
            record = output.indices[at]
            logits = network(dataset.batch(output.indices[at : at + 1]).float() / 255)
            loss = torch.nn.functional.cross_entropy(logits, torch.tensor([dataset.labels[record]]))
            gradients = torch.autograd.grad(loss, [layer.weight, layer.bias])
            norm = torch.sqrt(sum(g.square().sum() for g in gradients)).item()
            assert abs(np.exp(-output.scores[at]) - norm) < 1e-3 * norm + 1e-4  # autograd subtracts in single precision
    finally:
        layer.requires_grad_(False)


def test_tiny_residuals_do_not_underflow():
    residuals = torch.tensor([[1e-25, -1e-25], [1e-30, -1e-30]])
    layer = LastLayerGradients(np.arange(2), torch.ones(2, 3), residuals, True)
    expected = [np.log(np.sqrt(2) * 1e-25 * 2), np.log(np.sqrt(2) * 1e-30 * 2)]
    np.testing.assert_allclose(log_norms(layer), expected, rtol=1e-5)
