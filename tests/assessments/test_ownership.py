"""Ownership: a copy shares the owner's errors, independent networks and one that knows nothing do not."""

from __future__ import annotations

import json

import numpy as np
import pytest

from securitynet.assessments.ownership import choose_images, compare_with_suspect
from securitynet.datasets import public
from securitynet.errors import ConfigurationError
from securitynet.models.store.cached_model import ModelSpec, obtain_model
from securitynet.models.targets.target import Target
from securitynet.models.training.recipe import Recipe
from securitynet.records import Access

RECIPE = {"epochs": 4, "optimizer": "adam", "learning_rate": 2e-3, "batch_size": 64}


@pytest.fixture(scope="module")
def train(digits):
    """Trains a network on the owner's records, with their labels or other targets."""
    members = public(digits).members[::2]

    def call(seed, targets=digits.labels[members]):
        spec = ModelSpec(digits, members, targets, 10, "simple-cnn", Recipe(**RECIPE, seed=seed))
        return obtain_model(spec, kind="owned", device="cpu").target

    return call


@pytest.fixture(scope="module")
def owned(train):
    """The owner's network."""
    return train(0)


@pytest.mark.slow
def test_distilled_copies_share_more_errors_than_independent_networks(train, owned, digits):
    others = [train(seed) for seed in range(1, 7)]
    stolen = train(7, owned.posteriors(digits.batch(public(digits).members[::2])).numpy())
    view = Target(stolen.backend, preprocessing=stolen.preprocessing, access=Access.BLACK_BOX)
    records = choose_images(public(digits).non_members, 400)
    found = compare_with_suspect(owned, view, others, digits, records)
    assert found.shared > max(found.references)
    assert view.query_counter.unique == len(records)
    assert found.verdict == "undecided"  # six references resolve nothing


def test_references_must_be_independent(train, owned, digits):
    records = choose_images(public(digits).non_members, 400)
    with pytest.raises(ConfigurationError, match="what your model predicts"):
        compare_with_suspect(owned, train(1), [owned], digits, records)
    with pytest.raises(ConfigurationError, match="what the suspect predicts"):
        compare_with_suspect(owned, train(1), [train(1)], digits, records)


def test_few_images_or_errors(owned, digits):
    with pytest.raises(ConfigurationError, match="there are 99"):
        choose_images(np.arange(99, dtype=np.int64), 400)
    records = choose_images(public(digits).non_members, 400)
    right = records[owned.labels(digits.batch(records)).numpy() == digits.labels[records]]
    with pytest.raises(ConfigurationError, match="it makes 0 on"):
        compare_with_suspect(owned, owned, [], digits, right)


def test_command(tmp_path):
    from typer.testing import CliRunner

    from securitynet.cli.main import app
    from securitynet.models.store.train_target import train_model
    from securitynet.models.training.config import TrainConfig

    files = []
    for seed in range(2):
        out = tmp_path / f"{seed}.safetensors"
        options = {"epochs": 4, "optimizer": "adam", "learning_rate": 2e-3, "seed": seed, "device": "cpu"}
        train_model(TrainConfig(architecture="simple-cnn", dataset="digits", out=out, **options))
        files.append(str(out))
    command = ["ownership", "arch:simple-cnn", "arch:simple-cnn", "--dataset", "digits", "--weights", files[0]]
    options = ["--suspect-weights", files[0], "--reference-weights", files[1], "--device", "cpu"]
    result = CliRunner().invoke(app, [*command, *options, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["agreement"]["value"] == 1 and found["shared"] == pytest.approx(1) and found["references"][0] < 0.9
