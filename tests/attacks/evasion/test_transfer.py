"""Transfer from surrogates: trained once, examples made once, any number of them, by reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from evasion_cases import EMPTY, splits_of, white_box
from securitynet.attacks.evasion.fgsm import Fgsm
from securitynet.attacks.evasion.fgsm_transfer import EXAMPLES, RECIPE, FgsmTransfer
from securitynet.errors import AccessDenied, ConfigurationError, SplitError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.input_gradients import InputGradients
from securitynet.records import Access, Auxiliary, ThreatModel

PARTIAL, SHADOW = FgsmTransfer.threat_models
ADAM = {"optimizer": "adam", "learning_rate": 5e-3, "augment": "none", "batch_size": 50}
QUICK = {"architecture": "simple-cnn", "recipe": {"epochs": 15, **ADAM}}
EPSILONS = (0.1, 0.2)


def measured(output):
    return {m.name: m for m in output.measurements(level=0.95, fprs=(), seed=0)}


@pytest.fixture
def counted(monkeypatch):
    """How many images gradients were taken of."""
    images_seen = []
    original = InputGradients.__call__

    def counting(self, images, labels):
        images_seen.append(len(images))
        return original(self, images, labels)

    monkeypatch.setattr(InputGradients, "__call__", counting)
    return images_seen


def test_examples_are_made_once_for_all_targets_and_epsilons(networks, data, context, counted):
    for number, network in enumerate(networks):
        for epsilons in (EPSILONS, (0.05,)):
            attack = FgsmTransfer(samples=60, epsilons=epsilons, **QUICK)
            output = attack(white_box(network, name=f"target {number}"), data, context, PARTIAL)
            assert output.alternatives
    assert sum(counted) == 60
    assert list((context.cache / EXAMPLES).glob("*/*.piece"))


def test_kept_signs_give_the_same_examples(target, data, context):
    attack = FgsmTransfer(samples=40, epsilons=EPSILONS, keep_examples=True, **QUICK)
    first, second = (attack(target, data, context, PARTIAL) for _ in range(2))
    for key, array in first.arrays().items():
        np.testing.assert_array_equal(array, second.arrays()[key], key)


def test_weaker_than_the_targets_own_gradients_stronger_than_noise(target, data, context):
    transfer = FgsmTransfer(samples=300, epsilons=(0.15,), **QUICK)(target, data, context, PARTIAL)
    own = Fgsm(samples=300, epsilons=(0.15,))(target, data, context, Fgsm.threat_models[0])
    key = "success@epsilon=0.15"
    assert measured(transfer)[key].value < measured(own)[key].value
    images = data.dataset.batch(transfer.indices).float() / 255
    signs = torch.randint(0, 2, images.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    noisy = target.labels((images + 0.15 * signs).clamp(0, 1)).numpy() != transfer.labels
    assert (transfer.perturbed[0, 0] != transfer.labels).sum() > noisy.sum()
    assert measured(transfer)["surrogate-accuracy"].value > 0.8


def test_trained_on_what_the_threat_model_gives(target, data, fresh):
    seen = {}
    for model in (PARTIAL, SHADOW):
        context = Context(seed=3, cache=fresh(model.auxiliary.value), device="cpu")
        seen[model.auxiliary] = FgsmTransfer(samples=60, epsilons=EPSILONS, **QUICK)(target, data, context, model)
    assert not np.array_equal(seen[Auxiliary.PARTIAL].surrogate, seen[Auxiliary.SHADOW].surrogate)
    poor = TrialData(data.dataset, replace(data.splits, known_members=EMPTY))
    with pytest.raises(SplitError, match="too few records"):
        FgsmTransfer(**QUICK)(target, poor, Context(), PARTIAL)


@pytest.fixture(scope="module")
def stolen(networks, digits, tmp_path_factory):
    """Weights of a good and of a poor surrogate, from stores like that in which model stealing keeps its own too."""
    found = []
    data = TrialData(digits, splits_of(len(digits)))
    for epochs in (15, 4):
        context = Context(seed=3, cache=tmp_path_factory.mktemp("stolen"), device="cpu")
        recipe = {**ADAM, "epochs": epochs}
        attack = FgsmTransfer(samples=5, epsilons=(0.1,), architecture="simple-cnn", recipe=recipe)
        attack(white_box(networks[0]), data, context, PARTIAL)
        found += (context.cache / "surrogates").glob("*/weights.safetensors")
    return [str(path) for path in found]


def test_a_stolen_model_by_reference(target, data, context, stolen):
    attack = FgsmTransfer(samples=60, epsilons=EPSILONS, surrogates={"model": "arch:simple-cnn", "weights": stolen[0]})
    trained = FgsmTransfer(samples=60, epsilons=EPSILONS, **QUICK)
    found, expected = (one(target, data, context, PARTIAL) for one in (attack, trained))
    np.testing.assert_array_equal(found.surrogate, expected.surrogate, "it is the same model, read from its file")
    np.testing.assert_array_equal(found.perturbed, expected.perturbed)
    assert "arch:simple-cnn" in measured(found)["success@epsilon=0.1"].note


def test_several_surrogates_and_the_best_of_them(target, data, context, stolen):
    given = tuple({"model": "arch:simple-cnn", "weights": path} for path in stolen)
    attack = FgsmTransfer(samples=60, epsilons=EPSILONS, surrogates=given)
    output = attack(target, data, context, PARTIAL)
    found = measured(output)
    evades = output.perturbed != output.labels
    right = output.clean == output.labels
    expected = (evades[:, 0].any(axis=0) & right).sum() / right.sum()
    assert found["success@epsilon=0.1"].value == pytest.approx(expected)
    for number in (1, 2):
        assert found[f"surrogate-{number}.success@epsilon=0.1"].value <= found["success@epsilon=0.1"].value
        assert f"surrogate-{number}.surrogate-accuracy" in found
    assert "any of 2 surrogates" in found["success@epsilon=0.1"].note


def test_the_trial_is_about_these_weights(stolen, tmp_path):
    attack = FgsmTransfer(surrogates={"model": "arch:simple-cnn", "weights": stolen[0]})
    assert len(attack.surrogates[0].checksum) == 64
    assert FgsmTransfer.model_validate(attack.model_dump(mode="json")) == attack
    other = tmp_path / "other.safetensors"
    other.write_bytes(Path(stolen[0]).read_bytes() + b" ")
    stated = {**attack.model_dump(mode="json")["surrogates"][0], "weights": str(other)}
    with pytest.raises(ConfigurationError, match="checksum"):
        FgsmTransfer(surrogates=stated)
    with pytest.raises(ConfigurationError, match="There is no file"):
        FgsmTransfer(surrogates={"model": "arch:simple-cnn", "weights": str(tmp_path / "absent.pth")})


def test_settings_of_the_default_surrogate():
    attack = FgsmTransfer(recipe={"epochs": 3})
    assert attack.architecture == "resnet18"
    assert attack.recipe == RECIPE.model_copy(update={"epochs": 3})
    assert FgsmTransfer(surrogates="timm:resnet18").surrogates[0].model == "timm:resnet18"


def test_a_surrogate_that_only_answers_is_refused(target, data, context, tmp_path):
    attack = FgsmTransfer(surrogates=f"onnx:{tmp_path / 'absent.onnx'}")
    with pytest.raises(Exception, match="absent"):
        attack(target, data, context, PARTIAL)


def test_does_not_look_at_the_target_itself(target, data, context):
    with pytest.raises(AccessDenied):
        _ = target.under(Access.BLACK_BOX).module
    attack = FgsmTransfer(samples=10, epsilons=(0.1,), **QUICK)
    assert attack(target.under(Access.BLACK_BOX), data, context, PARTIAL) is not None
    with pytest.raises(ConfigurationError, match="does not serve"):
        attack(target, data, context, ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.NONE))
