"""Common corruptions against their definitions, and certificates against the closed form of a linear network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from evasion_cases import made_up, white_box
from securitynet.attacks.evasion.common_corruptions import CommonCorruptions, CorruptedPredictions
from securitynet.attacks.evasion.randomized_smoothing import Certificates, RandomizedSmoothing, certify
from securitynet.datasets.corruptions import blur, digital, noise, weather
from securitynet.datasets.corruptions.kinds import CIFAR, IMAGENET, KINDS, corrupt
from securitynet.errors import ConfigurationError
from securitynet.methods.context import Context
from securitynet.models.targets.target import Target
from securitynet.records import Access


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def run(attack, target, data, seed=1):
    context = Context(seed=seed)
    return attack(target, data, context, attack.threat_models[0]), context


def measured(output):
    return {m.name: m for m in output.measurements(level=0.95, fprs=(), seed=0)}


@pytest.fixture(scope="module")
def photo():
    """Two smooth colour images of 32×32 with an edge."""
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 32), torch.linspace(0, 1, 32), indexing="ij")
    one = torch.stack([rows, columns, (rows + columns) / 2])
    two = one.flip(1).clone()
    two[:, 10:20, 12:] = 0.9
    return (torch.stack([one, two]) * 255).round().byte()


def test_there_are_fifteen_kinds_at_five_severities():
    assert len(KINDS) == 15
    assert all(set(table) == set(KINDS) and all(len(p) == 5 for p in table.values()) for table in (CIFAR, IMAGENET))


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_changes_images_more_at_a_higher_severity(kind, photo):
    changes = []
    for severity in (1, 5):
        changed = corrupt(photo, kind, severity, seeded())
        assert changed.shape == photo.shape and changed.dtype == torch.uint8
        assert torch.equal(changed, corrupt(photo, kind, severity, seeded())), "determined by the generator"
        changes.append(float((changed.float() - photo.float()).abs().mean()))
    assert 0.1 < changes[1] < 128
    if kind != "elastic":  # its first severity is an affine map that moves more than the last
        assert changes[0] < changes[1]


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 20, 12), (4, 8, 8), (3, 112, 112)])
def test_other_shapes(shape):
    images = torch.randint(0, 256, (1, *shape), generator=seeded(), dtype=torch.uint8)
    for kind in KINDS:
        if shape[1] > 100 and kind == "glass-blur":
            continue  # seconds, and nothing that the small shapes lack
        assert corrupt(images, kind, 3, seeded()).shape == images.shape


def test_noise_by_its_moments():
    images = torch.full((1, 1, 300, 300), 0.4)
    gaussian = noise.add_gaussian_noise(images, 0.1, seeded()) - images
    assert float(gaussian.mean()) == pytest.approx(0, abs=2e-3) and float(gaussian.std()) == pytest.approx(
        0.1, rel=0.02
    )
    shot = noise.add_shot_noise(images, 50, seeded())
    assert float(shot.mean()) == pytest.approx(0.4, rel=0.01) and float(shot.var()) == pytest.approx(0.4 / 50, rel=0.03)
    impulse = noise.add_impulse_noise(images, 0.1, seeded())
    assert float((impulse == 0).float().mean()) == pytest.approx(0.05, abs=5e-3)
    assert float((impulse == 1).float().mean()) == pytest.approx(0.05, abs=5e-3)


def test_blurs_leave_a_constant_image_and_conserve_light():
    flat = torch.full((1, 3, 16, 16), 0.3)
    for blurred in (
        blur.blur_defocus(flat, 2, 0.5),
        blur.blur_glass(flat, 0.5, 1, 2, seeded()),
        blur.blur_motion(flat, 5, 2, seeded()),
        blur.blur_zoom(flat, 1.2, 0.05),
        digital.deform(flat, 2, 1, 1, seeded()),
        digital.pixelate(flat, 0.5),
        digital.reduce_contrast(flat, 0.2),
    ):
        torch.testing.assert_close(blurred, flat)
    point = torch.zeros(1, 1, 33, 33)
    point[0, 0, 16, 16] = 1
    disk = blur.blur_defocus(point, 4, 0.1)
    assert float(disk.sum()) == pytest.approx(1, abs=1e-5)
    assert float(disk[0, 0, 16, 19]) == pytest.approx(1 / (np.pi * 16), rel=0.03) and float(disk[0, 0, 16, 22]) < 1e-6


def test_glass_exchanges_pixels():
    image = torch.rand((1, 1, 12, 12), generator=seeded())
    shuffled = blur.blur_glass(image, 1e-3, 2, 1, seeded())
    torch.testing.assert_close(shuffled.flatten().sort().values, image.flatten().sort().values)
    assert not torch.equal(shuffled, image)


def test_deformation_without_displacement_is_the_identity():
    image = torch.rand((1, 3, 9, 13), generator=seeded())
    torch.testing.assert_close(digital.deform(image, 0.0, 1.0, 0.0, seeded()), image, atol=1e-4, rtol=0)


def test_contrast_pixels_and_brightness_by_hand():
    image = torch.tensor([[0.0, 1.0], [0.5, 0.5]])[None, None]
    assert digital.reduce_contrast(image, 0.5).flatten().tolist() == [0.25, 0.75, 0.5, 0.5]
    assert digital.pixelate(image, 0.5).flatten().tolist() == [0.5] * 4
    colour = torch.tensor([0.2, 0.4, 0.1]).view(1, 3, 1, 1)
    torch.testing.assert_close(weather.brighten(colour, 0.2).flatten(), torch.tensor([0.3, 0.6, 0.15]))


def test_fog_keeps_the_brightest_value_within_range():
    image = torch.rand((2, 3, 20, 20), generator=seeded())
    foggy = weather.add_fog(image, 1.0, 2.0, seeded())
    assert foggy.min() >= 0 and (foggy.amax((1, 2, 3)) <= image.amax((1, 2, 3)) + 1e-6).all()
    plasma = weather.make_plasma(2, 16, 2.0, seeded())
    assert plasma.amin((1, 2)).tolist() == [0, 0] and plasma.amax((1, 2)).tolist() == [1, 1]


def test_accuracy_under_corruptions(networks, data, tmp_path):
    attack = CommonCorruptions(samples=60, kinds=("contrast", "gaussian-noise", "shot-noise"))
    output, context = run(attack, white_box(networks[0]), data)
    found = measured(output)
    assert found["gaussian-noise.corruption-accuracy"].value > 0.6
    right = (output.corrupted == output.labels).mean()
    assert found["mean-corruption-accuracy"].value == pytest.approx(right)
    assert found["corruption-drop"].value == pytest.approx(found["clean-accuracy"].value - right)
    assert sum(queries.total for queries in context.extra_queries) == 3 * 5 * 60
    np.savez(tmp_path / "output.npz", **output.arrays())
    with np.load(tmp_path / "output.npz") as arrays:
        assert measured(CorruptedPredictions.from_arrays(dict(arrays))) == found
    again, _ = run(attack, white_box(networks[0]), data)
    np.testing.assert_array_equal(again.corrupted, output.corrupted)
    with pytest.raises(ConfigurationError, match="unknown: rain"):
        CommonCorruptions(kinds=("rain",))


class Constant(nn.Module):
    def forward(self, images):
        return images.flatten(1)[:, :4] * 0 + torch.eye(4)[3]


def test_a_constant_model_loses_nothing_and_is_certified_as_far_as_its_draws_allow(data):
    shape = (1, 5, 5)
    target = white_box(Constant(), name="constant", example=shape)
    made = made_up(target, shape, 4)
    output, _ = run(CommonCorruptions(samples=10), target, made)
    found = measured(output)
    assert found["clean-accuracy"].value == found["mean-corruption-accuracy"].value == 1
    assert found["corruption-drop"].value == 0 and found["corruption-drop"].low <= 0 <= found["corruption-drop"].high
    smoothed, context = run(RandomizedSmoothing(samples=5, estimation=100, selection=10), target, made)
    expected = 0.25 * stats.norm.ppf(0.001 ** (1 / 100))  # Clopper and Pearson for 100 of 100
    assert smoothed.radii == pytest.approx(np.full(5, expected))
    assert sum(queries.total for queries in context.extra_queries) == 5 * 110


class Half(nn.Module):
    """A half-space: the margin of an image to the boundary is the mean of its pixels minus 0.5, times their root."""

    def forward(self, images):
        margin = (images.flatten(1).mean(dim=1) - 0.5) * images[0].numel() ** 0.5
        return torch.stack([-margin, margin], dim=1)


def test_certificates_never_exceed_the_distance_to_the_boundary(tmp_path):
    """For a linear network the radius of Cohen et al. is exact, but for sampling and clipping."""
    shape = (1, 8, 8)
    target = white_box(Half(), name="half", example=shape)
    made = made_up(target, shape, 2, count=30)
    black = Target(target.backend, access=Access.BLACK_BOX)
    output, _ = run(RandomizedSmoothing(samples=30, sigma=0.2, estimation=2000, selection=50), black, made)
    images = made.dataset.batch(output.indices).float() / 255
    distances = (images.flatten(1).mean(dim=1) - 0.5).abs().numpy() * 8
    certified = output.radii > 0
    assert certified.sum() > 10
    assert (output.radii <= distances + 0.02).all()
    far = (distances > 0.1) & (distances < 0.4)
    assert (output.radii[far] >= 0.5 * distances[far]).mean() > 0.8
    np.savez(tmp_path / "output.npz", **output.arrays())
    with np.load(tmp_path / "output.npz") as arrays:
        assert measured(Certificates.from_arrays(dict(arrays))) == measured(output)
    found = measured(output)
    assert found["certified-accuracy@radius=0"].value == pytest.approx((output.predictions == output.labels).mean())


def test_certify_by_hand():
    assert certify(50, 100, 0.5, 0.001) == 0 and certify(0, 100, 0.5, 0.001) == 0
    low = stats.binomtest(990, 1000).proportion_ci(0.998, "exact").low
    assert certify(990, 1000, 0.5, 0.001) == pytest.approx(0.5 * stats.norm.ppf(low))


def test_radii_are_wrong_no_more_often_than_stated():
    """Simulated truths: the bound exceeds the true radius in at most the stated share."""
    truth = 0.8
    votes = np.random.default_rng(0).binomial(200, truth, 4000)
    radii = np.asarray([certify(int(v), 200, 1.0, 0.05) for v in votes])
    assert (radii > stats.norm.ppf(truth)).mean() <= 0.06
