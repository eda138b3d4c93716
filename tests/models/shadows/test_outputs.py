"""Shadow models: who trains which, the store, resumption, and the comparison with the target."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from securitynet.datasets import splits as make_splits
from securitynet.errors import ConfigurationError, SplitError, TargetError, UnknownName
from securitynet.models.shadows import (
    Accuracies,
    ShadowPlan,
    ShadowTraining,
    list_fidelity_warnings,
    obtain_shadow,
    obtain_shadow_model,
    obtain_shadow_outputs,
    resolve_training,
)
from securitynet.models.store.train_target import train_target
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.target import Target
from securitynet.models.training.recipe import Recipe

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
    plan = ShadowPlan(count=2, recipe={**FAST, "epochs": 30})
    found = obtain_shadow_outputs(target, digits, four_parts, records, plan, cache=tmp_path, device="cpu")
    assert found.included.shape == (2, 200) and found.outputs.shape == (2, 200, 10)
    np.testing.assert_array_equal(found.included.sum(axis=0), 1)
    np.testing.assert_array_equal(found.labels, digits.labels[records])
    log_p = torch.from_numpy(found.outputs).log_softmax(dim=2).numpy()
    loss = -np.take_along_axis(log_p, found.labels[None, :, None], axis=2)[..., 0]
    assert loss[found.included].mean() < 0.5 * loss[~found.included].mean()
    # The target was trained for 3 epochs, they for 30: that is said.
    assert len(found.fidelity) == 1 and "train accuracy" in found.fidelity[0]


def test_outputs_are_reduced_as_they_come_also_for_other_views(digits, four_parts, target, tmp_path):
    records = four_parts.members[:50]
    plan = ShadowPlan(count=2, recipe=FAST)
    mirrored = dataclasses.replace(digits, images=digits.images.flip(3), content_digest=None)
    sizes = []

    def reduce(logits, labels):
        sizes.append(logits.shape)
        return logits[np.arange(len(labels)), labels].astype(np.float64)

    found = obtain_shadow_outputs(
        target, digits, four_parts, records, plan, reduce=reduce, views=(mirrored,), cache=tmp_path, device="cpu"
    )
    assert found.outputs.shape == (2, 2, 50) and sizes == [(50, 10)] * 4
    plain = obtain_shadow_outputs(target, digits, four_parts, records, plan, cache=tmp_path, device="cpu")
    np.testing.assert_array_equal(found.outputs[:, 0], plain.outputs[:, np.arange(50), digits.labels[records]])
    assert (found.outputs[:, 1] != found.outputs[:, 0]).any()


def test_independent_training_sets_are_as_large_as_the_targets_and_know_nothing_of_each_other(digits, four_parts):
    plan = ShadowPlan(count=8, design="independent")
    sets = plan.draw_training_sets(four_parts, len(digits), seed=3)
    sizes = {len(chosen) for chosen in sets}
    assert sizes == {len(four_parts.members)}
    included = np.array([np.isin(np.arange(len(digits)), chosen) for chosen in sets])
    share = len(four_parts.members) / len(digits)
    # Without replacement within a model and independent between models: counts of a record are binomial.
    assert included.sum(axis=0).var() == pytest.approx(8 * share * (1 - share), rel=0.1)
    again = ShadowPlan(count=2, design="independent").draw_training_sets(four_parts, len(digits), seed=3)
    assert np.array_equal(sets[1], again[1])
    offline = ShadowPlan(count=8, design="independent", pool="offline").draw_training_sets(four_parts, len(digits), 3)
    assert not np.isin(np.concatenate(offline), four_parts.members).any()


def test_independent_training_sets_are_smaller_where_too_few_models_would_be_without_a_record(digits):
    public = make_splits.public(digits)
    for count, share in ((1, 0.5), (2, 0.5), (4, 0.5), (8, 0.75)):
        plan = ShadowPlan(count=count, design="independent")
        assert len(plan.draw_training_sets(public, len(digits), 0)[0]) == int(share * len(digits))
    assert "design" not in ShadowPlan().model_dump()


def test_training_sets_of_another_size_than_the_targets_are_reported(digits, target, tmp_path):
    public = make_splits.public(digits)
    found = obtain_shadow_outputs(
        target, digits, public, public.members[:5], ShadowPlan(count=2, recipe=FAST), cache=tmp_path, device="cpu"
    )
    assert f"records each and the target on {len(public.members):,}" in found.fidelity[-1]
    assert "would be trained" not in found.fidelity[-1]  # of two independent sets, each may hold half of the records
    wide = ShadowPlan(count=16).count_independent(public, len(digits))
    assert wide == len(public.members)


def test_one_shadow_model_is_trained_on_a_share_of_the_pool():
    assert ShadowPlan(count=1, share=0.25).training_sets(200, 0).sum() == 50


def test_offline_shadows_never_see_judged_records(digits, four_parts, target, tmp_path):
    judged = np.union1d(four_parts.members, four_parts.non_members)
    plan = ShadowPlan(count=2, recipe=FAST, pool="offline")
    state = torch.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()
    found = obtain_shadow_outputs(target, digits, four_parts, judged, plan, cache=tmp_path, device="cpu")
    assert torch.equal(state, torch.get_rng_state())
    np.testing.assert_array_equal(numpy_state, np.random.get_state()[1])
    assert not found.included.any()
    own = obtain_shadow_outputs(target, digits, four_parts, four_parts.shadow_train, plan, cache=tmp_path, device="cpu")
    np.testing.assert_array_equal(own.included.sum(axis=0), 1)


def test_a_split_without_shadow_parts_is_refused(digits, four_parts, target):
    empty = np.empty(0, np.int64)
    bare = dataclasses.replace(four_parts, shadow_train=empty, shadow_test=empty)
    with pytest.raises(SplitError, match="no shadow data"):
        obtain_shadow_outputs(target, digits, bare, bare.members, ShadowPlan(pool="offline"), device="cpu")
    with pytest.raises(SplitError, match="no shadow data"):
        obtain_shadow_model(target, digits, bare, ShadowTraining(), device="cpu")


def test_what_has_no_images_is_refused(digits, four_parts, target):
    recorded = dataclasses.replace(digits, images=None)
    with pytest.raises(ConfigurationError, match="no images"):
        obtain_shadow_outputs(target, recorded, four_parts, four_parts.members, ShadowPlan(), device="cpu")


def test_images_that_the_target_does_not_take_are_refused_before_any_training(digits, four_parts, target, tmp_path):
    wide = dataclasses.replace(digits, images=digits.images[..., :6], content_digest=None)
    settings = {"cache": tmp_path, "device": "cpu"}
    with pytest.raises(TargetError, match="not square"):
        obtain_shadow_outputs(target, wide, four_parts, four_parts.members, ShadowPlan(), **settings)
    with pytest.raises(TargetError, match="not square"):
        obtain_shadow_model(target, wide, four_parts, ShadowTraining(), **settings)
    assert not (tmp_path / "shadows").exists()


def weights_of(shadow):
    return torch.cat([value.flatten() for value in shadow.target.module.state_dict().values()])


def test_a_shadow_model_is_trained_once_for_what_decides_it(digits, four_parts, tmp_path):
    recipe = Recipe(**FAST, seed=4)
    epochs: list[int] = []

    def obtain(indices=four_parts.shadow_train, architecture="simple-cnn", recipe=recipe, dataset=digits):
        epochs.clear()
        return obtain_shadow(
            dataset, indices, architecture, recipe, cache=tmp_path, device="cpu", progress=epochs.append
        )

    first = obtain()
    assert epochs == [1, 2, 3]
    again = obtain()
    assert epochs == []
    assert torch.equal(weights_of(first), weights_of(again)) and again.history == first.history
    assert again.target.identity == first.target.identity  # so that its signals are found in the cache too
    labels = digits.labels.copy()
    labels[0] = (labels[0] + 1) % 10
    others = [
        {"indices": four_parts.shadow_train[1:]},
        {"recipe": recipe.model_copy(update={"seed": 5})},
        {"recipe": recipe.model_copy(update={"learning_rate": 0.04})},
        {"dataset": dataclasses.replace(digits, labels=labels)},
    ]
    for change in others:
        obtain(**change)
        assert epochs == [1, 2, 3], f"{change} must not use another's weights"
    assert len(list((tmp_path / "shadows").iterdir())) == 5


@pytest.mark.parametrize("damaged", ["weights.safetensors", "weights.json"])
def test_a_damaged_shadow_model_is_trained_again(damaged, digits, four_parts, tmp_path, caplog):
    def obtain():
        indices = four_parts.shadow_train[:100]
        return obtain_shadow(digits, indices, "simple-cnn", Recipe(**FAST), cache=tmp_path, device="cpu")

    first = obtain()
    (file,) = (tmp_path / "shadows").glob(f"*/{damaged}")
    content = file.read_bytes()
    file.write_bytes(content[:40] + b"?" + content[41:-10])
    assert torch.equal(weights_of(first), weights_of(obtain()))
    assert "damaged" in caplog.text
    assert file.read_bytes() == content or damaged == "weights.json"  # which holds the seconds that training took


def test_an_interrupted_training_goes_on(digits, four_parts, tmp_path):
    recipe, indices = Recipe(**{**FAST, "epochs": 4}), four_parts.shadow_train[:100]
    whole = obtain_shadow(digits, indices, "simple-cnn", recipe, device="cpu")
    seen: list[int] = []

    def interrupt(done):
        seen.append(done)
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        obtain_shadow(digits, indices, "simple-cnn", recipe, cache=tmp_path, device="cpu", progress=interrupt)
    rest = obtain_shadow(digits, indices, "simple-cnn", recipe, cache=tmp_path, device="cpu", progress=seen.append)
    assert seen[0] == 1 and seen[-1] == 4 and len(seen) < 6, "it did not start over"
    assert torch.equal(weights_of(whole), weights_of(rest))
    assert not list((tmp_path / "shadows").glob("*/checkpoint*"))


def test_records_that_early_stopping_held_out_are_no_members(digits, four_parts):
    recipe = Recipe(**FAST, patience=2, validation_share=0.2)
    shadow = obtain_shadow(digits, four_parts.shadow_train, "simple-cnn", recipe, device="cpu")
    size = len(four_parts.shadow_train)
    assert len(shadow.members) == size - round(0.2 * size)
    assert np.isin(shadow.members, four_parts.shadow_train).all()


def test_targets_of_one_recipe_share_shadow_models(digits, four_parts, target, tmp_path):
    other = train_target("simple-cnn", digits, seed=2, device="cpu", **FAST)
    plan = ShadowPlan(count=2, recipe=FAST)
    for model in (target, other):
        obtain_shadow_outputs(model, digits, four_parts, four_parts.members, plan, cache=tmp_path, device="cpu")
    assert len(list((tmp_path / "shadows").iterdir())) == 2


def test_the_shadow_model_of_ml_doctor_is_like_its_target(digits, four_parts, tmp_path):
    settings = {**FAST, "epochs": 30}
    target = train_target("simple-cnn", digits, seed=1, device="cpu", **settings)
    found = obtain_shadow_model(
        target, digits, four_parts, ShadowTraining(recipe=settings), cache=tmp_path, device="cpu"
    )
    np.testing.assert_array_equal(found.shadow.members, four_parts.shadow_train)
    np.testing.assert_array_equal(found.non_members, four_parts.shadow_test)
    assert found.fidelity == ()


def test_training_is_the_targets_where_it_is_known(target):
    plain = resolve_training(ShadowTraining(), target, None)
    assert plain.architecture == "simple-cnn" and plain.recipe == Recipe()
    assert plain.assumptions == ("it is not known how the target was trained",)
    seeds = {plain.seeded(seed, number).seed for seed in (0, 1) for number in (0, 1)}
    assert len(seeds) == 4
    reference = "timm:resnet18.a1_in1k"
    foreign = Target(ModuleBackend(torch.nn.Linear(2, 2), reference=reference, checksum="", example_shape=None))
    assert "not known" in resolve_training(ShadowTraining(), foreign, None).assumptions[0]
    chosen = resolve_training(ShadowTraining(architecture="vgg11", recipe={"epochs": 7}), foreign, None)
    assert (chosen.architecture, chosen.recipe.epochs, chosen.recipe.momentum) == ("vgg11", 7, 0.9)
    with pytest.raises(UnknownName):
        resolve_training(ShadowTraining(architecture="resnet19"), target, None)
    with pytest.raises(ConfigurationError, match="Invalid recipe for shadow models: epochs"):
        resolve_training(ShadowTraining(recipe={"epochs": 0}), target, None)
    for wrong in ({"seed": 3}, {"epoch": 3}):
        with pytest.raises(ValidationError):
            ShadowTraining(recipe=wrong)


def test_what_is_known_of_the_target_is_used(digits, tmp_path):
    from securitynet.models.store.record_files import read_target_record

    out = tmp_path / "target.safetensors"
    target = train_target("simple-cnn", digits, out=out, device="cpu", **FAST)
    trained = read_target_record(out)
    resolved = resolve_training(ShadowTraining(recipe={"epochs": 2}), target, trained)
    assert resolved.assumptions == ()
    assert (resolved.recipe.epochs, resolved.recipe.learning_rate) == (2, 0.05)


def test_the_rule_of_fidelity():
    target = Accuracies(1.0, 0.8, 400, 400)  # two standard errors: 0 and 0.04
    near = [Accuracies(0.97, 0.75, 50, 50), Accuracies(0.95, 0.69, 50, 50)]  # means 0.96 and 0.72
    assert list_fidelity_warnings(target, near) == ()
    (warning,) = list_fidelity_warnings(target, [Accuracies(0.94, 0.75, 50, 50)], ["they are dull"])
    assert "train accuracy 0.940 against 1.000" in warning and "test accuracy" not in warning
    assert "(they are dull)" in warning
    (warning,) = list_fidelity_warnings(target, [Accuracies(0.96, 0.9, 50, 50)])
    assert "test accuracy 0.900 against 0.800, overfitting level 0.060 against 0.200" in warning
