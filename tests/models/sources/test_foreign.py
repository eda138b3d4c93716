"""Models of other libraries are refused with the line that leads on."""

import pickle

import pytest
from sklearn.linear_model import LogisticRegression

from securitynet.errors import ModelError
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
