"""The store of trained models, and several trained side by side."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
import torch

import securitynet.models.store.parallel as together
from securitynet.datasets.base import ImageDataset
from securitynet.errors import ConfigurationError, ModelError
from securitynet.files import add_digest
from securitynet.models.loading.load import load_target
from securitynet.models.store.cached_model import ModelSpec, obtain_model
from securitynet.models.store.parallel import obtain_models
from securitynet.models.store.record_files import read_model_record
from securitynet.models.training.presets import make_recipe
from securitynet.models.training.recipe import Recipe

RECIPE = Recipe(epochs=2, batch_size=32, learning_rate=0.01, schedule="constant")
RECORDS = np.arange(0, 300, 2, dtype=np.int64)


def posteriors(seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(10), len(RECORDS)).astype(np.float32)


def spec(digits, *, targets=None, records=RECORDS, architecture="simple-cnn", recipe=RECIPE, classes=10):
    targets = digits.labels[records] if targets is None else targets
    return ModelSpec(digits, records, targets, classes, architecture, recipe)


def weights_of(model):
    return torch.cat([value.flatten() for value in model.target.module.state_dict().values()])


def test_targets_and_their_kind_decide_the_key(digits, tmp_path):
    def obtain(**changes):
        return obtain_model(spec(digits, **changes), kind="surrogates", cache=tmp_path, device="cpu").key

    soft = posteriors()
    keys = {
        obtain(),
        obtain(targets=soft),
        obtain(targets=posteriors(1)),
        obtain(targets=soft.argmax(axis=1)),
        obtain(targets=soft[::-1].copy()),
        obtain(records=RECORDS[::-1].copy()),
        obtain(classes=11),
    }
    assert len(keys) == 7
    assert obtain(targets=soft.copy()) in keys
    assert {path.name for path in (tmp_path / "surrogates").iterdir()} == keys


def test_a_stored_model_loads_as_a_target_with_its_preprocessing(digits, tmp_path):
    model = obtain_model(spec(digits, targets=posteriors()), kind="surrogates", cache=tmp_path, device="cpu")
    images = digits.batch(np.arange(50))
    loaded = load_target("arch:simple-cnn", weights=model.weights, dataset=digits, device="cpu")
    assert loaded.preprocessing == model.target.preprocessing and loaded.preprocessing.mean
    assert torch.allclose(loaded.posteriors(images), model.target.posteriors(images), atol=1e-6)
    assert loaded.identity == model.target.identity
    with pytest.raises(ModelError, match="trained as arch:simple-cnn"):
        load_target("arch:alexnet", weights=model.weights, dataset=digits, device="cpu")
    record = read_model_record(model.weights)
    assert record is not None and record.soft and record.records == len(RECORDS)


def test_facts_that_are_not_about_the_weights_are_refused(digits, tmp_path):
    model = obtain_model(spec(digits), kind="shadows", cache=tmp_path, device="cpu")
    path = model.weights.with_suffix(".json")
    facts = json.loads(path.read_text())
    path.write_text(json.dumps(add_digest({**facts, "weights_checksum": "0" * 64})))
    with pytest.raises(ModelError, match="other weights"):
        read_model_record(model.weights)
    path.write_text(json.dumps({**facts, "records": "many"}))
    with pytest.raises(ModelError, match="damaged"):
        read_model_record(model.weights)
    path.write_text('{"of": "somebody else"}')
    with pytest.raises(ModelError, match="not the model record"):
        read_model_record(model.weights)
    path.unlink()
    assert read_model_record(model.weights) is None


def test_another_librarys_network_is_trained_from_fresh_weights(digits, tmp_path):
    recipes = [RECIPE.model_copy(update={"epochs": 1, "seed": seed}) for seed in (0, 1)]
    first, second = (
        obtain_model(
            spec(digits, architecture="timm:test_resnet", recipe=recipe), kind="x", cache=tmp_path, device="cpu"
        )
        for recipe in recipes
    )
    assert not torch.equal(weights_of(first), weights_of(second))
    loaded = load_target("timm:test_resnet", weights=first.weights, dataset=digits, device="cpu")
    images = digits.batch(np.arange(20))
    assert torch.allclose(loaded.posteriors(images), first.target.posteriors(images), atol=1e-5)
    with pytest.raises(ConfigurationError, match="not a network"):
        obtain_model(spec(digits, architecture="http://127.0.0.1/predict"), kind="x", device="cpu")


def specs_of(digits):
    return [spec(digits, records=RECORDS[:count], recipe=RECIPE) for count in (60, 100, 150)]


def test_side_by_side_each_model_is_what_it_would_be_alone(digits, tmp_path):
    alone = [obtain_model(wanted, kind="x", device="cpu") for wanted in specs_of(digits)]
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    seen: list[tuple[int, int]] = []
    several = obtain_models(
        specs_of(digits),
        kind="x",
        cache=tmp_path,
        device="cpu",
        threads=2,
        progress=lambda *pair: seen.append(pair),
    )
    assert torch.equal(state, torch.random.get_rng_state())
    assert seen[-1] == (6, 6) and [done for done, _ in seen] == sorted(done for done, _ in seen)
    for one, other in zip(alone, several, strict=True):
        assert torch.equal(weights_of(one), weights_of(other))
    assert threading.active_count() < 50


def test_side_by_side_with_batch_norms_too(digits):
    """Folding them traces the network, which must not happen while another thread trains."""
    recipes = [RECIPE.model_copy(update={"epochs": 1 + number % 2, "seed": number}) for number in range(4)]
    wanted = [spec(digits, records=RECORDS[:40], architecture="timm:test_resnet", recipe=recipe) for recipe in recipes]
    alone = [obtain_model(one, kind="x", device="cpu") for one in wanted]
    several = obtain_models(wanted, kind="x", device="cpu", threads=4)
    for one, other in zip(alone, several, strict=True):
        assert torch.equal(weights_of(one), weights_of(other))


@pytest.mark.parametrize("architecture", ["airbench-small", "simple-cnn"])
def test_side_by_side_in_bf16_to_the_last_bit(digits, architecture):
    """Autocast belongs to a thread: each has to round its own passes, and no one else's."""
    changes = {"epochs": 2, "batch_size": 16, "precision": "bf16", "learning_rate": 0.05, "bias_rate": 1.0}
    fast = make_recipe("fast", architecture, changes)
    exact = fast.model_copy(update={"precision": "fp32"})
    recipes = [fast, exact, fast.model_copy(update={"seed": 1}), exact]
    wanted = [spec(digits, records=RECORDS[:40], architecture=architecture, recipe=recipe) for recipe in recipes]
    alone = [obtain_model(one, kind="x", device="cpu") for one in wanted]
    several = obtain_models(wanted, kind="x", device="cpu", threads=4)
    for one, other in zip(alone, several, strict=True):
        assert torch.equal(weights_of(one), weights_of(other))
    assert not torch.equal(weights_of(several[0]), weights_of(several[1])), "nothing was rounded"


def test_networks_that_draw_random_numbers_are_trained_one_after_the_other(digits, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert together.choose_thread_count(specs_of(digits), "cpu") == 2
    big = ImageDataset(
        "big", torch.zeros(40, 3, 32, 32, dtype=torch.uint8), np.arange(40) % 10, tuple("0123456789"), {}
    )
    dropout = [
        ModelSpec(big, np.arange(20 + extra), big.labels[: 20 + extra], 10, "vgg11", RECIPE) for extra in range(2)
    ]
    assert together.choose_thread_count(dropout, "cpu") == 1
    monkeypatch.setattr(together, "PARALLEL_BYTES", 1 << 20)
    assert together.choose_thread_count(specs_of(digits), "cpu") == 1, "memory is too small for two"


def test_when_one_fails_the_others_stop_and_go_on_later(digits, tmp_path):
    recipe = RECIPE.model_copy(update={"epochs": 30})
    diverging = spec(digits, recipe=RECIPE.model_copy(update={"learning_rate": 1e12}))
    steady = spec(digits, recipe=recipe, records=RECORDS[:60])
    with pytest.raises(ModelError, match="diverged"):
        obtain_models([diverging, steady], kind="x", cache=tmp_path, device="cpu", threads=2)
    alone = obtain_model(steady, kind="x", device="cpu")
    (rest,) = obtain_models([steady], kind="x", cache=tmp_path, device="cpu")
    assert torch.equal(weights_of(alone), weights_of(rest))


class Decoded:
    """Images that count how often they are decoded."""

    def __init__(self, images):
        self.images, self.shape, self.fetched = images, tuple(images.shape), 0

    def __getitem__(self, indices):
        self.fetched += len(indices)
        return self.images[indices]


def test_images_are_decoded_once_for_all(digits):
    images = Decoded(digits.images)
    lazy = ImageDataset("lazy", images, digits.labels, digits.class_names, {}, content_digest="lazy")

    def specs():
        return [ModelSpec(lazy, RECORDS[:n], lazy.labels[RECORDS[:n]], 10, "simple-cnn", RECIPE) for n in (60, 150)]

    alone = [obtain_model(spec, kind="x", device="cpu") for spec in specs()]
    apart, images.fetched = images.fetched, 0
    several = obtain_models(specs(), kind="x", device="cpu")
    # Means and deviations take one look at each spec's images; training takes one more at all of them together.
    assert images.fetched == (60 + 150) + 150 < apart
    for one, other in zip(alone, several, strict=True):
        assert torch.equal(weights_of(one), weights_of(other))
