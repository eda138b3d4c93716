"""DP-SGD: its steps by hand, its accounting by Opacus' own accountants, and that a killed run spends nothing twice."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from securitynet.attacks import ATTACKS
from securitynet.datasets.splits import Splits
from securitynet.defenses.dp_sgd import PRESETS, DpSgd
from securitynet.defenses.label_smoothing import LabelSmoothing
from securitynet.errors import ConfigurationError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.architectures.factory import build
from securitynet.models.loading.load import load_target
from securitynet.models.store.record_files import read_target_record
from securitynet.models.store.train_target import train_model, train_target
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.target import Target
from securitynet.models.training import dp_sgd as private
from securitynet.models.training.accounting import compute_epsilon, find_noise, plan_steps
from securitynet.models.training.config import TrainConfig
from securitynet.models.training.dp_sgd import PrivateSteps
from securitynet.models.training.fit import fit
from securitynet.models.training.recipe import Recipe
from securitynet.models.training.training_defense import Fitting
from securitynet.records import Access

RECIPE = Recipe(epochs=3, batch_size=16, learning_rate=0.1, momentum=0.0, weight_decay=0.0, schedule="constant")


def network(name="simple-cnn", seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build(name, 10, 1, 8)


def by_hand(module, images, labels, groups, bound, expected, rate):
    """SGD on the sum of clipped gradients of single records, divided by the expected batch size; no noise."""
    for group in groups:
        totals = [torch.zeros_like(p) for p in module.parameters()]
        for record in group.tolist():
            loss = functional.cross_entropy(module(images[record : record + 1]), labels[record : record + 1])
            gradients = torch.autograd.grad(loss, list(module.parameters()))
            norm = torch.cat([g.flatten() for g in gradients]).norm()
            for total, gradient in zip(totals, gradients, strict=True):
                total += gradient * min(1.0, bound / float(norm))
        with torch.no_grad():
            for parameter, total in zip(module.parameters(), totals, strict=True):
                parameter -= rate * total / expected


@pytest.mark.parametrize("clipping", ["per-sample", "ghost"])
@pytest.mark.parametrize("part", [1000, 5], ids=["whole", "in-parts"])
def test_steps_without_noise_are_clipped_sums_of_single_gradients(digits, clipping, part, monkeypatch):
    images, labels = digits.batch(np.arange(60)), torch.from_numpy(digits.labels[:60])
    procedure = PrivateSteps(noise_multiplier=1e-12, clipping_bound=0.5, clipping=clipping)
    begin, groups = procedure.begin, []

    def in_parts(run):
        begin(run)
        procedure.part = part

    def recorded(run, epoch):
        groups.append(PrivateSteps.batches(procedure, run, epoch))
        return groups[-1]

    monkeypatch.setattr(procedure, "begin", in_parts)
    monkeypatch.setattr(procedure, "batches", recorded)
    module, expected = network(), network()
    fit(module, images, labels, RECIPE, device="cpu", procedure=procedure)
    assert len(groups) == 3 and len(groups[0]) == round(60 / 16)
    by_hand(expected, images.float() / 255, labels, [g for epoch in groups for g in epoch], 0.5, 16, 0.1)
    for found, wanted in zip(module.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, atol=2e-6, rtol=1e-4)
    assert not any(hasattr(p, "grad_sample") or p.grad is not None for p in module.parameters())
    assert not any(layer._forward_hooks or layer._backward_hooks for layer in module.modules())


def test_noise_has_the_deviation_that_was_asked_for(digits):
    """With gradients clipped to almost nothing, a step moves each weight by noise alone."""
    images, labels = digits.batch(np.arange(60)), torch.from_numpy(digits.labels[:60])
    recipe = RECIPE.model_copy(update={"epochs": 1, "batch_size": 60, "learning_rate": 1.0})
    module, before = network(), network()
    fit(module, images, labels, recipe, device="cpu", procedure=PrivateSteps(noise_multiplier=3e3, clipping_bound=1e-3))
    moves = [(a - b).flatten() for a, b in zip(module.parameters(), before.parameters(), strict=True)]
    moved = torch.cat([move.detach() for move in moves])
    assert float(moved.std()) == pytest.approx(3e3 * 1e-3 / 60, rel=0.02)  # 100,000 weights: an error of 0.2%
    assert abs(float(moved.mean())) < 4 * 0.05 / math.sqrt(len(moved))


def test_each_record_joins_each_batch_with_the_sampling_rate(digits):
    images, labels = digits.batch(np.arange(400)), torch.from_numpy(digits.labels[:400])
    procedure = PrivateSteps(noise_multiplier=1.0, clipping_bound=1.0)
    groups: list[torch.Tensor] = []

    class Watching(PrivateSteps):
        def batches(self, run, epoch):
            if not groups:  # many epochs' draws, without training on them
                groups.extend(group for number in range(100) for group in super(Watching, self).batches(run, number))
            return []

    procedure = Watching(noise_multiplier=1.0, clipping_bound=1.0)
    fit(network(), images, labels, RECIPE.model_copy(update={"epochs": 1}), device="cpu", procedure=procedure)
    counts = torch.bincount(torch.cat(groups), minlength=400).double()
    rate, steps = 16 / 400, len(groups)
    assert steps == 100 * 25
    deviation = math.sqrt(steps * rate * (1 - rate))
    assert abs(float(counts.mean()) - steps * rate) < 4 * deviation / math.sqrt(400)
    assert float(counts.std()) == pytest.approx(deviation, rel=0.15)
    sizes = torch.tensor([len(group) for group in groups]).double()
    assert float(sizes.std()) == pytest.approx(math.sqrt(400 * rate * (1 - rate)), rel=0.1)


def test_a_batch_that_nobody_joined_is_noise_and_is_counted(digits):
    images, labels = digits.batch(np.arange(8)), torch.from_numpy(digits.labels[:8])
    recipe = RECIPE.model_copy(update={"epochs": 4, "batch_size": 1})
    for clipping in ("per-sample", "ghost"):
        procedure = PrivateSteps(noise_multiplier=1.0, clipping_bound=1.0, clipping=clipping)
        history = fit(network(), images, labels, recipe, device="cpu", procedure=procedure)
        assert procedure.privacy(8).steps == 4 * 8 and history.epochs_run == 4


@pytest.mark.parametrize("accountant", ["rdp", "prv"])
def test_opacus_own_accountant_confirms_epsilon(digits, accountant):
    from opacus.accountants import PRVAccountant, RDPAccountant

    images, labels = digits.batch(np.arange(200)), torch.from_numpy(digits.labels[:200])
    procedure = PrivateSteps(noise_multiplier=1.3, clipping_bound=1.0, accountant=accountant)
    fit(network(), images, labels, RECIPE, device="cpu", procedure=procedure)
    found = procedure.privacy(200)
    keeper = {"rdp": RDPAccountant, "prv": PRVAccountant}[accountant]()
    for _ in range(3 * round(200 / 16)):  # step by step, as a training of Opacus' own would
        keeper.step(noise_multiplier=1.3, sample_rate=16 / 200)
    assert found.epsilon == pytest.approx(keeper.get_epsilon(delta=1e-5), rel=1e-9)
    assert (found.steps, found.sample_rate) == (sum(entry[2] for entry in keeper.history), 0.08)


@pytest.mark.parametrize("accountant", ["rdp", "prv", "zcdp"])
def test_noise_for_an_epsilon_spends_that_and_hardly_less(accountant):
    rate, steps = plan_steps(450, 64)
    noise = find_noise(accountant, 5.0, rate, steps * 20, 1e-5)
    assert 4.98 < compute_epsilon(accountant, noise, rate, steps * 20, 1e-5) <= 5.0 + 1e-9


def test_the_zcdp_figure_by_hand():
    # 300 uses of each record at noise 10: rho = 300 / 200 = 1.5, epsilon = 1.5 + 2 sqrt(1.5 ln 1e5)
    assert compute_epsilon("zcdp", 10.0, 0.01, 30_000, 1e-5) == pytest.approx(
        1.5 + 2 * math.sqrt(1.5 * 11.512925), rel=1e-6
    )


def fitting(digits, tmp_path, note, **changes):
    indices = np.arange(120)
    return Fitting(
        "simple-cnn", network(), digits.images, digits.labels, indices, RECIPE, DpSgd().preprocessing(digits, indices),
        (10, 1, 8), checkpoint=tmp_path / "c.checkpoint", device="cpu", note=note, **changes,
    )  # fmt: skip


class Killed(Exception):
    pass


@pytest.mark.parametrize("secret", [False, True])
@pytest.mark.parametrize("epoch", [1, 2])
def test_a_killed_run_goes_on_and_neither_loses_nor_doubles_its_accounting(digits, tmp_path, epoch, secret):
    defense = DpSgd(noise_multiplier=1.2, secret_noise=secret)

    def kill(done, _total, _history):
        if done == epoch:
            raise Killed

    whole = fitting(digits, tmp_path / "whole", print)
    _, undisturbed = defense.fit(whole)
    with pytest.raises(Killed):
        defense.fit(fitting(digits, tmp_path / "killed", print, progress=kill))
    notes: list[str] = []
    again = fitting(digits, tmp_path / "killed", notes.append)
    _, resumed = defense.fit(again)
    assert any("Resumed" in note for note in notes)
    assert resumed["privacy"].sampling is not None, "the batches before the interruption are in the checkpoint"
    unsampled = {"sampling"} if secret else set()  # a secret seed draws other batches in each run
    assert resumed["privacy"].model_dump(exclude=unsampled) == undisturbed["privacy"].model_dump(exclude=unsampled)
    assert resumed["privacy"].steps == 3 * round(120 / 16)
    same = [torch.equal(a, b) for a, b in zip(again.network.parameters(), whole.network.parameters(), strict=True)]
    assert all(same) is not secret  # secret noise is another one in each run
    finished = fitting(digits, tmp_path / "killed", print)
    _, twice = defense.fit(finished)  # a finished run that is asked for again spends nothing
    assert twice["privacy"] == resumed["privacy"]
    assert all(
        torch.equal(a, b) for a, b in zip(again.network.parameters(), finished.network.parameters(), strict=True)
    )


def test_a_secret_seed_is_in_no_artefact_and_gives_other_weights(digits):
    first, second = (train_target("simple-cnn", digits, defense=DpSgd(secret_noise=True), epochs=1) for _ in "ab")
    assert first.identity.checksum != second.identity.checksum


@pytest.mark.slow
def test_on_digits_attacks_are_at_chance_where_they_were_well_above(digits):
    """Epsilon near 8, against the strongest of the attacks that need no shadow models.

    A quarter of the labels is wrong, for members and non-members alike: only by heart can those be learnt.
    """
    draws = np.random.default_rng(0)
    order = draws.permutation(len(digits)).astype(np.int64)
    members, non_members = np.sort(order[:1200]), np.sort(order[1200:])
    labels = np.where(draws.random(len(digits)) < 0.25, draws.integers(0, 10, len(digits)), digits.labels)
    noisy = dataclasses.replace(digits, labels=labels, reference="noisy digits")
    data = TrialData(noisy, Splits("test", members, non_members, members[::2], non_members[::2], order[:0], order[:0]))
    plain = Recipe(epochs=30, batch_size=32, optimizer="adam", learning_rate=3e-3, weight_decay=0, schedule="constant")
    private = Recipe(epochs=8, learning_rate=0.1, schedule="constant", weight_decay=0)
    aucs = {}
    for name, recipe, defense in (("plain", plain, LabelSmoothing(share=1e-6)), ("private", private, DpSgd(epsilon=8))):
        normalise = defense.preprocessing(noisy, members)
        module = network()
        wanted = Fitting(
            "simple-cnn", module, noisy.images, labels, members, recipe, normalise, (10, 1, 8), device="cpu"
        )
        _, found = defense.fit(wanted)
        backend = ModuleBackend(module, reference=name, checksum=name, example_shape=(1, 8, 8))
        target = Target(backend, preprocessing=normalise)
        measured = []
        for attack in ("loss", "modified-entropy", "entropy", "confidence"):
            method = ATTACKS.get(attack)()
            output = method(target, data, Context(), method.threat_models[0])
            measured += [m for m in output.measurements(level=0.95, fprs=(0.1,), seed=0) if m.name == "auc"]
        aucs[name] = max(measured, key=lambda m: m.value)
    assert found["privacy"].epsilon == pytest.approx(8, abs=0.02)
    assert float((target.labels(digits.batch(non_members)).numpy() == digits.labels[non_members]).mean()) > 0.6
    assert aucs["plain"].low > 0.58
    assert aucs["private"].low <= 0.5 <= aucs["private"].high


@pytest.mark.slow
def test_batch_norms_are_replaced_with_a_word_and_the_artefact_loads(digits, tmp_path):
    out = tmp_path / "m.safetensors"
    notes: list[str] = []
    config = TrainConfig(
        architecture="cifar-resnet20", dataset="digits", epochs=1, batch_size=32, limit=128, out=out, defense="dp-sgd"
    )
    _, trained = train_model(config, defense=DpSgd(delta=1e-3), note=notes.append)
    assert any("BatchNorm2d" in note and "group norms" in note for note in notes)
    read = read_target_record(out)
    assert read == trained and read.defense.group_norms
    assert read.defense.privacy.epsilon == pytest.approx(8, abs=0.02)
    target = load_target("arch:cifar-resnet20", weights=out)
    assert target.access is Access.WHITE_BOX
    assert not any("BatchNorm" in type(layer).__name__ for layer in target.module.modules())
    labels = target.labels(digits.batch(np.arange(20)))
    assert labels.shape == (20,)
    _, same = train_model(config, defense=DpSgd(delta=1e-3), note=notes.append)
    assert "complete already" in notes[-1] and same == read


@pytest.mark.parametrize(
    ("settings", "recipe", "architecture", "message"),
    [
        ({"replace_layers": False}, {}, "cifar-resnet20", "BatchNorm2d"),
        ({}, {"patience": 3}, "simple-cnn", "early stopping"),
        ({}, {"clip_norm": 1.0}, "simple-cnn", "clip-norm"),
        ({}, {"loss": "kl", "temperature": 2.0}, "simple-cnn", "loss kl"),
        ({}, {"batch_size": 5000}, "simple-cnn", "batches of 5000"),
        ({"delta": 0.01}, {}, "simple-cnn", "meaningless for 450 records"),
    ],
)
def test_what_cannot_be_private_is_refused_before_any_work(digits, settings, recipe, architecture, message):
    def never(*_):
        raise AssertionError("it was trained")

    with pytest.raises(ConfigurationError, match=message):
        train_target(architecture, digits, defense=DpSgd(**settings), progress=never, **recipe)


def test_the_papers_settings_are_there_and_spend_what_they_say():
    assert set(PRESETS.values()) == {5.14, 6.57, 8.41, 9.36, 8.83, 9.60, 9.58, 7.76}
    recipe = Recipe()  # 300 epochs
    noise = DpSgd(preset="celeba-1").noise(5000, recipe)
    rate, steps = plan_steps(5000, 64)
    assert compute_epsilon("rdp", noise, rate, steps * 300, 1e-5) == pytest.approx(5.14, abs=0.02)


def test_ghost_clipping_is_chosen_for_many_weights(digits, monkeypatch):
    monkeypatch.setattr(private, "GHOST_WEIGHTS", 1000)
    images, labels = digits.batch(np.arange(60)), torch.from_numpy(digits.labels[:60])
    procedure = PrivateSteps(noise_multiplier=1.0, clipping_bound=1.0)
    fit(network(), images, labels, RECIPE.model_copy(update={"epochs": 1}), device="cpu", procedure=procedure)
    assert procedure.privacy(60).clipping == "ghost"
