"""Models of other libraries are refused with the line that leads on."""

import pickle

import pytest
import torch
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression

from securitynet.errors import ModelError
from securitynet.models.loading.load import load_target
from securitynet.models.sources.references import parse_reference


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("m.pkl", pickle.dumps(LogisticRegression()), r"skl2onnx.*outputs:recorded\.npz"),
        ("renamed", pickle.dumps(LogisticRegression()), "skl2onnx"),
        ("m.json", b'{"learner":{"gradient_booster":{}}}', "onnxmltools"),
        ("m.msgpack", b"\x81", "jax2onnx"),
    ],
)
def test_files(name, content, said, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=said):
        parse_reference(str(tmp_path / name))


def test_a_saved_model_of_tensorflow(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"x")
    with pytest.raises(ModelError, match="tf2onnx"):
        parse_reference(str(tmp_path))


@pytest.mark.parametrize(
    ("pretrained", "told"),
    [
        ('{"input_size": [3, -1, 1e9]}', "input_size"),
        ('{"std": [0, 0, 0]}', "std"),
        ('{"mean": [NaN, 0, 0]}', "mean"),
        ('{"crop_pct": "x"}', "float"),
        ("5", "iterable"),
    ],
)
def test_a_configuration_of_values_that_mean_nothing(pretrained, told, tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    config = f'{{"architecture": "resnet18", "num_classes": 10, "pretrained_cfg": {pretrained}}}'
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ModelError, match=f"mean nothing: .*{told}"):
        load_target(f"hf:{tmp_path}")
