"""Shadow models: who trains which, the store, resumption, and the comparison with the target."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from securitynet.datasets import splits as make_splits
from securitynet.errors import ConfigurationError
from securitynet.models.artefacts import train_target
from securitynet.models.shadows import (
    ShadowPlan,
    shadow_outputs,
)

FAST = {"epochs": 3, "learning_rate": 0.05, "schedule": "constant"}


@pytest.fixture(scope="module")
def target(digits):
    return train_target("simple-cnn", digits, seed=1, device="cpu", **FAST)


@pytest.fixture(scope="module")
def four_parts(digits):
    return make_splits.four_way(digits)


@pytest.mark.parametrize("count, share, inside", [(8, 0.5, 4), (5, 0.5, 2), (16, 0.25, 4), (3, 0.6, 2)])
def test_each_record_is_in_equally_many_training_sets(count, share, inside):
    chosen = ShadowPlan(count=count, share=share).training_sets(200, seed=3)
    np.testing.assert_array_equal(chosen.sum(axis=0), inside)
    # Sizes of training sets scatter as those of random halves do, and no two models get the same.
    sizes = chosen.sum(axis=1)
    assert abs(sizes - 200 * inside / count).max() < 4 * np.sqrt(200 * 0.25)
    assert len(np.unique(chosen, axis=0)) == count
    np.testing.assert_array_equal(chosen, ShadowPlan(count=count, share=share).training_sets(200, seed=3))
    assert (chosen != ShadowPlan(count=count, share=share).training_sets(200, seed=4)).any()


def test_a_share_that_puts_records_everywhere_or_nowhere_is_refused():
    with pytest.raises(ConfigurationError, match="in 4 of them"):
        ShadowPlan(count=4, share=0.9).training_sets(10, 0)


def test_online_shadows_know_their_members_better(digits, four_parts, target, tmp_path):
    records = np.concatenate([four_parts.members[:100], four_parts.non_members[:100][::-1]])
    plan = ShadowPlan(count=4, recipe={**FAST, "epochs": 40})
    found = shadow_outputs(target, digits, four_parts, records, plan, cache=tmp_path, device="cpu")
    assert found.included.shape == (4, 200) and found.outputs.shape == (4, 200, 10)
    np.testing.assert_array_equal(found.included.sum(axis=0), 2)
    np.testing.assert_array_equal(found.labels, digits.labels[records])
    log_p = torch.from_numpy(found.outputs).log_softmax(dim=2).numpy()
    loss = -np.take_along_axis(log_p, found.labels[None, :, None], axis=2)[..., 0]
    assert loss[found.included].mean() < 0.5 * loss[~found.included].mean()
