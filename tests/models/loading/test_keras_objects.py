"""Keras models as objects are fed like those of files: channels last."""

import numpy as np
import pytest
import torch

from installed import needs_keras
from securitynet.datasets.in_memory import dataset_from_objects
from securitynet.errors import ModelError, TargetError
from securitynet.models.loading.load import load_target
from securitynet.models.sources.keras import ChannelsLast, import_keras


def build(keras, shape=(8, 6, 1)):
    keras.utils.set_random_seed(3)
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input(shape),
            layers.Conv2D(4, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Flatten(),
            layers.Dense(5, activation="softmax"),
        ]
    )
    model.layers[1].set_weights([np.full(4, value, np.float32) for value in (1.5, 0.1, 0.3, 2.0)])
    return model


@pytest.fixture(scope="module")
def keras():
    needs_keras()
    return import_keras()


@pytest.fixture(scope="module")
def dataset():
    images = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 6), dtype=np.uint8)
    arrays = images, np.arange(40) % 5
    return dataset_from_objects(arrays, arrays).dataset


def test_images_reach_it_with_channels_last(keras, dataset, tmp_path):
    model = build(keras)
    before = [value.copy() for value in model.get_weights()]
    target = load_target(model, dataset=dataset, normalize="none", device="cpu")
    images = dataset.batch(np.arange(40))
    expected = model.predict(images.permute(0, 2, 3, 1).numpy() / np.float32(255), verbose=0)
    np.testing.assert_allclose(target.posteriors(images).numpy(), expected, atol=1e-5)
    file = tmp_path / "model.keras"
    model.save(file)
    loaded = load_target(f"keras:{file}", dataset=dataset, normalize="none", device="cpu")
    torch.testing.assert_close(target.posteriors(images), loaded.posteriors(images))
    inputs = (images.float() / 255).requires_grad_()
    target.module(inputs)[:, 0].sum().backward()
    assert inputs.grad is not None and bool(inputs.grad.abs().sum() > 0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_augmentation_inside_the_model_is_off_as_in_its_own_predictions(keras, dataset, tmp_path):
    """Keras' random layers are active by default; as a model's part, most tutorials put them first."""
    layers, inner = keras.layers, build(keras)
    augmented = keras.Sequential(
        [layers.Input((8, 6, 1)), layers.RandomTranslation(0.3, 0.3), layers.RandomFlip(), inner]
    )

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.part = inner

        def call(self, inputs):  # states nothing about training
            return self.part(inputs)

    images = dataset.batch(np.arange(40))
    pixels = images.permute(0, 2, 3, 1).numpy() / np.float32(255)
    expected = inner.predict(pixels, verbose=0)
    augmented.save(tmp_path / "model.keras")
    for model in (augmented, f"keras:{tmp_path / 'model.keras'}"):
        target = load_target(model, dataset=dataset, normalize="none", device="cpu")
        assert next(check for check in target.checks if check.what == "answers").agrees
        np.testing.assert_allclose(target.posteriors(images).numpy(), expected, atol=1e-5)
    with torch.inference_mode():
        own = ChannelsLast(Own()).eval()(images.float() / 255)
    np.testing.assert_allclose(own.numpy(), expected, atol=1e-5)


def test_its_digest_covers_weights_and_settings_and_not_the_names_that_keras_numbers(keras, dataset):
    def checksum(model):
        return load_target(model, dataset=dataset, normalize="none", device="cpu").backend.checksum

    model, again, other = build(keras), build(keras), build(keras)
    assert model.layers[0].name != again.layers[0].name
    assert checksum(model) == checksum(again)
    other.layers[-1].set_weights([value * 2 for value in other.layers[-1].get_weights()])
    assert checksum(other) != checksum(model)


def test_images_of_another_size_are_resized_and_other_channels_refused(keras, dataset):
    target = load_target(build(keras, (12, 12, 1)), dataset=dataset, normalize="none", device="cpu")
    assert target.preprocessing.input_size == (12, 12)
    with pytest.raises(TargetError, match="3 channels"):
        load_target(build(keras, (8, 6, 3)), dataset=dataset, normalize="none", device="cpu")


def test_a_model_of_another_back_end_is_refused_with_the_way_out(dataset):
    model = type("Model", (), {"__module__": "tf_keras.src.engine.training", "__call__": lambda self, images: images})
    with pytest.raises(ModelError, match="another back end") as refusal:
        load_target(model(), dataset=dataset)
    assert "model.save('model.keras')" in refusal.value.hint
