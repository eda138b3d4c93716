"""ONNX files: parity with torch, the shapes and types a graph may declare, and files that are refused."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

from securitynet.errors import MissingExtra, ModelError, TargetError
from securitynet.files import file_checksum
from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.targets.backends.onnx import OnnxBackend
from securitynet.models.targets.target import Target

onnx = pytest.importorskip("onnx", reason="the extra [onnx] is not installed")
pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

CLASSES = 4
WEIGHTS = np.random.default_rng(0).normal(size=(CLASSES, 3, 3, 3)).astype(np.float32)


def graph_of(
    path,
    *,
    shape=("n", 3, 8, 8),
    kind=TensorProto.FLOAT,
    nodes=None,
    outputs=None,
    weights=WEIGHTS,
    name="model",
    opset=17,
):
    """A convolution, global pooling and flattening, written by hand; or other nodes in their place."""
    if kind == TensorProto.FLOAT16:
        weights = weights.astype(np.float16)
    nodes = nodes or [
        helper.make_node("Conv", ["images", "w"], ["maps"]),
        helper.make_node("GlobalAveragePool", ["maps"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["scores"]),
    ]
    outputs = outputs or [("scores", kind, [shape[0], CLASSES])]
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("images", kind, shape)],
        [helper.make_tensor_value_info(*output) for output in outputs],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.save(model, str(path))
    return path


def reference(images):
    return nn.functional.conv2d(images, torch.from_numpy(WEIGHTS)).mean(dim=(2, 3))


def backend_of(path, **options):
    return OnnxBackend(path, reference=f"onnx:{path.name}", **options)


@pytest.fixture
def images():
    return torch.rand((7, 3, 8, 8), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def whole(tmp_path):
    return graph_of(tmp_path / "model.onnx")


def test_an_exported_network_answers_like_torch(tmp_path):
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)
    ).eval()
    path = tmp_path / "net.onnx"
    torch.onnx.export(
        net,
        (torch.zeros(2, 3, 12, 12),),
        str(path),
        input_names=["images"],
        dynamic_axes={"images": {0: "n"}},
        dynamo=False,
    )
    backend = backend_of(path)
    assert (backend.channels, backend.input_size, backend.num_classes) == (3, (12, 12), 5)
    images = torch.randint(0, 256, (9, 3, 12, 12), dtype=torch.uint8)
    preprocessing = Preprocessing(mean=(0.5,), std=(0.25,))
    with torch.no_grad():
        expected = net(preprocessing(images))
    assert torch.allclose(Target(backend, preprocessing=preprocessing).logits(images), expected, atol=1e-5)


def test_outputs_and_what_the_graph_says(whole, images):
    backend = backend_of(whole)
    outputs = backend.outputs(images)
    assert outputs.dtype == torch.float32
    assert torch.allclose(outputs, reference(images), atol=1e-5)
    assert (backend.channels, backend.input_size, backend.num_classes) == (3, (8, 8), CLASSES)
    assert backend.checksum == file_checksum(whole)
    assert backend_of(whole, batch_size=5).batch_size == 5
    assert backend.outputs(images[:0]).shape == (0, CLASSES)
    assert not backend.white_box


@pytest.mark.parametrize("fixed", [1, 3, 7, 16])
def test_fixed_batches_are_cut_and_padded(tmp_path, images, fixed):
    backend = backend_of(graph_of(tmp_path / "fixed.onnx", shape=(fixed, 3, 8, 8)))
    assert torch.allclose(backend.outputs(images), reference(images), atol=1e-5)


def test_half_precision(tmp_path, images):
    backend = backend_of(graph_of(tmp_path / "half.onnx", kind=TensorProto.FLOAT16))
    outputs = backend.outputs(images)
    assert outputs.dtype == torch.float32
    assert torch.allclose(outputs, reference(images), atol=1e-2)


def test_channels_last_inputs_are_transposed(tmp_path, images):
    nodes = [
        helper.make_node("Transpose", ["images"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["nchw", "w"], ["maps"]),
        helper.make_node("GlobalAveragePool", ["maps"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["scores"]),
    ]
    backend = backend_of(graph_of(tmp_path / "nhwc.onnx", shape=("n", 8, 8, 3), nodes=nodes))
    assert (backend.channels, backend.input_size) == (3, (8, 8))
    assert torch.allclose(backend.outputs(images), reference(images), atol=1e-5)


def test_free_sizes_and_pooled_outputs_of_four_dimensions(tmp_path):
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["maps"]),
        helper.make_node("GlobalAveragePool", ["maps"], ["pooled"]),
    ]
    outputs = [("pooled", TensorProto.FLOAT, ["n", CLASSES, 1, 1])]
    backend = backend_of(graph_of(tmp_path / "m.onnx", shape=("n", 3, "h", "w"), nodes=nodes, outputs=outputs))
    assert backend.input_size is None
    images = torch.rand(2, 3, 5, 9)
    assert torch.allclose(backend.outputs(images), reference(images), atol=1e-5)


def test_the_output_with_the_scores_is_chosen(tmp_path, images):
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["maps"]),
        helper.make_node("GlobalAveragePool", ["maps"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["scores"]),
        helper.make_node("ArgMax", ["scores"], ["best"], axis=1),
        helper.make_node("Neg", ["scores"], ["negated"]),
    ]
    outputs = [
        ("best", TensorProto.INT64, ["n", 1]),
        ("maps", TensorProto.FLOAT, ["n", CLASSES, 6, 6]),
        ("scores", TensorProto.FLOAT, ["n", CLASSES]),
        ("negated", TensorProto.FLOAT, ["n", CLASSES]),
    ]
    path = graph_of(tmp_path / "m.onnx", nodes=nodes, outputs=outputs)
    assert torch.allclose(backend_of(path).outputs(images), reference(images), atol=1e-5)
    assert torch.allclose(backend_of(path, output_name="negated").outputs(images), -reference(images), atol=1e-5)
    with pytest.raises(ModelError, match=r"no output 'logits'.*scores"):
        backend_of(path, output_name="logits")
    with pytest.raises(ModelError, match="not floats"):
        backend_of(path, output_name="best")
    with pytest.raises(TargetError, match="not one row of class scores"):
        backend_of(path, output_name="maps").outputs(images)


def test_graphs_that_are_no_image_classifiers(tmp_path):
    flat = [helper.make_node("Identity", ["images"], ["scores"])]
    with pytest.raises(ModelError, match="four dimensions"):
        backend_of(graph_of(tmp_path / "a.onnx", shape=("n", 4), nodes=flat))
    maps = [helper.make_node("Conv", ["images", "w"], ["maps"])]
    with pytest.raises(ModelError, match="no float output"):
        backend_of(
            graph_of(tmp_path / "b.onnx", nodes=maps, outputs=[("maps", TensorProto.FLOAT, ["n", CLASSES, 6, 6])])
        )
    cast = [helper.make_node("Cast", ["images"], ["scores"], to=TensorProto.FLOAT)]
    with pytest.raises(ModelError, match=r"takes tensor\(int64\)"):
        graph = graph_of(
            tmp_path / "c.onnx",
            kind=TensorProto.INT64,
            nodes=cast,
            outputs=[("scores", TensorProto.FLOAT, ["n", 3, 8, 8])],
        )
        backend_of(graph)


def test_images_that_do_not_fit(whole, tmp_path):
    with pytest.raises(TargetError, match=r"8×8 pixels, not 9×8.*--input-size 8"):
        backend_of(whole).outputs(torch.zeros(1, 3, 9, 8))
    with pytest.raises(TargetError, match="takes colour images"):
        Target(backend_of(whole)).logits(torch.zeros(1, 1, 8, 8))
    free = backend_of(graph_of(tmp_path / "free.onnx", shape=("n", 3, "h", "w")))
    with pytest.raises(TargetError, match="does not take a batch of 2 inputs of shape 3×2×2"):
        free.outputs(torch.zeros(2, 3, 2, 2))


def test_nan_outputs_are_reported(tmp_path):
    path = graph_of(tmp_path / "nan.onnx", weights=np.full_like(WEIGHTS, np.nan))
    with pytest.raises(TargetError, match="not finite"):
        Target(backend_of(path)).logits(torch.zeros(1, 3, 8, 8))


def test_files_that_are_absent_damaged_or_something_else(tmp_path, whole):
    with pytest.raises(ModelError, match="does not exist"):
        backend_of(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="is a folder"):
        backend_of(tmp_path)
    content = whole.read_bytes()
    for number, bad in enumerate((b"", content[: len(content) // 2], b"<html>not found</html>", b"\x80\x04K\x01." * 9)):
        path = tmp_path / f"bad{number}.onnx"
        path.write_bytes(bad)
        with pytest.raises(ModelError, match=r"empty file|not an ONNX file|no graph|cannot be loaded"):
            backend_of(path)


def test_custom_operators_are_refused(tmp_path):
    nodes = [helper.make_node("Mystery", ["images", "w"], ["scores"], domain="evil.ops")]
    path = tmp_path / "custom.onnx"
    graph_of(path, nodes=nodes)
    model = onnx.load(str(path))
    model.opset_import.append(helper.make_opsetid("evil.ops", 1))
    onnx.save(model, str(path))
    with pytest.raises(ModelError, match=r"operator that onnxruntime does not have.*are not loaded"):
        backend_of(path)


def with_external(path, location, data_file=None):
    model = onnx.load(str(graph_of(path)))
    tensor = model.graph.initializer[0]
    raw = tensor.raw_data
    if data_file is not None:
        data_file.write_bytes(raw)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(len(raw)))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    onnx.save_model(model, str(path))
    return path


def test_weights_beside_the_file_are_part_of_the_checksum(tmp_path, images):
    path = with_external(tmp_path / "m.onnx", "m.data", tmp_path / "m.data")
    backend = backend_of(path)
    assert torch.allclose(backend.outputs(images), reference(images), atol=1e-5)
    (tmp_path / "m.data").write_bytes((WEIGHTS + 1).tobytes())
    assert backend_of(path).checksum != backend.checksum
    (tmp_path / "m.data").unlink()
    with pytest.raises(ModelError, match="not beside it"):
        backend_of(path)


@pytest.mark.parametrize("kind", ["absolute", "parent", "windows", "link"])
def test_weights_outside_the_folder_are_refused(tmp_path, kind):
    folder = tmp_path / "model"
    folder.mkdir()
    secret = tmp_path / "secret"
    location = {"absolute": str(secret), "parent": "../secret", "windows": r"..\secret", "link": "inside"}[kind]
    if kind == "link":
        (folder / "inside").symlink_to(secret)
    path = with_external(folder / "m.onnx", location, secret)
    with pytest.raises(ModelError, match=r"outside its own folder.*refused"):
        backend_of(path)


@pytest.mark.parametrize("package", ["onnxruntime", "onnx"])
def test_without_the_extra_the_error_names_it(whole, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=r"securitynet\[onnx\]"):
        backend_of(whole)


def test_links_of_a_download_cache_are_followed(tmp_path):
    """Caches keep blobs in one folder and show them under names in another, all by links."""
    blobs, shown = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    shown.mkdir()
    with_external(blobs / "aaa", "m.data", blobs / "bbb")
    (shown / "m.onnx").symlink_to(blobs / "aaa")
    (shown / "m.data").symlink_to(blobs / "bbb")
    from securitynet.models.targets.backends._external_data import list_external_files

    assert list_external_files(shown / "m.onnx", "onnx:m.onnx") == [shown / "m.data"]
