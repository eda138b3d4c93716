"""What every inversion attack must keep, and how they compare under one judge on the digits."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from command_line import start_script
from inversion_targets import CHANCE_EVALUATOR, GAN, QUICK, QUICKEST, QUICKEST_EVALUATOR, noise_data, wrapped
from securitynet.attacks import ATTACKS
from securitynet.attacks.inversion._evaluator import EvaluatorTraining, _named, obtain_evaluator
from securitynet.attacks.inversion.base import Reconstructions
from securitynet.attacks.inversion.plug_and_play import compute_margins, transform_images
from securitynet.errors import AccessDenied, ConfigurationError, SplitError, TargetError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.backends.base import Backend
from securitynet.models.targets.target import Target
from securitynet.records import Access

NAMES = ("fredrikson", "generative", "plug-and-play")
WITH_GAN = NAMES[1:]


def make(name, **changes):
    return ATTACKS.get(f"inversion.{name}")(**{**QUICK[name], **changes})


def run(name, target, data, cache, seed=0, **changes) -> Reconstructions:
    attack = make(name, **changes)
    return attack(target, data, Context(seed=seed, cache=cache, device="cpu"), attack.threat_models[0])


def measured(output):
    return {m.name: m for m in output.measurements(level=0.95, fprs=(), seed=0)}


@pytest.fixture(scope="module")
def outputs(digits_target, digits_data, inversion_cache):
    """Each attack on the digits."""
    return {name: run(name, digits_target, digits_data, inversion_cache) for name in NAMES}


def test_all_are_registered():
    assert set(ATTACKS.names("inversion")) == {f"inversion.{name}" for name in (*NAMES, "boundary-repulsion")}


def test_descent_beats_blank_images(outputs):
    found = measured(outputs["fredrikson"])
    assert found["mse"].high < found["mse-blank"].low
    assert found["mse"].value < found["mse-mean-colour"].value
    assert found["mse-gain"].value == pytest.approx(found["mse-mean-colour"].value - found["mse"].value)


@pytest.mark.parametrize("name", WITH_GAN)
def test_generative_attacks_show_the_requested_classes(outputs, name):
    found, descent = measured(outputs[name]), measured(outputs["fredrikson"])
    assert found["accuracy"].low > 0.3  # guessing gives 0.1
    assert found["accuracy"].value > descent["accuracy"].value
    assert found["feature-distance"].value < descent["feature-distance"].value
    assert found["ssim"].value > descent["ssim"].value


def test_the_stronger_attack_is_stronger(outputs):
    strong, plain = measured(outputs["plug-and-play"]), measured(outputs["generative"])
    assert strong["accuracy"].value >= plain["accuracy"].value
    assert strong["mse"].value < plain["mse"].value
    assert strong["feature-distance"].value < plain["feature-distance"].value


@pytest.mark.parametrize("name", NAMES)
def test_a_target_that_knows_nothing_gives_chance(random_target, digits_data, inversion_cache, name):
    """Over fifty classes of targets: a random network's classes mean nothing, whatever its posteriors say."""
    changes = {"iterations": 50} if name == "fredrikson" else {"rounds": 10, "restarts": 2}
    changes["evaluator"] = CHANCE_EVALUATOR
    hits, cells = [], []
    for seed in range(5):
        output = run(name, random_target(seed), digits_data, inversion_cache, **changes)
        hits.append(output.rank == 0)
        cells.append(output.classes + 10 * seed)
    from securitynet.metrics.inversion import measure_clustered_rate
    from securitynet.records import Direction

    found = measure_clustered_rate(
        "a", np.concatenate(hits), np.concatenate(cells), direction=Direction.LOWER, level=0.999
    )
    assert found.low <= 0.1 <= found.high


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_result_whatever_was_drawn_before(digits_target, digits_data, tmp_path, name):
    first = run(name, digits_target, digits_data, tmp_path / "a", **QUICKEST[name])
    np.random.seed(123)
    torch.manual_seed(123)
    # In an empty cache: all is trained anew.
    again = run(name, digits_target, digits_data, tmp_path / "b", **QUICKEST[name])
    for key, array in first.arrays().items():
        np.testing.assert_array_equal(array, again.arrays()[key])


@pytest.mark.parametrize("name", WITH_GAN)
@pytest.mark.slow
def test_another_seed_gives_other_images(digits_target, digits_data, inversion_cache, name):
    gan = {**GAN, "steps": 5}
    first, second = (
        run(name, digits_target, digits_data, inversion_cache, seed=seed, gan=gan, rounds=2).images for seed in (0, 1)
    )
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("name", NAMES)
def test_output_survives_being_kept(outputs, name):
    output = outputs[name]
    again = type(output).from_arrays(output.arrays())
    assert measured(again) == measured(output)
    for one, other in zip(again.galleries(), output.galleries(), strict=True):
        np.testing.assert_array_equal(one.images, other.images)
    for array in output.arrays().values():
        assert array.dtype != object


@pytest.mark.parametrize("name", NAMES)
def test_what_is_said_of_each_class_and_each_image(outputs, digits_data, name):
    output = outputs[name]
    restarts = 1 if name == "fredrikson" else 4
    assert output.images.shape == (10 * restarts, 1, 8, 8) and output.images.dtype == np.uint8
    np.testing.assert_array_equal(output.classes, np.repeat(np.arange(10), restarts))
    found = measured(output)
    assert [f"mse@class={label}" in found for label in range(10)] == [True] * 10
    members = digits_data.splits.members
    own = members[digits_data.dataset.labels[members] == 3]
    mean = digits_data.dataset.batch(own).numpy().mean(axis=0) / 255
    expected = [((image / 255 - mean) ** 2).mean() for image in output.images[output.classes == 3]]
    assert found["mse@class=3"].value == pytest.approx(np.mean(expected), rel=1e-4)
    assert found["mse"].value == pytest.approx(output.mse.mean())
    for key in ("accuracy", "top5-accuracy", "ssim", "posterior", "mse-gain", "closer-to-member"):
        assert found[key].direction.value == "lower"
    for key in ("mse", "feature-distance", "embedding-distance", "knn-distance"):
        assert found[key].direction.value == "higher"
    assert "Guessing gives 0.1." in found["accuracy"].note and "real images" in found["accuracy"].note


def test_galleries_hold_class_means_and_training_images(outputs, digits_data):
    (gallery,) = outputs["generative"].galleries()
    assert gallery.images.shape == (10, 6, 1, 8, 8) and gallery.images.dtype == np.uint8
    assert len(gallery.rows) == 10 and len(gallery.columns) == 6
    members = digits_data.splits.members
    known = digits_data.dataset.batch(members[digits_data.dataset.labels[members] == 7]).numpy()
    assert any(np.array_equal(gallery.images[7, 1], image) for image in known)
    np.testing.assert_allclose(gallery.images[7, 0], known.mean(axis=0), atol=0.51)


def test_copies_are_told_from_class_imagery(digits_target, digits_data, inversion_cache):
    """The judge on images that are training images, and on images of the class that the target never saw."""
    from securitynet.attacks.inversion import _judge
    from securitynet.attacks.inversion._attacked_classes import AttackedClasses

    training, context = EvaluatorTraining(**QUICK["fredrikson"]["evaluator"]), Context(cache=inversion_cache)
    attacked = AttackedClasses.of(digits_target, digits_data, None, 4)
    evaluator = obtain_evaluator(digits_target, digits_data, training, context)
    dataset, splits = digits_data.dataset, digits_data.splits
    for records, copied in ((splits.members, True), (splits.non_members, False)):
        chosen = np.concatenate([records[dataset.labels[records] == label][:4] for label in range(10)])
        images = dataset.batch(chosen).float() / 255
        judged = _judge.judge_reconstructions(attacked, digits_data, evaluator, images, 2000, 0)
        assert (judged.closer_to_member.mean() > 0.9) == copied
        assert (judged.rank == 0).mean() > 0.8
        assert (judged.nearest_distance.max() == 0) == copied


@pytest.mark.parametrize("name", NAMES)
def test_needs_the_network(digits_target, digits_data, tmp_path, name):
    model = make(name).threat_models[0]
    seen_from_outside = digits_target.under(Access.BLACK_BOX)
    with pytest.raises(AccessDenied):
        make(name)(seen_from_outside, digits_data, Context(cache=tmp_path), model)

    class Answers(Backend):
        reference, checksum = "answers", "answers"

        def outputs(self, inputs):
            raise AssertionError("nothing may be asked before the check")

    with pytest.raises(AccessDenied, match="no network"):
        make(name)(Target(Answers(), access=Access.WHITE_BOX), digits_data, Context(cache=tmp_path), model)
    assert not any(tmp_path.iterdir()), "nothing was trained"


@pytest.mark.parametrize("name", NAMES)
def test_costs_no_queries(digits_target, digits_data, inversion_cache, name):
    context = Context(cache=inversion_cache, device="cpu")
    attack, before = make(name, **QUICKEST[name]), digits_target.query_counter.total
    attack(digits_target, digits_data, context, attack.threat_models[0])
    assert context.queries().total == 0 and digits_target.query_counter.total == before


class Cut(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.layer, self.how = nn.Linear(64, 10), how

    def forward(self, images):
        return self.layer(self.how(images).flatten(1))


@pytest.mark.parametrize("how", [torch.Tensor.detach, torch.round], ids=["detach", "round"])
def test_a_network_without_gradients_is_told(digits_data, tmp_path, how):
    with pytest.raises(TargetError, match="no gradient"):
        run("fredrikson", wrapped(Cut(how), (1, 8, 8)), digits_data, tmp_path)
    assert not any(tmp_path.iterdir())


def test_bad_input_is_told_before_long_work(digits_target, digits_data, tmp_path, linear):
    def refused(error, words, data=digits_data, target=digits_target, name="generative", **changes):
        with pytest.raises(error, match=words):
            run(name, target, data, tmp_path, **changes)

    refused(ConfigurationError, "no class 10", classes=(0, 10))
    no_images = dataclasses.replace(digits_data.dataset, images=None)
    refused(ConfigurationError, "no images", TrialData(no_images, digits_data.splits))
    members = digits_data.splits.members
    few = dataclasses.replace(digits_data.splits, members=members[digits_data.dataset.labels[members] != 4])
    refused(ConfigurationError, "class '4'", TrialData(digits_data.dataset, few))
    refused(TargetError, "channels", target=linear_colour(), name="fredrikson")
    refused(TargetError, "10 classes|has 7", target=linear(torch.randn(7, 64), (1, 8, 8)))
    refused(TargetError, "1×8×8", target=linear(torch.randn(10, 99), (1, 8, 8)))
    empty = np.empty(0, np.int64)
    no_shadow = dataclasses.replace(digits_data.splits, shadow_train=empty, shadow_test=empty)
    refused(SplitError, "four-way", TrialData(digits_data.dataset, no_shadow))
    alone = dataclasses.replace(no_shadow, non_members=empty)
    refused(SplitError, "evaluation classifier", TrialData(digits_data.dataset, alone), name="fredrikson")
    with pytest.raises(ConfigurationError, match="once each"):
        make("fredrikson", classes=(1, 1))
    with pytest.raises(ConfigurationError, match="candidates"):
        make("plug-and-play", restarts=9, candidates=3)
    assert not (tmp_path / "gans").exists()


def linear_colour():
    return wrapped(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 10)), (3, 8, 8))


def test_the_judge_knows_none_of_the_targets_and_the_adversarys_records(digits_target, digits_data, inversion_cache):
    training = EvaluatorTraining(**QUICK["fredrikson"]["evaluator"])
    found = obtain_evaluator(digits_target, digits_data, training, Context(cache=inversion_cache, device="cpu"))
    splits = digits_data.splits
    pool = np.union1d(splits.non_members, splits.shadow_test)
    assert np.isin(found.unseen, pool).all() and len(found.unseen) == round(len(pool) * 0.2)
    right, asked = found.recognised
    assert asked == len(found.unseen) and right / asked > 0.85
    answers = digits_target.labels(digits_data.dataset.batch(found.unseen)).numpy()
    others = found.target.labels(digits_data.dataset.batch(found.unseen)).numpy()
    assert not np.array_equal(answers, others), "it is another network"


def test_the_judge_has_another_architecture_than_the_target(digits_target, digits_data):
    named = _named(EvaluatorTraining(), digits_target, digits_data)
    assert named.architecture == "cifar-resnet20"
    assert named.recipe["epochs"] == 20
    digits_target.backend.reference, before = "arch:cifar-resnet20", digits_target.backend.reference
    try:
        changed = _named(EvaluatorTraining(recipe={"epochs": 3}), digits_target, digits_data)
    finally:
        digits_target.backend.reference = before
    assert changed.architecture == "vgg11"
    assert changed.recipe["epochs"] == 3 and changed.recipe["optimizer"] == "adam"
    # A recipe by its name is taken whole.
    assert _named(EvaluatorTraining(recipe="fast"), digits_target, digits_data).recipe == {"recipe": "fast"}


@pytest.mark.slow
def test_targets_of_the_same_data_share_a_gan(digits_data, random_target, tmp_path):
    small = {"gan": {"steps": 3, "width": 4}, "rounds": 1}
    for seed in (0, 1):
        run("generative", random_target(seed), digits_data, tmp_path, **small)
    run("plug-and-play", random_target(2), digits_data, tmp_path, **small)
    assert len(list((tmp_path / "gans").iterdir())) == 1


@pytest.mark.parametrize("name", NAMES)
def test_one_class(digits_target, digits_data, inversion_cache, name, outputs):
    changes = {} if name == "fredrikson" else QUICKEST[name]
    found = run(name, digits_target, digits_data, inversion_cache, classes=(6,), **changes)
    restarts = 1 if name == "fredrikson" else 4
    assert found.images.shape == (restarts, 1, 8, 8)
    values = measured(found)
    assert values["mse"].value == pytest.approx(found.mse.mean())
    assert values["mse-other-class"].value is not None
    assert values["accuracy"].n == restarts
    if name == "fredrikson":
        np.testing.assert_array_equal(found.images, outputs[name].images[outputs[name].classes == 6])


@pytest.mark.parametrize("name", WITH_GAN)
@pytest.mark.parametrize("classes, shape", [(2, (1, 28, 28)), (3, (3, 64, 64)), (40, (1, 12, 12))])
def test_shapes_and_numbers_of_classes(linear, tmp_path, name, classes, shape):
    """The images mean nothing here: what counts is that all of it runs."""
    data = noise_data(classes, shape, each=32 if classes < 10 else 8)
    target = linear(torch.randn(classes, int(np.prod(shape)), generator=torch.Generator().manual_seed(0)) * 0.1, shape)
    small = {"gan": {"steps": 2, "width": 4}, "rounds": 2, "evaluator": {**QUICKEST_EVALUATOR, "recipe": {"epochs": 1}}}
    found = run(name, target, data, tmp_path, **{**QUICKEST[name], **small})
    assert found.images.shape == (4 * classes, *shape)
    values = measured(found)
    assert ("top5-accuracy" in values) == (classes > 5)
    assert all(m.value is None or np.isfinite(m.value) for m in values.values())


def test_two_hundred_classes(linear, tmp_path):
    data = noise_data(200, (1, 10, 10), each=8)
    weights = torch.randn(200, 100, generator=torch.Generator().manual_seed(0))
    recipe = {**QUICKEST_EVALUATOR, "recipe": {"epochs": 1}}
    found = run("fredrikson", linear(weights, (1, 10, 10)), data, tmp_path, evaluator=recipe, iterations=50)
    values = measured(found)
    assert len(found.images) == 200 and found.galleries()[0].images.shape == (200, 3, 1, 10, 10)
    assert not any("@class" in name for name in values), "the arrays hold them"


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("name", NAMES)
def test_interrupted_anywhere_the_result_is_the_same(
    digits_target, digits_data, inversion_cache, tmp_path, name, monkeypatch
):
    monkeypatch.setattr("securitynet.models.training.checkpoints._SHARE_OF_TIME", float("inf"))
    options = QUICKEST[name]
    whole = run(name, digits_target, digits_data, inversion_cache, **options)
    for stop in (1, 4):
        cache = tmp_path / str(stop)
        cache.mkdir()
        for kind in ("gans", "shadows"):
            if (inversion_cache / kind).exists():
                (cache / kind).symlink_to(inversion_cache / kind, target_is_directory=True)

        def interrupt(done, total, stop=stop):
            if done == stop and total < 20 and total != 2:
                raise Interrupted

        attack, told = make(name, **options), []
        with pytest.raises(Interrupted):
            context = Context(cache=cache, device="cpu", progress=interrupt)
            attack(digits_target, digits_data, context, attack.threat_models[0])
        context = Context(cache=cache, device="cpu", progress=lambda done, _total, told=told: told.append(done))
        again = attack(digits_target, digits_data, context, attack.threat_models[0])
        assert told[0] == stop + 1, "it goes on where it was"
        for key, array in whole.arrays().items():
            np.testing.assert_array_equal(array, again.arrays()[key])
        assert not list((cache / "inversion").rglob("checkpoint*")), "what is done needs no checkpoint"


KILLED = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[2])
import securitynet.datasets
import securitynet.models.training.checkpoints as checkpoints
from inversion_targets import QUICK
from securitynet.attacks import ATTACKS
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.datasets.splits import four_way
from securitynet.models.training.recipe import Recipe
from securitynet.models.shadows import obtain_shadow

checkpoints._SHARE_OF_TIME = float("inf")
cache, digits = Path(sys.argv[1]), securitynet.datasets.load("digits")
data = TrialData(digits, four_way(digits))
recipe = Recipe(epochs=25, optimizer="adam", learning_rate=2e-3, schedule="cosine")
target = obtain_shadow(digits, data.splits.members, "simple-cnn", recipe, cache=cache, device="cpu").target
attack = ATTACKS.get("inversion.generative")(**QUICK["generative"])
progress = lambda done, total: print("step" if total == 150 else "other", flush=True)
attack(target, data, Context(cache=cache, device="cpu", progress=progress), attack.threat_models[0])
"""


def test_killed_in_the_search_it_goes_on_with_the_same_numbers(
    digits_target, digits_data, inversion_cache, tmp_path, outputs
):
    for kind in ("gans", "shadows"):
        (tmp_path / kind).symlink_to(inversion_cache / kind, target_is_directory=True)
    with start_script(KILLED, tmp_path, Path(__file__).parents[2] / "helpers") as process:
        for _ in range(10):
            assert process.stdout.readline() == "step\n", "GAN and judge are in the cache"
        process.kill()
    assert list((tmp_path / "inversion").rglob("checkpoint"))
    told = []
    attack = make("generative")
    context = Context(cache=tmp_path, device="cpu", progress=lambda done, _total: told.append(done))
    again = attack(digits_target, digits_data, context, attack.threat_models[0])
    assert 10 <= told[0] < 150
    for key, array in outputs["generative"].arrays().items():
        np.testing.assert_array_equal(array, again.arrays()[key])


def test_margins_by_hand():
    logits = torch.tensor([[1.0, 4.0, 2.0], [3.0, 0.0, 5.0]])
    assert compute_margins(logits, torch.tensor([1, 0])).tolist() == [2.0, -2.0]


def test_transformations():
    image = torch.zeros(1, 1, 8, 8)
    image[0, 0, 3, 4] = 1.0
    still = torch.tensor([[1.0, 0.0, 0.0]])
    torch.testing.assert_close(transform_images(image, still), image)
    moved = transform_images(image, torch.tensor([[1.0, 2 / 8 * 2, -1 / 8 * 2]]))
    assert moved[0, 0].argmax().item() == 2 * 8 + 6, "two pixels to the right, one up"
    larger = transform_images(
        torch.nn.functional.pad(torch.ones(1, 1, 4, 4), (2, 2, 2, 2)), torch.tensor([[1.5, 0.0, 0.0]])
    )
    assert 30 < float(larger.sum()) < 42, "16 pixels become 36"
