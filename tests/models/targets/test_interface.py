"""Interfaces: what they hide is hidden, the argmax stays, one query serves every view."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from securitynet.attacks import ATTACKS
from securitynet.errors import AccessDenied
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models.targets.backends.recorded import RecordedBackend
from securitynet.models.targets.interface import Chain, LabelsOnly, Rounded, Temperature, TopK
from securitynet.models.targets.signals import collect_signals
from securitynet.models.targets.target import Target
from securitynet.records import Access

P = torch.tensor([[0.5, 0.25, 0.15, 0.1], [0.04, 0.45, 0.46, 0.05]])

# fmt: off
ALL = [TopK(k=1), TopK(k=3, renormalise=True), Rounded(digits=0), Rounded(digits=1), Temperature(temperature=5),
       Temperature(temperature=1e6), LabelsOnly(), TopK(k=2).then(Rounded(digits=1)), Rounded().then(LabelsOnly())]
# fmt: on


def test_values_worked_out_by_hand():
    assert torch.equal(TopK(k=2).apply(P), torch.tensor([[0.5, 0.25, 0, 0], [0, 0.45, 0.46, 0]]))
    expected = torch.tensor([[2 / 3, 1 / 3, 0, 0], [0, 45 / 91, 46 / 91, 0]])
    torch.testing.assert_close(TopK(k=2, renormalise=True).apply(P), expected)
    assert Rounded(digits=2).apply(P)[1].tolist() == pytest.approx([0.04, 0.45, 0.46, 0.05])
    by_hand = P.sqrt() / P.sqrt().sum(dim=1, keepdim=True)  # a temperature of 2 is the square root, normalised
    torch.testing.assert_close(Temperature(temperature=2).apply(P), by_hand)
    assert LabelsOnly().apply(P).tolist() == [[1, 0, 0, 0], [0, 0, 1, 0]]
    chained = TopK(k=1).then(Rounded(digits=0))
    assert torch.equal(chained.apply(P)[0], torch.tensor([2.0**-20, 0, 0, 0]))  # half is rounded to even: to 0


@pytest.mark.parametrize("interface", ALL, ids=lambda i: i.describe())
def test_the_highest_answer_is_the_predicted_class(interface):
    posteriors = torch.rand(500, 7, generator=torch.Generator().manual_seed(0)).mul(3).softmax(dim=1)
    answers = interface.apply(posteriors)
    assert torch.equal(answers.argmax(dim=1), posteriors.argmax(dim=1))
    assert bool((answers >= 0).all()) and bool(torch.isfinite(answers).all())
    assert torch.equal(answers[100:200], interface.apply(posteriors[100:200]))  # no answer depends on other rows


def test_a_tie_between_rounded_posteriors_is_told_apart_by_a_millionth_only():
    answers = Rounded(digits=1).apply(torch.tensor([[0.1, 0.43, 0.44, 0.03]]))[0]
    assert int(answers.argmax()) == 2 and answers[1:3].tolist() == pytest.approx([0.4, 0.4], abs=2e-6)


def test_a_view_answers_what_the_interface_gives_and_no_more(overfitted):
    target, splits, dataset = overfitted
    images = dataset.batch(splits.members[:40])
    view = target.through(TopK(k=3))
    assert view.access is Access.BLACK_BOX and view.head == "answers"
    assert int((view.posteriors(images) > 0).sum(dim=1).max()) == 3
    highest = target.posteriors(images).topk(3).values
    torch.testing.assert_close(view.posteriors(images).topk(3).values, highest)
    assert torch.equal(view.labels(images), target.labels(images))
    assert float(view.logits(images).min()) < -80  # the logarithm of a hidden posterior, kept finite
    for denied in (lambda: view.module, lambda: view.embeddings(images), lambda: view.under(Access.WHITE_BOX)):
        with pytest.raises(AccessDenied):
            denied()
    labels = target.through(LabelsOnly())
    assert torch.equal(labels.labels(images), target.labels(images))
    for denied in (lambda: labels.posteriors(images), lambda: labels.logits(images)):
        with pytest.raises(AccessDenied, match="labels only"):
            denied()


def test_identities_tell_interfaces_apart_and_nothing_else(overfitted):
    target, _, _ = overfitted
    checksums = [target.through(interface).identity.checksum for interface in ALL]
    assert len({target.identity.checksum, *checksums}) == len(ALL) + 1
    assert target.through(TopK(k=1)).identity == target.through(TopK(k=1)).identity
    twice = target.through(TopK(k=2)).through(Rounded(digits=1))
    assert twice.interface == Chain(parts=(TopK(k=2), Rounded(digits=1)))
    assert twice.identity == target.through(TopK(k=2).then(Rounded(digits=1))).identity
    assert "2 highest posteriors" in twice.reference and "rounded" in twice.reference


def test_signals_of_views_cost_no_further_query(overfitted, tmp_path):
    target, splits, dataset = overfitted
    target = Target(target.backend, access=Access.WHITE_BOX)  # a query counter of its own
    plain = collect_signals(target, dataset, splits.members, cache=tmp_path)
    asked = target.query_counter.total
    for interface in ALL:
        view = target.through(interface)
        signals = collect_signals(view, dataset, splits.members, cache=tmp_path)
        assert signals.sent == 0 and signals.queries == plain.queries
        np.testing.assert_array_equal(signals.predictions, plain.predictions)
        if view.head == "labels":
            assert set(np.unique(signals.outputs)) == {0.0, 1.0}
            with pytest.raises(AccessDenied):
                _ = signals.posteriors
        else:
            np.testing.assert_array_equal(signals.posteriors, view.posteriors(dataset.batch(splits.members)).numpy())
            asked += len(splits.members)
    assert target.query_counter.total == asked and target.query_counter.unique == len(splits.members)
    fresh = collect_signals(target.through(TopK()), dataset, splits.non_members, cache=tmp_path)
    assert fresh.sent == len(splits.non_members)  # what is asked through a view is there for all others
    assert collect_signals(target, dataset, splits.non_members, cache=tmp_path).sent == 0


def test_recordings_can_be_seen_through_an_interface(tmp_path):
    labels = np.array([0, 1, 2, 1])
    logits = np.eye(3, dtype=np.float32)[labels] * 2
    np.savez(tmp_path / "r.npz", logits=logits, labels=labels, member=np.array([1, 1, 0, 0]))
    backend = RecordedBackend(tmp_path / "r.npz", reference="outputs:r.npz")
    view = Target(backend, head=backend.head).through(TopK(k=1))
    signals = collect_signals(view, backend.dataset())
    assert (signals.posteriors > 0).sum(axis=1).tolist() == [1, 1, 1, 1]
    assert signals.posteriors.max() == pytest.approx(np.exp(2) / (np.exp(2) + 2))


@pytest.mark.parametrize(
    "name", ["confidence", "loss", "entropy", "modified-entropy", "mlp-posteriors", "lira", "square", "sparse-rs"]
)
def test_attacks_that_need_posteriors_are_denied_under_labels_only(name, overfitted):
    target, splits, dataset = overfitted
    attack = ATTACKS.get(name)()
    with pytest.raises(AccessDenied):
        attack(target.through(LabelsOnly()), TrialData(dataset, splits), Context(), attack.threat_models[0])


def test_label_only_attacks_work_under_labels_only_as_well_as_before(overfitted):
    target, splits, dataset = overfitted
    attack = ATTACKS.get("correctness")()
    data = TrialData(dataset, splits)
    plain = attack(target, data, Context(), attack.threat_models[0]).arrays()
    hidden = attack(target.through(LabelsOnly()), data, Context(), attack.threat_models[0]).arrays()
    for name in plain.keys() - {"margin"}:
        np.testing.assert_array_equal(plain[name], hidden[name])
    boundary = ATTACKS.get("label-only-boundary")(records=10, queries=30)
    found = boundary(target.through(LabelsOnly()), data, Context(), boundary.threat_models[0])
    assert found.measurements(level=0.95, fprs=(0.1,), seed=0)
