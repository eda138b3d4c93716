"""Verification of removal: the original remembers, a model trained without the records does not."""

from __future__ import annotations

import numpy as np
import pytest

from securitynet.assessments.verify_removal import check_removal
from securitynet.datasets import load
from securitynet.errors import ConfigurationError
from securitynet.models.loading.load import load_target
from securitynet.models.shadows.store import obtain_shadow
from securitynet.models.store.effective_splits import restore_splits
from securitynet.models.store.record_files import read_target_record
from securitynet.models.store.train_target import train_target


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A network that knows 120 digits by heart, with its record, dataset, cache and ten of its members."""
    folder = tmp_path_factory.mktemp("original")
    data, out = load("digits", limit=240), folder / "m.safetensors"
    train_target(
        "simple-cnn", data, split="public", out=out, epochs=8, batch_size=25, optimizer="adam", learning_rate=3e-3,
        schedule="constant", weight_decay=0,
    )  # fmt: skip
    record = read_target_record(out)
    members = restore_splits(record, data).members
    return out, record, data, folder / "cache", members[::12]


def test_what_was_never_a_member_cannot_have_been_removed(original):
    out, record, data, cache, removed = original
    target = load_target("arch:simple-cnn", weights=out, dataset=data)
    strangers = np.setdiff1d(np.arange(len(data)), restore_splits(record, data).members)[:3]
    with pytest.raises(ConfigurationError, match="3 of 3 records were no members"):
        check_removal(target, data, strangers, record, cache=cache)
    with pytest.raises(ConfigurationError, match="No removed records"):
        check_removal(target, data, removed[:0], record, cache=cache)


@pytest.mark.slow
def test_the_original_still_knows_what_a_retrained_model_does_not(original):
    out, record, data, cache, removed = original
    target = load_target("arch:simple-cnn", weights=out, dataset=data)
    kept = check_removal(target, data, removed, record, cache=cache)
    assert kept.verdict == "remembered"
    rest = np.setdiff1d(restore_splits(record, data).members, removed)
    recipe = record.recipe.model_copy(update={"seed": 77})
    retrained = obtain_shadow(data, rest, "simple-cnn", recipe, cache=cache).target
    assert check_removal(retrained, data, removed, record, cache=cache).verdict == "no sign"
