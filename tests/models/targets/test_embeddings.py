"""What feeds the final classifier is found in networks of any form, and nothing is left behind in them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from securitynet.devices import use_meta_device
from securitynet.errors import ModelError
from securitynet.models.architectures.factory import build
from securitynet.models.targets.backends.module import ModuleBackend
from securitynet.models.targets.embeddings import choose_extractor, find_classifier
from securitynet.models.targets.optimise import prepare_network
from securitynet.models.targets.tracing import compute_inputs
from securitynet.torchvision_cure import import_torchvision

CLASSES = 5


def embed(network: nn.Module, images: torch.Tensor, layer: str | None = None) -> torch.Tensor:
    with torch.inference_mode():
        return choose_extractor(network, images, layer=layer)(network, images)


def ready(network: nn.Module) -> nn.Module:
    return network.eval().requires_grad_(False)


def pictures(count: int = 5, size: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def hooks_in(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules())


class Form(nn.Module):
    """Features of 12 values made from an image, and a head of any form on them."""

    def __init__(self, head):
        super().__init__()
        self.body = nn.Linear(192, 12)
        self.head = head

    def features(self, x):
        return torch.tanh(self.body(x.flatten(1)))

    def forward(self, x):
        return self.head(self.features(x))


class Weights(nn.Module):
    def __init__(self, *shape, how):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape))
        self.how = how

    def forward(self, x):
        return self.how(x, self.weight)


FORMS = {
    "linear": lambda: nn.Linear(12, CLASSES),
    "dropout and linear": lambda: nn.Sequential(nn.Dropout(0.5), nn.Linear(12, CLASSES)),
    "scaled and normalised after": lambda: nn.Sequential(nn.Linear(12, CLASSES), nn.BatchNorm1d(CLASSES)),
    "softmax after": lambda: nn.Sequential(nn.Linear(12, CLASSES), nn.ReLU(inplace=True), nn.Softmax(1)),
    "matrix": lambda: Weights(12, CLASSES, how=lambda x, w: x @ w),
    "transposed": lambda: Weights(CLASSES, 12, how=lambda x, w: (w @ x.t()).t()),
    "functional": lambda: Weights(CLASSES, 12, how=lambda x, w: functional.linear(x, functional.normalize(w))),
    "addmm": lambda: Weights(12, CLASSES, how=lambda x, w: torch.addmm(torch.zeros(CLASSES), x, w)),
    "einsum": lambda: Weights(CLASSES, 12, how=lambda x, w: torch.einsum("nd,kd->nk", x, w)),
    "prototypes": lambda: Weights(CLASSES, 12, how=lambda x, w: -torch.cdist(x, w)),
    "1x1 convolution": lambda: nn.Sequential(nn.Unflatten(1, (12, 1, 1)), nn.Conv2d(12, CLASSES, 1), nn.Flatten()),
    "written in place": lambda: Weights(
        CLASSES, 12, how=lambda x, w: torch.zeros(len(x), CLASSES).copy_(functional.linear(x, w)).add_(1)
    ),
    "written by parts": lambda: Weights(CLASSES, 12, how=_by_parts),
}


def _by_parts(x, w):
    scores = torch.empty(len(x), CLASSES)
    for number in range(CLASSES):
        scores[:, number] = x @ w[number]
    return scores


@pytest.mark.parametrize("form", FORMS)
def test_the_input_of_a_head_of_any_form_is_the_embedding(form):
    network, images = ready(Form(FORMS[form]())), pictures()
    before = set(vars(network.body)), hooks_in(network)
    torch.testing.assert_close(embed(network, images), network.features(images))
    assert (set(vars(network.body)), hooks_in(network)) == before


@pytest.mark.parametrize("count", [1, 2, 12, 17])
def test_any_number_of_images_also_that_of_the_features(count):
    network = ready(Form(FORMS["transposed"]()))
    extract = choose_extractor(network, pictures(4))
    images = pictures(count, seed=count)
    torch.testing.assert_close(extract(network, images), network.features(images))


def test_a_convolution_as_head_averages_its_positions():
    network = ready(nn.Sequential(nn.Conv2d(3, 7, 3), nn.ReLU(), nn.Conv2d(7, CLASSES, 1), nn.ReLU(), *_pool()))
    images = pictures()
    torch.testing.assert_close(embed(network, images), network[:2](images).mean(dim=(2, 3)))
    # One that covers the whole map is a linear layer of all its positions.
    whole = ready(nn.Sequential(nn.Conv2d(3, 7, 3, stride=2), nn.ReLU(), nn.Conv2d(7, CLASSES, 3), nn.Flatten()))
    torch.testing.assert_close(embed(whole, images), whole[:2](images).flatten(1))


def _pool():
    return nn.AdaptiveAvgPool2d(1), nn.Flatten()


class TwoHeads(nn.Module):
    """Two tokens of one transformer, each with a head (as distilled ones have), or two networks side by side."""

    def __init__(self, *, shared: bool, tokens_too: bool = False):
        super().__init__()
        self.trunk = nn.Linear(64, 6)
        self.other = nn.Linear(64, 6)
        self.heads = nn.ModuleList([nn.Linear(6, CLASSES), nn.Linear(6, CLASSES)])
        self.shared, self.tokens_too = shared, tokens_too

    def tokens(self, x):
        x = x.flatten(2)
        return [self.trunk(x)[:, 0], (self.trunk(x)[:, 1] if self.shared else self.other(x)[:, 1])]

    def forward(self, x):
        if self.tokens_too:
            rows = self.trunk(x.flatten(2))
            return self.heads[0](rows[:, 0]) + 0.5 * self.heads[1](rows[:, 1:]).max(1)[0]
        trunk = self.trunk(x.flatten(2))
        second = trunk[:, 1] if self.shared else self.other(x.flatten(2))[:, 1]
        return (self.heads[0](trunk[:, 0]) + self.heads[1](second)) / 2


def test_several_heads():
    images = pictures()
    one_space, apart, mixed = (
        ready(TwoHeads(**settings))
        for settings in ({"shared": True}, {"shared": False}, {"shared": True, "tokens_too": True})
    )
    torch.testing.assert_close(embed(one_space, images), torch.stack(one_space.tokens(images)).mean(0))
    torch.testing.assert_close(embed(apart, images), torch.cat(apart.tokens(images), dim=1))
    torch.testing.assert_close(embed(mixed, images), mixed.tokens(images)[0])  # a vector, and not the other tokens


def test_attention_after_the_classifier_is_passed():
    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.classifier = nn.Conv2d(3, 6, 3), nn.Conv2d(6, CLASSES, 1)

        def forward(self, x):
            scores = self.classifier(torch.relu(self.body(x))).flatten(2)
            return torch.matmul(scores, scores.softmax(2).transpose(1, 2)).diagonal(dim1=1, dim2=2)

    network, images = ready(Attending()), pictures()
    torch.testing.assert_close(embed(network, images), torch.relu(network.body(images)).mean(dim=(2, 3)))


def test_a_product_with_positions_is_pooling_and_no_classifier():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.classifier = nn.Linear(3, 6), nn.Linear(6, CLASSES)
            self.register_buffer("groups", torch.arange(64) // 16)

        def forward(self, x):
            scores = self.classifier(torch.relu(self.body(x.flatten(2).transpose(1, 2))))
            means = functional.one_hot(self.groups).float() / torch.full((1,), 16.0)
            return torch.matmul(means.t(), scores).mean(1)

    network, images = ready(Pooled()), pictures()
    expected = torch.relu(network.body(images.flatten(2).transpose(1, 2))).mean(1)
    torch.testing.assert_close(embed(network, images), expected)


def test_what_cannot_be_found_is_an_error_and_a_name_helps():
    class Pooling(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(64, 1, batch_first=True)

        def forward(self, x):
            x = x.flatten(2)
            return self.attention(x, x, x, need_weights=False)[0].mean(1)

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(192, 6), nn.Linear(6, 6)

        def forward(self, x):
            x = self.first(x.flatten(1))
            return x + self.second(torch.relu(x))

    opaque, nothing = ready(Pooling()), ready(nn.Sequential(nn.AvgPool2d(4), nn.Flatten()))
    with pytest.raises(ModelError, match="in one piece"):
        embed(opaque, pictures())
    assert embed(opaque, pictures(), "attention").shape == (5, 64)
    with pytest.raises(ModelError, match="no layer that computes class scores"):
        embed(nothing, pictures())
    with pytest.raises(ModelError, match="no layer that computes class scores"):
        embed(ready(Encoder()), pictures())


def test_a_network_that_changes_its_course_is_noticed():
    class Fickle(nn.Module):
        def __init__(self):
            super().__init__()
            self.long, self.head = nn.Linear(192, 192), nn.Linear(192, CLASSES)

        def forward(self, x):
            x = x.flatten(1)
            return self.head(self.long(x)) if x.mean() < 0.9 else self.head(x)

    network = ready(Fickle())
    extract = choose_extractor(network, pictures(), reference="fickle")
    with pytest.raises(ModelError, match="fickle takes another course"):
        extract(network, torch.ones(2, 3, 8, 8))


def test_layers_by_name():
    network, images = ready(build("simple-cnn", CLASSES, 3, 8)), pictures()
    *_, last = (name for name, module in network.named_modules() if isinstance(module, nn.Linear))
    found = embed(network, images)
    torch.testing.assert_close(embed(network, images, f"{last}:input"), found)
    torch.testing.assert_close(embed(network, images, last), network(images))
    assert hooks_in(network) == 0
    with pytest.raises(ModelError, match=r"no layer 'nowhere'"):
        embed(network, images, "nowhere")
    unused = nn.Sequential(nn.Flatten(), nn.Linear(192, CLASSES))
    unused.add_module("spare", nn.Identity())
    unused.forward = lambda x: unused[1](unused[0](x))
    with pytest.raises(ModelError, match="does not use its layer 'spare'"):
        embed(ready(unused), images, "spare")


def test_blocks_are_found_by_name_also_where_batch_norms_were_folded():
    torch.manual_seed(0)
    network = ready(build("cifar-resnet20", CLASSES, 3, 16))
    images = pictures(4, 16)
    folded = prepare_network(network, torch.device("cpu"), torch.zeros(1, 3, 16, 16)).module
    assert isinstance(folded, torch.fx.GraphModule)
    blocks = [name for name, module in network.named_children() if len(list(module.children()))]
    for layer in (None, *blocks, f"{blocks[-1]}:input", f"{blocks[1]}.0"):
        torch.testing.assert_close(embed(folded, images, layer), embed(network, images, layer), rtol=1e-3, atol=1e-4)
    assert embed(folded, images, blocks[-1]).shape[1] == embed(folded, images).shape[1]
    backend = ModuleBackend(network, reference="r", checksum="c", example_shape=(3, 16, 16), batch_size=2)
    torch.testing.assert_close(
        backend.embeddings(images, blocks[1]), embed(network, images, blocks[1]), rtol=1e-3, atol=1e-4
    )
    torch.testing.assert_close(backend.embeddings(images), embed(network, images), rtol=1e-3, atol=1e-4)


def test_transformers_with_channels_last_maps():
    timm = import_torchvision("timm")
    network = ready(
        timm.create_model(
            "swin_tiny_patch4_window7_224",
            num_classes=CLASSES,
            depths=(1, 1, 1, 1),
            embed_dim=12,
            num_heads=(1, 1, 1, 1),
            img_size=64,
        )
    )
    with torch.inference_mode():
        assert embed(network, pictures(2, 64), "layers.3").shape == (2, network.num_features)
        expected = network.forward_head(network.forward_features(pictures(2, 64)), pre_logits=True)
        torch.testing.assert_close(embed(network, pictures(2, 64)), expected)


TIMM = {
    "resnet18": "fc",
    "vgg11": "head.fc",
    "vit_tiny_patch16_224": "head",
    "deit_tiny_distilled_patch16_224": "head",
    "crossvit_tiny_240": "head.0",
    "levit_128s": "head.linear",
    "dla34": "fc",
    "mixer_s32_224": "head",
    "convnext_atto": "head.fc",
    "densenet121": "classifier",
    "inception_v3": "fc",
    "volo_d1_224": "head",
    "mobilenetv3_small_050": "classifier",
    "maxvit_nano_rw_256": "head.fc",
    "xcit_nano_12_p16_224": "head",
    "repvit_m0_9": "head.head.l",
}


@pytest.mark.parametrize("name", TIMM)
def test_timm_architectures(name):
    """On the meta device: shapes alone, at no cost."""
    timm = import_torchvision("timm")
    with use_meta_device():
        network = ready(timm.create_model(name, num_classes=CLASSES))
    images = torch.empty(4, *network.pretrained_cfg["input_size"], device="meta")
    traced = find_classifier(network, images)
    assert traced.weights[0] == f"{TIMM[name]}.weight"
    assert compute_inputs(network, images, traced).shape == (4, network.head_hidden_size)
    assert hooks_in(network) == 0


TORCHVISION = {
    "alexnet": ("classifier.6", 4096),
    "vgg11_bn": ("classifier.6", 4096),
    "squeezenet1_1": ("classifier.1", 512),
    "googlenet": ("fc", 1024),
    "inception_v3": ("fc", 2048),
    "mobilenet_v3_small": ("classifier.3", 1024),
    "efficientnet_b0": ("classifier.1", 1280),
    "vit_b_32": ("heads.head", 768),
    "swin_v2_t": ("head", 768),
    "maxvit_t": ("classifier.5", 512),
    "shufflenet_v2_x0_5": ("fc", 1024),
    "mnasnet0_5": ("classifier.1", 1280),
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_architectures(name):
    models = import_torchvision("torchvision.models")
    arguments = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with use_meta_device():
        network = ready(models.get_model(name, weights=None, num_classes=CLASSES, **arguments))
    images = torch.empty(3, 3, *(2 * [299 if name == "inception_v3" else 224]), device="meta")
    layer, width = TORCHVISION[name]
    traced = find_classifier(network, images)
    assert traced.weights[0] == f"{layer}.weight"
    assert compute_inputs(network, images, traced).shape == (3, width)


def test_values_are_those_before_the_classifier_of_a_real_network():
    models = import_torchvision("torchvision.models")
    network, images = ready(models.squeezenet1_1(num_classes=CLASSES)), pictures(2, 64)
    torch.testing.assert_close(embed(network, images), network.features(images).mean(dim=(2, 3)))
