"""Hostile inputs, one a row: each ends with exit code 1 and one clear message, soon and in little memory."""

from __future__ import annotations

import contextlib
import json
import os
import zipfile

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import save_file

from securitynet.models.sources.weights import read_weights
from securitynet.untrusted import MAX_SIZE_VARIABLE

STUDY = 'name = "a"\n[[models]]\nreference = "arch:simple-cnn"\n[[attacks]]\nname = "correctness"\n'


def assess(*options):
    return ("assess", "arch:simple-cnn", "--dataset", "digits", *options)


# Files


def zero_strides(path):
    torch.save({"layer.weight": torch.zeros(1).expand(10**5, 10**5)}, path)


def shared_storage(path):
    values = torch.zeros(1000, 1000)
    torch.save({f"layer{number}.weight": values for number in range(1000)}, path)


def no_values(path):
    torch.save({"layer.weight": torch.empty(10**6, 10**6, device="meta")}, path)


def deflated(path):
    plain = path.with_suffix(".plain")
    torch.save({"layer.weight": torch.zeros(5_000_000)}, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))


def zeros(path):
    np.savez_compressed(path, posteriors=np.zeros((10**6, 10), np.float32), labels=np.zeros(10, int))


def lying_header(path):
    header = b"\x93NUMPY\x01\x00" + b"\x76\x00"
    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000000000,), }"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("posteriors.npy", header + text.ljust(0x75) + b"\n")


def encrypted(path):
    """An archive whose members say that they need a password."""
    np.savez(path, posteriors=np.zeros((2, 2)))
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(signature)
        while at >= 0:
            content[at + offset] |= 1
            at = content.find(signature, at + 1)
    path.write_bytes(content)


def nested_key(path):
    """A header that is no array's, but an expression of great depth."""
    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': " + b"(" * 4000 + b")" * 4000 + b"}"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("posteriors.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)


def one_value(path):
    """Parquet with one value in ten million rows, in a few kilobytes."""
    table = pyarrow.table({"p0": pyarrow.array(np.zeros(10**7, np.float32)), "label": np.zeros(10**7, np.int8)})
    pyarrow.parquet.write_table(table, path, compression="zstd", row_group_size=10**7)


def nested_toml(path):
    path.write_text("a = " + "[" * 5000 + "]" * 5000)


def nested_json(path):
    path.write_text("[" * 100_000)


def holes(path):
    path.touch()
    os.truncate(path, 10**11)


def pipe(path):
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "arguments", "words"),
    [
        (zero_strides, assess("--weights", "f"), "would take 37.3 GiB of memory"),
        (shared_storage, assess("--weights", "f"), "would take 3.7 GiB of memory"),
        (no_values, assess("--weights", "f"), "without values"),
        (deflated, assess("--weights", "f"), "would take 19.1 MiB of memory"),
        (holes, ("assess", "onnx:f", "--dataset", "digits"), "a file with holes"),
        (holes, ("assess", "outputs:f.npz"), "a file with holes"),
        (pipe, assess("--weights", "f"), "is a pipe"),
        (pipe, assess("--members", "f", "--weights", "w"), "is a pipe"),
        (pipe, assess("--policy", "f"), "is a pipe"),
        (pipe, assess("--config", "f"), "is a pipe"),
        (pipe, ("assess", "f", "--dataset", "digits"), "is a pipe"),
        (pipe, ("assess", "onnx:f", "--dataset", "digits"), "is a pipe"),
        (pipe, ("assess", "outputs:f"), "is a pipe"),
        (pipe, ("study", "plan", "f"), "is a pipe"),
        (pipe, ("catalog", "import", "f"), "is a pipe"),
        (pipe, ("catalog", "agreement", "f"), "is a pipe"),
        (zeros, ("assess", "outputs:f.npz"), "would take"),
        (lying_header, ("assess", "outputs:f.npz"), "announces an array of"),
        (encrypted, ("assess", "outputs:f.npz"), "encrypted"),
        (nested_key, ("assess", "outputs:f.npz"), "damaged"),
        (one_value, ("assess", "outputs:f"), "would take"),
        (nested_toml, ("study", "plan", "f"), "nested too deeply"),
        (nested_toml, assess("--config", "f"), "nested too deeply"),
        (nested_toml, assess("--policy", "f"), "nested too deeply"),
    ],
)  # fmt: skip
def test_files_that_grow_or_never_end(run_refused, tmp_path, make, arguments, words):
    make(tmp_path / next(argument.rpartition(":")[2] for argument in arguments if argument.endswith(("f", "f.npz"))))
    assert words in run_refused(*arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        assess("--weights", "/dev/zero"),
        assess("--members", "/dev/zero"),
        assess("--config", "/dev/zero"),
        ("assess", "/dev/zero", "--dataset", "digits"),
        ("assess", "keras:/dev/zero", "--dataset", "digits"),
        ("assess", "tflite:/dev/zero", "--dataset", "digits"),
        ("assess", "exported:/dev/zero", "--dataset", "digits"),
        ("assess", "outputs:/dev/zero"),
        ("study", "plan", "/dev/zero"),
        ("study", "plan", "/proc/kmsg"),
        assess("--weights", "/proc/self/mem"),
        ("study", "run", "/dev/zero"),
        ("catalog", "import", "/dev/zero"),
        ("catalog", "agreement", "/dev/zero"),
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_devices(run_refused, arguments):
    run_refused(*arguments)


def test_a_hub_folder_with_a_deep_configuration(run_refused, tmp_path):
    (tmp_path / "model").mkdir()
    nested_json(tmp_path / "model" / "config.json")
    assert "cannot be read" in run_refused("assess", "hf:./model", "--dataset", "digits")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"embed_dim": 3 << 16}, "of memory"),
        ({"depth": 10**9}, "which no network has"),
        ({"embed_dim": 200_000}, "cannot be built as described"),
        ({"no_such_setting": 1}, "cannot be built as described"),
    ],
    ids=["wide", "deep", "contradiction", "unknown"],
)
def test_a_hub_folder_that_describes_a_giant(run_refused, tmp_path, settings, words):
    (tmp_path / "model").mkdir()
    config = {"architecture": "vit_tiny_patch16_224", "num_classes": 10, "model_args": settings}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    save_file({"head.weight": torch.zeros(10, 192)}, tmp_path / "model" / "model.safetensors")
    assert words in run_refused("assess", "hf:./model", "--dataset", "digits")


def test_a_model_record_that_is_too_deep(run_refused, tmp_path):
    torch.save({"layer.weight": torch.zeros(2, 2)}, tmp_path / "w.pth")
    (tmp_path / "w.json").write_text('{"format": "securitynet-trained-model", "history": ' + "[" * 100_000)
    assert "nested too deeply" in run_refused(*assess("--weights", "w.pth"))


def test_names_do_not_command_the_terminal(run_refused, tmp_path):
    name = "\x1b]52;c;ZXZpbA==\x07\x1b[2J\x9b31m.toml"
    assert "\\x1b]52" in run_refused("study", "plan", name)
    (tmp_path / name).write_text("a = [")
    assert "\\x1b]52" in run_refused("study", "plan", name)


def test_long_names_make_no_long_messages(run_refused, tmp_path):
    (tmp_path / "s.toml").write_text(STUDY.replace("arch:simple-cnn", "arch:" + "x" * 10**6))
    run_refused("study", "plan", "s.toml")


def test_more_is_read_where_the_user_says_so(run_refused, tmp_path, monkeypatch):
    deflated(tmp_path / "f")
    run_refused("--max-size", "1", "study", "plan", "absent.toml")
    assert os.environ[MAX_SIZE_VARIABLE] == "1.0"
    assert read_weights(tmp_path / "f").tensors["layer.weight"].shape == (5_000_000,)
    monkeypatch.setenv(MAX_SIZE_VARIABLE, "much")
    assert "is not a size" in run_refused(*assess("--weights", "f"))


# Graphs


def save_graph(path, nodes, **constants):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    values = {"w": np.zeros((64, 10), np.float32), **constants}
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["z"]), *nodes(helper)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def loop(helper):
    from onnx import TensorProto

    def value(name, kind=TensorProto.FLOAT, shape=("n", 10)):
        return helper.make_tensor_value_info(name, kind, shape)

    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Identity", ["v"], ["v2"])],
        "body",
        [value("i", TensorProto.INT64, []), value("c", TensorProto.BOOL, []), value("v")],
        [value("c2", TensorProto.BOOL, []), value("v2")],
    )
    return [helper.make_node("Loop", ["trips", "yes", "z"], ["y"], body=body)]


def fill(helper):
    return [
        helper.make_node("ConstantOfShape", ["shape"], ["big"]),
        helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0),
        helper.make_node("Add", ["z", "sum"], ["y"]),
    ]


def test_a_loop_that_never_ends(run_refused, tmp_path, monkeypatch):
    monkeypatch.setattr("securitynet.first_run.SECONDS", 2)
    save_graph(tmp_path / "loop.onnx", loop, trips=np.array(2**62), yes=np.array(True))
    assert "a loop in its graph may never end" in run_refused("assess", "onnx:loop.onnx", "--dataset", "digits")


def test_a_constant_that_fills_the_memory(run_refused, tmp_path):
    save_graph(tmp_path / "fill.onnx", fill, shape=np.array([2**33]))
    assert "of memory for one image" in run_refused("assess", "onnx:fill.onnx", "--dataset", "digits")


def test_graphs_with_bounded_loops_run(tmp_path):
    from securitynet.models.targets.backends.onnx import OnnxBackend

    save_graph(tmp_path / "few.onnx", loop, trips=np.array(3), yes=np.array(True))
    outputs = OnnxBackend(tmp_path / "few.onnx", reference="onnx:few.onnx").outputs(torch.rand(2, 1, 8, 8))
    assert outputs.shape == (2, 10) and not outputs.any()


def test_a_report_of_a_deep_document(run_refused, tmp_path):
    (tmp_path / "results" / "trials" / "ab").mkdir(parents=True)
    nested_json(tmp_path / "results" / "trials" / "ab" / "abcd.json")
    run_refused("report", "results")


def test_json_documents_keep_their_content():
    from securitynet.untrusted import parse_json

    assert parse_json(json.dumps({"a": [1, None]})) == {"a": [1, None]}
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json("[" * 100_000)
    for depth, passes in ((150, True), (300, False)):
        text = '{"a": ' * depth + "[]" + "}" * depth
        for document in (text, text.encode()):
            with contextlib.nullcontext() if passes else pytest.raises(ValueError, match="nested too deeply"):
                parse_json(document)
