"""The recipe ``fast``: each of its ingredients against values by hand, and what it leaves as it was."""

from __future__ import annotations

import copy
import math
import re

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional

from securitynet.datasets import load, splits
from securitynet.devices import uses_bfloat16
from securitynet.errors import ConfigurationError, UnknownName
from securitynet.models.architectures.factory import build
from securitynet.models.shadows.plan import ShadowPlan, ShadowTraining, resolve_training
from securitynet.models.store.record_files import read_target_record
from securitynet.models.store.train_target import train_target
from securitynet.models.training.checkpoints import CheckpointFile
from securitynet.models.training.config import TrainConfig
from securitynet.models.training.fit import fit
from securitynet.models.training.lookahead import Lookahead
from securitynet.models.training.optimizers import make_optimizer, set_learning_rate
from securitynet.models.training.presets import RECIPES, make_recipe
from securitynet.models.training.recipe import Recipe

DIGITS = load("digits")
MEMBERS = splits.four_way(DIGITS).members
SMALL = {"epochs": 4, "batch_size": 64, "precision": "fp32"}


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10)
        )


def train(module: nn.Module, recipe: Recipe, **options):
    labels = DIGITS.labels[MEMBERS]
    return fit(module, DIGITS.images, labels, recipe, indices=MEMBERS, device="cpu", **options)


def weights(module: nn.Module) -> dict[str, bytes]:
    return {name: value.contiguous().numpy().tobytes() for name, value in module.state_dict().items()}


# --- what stays as it was


def test_the_default_recipe_has_the_fields_that_it_always_had():
    added = {"bias_rate", "lookahead", "precision"}
    assert Recipe().model_dump().keys() == Recipe.model_fields.keys() - added
    changed = Recipe(**{**Recipe().model_dump(), "lookahead": True, "bias_rate": 2.0, "precision": "bf16"})
    assert Recipe(**changed.model_dump()) == changed


def test_the_file_name_of_a_default_training_is_that_of_earlier_versions():
    config = TrainConfig(architecture="simple-cnn", dataset="digits")
    assert config.weights_file.name == "simple-cnn-digits-de09954a.safetensors"
    assert "recipe" not in TrainConfig(architecture="simple-cnn", dataset="digits", recipe="fast").model_dump()


# --- the recipe by its name


def test_options_override_the_named_recipe():
    config = TrainConfig(architecture="resnet18", dataset="digits", recipe="fast", epochs=4, lookahead=False)
    recipe = config.chosen_recipe
    assert (recipe.epochs, recipe.lookahead) == (4, False)
    assert {**RECIPES["fast"], "epochs": 4, "lookahead": False}.items() <= dict(recipe).items()
    assert TrainConfig(architecture="resnet18", dataset="digits", recipe="ml-doctor").chosen_recipe == Recipe()
    again = TrainConfig.model_validate(config.model_dump(mode="json", exclude_unset=True))
    assert again.chosen_recipe == recipe  # as studies send it to workers, without the name
    with pytest.raises(ValidationError, match="recipe"):
        TrainConfig(architecture="resnet18", dataset="digits", recipe="quick")


def test_airbench_gets_the_rates_of_the_paper_and_others_usual_ones():
    own, other = (make_recipe("fast", name) for name in ("arch:airbench-wide", "resnet18"))
    scale = 1 + 1 / (1 - 0.85)
    assert own.learning_rate == pytest.approx(11.5 / scale, rel=1e-3)
    assert own.weight_decay == pytest.approx(0.0153 / scale / own.learning_rate, rel=1e-2)
    assert own.bias_rate == 64
    assert (other.bias_rate, other.weight_decay) == (1, 5e-4)
    assert (own.batch_size, other.batch_size) == (1024, 128)
    config = TrainConfig(architecture="airbench", dataset="digits", recipe="fast")
    assert config.chosen_recipe == make_recipe("fast", "airbench")


def test_python_takes_the_name_and_refuses_others():
    target = train_target("simple-cnn", DIGITS, recipe="fast", epochs=1, batch_size=128, device="cpu")
    assert "for 1 epochs" in target.notes[0]
    with pytest.raises(UnknownName, match="quick"):
        train_target("simple-cnn", DIGITS, recipe="quick")


def test_shadow_models_take_the_name():
    trained_fast = train_target("airbench-small", DIGITS, recipe="fast", epochs=1, batch_size=128, device="cpu")
    simple = {"architecture": "simple-cnn"}

    def resolve(**settings):
        return resolve_training(ShadowPlan(**settings), trained_fast, None).recipe

    assert resolve(recipe="fast") == make_recipe("fast", "airbench-small")
    assert resolve(recipe={"recipe": "fast", "epochs": 3}, **simple) == make_recipe("fast", "simple-cnn", {"epochs": 3})
    assert resolve(recipe={"epochs": 3}) == Recipe(epochs=3)
    assert ShadowTraining(recipe={"epochs": 3}).recipe == {"epochs": 3}
    with pytest.raises(ValidationError, match="no recipe 'quick'"):
        ShadowTraining(recipe="quick")


def test_shadow_models_of_a_target_that_was_trained_fast_are_too(tmp_path):
    out = tmp_path / "m.safetensors"
    target = train_target("airbench-small", DIGITS, recipe="fast", epochs=1, batch_size=128, device="cpu", out=out)
    trained = read_target_record(out)
    fast = make_recipe("fast", "airbench-small", {"epochs": 1, "batch_size": 128})
    assert resolve_training(ShadowTraining(), target, trained).recipe == fast
    # A named recipe replaces all of the target's.
    assert resolve_training(ShadowTraining(recipe="ml-doctor"), target, trained).recipe == Recipe()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bias_rate": 64.0, "optimizer": "adam"}, "sgd or nesterov"),
        ({"optimizer": "nesterov", "momentum": 0.0}, "needs momentum"),
        ({"bias_rate": 0.0}, "greater than 0"),
    ],
)
def test_combinations_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        Recipe(**changes)


@pytest.mark.parametrize("changes", [{"lookahead": True}, {"precision": "bf16"}, {"recipe": "fast"}])
def test_dp_sgd_refuses_averages_and_rounded_gradients(changes):
    from securitynet.defenses.dp_sgd import DpSgd

    with pytest.raises(ConfigurationError, match=r"cannot be combined with --(lookahead|precision)"):
        train_target("simple-cnn", DIGITS, epochs=1, defense=DpSgd(), device="cpu", **changes)


# --- schedule


def test_triangle_by_hand():
    recipe = Recipe(schedule="triangle", epochs=100, learning_rate=2.0)
    # 0.2 of the rate at first, all of it at 23%, 0.07 at the end; half-way between, the means.
    expected = {0: 0.4, 11.5: 1.2, 23: 2.0, 61.5: 1.07, 100: 0.14}
    assert {epoch: recipe.learning_rate_at(epoch) for epoch in expected} == pytest.approx(expected)


def test_triangle_changes_the_rate_with_every_batch(monkeypatch):
    rates = []
    step = torch.optim.SGD.step
    monkeypatch.setattr(torch.optim.SGD, "step", lambda self: (rates.append(self.param_groups[0]["lr"]), step(self)))
    history = train(network(), Recipe(schedule="triangle", epochs=2, batch_size=100, learning_rate=0.1))
    steps = math.ceil(len(MEMBERS) / 100)
    finer = Recipe(schedule="triangle", epochs=2 * steps, learning_rate=0.1)
    expected = [finer.learning_rate_at(number) for number in range(2 * steps)]
    assert rates == pytest.approx(expected)
    assert history.learning_rate == pytest.approx((expected[0], expected[steps]))


# --- optimizer


def test_nesterov_and_the_biases_rate_by_hand():
    layer = nn.BatchNorm1d(2)
    module = nn.Sequential(layer, nn.Linear(2, 2, bias=False))
    bias, weight = layer.bias.detach().double().numpy(), module[1].weight.detach().double().numpy()
    optimizer = make_optimizer(
        module, Recipe(optimizer="nesterov", momentum=0.8, weight_decay=0.1, bias_rate=16.0, learning_rate=1.0)
    )
    bias, weight = bias.copy(), weight.copy()
    speeds = {"bias": np.zeros_like(bias), "weight": np.zeros_like(weight)}
    generator = torch.Generator().manual_seed(0)
    for rate in (0.5, 0.25):
        set_learning_rate(optimizer, rate)
        gradients = torch.randn(2, generator=generator), torch.randn(2, 2, generator=generator)
        layer.bias.grad, module[1].weight.grad = gradients
        layer.weight.grad = torch.zeros(2)
        optimizer.step()
        for name, value, gradient, own_rate, decay in (
            ("bias", bias, gradients[0].double().numpy(), 16 * rate, 0.1 / 16),
            ("weight", weight, gradients[1].double().numpy(), rate, 0.1),
        ):
            gradient = gradient + decay * value
            speeds[name] = 0.8 * speeds[name] + gradient
            value -= own_rate * (gradient + 0.8 * speeds[name])
    np.testing.assert_allclose(layer.bias.detach().numpy(), bias, rtol=1e-5)
    np.testing.assert_allclose(module[1].weight.detach().numpy(), weight, rtol=1e-5)


def test_only_biases_of_batch_norms_have_a_rate_of_their_own():
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.BatchNorm1d(3, affine=False), nn.BatchNorm1d(3))
    module[3].bias.requires_grad_(False)
    groups = make_optimizer(module, Recipe(bias_rate=4.0)).param_groups
    assert [id(p) for p in groups[1]["params"]] == [id(module[1].bias)]
    assert sum(len(group["params"]) for group in groups) == 2 + 2 + 1
    assert len(make_optimizer(module, Recipe()).param_groups) == 1


# --- lookahead


def test_lookahead_by_hand():
    module = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        module.weight.fill_(1.0)
    lookahead = Lookahead(module)
    average, value, seen = 1.0, 1.0, []
    for done in range(1, 13):
        with torch.no_grad():
            module.weight += 1  # stands for the step of the optimizer
        value += 1
        lookahead.update(done, 12)
        if done == 12:
            value = average
        elif done % 5 == 0:
            share = 0.95**5 * (done / 12) ** 3
            average = share * average + (1 - share) * value
            value = average
        seen.append((module.weight.item(), value))
    measured, expected = zip(*seen, strict=True)
    assert measured == pytest.approx(expected, rel=1e-6)
    assert measured[3] == 5.0  # nothing before the fifth batch
    assert measured[-1] == measured[9]  # at last the average as it is


def test_lookahead_averages_running_statistics_and_leaves_counters():
    module = nn.BatchNorm1d(1)
    lookahead = Lookahead(module)
    module(torch.tensor([[0.0], [20.0]]))
    lookahead.update(10, 10)
    assert module.running_mean.item() == 0  # the average of before the first batch
    assert module.num_batches_tracked.item() == 1


# --- precision


def test_bf16_rounds_the_passes_and_not_the_weights():
    half, single = network(), network()
    settings = {"epochs": 2, "learning_rate": 0.05, "schedule": "constant"}
    train(half, Recipe(precision="bf16", **settings))
    train(single, Recipe(**settings))
    for one, other in zip(half.parameters(), single.parameters(), strict=True):
        assert one.dtype == torch.float32
        assert not torch.equal(one, other)
        torch.testing.assert_close(one, other, atol=0.05, rtol=0.05)
    kept = half[4].weight
    assert not torch.equal(kept, kept.bfloat16().float())  # more bits than bfloat16 has


@pytest.mark.parametrize("supported", [True, False])
def test_auto_is_bf16_where_it_is_faster(monkeypatch, supported):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: supported)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: supported)
    for device in ("cpu", "cuda"):
        assert uses_bfloat16("auto", torch.device(device)) is supported
        assert uses_bfloat16("bf16", torch.device(device))
        assert not uses_bfloat16("fp32", torch.device(device))
    assert not uses_bfloat16("auto", torch.device("meta"))


# --- the whole


class Interrupted(Exception):
    """Stands for whatever ends a process between two epochs."""


def airbench() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build("airbench-small", 10, 1, 8)


@pytest.mark.parametrize(("network", "precision"), [(network, "fp32"), (network, "bf16"), (airbench, "bf16")])
def test_interrupted_after_any_epoch_the_weights_are_the_same(tmp_path, monkeypatch, network, precision):
    monkeypatch.setattr(CheckpointFile, "due", lambda self: True)
    recipe = make_recipe(
        "fast", "simple-cnn", {**SMALL, "precision": precision, "learning_rate": 0.1, "bias_rate": 4.0}
    )
    whole = network()
    train(whole, recipe)
    again = network()
    train(again, recipe)
    assert weights(again) == weights(whole)
    for stop in range(1, recipe.epochs):

        def interrupt(done: int, total: int, history: object, stop: int = stop) -> None:
            if done == stop:
                raise Interrupted

        with pytest.raises(Interrupted):
            train(network(), recipe, checkpoint=tmp_path / str(stop), progress=interrupt)
        resumed, notes = network(), []
        train(resumed, recipe, checkpoint=tmp_path / str(stop), note=notes.append)
        assert notes == [f"Resumed after epoch {stop} of 4."]
        assert weights(resumed) == weights(whole)
    other = network()
    train(other, recipe.model_copy(update={"seed": 1}))
    assert weights(other) != weights(whole)


def test_equals_a_loop_written_out():
    """A single batch without augmentation, against PyTorch's own optimizer and loss."""
    settings = {**SMALL, "epochs": 1, "augment": "none", "batch_size": len(MEMBERS), "bias_rate": 2.0}
    recipe = make_recipe("fast", "simple-cnn", settings)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))
    module, averaged = copy.deepcopy(plain), copy.deepcopy(plain)
    initial = copy.deepcopy(plain.state_dict())
    train(module, recipe.model_copy(update={"lookahead": False}))
    rate, decay = 0.2 * recipe.learning_rate, recipe.weight_decay
    rest = [p for name, p in plain.named_parameters() if name != "2.bias"]
    groups = [{"params": rest}, {"params": [plain[2].bias], "lr": 2 * rate, "weight_decay": decay / 2}]
    optimizer = torch.optim.SGD(groups, lr=rate, momentum=0.85, nesterov=True, weight_decay=decay)
    images, labels = DIGITS.images[torch.from_numpy(MEMBERS)] / 255, torch.from_numpy(DIGITS.labels[MEMBERS])
    functional.cross_entropy(plain(images), labels, label_smoothing=0.2).backward()
    optimizer.step()
    for one, other in zip(module.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    # With lookahead, a single batch is both the first and the last: the average is of before it.
    train(averaged, recipe)
    assert torch.equal(averaged[4].weight, initial["4.weight"])


@pytest.mark.parametrize("architecture", ["airbench-small", "simple-cnn", "cifar-resnet20"])
def test_any_architecture_learns(architecture):
    # Mirrored digits are none.
    changes = {"epochs": 12, "batch_size": 64, "learning_rate": 0.1, "augment": "none"}
    target = train_target(architecture, DIGITS, recipe="fast", device="cpu", **changes)
    accuracy = float(re.findall(r"test accuracy ([\d.]+)", target.notes[0])[0])
    assert accuracy > 0.7


@pytest.mark.parametrize("architecture", ["simple-cnn", "cifar-resnet20"])
def test_other_networks_learn_with_its_own_batches_and_rates(architecture):
    """In batches of 1,024 there was one step an epoch, after which SimpleCNN was right on 61%."""
    target = train_target(architecture, DIGITS, recipe="fast", device="cpu", augment="none", epochs=30)
    accuracy = float(re.findall(r"test accuracy ([\d.]+)", target.notes[0])[0])
    assert accuracy > 0.8


def test_a_study_trains_by_the_name(tmp_path):
    from securitynet.studies.definition.file import parse_study
    from securitynet.studies.definition.file_digests import FileDigests
    from securitynet.studies.definition.targets import expand_targets

    table = {"architecture": "airbench", "dataset": "digits", "recipe": ["ml-doctor", "fast"], "lookahead": False}
    study = parse_study({"name": "s", "train": [table], "attacks": [{"name": "loss-threshold"}]})
    plain, fast = expand_targets(study, tmp_path, FileDigests()).targets
    assert TrainConfig.model_validate(plain.train).chosen_recipe == Recipe()
    assert TrainConfig.model_validate(fast.train).chosen_recipe == make_recipe("fast", "airbench", {"lookahead": False})
    assert "fast" in fast.label
    assert plain.key != fast.key
