"""Interfaces, auxiliary data, recipes and errors of stealing attacks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from securitynet.attacks.stealing import _interface
from securitynet.attacks.stealing._pool import Reshaped, match_shape
from securitynet.attacks.stealing.data_free import DataFreeStealing
from securitynet.attacks.stealing.knockoff import KnockoffStealing
from securitynet.attacks.stealing.ml_doctor_surrogate import MLDoctorSurrogate
from securitynet.attacks.stealing.securitynet_surrogate import SecurityNetSurrogate
from securitynet.datasets import splits
from securitynet.datasets.base import ImageDataset
from securitynet.errors import AccessDenied, ConfigurationError, SecurityNetError, SplitError, UnknownName
from securitynet.models.loading.load import load_target
from securitynet.models.targets.interface import LabelsOnly
from securitynet.models.targets.target import Target
from securitynet.models.training.recipe import Recipe
from securitynet.records import Access, Auxiliary, ThreatModel
from stealing_cases import FAST, context, lacking, measured

PARTIAL, SHADOW, ELSEWHERE = (
    ThreatModel(access=Access.BLACK_BOX, auxiliary=auxiliary)
    for auxiliary in (Auxiliary.PARTIAL, Auxiliary.SHADOW, Auxiliary.OUT_OF_DISTRIBUTION)
)


def steal(target, data, model=PARTIAL, attack=SecurityNetSurrogate, cache=None, **settings):
    return attack(**{**FAST, "budgets": 120, **settings})(target, data, context(cache), model)


def test_the_papers_recipes():
    assert SecurityNetSurrogate().architecture == "resnet18"
    ours = SecurityNetSurrogate.protocol
    assert (ours.optimizer, ours.learning_rate, ours.epochs, ours.schedule) == ("sgd", 0.01, 30, "constant")
    assert ours.loss == "cross-entropy"
    theirs = MLDoctorSurrogate.protocol
    assert (theirs.optimizer, theirs.learning_rate, theirs.momentum, theirs.epochs) == ("sgd", 0.01, 0.9, 50)
    assert theirs.loss == "mse"
    assert MLDoctorSurrogate().architecture == "own" and MLDoctorSurrogate.trains_like_target
    assert set(MLDoctorSurrogate.threat_models) == {PARTIAL, SHADOW}


def test_ml_doctors_surrogate_has_the_targets_own_architecture(digit_target, all_data):
    attack = MLDoctorSurrogate()
    assert attack.blueprint(digit_target, None) == ("simple-cnn", None, ())
    unknown = Target(digit_target.backend)
    unknown.backend = type("Elsewhere", (), {"reference": "onnx:model.onnx", "interface": None, "architecture": None})()
    architecture, _, notes = attack.blueprint(unknown, None)
    assert architecture == "simple-cnn" and "not known" in notes[0]
    output = steal(digit_target, all_data, attack=MLDoctorSurrogate, architecture="own")
    assert output.architecture == "simple-cnn"


@pytest.mark.parametrize(
    "answers, expected",
    [
        ([[0.7, 0.2, 0.1]], [[0.7, 0.2, 0.1]]),
        ([[0.6, 0.2, 0.0, 0.0]], [[0.6, 0.2, 0.1, 0.1]]),  # the top two: the rest is shared by the hidden
        ([[0.9, 0.2, 0.0, 0.0]], [[0.9 / 1.1, 0.2 / 1.1, 0.0, 0.0]]),  # rounded up
        ([[1.0, 0.0, 0.0]], [[1.0, 0.0, 0.0]]),
        ([[0.3, 0.3, 0.3]], [[1 / 3, 1 / 3, 1 / 3]]),  # rounded down, none hidden
    ],
)
def test_what_is_missing_from_answers_is_filled_in(answers, expected):
    found = _interface.complete_posteriors(np.array(answers, dtype=np.float32))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    "text, expected", [("top-3", {"k": 3}), ("rounded-2", {"digits": 2}), ("labels", {}), ("full", None)]
)
def test_interfaces_by_name(text, expected):
    found = _interface.parse_interface(text)
    if expected is None:
        assert found is None
    else:
        assert all(getattr(found, name) == value for name, value in expected.items())
        assert found.labels_only == (text == "labels")


@pytest.mark.parametrize("text", ["top-0", "top", "rounded-9", "everything", ""])
def test_unknown_interfaces_are_refused(text):
    with pytest.raises(ConfigurationError, match="not understood"):
        SecurityNetSurrogate(interface=text)


class Recorder(SecurityNetSurrogate):
    """Keeps what was answered."""

    def query_images(self, target, data, context):
        self.__dict__["answered"] = super().query_images(target, data, context)
        return self.__dict__["answered"]


def answers(interface, target, data):
    attack = Recorder(**FAST, budgets=60, interface=interface)
    attack(target, data, context(), PARTIAL)
    return attack.__dict__["answered"]


def test_the_thief_learns_from_what_the_interface_tells_and_no_more(digit_target, all_data):
    full = answers("full", digit_target, all_data)
    np.testing.assert_allclose(
        full.outputs, digit_target.posteriors(all_data.dataset.batch(full.indices)).numpy(), atol=1e-6
    )
    top = answers("top-2", digit_target, all_data).outputs
    order = np.argsort(-full.outputs, axis=1)
    best = np.take_along_axis(full.outputs, order[:, :2], axis=1)
    np.testing.assert_allclose(np.take_along_axis(top, order[:, :2], axis=1), best, atol=1e-6)
    hidden = np.take_along_axis(top, order[:, 2:], axis=1)
    np.testing.assert_allclose(hidden, np.repeat((1 - best.sum(axis=1, keepdims=True)) / 8, 8, axis=1), atol=1e-6)
    rounded = answers("rounded-1", digit_target, all_data).outputs
    assert np.abs(rounded - full.outputs).max() < 0.15 and len(np.unique(rounded)) < len(np.unique(full.outputs))
    labels = answers("labels", digit_target, all_data).outputs
    np.testing.assert_array_equal(labels, full.outputs.argmax(axis=1))


def test_labels_are_learned_from_where_there_is_nothing_else(digit_target, all_data):
    assert measured(steal(digit_target, all_data, interface="labels"))["agreement"].value > 0.5
    defended = digit_target.through(LabelsOnly())
    output = steal(defended, all_data)
    assert measured(output)["agreement"].value > 0.5
    np.testing.assert_array_equal(output.surrogate, steal(digit_target, all_data, interface="labels").surrogate)


@pytest.mark.parametrize("recipe", [{"loss": "kl", "temperature": 4.0}, {"loss": "mse"}, {}])
def test_losses(recipe, digit_target, all_data):
    output = steal(digit_target, all_data, recipe={**FAST["recipe"], "epochs": 15, **recipe})
    found = measured(output)
    assert found["agreement"].value > 0.5
    assert found["posterior-distance"].value < 0.5, "the confidence of the surrogate did not collapse"


def test_what_the_interface_hides_is_said_before_anything_is_asked(sealed, all_data):
    for settings in ({"recipe": {"loss": "mse"}}, {"recipe": {"loss": "kl"}}):
        with pytest.raises(AccessDenied, match="labels only"):
            steal(sealed, all_data, interface="labels", **settings)
    with pytest.raises(AccessDenied, match="labels only"):
        steal(sealed, all_data, attack=MLDoctorSurrogate, interface="labels", recipe={})
    with pytest.raises(AccessDenied, match="certainty"):
        steal(sealed, all_data, attack=KnockoffStealing, interface="labels")
    assert sealed.backend.calls == 0
    steal(sealed, all_data, attack=KnockoffStealing, interface="labels", rewards="diversity loss", first=60)


def test_bad_settings_are_refused():
    with pytest.raises(ConfigurationError, match="budget of 0"):
        SecurityNetSurrogate(budgets=(0, 100))
    with pytest.raises(ConfigurationError, match="budget of -3"):
        SecurityNetSurrogate(budgets=-3)
    with pytest.raises(ConfigurationError, match="Invalid recipe for surrogates"):
        SecurityNetSurrogate(recipe={"epoch": 3})
    with pytest.raises(ConfigurationError, match="seed"):
        SecurityNetSurrogate(recipe={"seed": 3})
    with pytest.raises(ConfigurationError, match="augmentation"):
        SecurityNetSurrogate(copies=2)
    with pytest.raises(ConfigurationError, match="reward"):
        KnockoffStealing(rewards=())
    assert SecurityNetSurrogate(budgets="1000 100+1000").budgets == (100, 1000)


def test_bad_data_is_refused_before_anything_is_asked(sealed, all_data, digits):
    available = len(all_data.splits.known_members)
    with pytest.raises(ConfigurationError, match=f"{available:,} distinct images"):
        steal(sealed, all_data, budgets=available + 1)
    with pytest.raises(ConfigurationError, match="distinct images"):
        steal(sealed, all_data, budgets=available + 1, attack=KnockoffStealing)
    poor = lacking(all_data, 3)
    with pytest.raises(ConfigurationError, match="no image of 1 of the target's 10 classes: 3"):
        steal(sealed, poor)
    public = dataclasses.replace(
        all_data, splits=splits.public(dataclasses.replace(digits, parts=halves(digits))), auxiliary=None
    )
    with pytest.raises(SplitError, match="no shadow data"):
        steal(sealed, public, SHADOW)
    with pytest.raises(ConfigurationError, match="out-of-distribution"):
        steal(sealed, public, ELSEWHERE)
    with pytest.raises(UnknownName, match="architecture"):
        steal(sealed, all_data, architecture="resnet19")
    with pytest.raises(ConfigurationError, match="not a network"):
        steal(sealed, all_data, architecture="onnx:model.onnx")
    recorded = dataclasses.replace(all_data, dataset=dataclasses.replace(digits, images=None))
    with pytest.raises(ConfigurationError, match="no images"):
        steal(sealed, recorded)
    assert sealed.backend.calls == 0
    assert measured(steal(sealed, poor, missing_classes=True))["agreement"].value > 0.4


def halves(dataset):
    return {"train": np.arange(0, len(dataset), 2), "test": np.arange(1, len(dataset), 2)}


def test_answers_of_one_class_teach_nothing(digit_target, all_data):
    known = all_data.splits.known_members
    same = known[digit_target.labels(all_data.dataset.batch(known)).numpy() == 4]
    data = dataclasses.replace(all_data, splits=dataclasses.replace(all_data.splits, known_members=same))
    with pytest.raises(ConfigurationError, match="same class"):
        steal(digit_target, data, budgets=len(same), interface="labels", missing_classes=True)


def test_images_that_occur_twice_are_asked_about_once(sealed, digits, all_data):
    images = digits.images.clone()
    known = all_data.splits.known_members
    images[known[1::2]] = images[known[::2]][: len(known[1::2])]
    twice = dataclasses.replace(digits, images=images, content_digest=None)
    data = dataclasses.replace(all_data, dataset=twice)
    asked = context()
    half = (len(known) + 1) // 2
    SecurityNetSurrogate(**FAST)(sealed, data, asked, PARTIAL)
    assert asked.queries().total == asked.queries().unique == sealed.query_counter.total == half
    with pytest.raises(ConfigurationError, match="distinct"):
        steal(sealed, data, budgets=half + 1)


def test_data_of_another_kind_is_brought_into_shape(elsewhere, digits):
    made = match_shape(elsewhere, digits)
    assert made.image_shape == digits.image_shape
    some = np.array([5, 3, 900])
    for image, record in zip(made.batch(some), some, strict=True):
        grey = Image.fromarray(elsewhere.images[record, 0].numpy()).resize((8, 8), Image.Resampling.BILINEAR)
        assert np.abs(image[0].numpy().astype(int) - np.asarray(grey, dtype=int)).max() <= 1
    assert made.fingerprint != elsewhere.fingerprint
    colour = Reshaped(digits.images, 3, 8, 8)[torch.tensor([1])]
    assert torch.equal(colour, digits.images[[1]].repeat(1, 3, 1, 1))
    luma = Reshaped(torch.tensor([100, 50, 200], dtype=torch.uint8).view(1, 3, 1, 1), 1, 1, 1)[torch.tensor([0])]
    assert int(luma) == round(0.299 * 100 + 0.587 * 50 + 0.114 * 200)


def test_copies_are_queries_of_their_own(sealed, all_data):
    asked = context()
    attack = Recorder(**{**FAST, "recipe": {**FAST["recipe"], "augment": "flip"}}, budgets=90, copies=1)
    attack(sealed, all_data, asked, PARTIAL)
    assert asked.queries().total == asked.queries().unique == sealed.query_counter.unique == 90
    answered = attack.__dict__["answered"]
    images = answered.dataset.images
    originals = {image.numpy().tobytes() for image in all_data.dataset.batch(all_data.splits.known_members)}
    flipped = {image.flip(2).numpy().tobytes() for image in all_data.dataset.batch(all_data.splits.known_members)}
    kinds = [(row.numpy().tobytes() in originals, row.numpy().tobytes() in flipped) for row in images]
    assert all(any(kind) for kind in kinds)
    assert 20 < sum(not original for original, _ in kinds) < 45, "about half of the copies are mirrored"
    np.testing.assert_allclose(answered.outputs, sealed.posteriors(images).numpy(), atol=1e-6)


def test_augmentation_that_asks_nothing_costs_nothing(sealed, all_data):
    asked = context()
    attack = SecurityNetSurrogate(**{**FAST, "recipe": {**FAST["recipe"], "augment": "flip"}}, budgets=60)
    attack(sealed, all_data, asked, PARTIAL)
    assert asked.queries().total == sealed.query_counter.total == 60


def test_a_surrogate_is_kept_and_is_a_target_itself(digit_target, all_data, tmp_path):
    output = steal(digit_target, all_data, cache=tmp_path)
    (relative,) = output.saved
    assert relative.startswith("surrogates/") and relative in measured(output)["agreement"].note
    stolen = load_target("arch:simple-cnn", weights=tmp_path / relative, dataset=all_data.dataset, device="cpu")
    judged = all_data.dataset.batch(output.indices)
    np.testing.assert_array_equal(stolen.labels(judged).numpy(), output.surrogate[0])
    np.testing.assert_allclose(stolen.posteriors(judged).amax(dim=1).numpy(), output.confidence[0], atol=1e-5)
    again = steal(stolen, all_data)  # and can be stolen from
    assert measured(again)["agreement"].value > 0.5


def test_a_surrogate_of_another_library(digit_target, all_data):
    output = steal(digit_target, all_data, architecture="timm:test_resnet", budgets=60, recipe={"epochs": 1})
    assert output.architecture == "timm:test_resnet"
    assert len(output.surrogate[0]) == len(all_data.splits.non_members)


@pytest.mark.parametrize("attack", [SecurityNetSurrogate, DataFreeStealing])
def test_a_killed_run_goes_on_with_the_same_numbers(attack, sealed, all_data, tmp_path):
    model = attack.threat_models[0]
    settings = {**FAST, "recipe": {**FAST["recipe"], "epochs": 5}, "budgets": (50, 100)}
    if attack is DataFreeStealing:
        settings |= {"batch": 25, "student_steps": 2, "generator_steps": 1}
    whole = attack(**settings)(sealed, all_data, context(tmp_path / "whole"), model)

    class Killed(BaseException):
        pass

    def kill(after):
        calls = iter(range(10_000))

        def progress(done, total):
            if next(calls) == after:
                raise Killed

        return progress

    for after in (1, 2, 3):
        with pytest.raises(Killed):
            attack(**settings)(sealed, all_data, context(tmp_path / "killed", progress=kill(after)), model)
    asked = context(tmp_path / "killed")
    rest = attack(**settings)(sealed, all_data, asked, model)
    assert asked.queries().unique == 100
    for key, array in whole.arrays().items():
        np.testing.assert_array_equal(array, rest.arrays()[key])


def test_transfer_of_adversarial_examples(digit_target, all_data):
    output = steal(digit_target, all_data, budgets=(4, 300), transfer=100, epsilon=0.15)
    found = measured(output)
    assert output.fooled.shape == (2, 100) and output.fooled_by_noise.shape == (100,)
    assert found["transfer"].n == 100
    assert found["transfer-gain"].low > 0, "a surrogate's adversarial examples fool the target more than noise does"
    assert output.fooled[1].mean() > output.fooled[0].mean(), "and those of a poor one fool it less"


def test_agreement_grows_with_the_budget(digit_target, all_data):
    found = measured(steal(digit_target, all_data, budgets=(20, 300)))
    assert found["agreement@budget=20"].high < found["agreement@budget=300"].low
    assert found["agreement"].value == found["agreement@budget=300"].value


def test_recipes_are_the_trainers(digit_target, all_data):
    attack = SecurityNetSurrogate(recipe={"epochs": 7, "loss": "kl", "temperature": 3.0})
    recipe = attack.training(digit_target, context(seed=5))
    assert recipe.model_copy(update={"seed": 0}) == Recipe(
        epochs=7, learning_rate=0.01, schedule="constant", loss="kl", temperature=3.0
    )
    assert recipe.seed != attack.training(digit_target, context(seed=6)).seed


def test_images_of_a_size_that_the_target_does_not_take_are_refused(digit_target, all_data):
    wide = ImageDataset("wide", all_data.dataset.images[..., :6], all_data.dataset.labels, tuple("0123456789"), {})
    with pytest.raises(SecurityNetError, match=r"does not take images of 8×6 pixels \(not square\)") as refusal:
        steal(digit_target, dataclasses.replace(all_data, dataset=wide))
    assert refusal.value.hint is not None and "--input-size" in refusal.value.hint
