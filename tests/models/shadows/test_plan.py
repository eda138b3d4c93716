"""Shadow models of a defended target: trained as `securitynet train --defense` trains, stored apart, resumed."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from securitynet.datasets import load
from securitynet.datasets import splits as make_splits
from securitynet.defenses import DEFENSES
from securitynet.defenses.base import make_defense
from securitynet.defenses.dp_sgd import DpSgd
from securitynet.errors import ConfigurationError
from securitynet.models.loading.load import load_target
from securitynet.models.shadows import (
    ShadowPlan,
    ShadowTraining,
    obtain_shadow,
    obtain_shadow_model,
    obtain_shadow_outputs,
    resolve_training,
)
from securitynet.models.shadows.outputs import plan_specs
from securitynet.models.store.cached_model import ModelSpec, obtain_model
from securitynet.models.store.effective_splits import restore_splits
from securitynet.models.store.parallel import choose_thread_count
from securitynet.models.store.record_files import read_model_record, read_target_record
from securitynet.models.store.train_target import train_target
from securitynet.models.training.recipe import Recipe
from securitynet.models.training.training_defense import DefenseRecord

FAST = {"epochs": 3, "batch_size": 32, "learning_rate": 0.05, "schedule": "constant"}
# Loss relaxation differs from plain training once the loss comes below alpha: soon, with this one.
SETTINGS = {"distillation": {"data": "held-out"}, "relaxloss": {"alpha": 2.25}}
TRAINING = [name for name in DEFENSES if DEFENSES.get(name).stage == "training"]


def weights(target):
    return {name: value.clone() for name, value in target.module.state_dict().items()}


def trained_with(defense, digits, tmp_path, architecture="simple-cnn", **changes):
    out = tmp_path / "target.safetensors"
    recipe = Recipe(**{**FAST, **changes})
    target = train_target(architecture, digits, recipe=recipe, out=out, defense=defense, device="cpu")
    return target, read_target_record(out)


@pytest.mark.parametrize("name", TRAINING)
def test_a_shadow_model_is_trained_as_a_target_is(name, tmp_path):
    """The same records, recipe, seed and defense give the same weights by both ways: there is one."""
    digits, defense = load("digits", limit=240), make_defense(name, SETTINGS.get(name))
    target, trained = trained_with(defense, digits, tmp_path)
    members = make_splits.four_way(digits).members
    shadow = obtain_shadow(digits, members, "simple-cnn", Recipe(**FAST), defense=defense, cache=tmp_path, device="cpu")
    found, wanted = weights(shadow.target), weights(target)
    assert found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted)
    np.testing.assert_array_equal(shadow.members, restore_splits(trained, digits).members)
    folders = list((tmp_path / "shadows").iterdir())
    assert len(folders) == 1
    assert {path.name for path in folders[0].iterdir()} == {"lock", "weights.json", "weights.safetensors"}
    facts = read_model_record(folders[0] / "weights.safetensors")
    assert (facts.defense.name, facts.defense.set_aside) == (name, trained.defense.set_aside)
    assert facts.defense.privacy == trained.defense.privacy
    plain = obtain_shadow(digits, members, "simple-cnn", Recipe(**FAST), cache=tmp_path, device="cpu")
    assert not all(torch.equal(weights(plain.target)[key], wanted[key]) for key in wanted)
    assert len(list((tmp_path / "shadows").iterdir())) == 2


def test_keys_of_models_without_a_defense_are_what_they_were(digits, tmp_path):
    """Values of the version before shadow models had defenses: what users have in their caches stays theirs."""
    records = np.arange(60)

    def key(recipe, **changes):
        spec = ModelSpec(digits, records, digits.labels[records], 10, "simple-cnn", recipe, **changes)
        return obtain_model(spec, kind="shadows", device="cpu").key

    plain, stopping = Recipe(epochs=2, seed=7), Recipe(epochs=2, seed=7, patience=1)
    small = plain.model_copy(update={"batch_size": 20})
    assert key(plain) == "defb58eb8d9af761f4913877605e6207"
    assert key(stopping) == "0145c4f1575284312a74a247f8e89638"
    held = make_defense("distillation", {"data": "held-out"})
    keys = [
        key(plain),
        key(small),
        key(small, defense=DpSgd(noise_multiplier=1.0, delta=1e-3)),
        key(small, defense=DpSgd(noise_multiplier=1.1, delta=1e-3)),
        key(plain, defense=held),
        key(plain, defense=held, aside=np.arange(100, 120)),
        key(plain, defense=held, aside=np.arange(100, 121)),
    ]
    assert len(set(keys)) == 7


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    "name", [pytest.param("dp-sgd", marks=pytest.mark.slow), "distillation", "adversarial-regularisation"]
)
def test_a_killed_shadow_model_goes_on_and_ends_the_same(name, digits, tmp_path):
    defense = make_defense(name)
    indices = np.arange(150)
    whole = obtain_shadow(digits, indices, "simple-cnn", Recipe(**FAST), defense=defense, device="cpu")
    seen = []

    def kill(done):
        seen.append(done)
        if done == 2:
            raise Killed

    arguments = digits, indices, "simple-cnn", Recipe(**FAST)
    with pytest.raises(Killed):
        obtain_shadow(*arguments, defense=defense, cache=tmp_path, device="cpu", progress=kill)
    (folder,) = (tmp_path / "shadows").iterdir()
    assert any(path.name.startswith("checkpoint") for path in folder.iterdir())
    rest = []
    again = obtain_shadow(*arguments, defense=defense, cache=tmp_path, device="cpu", progress=rest.append)
    assert rest[0] > 1
    assert all(torch.equal(a, b) for a, b in zip(weights(whole.target).values(), weights(again.target).values(),
                                                  strict=True))  # fmt: skip
    assert not any("checkpoint" in path.name for path in folder.iterdir())


def test_group_norms_come_with_the_weights(digits, tmp_path):
    defense = DpSgd(noise_multiplier=1.0)
    recipe = Recipe(**{**FAST, "epochs": 1})
    shadow = obtain_shadow(
        digits, np.arange(64), "cifar-resnet20", recipe, defense=defense, cache=tmp_path, device="cpu"
    )
    (folder,) = (tmp_path / "shadows").iterdir()
    loaded = load_target("arch:cifar-resnet20", weights=folder / "weights.safetensors", dataset=digits, device="cpu")
    torch.testing.assert_close(
        loaded.logits(digits.batch(np.arange(9))), shadow.target.logits(digits.batch(np.arange(9)))
    )
    again = obtain_shadow(
        digits, np.arange(64), "cifar-resnet20", recipe, defense=defense, cache=tmp_path, device="cpu"
    )
    assert all(torch.equal(a, b) for a, b in zip(weights(shadow.target).values(), weights(again.target).values(),
                                                  strict=True))  # fmt: skip


def test_what_is_imitated(digits, tmp_path):
    target, trained = trained_with(DpSgd(epsilon=8, secret_noise=True), digits, tmp_path, epochs=1)
    handed = make_defense(trained.defense.name, trained.defense.settings)
    resolved = resolve_training(ShadowTraining(), target, trained, handed)
    # As much noise as the target had, and none of its secrets: shadow models must come out alike each time.
    assert resolved.defense == DpSgd(noise_multiplier=trained.defense.privacy.noise_multiplier)
    assert resolved.assumptions == ()
    bare = resolve_training(ShadowTraining(defense="none"), target, trained, handed)
    assert bare.defense is None and "dp-sgd, and they were not" in bare.assumptions[0]
    for missing in (None, make_defense("dropout")):
        with pytest.raises(ConfigurationError, match="dp-sgd, which is not available"):
            resolve_training(ShadowTraining(), target, trained, missing)
    plain = trained.model_copy(update={"defense": None})
    assert resolve_training(ShadowTraining(), target, plain).defense is None


@pytest.mark.slow
def test_imitating_shadows_are_like_the_target_and_others_are_not(digits, tmp_path):
    defense = DpSgd(epsilon=2)
    target, trained = trained_with(defense, digits, tmp_path, epochs=5, learning_rate=0.01)
    data = restore_splits(trained, digits)
    records = np.union1d(data.members, data.non_members)[:50]
    told = {"trained": trained, "defense": defense, "cache": tmp_path, "device": "cpu"}
    like = obtain_shadow_outputs(target, digits, data, records, ShadowPlan(count=2), **told)
    unlike = obtain_shadow_outputs(target, digits, data, records, ShadowPlan(count=2, defense="none"), **told)
    assert like.fidelity == ()
    assert "dp-sgd, and they were not" in unlike.fidelity[0]
    one = obtain_shadow_model(target, digits, data, ShadowTraining(), **told)
    assert one.fidelity == ()
    facts = [json.loads(path.read_text()) for path in (tmp_path / "shadows").glob("*/weights.json")]
    noises = {fact["defense"]["privacy"]["noise_multiplier"] for fact in facts if fact["defense"]}
    assert len(facts) == 5 and noises == {trained.defense.privacy.noise_multiplier}


def test_records_are_set_aside_where_nobody_is_judged(digits, tmp_path):
    """Each judged record is in as many training sets as without the defense, and a student has seen none of them."""
    defense = make_defense("distillation", {"data": "held-out"})
    target, trained = trained_with(defense, digits, tmp_path, epochs=1)
    data = restore_splits(trained, digits)
    for pool in ("online", "offline"):
        plan = ShadowPlan(count=4, pool=pool)
        resolved = resolve_training(plan, target, trained, defense)
        specs = plan_specs(digits, data, plan, resolved, seed=0)
        judged = np.union1d(data.members, data.non_members)
        for spec in specs:
            if pool == "online":
                assert len(spec.aside) == len(spec.indices) and not np.isin(spec.aside, judged).any()
                np.testing.assert_array_equal(spec.parts.training, np.arange(len(spec.indices)))
            else:  # who knows the shadow data only has nothing else to set aside
                assert spec.aside is None and len(spec.parts.aside) == round(len(spec.indices) / 2)
        assert choose_thread_count(specs, "cpu") == 1
    found = obtain_shadow_outputs(
        target, digits, data, judged, ShadowPlan(count=4), trained=trained, defense=defense, device="cpu"
    )
    np.testing.assert_array_equal(found.included.sum(axis=0), 2)


def test_what_cannot_be_imitated_is_said_before_any_work(digits, tmp_path):
    defense = DpSgd(noise_multiplier=1.0)
    target, trained = trained_with(defense, digits, tmp_path, epochs=1, batch_size=300)
    data = restore_splits(trained, digits)
    plan = ShadowPlan(count=4, share=0.25)

    def never(*_):
        raise AssertionError("it was trained")

    with pytest.raises(
        ConfigurationError, match=r"can't be trained with the target's defense: DP-SGD draws batches of 300"
    ) as e:
        obtain_shadow_outputs(
            target, digits, data, data.members, plan, trained=trained, defense=defense, device="cpu", progress=never
        )
    assert 'defense = "none"' in e.value.hint


def test_a_defense_protects_trainings_on_labels_only(digits):
    soft = np.full((10, 10), 0.1, dtype=np.float32)
    spec = ModelSpec(digits, np.arange(10), soft, 10, "simple-cnn", Recipe(), defense=make_defense("dropout"))
    with pytest.raises(ConfigurationError, match="not on posteriors"):
        obtain_model(spec, kind="shadows", device="cpu")


def test_protected_settings_come_back(digits):
    for name in TRAINING:
        made = make_defense(name, SETTINGS.get(name))
        record = DefenseRecord.model_validate_json(made.make_record().model_dump_json())
        assert make_defense(record.name, record.settings) == made
