"""ONNX files that take bytes or double precision, return integers, end in sigmoids or have several outputs."""

import numpy as np
import pytest
import torch

from securitynet.errors import ConfigurationError, TargetError
from securitynet.models.loading.load import load_target
from securitynet.models.targets.backends.onnx import OnnxBackend

onnx = pytest.importorskip("onnx", reason="the extra [onnx] is not installed")
pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

RANDOM = np.random.default_rng(0)
WEIGHTS = RANDOM.normal(size=(48, 5)).astype(np.float32)


def write(path, nodes, outputs, *, kind=TensorProto.FLOAT, constants=None):
    """A graph for 3×4×4 images, written by hand."""
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("images", kind, ("n", 3, 4, 4))],
        [helper.make_tensor_value_info(*output) for output in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {"w": WEIGHTS}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path))
    return path


def dense(name="scores", source="images"):
    return [helper.make_node("Flatten", [source], ["flat"]), helper.make_node("MatMul", ["flat", "w"], [name])]


@pytest.fixture
def images():
    return torch.rand((9, 3, 4, 4), generator=torch.Generator().manual_seed(0))


def linear(images):
    return images.double().flatten(1) @ torch.from_numpy(WEIGHTS).double()


def scores(*shape):
    return ("scores", TensorProto.FLOAT, ["n", *(shape or (5,))])


@pytest.mark.parametrize(("kind", "offset"), [(TensorProto.UINT8, 0), (TensorProto.INT8, -128)])
def test_bytes_are_fed_as_they_are_stored(tmp_path, images, kind, offset):
    path = tmp_path / "bytes.onnx"
    nodes = [helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT), *dense(source="floats")]
    target = load_target(f"onnx:{write(path, nodes, [scores()], kind=kind)}")
    stored = (images * 255).round().to(torch.uint8)
    expected = linear(stored.double() + offset)
    assert torch.allclose(target.raw_outputs(stored).double(), expected, rtol=1e-5, atol=1e-2)
    assert torch.equal(target.raw_outputs(stored), target.raw_outputs(stored.float() / 255))
    assert target.preprocessing.mean == () and any("is inside it" in note for note in target.notes)
    with pytest.raises(TargetError, match="normalises the images itself"):
        load_target(f"onnx:{path}", normalize="half").raw_outputs(stored)


def test_double_precision_is_computed_in_double_precision(tmp_path, images):
    # In single precision the large constant would swallow the scores.
    large = np.float64(1e9)
    nodes = [
        *dense("products"),
        helper.make_node("Add", ["products", "large"], ["shifted"]),
        helper.make_node("Sub", ["shifted", "large"], ["scores"]),
    ]
    outputs = [("scores", TensorProto.DOUBLE, ["n", 5])]
    constants = {"w": WEIGHTS.astype(np.float64), "large": large}
    path = write(tmp_path / "double.onnx", nodes, outputs, kind=TensorProto.DOUBLE, constants=constants)
    assert torch.allclose(
        OnnxBackend(path, reference="onnx:double").outputs(images).double(), linear(images), atol=1e-5
    )


@pytest.mark.parametrize(("dtype", "zero"), [(np.uint8, 120), (np.int8, -3)])
def test_quantised_outputs_are_scaled_back(tmp_path, images, dtype, zero):
    scale = np.float32(0.25)
    nodes = [*dense("floats"), helper.make_node("QuantizeLinear", ["floats", "scale", "zero"], ["scores"])]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    constants = {"w": WEIGHTS, "scale": scale, "zero": dtype(zero)}
    path = write(tmp_path / "quantised.onnx", nodes, [("scores", kind, ["n", 5])], constants=constants)
    found = OnnxBackend(path, reference="onnx:quantised").outputs(images)
    limits = np.iinfo(dtype)
    expected = ((linear(images) / scale).round() + zero).clamp(limits.min, limits.max) - zero
    assert torch.equal(found.double(), expected * scale)
    assert (found.double() - linear(images)).abs().max() <= 0.125 + 1e-6


def test_logits_before_a_sigmoid_are_exact(tmp_path, images):
    nodes = [*dense("logits"), helper.make_node("Sigmoid", ["logits"], ["scores"])]
    weights = {"w": WEIGHTS * 20}  # sigmoids of most scores are 0 or 1 in single precision
    target = load_target(f"onnx:{write(tmp_path / 'sigmoid.onnx', nodes, [scores()], constants=weights)}")
    assert target.head == "logits" and any("logits before it" in note for note in target.notes)
    assert torch.allclose(target.logits(images).double(), linear(images) * 20, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("sigmoid", [False, True])
def test_a_single_score_is_that_of_class_1(tmp_path, images, sigmoid):
    nodes = [*dense("logits"), helper.make_node("Sigmoid", ["logits"], ["scores"])] if sigmoid else dense()
    path = write(tmp_path / "single.onnx", nodes, [scores(1)], constants={"w": WEIGHTS[:, :1]})
    target = load_target(f"onnx:{path}")
    expected = linear(images)[:, 0].sigmoid()
    assert target.num_classes == 2
    assert torch.allclose(target.posteriors(images).double(), torch.stack([1 - expected, expected], 1), atol=1e-5)


def test_one_of_several_outputs_is_chosen_by_name_or_by_the_number_of_classes(tmp_path, images):
    nodes = [*dense("coarse"), helper.make_node("MatMul", ["flat", "v"], ["fine"])]
    outputs = [("coarse", TensorProto.FLOAT, ["n", 5]), ("fine", TensorProto.FLOAT, ["n", 7])]
    fine = RANDOM.normal(size=(48, 7)).astype(np.float32)
    path = write(tmp_path / "two.onnx", nodes, outputs, constants={"w": WEIGHTS, "v": fine})
    first, named, counted = (
        load_target(f"onnx:{path}", **options) for options in ({}, {"output": "fine"}, {"num_classes": 7})
    )
    assert (first.num_classes, named.num_classes, counted.num_classes) == (5, 7, 7)
    expected = images.flatten(1) @ torch.from_numpy(fine)
    assert torch.allclose(named.raw_outputs(images), expected, atol=1e-4)
    assert torch.equal(named.raw_outputs(images), counted.raw_outputs(images))
    assert any("'coarse', not fine" in note for note in first.notes)
    # Cached outputs of one must not be taken for those of the other.
    assert first.identity.checksum != named.identity.checksum == counted.identity.checksum
    with pytest.raises(ConfigurationError, match="--output"):
        load_target("arch:simple-cnn", output="fine")
