"""Networks that are trained together learn what each would learn alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from securitynet.errors import ConfigurationError, ModelError
from securitynet.models.ensembles import EnsembleTraining, predict, train_together
from securitynet.models.trainer.randomness import generator


class TwoInputs(nn.Module):
    def __init__(self, first, second):
        super().__init__()
        self.left, self.right = nn.Linear(first, 8), nn.Linear(second, 8)
        self.out = nn.Sequential(nn.ReLU(), nn.Linear(16, 2))

    def forward(self, first, second):
        return self.out(torch.cat([self.left(first), self.right(second)], dim=1))


def problem(sizes, seed=0):
    made = torch.Generator().manual_seed(seed)
    inputs, labels, weights = [], [], []
    for size in sizes:
        rows = torch.randn(size, 5, generator=made), torch.randn(size, 3, generator=made)
        inputs.append(rows)
        labels.append(((rows[0][:, 0] + rows[1][:, 1]) > 0).long())
        share = torch.rand(size, generator=made) + 0.5
        weights.append(share / share.mean())
    return inputs, labels, weights


def networks(count):
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return [TwoInputs(5, 3) for _ in range(count)]


def trained_alone(network, rows, classes, weights, training, seed):
    """The loop that anyone would write, with torch's own optimizer."""
    optimizer = torch.optim.Adam(network.parameters(), training.learning_rate, weight_decay=training.weight_decay)
    for epoch in range(training.epochs):
        order = torch.randperm(len(classes), generator=generator(seed, "attack order", epoch))
        for batch in torch.split(order, training.batch_size):
            optimizer.zero_grad()
            losses = nn.functional.cross_entropy(network(*(r[batch] for r in rows)), classes[batch], reduction="none")
            (losses * weights[batch]).mean().backward()
            optimizer.step()
    return network


@pytest.mark.parametrize("sizes", [(64, 64, 64), (100, 37, 64, 5, 1)])
def test_together_is_as_each_alone(sizes):
    inputs, labels, weights = problem(sizes)
    training = EnsembleTraining(epochs=7, batch_size=16, learning_rate=1e-2, weight_decay=1e-3)
    seeds = [11 * number for number in range(len(sizes))]
    fresh = networks(len(sizes))
    alone = [
        trained_alone(copy.deepcopy(network), rows, classes, share, training, seed)
        for network, rows, classes, share, seed in zip(fresh, inputs, labels, weights, seeds, strict=True)
    ]
    before = torch.get_rng_state()
    train_together(fresh, inputs, labels, training, seeds=seeds, weights=weights, device="cpu")
    assert torch.equal(before, torch.get_rng_state())
    for one, other in zip(fresh, alone, strict=True):
        for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_learns_and_repeats_itself():
    inputs, labels, _ = problem((400, 200))
    training = EnsembleTraining(epochs=20, batch_size=32)
    first, second = networks(2), networks(2)
    for made in (first, second):
        train_together(made, inputs, labels, training, seeds=[1, 2], device="cpu")
        torch.manual_seed(99)
    fresh_inputs, fresh_labels, _ = problem((500,), seed=9)
    for one, other in zip(first, second, strict=True):
        logits = predict(one, fresh_inputs[0], batch_size=100)
        assert torch.equal(logits, predict(other, fresh_inputs[0], batch_size=100))
        assert (logits.argmax(dim=1) == fresh_labels[0]).float().mean() > 0.9
        assert not one.training


def test_what_cannot_be_trained_together_is_refused():
    inputs, labels, _ = problem((10, 10))
    training = EnsembleTraining(epochs=1)
    with pytest.raises(ConfigurationError, match="same layers"):
        train_together([TwoInputs(5, 3), TwoInputs(4, 3)], inputs, labels, training, seeds=[0, 1])
    with pytest.raises(ConfigurationError, match="buffers"):
        train_together([nn.Sequential(nn.Linear(5, 2), nn.BatchNorm1d(2))], inputs[:1], labels[:1], training, seeds=[0])
    with pytest.raises(ConfigurationError, match="no records"):
        empty = tuple(rows[:0] for rows in inputs[1])
        train_together(networks(2), [inputs[0], empty], [labels[0], labels[1][:0]], training, seeds=[0, 1])
    with pytest.raises(ConfigurationError, match="differ"):
        train_together(networks(2), inputs, [labels[0], labels[1][:5]], training, seeds=[0, 1])
    with pytest.raises(ModelError, match="diverged"):
        bad = [(inputs[0][0] * float("nan"), inputs[0][1])]
        train_together(networks(1), bad, labels[:1], training, seeds=[0])
