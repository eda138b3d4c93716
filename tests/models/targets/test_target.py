"""Access, the query counter, checks of images and outputs, heads, folding and precision."""

import numpy as np
import pytest
import torch
from torch import nn

from securitynet.errors import AccessDenied, ConfigurationError, ModelError, QueryBudgetExceeded, TargetError
from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.targets import heads
from securitynet.models.targets.backends.base import Backend
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.optimise import prepare_network
from securitynet.models.targets.query_count import QueryCounter, compute_image_keys
from securitynet.models.targets.target import Target
from securitynet.records import Access

CLASSES = 5


class Net(nn.Module):
    """Small, with batch norms whose statistics are not the initial ones."""

    def __init__(self, channels=3, last=None):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.conv = nn.Conv2d(channels, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, stride=2)
        self.bn2 = nn.BatchNorm2d(8)
        self.linear = nn.Linear(8, CLASSES)
        self.last = last
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)
        for bn in (self.bn, self.bn2):
            bn.running_mean = torch.randn(8, generator=generator)
            bn.running_var = torch.rand(8, generator=generator) + 0.5

    def forward(self, x):
        x = self.bn2(self.conv2(self.bn(self.conv(x)).relu())).relu().mean(dim=(2, 3))
        x = self.linear(x)
        return x if self.last is None else self.last(x)


def target_of(net, *, shape=(3, 8, 8), precision="fp32", **options):
    backend = ModuleBackend(net, reference="net", checksum="0", example_shape=shape, precision=precision)
    return Target(backend, precision=precision, **options)


@pytest.fixture
def images():
    return torch.randint(0, 256, (12, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


# Access


def test_black_box_gives_outputs_only(images):
    target = target_of(Net())
    assert target.logits(images).shape == target.posteriors(images).shape == (12, CLASSES)
    with pytest.raises(AccessDenied, match="white-box"):
        _ = target.module
    with pytest.raises(AccessDenied, match="embeddings"):
        target.embeddings(images)


def test_views_can_only_narrow(images):
    white = target_of(Net(), access=Access.WHITE_BOX)
    black = white.under(Access.BLACK_BOX)
    with pytest.raises(AccessDenied):
        _ = black.module
    with pytest.raises(AccessDenied, match="widened"):
        black.under(Access.WHITE_BOX)
    black.logits(images)
    assert white.query_counter.unique == 12, "views share one query counter"
    assert white.under(Access.WHITE_BOX).embeddings(images).shape == (12, 8)


def test_white_box_without_a_network_is_denied():
    class Answers(Backend):
        reference, checksum = "answers", "0"

        def outputs(self, inputs):
            return torch.zeros(len(inputs), CLASSES)

    target = Target(Answers(), access=Access.WHITE_BOX)
    with pytest.raises(AccessDenied, match="no network"):
        _ = target.module
    with pytest.raises(AccessDenied):
        target.embeddings(torch.zeros(1, 3, 8, 8))


def test_module_maps_images_to_logits_with_gradients(images):
    preprocessing = Preprocessing(mean=(0.5,), std=(0.25,))
    target = target_of(
        Net(last=nn.Softmax(1)), head="probabilities", preprocessing=preprocessing, access=Access.WHITE_BOX
    )
    pixels = (images.float() / 255).requires_grad_()
    logits = target.module(pixels)
    assert torch.allclose(logits.softmax(1), target.posteriors(images), atol=1e-5)
    nn.functional.cross_entropy(logits, torch.zeros(12, dtype=torch.int64)).backward()
    assert pixels.grad.abs().max() > 0
    assert all(p.grad is None and not p.requires_grad for p in target.module.parameters())


# Ledger


def test_query_counter_counts_total_and_unique(images):
    target = target_of(Net())
    target.logits(images)
    target.labels(images[:4].float() / 255)
    target.posteriors(torch.cat([images[:2], images[:2]]))
    assert target.query_counter.snapshot().model_dump() == {"total": 20, "unique": 12}


def test_keys_of_bytes_and_floats_agree():
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert (
        compute_image_keys(images)
        == compute_image_keys(images.float() / 255)
        == compute_image_keys(images.double() / 255)
    )
    moved = images.float() / 255
    moved[0, 0, 0, 0] += 1e-3
    assert compute_image_keys(moved) != compute_image_keys(images)
    assert compute_image_keys(images) != compute_image_keys(images.reshape(1, 1, 8, 32)), "the shape is part of the key"
    outside = torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1, 1)
    assert len(set(compute_image_keys(outside))) == 3, "values beyond 1 are not folded into one"
    images = images.repeat(3, 1, 1, 1)
    nearly = images.float() / 255
    nearly[1].view(-1)[1] += 0.3 / 255  # not among the values that are looked at first in larger images
    large = nearly.repeat(1, 1, 12, 12)
    mixed, plain = compute_image_keys(large), compute_image_keys(images.repeat(1, 1, 12, 12))
    assert [a == b for a, b in zip(mixed, plain, strict=True)] == [row != 1 for row in range(len(images))]


def test_cap_is_never_overrun_and_nothing_is_sent(images):
    calls = []
    net = Net()
    net.register_forward_hook(lambda *_: calls.append(1))
    target = target_of(net, query_counter=QueryCounter(cap=6), shape=None)
    target.logits(images[:5])
    before = len(calls)
    with pytest.raises(QueryBudgetExceeded, match="cap of 6"):
        target.logits(images[3:8])
    assert len(calls) == before
    assert target.query_counter.snapshot().model_dump() == {"total": 5, "unique": 5}
    target.logits(images[:6])
    target.logits(images[:6])
    assert target.query_counter.unique == 6


# Checks


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (torch.zeros(2, 1, 8, 8), "takes colour images"),
        (torch.zeros(3, 8, 8), "N×C×H×W"),
        (torch.full((1, 3, 8, 8), 2.0), r"range from 2 to 2"),
        (torch.full((1, 3, 8, 8), -0.5), r"\[0, 1\]"),
        (torch.full((1, 3, 8, 8), torch.nan), r"\[0, 1\]"),
        (torch.zeros((1, 3, 8, 8), dtype=torch.int64), "int64"),
        (torch.zeros(1, 3, 2, 2), "--input-size"),
    ],
)
def test_images_that_do_not_suit(bad, words):
    target = target_of(Net(), shape=(3, 8, 8))
    with pytest.raises(TargetError, match=words):
        target.logits(bad)


def test_grey_images_are_not_turned_into_colour_by_three_means():
    target = target_of(Net(channels=1), shape=(1, 8, 8), preprocessing=Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3))
    with pytest.raises(ConfigurationError, match="3 means"):
        target.logits(torch.zeros(1, 1, 8, 8))


def test_wrong_example_shape_is_reported_at_the_first_batch():
    target = target_of(Net(channels=3), shape=(1, 8, 8))
    with pytest.raises(TargetError, match="takes colour"):
        target.logits(torch.zeros(1, 1, 8, 8))


def test_double_and_half_images_are_taken(images):
    target = target_of(Net())
    expected = target.logits(images)
    assert torch.allclose(target.logits(images.double() / 255), expected, atol=1e-4)
    assert target.logits(images.half() / 255).dtype == torch.float32


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_outputs_that_are_not_finite(images, value):
    net = Net()
    net.linear.bias.data[2] = value
    with pytest.raises(TargetError, match="not finite for 12 of 12"):
        target_of(net).logits(images)


def test_outputs_of_another_shape(images):
    class Maps(nn.Module):
        def forward(self, x):
            return x

    with pytest.raises(TargetError, match="one row of class scores"):
        target_of(Maps(), shape=None).logits(images)


def test_outputs_can_serve_as_training_data(images):
    target = target_of(Net(), access=Access.WHITE_BOX)
    for data in (target.raw_outputs(images), target.embeddings(images)):
        layer = nn.Linear(data.shape[1], 2)
        layer(data).sum().backward()
        assert layer.weight.grad.abs().sum() > 0


def test_embeddings_are_what_the_layer_called_last_receives(images):
    class Reversed(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(6, CLASSES)
            self.hidden = nn.Linear(192, 6)

        def forward(self, x):
            return self.head(self.hidden(x.flatten(1)))

    net = Reversed()
    embeddings = target_of(net, access=Access.WHITE_BOX, shape=None).embeddings(images)
    assert torch.allclose(embeddings, net.hidden((images.float() / 255).flatten(1)), atol=1e-5)
    nothing = target_of(nn.Sequential(nn.AvgPool2d(8), nn.Flatten()), access=Access.WHITE_BOX)
    with pytest.raises(ModelError, match="no layer that computes class scores"):
        nothing.embeddings(images)


# Heads


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_heads_are_detected_and_agree(dtype, classes):
    logits = torch.randn(64, classes, generator=torch.Generator().manual_seed(0)) * 3
    logits[0] = 0  # all classes alike: rounding then goes the same way for all
    emitted = {
        "logits": logits,
        "log-probabilities": logits.to(dtype).log_softmax(1),
        "probabilities": logits.to(dtype).softmax(1),
    }
    for head, outputs in emitted.items():
        assert heads.detect(outputs.float()) == head
        posteriors = heads.to_posteriors(outputs.float(), head)
        assert posteriors.dtype == torch.float32
        assert torch.allclose(posteriors.sum(1), torch.ones(64), atol=1e-5)
        assert torch.allclose(posteriors, logits.softmax(1), atol=0.02)
        assert torch.allclose(heads.to_logits(outputs.float(), head).softmax(1), posteriors, atol=1e-6)


def test_heads_at_extreme_values():
    certain = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert heads.detect(certain) == "probabilities"
    assert heads.detect(certain.log()) == "log-probabilities"
    for head, outputs in (("probabilities", certain), ("log-probabilities", certain.log())):
        logits = heads.to_logits(outputs, head)
        assert torch.isfinite(logits).all()
        assert torch.isfinite(logits[:, :1] - logits).all(), "differences stay finite"
        assert torch.allclose(heads.to_posteriors(outputs, head), certain)
    huge = torch.tensor([[3e38, -3e38, 0.0], [200.0, 100.0, 0.0]])
    assert heads.detect(huge) == "logits"
    assert torch.allclose(heads.to_posteriors(huge, "logits"), torch.tensor([[1.0, 0, 0], [1.0, 0, 0]]))


@pytest.mark.parametrize(("unit", "rounded"), [(100, False), (100, True), (1000, True), (255, False), (256, False)])
def test_percentages_are_probabilities(unit, rounded):
    """An endpoint that answers in percent: as logits, they would make every posterior 0 or 1."""
    posteriors = torch.randn(30, 5, generator=torch.Generator().manual_seed(0)).mul(2).softmax(1)
    outputs = (unit * posteriors).round() if rounded else unit * posteriors
    assert heads.detect(outputs) == "probabilities" and heads.find_row_total(outputs) == pytest.approx(unit, rel=1e-6)
    assert torch.allclose(heads.to_posteriors(outputs, "probabilities"), posteriors, atol=0.02)
    kept = outputs.clamp_min(0.01)  # rounded to 0, logits say nothing
    assert torch.allclose(heads.to_logits(kept, "probabilities").softmax(1), posteriors, atol=0.02)


def test_scores_that_sum_to_nothing_in_particular_are_no_percentages():
    generator = torch.Generator().manual_seed(0)
    for outputs in (40 * torch.rand(30, 5, generator=generator), torch.full((30, 5), 7.3)):
        assert heads.find_row_total(outputs) is None and heads.detect(outputs) == "logits"
    signed = torch.tensor([[110.0, -10.0], [30.0, 70.0]])
    assert heads.detect(signed) == "logits", "negative values are no percentages"


def test_trained_looking_logits_are_not_taken_for_probabilities():
    logits = torch.rand(32, 10, generator=torch.Generator().manual_seed(0))
    assert heads.detect(logits) == "logits"
    assert heads.detect(-logits) == "logits"
    mixed = torch.cat([torch.full((1, 4), 0.25), torch.tensor([[0.9, 0.9, 0.1, 0.1]])])
    assert heads.detect(mixed) == "logits", "one row that sums to something else decides"


def _votes(posteriors, voters=7):
    drawn = torch.multinomial(posteriors, voters, replacement=True, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.one_hot(drawn, posteriors.shape[1]).sum(1).float()


@pytest.mark.parametrize("count", [8, 256])
@pytest.mark.parametrize(
    "scaled",
    [
        lambda p: 100 * p,
        lambda p: (1000 * p).half().float(),
        lambda p: (100 * p).round(),
        lambda p: (1000 * p).round() / 10,
        lambda p: (255 * p).round(),
        lambda p: 2 * p,
        _votes,
    ],
    ids=["percent", "per mille", "whole percent", "one decimal", "bytes", "sum of two", "votes"],
)
def test_probabilities_up_to_a_scale(scaled, count):
    logits = torch.randn(count, 10, generator=torch.Generator().manual_seed(0)) * 3
    outputs = scaled(logits.softmax(1))
    assert heads.detect(outputs) == "probabilities"
    expected = outputs / outputs.sum(1, keepdim=True)
    torch.testing.assert_close(heads.to_posteriors(outputs, "probabilities"), expected)
    torch.testing.assert_close(heads.to_logits(outputs, "probabilities").softmax(1), expected)


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("count", [8, 256])
@pytest.mark.parametrize("spread", [0.01, 1.0, 10.0], ids=lambda spread: f"spread {spread}")
def test_logits_that_are_never_negative_stay_logits(classes, count, spread):
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        logits = spread * torch.randn(count, classes, generator=generator)
        shared = spread * torch.randn(count, 1, generator=generator)
        for outputs in (logits.relu(), logits - logits.min(), (5 + logits).relu(), (5 + shared + 0.1 * logits).relu()):
            assert heads.detect(outputs) == "logits"
    constant = torch.rand(1, classes, generator=generator).expand(count, classes) * 40
    assert heads.detect(constant) == "logits", "outputs alike for all images show nothing"


def test_small_logits_are_no_sigmoids():
    logits = 0.4 + 0.2 * torch.rand(200, 4, generator=torch.Generator().manual_seed(0))
    assert not heads.looks_like_sigmoid(logits)
    assert not heads.looks_like_sigmoid(logits - 0.5)
    assert heads.looks_like_sigmoid((20 * (logits - 0.5) * 2).sigmoid())


def test_rows_without_any_probability_are_refused():
    with pytest.raises(TargetError, match="not probabilities"):
        heads.to_posteriors(torch.tensor([[0.2, 0.8], [0.0, 0.0]]), "probabilities")
    with pytest.raises(TargetError, match="1 of 2"):
        heads.detect(torch.tensor([[0.2, 0.8], [-torch.inf, -torch.inf]]))


# Speed that changes nothing


def test_folding_keeps_the_outputs_and_removes_the_batch_norms(images):
    net = Net().eval()
    inputs = images.float() / 255
    folded = prepare_network(net, torch.device("cpu"), torch.zeros(1, 3, 8, 8)).module
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in net.modules()), "the original is left as it is"
    with torch.no_grad():
        expected = net(inputs)
        assert torch.allclose(folded(inputs), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_a_fold_that_would_change_outputs_is_not_used(images):
    class Tapped(nn.Module):
        """The batch norm follows the convolution, but its input is used too: folding would change that."""

        def __init__(self):
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, CLASSES, 3), nn.BatchNorm2d(CLASSES)
            self.bn.running_mean += 3

        def forward(self, x):
            x = self.conv(x)
            return (x * self.bn(x)).mean(dim=(2, 3))

    net = Tapped().eval()
    with torch.no_grad():
        expected = net(images.float() / 255)
    assert torch.allclose(target_of(net).raw_outputs(images), expected, atol=1e-4)


def test_networks_that_cannot_be_traced_run_unfolded(images):
    class Branching(Net):
        def forward(self, x):
            return super().forward(x) if x.sum() > 0 else super().forward(-x)

    net = Branching().eval()
    with torch.no_grad():
        expected = net(images.float() / 255)
    assert torch.allclose(target_of(net).raw_outputs(images), expected, rtol=1e-4, atol=1e-4)


def test_bf16_is_close_and_part_of_the_target(images):
    exact, fast = target_of(Net()), target_of(Net(), precision="bf16")
    expected, outputs = exact.logits(images), fast.logits(images)
    assert outputs.dtype == torch.float32
    assert not torch.equal(expected, outputs), "bf16 was really used"
    assert (outputs - expected).abs().max() <= 0.03 * expected.abs().max()
    assert fast.precision == "bf16"


# Preprocessing


def test_preprocessing_is_the_same_for_bytes_and_floats_and_for_any_batch(images):
    for preprocessing in (
        Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        Preprocessing(mean=(0.5,), std=(0.5,), input_size=(11, 13), crop_share=0.8, interpolation="bicubic"),
    ):
        whole = preprocessing(images)
        assert whole.dtype == torch.float32
        assert torch.equal(whole, preprocessing(images.float() / 255))
        assert torch.equal(whole, torch.cat([preprocessing(image[None]) for image in images]))
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    by_hand = (images.numpy() / 255 - mean[:, None, None]) / std[:, None, None]
    ours = Preprocessing(mean=tuple(mean), std=tuple(std))(images).numpy()
    np.testing.assert_allclose(ours, by_hand, atol=1e-5)


def test_a_network_that_flattens_with_view_keeps_the_usual_layout():
    # Channels-last feature maps larger than one pixel can't be flattened with `view`, as many small public models do.
    class Flattening(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 4, 3)
            self.classifier = torch.nn.Linear(4 * 6 * 6, 5)

        def forward(self, x):
            x = self.conv(x)
            return self.classifier(x.view(x.shape[0], -1))

    network = Flattening().eval()
    backend = ModuleBackend(network, reference="arch:x", checksum="x", example_shape=(3, 8, 8))
    images = torch.rand(3, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(backend.outputs(images), network(images))
