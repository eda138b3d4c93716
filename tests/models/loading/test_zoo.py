"""Networks of timm, torchvision, pytorchcv and the hub by reference, with weights from files and caches."""

import hashlib
import json
import re
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from safetensors.torch import save_file

from securitynet.errors import ModelError, WeightsMismatch
from securitynet.models.loading.load import load_target
from securitynet.models.sources import open_source
from securitynet.models.sources._download import fetch_address, find_models_folder
from securitynet.models.sources.preprocessing import CONVENTIONS
from securitynet.models.sources.pytorchcv import unpack_weights
from securitynet.models.sources.references import parse_reference
from securitynet.torchvision_cure import import_torchvision

timm = import_torchvision("timm")
tv = import_torchvision("torchvision.models")


def save(network, path):
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)
    return path


def seeded(make, *args, **kwargs):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make(*args, **kwargs).eval()


def check_outputs(target, network, size, channels=3):
    """The target answers as the library's network does on inputs that need no resizing."""
    images = torch.rand((2, channels, size, size), generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (target.preprocessing.mean, target.preprocessing.std))
    with torch.inference_mode():
        expected = network((images - mean) / std)
    actual = target.logits(images)
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


# timm


def test_timm_with_weights_from_a_file(tmp_path):
    network = seeded(timm.create_model, "test_resnet", num_classes=1000)
    target = load_target("timm:test_resnet.r160_in1k", weights=save(network, tmp_path / "w.safetensors"))
    assert target.num_classes == 1000
    stated = target.preprocessing
    assert (stated.mean, stated.std, stated.input_size) == ((0.5,) * 3, (0.5,) * 3, (160, 160))
    assert (stated.crop_share, stated.interpolation) == (0.95, "bilinear")
    check_outputs(target, network, 160)


def test_timm_for_another_class_count_and_grey_images(tmp_path):
    network = seeded(timm.create_model, "resnet10t", num_classes=7, in_chans=1)
    target = load_target("timm:resnet10t", weights=save(network, tmp_path / "w.safetensors"), input_size=32)
    assert (target.num_classes, target.backend.channels) == (7, 1)
    assert target.preprocessing.mean == ()  # what timm states is for colour images
    assert target.preprocessing.input_size == (32, 32)
    assert any("weights of your own" in note for note in target.notes)
    with pytest.raises(WeightsMismatch, match="says 10"):
        load_target("timm:resnet10t", weights=tmp_path / "w.safetensors", num_classes=10)


@pytest.mark.slow
def test_timm_transformer_whose_weights_depend_on_the_size(tmp_path):
    network = seeded(timm.create_model, "test_vit", num_classes=5, img_size=32)
    weights = save(network, tmp_path / "w.safetensors")
    target = load_target("timm:test_vit", weights=weights, input_size=32, normalize="half")
    with torch.inference_mode():
        expected = network(torch.ones(1, 3, 32, 32) * 0.5)
    torch.testing.assert_close(target.logits(torch.full((1, 3, 32, 32), 0.75)), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(WeightsMismatch, match=r"pos_embed.*--input-size 32"):
        load_target("timm:test_vit", weights=weights)


def test_timm_names_are_checked():
    with pytest.raises(ModelError, match=r"Did you mean .*resnet18"):
        load_target("timm:resnet81")
    with pytest.raises(ModelError, match="a1_in1k"):
        load_target("timm:resnet18.a9_in1k")
    with pytest.raises(ModelError, match="--weights"):
        load_target("timm:resnet10t.none")


# The hub, through its own client and its own cache


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Puts files into the cache as the hub's client lays them out, and cuts the network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def put(repository, revision="main", **files):
        folder = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
        commit = hashlib.sha1(revision.encode()).hexdigest()
        (folder / "refs").mkdir(parents=True, exist_ok=True)
        (folder / "refs" / revision).write_text(commit)
        snapshot = folder / "snapshots" / commit
        snapshot.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            path = snapshot / name.replace("__", ".")
            path.write_text(content) if isinstance(content, str) else save(content, path)

    return put


def config(**changes):
    stated = {"mean": [0.4, 0.5, 0.6], "std": [0.1, 0.2, 0.3], "input_size": [3, 64, 64], "crop_pct": 1.0}
    return json.dumps({"architecture": "test_resnet", "num_classes": 6, "pretrained_cfg": stated, **changes})


def test_timm_downloads_through_the_hub(hub):
    network = seeded(timm.create_model, "test_resnet", num_classes=1000)
    hub("timm/test_resnet.r160_in1k", model__safetensors=network)
    check_outputs(load_target("timm:test_resnet.r160_in1k"), network, 160)


def test_hub_repository(hub):
    network = seeded(timm.create_model, "test_resnet", num_classes=6)
    hub("someone/birds", model__safetensors=network, config__json=config())
    target = load_target("hf:someone/birds")
    assert target.num_classes == 6
    assert target.preprocessing.input_size == (64, 64)
    assert target.preprocessing.mean == (0.4, 0.5, 0.6)
    check_outputs(target, network, 64)
    other = seeded(timm.create_model, "test_resnet", num_classes=4)
    hub("someone/birds", "v2", model__safetensors=other, config__json=config(num_classes=4))
    assert load_target("hf:someone/birds@v2").num_classes == 4


def test_hub_repositories_that_are_not_loaded(hub, tmp_path):
    hub("a/transformer", config__json='{"model_type": "vit", "quantization_config": {"bits": 4}}')
    with pytest.raises(ModelError, match="quantised"):
        load_target("hf:a/transformer")
    hub("a/unknown", config__json=config(architecture="not_of_timm"))
    with pytest.raises(ModelError, match="never run"):
        load_target("hf:a/unknown")
    hub("a/broken", config__json="<html>")
    with pytest.raises(ModelError, match=r"config\.json cannot be read"):
        load_target("hf:a/broken")
    with pytest.raises(ModelError, match="--weights"):
        load_target("hf:a/absent")
    # Arguments that would make timm read other files are not passed on.
    marker = {"checkpoint_path": str(tmp_path / "other.pth"), "pretrained": True}
    network = seeded(timm.create_model, "test_resnet", num_classes=6)
    hub("a/sly", model__safetensors=network, config__json=config(model_args=marker))
    assert load_target("hf:a/sly").num_classes == 6


def test_the_hub_is_not_waited_for(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the discard port: nobody listens
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(ModelError, match=r"cannot be reached.*--weights"):
        load_target("hf:someone/birds")


# torchvision


@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v3_small"])
def test_torchvision_with_weights_from_a_file(tmp_path, name):
    network = seeded(tv.get_model, name, weights=None, num_classes=1000)
    target = load_target(f"torchvision:{name}@IMAGENET1K_V1", weights=save(network, tmp_path / "w.safetensors"))
    assert target.num_classes == 1000
    stated = target.preprocessing
    assert (stated.mean, stated.std) == CONVENTIONS["imagenet"]
    assert (stated.input_size, stated.crop_share, stated.interpolation) == ((224, 224), 224 / 256, "bilinear")
    check_outputs(target, network, 224)


@pytest.mark.slow
def test_torchvision_grey_images_and_other_classes(tmp_path):
    network = seeded(tv.resnet18, num_classes=3)
    network.conv1 = torch.nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    target = load_target("torchvision:resnet18", weights=save(network, tmp_path / "w.safetensors"), normalize="mnist")
    assert (target.num_classes, target.backend.channels) == (3, 1)
    check_outputs(target, network, 224, channels=1)


@pytest.mark.parametrize("auxiliary", [True, False])
def test_torchvision_auxiliary_classifiers_may_be_there_or_not(tmp_path, auxiliary):
    network = seeded(tv.googlenet, num_classes=5, aux_logits=auxiliary, init_weights=False, transform_input=False)
    weights = save(network, tmp_path / "w.safetensors")
    target = load_target("torchvision:googlenet", weights=weights, input_size=64, normalize="imagenet")
    assert target.num_classes == 5
    check_outputs(target, network, 64)


def test_a_file_of_the_library_gets_its_preprocessing_and_flags(tmp_path):
    """Known by its checksum; the same network with weights of one's own gets neither."""
    import dataclasses

    from securitynet.models.loading import open as opening

    network = seeded(tv.googlenet, num_classes=1000, aux_logits=False, init_weights=False, transform_input=True)
    weights = save(network, tmp_path / "w.safetensors")
    mine = load_target("torchvision:googlenet", weights=weights, normalize="imagenet", input_size=64)
    real = opening.open_source
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "open_source", lambda r: dataclasses.replace(real(r), is_own=lambda path: True))
        theirs = load_target("torchvision:googlenet", weights=weights, input_size=64)
    assert (theirs.preprocessing.mean, theirs.preprocessing.std) == CONVENTIONS["imagenet"]
    assert theirs.preprocessing.crop_share == 224 / 256
    check_outputs(theirs, network, 64)
    images = torch.rand(2, 3, 64, 64)
    assert not torch.allclose(mine.logits(images), theirs.logits(images), rtol=1e-2)
    assert mine.backend.checksum != theirs.backend.checksum


def test_torchvision_with_versions_in_its_modules(tmp_path):
    network = seeded(tv.mnasnet0_5, num_classes=4)
    target = load_target("torchvision:mnasnet0_5", weights=save(network, tmp_path / "w.safetensors"), input_size=32)
    assert target.num_classes == 4


@pytest.mark.slow
def test_torchvision_names_of_the_past(tmp_path):
    network = seeded(tv.densenet121, num_classes=4)
    old = {re.sub(r"\.(norm|conv)([12])\.", r".\1.\2.", key): value for key, value in network.state_dict().items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "w.pth")
    target = load_target("torchvision:densenet121", weights=tmp_path / "w.pth", input_size=32, normalize="half")
    check_outputs(target, network, 32)


def test_torchvision_names_are_checked():
    with pytest.raises(ModelError, match=r"Did you mean .*resnet18"):
        load_target("torchvision:resnet19")
    with pytest.raises(ModelError, match="IMAGENET1K_V1, IMAGENET1K_V2"):
        load_target("torchvision:resnet50@IMAGENET1K_V3")


def test_torchvision_takes_a_file_of_the_cache_if_its_checksum_is_right(monkeypatch):
    network = seeded(tv.squeezenet1_1)
    find_models_folder().mkdir(parents=True)
    kept = find_models_folder() / "squeezenet1_1-b8a52dc0.pth"
    torch.save(network.state_dict(), kept)
    source = open_source(parse_reference("torchvision:squeezenet1_1"))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match="cannot be reached"):
        source.fetch(None)  # the kept file is another than the published one


# pytorchcv


@pytest.mark.parametrize(("name", "classes"), [("resnet20_cifar10", 10), ("resnet20_cifar100", 100)])
def test_pytorchcv_with_weights_from_a_file(tmp_path, name, classes):
    from pytorchcv.model_provider import get_model

    network = seeded(get_model, name)
    weights = save(network, tmp_path / "w.safetensors")
    target = load_target(f"pytorchcv:{name}", weights=weights)
    assert target.num_classes == classes
    # Weights of somebody else: what the library does for its own is not taken for granted.
    assert (target.preprocessing.mean, target.preprocessing.input_size) == ((), None)
    check_outputs(load_target(f"pytorchcv:{name}", weights=weights, normalize="cifar10-per-image"), network, 32)
    # Built for another dataset, the network is the same: the class count is read from the weights.
    assert load_target("pytorchcv:resnet20_svhn", weights=weights).num_classes == classes


@pytest.mark.parametrize(
    ("name", "size", "share", "classes"),
    [
        ("resnet18", 224, 224 / 256, 1000),
        ("inceptionv3", 299, 299 / 342, 1000),
        ("efficientnet_b1", 240, 240 / 273, 1000),
        ("resnet18_cub", 224, 224 / 256, 200),
    ],
)
def test_what_pytorchcv_states(name, size, share, classes):
    source = open_source(parse_reference(f"pytorchcv:{name}"))
    assert source.num_classes == classes
    assert source.preprocessing.input_size == (size, size)
    assert source.preprocessing.crop_share == pytest.approx(share)
    assert (source.preprocessing.mean, source.preprocessing.std) == CONVENTIONS["imagenet"]


def test_pytorchcv_names_are_checked():
    with pytest.raises(ModelError, match=r"Did you mean .*resnet20_cifar10"):
        load_target("pytorchcv:resnet20_cifar11")
    with pytest.raises(ModelError, match="no image classifier"):
        load_target("pytorchcv:deeplabv3_resnetd101b_voc")  # segments images
    with pytest.raises(ModelError, match="no weights of its own"):
        load_target("pytorchcv:resnet50_cub")  # listed without weights


def test_pytorchcv_archives_are_checked(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("net.pth", b"weights")
    options = {"sha1": hashlib.sha1(b"weights").hexdigest(), "reference": "pytorchcv:net"}
    unpack_weights(tmp_path / "a.zip", "net.pth", tmp_path / "net.pth", **options)
    assert (tmp_path / "net.pth").read_bytes() == b"weights"
    with pytest.raises(ModelError, match="damaged"):
        unpack_weights(tmp_path / "a.zip", "other.pth", tmp_path / "other.pth", **options)
    options["sha1"] = "0" * 40
    with pytest.raises(ModelError, match="another checksum"):
        unpack_weights(tmp_path / "a.zip", "net.pth", tmp_path / "bad.pth", **options)
    assert not (tmp_path / "bad.pth").exists()


# Downloads


@pytest.fixture
def files(monkeypatch):
    """A server of files; yields its address and the files by path."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    served: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            content = served.get(self.path)
            self.send_response(200 if content is not None else 404)
            self.send_header("Content-Length", str(len(content or b"") + (10 if self.path == "/short.pth" else 0)))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", served
    server.shutdown()
    server.server_close()


def test_downloads_are_whole_and_checked_or_absent(files):
    address, served = files
    served["/net.pth"] = b"weights" * 1000
    digest = hashlib.sha256(served["/net.pth"]).hexdigest()
    calls = []
    path = fetch_address(
        f"{address}/net.pth", reference="r", sha256=digest[:8], progress=lambda *done: calls.append(done)
    )
    assert path.read_bytes() == served["/net.pth"]
    assert calls[-1] == (7000, 7000)
    served.clear()
    assert fetch_address(f"{address}/net.pth", reference="r", sha256=digest[:8]) == path  # kept
    served["/bad.pth"] = b"something else"
    with pytest.raises(ModelError, match="another checksum"):
        fetch_address(f"{address}/bad.pth", reference="r", sha256=digest[:8])
    served["/short.pth"] = b"cut"
    with pytest.raises(ModelError, match="could not be downloaded"):
        fetch_address(f"{address}/short.pth", reference="r")
    with pytest.raises(ModelError, match="returned status 404"):
        fetch_address(f"{address}/absent.pth", reference="r")
    assert [file.name for file in find_models_folder().iterdir()] == ["net.pth"]
