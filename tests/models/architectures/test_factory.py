"""The architectures: sizes that were published, independent implementations, and what the rest relies on."""

from __future__ import annotations

import io
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import nn
from torch.fx.experimental.optimization import fuse

from securitynet.devices import use_meta_device
from securitynet.errors import ModelError, UnknownName
from securitynet.models.architectures import ARCHITECTURES
from securitynet.models.architectures._common import initialise
from securitynet.models.architectures.cifar_resnet import PaddedShortcut
from securitynet.models.architectures.factory import build
from securitynet.models.architectures.wide_resnet import LARGEST_SMALL_IMAGE, WideBlock, WideResNet
from securitynet.torchvision_cure import import_torchvision

DATA = Path(__file__).parents[3].parent / "shared" / "data"
DEEPER = {"cifar-resnet32", "cifar-resnet44", "cifar-resnet56", "cifar-resnet110", "resnet34", "vgg19"}
SHAPES = [(1, 8), (1, 28), (3, 32), (3, 64)]  # (channels, image size)
LIGHT = [
    "simple-cnn",
    "tutorial-cnn",
    "cifar-resnet20",
    "resnet18",
    "vgg11",
    "alexnet",
    "xception",
]  # forward passes are affordable


def on_meta(name: str, num_classes: int = 10, channels: int = 3, image_size: int = 32) -> nn.Module:
    """The network without its numbers: shapes and counts come at once, however large it is."""
    with use_meta_device():
        return build(name, num_classes, channels, image_size)


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def ready(network: nn.Module, seed: int = 0) -> nn.Module:
    """In evaluation mode, with batch norms that do something: fresh ones are almost the identity."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.1, generator=generator)
    return network.eval()


def images(channels: int, size: int, n: int = 3) -> torch.Tensor:
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(1))


def copy_in_order(source: nn.Module, destination: nn.Module) -> None:
    """Copy weights between implementations that name them differently but list them in the same order."""
    values, keys = list(source.state_dict().values()), list(destination.state_dict())
    assert len(values) == len(keys)
    destination.load_state_dict(dict(zip(keys, values, strict=True)))


# --- sizes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "num_classes", "image_size", "expected"),
    [
        ("cifar-resnet20", 10, 32, 269_722),
        ("cifar-resnet32", 10, 32, 464_154),
        ("cifar-resnet44", 10, 32, 658_586),
        ("cifar-resnet56", 10, 32, 853_018),
        ("cifar-resnet110", 10, 32, 1_727_962),
        ("wrn-28-2", 10, 32, 1_467_610),
        ("wrn-28-10", 10, 32, 36_479_194),
        ("resnet18", 10, 32, 11_173_962),
        ("resnet34", 10, 32, 21_282_122),
        ("xception", 1000, 32, 22_855_952),
        ("wrn-50-2", 1000, 224, 68_883_240),
        ("wrn-50-2", 1000, 32, 68_883_240 - 3 * 64 * (7 * 7 - 3 * 3)),  # the smaller stem
    ],
)
def test_published_parameter_counts(name: str, num_classes: int, image_size: int, expected: int) -> None:
    assert count(on_meta(name, num_classes, image_size=image_size)) == expected


def test_worked_out_parameter_counts() -> None:
    def conv(width_in: int, width: int, kernel: int = 3) -> int:
        return width_in * width * kernel**2 + width

    def linear(width_in: int, width: int) -> int:
        return width_in * width + width

    simple = conv(1, 32) + conv(32, 64) + linear(64 * 7 * 7, 128) + linear(128, 10)
    assert count(on_meta("simple-cnn", 10, 1, 28)) == simple
    assert count(on_meta("tutorial-cnn")) == 62006  # as the tutorial's own network has

    convolutions = conv(3, 64, 5) + conv(64, 192, 5) + conv(192, 384) + conv(384, 256) + conv(256, 256)
    assert count(on_meta("alexnet")) == convolutions + linear(1024, 4096) + linear(4096, 4096) + linear(4096, 10)

    widths_11 = [3, 64, 128, 256, 256, 512, 512, 512, 512]
    widths_19 = [3, 64, 64, 128, 128, *[256] * 4, *[512] * 8]
    for name, widths in (("vgg11", widths_11), ("vgg19", widths_19)):
        # A batch norm adds two numbers to each channel.
        features = sum(conv(a, b) + 2 * b for a, b in pairwise(widths))
        assert count(on_meta(name)) == features + 2 * linear(512, 512) + linear(512, 10)


# --- what the rest of the package relies on --------------------------------------------------------------


@pytest.mark.parametrize("name", ARCHITECTURES.names())
def test_every_architecture_at_every_size(name: str) -> None:
    # A deeper network of a family starts and ends as its shallowest one does: one size will do.
    shapes = SHAPES[1:2] if name in DEEPER else SHAPES
    for channels, size in shapes:
        network, device = on_meta(name, 7, channels, size), "meta"
        if count(network) < 2_000_000:  # quicker to compute than torch is to work out the shapes of each layer
            network, device = build(name, 7, channels, size), "cpu"
        logits = network(torch.zeros(2, channels, size, size, device=device))
        assert logits.shape == (2, 7)
    logits.sum().backward()
    frozen = [parameter for parameter in network.parameters() if not parameter.requires_grad]
    assert len(frozen) == (7 if name.startswith("airbench") else 0)  # whitening, and scales of six batch norms
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None for parameter in trained)  # each one takes part


@pytest.mark.parametrize("name", ARCHITECTURES.names())
def test_every_architecture_ends_in_a_linear_layer_and_can_be_traced(name: str) -> None:
    network = on_meta(name, 7)
    linears = [module for module in network.modules() if isinstance(module, nn.Linear)]
    assert linears[-1].out_features == 7
    traced = torch.fx.symbolic_trace(network)
    output = next(node for node in traced.graph.nodes if node.op == "output").args[0]
    assert output.op == "call_module" and network.get_submodule(output.target) is linears[-1]


@pytest.mark.parametrize("name", LIGHT)
def test_forward_tracing_and_folding_give_the_same_logits(name: str) -> None:
    network = ready(build(name, 5, 1, 8))
    batch = images(1, 8)
    with torch.inference_mode():
        logits = network(batch)
        traced, folded = torch.fx.symbolic_trace(network)(batch), fuse(network)
        assert logits.isfinite().all() and logits.std(dim=0).min() > 0  # it looks at its input
        torch.testing.assert_close(traced, logits)
        torch.testing.assert_close(folded(batch), logits, rtol=1e-3, atol=1e-3)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())


def test_wide_resnet_folds_what_can_be_folded() -> None:
    network = ready(WideResNet(10, 1, 5))
    folded = fuse(network)
    batch = images(3, 32)
    with torch.inference_mode():
        torch.testing.assert_close(folded(batch), network(batch), rtol=1e-3, atol=1e-3)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert norms == 4  # bn1 of the three blocks and the last one come after a sum or a convolution that is used twice


@pytest.mark.parametrize("name", ["simple-cnn", "cifar-resnet20"])
@pytest.mark.parametrize(("channels", "size"), SHAPES)
def test_the_last_layers_input_is_the_embedding(name: str, channels: int, size: int) -> None:
    network = ready(build(name, 4, channels, size))
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    seen: list[torch.Tensor] = []
    last.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    with torch.inference_mode():
        logits = network(images(channels, size))
        torch.testing.assert_close(last(seen[0]), logits)
    assert seen[0].shape == (3, last.in_features)


@pytest.mark.parametrize(
    "name", [name for name in ARCHITECTURES if name not in ("simple-cnn", "tutorial-cnn", "wrn-50-2")]
)
def test_the_weights_do_not_depend_on_the_image_size(name: str) -> None:
    small, large = (on_meta(name, image_size=size).state_dict() for size in (8, 64))
    assert {key: value.shape for key, value in small.items()} == {key: value.shape for key, value in large.items()}


def test_initial_weights_follow_torchs_seed_and_keep_the_scale_of_the_signal() -> None:
    states = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        states.append(build("cifar-resnet20", 10).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["conv1.weight"], states[2]["conv1.weight"])

    depthwise = nn.Conv2d(256, 256, 3, groups=256)
    initialise(depthwise)
    assert depthwise.weight.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.1)
    assert depthwise.bias is not None and not depthwise.bias.any()


@pytest.mark.parametrize(("channels", "size"), SHAPES)
def test_alexnet_keeps_the_signal_without_batch_norm(channels: int, size: int) -> None:
    torch.manual_seed(0)
    network = build("alexnet", 10, channels, size).eval()
    grids: list[torch.Tensor] = []
    network.pool.register_forward_hook(lambda _module, inputs, _output: grids.append(inputs[0]))
    patterns = torch.rand(8, channels, 2, 2, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits = network(nn.functional.interpolate(patterns, size=size))
    assert min(grids[0].shape[2:]) >= 2  # never reduced below the grid, which leaves almost nothing of an 8×8 image
    assert logits.std(dim=0).mean() > 0.03


@pytest.mark.parametrize("name", ARCHITECTURES.names())
def test_arguments_that_allow_no_network_are_refused(name: str) -> None:
    with pytest.raises(ModelError, match=r"7×7 pixels are too small .* Resize them to 8×8"):
        build(name, 10, 3, 7)
    with pytest.raises(ModelError, match="1 classes"):
        build(name, 1)
    with pytest.raises(ModelError, match="0 channels"):
        build(name, 10, 0)


def test_wide_resnets_of_impossible_depth_and_unknown_names_are_refused() -> None:
    for depth in (4, 20):
        with pytest.raises(ModelError, match="6n \\+ 4"):
            WideResNet(depth, 1, 10)
    with pytest.raises(UnknownName, match="resnet18"):
        build("resnet-18", 10)


def test_listing_loads_no_torch() -> None:
    code = (
        "import sys, securitynet.models.architectures.factory as f;"
        "assert len(f.ARCHITECTURES) >= 14 and all(e.summary for e in f.ARCHITECTURES.entries.values());"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- the blocks, against the papers' words and independent implementations -------------------------------


def test_padded_shortcut_takes_every_second_pixel_and_adds_zero_channels_on_both_sides() -> None:
    features = torch.arange(2 * 3 * 3, dtype=torch.float32).reshape(1, 2, 3, 3) + 1
    out = PaddedShortcut(2, 4)(features)
    assert out.shape == (1, 4, 2, 2)
    assert not out[:, 0].any() and not out[:, 3].any()
    assert out[0, 1].tolist() == [[1, 3], [7, 9]]
    assert out[0, 2].tolist() == [[10, 12], [16, 18]]


def test_wide_block_shortcuts() -> None:
    same, wider = ready(WideBlock(4, 4, stride=1)), ready(WideBlock(4, 8, stride=2))
    features = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    for block in (same, wider):
        nn.init.zeros_(block.conv2.weight)  # leaves the shortcut alone
    with torch.inference_mode():
        assert torch.equal(same(features), features)
        torch.testing.assert_close(wider(features), wider.convShortcut(wider.bn1(features).relu()))


def test_resnet18_agrees_with_torchvision() -> None:
    other = import_torchvision("torchvision.models").resnet18(num_classes=6)
    other.conv1, other.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    ours = build("resnet18", 6)
    ours.load_state_dict(ready(other).state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(ours.eval()(images(3, 16)), other(images(3, 16)))


def test_vgg11_features_agree_with_torchvision() -> None:
    other = ready(import_torchvision("torchvision.models").vgg11_bn(init_weights=False).features)
    ours = build("vgg11", 6)
    ours.features.load_state_dict(other.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(ours.eval().features(images(3, 32)), other(images(3, 32)))


def test_wide_resnet_agrees_with_pytorchcv() -> None:
    from pytorchcv.models.wrn_cifar import get_wrn_cifar

    other = ready(get_wrn_cifar(num_classes=6, blocks=16, width_factor=2))
    ours = WideResNet(16, 2, 6)
    copy_in_order(other, ours)
    with torch.inference_mode():
        torch.testing.assert_close(ours.eval()(images(3, 32)), other(images(3, 32)))


def test_xception_agrees_with_timm() -> None:
    other = ready(import_torchvision("timm").create_model("legacy_xception", num_classes=6))
    ours = build("xception", 6)
    copy_in_order(other, ours)
    ours.conv1.stride, ours.conv1.padding, ours.conv2.padding = (
        (2, 2),
        (0, 0),
        (0, 0),
    )  # the stem for large images
    with torch.inference_mode():
        torch.testing.assert_close(ours.eval()(images(3, 71)), other(images(3, 71)), rtol=1e-3, atol=1e-4)


def test_wrn_50_2_is_torchvisions_above_small_images() -> None:
    with use_meta_device():
        other = import_torchvision("torchvision.models").wide_resnet50_2(num_classes=10).state_dict()
    large = on_meta("wrn-50-2", image_size=LARGEST_SMALL_IMAGE + 1)
    assert {key: value.shape for key, value in large.state_dict().items()} == {
        key: value.shape for key, value in other.items()
    }
    grey = on_meta("wrn-50-2", channels=1, image_size=224)
    assert grey(torch.empty(2, 1, 224, 224, device="meta")).shape == (2, 10)
    for size, side in ((LARGEST_SMALL_IMAGE, 64), (224, 56)):
        network = on_meta("wrn-50-2", image_size=size)
        shapes: list[torch.Size] = []
        network.layer1.register_forward_hook(lambda _m, inputs, _o, shapes=shapes: shapes.append(inputs[0].shape))
        network(torch.empty(2, 3, size, size, device="meta"))
        assert shapes == [(2, 64, side, side)]


# --- public checkpoints ----------------------------------------------------------------------------------


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "checkpoint", "accuracy"),
    [
        ("cifar-resnet20", "resnet20-12fca82f.th", 0.8103),
        ("cifar-resnet32", "resnet32-d509ac18.th", 0.8256),
    ],
)
def test_public_checkpoints_load_and_classify(name: str, checkpoint: str, accuracy: float) -> None:
    weights, table = DATA / "cifar10-resnets" / checkpoint, DATA / "cifar10-jpeg" / "test.parquet"
    if not weights.exists() or not table.exists():
        pytest.skip(f"{weights} or {table} is absent")
    state = torch.load(weights, map_location="cpu", weights_only=True)["state_dict"]
    network = build(name, 10)
    network.load_state_dict({key.removeprefix("module."): value for key, value in state.items()}, strict=True)
    network.eval()

    rows = pq.read_table(table).take(np.arange(0, 10_000, 20))  # 500 images, 50 of each class
    pixels = [np.asarray(Image.open(io.BytesIO(image["bytes"]))) for image in rows["image"].to_pylist()]
    batch = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.inference_mode():
        logits = network((batch - mean[:, None, None]) / deviation[:, None, None])
    correct = (logits.argmax(1) == torch.tensor(rows["label"].to_pylist())).double().mean().item()
    # Three standard errors of 500 draws; shortcuts padded on the wrong side fall far below.
    assert correct == pytest.approx(accuracy, abs=3 * (accuracy * (1 - accuracy) / 500) ** 0.5)
