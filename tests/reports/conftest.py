"""Assessments of small networks that were really trained, and of a recording, for all tests of reports."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from securitynet.assessments import assess as assessment
from securitynet.assessments.assessed_target import AssessedTarget, prepare
from securitynet.assessments.config import AssessConfig
from securitynet.assessments.result import to_document
from securitynet.attacks.membership.modified_entropy import ModifiedEntropy
from securitynet.results.store import TrialStore

HOSTILE = "<script>alert('class')</script>"


def assess(subject, folder, **options):
    """(document, assessment) of a subject."""
    attacks = ("membership.correctness", "membership.modified-entropy")  # however many there are
    options = {
        "model": "arch:simple-cnn",
        "dataset": "digits",
        "cache": folder / "cache",
        "attacks": attacks,
        **options,
    }
    found = assessment.run_assessment(AssessConfig(**options), subject, TrialStore(folder))
    return to_document(found), found


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("reports")


@pytest.fixture(scope="session")
def subject(overfitted):
    target, splits, dataset = overfitted
    names = (HOSTILE, *dataset.class_names[1:])
    return AssessedTarget(target, dataclasses.replace(dataset, class_names=names), splits, 0, "known")


@pytest.fixture(scope="session")
def assessed(subject, folder):
    """An overfitted target, with a hostile class name."""
    return assess(subject, folder / "one", fprs=(0.1, 0.02, 0.001), weights=Path("models/over fitted/model.st"))


@pytest.fixture(scope="session")
def null(subject, folder):
    """The same network on records none of which it saw: its members are no members."""
    unseen = np.setdiff1d(
        np.arange(len(subject.dataset)), np.union1d(subject.splits.members, subject.splits.non_members)
    )
    members, non_members = unseen[:400], unseen[400:800]
    splits = dataclasses.replace(
        subject.splits,
        members=members,
        non_members=non_members,
        known_members=members[::2],
        known_non_members=non_members[::2],
    )
    weights = Path("models/null/model.st")
    return assess(dataclasses.replace(subject, splits=splits, membership="assumed"), folder / "null", weights=weights)


@pytest.fixture(scope="session")
def broken(subject, folder):
    """One attack failed with a hostile message, one did well."""

    def fail(self, signals):
        raise RuntimeError("<script>alert('error')</script>")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ModifiedEntropy, "score", fail)
        return assess(subject, folder / "broken")


@pytest.fixture(scope="session")
def skipped(subject, folder):
    """One attack was skipped: it needs auxiliary data that the user does not give to the adversary."""
    return assess(subject, folder / "skipped", auxiliary=("shadow",))


@pytest.fixture(scope="session")
def recorded(folder):
    """A recording without images."""
    generator = np.random.default_rng(0)
    member = np.arange(300) < 150
    labels = generator.integers(0, 3, 300)
    logits = generator.normal(0, 1, (300, 3))
    logits[np.arange(300), labels] += np.where(member, 2.5, 1.0)
    posteriors = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    path = folder / "recorded.npz"
    np.savez(path, posteriors=posteriors, labels=labels, member=member)
    config = AssessConfig(model=f"outputs:{path}", cache=folder / "cache")
    subject = prepare(config)
    return assess(subject, folder / "recorded", model=config.model, dataset=None)
