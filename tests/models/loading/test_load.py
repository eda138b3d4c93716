"""`load_target`: our own architectures, the user's factories, artefacts, heads, access, and the errors."""

import os
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from securitynet.datasets.base import ImageDataset
from securitynet.errors import (
    AccessDenied,
    ConfigurationError,
    ModelError,
    SecurityNetError,
    TargetError,
    UnknownName,
    UnsafeFile,
    WeightsMismatch,
)
from securitynet.models.architectures.factory import build
from securitynet.models.loading.load import load_target
from securitynet.models.sources.weights import state_checksum
from securitynet.records import Access

CLASSES = 4


def dataset_of(classes=CLASSES, channels=3, size=16, count=40):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, channels, size, size), generator=generator, dtype=torch.uint8)
    labels = np.arange(count, dtype=np.int64) % classes
    halves = {"train": np.arange(count // 2), "test": np.arange(count // 2, count)}
    return ImageDataset("noise", images, labels, tuple(f"class {i}" for i in range(classes)), halves)


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = build("cifar-resnet20", CLASSES)
        net.train()
        net(torch.rand(32, 3, 16, 16))  # running statistics that are not the initial ones
    return net.eval()


@pytest.fixture
def weights(network, tmp_path):
    torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, tmp_path / "w.th")
    return tmp_path / "w.th"


def test_a_checkpoint_of_our_own_architecture(network, weights):
    dataset = dataset_of()
    target = load_target("arch:cifar-resnet20", weights=weights, dataset=dataset, normalize="imagenet", device="cpu")
    assert target.reference == "arch:cifar-resnet20"
    assert (target.num_classes, target.head, target.access) == (CLASSES, "logits", Access.WHITE_BOX)
    assert target.backend.checksum == state_checksum(network.state_dict(), "cifar-resnet20")
    assert target.query_counter.total == 0  # detecting the head is no adversary's query
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.inference_mode():
        expected = network((dataset.images.float() / 255 - mean) / std)
    torch.testing.assert_close(target.logits(dataset.images), expected, rtol=1e-3, atol=1e-4)
    assert target.query_counter.total == 40


def test_the_same_weights_in_another_file_are_the_same_model(network, weights, tmp_path):
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    first, second = (
        load_target("arch:cifar-resnet20", weights=path, normalize="half")
        for path in (weights, tmp_path / "w.safetensors")
    )
    assert first.identity == second.identity


def test_access_device_precision_and_batch_size(weights):
    load = lambda **options: load_target("arch:cifar-resnet20", weights=weights, normalize="none", **options)  # noqa: E731
    assert load(access=Access.BLACK_BOX).access is Access.BLACK_BOX
    assert load(batch_size=7).batch_size % 7 == 0  # several forward passes of 7 images, one a core
    half = load(precision="bf16")
    assert half.backend.precision == half.precision == "bf16"
    assert load(max_queries=3).query_counter.cap == 3
    if not torch.cuda.is_available():
        assert load(device="auto").backend.device == torch.device("cpu")
    for options in (
        {"device": "cuda:99"},
        {"device": "gpu"},
        {"precision": "int8"},
        {"head": "softmax"},
        {"batch_size": 0},
        {"input_size": -1},
    ):
        with pytest.raises(ConfigurationError):
            load(**options)


# One clear error for each trap


def errors(expected, *words, **options):
    options = {"reference": "arch:cifar-resnet20", "normalize": "none", **options}
    with pytest.raises(expected) as caught:
        load_target(options.pop("reference"), **options)
    for word in words:
        assert word in str(caught.value)
    return str(caught.value)


def test_a_malicious_checkpoint_does_not_run(network, tmp_path):
    class Malicious:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'executed'}",)

    torch.save({"state_dict": network.state_dict(), "hook": Malicious()}, tmp_path / "w.pth")
    errors(UnsafeFile, "system", "execute code", weights=tmp_path / "w.pth", dataset=dataset_of())
    assert not (tmp_path / "executed").exists()


def test_files_that_cannot_be_read(weights, tmp_path):
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    errors(ModelError, "damaged or cut short", weights=weights)
    errors(ModelError, "There is no file", weights=tmp_path / "absent.th")
    errors(ModelError, f"Write --weights {tmp_path}/absent.th", weights=f"file://{tmp_path}/absent.th")
    errors(ModelError, "is a folder", "w.th", weights=tmp_path)
    errors(ModelError, "has no weights of its own", "--weights")


def test_the_wrong_architecture(weights):
    text = errors(WeightsMismatch, "missing", reference="arch:cifar-resnet32", weights=weights)
    assert "They fit arch:cifar-resnet20" in text
    errors(WeightsMismatch, "They fit arch:cifar-resnet20", reference="arch:vgg11", weights=weights)
    with pytest.raises(UnknownName, match="cifar-resnet20"):
        load_target("arch:cifar-resnet21", weights=weights)


def test_the_wrong_class_count(weights):
    errors(WeightsMismatch, "4 classes", "has 7", weights=weights, dataset=dataset_of(7))
    errors(WeightsMismatch, "4 classes", "says 10", weights=weights, num_classes=10)
    assert load_target("arch:cifar-resnet20", weights=weights, num_classes=CLASSES).num_classes == CLASSES


def test_grey_images_for_a_colour_model(weights):
    errors(TargetError, "colour", "grey", "--channels 3", weights=weights, dataset=dataset_of(channels=1))


def test_nan_in_weights_and_in_outputs(network, tmp_path):
    state = {key: value.clone() for key, value in network.state_dict().items()}
    state["linear.bias"][0] = torch.nan
    save_file(state, tmp_path / "nan.safetensors")
    errors(ModelError, "NaN", "linear.bias", weights=tmp_path / "nan.safetensors", dataset=dataset_of())
    state["linear.bias"][0] = 0
    state["bn1.running_var"] -= 100  # finite, but its square root is not
    save_file(state, tmp_path / "bad.safetensors")
    errors(TargetError, "not finite", weights=tmp_path / "bad.safetensors", dataset=dataset_of())
    errors(TargetError, "not finite", weights=tmp_path / "bad.safetensors")


def test_images_of_a_size_that_the_network_does_not_take(tmp_path):
    state = build("simple-cnn", CLASSES, channels=3, image_size=16).state_dict()
    save_file(state, tmp_path / "w.safetensors")
    load = {"reference": "arch:simple-cnn", "weights": tmp_path / "w.safetensors"}
    errors(WeightsMismatch, "--input-size 16", dataset=dataset_of(size=32), **load)
    target = load_target("arch:simple-cnn", weights=load["weights"], dataset=dataset_of(size=32), input_size=16)
    assert target.logits(dataset_of(size=32).images).shape == (40, CLASSES)


# Heads


class Soft(nn.Module):
    def __init__(self, last):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.fc = nn.Linear(8, CLASSES)
        self.last = last

    def forward(self, x):
        return self.last(self.fc(self.conv(x).relu().mean((2, 3))) * 3)


FACTORY = """
import torch
from torch import nn
from {helper} import LAST

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.fc = nn.Linear(8, num_classes)

    def forward(self, x):
        return LAST(self.fc(self.conv(x).relu().mean((2, 3))) * 3)

def make(num_classes):
    return Net(num_classes)
"""


def factory(folder, last):
    # A module beside it, as users' code has; under its own name, because Python keeps modules by name.
    helper = f"helper_{folder.name.replace('-', '_')}_{abs(hash(last))}"
    (folder / f"{helper}.py").write_text(f"from torch import nn\nLAST = {last}\n")
    (folder / "net.py").write_text(FACTORY.format(helper=helper))
    return f"python:{folder / 'net.py'}:make"


@pytest.mark.parametrize(
    ("last", "head"),
    [
        ("nn.Identity()", "logits"),
        ("nn.LogSoftmax(dim=1)", "log-probabilities"),
        ("nn.Softmax(dim=1)", "probabilities"),
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_head_is_detected_and_right_afterwards(tmp_path, last, head, precision):
    torch.manual_seed(0)  # logits of few classes may look like probabilities by chance
    net = Soft(nn.Identity())
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    reference, images = factory(tmp_path, last), dataset_of().images
    for dataset in (dataset_of(), None):
        target = load_target(
            reference, weights=tmp_path / "w.safetensors", dataset=dataset, normalize="none", precision=precision
        )
        assert target.head == head
        assert target.num_classes == CLASSES
        assert any(head in note for note in target.notes) == (head != "logits")
        with torch.inference_mode():
            expected = net(images.float() / 255).softmax(dim=1)
        tolerance = 1e-5 if precision == "fp32" else 2e-2
        torch.testing.assert_close(target.posteriors(images), expected, rtol=tolerance, atol=tolerance)
    forced = load_target(reference, weights=tmp_path / "w.safetensors", head="logits", normalize="none")
    assert forced.head == "logits"
    assert any("--head says logits" in note for note in forced.notes) == (head == "probabilities")
    claimed = load_target(reference, weights=tmp_path / "w.safetensors", head="probabilities", normalize="none")
    assert claimed.head == "probabilities"
    assert any("--head says probabilities" in note for note in claimed.notes) == (head != "probabilities")


@pytest.mark.parametrize("head", [None, "probabilities"])
@pytest.mark.parametrize("dataset", [dataset_of(), None], ids=["images", "no images"])
def test_posteriors_in_percent(dataset, head):
    torch.manual_seed(0)
    net = Soft(nn.Identity()).eval()
    images = dataset_of().images

    def ask(batch):
        return 100 * net(batch).softmax(dim=1)

    target = load_target(ask, dataset=dataset, normalize="none", head=head, input_size=16)
    assert target.head == "probabilities"
    assert any("sum to 100" in note for note in target.notes)
    with torch.inference_mode():
        torch.testing.assert_close(target.posteriors(images), net(images.float() / 255).softmax(dim=1))


def test_percentages_are_noticed(tmp_path):
    torch.manual_seed(0)
    net = Soft(nn.Identity())
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    last = "nn.Sequential(nn.Softmax(dim=1), nn.Hardtanh(0, 1), type('Percent', (nn.Module,), "
    last += "{'forward': lambda self, x: 100 * x})())"
    images = dataset_of().images
    reference, weights = factory(tmp_path, last), tmp_path / "w.safetensors"
    target = load_target(reference, weights=weights, dataset=dataset_of(), normalize="none")
    assert target.head == "probabilities" and any("sum to 100" in note for note in target.notes)
    with torch.inference_mode():
        expected = net(images.float() / 255).softmax(dim=1)
    torch.testing.assert_close(target.posteriors(images), expected, rtol=1e-5, atol=1e-5)


def test_a_sigmoid_is_noticed(tmp_path):
    save_file(Soft(nn.Identity()).state_dict(), tmp_path / "w.safetensors")
    target = load_target(factory(tmp_path, "nn.Sigmoid()"), weights=tmp_path / "w.safetensors", dataset=dataset_of())
    assert any("sigmoid" in note for note in target.notes)


# The user's own code


def test_a_factory_without_weights_and_class_count(tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef make():\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4))\n"
    )
    reference = f"python:{tmp_path / 'net.py'}:make"
    first, second = (load_target(reference, dataset=dataset_of(), normalize="none") for _ in range(2))
    assert first.num_classes == CLASSES
    assert first.identity == second.identity
    assert first.reference == "python:net.py:make"  # no path of this machine in results
    assert any("no file of weights" in note for note in first.notes)
    errors(TargetError, "4 classes", "has 7", reference=reference, dataset=dataset_of(7))
    (tmp_path / "net.py").write_text((tmp_path / "net.py").read_text() + "\n# edited\n")
    assert load_target(reference, normalize="none").backend.checksum != first.backend.checksum


def test_what_can_be_wrong_with_a_factory(tmp_path):
    path = tmp_path / "net.py"
    errors(ModelError, "There is no Python file", reference=f"python:{path}:make")
    path.write_text("def other(): pass\ndef broken(num_classes): raise KeyError('depth')\ndef number(): return 3\n")
    errors(ModelError, "no function 'make'", "other", reference=f"python:{path}:make")
    errors(ModelError, "KeyError", "depth", reference=f"python:{path}:broken")
    errors(ModelError, "returned int", reference=f"python:{path}:number")
    path.write_text("import no_such_module_anywhere\n")
    errors(ModelError, "ModuleNotFoundError", reference=f"python:{path}:make")
    path.write_text("def make(:\n")
    errors(ModelError, "SyntaxError", reference=f"python:{path}:make")


@pytest.mark.real_data
def test_a_public_backdoored_model_with_softmax_inside(shared_data, tmp_path):
    (tmp_path / "badnet.py").write_text(
        "from torch import nn\n"
        "class BadNet(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.conv1 = nn.Sequential(nn.Conv2d(1, 16, 5), nn.ReLU(), nn.AvgPool2d(2))\n"
        "        self.conv2 = nn.Sequential(nn.Conv2d(16, 32, 5), nn.ReLU(), nn.AvgPool2d(2))\n"
        "        self.fc1 = nn.Sequential(nn.Linear(512, 512), nn.ReLU())\n"
        "        self.fc2 = nn.Sequential(nn.Linear(512, 10), nn.Softmax(dim=-1))\n"
        "    def forward(self, x):\n"
        "        return self.fc2(self.fc1(self.conv2(self.conv1(x)).flatten(1)))\n"
    )
    target = load_target(
        f"python:{tmp_path / 'badnet.py'}:BadNet",
        weights=shared_data / "badnet-mnist" / "badnet-MNIST.pth",
        normalize="half",
    )
    assert target.head == "probabilities"
    assert target.num_classes == 10
    images = torch.rand(5, 1, 28, 28)
    torch.testing.assert_close(target.posteriors(images).sum(dim=1), torch.ones(5))
    # The first size that was tried, 32, is not the one it takes; --input-size makes it work on any images.
    resized = load_target(
        f"python:{tmp_path / 'badnet.py'}:BadNet",
        weights=shared_data / "badnet-mnist" / "badnet-MNIST.pth",
        normalize="half",
        input_size=28,
    )
    assert resized.labels(torch.rand(5, 1, 40, 40)).shape == (5,)


# What was trained here


def test_an_artefact_states_all(digits, tmp_path):
    from securitynet.models.store.train_target import train_target

    path = tmp_path / "model.safetensors"
    trained = train_target("simple-cnn", digits, out=path, epochs=1, seed=0)
    loaded = load_target("arch:simple-cnn", weights=path)  # no dataset, no normalisation, no size
    assert loaded.identity == trained.identity
    assert loaded.num_classes == 10
    images = digits.batch(np.arange(20))
    torch.testing.assert_close(loaded.logits(images), trained.logits(images), rtol=1e-3, atol=1e-4)
    assert load_target("arch:simple-cnn", weights=path, dataset=digits).preprocessing == trained.preprocessing
    other = load_target("arch:simple-cnn", weights=path, dataset=digits, normalize="auto")
    assert any("fits best" in note for note in other.notes)
    errors(WeightsMismatch, "trained as arch:simple-cnn", reference="arch:vgg11", weights=path)


# Models that only answer


def recorded(path):
    generator = np.random.default_rng(0)
    posteriors = generator.dirichlet(np.ones(CLASSES), 40)
    np.savez(path, posteriors=posteriors, labels=np.arange(40) % CLASSES, members=np.arange(40) < 20)
    return posteriors


def test_recorded_outputs(tmp_path):
    recorded(tmp_path / "r.npz")
    target = load_target(f"outputs:{tmp_path / 'r.npz'}")
    assert target.reference == "outputs:r.npz"
    assert (target.head, target.access, target.num_classes) == ("probabilities", Access.BLACK_BOX, CLASSES)
    assert load_target(f"outputs:{tmp_path / 'r.npz'}", head="logits").head == "logits"
    reference = f"outputs:{tmp_path / 'r.npz'}"
    errors(AccessDenied, "gives outputs only", reference=reference, access=Access.WHITE_BOX, normalize=None)
    errors(ConfigurationError, "--normalize", reference=reference)
    errors(ConfigurationError, "--weights", reference=reference, normalize=None, weights=tmp_path / "w.pth")
    errors(TargetError, "4 classes", reference=reference, normalize=None, dataset=dataset_of(7))


def test_an_onnx_file(tmp_path):
    pytest.importorskip("onnxruntime")
    net = Soft(nn.Softmax(dim=1)).eval()
    torch.onnx.export(
        net,
        (torch.zeros(1, 3, 16, 16),),
        tmp_path / "net.onnx",
        input_names=["x"],
        dynamic_axes={"x": {0: "n"}},
        dynamo=False,
    )
    dataset = dataset_of()
    target = load_target(f"onnx:{tmp_path / 'net.onnx'}", dataset=dataset, normalize="half")
    assert (target.head, target.access) == ("probabilities", Access.BLACK_BOX)
    assert target.reference == "onnx:net.onnx"
    with torch.inference_mode():
        expected = net(dataset.images.float() / 127.5 - 1)
    torch.testing.assert_close(target.posteriors(dataset.images), expected, rtol=1e-4, atol=1e-5)
    # The graph fixes 16×16: images of another size are resized without being asked.
    assert target.preprocessing.input_size in (None, (16, 16))
    assert target.query_counter.total == 40


def test_an_endpoint_is_asked_little_and_each_image_is_charged(server, tmp_path):
    dataset = dataset_of(server.classes, size=4)
    target = load_target(server.url, dataset=dataset, cache=tmp_path / "cache")
    assert target.access is Access.BLACK_BOX
    assert 0 < target.query_counter.unique <= 32
    asked = target.query_counter.unique
    target.raw_outputs(dataset.images)
    assert target.query_counter.unique == max(asked, 40)
    again = load_target(server.url, dataset=dataset, cache=tmp_path / "cache")
    before = len(server.asked)
    again.raw_outputs(dataset.images)
    assert len(server.asked) == before > 0  # paid for already


# The catalog


def test_a_catalog_entry(weights, tmp_path):
    errors(ModelError, "no catalog yet", "securitynet catalog collect", reference="catalog:0123456789abcdef")
    from securitynet.catalog import store
    from securitynet.catalog.database import Database
    from securitynet.catalog.schema import CatalogEntry

    database = Database()
    entries = [
        CatalogEntry(key="test:one", source="test", name="one", reference="arch:cifar-resnet20"),
        CatalogEntry(key="test:two", source="test", name="two"),
        CatalogEntry(key="test:three", source="test", name="three", reference="timm:resnet18", head="none"),
    ]
    with database.write() as connection:
        change = store.begin_change(connection, "add", "test")
        tally = store.upsert_entries(connection, change, "test", [store.Item(entry) for entry in entries])
        store.end_change(connection, change, tally)
    database.close()
    for name in (entries[0].id, "test:one"):
        assert load_target(f"catalog:{name}", weights=weights, normalize="none").reference == "arch:cifar-resnet20"
    errors(SecurityNetError, "'absent'", "catalog search", reference="catalog:absent")
    errors(ModelError, "not a classifier", reference="catalog:test:three")
    errors(ModelError, "does not say how to load", reference="catalog:test:two")


def test_every_error_has_a_hint(weights, tmp_path):
    (tmp_path / "page.pth").write_text("<html></html>")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a", "b")
    for reference, options in (
        ("arch:cifar-resnet20", {}),
        ("arch:cifar-resnet20", {"weights": tmp_path / "page.pth"}),
        ("arch:cifar-resnet20", {"weights": tmp_path / "a.zip"}),
        ("arch:cifar-resnet20", {"weights": tmp_path}),
        ("arch:cifar-resnet32", {"weights": weights}),
        ("arch:cifar-resnet20", {"weights": weights, "num_classes": 3}),
        ("torchvision:resnet19", {}),
        ("nothing", {}),
    ):
        with pytest.raises(SecurityNetError) as caught:
            load_target(reference, **options)
        assert caught.value.hint


@pytest.mark.parametrize("form", ["digits", "object"])
def test_the_dataset_may_be_a_reference_or_an_object(digits, form):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    given = [(image, int(label)) for image, label in zip(digits.images[:40], digits.labels[:40], strict=True)]
    target = load_target(network, dataset=given if form == "object" else form, normalize="none")
    assert target.num_classes == 10
    with pytest.raises(SecurityNetError):
        load_target(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval(), dataset="digits")
