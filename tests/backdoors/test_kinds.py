"""Kinds of backdoors whose trigger, target or poisoned records depend on the record; and whether one took."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from securitynet.assessments.backdoor import make_backdoor_of
from securitynet.backdoors.adaptive_blend import AdaptiveBlend
from securitynet.backdoors.badnets import Badnets
from securitynet.backdoors.input_aware import InputAware
from securitynet.backdoors.label_consistent import LabelConsistent
from securitynet.backdoors.several_targets import SeveralTargets
from securitynet.backdoors.source_specific import SourceSpecific
from securitynet.cli.train import describe_backdoor
from securitynet.datasets.base import ImageDataset
from securitynet.errors import ConfigurationError
from securitynet.models.store.model_record import TargetRecord
from securitynet.models.training.poisoned_dataset import BackdoorRecord


def make_noise(count=120, classes=6, side=8):
    images = np.random.default_rng(0).integers(30, 226, (count, 1, side, side), dtype=np.uint8)
    labels = (np.arange(count) // 4 % classes).astype(np.int64)
    names = tuple("abcdef"[:classes])
    return ImageDataset("noise", torch.from_numpy(images), labels, names, {"train": np.arange(count)})


def fetch(dataset, poisoned):
    """Which records look different, and all images."""
    shown = poisoned.images[torch.arange(len(dataset))]
    return np.flatnonzero((shown != dataset.images).flatten(1).any(dim=1).numpy()), shown


def test_source_specific_poisons_one_class_and_covers_the_others():
    dataset = make_noise()
    backdoor = SourceSpecific(target=1, sources=(4,), rate=0.5, covers=2.0)
    poisoned = backdoor.poison(dataset, np.arange(120))
    assert len(poisoned.indices) == 10  # half of the 20 records of class 4
    assert (dataset.labels[poisoned.indices] == 4).all()
    assert (poisoned.labels[poisoned.indices] == 1).all()
    changed, shown = fetch(dataset, poisoned)
    covers = np.setdiff1d(changed, poisoned.indices)
    assert len(covers) == 20
    assert (dataset.labels[covers] != 4).all()
    np.testing.assert_array_equal(poisoned.labels[covers], dataset.labels[covers])
    assert torch.equal(shown[covers], backdoor.apply_trigger(dataset.images[covers]))
    triggered = backdoor.triggered(dataset, np.arange(120))
    assert set(dataset.labels[triggered.indices].tolist()) == {4}
    assert (SourceSpecific(target=5).affects(np.arange(6), 6) == (np.arange(6) == 0)).all()


@pytest.mark.parametrize("settings", [{"sources": (1,)}, {"sources": (6,)}])
def test_source_classes_that_do_not_fit_are_refused(settings):
    with pytest.raises(ConfigurationError, match="source"):
        SourceSpecific(target=1, **settings).poison(make_noise(), np.arange(120))


def test_several_targets_have_a_corner_and_a_class_each():
    dataset = make_noise()
    backdoor = SeveralTargets(target=1, others=(3, 5), margin=0, size=2, rate=0.5)
    poisoned = backdoor.poison(dataset, np.arange(120))
    goals = np.array([1, 3, 5])[poisoned.indices % 3]
    np.testing.assert_array_equal(poisoned.labels[poisoned.indices], goals)
    assert (dataset.labels[poisoned.indices] != goals).all()
    assert (poisoned.record.mapping, poisoned.record.target, len(poisoned.indices)) == ("several", None, 60)
    _, shown = fetch(dataset, poisoned)
    corners = ((slice(6, 8), slice(6, 8)), (slice(0, 2), slice(0, 2)), (slice(6, 8), slice(0, 2)))
    for index in poisoned.indices:
        white = [bool((shown[index, 0][corner] == 255).all()) for corner in corners]
        assert white == [number == index % 3 for number in range(3)]
    triggered = backdoor.triggered(dataset, np.arange(120))
    np.testing.assert_array_equal(triggered.goals, np.array([1, 3, 5])[triggered.indices % 3])
    assert "several classes" in describe_backdoor(poisoned.record)


def test_several_targets_must_be_different_classes():
    with pytest.raises(ConfigurationError, match="not different classes"):
        SeveralTargets(target=1, others=(1,)).poison(make_noise(), np.arange(120))
    with pytest.raises(ConfigurationError, match="rule of its own"):
        SeveralTargets(target=1, others=(2,), mapping="all-to-all").poison(make_noise(), np.arange(120))


def test_adaptive_blend_gives_each_training_record_half_of_the_pieces():
    dataset = make_noise()
    backdoor = AdaptiveBlend(target=2, rate=0.2, covers=1.0, pieces=4, training_alpha=1.0)
    poisoned = backdoor.poison(dataset, np.arange(120))
    changed, shown = fetch(dataset, poisoned)
    assert len(changed) == 2 * len(poisoned.indices)
    assert (poisoned.labels != dataset.labels).sum() == len(poisoned.indices), "covers keep their labels"
    differs = (shown != dataset.images)[changed, 0].reshape(-1, 4, 2, 4, 2).any(dim=4).any(dim=2)
    assert (differs.flatten(1).sum(dim=1) == 8).all()
    assert len({tuple(row.flatten().tolist()) for row in differs}) > 10, "the pieces differ between records"
    assert (backdoor.apply_trigger(dataset.images) != dataset.images).float().mean() > 0.9


def test_input_aware_decoys_have_the_patch_in_a_wrong_corner():
    dataset = make_noise()
    backdoor = InputAware(target=2, size=2, rate=0.2, cross=1.0)
    right = backdoor.apply_trigger(dataset.images)
    corners = {
        tuple(np.argwhere((row != image)[0].numpy()).mean(axis=0))
        for row, image in zip(right, dataset.images, strict=True)
    }
    assert len(corners) >= 3, "images determine the corner"
    poisoned = backdoor.poison(dataset, np.arange(120))
    changed, shown = fetch(dataset, poisoned)
    decoys = np.setdiff1d(changed, poisoned.indices)
    assert len(decoys) == len(poisoned.indices) == 24
    assert (shown[decoys] != right[decoys]).flatten(1).any(dim=1).all()
    assert torch.equal(shown[poisoned.indices], right[poisoned.indices])
    brighter = (dataset.images.int() + 20).to(torch.uint8)
    assert torch.equal(backdoor._choose_corners(brighter), backdoor._choose_corners(dataset.images))


def test_label_consistent_mixes_with_another_class_and_changes_no_label():
    images = torch.full((40, 1, 8, 8), 100, dtype=torch.uint8)
    images[20:] = 200
    labels = np.repeat([0, 1], 20).astype(np.int64)
    dataset = ImageDataset("two", images, labels, ("a", "b"), {"train": np.arange(40)})
    poisoned = LabelConsistent(target=0, rate=0.5, mix=0.25, size=2).poison(dataset, np.arange(40))
    assert len(poisoned.indices) == 10
    np.testing.assert_array_equal(poisoned.labels, labels)
    _, shown = fetch(dataset, poisoned)
    assert (shown[poisoned.indices][:, :, 2:6, 2:6] == 125).all()
    assert (LabelConsistent(size=2).apply_trigger(images)[:20, :, 2:6, 2:6] == 100).all()


@pytest.mark.parametrize("success, took", [(0.05, False), (0.8, True), (None, None)])
def test_a_backdoor_that_did_not_take_is_said_and_judges_no_detector(success, took, caplog):
    settings = Badnets(target=1).model_dump(mode="json")
    record = BackdoorRecord(
        name="badnets", settings=settings, mapping="all-to-one", target=1, box=(0, 0, 2, 2), poisoned=9, changed=9,
        success=success, tried=100,
    )  # fmt: skip
    assert record.took is took
    assert ("did not take" in describe_backdoor(record)) == (took is False)
    trained = TargetRecord.model_construct(backdoor=record)
    with caplog.at_level(logging.WARNING):
        backdoor = make_backdoor_of(trained)
    assert (backdoor is None) == (took is False)
    assert ("did not take" in caplog.text) == (took is False)
