"""The audit with canaries: a broken DP-SGD is caught and a right one is not, from the trainer to the command line."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from securitynet.api import assess
from securitynet.assessments.audit import audit_weights, judge_scores
from securitynet.assessments.audit_config import AuditConfig
from securitynet.assessments.canary_scores import CanaryScores, align_movement
from securitynet.errors import ConfigurationError, SecurityNetError
from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.store.effective_splits import restore_splits
from securitynet.models.store.record_files import read_target_record
from securitynet.models.store.train_target import train_target
from securitynet.models.training.canaries import CanaryPlan, draw_canaries, place_canaries
from securitynet.models.training.dp_sgd import PrivateSteps
from securitynet.models.training.fit import fit
from securitynet.models.training.recipe import Recipe

CANARIES = 200


class BrokenSteps(PrivateSteps):
    """DP-SGD that clips otherwise, draws its batches otherwise than stated, or tells its accountant another rate."""

    fault = ""

    def begin(self, run):
        super().begin(run)
        optimizer = self._optimizer
        clip = optimizer.clip_and_accumulate

        def accumulate_unclipped():
            bound, optimizer.max_grad_norm = optimizer.max_grad_norm, 1e9
            clip()
            optimizer.max_grad_norm = bound

        def accumulate_clipped_mean():
            accumulate_unclipped()
            records = max(1, len(optimizer.params[0].grad_sample))
            norm = sum(float(p.summed_grad.square().sum()) for p in optimizer.params) ** 0.5 / records
            for parameter in optimizer.params:
                parameter.summed_grad *= min(1.0, optimizer.max_grad_norm / max(norm, 1e-12))

        if self.fault == "clipping missing":
            optimizer.clip_and_accumulate = accumulate_unclipped
        if self.fault == "mean of each batch clipped":
            optimizer.clip_and_accumulate = accumulate_clipped_mean
        if self.fault == "accountant told a smaller rate":
            optimizer.attach_step_hook(self._keeper.get_optimizer_hook_fn(self.sample_rate / 4))

    def batches(self, run, epoch):
        if self.fault == "batches larger than stated":
            stated = self.sample_rate
            self.sample_rate = 2 * stated
            drawn = super().batches(run, epoch)
            self.sample_rate = stated
            return drawn
        drawn = super().batches(run, epoch)
        if self.fault == "sampling not Poisson":
            return [torch.arange(len(run.feed))] * len(drawn)
        seeds = (torch.Generator().manual_seed(100 * epoch + step) for step in range(len(drawn)))
        orders = [torch.randperm(len(run.feed), generator=seed) for seed in seeds]
        if self.fault == "shuffled batches":
            return list(torch.tensor_split(orders[0], len(drawn)))
        if self.fault == "batches of one size":
            return [order[: run.recipe.batch_size] for order in orders]
        return drawn


@dataclass
class Trained:
    scores: CanaryScores
    included: np.ndarray
    privacy: object


def train_privately(fault, monkeypatch, seed, *, side=16, noise=4.0, batch=20):
    """A linear classifier of noise images, trained with DP-SGD or with a faulty one."""
    import opacus.optimizers.optimizer  # here, as every process that collects the tests would import it

    factors = {
        "noise missing": 0.0,
        "noise scaled by the batch": 1 / batch,
        "noise scaled by the root of the batch": batch**-0.5,
    }
    generate = opacus.optimizers.optimizer._generate_noise
    generator = np.random.default_rng(seed)
    images = torch.from_numpy(generator.integers(0, 256, (CANARIES, 1, side, side), dtype=np.uint8))
    labels, included = generator.integers(0, 10, CANARIES), generator.random(CANARIES) < 0.5
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(side * side, 10))
    start = {name: value.detach().clone() for name, value in network.named_parameters()}
    steps = BrokenSteps(noise_multiplier=noise, clipping_bound=0.1)
    steps.fault = fault
    recipe = Recipe(
        epochs=10, batch_size=batch, learning_rate=1.0, schedule="constant", momentum=0, weight_decay=0, seed=seed
    )
    preprocessing = Preprocessing(mean=(0.5,), std=(0.5,))
    with monkeypatch.context() as patch:
        factor = factors.get(fault, 1.0)
        patch.setattr(
            opacus.optimizers.optimizer,
            "_generate_noise",
            lambda std, *rest, **named: generate(std * factor, *rest, **named),
        )
        fit(
            network,
            images,
            labels[included],
            recipe,
            indices=np.flatnonzero(included),
            preprocessing=preprocessing,
            procedure=steps,
            device="cpu",
        )
    movement = {name: start[name] - value.detach() for name, value in network.named_parameters()}
    inputs, wanted = preprocessing(images), torch.from_numpy(labels)
    white = align_movement(network, movement, inputs, wanted).numpy()
    losses = nn.functional.cross_entropy(network(inputs), wanted, reduction="none").detach().double().numpy()
    return Trained(CanaryScores(-losses, white), included, steps.privacy(int(included.sum())))


@pytest.mark.parametrize(
    "fault",
    [
        "noise missing",
        "noise scaled by the batch",
        "noise scaled by the root of the batch",
        "clipping missing",
        "mean of each batch clipped",
        "sampling not Poisson",
    ],
)
def test_broken_dp_sgd_is_caught(fault, monkeypatch):
    trained = train_privately(fault, monkeypatch, 0)
    audit = judge_scores(trained.scores, trained.included, "out-of-distribution", trained.privacy)
    assert audit.verdict == "contradicted"
    assert "white-box: trade-off curve" in audit.contradictions
    if "root" not in fault:  # with a quarter of the noise, the curve alone is ruled out
        assert "white-box: epsilon and delta" in audit.contradictions
        assert max(m.value for m in audit.measurements) > trained.privacy.epsilon
    assert "contradicts the model record" in audit.sentences[-1]


@pytest.mark.parametrize(
    ("fault", "shown"),
    [
        ("shuffled batches", {"batches: spread of batch sizes", "batches: spread of uses"}),
        ("batches of one size", {"batches: spread of batch sizes"}),
        (
            "batches larger than stated",
            {"batches: total uses", "batches: spread of batch sizes", "batches: spread of uses"},
        ),
        ("accountant told a smaller rate", {"epsilon of the stated noise, sampling and steps"}),
    ],
)
def test_faults_that_final_weights_do_not_give_away_are_seen_in_the_record(fault, shown, monkeypatch):
    trained = train_privately(fault, monkeypatch, 0)
    audit = judge_scores(trained.scores, trained.included, "out-of-distribution", trained.privacy)
    assert audit.verdict == "contradicted"
    assert set(audit.contradictions) == shown
    if fault.startswith("accountant"):
        return
    unrecorded = trained.privacy.model_copy(update={"sampling": None})
    audit = judge_scores(trained.scores, trained.included, "out-of-distribution", unrecorded)
    assert audit.verdict == "not contradicted"


def test_canaries_too_few_to_contradict_a_large_epsilon_are_named(monkeypatch):
    trained = train_privately("noise missing", monkeypatch, 0, noise=1.15)
    assert 8 < trained.privacy.epsilon < 10
    audit = judge_scores(trained.scores, trained.included, "out-of-distribution", trained.privacy)
    assert audit.verdict == "not contradicted" and "takes more canaries" in audit.sentences[-1]


def test_right_dp_sgd_with_unusual_batches_is_not_accused(monkeypatch):
    trained = train_privately("", monkeypatch, 11)  # its uses spread as they do in one of 200 trainings
    audit = judge_scores(trained.scores, trained.included, "out-of-distribution", trained.privacy)
    assert audit.verdict == "not contradicted"


def test_right_dp_sgd_is_not_accused(monkeypatch):
    trained = train_privately("", monkeypatch, 0)
    audit = judge_scores(trained.scores, trained.included, "out-of-distribution", trained.privacy)
    assert audit.verdict == "not contradicted" and not audit.contradictions and len(audit.tests) == 8
    assert max(m.value for m in audit.measurements) < trained.privacy.epsilon
    assert "does not prove it" in audit.sentences[-1]


@pytest.mark.slow
def test_right_dp_sgd_is_not_accused_over_seeds(monkeypatch):
    accused = 0
    for seed in range(100):
        trained = train_privately("", monkeypatch, seed, noise=(0.7, 1.0, 4.0)[seed % 3])
        audit = judge_scores(trained.scores, trained.included, "out-of-distribution", trained.privacy)
        accused += audit.verdict == "contradicted"
    assert accused <= 3


def test_epsilon_of_zcdp_is_not_tested_but_its_noise_is(monkeypatch):
    trained = train_privately("noise missing", monkeypatch, 1)
    privacy = trained.privacy.model_copy(update={"accountant": "zcdp"})
    audit = judge_scores(trained.scores, trained.included, "out-of-distribution", privacy)
    assert [test for test in audit.tests if not test.startswith("batches")] == [
        "white-box: trade-off curve",
        "black-box: trade-off curve",
    ]
    assert audit.verdict == "contradicted" and any("not a bound" in sentence for sentence in audit.sentences)


def test_movement_is_aligned_with_gradients_as_autograd_computes_them():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(9, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    movement = {name: torch.randn_like(value) for name, value in network.named_parameters()}
    inputs, labels = torch.randn(4, 1, 3, 3, dtype=torch.float64), torch.tensor([0, 2, 1, 1])
    expected = []
    for image, label in zip(inputs, labels, strict=True):
        loss = nn.functional.cross_entropy(network(image[None]), label[None])
        gradients = dict(zip(movement, torch.autograd.grad(loss, list(network.parameters())), strict=True))
        product = sum(float((gradients[name] * movement[name]).sum()) for name in movement)
        expected.append(product / float(sum(g.square().sum() for g in gradients.values())) ** 0.5)
    assert align_movement(network, movement, inputs, labels).numpy() == pytest.approx(expected)


def test_canaries_are_content_derived_and_coins_are_fair(digits):
    members = digits.parts["train"]
    first = draw_canaries(CanaryPlan(1000), digits, members, ["a"])
    assert first == draw_canaries(CanaryPlan(1000), digits, members, ["a"])
    assert first.included != draw_canaries(CanaryPlan(1000), digits, members, ["b"]).included
    assert 420 < sum(first.included) < 580
    assert (digits.labels[first.indices] != first.labels).all() and np.isin(first.indices, members).all()
    natural = draw_canaries(CanaryPlan(100, "natural"), digits, members, ["a"])
    assert (digits.labels[natural.indices] == natural.labels).all()


def test_noise_and_own_images_take_the_place_of_records(digits):
    members = digits.parts["train"]
    noise = place_canaries(draw_canaries(CanaryPlan(50, "out-of-distribution"), digits, members, []), digits)
    everything = torch.arange(len(digits))
    changed = (noise.images[everything] != digits.images[everything]).flatten(1).any(1).numpy()
    assert sorted(np.flatnonzero(changed)) == list(noise.record.records)
    own = type(digits)(
        reference="own",
        images=torch.full((60, *digits.image_shape), 7, dtype=torch.uint8),
        labels=np.arange(60) % 10,
        class_names=digits.class_names,
        parts={},
    )
    record = draw_canaries(CanaryPlan(50, "own", own), digits, members, [])
    placed = place_canaries(record, digits, own)
    assert (placed.images[torch.as_tensor(record.indices)] == 7).all()
    assert (placed.labels[record.indices] == np.arange(50) % 10).all()
    with pytest.raises(ConfigurationError, match="60 images for 61"):
        draw_canaries(CanaryPlan(61, "own", own), digits, members, [])
    with pytest.raises(ConfigurationError, match="not those given"):
        place_canaries(record, digits, None)


@pytest.fixture(scope="module")
def memorising(digits, tmp_path_factory):
    """A network without any defense that knows its mislabelled canaries by heart."""
    out = tmp_path_factory.mktemp("audit") / "model.safetensors"
    plan = CanaryPlan(100)
    train_target("simple-cnn", digits, out=out, canaries=plan, epochs=25, learning_rate=0.03, schedule="cosine")
    return out


def test_memorised_canaries_bound_epsilon(memorising, digits):
    audit = audit_weights(AuditConfig(weights=memorising, dataset="digits"))
    assert audit.canaries == 100 and audit.verdict == "no claim" and audit.claim is None
    by_name = {m.name: m.value for m in audit.measurements}
    assert by_name["audit.black-box.one-run-epsilon@delta=1e-05"] > 1
    assert by_name["audit.black-box.gaussian-epsilon@delta=1e-05"] > 1


def test_canaries_are_neither_members_nor_non_members(memorising, digits):
    record = read_target_record(memorising)
    made = restore_splits(record, digits)
    for indices in made.sets().values():
        assert not np.isin(record.canaries.records, indices).any()
    again = train_target(
        "simple-cnn",
        digits,
        out=memorising,
        canaries=CanaryPlan(100),
        epochs=25,
        learning_rate=0.03,
        schedule="cosine",
    )
    assert again.notes and read_target_record(memorising) == record
    with pytest.raises(ConfigurationError, match="canaries"):
        train_target("simple-cnn", digits, out=memorising, epochs=25, learning_rate=0.03, schedule="cosine")


def test_interrupted_training_keeps_its_coins(digits, tmp_path):
    settings = {"epochs": 4, "learning_rate": 0.03, "canaries": CanaryPlan(60, "out-of-distribution")}
    train_target("simple-cnn", digits, out=tmp_path / "whole.safetensors", **settings)

    def interrupt(done, total, history):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_target("simple-cnn", digits, out=tmp_path / "cut.safetensors", progress=interrupt, **settings)
    train_target("simple-cnn", digits, out=tmp_path / "cut.safetensors", **settings)
    whole, cut = (read_target_record(tmp_path / f"{name}.safetensors") for name in ("whole", "cut"))
    assert whole.canaries == cut.canaries and whole.history.train_loss == cut.history.train_loss


def test_assessment_shows_the_audit(memorising, tmp_path):
    outcome = assess(
        "arch:simple-cnn",
        "digits",
        weights=memorising,
        attacks=("membership.entropy",),
        detectors=(),
        out=tmp_path / "out",
    )
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["audit"]["canaries"] == 100 and len(result["audit"]["measurements"]) == 4
    assert "Audit with canaries" in outcome.report.read_text()


@pytest.mark.slow
def test_command_line_trains_and_audits(run_cli, tmp_path):
    out = tmp_path / "m.safetensors"
    trained = run_cli("train", "simple-cnn", "--dataset", "digits", "--epochs", 1, "--canaries", 40, "--out", out)
    assert trained.returncode == 0 and "Canaries: 40 (mislabelled)" in trained.stdout
    audited = run_cli("audit", out, "--json", "--out", tmp_path / "audit.json")
    assert audited.returncode == 0, audited.stderr
    assert json.loads(audited.stdout) == json.loads((tmp_path / "audit.json").read_text())


@pytest.mark.parametrize(
    ("plan", "settings", "message"),
    [
        (CanaryPlan(449), {}, "449 canaries cannot replace"),
        (CanaryPlan(50), {"patience": 3}, "early stopping"),
        (CanaryPlan(50, "own"), {}, "need images"),
    ],
)
def test_impossible_canaries_are_refused_before_training(plan, settings, message, digits):
    with pytest.raises(ConfigurationError, match=message):
        train_target("simple-cnn", digits, canaries=plan, epochs=1, **settings)


def test_model_without_canaries_is_refused(digits, tmp_path):
    train_target("simple-cnn", digits, out=tmp_path / "m.safetensors", epochs=1)
    assert "canaries" not in json.loads((tmp_path / "m.json").read_text())
    with pytest.raises(SecurityNetError, match="without canaries"):
        audit_weights(AuditConfig(weights=tmp_path / "m.safetensors"))
