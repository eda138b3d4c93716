"""Views of records: which there are, what they hold, who is asked about them, and attacks that use them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import logsumexp

from securitynet import testing
from securitynet.attacks.membership._reference import OFFLINE, ONLINE
from securitynet.attacks.membership._views import View, list_views, make_views
from securitynet.attacks.membership.lira import LiRA
from securitynet.attacks.membership.rmia_offline import RMIAOffline
from securitynet.errors import ConfigurationError
from securitynet.methods.context import Context
from securitynet.metrics import roc
from securitynet.models.shadows import resolve_training
from securitynet.models.shadows.outputs import plan_specs
from securitynet.models.shadows.store import train_shadow
from securitynet.models.targets.target import Target
from securitynet.models.training.augment import crop, crop_padding
from securitynet.records import Access

SHADOWS = {"architecture": "simple-cnn", "recipe": {"epochs": 3, "augment": "flip", "learning_rate": 0.05}}


@pytest.mark.parametrize("augment, count", [("none", 17), ("flip", 34), ("crop-flip", 2 * 9 * 9)])
def test_views_follow_the_augmentation_of_the_recipe(augment, count):
    views = list_views(augment, 32, 32)
    assert views[0] == View(black=augment == "crop-flip") and len(set(views)) == len(views)
    if augment != "crop-flip":
        assert len(views) == count and max(abs(view.down) for view in views) == 2
    assert any(view.mirrored for view in views) == (augment != "none")
    if augment != "none":
        assert views[1].mirrored and (views[1].down, views[1].right) == (0, 0)
    assert max(abs(view.right) for view in list_views("crop-flip", 32, 32)) == crop_padding(32, 32) == 4


def test_a_view_of_a_model_trained_with_crops_is_a_crop_of_training():
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    padding = crop_padding(16, 16)
    for view in list_views("crop-flip", 16, 16):
        source = images.flip(3) if view.mirrored else images
        expected = crop(source, torch.full((2,), padding - view.down), torch.full((2,), padding - view.right), padding)
        assert torch.equal(view.apply(images), expected) and view.apply(images).dtype == torch.uint8
    moved = View(down=1, right=-2).apply(images)
    assert torch.equal(moved[:, :, 1:, :-2], images[:, :, :-1, 2:]) and torch.equal(moved[:, :, 0], moved[:, :, 1])


def test_views_are_datasets_of_their_own(digits):
    views = make_views(digits, "none", 5)
    assert views[0] is digits and len({view.fingerprint for view in views}) == 5
    again = make_views(digits, "none", 3)
    assert [view.fingerprint for view in again] == [view.fingerprint for view in views[:3]]
    assert torch.equal(views[1].batch(np.array([3, 1]))[:, :, :, 1:], digits.batch(np.array([3, 1]))[:, :, :, :-1])


def test_what_has_no_such_views_is_refused(digits):
    with pytest.raises(ConfigurationError, match="9 views"):
        make_views(digits, "none", 20)
    with pytest.raises(ConfigurationError, match="no images"):
        make_views(replace(digits, images=None), "flip", 2)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("views")


def test_lira_with_two_queries_is_the_mean_of_the_definition_over_both(store):
    """By a second implementation on the outputs of the same shadow models; each image is sent once."""
    case = testing.make_overfitted_case()
    attack = LiRA(queries=2, shadows={"count": 4, **SHADOWS})
    backend = testing.OutputsOnly(case.target.backend)
    target = Target(backend, access=Access.BLACK_BOX)
    context = Context(cache=store, device="cpu", seed=5)
    output = attack(target, case.data, context, ONLINE)
    assert backend.calls == 2 * len(case.data.judged) == context.queries().total
    attack(Target(backend, access=Access.BLACK_BOX), case.data, Context(cache=store, device="cpu", seed=5), ONLINE)
    assert backend.calls == 2 * len(case.data.judged)

    data, records = case.data, output.indices
    labels, rows = data.dataset.labels[records], np.arange(len(records))
    training = resolve_training(attack.shadows, case.target, data.trained, data.defense)
    specs = plan_specs(data.dataset, data.splits, attack.shadows, training, seed=5)
    models = [train_shadow(spec, cache=store, device="cpu").target for spec in specs]
    included = np.array([np.isin(records, spec.indices) for spec in specs])
    images = data.dataset.batch(records)
    expected = np.zeros(len(records))
    for view in (images, images.flip(3)):

        def signal(model, view=view):
            logits = model.logits(view).double().numpy()
            others = logits.copy()
            others[rows, labels] = -np.inf
            return logits[rows, labels] - logsumexp(others, axis=1)

        observed, shadows = signal(case.target), np.array([signal(model) for model in models])
        for chosen, sign in ((included, 1), (~included, -1)):
            groups = [shadows[chosen[:, n], n] for n in rows]
            squares = sum(((group - group.mean()) ** 2).sum() for group in groups)
            spread = np.sqrt(squares / sum(len(group) - 1 for group in groups))
            expected += sign * stats.norm.logpdf(observed, [group.mean() for group in groups], spread) / 2
    np.testing.assert_allclose(output.scores, expected, rtol=1e-3, atol=1e-3)


def test_offline_rmia_manages_with_one_shadow_model_and_two_queries(store):
    case = testing.make_overfitted_case()
    attack = RMIAOffline(queries=2, shadows={"count": 1, "pool": "offline", **SHADOWS})
    context = Context(cache=store, device="cpu")
    output = attack(case.target, case.data, context, OFFLINE)
    splits = case.data.splits
    population = len(splits.shadow_train) + len(splits.shadow_test)
    assert context.queries().total == 2 * (len(case.data.judged) + population)
    assert roc.measure_auc(output.scores[output.is_member], output.scores[~output.is_member]).low > 0.5


def test_nothing_is_found_with_two_queries_where_there_is_nothing(store):
    case = testing.make_null_case()
    for attack in (
        LiRA(queries=2, shadows={"count": 4, **SHADOWS}),
        RMIAOffline(queries=2, shadows={"count": 2, "pool": "offline", **SHADOWS}),
    ):
        output = attack(case.target, case.data, Context(cache=store, device="cpu"), attack.threat_models[0])
        measured = roc.measure_auc(output.scores[output.is_member], output.scores[~output.is_member], level=0.99)
        assert measured.low <= 0.5 <= measured.high
