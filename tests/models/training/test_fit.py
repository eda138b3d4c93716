"""The trainer: what it computes, what it refuses, and that nothing but the seed decides."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from securitynet.datasets import load, splits
from securitynet.errors import ConfigurationError, ModelError
from securitynet.models.training import losses
from securitynet.models.training.batches import Feed, split_batches
from securitynet.models.training.fit import evaluate_network, fit, hold_out_positions
from securitynet.models.training.pixel_statistics import fit_normalization
from securitynet.models.training.recipe import Recipe

DIGITS = load("digits")
PARTS = splits.four_way(DIGITS)
PREPROCESSING = fit_normalization(DIGITS, PARTS.members)


def network(seed: int = 0, *, dropout: float = 0.2) -> nn.Module:
    """Small, with all that could spoil a resumption: batch norm and dropout."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(512, 10),
        )


def train(module: nn.Module, **changes: object):
    settings = {"epochs": 3, "schedule": "constant", **changes}
    return fit(
        module,
        DIGITS.images,
        DIGITS.labels[PARTS.members],
        Recipe(**settings),
        indices=PARTS.members,
        preprocessing=PREPROCESSING,
        device="cpu",
    )


def weights(module: nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in module.state_dict().items()}


def accuracy(module: nn.Module, indices: np.ndarray) -> float:
    labels = DIGITS.labels[indices]
    images = DIGITS.images
    return evaluate_network(module, images, labels, indices=indices, preprocessing=PREPROCESSING, device="cpu")[1]


# --- the recipe


def test_default_recipe_is_that_of_ml_doctor():
    recipe = Recipe()
    assert (recipe.optimizer, recipe.momentum, recipe.weight_decay) == ("sgd", 0.9, 5e-4)
    assert (recipe.batch_size, recipe.epochs, recipe.loss) == (64, 300, "cross-entropy")
    # "1e-2 before 50 epochs, 1e-3 from 50-100 epochs, and 1e-4 until the end" (Liu et al., section 5.3)
    rates = [recipe.learning_rate_at(epoch) for epoch in range(300)]
    assert rates == [1e-2] * 50 + [1e-3] * 50 + [1e-4] * 200


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"epochs": 6}, [1e-2, 1e-3, 1e-4, 1e-4, 1e-4, 1e-4]),
        ({"epochs": 3}, [1e-2, 1e-3, 1e-4]),
        ({"epochs": 2}, [1e-2, 1e-3]),
        ({"epochs": 1}, [1e-2]),
        ({"epochs": 3, "schedule": "constant", "learning_rate": 0.5}, [0.5, 0.5, 0.5]),
        (
            {"epochs": 4, "schedule": "cosine", "learning_rate": 1},
            [1, (2 + math.sqrt(2)) / 4, 0.5, (2 - math.sqrt(2)) / 4],
        ),
    ],
)
def test_learning_rates_worked_out_by_hand(settings, expected):
    recipe = Recipe(**settings)
    assert [recipe.learning_rate_at(epoch) for epoch in range(recipe.epochs)] == pytest.approx(expected, rel=1e-12)


def test_the_learning_rate_of_each_epoch_is_used_and_recorded():
    assert train(network(), epochs=6, schedule="steps").learning_rate == (1e-2, 1e-3, 1e-4, 1e-4, 1e-4, 1e-4)


@pytest.mark.parametrize("settings", [{"label_smoothing": 0.1, "loss": "mse"}, {"temperature": 2.0}, {"epochs": 0}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ValueError):
        Recipe(**settings)


# --- what is computed


def test_gradient_descent_equals_one_written_out_by_hand():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((40, 1, 4, 4), generator=generator, dtype=torch.float32)
    labels = torch.randint(0, 3, (40,), generator=generator)
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 3, bias=False))
    weight = module[1].weight.detach().numpy().astype(np.float64).copy()
    recipe = Recipe(epochs=5, batch_size=40, schedule="constant", learning_rate=0.5, momentum=0.9, weight_decay=0.01)
    fit(module, images, labels, recipe, device="cpu")

    x, y = images.flatten(1).numpy().astype(np.float64), np.eye(3)[labels.numpy()]
    velocity = np.zeros_like(weight)
    for _ in range(5):
        scores = np.exp(x @ weight.T)
        gradient = (scores / scores.sum(axis=1, keepdims=True) - y).T @ x / 40 + 0.01 * weight
        velocity = 0.9 * velocity + gradient
        weight = weight - 0.5 * velocity
    np.testing.assert_allclose(module[1].weight.detach().numpy(), weight, atol=1e-5)


def test_gradients_are_clipped_to_the_norm():
    images, labels = torch.rand(8, 1, 2, 2), torch.arange(8) % 2
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    before = torch.cat([p.detach().flatten().clone() for p in module.parameters()])
    settings = {"epochs": 1, "batch_size": 8, "momentum": 0, "weight_decay": 0, "learning_rate": 1.0}
    fit(module, images, labels, Recipe(clip_norm=1e-3, **settings), device="cpu")
    after = torch.cat([p.detach().flatten() for p in module.parameters()])
    assert float((after - before).norm()) == pytest.approx(1e-3, rel=1e-2)


def test_kl_equals_its_definition_and_vanishes_on_the_teacher():
    logits = torch.tensor([[1.0, 2.0, -1.0], [0.0, 0.5, 3.0]], dtype=torch.float64)
    other = torch.tensor([[2.0, 0.0, -1.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
    recipe = Recipe(loss="kl", temperature=3.0)
    targets = losses.check_targets(logits.softmax(dim=1), 2, recipe)
    p, q = (logits / 3).softmax(dim=1), (other / 3).softmax(dim=1)
    expected = 9 * (p * (p / q).log()).sum(dim=1).mean()
    assert float(losses.compute_batch_loss(other.float(), targets, recipe)) == pytest.approx(float(expected), rel=1e-5)
    assert float(losses.compute_batch_loss(logits.float(), targets, recipe)) == pytest.approx(0, abs=1e-6)


def test_mse_compares_posteriors_and_not_logits():
    logits = torch.tensor([[3.0, 1.0, 0.0]])
    recipe = Recipe(loss="mse")
    assert float(losses.compute_batch_loss(logits, logits.softmax(dim=1), recipe)) == 0
    # Posterior (1/2, 1/2) against (1, 0): squared differences sum to 1/2.
    assert float(losses.compute_batch_loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), recipe)) == pytest.approx(0.5)


def test_learns_digits():
    module = network()
    history = train(module, epochs=20)
    assert accuracy(module, PARTS.non_members) > 0.9
    assert history.epochs_run == 20
    assert history.train_loss[-1] < history.train_loss[0] / 4
    assert not module.training


@pytest.mark.parametrize(
    "changes", [{"optimizer": "adam", "learning_rate": 1e-3}, {"optimizer": "adamw", "learning_rate": 1e-3}]
)
def test_other_optimizers_learn(changes):
    module = network()
    train(module, epochs=6, **changes)
    assert accuracy(module, PARTS.non_members) > 0.8


@pytest.mark.parametrize("loss", [{"loss": "mse", "learning_rate": 0.05}, {"loss": "kl", "temperature": 2.0}])
def test_a_surrogate_matches_argmax_and_confidence_of_its_teacher(loss):
    # Confidence collapses when logits are regressed onto posteriors.
    teacher = network(1)
    train(teacher, epochs=6)
    inputs = PREPROCESSING(DIGITS.batch(PARTS.shadow_train))
    with torch.inference_mode():
        posteriors = teacher(inputs).softmax(dim=1)
    student = network(2, dropout=0)
    recipe = Recipe(epochs=30, schedule="constant", **loss)
    fit(
        student,
        DIGITS.images,
        posteriors,
        recipe,
        indices=PARTS.shadow_train,
        preprocessing=PREPROCESSING,
        device="cpu",
    )
    with torch.inference_mode():
        answers = student(inputs).softmax(dim=1)
    assert (answers.argmax(dim=1) == posteriors.argmax(dim=1)).float().mean() > 0.95
    assert answers.max(dim=1).values.mean() == pytest.approx(float(posteriors.max(dim=1).values.mean()), abs=0.05)


# --- randomness


def test_the_seed_decides_and_nothing_else_does():
    first, second, other = network(), network(), network()
    settings = {"augment": "crop-flip", "epochs": 2}
    train(first, **settings)
    torch.manual_seed(1234)
    torch.rand(7)
    train(second, **settings)
    train(other, seed=1, **settings)
    assert weights(first) == weights(second)
    assert weights(first) != weights(other)


def test_global_random_state_is_left_as_it_was():
    torch.manual_seed(3)
    np.random.seed(3)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    train(network(), epochs=1, augment="flip")
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)
    with pytest.raises(ModelError):
        train(network(), learning_rate=1e30)
    assert torch.equal(torch.get_rng_state(), before)


def test_works_inside_inference_mode_and_no_grad():
    module, same = network(), network()
    train(module, epochs=1)
    with torch.no_grad():
        train(same, epochs=1)
    assert weights(module) == weights(same)


# --- batches


def test_a_single_left_over_record_joins_the_batch_before():
    assert [len(b) for b in split_batches(129, 64)] == [64, 65]
    assert [len(b) for b in split_batches(65, 64)] == [65]
    assert [len(b) for b in split_batches(130, 64)] == [64, 64, 2]
    assert [len(b) for b in split_batches(3, 1)] == [1, 1, 1]
    order = torch.randperm(129, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.cat(split_batches(129, 64, order)), order)


def test_batch_norm_trains_with_a_last_batch_of_one():
    # On a 1×1 map, torch's batch norm raises an error for a batch of one.
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3))
    images, labels = torch.rand(65, 1, 2, 2), torch.arange(65) % 3
    history = fit(module, images, labels, Recipe(epochs=2, batch_size=64), device="cpu")
    assert history.epochs_run == 2
    assert module[2].num_batches_tracked == 2
    with pytest.raises(ModelError, match="batch of one"):
        fit(module, images, labels, Recipe(epochs=1, batch_size=1), device="cpu")


class Decoded:
    """Images that are decoded when asked for, as those of ImageNet are."""

    def __init__(self, images: torch.Tensor) -> None:
        self._images = images
        self.fetched = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._images.shape)

    def __getitem__(self, indices: torch.Tensor) -> torch.Tensor:
        self.fetched += len(indices)
        return self._images[indices]


def test_lazy_images_train_the_same_weights_and_are_decoded_once_if_they_fit(monkeypatch):
    plain, kept, fetched = network(), network(), network()
    train(plain, epochs=2)
    labels = DIGITS.labels[PARTS.members]
    for module, room, expected in ((kept, 1 << 30, len(labels)), (fetched, 0, 2 * len(labels) + 2)):
        monkeypatch.setattr("securitynet.models.training.batches.RESIDENT_BYTES", room)
        images = Decoded(DIGITS.images)
        recipe = Recipe(epochs=2, schedule="constant")
        fit(module, images, labels, recipe, indices=PARTS.members, preprocessing=PREPROCESSING, device="cpu")
        assert weights(module) == weights(plain)
        assert images.fetched == expected


def test_feed_yields_every_group_in_order(monkeypatch):
    monkeypatch.setattr("securitynet.models.training.batches.RESIDENT_BYTES", 0)
    images = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1)
    feed = Feed(Decoded(images), np.array([9, 7, 5, 3, 1]), torch.device("cpu"))
    batches = list(feed.batches(torch.tensor([4, 0, 2, 1]).split(3)))
    assert [batch.flatten().tolist() for _, batch in batches] == [[1, 9, 5], [7]]


class Viewing(nn.Module):
    """Flattens with ``view``, as many public networks do; channels-last feature maps do not allow it."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.linear = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(256, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(torch.relu(self.convolution(images)).view(len(images), 256))


def test_networks_that_flatten_by_view_can_be_trained():
    module = Viewing()
    train(module, epochs=6)
    assert accuracy(module, PARTS.non_members) > 0.8


def test_weights_have_the_usual_layout_afterwards():
    module = network()
    train(module, epochs=1)
    assert all(parameter.is_contiguous() for parameter in module.parameters())


# --- early stopping


def test_early_stopping_keeps_the_best_epoch_of_the_held_out_records():
    module = network()
    recipe = {"patience": 2, "validation_share": 0.2, "epochs": 60, "learning_rate": 0.1}
    history = train(module, **recipe)
    assert history.stopped_early
    assert history.epochs_run == history.best_epoch + 1 + 2 < 60
    assert history.validation_loss[history.best_epoch] == min(history.validation_loss)
    kept, aside = hold_out_positions(len(PARTS.members), Recipe(**recipe))
    assert np.array_equal(np.sort(np.concatenate([kept, aside])), np.arange(len(PARTS.members)))
    assert len(aside) == round(0.2 * len(PARTS.members))
    records = PARTS.members[aside]
    loss, share = evaluate_network(
        module, DIGITS.images, DIGITS.labels[records], indices=records, preprocessing=PREPROCESSING, device="cpu"
    )
    assert loss == pytest.approx(history.validation_loss[history.best_epoch], rel=1e-5)
    assert share == history.validation_accuracy[history.best_epoch]


def test_held_out_records_do_not_train():
    recipe = Recipe(patience=5, epochs=3, schedule="constant", seed=4)
    kept, aside = hold_out_positions(len(PARTS.members), recipe)
    spoiled = DIGITS.images.clone()
    spoiled[torch.from_numpy(PARTS.members[aside])] = 255
    labels = DIGITS.labels[PARTS.members]
    first, second = network(), network()
    histories = [
        fit(module, images, labels, recipe, indices=PARTS.members, preprocessing=PREPROCESSING, device="cpu")
        for module, images in ((first, DIGITS.images), (second, spoiled))
    ]
    assert histories[0].train_loss == histories[1].train_loss
    assert histories[0].validation_loss != histories[1].validation_loss
    assert len(kept) == len(labels) - len(aside)


# --- errors


def test_divergence_is_an_error_that_names_the_epoch():
    with pytest.raises(ModelError, match=r"diverged at epoch \d+.*[Ll]ower the learning rate"):
        train(network(), learning_rate=1e30)


@pytest.mark.parametrize(
    ("targets", "recipe", "message"),
    [
        (torch.zeros(3, dtype=torch.int64), {}, "3 training targets for 4"),
        (torch.tensor([0, 1, -1, 0]), {}, "at least 0"),
        (torch.tensor([0, 1, 2, 0]), {}, "The network has 2 classes"),
        (torch.full((4, 3), 1 / 3), {}, "The network has 2 classes"),
        (torch.tensor([[2.0, -1.0]] * 4), {"loss": "mse"}, "posteriors"),
        (torch.tensor([[0.2, 0.2]] * 4), {"loss": "kl"}, "sum to 1"),
        (torch.full((4, 2), torch.nan), {"loss": "kl"}, "posteriors"),
        (torch.tensor([0, 1, 0, 1]), {"loss": "mse"}, "compares posteriors"),
    ],
)
def test_targets_that_do_not_suit_are_refused(targets, recipe, message):
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises((ConfigurationError, ModelError), match=message):
        fit(module, torch.rand(4, 1, 2, 2), targets, Recipe(epochs=1, **recipe), device="cpu")


def test_images_that_do_not_suit_and_frozen_networks_are_refused():
    labels = torch.tensor([0, 1, 0, 1])
    with pytest.raises(ModelError, match="cannot be trained on these images"):
        fit(
            nn.Sequential(nn.Flatten(), nn.Linear(9, 2)), torch.rand(4, 1, 2, 2), labels, Recipe(epochs=1), device="cpu"
        )
    frozen = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).requires_grad_(False)
    with pytest.raises(ModelError, match="frozen"):
        fit(frozen, torch.rand(4, 1, 2, 2), labels, Recipe(epochs=1), device="cpu")
    with pytest.raises(ConfigurationError, match="device"):
        fit(network(), DIGITS.images, DIGITS.labels, Recipe(epochs=1), device="abacus")


def test_evaluation_leaves_the_mode_as_it_was_and_uses_running_statistics():
    module = network().train()
    before = weights(module)
    value = accuracy(module, PARTS.members)
    assert module.training
    assert weights(module) == before
    inputs = PREPROCESSING(DIGITS.batch(PARTS.members))
    with torch.inference_mode():
        predicted = module.eval()(inputs).argmax(dim=1).numpy()
    assert value == np.mean(predicted == DIGITS.labels[PARTS.members])


def test_loss_on_soft_labels_equals_cross_entropy_on_labels_where_they_are_certain():
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 1, 0])
    recipe = Recipe(label_smoothing=0.1)
    soft = functional.one_hot(labels, 3).float()
    assert float(losses.compute_batch_loss(logits, soft, recipe)) == pytest.approx(
        float(losses.compute_batch_loss(logits, labels, recipe)), rel=1e-6
    )


def test_statistics_equal_those_of_numpy():
    values = DIGITS.batch(PARTS.members).numpy() / 255
    assert PREPROCESSING.mean == (round(values.mean(), 4),)
    assert PREPROCESSING.std == (round(values.std(), 4),)
