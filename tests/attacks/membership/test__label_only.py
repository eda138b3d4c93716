"""Label-only attacks: distances against the exact ones of a linear classifier, budgets, and what copies look like."""

import numpy as np
import pytest
import torch

from securitynet.attacks.membership import _boundary
from securitynet.attacks.membership.augmentation_agreement import AugmentationAgreement, shift_images
from securitynet.attacks.membership.label_only_boundary import LabelOnlyBoundary, find_nearest_of_another_class
from securitynet.errors import TargetError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData


class Linear:
    """Two classes divided by a hyperplane through the middle of the cube: distances are known."""

    def __init__(self, seed=0, side=6):
        self.normal = torch.randn(side * side, generator=torch.Generator().manual_seed(seed))
        self.normal /= self.normal.norm()
        self.asked = 0

    def gap(self, images):
        return (images.flatten(1) - 0.5) @ self.normal

    def __call__(self, images):
        self.asked += len(images)
        assert images.min() >= 0 and images.max() <= 1
        return (self.gap(images) > 0).long()


def points(count, seed=1, side=6):
    return 0.5 + 0.25 * (torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(seed)) - 0.5)


def test_distance_to_a_hyperplane_comes_near_the_exact_one_and_never_below_it():
    oracle, images = Linear(), points(40)
    labels, exact = oracle(images), oracle.gap(images).abs()
    starts = torch.stack([images[oracle(images) != label][0] for label in labels])
    bounds = {}
    for queries in (_boundary.LEAST_QUERIES, 600):
        generator = torch.Generator().manual_seed(0)
        bounds[queries] = _boundary.bound_distances(
            oracle, images, labels, starts, queries=queries, generator=generator
        )
        assert (bounds[queries] >= exact - 1e-5).all()
    assert (bounds[600] / exact).median() < 1.25
    assert bounds[600].mean() < bounds[_boundary.LEAST_QUERIES].mean()
    assert np.corrcoef(bounds[600], exact)[0, 1] > 0.95


@pytest.mark.parametrize("queries", [_boundary.LEAST_QUERIES, 100, 250])
def test_the_budget_is_never_overrun(queries):
    images = points(10)
    labels = Linear()(images)
    starts = torch.stack([images[labels != label][0] for label in labels])
    oracle = Linear()
    _boundary.bound_distances(
        oracle, images, labels, starts, queries=queries, generator=torch.Generator().manual_seed(0)
    )
    assert queries * 10 * 0.5 < oracle.asked <= queries * 10


def test_the_nearest_start_is_of_another_predicted_class():
    images, others = points(5), points(30, seed=2)
    labels, predictions = torch.tensor([0, 1, 2, 0, 1]), torch.arange(30) % 3
    starts = find_nearest_of_another_class(images, labels, others, predictions)
    for image, label, start in zip(images, labels, starts, strict=True):
        allowed = others[predictions != label]
        gaps = (allowed - image).flatten(1).norm(dim=1)
        assert torch.equal(start, allowed[gaps.argmin()])
    with pytest.raises(TargetError, match="one class"):
        find_nearest_of_another_class(images[:1], labels[:1], others, torch.zeros(30, dtype=torch.long))


def test_misclassified_records_are_at_distance_0_and_every_question_is_counted(overfitted, tmp_path):
    target, splits, dataset = overfitted
    attack, context = LabelOnlyBoundary(records=20, queries=40), Context(cache=tmp_path)
    before = target.query_counter.total
    output = attack(target, TrialData(dataset, splits), context, attack.threat_models[0])
    assert len(output.scores) == 80 and output.held_out.sum() == 40
    assert (output.scores[~output.correct] == 0).all() and (output.scores[output.correct] > 0).all()
    assert context.queries().total == target.query_counter.total - before
    most = 40 * output.correct.sum() + len(dataset)
    assert len(output.scores) < context.queries().unique <= context.queries().total <= most


def test_moved_images_by_hand():
    image = torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]])[None, None]
    assert shift_images(image, 1, 0)[0, 0].tolist() == [[1, 2, 3], [1, 2, 3], [4, 5, 6]]
    assert shift_images(image, 0, -1)[0, 0].tolist() == [[2, 3, 3], [5, 6, 6], [8, 9, 9]]


def test_copies_are_images_and_as_many_as_configured():
    attack = AugmentationAgreement(sigmas=(0.1, 0.5), repeats=3, shift=1)
    copies = list(attack.changes(points(4), torch.Generator().manual_seed(0)))
    assert len(copies) == 10 and all(c.shape == (4, 1, 6, 6) and c.min() >= 0 and c.max() <= 1 for c in copies)
    assert not torch.equal(copies[0], copies[1])
    assert len(list(AugmentationAgreement(sigmas=(), shift=0).changes(points(4), torch.Generator()))) == 0


def test_agreement_is_a_share_of_copies_and_falls_with_noise(overfitted, tmp_path):
    target, splits, dataset = overfitted
    data = TrialData(dataset, splits)

    def mean(sigma):
        attack = AugmentationAgreement(sigmas=(sigma,), repeats=4, shift=0)
        output = attack(target, data, Context(cache=tmp_path), attack.threat_models[0])
        np.testing.assert_allclose(output.scores * 5, np.round(output.scores * 5), atol=1e-12)
        return output.scores[output.correct].mean()

    assert 1 >= mean(0.01) > mean(0.5)
