"""Networks that are trained together learn what each would learn alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from securitynet.errors import ConfigurationError, ModelError
from securitynet.models.training import ensembles
from securitynet.models.training.batched import flatten_parameters, stack_networks
from securitynet.models.training.ensembles import EnsembleTraining, predict_logits, train_together
from securitynet.randomness import make_generator


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
        order = torch.randperm(len(classes), generator=make_generator(seed, "attack order", epoch))
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
        logits = predict_logits(one, fresh_inputs[0], batch_size=100)
        assert torch.equal(logits, predict_logits(other, fresh_inputs[0], batch_size=100))
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


class Stackable(nn.Module):
    """As `TwoInputs`, working along the last dimension."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(5, 8), nn.Linear(3, 8, bias=False)
        self.out = nn.Sequential(nn.ReLU(), nn.Linear(16, 2))

    def forward(self, first, second):
        return self.out(torch.cat([self.left(first), self.right(second)], dim=-1))


class Bare(nn.Module):
    """Has a parameter outside linear layers."""

    def __init__(self):
        super().__init__()
        self.scale, self.inner = nn.Parameter(torch.randn(5)), nn.Linear(5, 2)

    def forward(self, rows):
        return self.inner(rows * self.scale)


def fresh_ones(kind, count):
    with torch.random.fork_rng():
        torch.manual_seed(8)
        return [kind() for _ in range(count)]


@pytest.mark.parametrize("kind, batched", [(Stackable, True), (lambda: TwoInputs(5, 3), False), (Bare, False)])
def test_networks_are_run_as_products_where_that_gives_the_same(kind, batched):
    made = fresh_ones(kind, 4)
    inputs, _, _ = problem((6,) * 4)
    rows = tuple(torch.stack(values) for values in zip(*inputs, strict=True))[: 1 if kind is Bare else 2]
    weights = flatten_parameters(made)
    stack = stack_networks(made, weights, tuple(values[:, :1] for values in rows))
    assert (type(stack).__name__ == "_Products") == batched
    for count in (4, 2, 4):  # those that are done wait for the others
        some = tuple(values[:count] for values in rows)
        found = stack.logits(count, some)
        expected = torch.stack([network(*(values[n] for values in rows)) for n, network in enumerate(made[:count])])
        torch.testing.assert_close(found, expected)
        value, gradient = stack.gradient(count, some, lambda logits: logits.square().sum())
        for network in made:
            network.zero_grad()
        loss = expected.square().sum()
        loss.backward()
        torch.testing.assert_close(value, loss.detach())
        wanted = torch.stack([torch.cat([p.grad.flatten() for p in network.parameters()]) for network in made[:count]])
        torch.testing.assert_close(gradient, wanted)


class Twice(nn.Module):
    """Uses one layer twice, and another not at all."""

    def __init__(self):
        super().__init__()
        self.inner, self.idle, self.out = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 2)

    def forward(self, rows):
        return self.out(self.inner(self.inner(rows).relu()).relu())


def test_gradients_of_a_layer_that_is_used_twice_are_added():
    made = fresh_ones(Twice, 3)
    rows = torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(1))
    stack = stack_networks(made, flatten_parameters(made), (rows[:, :1],))
    assert type(stack).__name__ == "_Products"
    for _ in range(2):
        _, gradient = stack.gradient(3, (rows,), lambda logits: logits.square().sum())
    for number, network in enumerate(made):
        network(rows[number]).square().sum().backward()
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in network.parameters()]
        torch.testing.assert_close(gradient[number], torch.cat([part.flatten() for part in parts]))


def test_shared_inputs_and_chosen_rows_are_as_copies_of_them():
    inputs, labels, weights = problem((90,))
    chosen = [torch.arange(0, 90, 2), torch.arange(80), torch.tensor([5])]
    training = EnsembleTraining(epochs=4, batch_size=16)
    picked = [labels[0][rows] for rows in chosen]
    shares = [weights[0][rows] / weights[0][rows].mean() for rows in chosen]
    first, second = fresh_ones(Stackable, 3), fresh_ones(Stackable, 3)
    settings = {"seeds": [1, 2, 3], "weights": shares, "device": "cpu"}
    train_together(first, inputs * 3, picked, training, rows=chosen, **settings)
    copies = [tuple(values[rows] for values in inputs[0]) for rows in chosen]
    train_together(second, copies, picked, training, **settings)
    for one, other in zip(first, second, strict=True):
        for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.equal(mine, theirs)


def test_a_stopped_training_goes_on_with_the_same_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(ensembles, "SAVE_SECONDS", 0.0)
    inputs, labels, _ = problem((70, 40))
    training = EnsembleTraining(epochs=6, batch_size=16)
    whole, stopped = fresh_ones(Stackable, 2), fresh_ones(Stackable, 2)
    train_together(whole, inputs, labels, training, seeds=[1, 2], device="cpu")

    def stop(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_together(stopped, inputs, labels, training, seeds=[1, 2], device="cpu", cache=tmp_path, progress=stop)
    assert len(list(tmp_path.rglob("checkpoint"))) == 1
    epochs = []
    other = fresh_ones(Stackable, 2)
    settings = {"device": "cpu", "cache": tmp_path}
    train_together(
        other, inputs, labels, training, seeds=[1, 3], progress=lambda done, _: epochs.append(done), **settings
    )
    assert epochs[0] == 1, "another seed is another training"
    epochs.clear()
    train_together(
        stopped, inputs, labels, training, seeds=[1, 2], progress=lambda done, _: epochs.append(done), **settings
    )
    assert epochs == [5, 6]
    for one, same in zip(stopped, whole, strict=True):
        for mine, theirs in zip(one.parameters(), same.parameters(), strict=True):
            assert torch.equal(mine, theirs)
    assert not list((tmp_path / "networks").iterdir())


def test_quick_trainings_write_nothing(tmp_path):
    inputs, labels, _ = problem((20,))
    train_together(fresh_ones(Stackable, 1), inputs, labels, EnsembleTraining(epochs=2), seeds=[0], cache=tmp_path)
    assert list(tmp_path.iterdir()) == []
