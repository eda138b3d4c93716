"""What every defense keeps, and what each of them does, against values worked out by hand."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from securitynet.datasets import splits as all_splits
from securitynet.defenses import DEFENSES
from securitynet.defenses.adversarial_regularisation import Adversarial, AdversarialRegularisation, InferenceAttack
from securitynet.defenses.base import make_defense, make_output_defense, make_training_defense
from securitynet.defenses.distillation import Distillation, Distilling
from securitynet.defenses.dropout import Dropout
from securitynet.defenses.relaxloss import compute_relaxed_loss
from securitynet.errors import ConfigurationError, UnknownName
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.architectures.factory import build
from securitynet.models.loading.load import load_target
from securitynet.models.store.effective_splits import restore_splits
from securitynet.models.store.record_files import read_target_record
from securitynet.models.store.train_target import train_model, train_target
from securitynet.models.training.config import TrainConfig
from securitynet.models.training.fit import fit
from securitynet.models.training.recipe import Recipe
from securitynet.models.training.training_defense import Fitting, count_trained_weights, set_aside

TRAINING = [name for name in DEFENSES if DEFENSES.get(name).stage == "training"]
OUTPUT = [name for name in DEFENSES if DEFENSES.get(name).stage == "output"]


class Killed(Exception):
    pass


def config(out, name, **changes):
    values = {"architecture": "simple-cnn", "dataset": "digits", "epochs": 3, "limit": 240, "out": out, **changes}
    return TrainConfig(**values, defense=name)


def weights(path):
    return load_target("arch:simple-cnn", weights=path).backend.checksum


def settings(name):
    return {"dp-sgd": {"delta": 1e-3}, "early-stopping": {"patience": 50}, "relaxloss": {"alpha": 2.25}}.get(name, {})


def test_the_issues_defenses_are_there():
    assert set(TRAINING) == {
        "dp-sgd", "distillation", "label-smoothing", "early-stopping", "weight-decay", "dropout",
        "adversarial-regularisation", "relaxloss",
    }  # fmt: skip
    assert set(OUTPUT) == {"top-k", "rounding", "temperature", "label-only", "memguard"}
    for name in DEFENSES:
        for chosen in DEFENSES.get(name).sweep:
            assert make_defense(name, chosen).model_dump().items() >= chosen.items()
        assert DEFENSES.entries[name].summary.endswith(".")


@pytest.fixture(scope="module")
def train_plainly(tmp_path_factory):
    """Trains a model without a defense, once for all tests; returns the checksum of its weights and its record."""

    @cache
    def train(faster):
        out = tmp_path_factory.mktemp("plain") / "plain.safetensors"
        _, record = train_model(config(out, None, **dict(faster)))
        return weights(out), record

    return train


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "dp-sgd" else name for name in TRAINING]
)
def test_trained_with_it_killed_and_resumed(name, tmp_path, train_plainly):
    """The same weights as an undisturbed run, another model than without it, and a record that says so."""
    defense = make_defense(name, settings(name))
    # So that it comes below alpha, from where on it differs, in three epochs.
    faster = {"learning_rate": 0.2, "batch_size": 10} if name == "relaxloss" else {}
    whole, broken = tmp_path / "whole.safetensors", tmp_path / "broken.safetensors"
    _, trained = train_model(config(whole, name, **faster), defense=defense)
    seen = []

    def kill(done, total, _history):
        seen.append(done)
        if seen.count(2) == 1 and done == 2:
            raise Killed

    with pytest.raises(Killed):
        train_model(config(broken, name, **faster), defense=defense, progress=kill)
    notes: list[str] = []
    _, again = train_model(config(broken, name, **faster), defense=defense, note=notes.append)
    assert any("Resumed" in note for note in notes)
    assert weights(whole) == weights(broken)
    timeless = {"history", "weights_checksum"}
    assert again.model_dump(exclude=timeless) == trained.model_dump(exclude=timeless)
    assert read_target_record(whole) == trained and trained.defense.name == name
    assert [path.name for path in tmp_path.iterdir() if "checkpoint" in path.name] == []
    plain, without = train_plainly(tuple(faster.items()))
    assert plain != weights(whole) and without.defense is None
    with pytest.raises(ConfigurationError, match="defense"):  # neither is taken for the other
        train_model(config(whole, None, **faster))


@pytest.mark.parametrize("name", ["distillation", "adversarial-regularisation"])
def test_records_set_aside_are_neither_members_nor_non_members(name, tmp_path):
    import securitynet.datasets

    chosen = {"data": "held-out"} if name == "distillation" else {}
    out = tmp_path / "m.safetensors"
    _, trained = train_model(config(out, name, epochs=1), defense=make_defense(name, chosen))
    digits = securitynet.datasets.load("digits", limit=240)
    everyone = all_splits.make("four-way", digits, seed=0)
    found = restore_splits(trained, digits)
    assert trained.defense.set_aside == len(everyone.members) - len(found.members) > 10
    assert set(found.members) < set(everyone.members)
    np.testing.assert_array_equal(found.non_members, everyone.non_members)
    assert set(found.known_members) <= set(found.members)


def test_setting_aside():
    kept, aside = set_aside(100, 0.3, seed=1)
    assert len(kept) == 70 and set(kept) | set(aside) == set(range(100))
    assert not np.array_equal(aside, set_aside(100, 0.3, seed=2)[1])
    assert len(set_aside(100, 0.0, seed=1)[1]) == 0
    with pytest.raises(ConfigurationError, match="cannot be set aside"):
        set_aside(4, 0.1, seed=1)


def test_relaxloss_by_hand():
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 3.0, 0.0], [1.0, 1.5, 0.0]])
    labels = torch.tensor([0, 1, 0])
    plain = functional.cross_entropy(logits, labels)
    assert compute_relaxed_loss(logits, labels, 0.1, up=True) == plain  # above what is wanted: as ever
    assert compute_relaxed_loss(logits, labels, 5.0, up=True) == -plain
    p = logits.softmax(dim=1)
    # Each keeps the posterior of its class; the third is wrong, and is the only one that `wrong` flattens.
    wanted = torch.tensor([
        [p[0, 0], (1 - p[0, 0]) / 2, (1 - p[0, 0]) / 2],
        [(1 - p[1, 1]) / 2, p[1, 1], (1 - p[1, 1]) / 2],
        [p[2, 0], (1 - p[2, 0]) / 2, (1 - p[2, 0]) / 2],
    ])  # fmt: skip
    each = -(wanted * p.log()).sum(dim=1)
    torch.testing.assert_close(compute_relaxed_loss(logits, labels, 5.0, up=False), each.mean())
    up = p[[0, 1], [0, 1]].log().sum()
    torch.testing.assert_close(compute_relaxed_loss(logits, labels, 5.0, up=False, flatten="wrong"), (up + each[2]) / 3)


@pytest.mark.slow
def test_relaxloss_keeps_the_training_loss_up(digits):
    recipe = {"epochs": 30, "batch_size": 32, "optimizer": "adam", "learning_rate": 3e-3, "schedule": "constant"}

    def loss(defense):
        target = train_target("simple-cnn", digits, defense=defense, **recipe)
        members = all_splits.make("four-way", digits, seed=0).members
        posteriors = target.posteriors(digits.batch(members)).numpy()
        return -np.log(posteriors[np.arange(len(members)), digits.labels[members]]).mean()

    relaxed_loss, plain = loss(make_defense("relaxloss", {"alpha": 0.5})), loss(None)
    assert plain < 0.02
    assert 0.1 < relaxed_loss < 1.2


def a_fitting(digits, recipe, architecture="simple-cnn", **changes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build(architecture, 10, 1, 8)
    indices = np.arange(100)
    normalise = make_defense("label-smoothing").preprocessing(digits, indices)
    values = {"aside": np.arange(100, 160), "unseen": np.arange(160, 260), "device": "cpu", **changes}
    shape = (10, 1, 8)
    return Fitting(architecture, network, digits.images, digits.labels, indices, recipe, normalise, shape, **values)


def test_distillation_loss_by_hand(digits):
    class Fake:
        recipe = Recipe()

    logits = torch.tensor([[1.0, 2.0, 0.5], [0.1, -1.0, 3.0]])
    teacher = torch.tensor([[4.0, 0.0, 0.0], [0.0, 1.0, 5.0]])
    labels = torch.tensor([0, 2])
    procedure = Distilling(nn.Linear(1, 1), temperature=20.0, alpha=0.7)
    procedure._known = teacher
    found = procedure.loss(Fake(), logits, labels, torch.empty(2), torch.arange(2))
    p, q = (teacher / 20).softmax(dim=1), (logits / 20).softmax(dim=1)
    divergence = (p * (p / q).log()).sum() / 2
    ce = -logits.softmax(dim=1)[torch.arange(2), labels].log().mean()
    torch.testing.assert_close(found, 0.7 * 400 * divergence + 0.3 * ce, rtol=1e-4, atol=0)


@pytest.mark.parametrize("augment", ["none", "flip"])
def test_a_student_agrees_with_its_teacher(digits, augment):
    recipe = Recipe(
        epochs=25, batch_size=25, optimizer="adam", learning_rate=3e-3, schedule="constant", augment=augment
    )
    fitting = a_fitting(digits, recipe)
    history, found = Distillation().fit(fitting)
    teacher = found["teacher"]
    assert history.epochs_run == 25 and teacher.architecture == "simple-cnn" and teacher.records == 100
    assert teacher.weights == teacher.student_weights == count_trained_weights(fitting.network)
    assert teacher.train_accuracy > 0.9 and teacher.test_accuracy > 0.5
    assert teacher.agreement > 0.7  # two networks that knew nothing of each other and of the images: 0.1


def test_on_held_out_data_the_student_never_sees_a_member(digits):
    """Other labels for what the student sees change nothing: it learns from the teacher's answers alone."""
    recipe = Recipe(epochs=2, batch_size=25)
    labels = digits.labels.copy()
    labels[100:160] = (labels[100:160] + 1) % 10
    outcomes = []
    for used in (digits.labels, labels):
        fitting = a_fitting(digits, recipe)
        object.__setattr__(fitting, "labels", used)
        Distillation(data="held-out").fit(fitting)
        outcomes.append(torch.cat([p.detach().flatten() for p in fitting.network.parameters()]))
    assert torch.equal(*outcomes)


def test_teachers():
    assert Distillation().teacher_of("vgg11") == "vgg19"
    assert Distillation().teacher_of("simple-cnn") == "simple-cnn"
    with pytest.raises(ConfigurationError, match="more than its teacher"):
        Distillation(teacher="vgg11").check("vgg19", (10, 3, 32), 100, Recipe())
    Distillation(teacher="vgg19").check("vgg11", (10, 3, 32), 100, Recipe())
    with pytest.raises(UnknownName):
        Distillation(teacher="vgg13").check("vgg11", (10, 3, 32), 100, Recipe())
    with pytest.raises(ConfigurationError, match="early stopping"):
        Distillation().check("vgg11", (10, 3, 32), 100, Recipe(patience=3))


@pytest.mark.slow
def test_the_attack_within_adversarial_regularisation_learns_and_is_resisted(digits):
    """With hardly any weight the inner attack tells members from reference records; with weight it can't as well."""
    recipe = Recipe(epochs=30, batch_size=25, optimizer="adam", learning_rate=3e-3, schedule="constant")
    differences = []
    for weight in (1e-6, 3.0):
        fitting = a_fitting(digits, recipe)
        procedure = Adversarial(AdversarialRegularisation(weight=weight, attack_steps=2), fitting)
        fitting.fit(procedure)
        labels = torch.from_numpy(digits.labels[:160])
        with torch.no_grad():
            images = fitting.preprocessing(digits.batch(np.arange(160)).float() / 255)
            found = procedure.attack(fitting.network(images).softmax(dim=1), labels).sigmoid()
        differences.append(float(found[:100].mean() - found[100:].mean()))
    assert differences[0] > 0.1
    assert differences[1] < differences[0] / 2


def test_the_loss_of_adversarial_regularisation_by_hand(digits):
    fitting = a_fitting(digits, Recipe(epochs=1))
    procedure = Adversarial(AdversarialRegularisation(weight=3.0), fitting)
    procedure.attack = InferenceAttack(10)

    class Fake:
        recipe = Recipe()

    logits, labels = torch.randn(4, 10, generator=torch.Generator().manual_seed(0)), torch.arange(4)
    member = torch.sigmoid(procedure.attack(logits.softmax(dim=1), labels))
    by_hand = -logits.log_softmax(dim=1)[torch.arange(4), labels].mean() + 3.0 * member.log().mean()
    torch.testing.assert_close(procedure.loss(Fake(), logits, labels, torch.empty(4), torch.arange(4)), by_hand)


def test_dropout_drops_in_training_only_and_leaves_the_network_plain(digits):
    fitting = a_fitting(digits, Recipe(epochs=2), architecture="vgg11")
    rates = [layer.p for layer in fitting.network.modules() if isinstance(layer, nn.Dropout)]
    seen = []
    linear = next(layer for layer in fitting.network.modules() if isinstance(layer, nn.Linear))
    linear.register_forward_hook(lambda _layer, inputs, _output: seen.append(float((inputs[0] == 0).float().mean())))
    Dropout(rate=0.9).fit(fitting)
    assert np.mean(seen) > 0.85
    assert [layer.p for layer in fitting.network.modules() if isinstance(layer, nn.Dropout)] == rates
    assert not any(layer._forward_pre_hooks for layer in fitting.network.modules())
    unlike = [a_fitting(digits, Recipe(epochs=2)) for _ in range(2)]
    Dropout(rate=0.5).fit(unlike[0])
    fit(unlike[1].network, digits.batch(np.arange(100)), torch.from_numpy(digits.labels[:100]), Recipe(epochs=2))
    assert not torch.equal(*(next(f.network.parameters()) for f in unlike))


@pytest.mark.parametrize(
    ("name", "texts", "error", "message"),
    [
        ("dp-sg", (), UnknownName, "dp-sgd"),
        ("dp-sgd", ("dp-sgd.epsilon=0",), ConfigurationError, "epsilon"),
        ("dp-sgd", ("dp-sgd.clipping_bound=0",), ConfigurationError, "clipping_bound"),
        ("dp-sgd", ("dp-sgd.epsilon=1", "dp-sgd.noise_multiplier=1"), ConfigurationError, "one of"),
        ("dp-sgd", ("dp-sgd.epsilom=1",), ConfigurationError, "epsilom"),
        ("dp-sgd", ("dropout.rate=0.1",), ConfigurationError, "not in use"),
        ("dp-sgd", ("epsilon=1",), ConfigurationError, "NAME.FIELD=VALUE"),
        ("top-k", (), ConfigurationError, "not how it is trained"),
        ("distillation", ("distillation.alpha=0",), ConfigurationError, "alpha"),
    ],
)
def test_what_makes_no_sense_is_told(name, texts, error, message):
    with pytest.raises(error, match=message):
        make_training_defense(name, texts)


def test_a_training_defense_is_no_defense_of_answers():
    with pytest.raises(ConfigurationError, match="trained already"):
        make_output_defense("dp-sgd", {})


@pytest.mark.parametrize("name", OUTPUT)
def test_defenses_of_answers_keep_the_labels_and_the_accuracy(name, overfitted):
    target, splits, dataset = overfitted
    defense = make_defense(name, {"steps": 60, "epochs": 20} if name == "memguard" else {})
    interface = defense.interface(target, TrialData(dataset, splits), Context())
    view = target.through(interface)
    images = dataset.batch(splits.non_members)
    assert torch.equal(view.labels(images), target.labels(images))
    if name != "label-only":
        assert not torch.allclose(view.posteriors(images), target.posteriors(images), atol=1e-4)


@pytest.mark.parametrize("k", [10, 99])
def test_top_k_of_all_classes_hides_nothing_and_is_refused(k, overfitted):
    target, splits, dataset = overfitted
    with pytest.raises(ConfigurationError, match="hides nothing with 10 classes"):
        make_defense("top-k", {"k": k}).interface(target, TrialData(dataset, splits), Context())
    make_defense("top-k", {"k": 9}).interface(target, TrialData(dataset, splits), Context())


@pytest.mark.slow
def test_memguard_brings_its_classifier_to_doubt_within_the_budget(overfitted):
    target, splits, dataset = overfitted
    data = TrialData(dataset, splits)
    images = dataset.batch(splits.members)
    posteriors = target.posteriors(images)
    for budget in (2.0, 0.1):
        interface = make_defense("memguard", {"budget": budget}).interface(target, data, Context())
        answers = target.through(interface).posteriors(images)
        distances = (answers - posteriors).abs().sum(dim=1)
        changed = distances > 1e-6
        torch.testing.assert_close(answers.sum(dim=1), torch.ones(len(answers)))
        # Expected distortion is at most the budget; three standard errors of a sample are allowed.
        assert float(distances.mean()) <= budget + 3 * float(distances.std()) / len(distances) ** 0.5
        if budget == 2.0:
            assert float(changed.float().mean()) > 0.9
            assert (
                float(interface._confidence(answers).median())
                < 0.05
                < float(interface._confidence(posteriors).median())
            )
    again = make_defense("memguard", {"budget": 0.1}).interface(target, data, Context())
    assert again.canonical() == interface.canonical()
    assert target.through(again).identity == target.through(interface).identity
    torch.testing.assert_close(target.through(again).posteriors(images), answers, atol=0, rtol=0)
    alone = torch.cat([interface.apply(row.unsqueeze(0)) for row in posteriors[:5]])
    torch.testing.assert_close(alone, answers[:5], atol=1e-5, rtol=0)  # asking one by one tells nothing more
