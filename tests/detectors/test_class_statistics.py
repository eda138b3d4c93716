"""MM-BD and the statistics of the last layer: by hand, the contract, a backdoored network and a clean one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from securitynet.backdoors.input_aware import InputAware
from securitynet.datasets import splits
from securitynet.detectors._class_statistics.output import ClassStatistics, find_in_any
from securitynet.detectors._class_statistics.spread import MOST_SPREAD, measure_spread
from securitynet.detectors.last_layer import LastLayer, load_class_weights
from securitynet.detectors.mm_bd import LargestMargins, MmBd
from securitynet.errors import ModelError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.store.train_target import train_target
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.target import Target
from securitynet.records import Access
from securitynet.testing import check_detector

from backdoored import TRAINING  # isort: skip

QUICK = {"starts": 4, "steps": 40}


def wrap(network, shape):
    backend = ModuleBackend(network.eval(), reference="hand", checksum="hand", example_shape=shape)
    return Target(backend, access=Access.WHITE_BOX)


def measured(output):
    return {m.name: m for m in output.measurements(level=0.95, fprs=(), seed=0)}


def make_linear(weights):
    network = nn.Sequential(nn.Flatten(), nn.Linear(weights.shape[1], weights.shape[0]))
    with torch.no_grad():
        network[1].weight.copy_(weights)
        network[1].bias.zero_()
    return network


def test_the_ascent_reaches_the_largest_margin_of_a_linear_network():
    # With two classes the margin is linear, so its maximum over [0, 1]^4 is the sum of the positive differences.
    weights = torch.tensor([[3.0, -1.0, 2.0, 0.5], [1.0, 1.0, 1.0, 2.0]])
    target = wrap(make_linear(weights), (1, 2, 2))
    margins = MmBd(starts=3, steps=100).maximise_margins(target, (1, 2, 2), 2)
    np.testing.assert_allclose(margins, np.tile([3.0, 3.5], (3, 1)), atol=1e-5)


def test_the_statistics_of_the_last_layer_by_hand(digits):
    weights = torch.zeros(10, 64)
    weights[:, ::2], weights[:, 1::2] = 1.0, -1.0
    weights += torch.linspace(0, 0.09, 10)[:, None]
    weights[6] += 2.0
    target = wrap(make_linear(weights), (1, 8, 8))
    np.testing.assert_allclose(load_class_weights(target, (1, 8, 8)), weights.numpy(), atol=1e-7)
    output = LastLayer().run(target, TrialData(digits, splits.make("public", digits)), Context())
    # Centred, the mean of row k is 0.01·k + 2·[k = 6] less the mean of these.
    expected = 0.01 * np.arange(10) + 2.0 * (np.arange(10) == 6)
    np.testing.assert_allclose(output.statistics[0], expected - expected.mean(), atol=1e-6)
    values = measured(output)
    assert (values["verdict"].value, values["suspect-label"].value) == (2, 6)


def test_a_last_layer_without_rows_for_classes_is_refused():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, images):
            return self.one(images.flatten(1)) + self.two(images.flatten(1))

    with pytest.raises(ModelError, match="one layer"):
        load_class_weights(wrap(Two(), (1, 2, 2)), (1, 2, 2))


@pytest.mark.parametrize("detector", [MmBd(starts=2, steps=3), LastLayer()], ids=lambda one: type(one).__name__)
def test_contract(detector):
    check_detector(detector)


@pytest.mark.parametrize("count", [3, 10])
def test_verdict_follows_the_numbers(count):
    names = tuple("abcdefghij"[:count])
    even = 10 + np.arange(count) / count
    outputs = ClassStatistics(even[None, None], ("largest margin",), names)
    assert measured(outputs)["verdict"].value == (0 if count == 10 else 1)
    if count == 10:
        assert "all-to-all" in measured(outputs)["verdict"].note
        even[4] = 30
        values = measured(ClassStatistics(even[None, None], ("largest margin",), names))
        assert values["verdict"].value == 2
        assert "class e" in values["verdict"].note


def test_an_outlier_from_one_starting_point_only_widens_the_interval():
    values = np.tile(10 + np.arange(10) / 10, (1, 6, 1))
    values[0, 2, 4] = 30
    p_value = measured(ClassStatistics(values, ("largest margin",), tuple("abcdefghij")))["p-value"]
    assert p_value.value < 0.001
    assert p_value.high > 0.5  # a third of the resamplings miss that starting point


def test_a_network_that_never_predicts_a_class_gets_no_verdict():
    margins = np.array([9.0, -1.0, 1.1, 1.0, 1.2, 1.1, 1.0, 1.3])[None, None]
    values = measured(LargestMargins(margins, ("largest margin",), tuple("abcdefgh")))
    assert values["p-value"].value < 0.001
    assert values["verdict"].value == 1
    assert "class b" in values["verdict"].note
    assert values["gamma-p-value"].value is None


def test_a_margin_that_is_large_only_because_it_varies_much_accuses_nobody():
    even, names = 10 + np.arange(10) / 10, tuple("abcdefghij")
    large = np.where(np.arange(10) == 4, 30, even)
    titles = ("largest margin", "scaled margin")
    both = measured(LargestMargins(np.stack([large, large / 3])[:, None], titles, names))
    assert (both["verdict"].value, both["suspect-label"].value) == (2, 4)
    assert both["p-value"].value < 0.001
    alone = measured(LargestMargins(np.stack([large, even / 3])[:, None], titles, names))
    assert alone["verdict"].value == 1  # not cleared either
    assert "class e" in alone["verdict"].note and "spread" in alone["verdict"].note
    assert alone["p-value"].value > 0.05
    neither = measured(LargestMargins(np.stack([even, large / 3])[:, None], titles, names))
    assert neither["verdict"].value == 0
    without = measured(LargestMargins(large[None, None], titles[:1], names))
    assert without["verdict"].value == 2


def test_margins_are_scaled_where_clean_images_are_known(digits, innocent):
    parts = splits.make("public", digits)
    scaled = MmBd(starts=2, steps=3).run(innocent, TrialData(digits, parts), Context())
    spread = measure_spread(innocent, digits.batch(np.sort(parts.known_non_members)))
    assert len(parts.known_non_members) <= MOST_SPREAD
    np.testing.assert_allclose(scaled.values[1], scaled.values[0] / spread)
    empty = np.zeros(0, np.int64)
    none = type(parts)("none", parts.members, empty, parts.known_members, empty, empty, empty)
    alone = MmBd(starts=2, steps=3).run(innocent, TrialData(digits, none), Context())
    np.testing.assert_array_equal(alone.values, scaled.values[:1])


def test_two_statistics_are_tested_together():
    random = np.random.default_rng(0)
    rate = np.mean([find_in_any(random.normal(size=(2, 10)))[1].p_value <= 0.05 for _ in range(400)])
    assert rate <= 0.075


def test_a_backdoor_without_a_fixed_trigger_is_found_and_a_clean_network_is_not_accused(digits, innocent):
    data = TrialData(digits, splits.make("public", digits))
    target = train_target(
        "simple-cnn", digits, split="public", device="cpu", backdoor=InputAware(target=3), seed=1, **TRAINING
    )
    detector = MmBd(starts=4, steps=50)
    found = measured(detector(target, data, Context(), detector.threat_models[0]))
    assert (found["verdict"].value, found["suspect-label"].value) == (2, 3)
    assert found["p-value"].value <= 0.05
    clean = measured(detector(innocent, data, Context(), detector.threat_models[0]))
    assert clean["verdict"].value < 2
