"""Hostile files of models, one a row: see the fixture `run_refused` for what must hold of each."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hostile_rows import choose_rows


def assess(weights):
    return ("assess", "arch:simple-cnn", "--dataset", "digits", "--limit", "40", "--weights", weights)


# Safetensors


def write_header(path, header, values=b"\0" * 16, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + values)


def describe_tensor(shape, end=16, dtype="F32", begin=0):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


HEADERS = {
    "a header longer than the file": lambda path: write_header(path, {}, length=2**62),
    "a header of no JSON": lambda path: write_header(path, b"\xff\xfe{" + b"[" * 50),
    "a header that is a list": lambda path: write_header(path, [1, 2]),
    "a header nested deeply": lambda path: write_header(path, b'{"a":' + b"[" * 60_000),
    "values beyond the end": lambda path: write_header(path, {"a": describe_tensor([4], end=2**40)}),
    "values that end before they begin": lambda path: write_header(path, {"a": describe_tensor([4], begin=16, end=0)}),
    "a size that overflows": lambda path: write_header(path, {"a": describe_tensor([2**40, 2**40])}),
    "a negative size": lambda path: write_header(path, {"a": describe_tensor([-4])}),
    "an unknown type": lambda path: write_header(path, {"a": describe_tensor([4], dtype="F128")}),
    "values that overlap": lambda path: write_header(path, {"a": describe_tensor([4]), "b": describe_tensor([4])}),
    "nothing": lambda path: path.write_bytes(b""),
    "one byte": lambda path: path.write_bytes(b"\x08"),
    "metadata of another type": lambda path: write_header(path, {"__metadata__": [1], "a": describe_tensor([4])}),
    "names that command a terminal": lambda path: save_file({"\x1b[2J\x1b]0;x\x07": torch.zeros(1)}, path),
    "a name of a million characters": lambda path: save_file({"x" * 10**6: torch.zeros(1)}, path),
    "more tensors than any network has": lambda path: write_header(
        path, {f"t{number}": describe_tensor([0], end=0) for number in range(60_000)}, b""
    ),
    "no tensors": lambda path: save_file({}, path),
    "weights that are not numbers": lambda path: save_file(poison_weights(float("nan")), path),
    "weights without bound": lambda path: save_file(poison_weights(float("inf")), path),
}


def poison_weights(value):
    from securitynet.models.architectures.factory import build

    network = build("simple-cnn", num_classes=10, channels=1, image_size=8)
    return {name: torch.full_like(tensor, value) for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("kind", choose_rows(HEADERS))
def test_safetensors(run_refused, tmp_path, kind):
    HEADERS[kind](tmp_path / "w.safetensors")
    run_refused(*assess("w.safetensors"))


# Pickles


def save_pickle(path, pickled):
    """A file as torch.save writes it, whose pickle is made by hand."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")


def share(depth):
    """A pickle of lists, each of which holds the next one twice: small in memory, endless for who walks through it."""
    value: object = torch.zeros(1)
    for _ in range(depth):
        value = [value, value]
    return {"layers": value}


def contain_itself(path):
    state = {"layer.weight": torch.zeros(2)}
    state["more"] = state
    torch.save(state, path)


def nest(depth):
    return b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"."


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def pickle_call(function, *arguments):
    return pickle.dumps({"layer.weight": Call(function, *arguments)}, protocol=2)


def rebuild_giant(path):
    save_pickle(path, pickle_call(torch._utils._rebuild_tensor_v2, None, 0, (10**9,), (1,), False, {}))


def save_sparse(path):
    giant = torch.sparse_coo_tensor(torch.zeros(2, 1, dtype=torch.long), torch.ones(1), (10**7, 10**7))
    torch.save({"fc.weight": giant}, path)


PICKLES = {
    "a call of the shell": lambda path: save_pickle(path, pickle_call(os.system, "touch executed")),
    "a call of eval": lambda path: save_pickle(path, pickle_call(eval, "open('executed', 'w')")),
    "a call of exec within torch": lambda path: save_pickle(path, b"\x80\x02ctorch.serialization\nos\n."),
    "a call of setattr": lambda path: save_pickle(path, pickle_call(setattr, "torch", "zeros", 1)),
    "a tensor without storage": rebuild_giant,
    "bytes of an exabyte": lambda path: save_pickle(path, b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"a."),
    "text of an exabyte": lambda path: save_pickle(path, b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b"a."),
    "a byte array of gigabytes": lambda path: save_pickle(path, b"\x80\x05\x96" + struct.pack("<Q", 2**36) + b"a."),
    "a memo of its own size": lambda path: save_pickle(path, b"\x80\x02Nr" + struct.pack("<I", 2**32 - 1) + b"."),
    "a number of a gigabyte": lambda path: save_pickle(path, b"\x80\x02\x8b" + struct.pack("<i", 2**30) + b"."),
    "lists nested deeply": lambda path: save_pickle(path, nest(200_000)),
    "lists that hold each other twice": lambda path: torch.save(share(60), path),
    "a dictionary that holds itself": contain_itself,
    "numbers for names": lambda path: torch.save({number: torch.zeros(1) for number in range(50)}, path),
    "a single tensor": lambda path: torch.save(torch.zeros(3), path),
    "a sparse tensor of terabytes": save_sparse,
    "an archive of nothing": lambda path: zipfile.ZipFile(path, "w").close(),
    "an archive cut in two": lambda path: cut_in_two(path),
    "text": lambda path: path.write_text("<!DOCTYPE html><title>404</title>"),
    "a pointer to a large file": lambda path: path.write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 44000000\n"
    ),
}


def cut_in_two(path):
    buffer = io.BytesIO()
    torch.save({"layer.weight": torch.zeros(5000)}, buffer)
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])


@pytest.mark.parametrize("kind", choose_rows(PICKLES, "lists that hold each other twice"))
def test_pickles(run_refused, tmp_path, kind):
    PICKLES[kind](tmp_path / "w.pth")
    run_refused(*assess("w.pth"))
    assert not (tmp_path / "executed").exists()


# Graphs


def save_onnx(path, nodes, initializers=(), functions=(), external=None):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    tensors = [numpy_helper.from_array(value, name) for name, value in dict(initializers).items()]
    if external is not None:
        tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[64, 10])
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in external.items():
            tensor.external_data.add(key=key, value=value)
        tensors.append(tensor)
    graph = helper.make_graph(
        nodes(helper),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])],
        tensors,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("local", 1)],
        functions=list(functions),
        ir_version=8,
    )
    path.write_bytes(model.SerializeToString())
    return onnx


def double(helper):
    """Each node joins its input with itself: 2^40 values."""
    steps = [helper.make_node("Concat", [f"c{n}", f"c{n}"], [f"c{n + 1}"], axis=1) for n in range(40)]
    first, last = helper.make_node("Flatten", ["x"], ["c0"]), helper.make_node("ReduceSum", ["c40"], ["y"], keepdims=1)
    return [first, *steps, last]


def multiply_vectors(helper):
    """The outer product of two vectors of the file."""
    return [
        helper.make_node("MatMul", ["column", "row"], ["square"]),
        helper.make_node("ReduceSum", ["square"], ["sum"], keepdims=0),
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["z"]),
        helper.make_node("Add", ["z", "sum"], ["y"]),
    ]


def linear(helper):
    return [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])]


def save_functions(path):
    """Functions each of which calls the next one twice: inlined, they are 2^40 nodes."""
    pytest.importorskip("onnx")
    from onnx import helper

    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]

    def call(depth):
        nodes = [
            helper.make_node(f"f{depth - 1}", ["a"], ["b"], domain="local") if depth else
            helper.make_node("Identity", ["a"], ["b"]),
            helper.make_node(f"f{depth - 1}", ["b"], ["c"], domain="local") if depth else
            helper.make_node("Identity", ["b"], ["c"]),
        ]  # fmt: skip
        return helper.make_function("local", f"f{depth}", ["a"], ["c"], nodes, opsets)

    functions = [call(depth) for depth in range(40)]
    weights = {"w": np.zeros((64, 10), np.float32)}
    nodes = lambda helper: [*linear(helper)[:1], helper.make_node("f39", ["f"], ["g"], domain="local"),  # noqa: E731
                            helper.make_node("MatMul", ["g", "w"], ["y"])]  # fmt: skip
    save_onnx(path, nodes, weights, functions)


VECTORS = {
    "column": np.ones((200_000, 1), np.float32),
    "row": np.ones((1, 200_000), np.float32),
    "w": np.zeros((64, 10), np.float32),
}
GRAPHS = {
    "a file of the system for weights": lambda path: save_onnx(path, linear, external={"location": "/etc/passwd"}),
    "weights outside its folder": lambda path: save_onnx(path, linear, external={"location": "../../../etc/passwd"}),
    "weights beyond the end": lambda path: save_onnx(
        path, linear, external={"location": "f.onnx", "offset": str(2**60), "length": "2560"}
    ),
    "weights of no number": lambda path: save_onnx(path, linear, external={"location": "f.onnx", "offset": "many"}),
    "a value that doubles": lambda path: save_onnx(path, double),
    "two vectors": lambda path: save_onnx(path, multiply_vectors, VECTORS),
    "functions that call twice": save_functions,
    "operators of its own": lambda path: save_onnx(
        path, lambda helper: [helper.make_node("Evil", ["x"], ["y"], domain="local")]
    ),
    "an order without beginning": lambda path: save_onnx(
        path, lambda helper: [helper.make_node("Add", ["x", "y"], ["z"]), helper.make_node("Relu", ["z"], ["y"])]
    ),
    "noise": lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)),
    "a length beyond the end": lambda path: path.write_bytes(b"\x3a\xff\xff\xff\xff\x0f" + b"\0" * 10),
}


@pytest.mark.parametrize("kind", choose_rows(GRAPHS, "a value that doubles"))
def test_onnx(run_refused, tmp_path, monkeypatch, kind):
    monkeypatch.setattr("securitynet.first_run.SECONDS", 4)
    GRAPHS[kind](tmp_path / "f.onnx")
    run_refused("assess", "onnx:f.onnx", "--dataset", "digits", "--limit", "40")


TFLITE = {
    "noise": b"\x20\0\0\0TFL3" + np.random.default_rng(1).bytes(3000),
    "a root beyond the end": b"\xff\xff\xff\x7fTFL3" + b"\0" * 64,
    "a table that holds itself": b"\x08\0\0\0TFL3" + b"\x08\0\0\0" * 64,
    "a header": b"\x1c\0\0\0TFL3",
}


@pytest.mark.parametrize("kind", choose_rows(TFLITE))
def test_tflite(run_refused, tmp_path, kind):
    pytest.importorskip("ai_edge_litert")
    (tmp_path / "f.tflite").write_bytes(TFLITE[kind])
    run_refused("assess", "tflite:f.tflite", "--dataset", "digits", "--limit", "40")


# Folders of models


FOLDERS = {
    "weights outside the folder": {"model.safetensors.index.json": {"weight_map": {"a": "../../../etc/passwd"}}},
    "weights that are their own index": {
        "model.safetensors.index.json": {"weight_map": {"a": "model.safetensors.index.json"}}
    },
    "a map of another type": {"model.safetensors.index.json": {"weight_map": ["a", "b"]}},
    "classes without end": {"config.json": {"architecture": "resnet18", "num_classes": 10**12}},
    "classes of a negative number": {"config.json": {"architecture": "resnet18", "num_classes": -3}},
    "an architecture that is a path": {"config.json": {"architecture": "../../../../bin/sh", "num_classes": 10}},
    "code of its own": {"config.json": {"model_type": "x", "auto_map": {"AutoModel": "evil.Model"}}},
    "a list for a configuration": {"config.json": [1, 2, 3]},
    "no configuration": {},
}


@pytest.mark.parametrize("kind", choose_rows(FOLDERS, "code of its own"))
def test_folders(run_refused, tmp_path, kind):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "evil.py").write_text("open('executed', 'w')")
    for name, content in FOLDERS[kind].items():
        (tmp_path / "model" / name).write_text(json.dumps(content))
    if "config.json" not in FOLDERS[kind] and FOLDERS[kind]:
        (tmp_path / "model" / "config.json").write_text('{"architecture": "resnet18", "num_classes": 10}')
    run_refused("assess", "hf:./model", "--dataset", "digits", "--limit", "40")
    assert not (tmp_path / "executed").exists()


# Networks of torch.export and Keras that are large where their files are small


class Filling(torch.nn.Module):
    """Makes a tensor of 160 GB."""

    def forward(self, images):
        return images.flatten(1)[:, :10] + torch.ones(200_000, 200_000).sum()


class Doubling(torch.nn.Module):
    """Joins its input with itself, again and again."""

    def forward(self, images):
        values = images.flatten(1)
        for _ in range(30):
            values = torch.cat([values, values], dim=1)
        return values[:, :10]


@pytest.mark.slow
@pytest.mark.parametrize("network", [Filling, Doubling])
def test_exported(run_refused, tmp_path, network):
    example = torch.zeros(1, 1, 8, 8, device="meta")
    program = torch.export.export(network().to("meta"), (example,))
    torch.export.save(program, tmp_path / "f.pt2")
    run_refused("assess", "exported:f.pt2", "--dataset", "digits", "--limit", "40")


def test_an_archive_of_torch_export_without_a_graph(run_refused, tmp_path):
    with zipfile.ZipFile(tmp_path / "f.pt2", "w") as archive:
        for name, text in {"f/archive_format": "pt2", "f/.data/version": "3", "../../executed": "x"}.items():
            archive.writestr(name, text)
    message = run_refused("assess", "exported:f.pt2", "--dataset", "digits", "--limit", "40")
    assert "warnings above" not in message
    assert not (tmp_path.parent / "executed").exists()


def make_wide(keras):
    return [keras.layers.Flatten(), keras.layers.Dense(7), keras.layers.Dense(10)], {7: 10**9}


def make_large(keras):
    return [keras.layers.UpSampling2D(7), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)], {7: 10**5}


def make_endless(keras):
    return [keras.layers.Flatten(), keras.layers.RepeatVector(7), keras.layers.LSTM(10)], {7: 10**7}


@pytest.mark.slow
@pytest.mark.parametrize("make", [make_wide, make_large, make_endless])
def test_keras(run_refused, tmp_path, monkeypatch, make):
    """A small model, in whose configuration a size is then replaced by a giant one."""
    pytest.importorskip("h5py")
    from securitynet.models.sources.keras import import_keras

    keras = import_keras()
    monkeypatch.setattr("securitynet.first_run.SECONDS", 8)
    layers, giants = make(keras)
    keras.Sequential([keras.Input((8, 8, 1)), *layers]).save(tmp_path / "small.keras")
    with zipfile.ZipFile(tmp_path / "small.keras") as old, zipfile.ZipFile(tmp_path / "f.keras", "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                content = json.dumps(replace_sizes(json.loads(content), giants)).encode()
            new.writestr(name, content)
    run_refused("assess", "keras:f.keras", "--dataset", "digits", "--limit", "40")


def replace_sizes(value, giants):
    if isinstance(value, dict):
        return {name: replace_sizes(part, giants) for name, part in value.items() if name != "build_config"}
    if isinstance(value, list):
        return [replace_sizes(part, giants) for part in value]
    return giants.get(value, value) if isinstance(value, int) and not isinstance(value, bool) else value
