"""RelaxLoss, adversarial regularisation and MemGuard against plain implementations of the papers' algorithms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier
from torch import nn

from securitynet.defenses.adversarial_regularisation import Adversarial, AdversarialRegularisation, InferenceAttack
from securitynet.defenses.base import make_defense
from securitynet.defenses.memguard import MemGuardInterface
from securitynet.defenses.relaxloss import Relaxing, compute_relaxed_loss
from securitynet.errors import ConfigurationError
from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.metrics.roc import measure_auc
from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.store.train_target import train_target
from securitynet.models.training.batches import split_batches
from securitynet.models.training.fit import fit
from securitynet.models.training.recipe import Recipe
from securitynet.models.training.training_defense import Fitting
from securitynet.randomness import derive_seed, make_generator

RECIPE = Recipe(epochs=12, batch_size=20, learning_rate=0.1, schedule="constant", seed=3)


def small_network(inputs=64, classes=10):
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 16), nn.ReLU(), nn.Linear(16, classes))


def weights(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def orders(count, epoch):
    """The batches of an epoch: what the trainer promises (a permutation by seed and epoch)."""
    order = torch.randperm(count, generator=make_generator(RECIPE.seed, "order", epoch))
    return split_batches(count, RECIPE.batch_size, order)


class Descent:
    """SGD with momentum and weight decay, written out."""

    def __init__(self, network):
        self.parameters = list(network.parameters())
        self.speed = [torch.zeros_like(p) for p in self.parameters]

    @torch.no_grad()
    def step(self, gradients):
        for p, v, g in zip(self.parameters, self.speed, gradients, strict=True):
            v.mul_(RECIPE.momentum).add_(g + RECIPE.weight_decay * p)
            p.sub_(RECIPE.learning_rate * v)


def relaxloss_gradient(p, labels, alpha, epoch, flatten):
    """Algorithm 1, as the gradient with respect to logits; sections of the paper beside it. Also which step it was."""
    count, classes = p.shape
    truth = torch.eye(classes)[labels]
    losses = -(p * truth).sum(1).log()
    if losses.mean() >= alpha:
        return (p - truth) / count, "descent"
    if epoch % 2 == 0:
        return (truth - p) / count, "ascent"
    own = (p * truth).sum(1, keepdim=True)
    soft = torch.where(truth.bool(), own, (1 - own) / (classes - 1))  # section 4.2
    gradient = p - soft
    if flatten == "wrong":  # appendix B.3
        right = (p.argmax(1) == labels).unsqueeze(1)
        gradient = torch.where(right, truth - p, gradient)
    return gradient / count, "flattening"


@pytest.mark.parametrize("flatten", ["all", "wrong"])
@pytest.mark.parametrize("alpha", [1.0, 1.6])
def test_relaxloss_is_the_papers_algorithm(digits, flatten, alpha):
    ours, theirs = small_network(), small_network()
    images, labels = digits.batch(np.arange(90)), torch.from_numpy(digits.labels[:90])
    fit(ours, images, labels, RECIPE, device="cpu", procedure=Relaxing(alpha, flatten))
    descent, steps = Descent(theirs), []
    for epoch in range(RECIPE.epochs):
        for batch in orders(90, epoch):
            logits = theirs(images[batch].float() / 255)
            gradient, step = relaxloss_gradient(logits.detach().softmax(1), labels[batch], alpha, epoch, flatten)
            descent.step(torch.autograd.grad(logits, list(theirs.parameters()), gradient))
            steps.append(step)
    assert set(steps) == {"descent", "ascent", "flattening"}  # each was compared
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-3, atol=1e-5)


def test_flattening_evens_the_other_posteriors_until_the_own_one_wins():
    """What the paper wants of it: a wide margin, also for a misclassified record; no confidence is asked for."""
    logits = torch.tensor([[3.0, 2.0, -1.0, 0.0], [0.0, 2.0, 1.0, -3.0]], requires_grad=True)
    labels = torch.tensor([0, 2])  # the first is right, the second is not
    optimizer = torch.optim.SGD([logits], lr=2.0)
    for _ in range(300):
        optimizer.zero_grad()
        compute_relaxed_loss(logits, labels, 10.0, up=False).backward()
        optimizer.step()
    after = logits.detach().softmax(1)
    assert torch.equal(after.argmax(1), labels)
    others = after.masked_select(~torch.eye(4)[labels].bool()).view(2, 3)
    assert float((others.amax(1) - others.amin(1)).max()) < 1e-3
    assert float(after.amax()) < 0.95  # cross-entropy would have gone to 1


def test_an_alpha_of_guessing_is_refused():
    shape = (10, 1, 8)
    with pytest.raises(ConfigurationError, match="no better than guessing"):
        make_defense("relaxloss", {"alpha": 2.31}).check("simple-cnn", shape, 100, Recipe())
    make_defense("relaxloss", {"alpha": 2.3}).check("simple-cnn", shape, 100, Recipe())
    with pytest.raises(ConfigurationError, match="cross-entropy"):
        make_defense("relaxloss").check("simple-cnn", shape, 100, Recipe(label_smoothing=0.1))


def test_adversarial_regularisation_is_the_papers_algorithm(digits):
    """Algorithm 1 of Nasr et al.: k steps up the gain of the attack, then a step down loss + lambda · log h."""
    settings = AdversarialRegularisation(weight=2.0, attack_steps=2, attack_learning_rate=3e-3)
    indices, aside, recipe = np.arange(60), np.arange(60, 100), RECIPE.model_copy(update={"epochs": 4})
    ours, theirs = small_network(), small_network()
    fitting = Fitting(
        "tiny", ours, digits.images, digits.labels, indices, recipe, Preprocessing(), (10, 1, 8), aside=aside,
        device="cpu",
    )  # fmt: skip
    procedure = Adversarial(settings, fitting)
    fitting.fit(procedure)

    images, labels = digits.batch(np.arange(100)).float() / 255, torch.from_numpy(digits.labels[:100])
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(RECIPE.seed, "inference attack"))
        attack = InferenceAttack(10)
    ascent, descent = torch.optim.Adam(attack.parameters(), lr=3e-3), Descent(theirs)
    for epoch in range(recipe.epochs):
        draws = make_generator(RECIPE.seed, "reference batches", epoch)
        for batch in orders(60, epoch):
            for _ in range(2):
                others = 60 + torch.randint(40, (len(batch),), generator=draws)
                inside, outside = (theirs(images[rows]).detach().softmax(1) for rows in (batch, others))
                h_in, h_out = attack(inside, labels[batch]).sigmoid(), attack(outside, labels[others]).sigmoid()
                gain = 0.5 * (h_in.log().mean() + (1 - h_out).log().mean())  # equation 4
                ascent.zero_grad()
                (-gain).backward()
                ascent.step()
            p = theirs(images[batch]).softmax(1)
            loss = -p[torch.arange(len(batch)), labels[batch]].log().mean()
            h = attack(p, labels[batch]).sigmoid()
            descent.step(torch.autograd.grad(loss + 2.0 * h.log().mean(), list(theirs.parameters())))
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-3, atol=1e-4)
    # Adam turns the rounding of a gradient that is zero in exact arithmetic into whole steps, so weights behind dead
    # units differ between processors. What both attacks say of every record, with every label, must not.
    posteriors = theirs(images).detach().softmax(1).repeat_interleave(10, dim=0)
    every = torch.arange(10).repeat(len(images))
    torch.testing.assert_close(procedure.attack(posteriors, every), attack(posteriors, every), rtol=1e-3, atol=1e-3)


def memguard_interface(budget=1.0, classes=5, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = nn.Sequential(nn.Linear(classes, 8), nn.Tanh(), nn.Linear(8, 1)).requires_grad_(False)
        network[2].weight.mul_(30)
        example = (torch.randn(200, classes, generator=torch.Generator().manual_seed(3)) * 3).softmax(1)
        network[2].bias.sub_(network(example.sort(dim=1, descending=True).values).median())  # tells some from others
    made = MemGuardInterface(budget=budget, steps=300, seed=seed)
    made._classifier = network
    return made


def memguard_search(logit, score):
    """Phase 1 (algorithm 1) for one record: its posteriors with noise, one record and one step at a time.

    Args:
        logit: K.
        score: From posteriors to the logit of "member".
    """
    origin = logit.softmax(0)
    label, start = int(origin.argmax()), float(score(origin))
    best, weight = origin, 0.1
    while weight <= 1e5:
        z, found = logit.clone(), None
        for _ in range(300):
            value = float(score(z.softmax(0)))
            if int(z.argmax()) == label and value * start <= 0:
                found = z.softmax(0)
                break
            e = z.clone().requires_grad_()
            rivals = torch.cat([e[:label], e[label + 1 :]])
            loss = score(e.softmax(0)).abs() + 10 * torch.relu(rivals.max() - e[label])
            loss = loss + weight * (e.softmax(0) - origin).abs().sum()
            (gradient,) = torch.autograd.grad(loss, e)
            z = z - 0.1 * gradient / gradient.norm()
        if found is None:
            break
        best, weight = found, weight * 10
    return best


@pytest.mark.slow
def test_memguard_finds_the_papers_noise():
    made = memguard_interface()
    logits = torch.randn(25, 5, generator=torch.Generator().manual_seed(2)) * 3
    posteriors = logits.log_softmax(1).exp()

    def score(row):
        return made._classifier(row.sort(descending=True).values).squeeze()

    theirs = torch.stack([memguard_search(row.log(), score) for row in posteriors])
    ours = made._search(posteriors)
    moved = (theirs - posteriors).abs().sum(1) > 1e-6
    assert int(moved.sum()) > 10
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("budget", [0.02, 0.2, 1.0])
def test_memguard_adds_noise_with_the_best_probability_that_the_budget_allows(budget):
    """Phase 2 against a search over probabilities, and the frequency over seeds against the probability."""
    posteriors = (torch.randn(30, 5, generator=torch.Generator().manual_seed(2)) * 3).softmax(1)
    made = memguard_interface(budget)
    noisy = made._search(posteriors)
    before, after = made._confidence(posteriors), made._confidence(noisy)
    distances = (noisy - posteriors).abs().sum(1)
    grid = torch.linspace(0, 1, 2001)
    added = torch.zeros(len(posteriors))
    answers = [memguard_interface(budget, seed=seed) for seed in range(200)]
    for one in answers:
        chosen = (one._choose_rows(posteriors, noisy) - posteriors).abs().sum(1) > 1e-9
        added += chosen.float() / len(answers)
    for row in range(len(posteriors)):
        objective = grid * after[row] + (1 - grid) * before[row]
        objective[grid * distances[row] > budget + 1e-7] = torch.inf  # the budget holds for each record
        best = float(grid[objective.argmin()]) if after[row] < before[row] else 0.0
        assert float(made._chances(posteriors, noisy)[row]) == pytest.approx(best, abs=1e-3)
    expected = made._chances(posteriors, noisy)
    assert bool((expected * distances <= budget + 1e-5).all())
    assert float((added - expected).abs().max()) < 4 * 0.5 / len(answers) ** 0.5


def halves(splits):
    """(known, judged): records with their membership; the attack learns from the first and is judged on the second."""
    known = np.concatenate([splits.members[::2], splits.non_members[::2]])
    judged = np.concatenate([splits.members[1::2], splits.non_members[1::2]])
    return [(rows, np.isin(rows, splits.members)) for rows in (known, judged)]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.slow
def test_memguard_misleads_an_attack_that_learnt_from_posteriors(overfitted):
    """Section 5 of the paper: the attack's classifier was trained without the defense, and is asked with it."""
    target, splits, dataset = overfitted
    interface = make_defense("memguard").interface(target, TrialData(dataset, splits), Context())
    view = target.through(interface)
    (known, known_truth), (judged, truth) = halves(splits)

    def seen(model, rows):
        return np.sort(model.posteriors(dataset.batch(rows)).numpy(), axis=1)

    attack = MLPClassifier((64,), max_iter=400, random_state=0).fit(seen(target, known), known_truth)
    plain = roc_auc_score(truth, attack.predict_proba(seen(target, judged))[:, 1])
    defended = roc_auc_score(truth, attack.predict_proba(seen(view, judged))[:, 1])
    assert plain > 0.8 and defended < 0.55
    images = dataset.batch(judged)
    before, after = target.posteriors(images), view.posteriors(images)
    assert torch.equal(before.argmax(1), after.argmax(1))  # of every record
    right = [float((attack.predict(seen(model, judged)) == truth).mean()) for model in (target, view)]
    chance = 2 * 0.5 / len(truth) ** 0.5
    assert right[0] > 0.5 + 2 * chance and right[1] < 0.5 + chance  # the paper's measure: accuracy


@pytest.mark.slow
def test_relaxloss_lowers_the_risk_of_an_overfitted_network(digits):
    """What the paper is about: members are told less well, and little accuracy is lost. Means over trainings."""
    import securitynet.datasets
    from securitynet.datasets import splits as all_splits

    data = securitynet.datasets.load("digits", limit=300)
    splits = all_splits.make("four-way", data, seed=0)
    recipe = {"epochs": 100, "learning_rate": 0.01, "schedule": "constant"}

    def judged(defense, seed):
        target = train_target("simple-cnn", data, defense=defense, seed=seed, **recipe)
        scores = []
        for rows in (splits.members, splits.non_members):
            posteriors = target.posteriors(data.batch(rows)).numpy()
            scores.append(posteriors[np.arange(len(rows)), data.labels[rows]])
        right = target.labels(data.batch(splits.non_members)).numpy() == data.labels[splits.non_members]
        return measure_auc(*scores).value, float(right.mean())

    plain = np.mean([judged(None, seed) for seed in range(2)], axis=0)
    defended = np.mean([judged(make_defense("relaxloss", {"alpha": 0.5}), seed) for seed in range(2)], axis=0)
    assert defended[0] < plain[0] - 0.03, (plain, defended)
    assert defended[1] > plain[1] - 0.1
