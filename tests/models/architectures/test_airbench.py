"""Airbench: its whitening layer, its initial weights, and its shape against a network written out plainly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.fx.experimental.optimization import fuse

from securitynet.datasets import load, splits
from securitynet.errors import ConfigurationError
from securitynet.models.architectures.airbench import Airbench, compute_whitening_filters
from securitynet.models.architectures.factory import build
from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.store.train_target import train_target
from securitynet.models.training.batches import Feed
from securitynet.models.training.fit import fit
from securitynet.models.training.image_initialisation import initialise_from_images
from securitynet.models.training.recipe import Recipe

DIGITS = load("digits")


def correlated(count: int = 300, channels: int = 3, side: int = 12) -> torch.Tensor:
    """Smooth images: neighbouring pixels and channels are alike, as in photographs."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(count, 1, side + 2, side + 2, generator=generator)
    smooth = nn.functional.avg_pool2d(noise, 3, 1)
    return 0.3 + smooth + 0.2 * torch.randn(count, channels, side, side, generator=generator)


@pytest.mark.parametrize("channels", [1, 3])
def test_whitened_patches_are_uncorrelated_and_have_variance_one(channels):
    images = correlated(channels=channels)
    network = Airbench((8, 8, 8), 10, channels, 12)
    network.initialise_from_images(images)
    count = 4 * channels
    outputs = nn.functional.conv2d(images, network.whitening.weight)
    outputs = outputs.movedim(1, 0).flatten(1).double().numpy()
    covariance = np.cov(outputs[:count])
    # The least variance of a patch's direction here is 0.04, to which 5e-4 is added.
    np.testing.assert_allclose(covariance, np.eye(count), atol=0.02)
    np.testing.assert_array_equal(outputs[count:], -outputs[:count])
    before = np.cov(nn.functional.unfold(images, 2).movedim(1, 0).flatten(1).numpy())
    assert abs(before[0, 1]) > 0.05  # neighbours were correlated


def test_directions_that_never_occur_do_not_blow_up():
    grey = correlated(channels=1).repeat(1, 3, 1, 1)  # eight of twelve directions have no variance at all
    filters = compute_whitening_filters(grey)
    assert filters.isfinite().all()
    assert filters.flatten(1).norm(dim=1).max() < 1 / np.sqrt(5e-4) + 1e-6


def test_the_layer_is_computed_once_and_is_part_of_the_weights():
    network = Airbench((8, 8, 8), 10, 1, 8)
    assert not network.whitened
    preprocessing = Preprocessing()
    initialise_from_images(network, Feed(DIGITS.images, None, torch.device("cpu")), preprocessing)
    filters = network.whitening.weight.clone()
    copy = Airbench((8, 8, 8), 10, 1, 8)
    copy.load_state_dict(network.state_dict())
    copy.initialise_from_images(correlated(channels=1, side=8))  # a later training, on other images, keeps it
    assert torch.equal(copy.whitening.weight, filters)


def test_images_are_taken_from_all_records_and_no_others():
    sorted_by_class = DIGITS.images[np.argsort(DIGITS.labels, kind="stable")]
    feed = Feed(sorted_by_class, np.arange(900), torch.device("cpu"))
    taken: list[torch.Tensor] = []
    layer = nn.Identity()
    layer.initialise_from_images = taken.append
    initialise_from_images(nn.Sequential(layer), feed, Preprocessing())
    assert torch.equal(taken[0], sorted_by_class[:900] / 255)


def test_training_leaves_the_filters_and_the_scales_of_batch_norms():
    network = build("airbench-small", 10, channels=1, image_size=8)
    members = splits.four_way(DIGITS).members
    fit(network, DIGITS.images, DIGITS.labels[members], Recipe(epochs=1), indices=members, device="cpu")
    assert network.whitened
    patches = nn.functional.unfold(DIGITS.images[torch.from_numpy(members)] / 255, 2).movedim(1, 0).flatten(1).double()
    variances, directions = np.linalg.eigh(np.cov(patches.numpy(), bias=True))
    expected = (directions / np.sqrt(variances + 5e-4)).T
    trained = network.whitening.weight[:4].flatten(1).numpy()
    np.testing.assert_allclose(np.abs((trained * expected).sum(1)), (expected**2).sum(1), rtol=1e-4)  # up to signs
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert (layer.weight == 1).all()
            assert (layer.bias != 0).any()


def test_convolutions_start_as_the_identity():
    block = Airbench((8, 16, 16), 10, 1, 8).blocks[0]  # 8 filters of whitening, then 8 channels
    features = torch.rand(2, 8, 7, 7)
    assert torch.equal(block.conv1(features), features)
    wider = Airbench((8, 16, 16), 10, 1, 8).blocks[1].conv1
    features = torch.rand(2, 8, 7, 7)
    assert torch.equal(wider(features)[:, :8], features)
    assert not torch.equal(wider(features)[:, 8:], features)


def test_equals_the_network_written_out():
    network = build("airbench", 10).eval()
    images = torch.rand(2, 3, 32, 32)
    x = nn.functional.gelu(nn.functional.conv2d(images, network.whitening.weight, network.whitening.bias))
    assert x.shape == (2, 24, 31, 31)
    for block, side in zip(network.blocks, (15, 7, 3), strict=True):
        for convolution, norm, pooling in ((block.conv1, block.norm1, 2), (block.conv2, block.norm2, 1)):
            x = nn.functional.max_pool2d(nn.functional.conv2d(x, convolution.weight, padding=1), pooling)
            x = nn.functional.gelu(x / (1 + norm.eps) ** 0.5)  # new running statistics: mean 0, variance 1
        assert x.shape[2:] == (side, side)
    logits = nn.functional.max_pool2d(x, 3).flatten(1) @ network.linear.weight.T / 9
    torch.testing.assert_close(network(images), logits, rtol=1e-4, atol=1e-5)
    convolutions = 24 * 64 + 64 * 64 + 64 * 256 + 3 * 256 * 256
    whitening, norms, linear = 24 * 3 * 4 + 24, 2 * 2 * (64 + 256 + 256), 10 * 256
    assert sum(p.numel() for p in network.parameters()) == 9 * convolutions + whitening + norms + linear


def test_tracing_and_folding_give_the_same_logits():
    network = build("airbench-small", 5, 1, 8)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, 0, 0.1)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    network.eval()
    batch = torch.rand(3, 1, 8, 8)
    with torch.inference_mode():
        logits, folded = network(batch), fuse(network)
        torch.testing.assert_close(torch.fx.symbolic_trace(network)(batch), logits)
        torch.testing.assert_close(folded(batch), logits, rtol=1e-3, atol=1e-3)
    # Between the others and their convolutions stands the pooling.
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules()) == 3


def test_dp_sgd_refuses_layers_that_are_computed_from_images():
    from securitynet.defenses.dp_sgd import DpSgd

    with pytest.raises(ConfigurationError, match="computed from the training images"):
        train_target("airbench-small", DIGITS, epochs=1, defense=DpSgd(), device="cpu")
