"""Assessments: trials are kept, used again, skipped with a reason, and recorded when they fail."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from securitynet import catalog
from securitynet.assessments import assess as assessment
from securitynet.assessments import method_settings as methods
from securitynet.assessments import trial_plan as planning
from securitynet.assessments.assessed_target import AssessedTarget, prepare
from securitynet.assessments.config import AssessConfig
from securitynet.assessments.finished_trials import FinishedTrials
from securitynet.attacks.membership.loss import Loss
from securitynet.catalog.location import using
from securitynet.errors import ConfigurationError, SplitError, TargetError, UnknownName
from securitynet.records import Access
from securitynet.results.store import TrialStore


@pytest.fixture
def subject(overfitted):
    target, splits, dataset = overfitted
    return AssessedTarget(target, dataset, splits, 0, "known")


def config(tmp_path, **options):
    return AssessConfig(model="arch:simple-cnn", dataset="digits", cache=tmp_path / "cache", **options)


def test_measures_of_target_and_attacks(subject, tmp_path):
    found = assessment.run_assessment(config(tmp_path, fprs=(0.1,)), subject, TrialStore(tmp_path))
    images = subject.dataset.batch(subject.splits.members)
    truth = (subject.target.labels(images).numpy() == subject.dataset.labels[subject.splits.members]).mean()
    assert found["target.train_accuracy"].value == pytest.approx(truth)
    overfitting = found["target.train_accuracy"].value - found["target.test_accuracy"].value
    assert found["target.overfitting"].value == pytest.approx(overfitting)
    # The AUC of prediction correctness is one half plus half of the overfitting level (Yeom et al.).
    assert found["membership.correctness.auc"].value == pytest.approx(0.5 + overfitting / 2)
    with pytest.raises(KeyError, match="there are"):
        found["membership.nothing"]
    assert "stealing.knockoff" in {absent.what for absent in found.not_assessed}


def test_finished_trials_are_used_again_with_the_same_numbers(subject, tmp_path):
    store = TrialStore(tmp_path)
    first = assessment.run_assessment(config(tmp_path), subject, store)
    second = assessment.run_assessment(config(tmp_path), subject, store)
    third = assessment.run_assessment(config(tmp_path, rerun=True), subject, store)
    assert [t.reused for t in first.trials] == [False] * len(first.trials)
    assert all(t.reused for t in second.trials) and not any(t.reused for t in third.trials)
    assert first.all_measurements() == second.all_measurements() == third.all_measurements()
    assert second.signals.sent == 0


def test_other_levels_and_rates_are_measured_from_kept_scores(subject, tmp_path):
    store = TrialStore(tmp_path)
    assessment.run_assessment(config(tmp_path), subject, store)
    again = assessment.run_assessment(config(tmp_path, level=0.8, fprs=(0.2,)), subject, store)
    assert all(t.reused for t in again.trials)
    assert again["membership.correctness.tpr@fpr=0.2"].level == 0.8


def test_damaged_arrays_make_a_trial_run_again(subject, tmp_path):
    store = TrialStore(tmp_path)
    first = assessment.run_assessment(config(tmp_path), subject, store)
    number = first.trials[0].result.id
    store.path(number, ".npz").write_bytes(b"damage")
    second = assessment.run_assessment(config(tmp_path), subject, store)
    assert all(t.reused for t in second.trials)  # the cache has a copy
    for place in (store, TrialStore(tmp_path / "cache")):
        place.path(number, ".npz").write_bytes(b"damage")
    third = assessment.run_assessment(config(tmp_path), subject, store)
    assert [t.reused for t in third.trials] == [False] + [True] * (len(first.trials) - 1)
    assert first.all_measurements() == second.all_measurements() == third.all_measurements()


def test_an_assessment_into_another_folder_takes_finished_trials_from_the_cache(subject, tmp_path):
    first = assessment.run_assessment(config(tmp_path), subject, TrialStore(tmp_path / "first"))
    second = assessment.run_assessment(config(tmp_path), subject, TrialStore(tmp_path / "second"))
    third = assessment.run_assessment(config(tmp_path, rerun=True), subject, TrialStore(tmp_path / "third"))
    assert all(t.reused for t in second.trials) and not any(t.reused for t in third.trials)
    assert first.all_measurements() == second.all_measurements() == third.all_measurements()
    kept = {t.result.id: t.result for t in first.trials}
    assert {one.id: one for one in TrialStore(tmp_path / "second")} == kept


class OwnLoss(Loss):
    """A plug-in's, by the module that it is defined in."""


def test_code_that_may_change_is_not_taken_from_the_cache(subject, tmp_path, monkeypatch):
    monkeypatch.setattr(type(subject.target.backend), "within_process", True)
    assessment.run_assessment(config(tmp_path), subject, TrialStore(tmp_path / "first"))
    again = assessment.run_assessment(config(tmp_path), subject, TrialStore(tmp_path / "second"))
    assert not any(t.reused for t in again.trials)
    monkeypatch.undo()
    assessment.run_assessment(config(tmp_path), subject, TrialStore(tmp_path / "third"))
    finished, store = FinishedTrials(tmp_path / "cache", subject.target), TrialStore(tmp_path / "fourth")
    planned = next(one for one in planning.plan(config(tmp_path), subject) if one.name == "membership.loss")
    assert not finished.fetch(dataclasses.replace(planned, method=OwnLoss()), store)
    assert finished.fetch(planned, store)


def test_attacks_that_do_not_fit_are_skipped_with_the_reason(subject, tmp_path):
    found = assessment.run_assessment(config(tmp_path, auxiliary="none"), subject, TrialStore(tmp_path))
    statuses = {t.name: (t.result.status, t.result.reason) for t in found.trials}
    assert statuses["membership.correctness"][0] == "ok"
    assert statuses["membership.modified-entropy"][0] == "skipped"
    assert "partial" in statuses["membership.modified-entropy"][1]
    assert any(absent.what == "membership.modified-entropy" for absent in found.not_assessed)


def test_a_failing_attack_is_recorded_and_the_others_go_on(subject, tmp_path, monkeypatch):
    from securitynet.attacks.membership.correctness import Correctness

    def broken(self, signals):
        raise ZeroDivisionError("nothing to divide by")

    monkeypatch.setattr(Correctness, "score", broken)
    store = TrialStore(tmp_path)
    found = assessment.run_assessment(config(tmp_path), subject, store)
    by_name = {t.name: t.result for t in found.trials}
    failed = by_name["membership.correctness"]
    assert failed.status == "failed" and "nothing to divide by" in failed.reason and "broken" in failed.traceback
    assert by_name["membership.modified-entropy"].status == "ok"
    assert store.load(failed.id).status == "failed"
    monkeypatch.undo()
    again = assessment.run_assessment(config(tmp_path), subject, store)
    assert {t.result.status for t in again.trials} == {"ok"}, "a failed trial runs again"


def test_names_of_attacks():
    every = methods.choose_methods("attack", ["all"])
    assert methods.choose_methods("attack", ["membership", "correctness"]) == [
        n for n in every if n.startswith("membership.")
    ]
    assert methods.choose_methods("attack", ["none"]) == []
    with pytest.raises(UnknownName, match="Did you mean"):
        methods.choose_methods("attack", ["corectness"])
    with pytest.raises(ConfigurationError):
        planning.list_requested(AssessConfig(model="arch:simple-cnn", attacks="none", detectors="none"))


def test_split_follows_the_artefact_and_refuses_another_dataset(tmp_path, digits):
    from securitynet.models.store.train_target import train_model
    from securitynet.models.training.config import TrainConfig

    weights = tmp_path / "m.safetensors"
    settings = {"architecture": "simple-cnn", "dataset": "digits", "out": weights, "epochs": 2, "split_seed": 3}
    train_model(TrainConfig(**settings, known=0.6))
    options = {"model": "arch:simple-cnn", "weights": weights, "cache": tmp_path / "c"}
    found = prepare(AssessConfig(dataset="digits", **options))
    assert (found.membership, found.split_seed, found.splits.name) == ("known", 3, "four-way")
    assert len(found.splits.known_members) == round(0.6 * len(found.splits.members))
    with pytest.raises(SplitError, match="members are unknown"):
        prepare(AssessConfig(dataset="digits", limit=300, **options))
    chosen = prepare(AssessConfig(dataset="digits", split="public", **options))
    assert (chosen.membership, chosen.splits.name) == ("assumed", "public")
    assert "the model's record states which records trained it" in chosen.target.notes[-1]
    same = prepare(AssessConfig(dataset="digits", split="four-way", split_seed=3, known=0.6, **options))
    assert same.membership == "known" and same.target.notes == found.target.notes
    url = str(tmp_path / "catalog.sqlite")
    with catalog.open(url) as entries:
        entries.add({"key": "mine/one", "name": "one", "reference": "arch:simple-cnn", "weights_file": str(weights)})
    with using(url):
        entry = prepare(AssessConfig(model="catalog:mine/one", dataset="digits", trust=True, cache=tmp_path / "c"))
    assert (entry.membership, entry.splits.fingerprint) == ("known", found.splits.fingerprint)


def test_recorded_outputs_need_no_dataset_and_no_model(tmp_path):
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 400)
    members = np.arange(400) < 200
    logits = generator.normal(0, 1, (400, 3))
    logits[np.arange(400), labels] += np.where(members, 2.0, 0.5)
    posteriors = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    path = tmp_path / "recorded.npz"
    np.savez(path, posteriors=posteriors, labels=labels, members=members)
    settings = AssessConfig(model=f"outputs:{path}", cache=tmp_path / "c")
    subject = prepare(settings)
    assert subject.membership == "known" and subject.target.access is Access.BLACK_BOX
    found = assessment.run_assessment(settings, subject, TrialStore(tmp_path / "out"))
    assert found["membership.modified-entropy.auc"].low > 0.6


def test_recorded_distances_are_told_what_reverses_them(tmp_path):
    """Losses of each class stored as logits: the lowest is meant."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 400)
    scores = generator.normal(0, 1, (400, 4))
    scores[np.arange(400), labels] -= 4
    path = tmp_path / "recorded.npz"
    np.savez(path, logits=scores, labels=labels, members=np.arange(400) < 200)
    settings = AssessConfig(model=f"outputs:{path}", attacks=("loss",), cache=tmp_path / "c")
    subject = prepare(settings)
    assessment.run_assessment(settings, subject, TrialStore(tmp_path / "out"))
    assert {check.what for check in subject.target.checks if not check.agrees} == {"sign", "chance"}
    assert any("return -scores" in note for note in subject.target.notes)


def test_without_a_dataset_nothing_starts(tmp_path):
    with pytest.raises(ConfigurationError, match="--dataset"):
        prepare(AssessConfig(model="arch:simple-cnn"))


def test_wrong_class_count_is_found_before_work(subject, tmp_path):
    import dataclasses

    dataset = dataclasses.replace(
        subject.dataset,
        class_names=(*subject.dataset.class_names, "eleven"),
        labels=np.where(np.arange(len(subject.dataset)) == 0, 10, subject.dataset.labels),
    )
    other = dataclasses.replace(subject, dataset=dataset)
    with pytest.raises(TargetError, match="10 classes"):
        assessment.run_assessment(config(tmp_path), other, TrialStore(tmp_path))
