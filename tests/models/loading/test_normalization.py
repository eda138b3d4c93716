"""Automatic normalisation: it finds the convention that a network was trained with, and says how sure it is."""

import io

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from securitynet.datasets.base import ImageDataset
from securitynet.errors import ConfigurationError, QueryBudgetExceeded, TargetError
from securitynet.models.architectures.factory import build
from securitynet.models.loading.load import load_target
from securitynet.models.loading.normalization import (
    ConventionFit,
    _is_worse,
    choose_normalization,
    compare_accuracies,
    list_conventions,
    mix_indices,
    sample_indices,
    temper_losses,
)
from securitynet.models.sources.preprocessing import CONVENTIONS, Normalization, Preprocessing, parse_normalization
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.query_count import QueryCounter
from securitynet.models.targets.target import Target


@pytest.fixture(scope="module")
def network(digits):
    """Trained on digits normalised as MNIST is."""
    indices = digits.parts["train"]
    images = Preprocessing(mean=(0.1307,), std=(0.3081,))(digits.batch(indices))
    labels = torch.from_numpy(digits.labels[indices])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = build("simple-cnn", 10, channels=1, image_size=8)
        optimizer = torch.optim.Adam(net.parameters(), 2e-3)
        for _ in range(12):
            for chosen in torch.randperm(len(images)).split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(images[chosen]), labels[chosen]).backward()
                optimizer.step()
    return net.eval()


def target_of(net, *, shape=(1, 8, 8), **options):
    return Target(ModuleBackend(net, reference="net", checksum="0", example_shape=shape), **options)


def test_the_right_convention_is_found(network, digits):
    choice = choose_normalization(target_of(network), digits)
    assert choice.name == "mnist"
    assert choice.normalization.constants == CONVENTIONS["mnist"]
    assert choice.table[0].name == "mnist"
    assert choice.table[0].accuracy > 0.9
    assert {candidate.name for candidate in choice.table} == set(list_conventions(1))
    assert "chose mnist, which fits best" in choice.note
    assert not choice.equals
    assert f"{choice.table[0].accuracy:.1%}" in choice.note
    assert "WARNING" not in choice.note
    records, labels = digits.batch(choice.indices), digits.labels[choice.indices]
    trial = target_of(network, preprocessing=Preprocessing(mean=(0.1307,), std=(0.3081,)))
    expected = (trial.labels(records).numpy() == labels).mean()
    assert choice.table[0].accuracy == pytest.approx(expected)
    assert choice.table[0].count == len(choice.indices) == 1000


def test_it_is_the_same_each_time_and_sends_each_image_once_a_convention(network, digits):
    first, second = (target_of(network, query_counter=QueryCounter()) for _ in range(2))
    choices = [choose_normalization(target, digits, size=200) for target in (first, second)]
    assert choices[0].note == choices[1].note
    assert first.query_counter.snapshot() == second.query_counter.snapshot()
    assert first.query_counter.unique == 200
    assert first.query_counter.total == sum(candidate.count for candidate in choices[0].table)
    # What falls behind is not tried to the end.
    assert first.query_counter.total < 200 * len(choices[0].table)


def test_it_obeys_a_query_cap(network, digits):
    with pytest.raises(QueryBudgetExceeded):
        choose_normalization(target_of(network, query_counter=QueryCounter(50)), digits)


def test_a_network_that_knows_nothing_is_reported_loudly(digits):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        untrained = build("simple-cnn", 10, channels=1, image_size=8)
    choice = choose_normalization(target_of(untrained), digits)
    assert "WARNING" in choice.note
    assert "hardly better than chance" in choice.note


def many_classes(classes=100, count=300):
    random = np.random.default_rng(0)
    images = torch.from_numpy(random.integers(0, 256, (count, 3, 8, 8), dtype=np.uint8))
    return ImageDataset("many", images, np.arange(count) % classes, tuple(map(str, range(classes))), {})


def test_a_network_that_knows_none_of_many_classes_is_not_tried_under_everything():
    """Trying random weights under 26 conventions to the end would take longer than the assessment of 1,000 classes."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        untrained = build("simple-cnn", 100, channels=3, image_size=8)
    counter = QueryCounter()
    choice = choose_normalization(target_of(untrained, shape=(3, 8, 8), query_counter=counter), many_classes())
    assert "WARNING" in choice.note and "hardly better than chance" in choice.note
    assert choice.name == "imagenet" and choice.table[0].count == 300  # all of them: the class order is judged on these
    assert {fit.name: fit.count for fit in choice.table[1:]} == dict.fromkeys(("none", "bytes", "caffe"), 64)
    assert counter.total == 300 + 3 * 64


class Knowing(nn.Module):
    """Right for a share of images that are normalised with zero mean, wrong for all others."""

    def __init__(self, dataset, share):
        super().__init__()
        sums = dataset.images.float().sum(dim=(1, 2, 3)) / 255
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("sums", sums)
        self.register_buffer("labels", torch.from_numpy(dataset.labels) + (torch.arange(len(sums)) % share != 0))

    def forward(self, x):
        nearest = (x.sum(dim=(1, 2, 3))[:, None] - self.sums).abs().argmin(dim=1)
        return nn.functional.one_hot(self.labels[nearest] % 100, 100).float() * self.scale


def test_a_poor_network_of_many_classes_is_tried_under_everything():
    dataset = many_classes()
    network = Knowing(dataset, share=8)  # 12% right, where chance is 1%
    choice = choose_normalization(target_of(network, shape=(3, 8, 8)), dataset)
    assert choice.name == "none"
    assert len(choice.table) > 20


def test_what_was_tried_is_not_queried_again(network, digits, tmp_path):
    counts, notes = [], []
    for _ in range(2):
        target = target_of(network, query_counter=QueryCounter())
        notes.append(choose_normalization(target, digits, size=100, cache=tmp_path).note)
        counts.append(target.query_counter.total)
    assert counts[0] > 0 and counts[1] == 0
    assert notes[0] == notes[1]


class Insensitive(nn.Module):
    """Its answers do not depend on the normalisation at all."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        low, high = x.flatten(1).amin(1), x.flatten(1).amax(1)
        scaled = (x - low.view(-1, 1, 1, 1)) / (high - low).clamp_min(1e-6).view(-1, 1, 1, 1)
        return self.inner((scaled - 0.1307) / 0.3081)


@pytest.mark.parametrize("size", [60, 200, 1000])
def test_what_images_cannot_tell_apart_is_said_and_a_fixed_order_decides(network, digits, size):
    choice = choose_normalization(target_of(Insensitive(network)), digits, size=size)
    assert choice.name == "half"  # the first for grey images
    assert {"none", "mnist", "fmnist"} <= set(choice.equals)
    assert "do not distinguish it from none" in choice.note
    assert "fits best" not in choice.note


@pytest.mark.parametrize("gap, worse", [(1e-6, False), (1e-2, True)])
def test_rounding_decides_nothing(gap, worse):
    losses = np.linspace(0.1, 2, 200)
    fits = [
        ConventionFit(name, Normalization((), ()), np.zeros(200, int), np.zeros(200, int), values)
        for name, values in (("none", losses), ("half", losses + gap * np.linspace(0.9, 1.1, 200)))
    ]
    assert _is_worse(fits[1], fits[0]) is worse and not _is_worse(fits[0], fits[1])


@pytest.mark.parametrize("gain", [1, 30])
def test_an_overfitted_network_does_not_pull_towards_flat_inputs(network, digits, gain):
    """Being far too sure costs likelihood on sharp inputs; the temperature takes that away."""

    class Sure(nn.Module):
        def forward(self, x):
            return gain * network(x)

    choice = choose_normalization(target_of(Sure()), digits)
    assert choice.name == "mnist"


def test_one_temperature_by_hand():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(400, 3, generator=generator)
    labels = torch.distributions.Categorical(logits=logits / 2.5).sample()
    losses = temper_losses(logits * 40, labels)
    grid = [nn.functional.cross_entropy(logits * 40 / t, labels).item() for t in np.geomspace(20, 500, 2000)]
    assert losses.mean() == pytest.approx(min(grid), abs=1e-4)
    assert temper_losses(torch.zeros(4, 3), torch.zeros(4, dtype=torch.long)).mean() == pytest.approx(np.log(3))


def colourful(digits):
    """Coloured digits, and a network trained on them in RGB, normalised as ImageNet is."""
    tint = torch.tensor([1.0, 0.75, 0.5]).view(1, 3, 1, 1)
    pictures = (digits.images.float() * tint + 10).clamp(0, 255).to(torch.uint8)
    dataset = ImageDataset("colours", pictures, digits.labels, digits.class_names, digits.parts)
    indices = digits.parts["train"]
    inputs = Preprocessing(mean=CONVENTIONS["imagenet"][0], std=CONVENTIONS["imagenet"][1])(dataset.batch(indices))
    labels = torch.from_numpy(digits.labels[indices])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = build("simple-cnn", 10, channels=3, image_size=8)
        optimizer = torch.optim.Adam(net.parameters(), 2e-3)
        for _ in range(6):
            for chosen in torch.randperm(len(inputs)).split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(inputs[chosen]), labels[chosen]).backward()
                optimizer.step()
    return net.eval(), dataset


def test_channels_in_another_order_and_means_without_deviations_are_tried(digits):
    net, dataset = colourful(digits)

    class Reversed(nn.Module):
        def forward(self, x):
            return net(x.flip(1))

    class Caffe(nn.Module):
        """Takes values in 0 to 255 less the mean, as Caffe's networks do."""

        def forward(self, x):
            mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in CONVENTIONS["imagenet"])
            caffe = torch.tensor(CONVENTIONS["caffe"][0]).view(1, 3, 1, 1)
            return net((x / 255 + caffe - mean) / std)

    def best(network, size=400):
        return choose_normalization(target_of(network, shape=(3, 8, 8)), dataset, size=size)

    right = best(net)
    assert not right.name.endswith("-bgr")
    backwards = best(Reversed())
    assert backwards.name.endswith("-bgr")
    assert backwards.table[0].accuracy == pytest.approx(right.table[0].accuracy, abs=0.02)
    assert best(Caffe()).name == "caffe"


def test_reversed_channels_by_hand():
    images = torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1)
    stated = parse_normalization("0.1,0.2,0.3/0.5,0.5,0.5-bgr")
    found = Preprocessing().normalized_by(stated)(images).flatten().tolist()
    assert found == pytest.approx([0.6, 0.4, 0.2])  # (0.6 - 0.3) / 0.5 comes first
    again = Preprocessing().normalized_by(stated).constants()
    assert parse_normalization(again) == stated
    assert parse_normalization("none-bgr").channel_order == "bgr"
    assert "channel_order" not in Preprocessing().canonical()  # identities stay what they were
    assert Preprocessing().normalized_by(stated).canonical()["channel_order"] == "bgr"


def test_members_and_non_members_are_tried_in_turn(digits):
    indices = mix_indices(digits, 100)
    inside = np.isin(indices, digits.parts["test"])
    assert inside[::2].all()
    assert not inside[1::2].any()
    assert len(np.unique(indices)) == 100
    assert np.array_equal(indices[:40], mix_indices(digits, 40))


def test_probabilities_are_not_taken_for_logits(network, digits):
    logits = choose_normalization(target_of(network), digits, size=300)
    soft = target_of(nn.Sequential(network, nn.Softmax(dim=1)), head="probabilities")
    assert choose_normalization(soft, digits, size=300).table[0].loss == pytest.approx(logits.table[0].loss, rel=1e-3)


def test_a_normalisation_that_overflows_is_passed_over(network, digits):
    class Overflowing(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network

        def forward(self, x):
            return self.inner(x) + torch.where(x.abs().amax() > 100, torch.nan, 0.0)

    choice = choose_normalization(target_of(Overflowing()), digits, size=200)
    assert choice.name == "mnist"
    assert {c.name for c in choice.table if c.count == 0} == {"bytes"}

    class Broken(nn.Module):
        def forward(self, x):
            return torch.full((len(x), 10), torch.nan)

    with pytest.raises(TargetError, match="under every normalisation"):
        choose_normalization(target_of(Broken()), digits)


def test_conventions_fit_the_channels():
    grey, colour = list_conventions(1), list_conventions(3)
    assert list(grey) == ["half", "none", "mnist", "fmnist", "bytes"]
    assert {"imagenet-bgr", "caffe", "caffe-bgr"} <= set(colour)
    assert not any(name.endswith("-bgr") for name in list_conventions(3, bgr=False))
    assert {"none", "half", "imagenet", "cifar10", "cifar100", "svhn", "clip", "bytes"} <= set(colour)
    assert "inception" not in colour  # the same as half


def test_the_sample_is_of_the_test_part_and_fixed(digits):
    sample = sample_indices(digits, 100)
    assert len(np.unique(sample)) == 100
    assert np.isin(sample, digits.parts["test"]).all()
    np.random.seed(3)
    assert np.array_equal(sample, sample_indices(digits, 100))
    whole = ImageDataset(digits.reference, digits.images, digits.labels, digits.class_names, {})
    assert len(sample_indices(whole)) == 1000


def test_mcnemar_against_scipy():
    from scipy.stats import binom

    from securitynet.models.loading.normalization import ConventionFit

    first = np.array([True] * 30 + [False] * 8 + [True] * 62)
    second = np.array([False] * 30 + [True] * 8 + [True] * 62)
    ones = np.ones(100, np.int64)
    candidates = [
        ConventionFit("x", Normalization((), ()), correct.astype(np.int64), ones, np.zeros(100))
        for correct in (first, second)
    ]
    assert compare_accuracies(*candidates) == pytest.approx(2 * binom.cdf(8, 38, 0.5))
    assert compare_accuracies(candidates[0], candidates[0]) == 1.0


# Through load_target


@pytest.fixture
def weights(network, tmp_path):
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def test_priorities(weights, digits):
    def loaded(**options):
        return load_target("arch:simple-cnn", weights=weights, **options)

    auto = loaded(dataset=digits)  # nothing is stated, and labels are at hand
    assert auto.preprocessing.describe() == "normalised by mnist"
    assert any("chose mnist, which fits best" in note for note in auto.notes)
    assert auto.query_counter.total == 0  # looking for it is no adversary's query
    explicit = loaded(dataset=digits, normalize="half")
    assert explicit.preprocessing.describe() == "normalised by half"
    assert loaded(normalize="0.25/0.75", input_size=8).preprocessing.constants() == "0.25/0.75"
    bare = loaded(input_size=8)  # no labels to try on
    assert bare.preprocessing.mean == ()
    assert any("no normalisation is stated" in note for note in bare.notes)
    with pytest.raises(ConfigurationError, match="labelled images"):
        loaded(normalize="auto", input_size=8)
    with pytest.raises(ConfigurationError, match="3 channels"):
        loaded(dataset=digits, normalize="imagenet")
    with pytest.raises(ConfigurationError, match="not understood"):
        loaded(dataset=digits, normalize="imagnet")


@pytest.mark.real_data
@pytest.mark.slow
def test_a_public_checkpoint_is_normalised_as_it_was_trained(shared_data):
    dataset = _cifar10(shared_data / "cifar10-jpeg" / "test.parquet")
    weights = shared_data / "cifar10-resnets" / "resnet20-12fca82f.th"
    target = load_target("arch:cifar-resnet20", weights=weights, dataset=dataset, normalize="auto")
    assert target.preprocessing.describe() == "normalised by imagenet"
    assert target.head == "logits"
    correct = target.labels(dataset.images).numpy() == dataset.labels
    assert correct.mean() == pytest.approx(0.8103, abs=0.03)
    weights = shared_data / "cifar10-resnets" / "resnet32-d509ac18.th"
    target = load_target("arch:cifar-resnet32", weights=weights, dataset=dataset, normalize="imagenet")
    correct = target.labels(dataset.images).numpy() == dataset.labels
    assert correct.mean() == pytest.approx(0.8256, abs=0.03)


def _cifar10(path) -> ImageDataset:
    """Every ninth image of the test part; the file is sorted by class."""
    import pyarrow.parquet as pq
    from PIL import Image

    table = pq.read_table(path).take(np.arange(0, 10_000, 9))
    pictures = [np.asarray(Image.open(io.BytesIO(row["bytes"])).convert("RGB")) for row in table["image"].to_pylist()]
    images = torch.from_numpy(np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2)))
    labels = table["label"].to_numpy().astype(np.int64)
    part = {"test": np.arange(len(labels), dtype=np.int64)}
    return ImageDataset("cifar10-jpeg", images, labels, tuple("0123456789"), part)
