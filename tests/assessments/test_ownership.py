"""Fingerprints: a copy matches, independent networks and one that knows nothing do not."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from securitynet.assessments.ownership import compare_with_suspect, make_fingerprint
from securitynet.datasets import public
from securitynet.errors import ConfigurationError, TargetError
from securitynet.models.store.cached_model import ModelSpec, obtain_model
from securitynet.models.targets.target import Target
from securitynet.models.training.recipe import Recipe
from securitynet.records import Access

RECIPE = {"epochs": 8, "optimizer": "adam", "learning_rate": 2e-3, "batch_size": 64}


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
def test_copies_match_more_than_independent_networks(train, owned, digits):
    others = [train(seed) for seed in range(1, 4)]
    stolen = train(7, owned.posteriors(digits.batch(public(digits).members[::2])).numpy())
    fingerprint = make_fingerprint(owned, digits, public(digits).non_members, count=120, epsilon=0.3)
    assert fingerprint.matches(owned).all()
    view = Target(stolen.backend, preprocessing=stolen.preprocessing, access=Access.BLACK_BOX)
    found = compare_with_suspect(fingerprint, view, others)
    assert found.match.value > max(found.references)
    assert view.query_counter.unique == len(fingerprint.images)
    assert found.verdict == "undecided"  # three references resolve nothing


def test_the_images_stay_near_and_are_wrong(owned, digits):
    records = public(digits).non_members[:50]
    fingerprint = make_fingerprint(owned, digits, records, count=50, epsilon=0.3)
    real = digits.batch(records).float()
    apart = (fingerprint.images.float()[:, None] - real[None]).abs().amax(dim=(2, 3, 4)).amin(dim=1)
    assert apart.max() <= 0.3 * 255 + 1
    again = make_fingerprint(owned, digits, records, count=50, epsilon=0.3)
    assert torch.equal(fingerprint.images, again.images)


def test_bad_input(owned, digits):
    with pytest.raises(ConfigurationError, match="there are none"):
        make_fingerprint(owned, digits, np.empty(0, np.int64))
    with pytest.raises(TargetError, match="--epsilon"):
        make_fingerprint(owned, digits, public(digits).non_members, count=40, epsilon=1e-4)


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
    options = ["--suspect-weights", files[0], "--reference-weights", files[1], "--epsilon", "0.3", "--device", "cpu"]
    result = CliRunner().invoke(app, [*command, *options, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["match"]["value"] == 1 and found["references"][0] < 1
