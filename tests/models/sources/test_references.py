"""Parsing of model references."""

import pytest

from securitynet.errors import ConfigurationError
from securitynet.models.sources.references import parse_reference
from securitynet.models.sources.schemes import SCHEMES


@pytest.mark.parametrize(
    ("text", "scheme", "name", "detail"),
    [
        ("timm:resnet18.a1_in1k", "timm", "resnet18.a1_in1k", None),
        ("torchvision:resnet50", "torchvision", "resnet50", None),
        ("torchvision:resnet50@IMAGENET1K_V2", "torchvision", "resnet50", "IMAGENET1K_V2"),
        ("pytorchcv:resnet20_cifar10", "pytorchcv", "resnet20_cifar10", None),
        ("hf:owner/name", "hf", "owner/name", None),
        ("hf:owner/name@v1.0", "hf", "owner/name", "v1.0"),
        ("arch:cifar-resnet20", "arch", "cifar-resnet20", None),
        ("python:a/b.py:make", "python", "a/b.py", "make"),
        ("python:C:/models/b.py:make", "python", "C:/models/b.py", "make"),
        ("catalog:0123abcd", "catalog", "0123abcd", None),
        ("onnx:a b/model.onnx", "onnx", "a b/model.onnx", None),
        ("http://localhost:8000/v2/models/m", "http", "http://localhost:8000/v2/models/m", None),
        ("https://example.org/predict", "https", "https://example.org/predict", None),
        ("outputs:recorded.npz", "outputs", "recorded.npz", None),
        ("  timm:resnet18 ", "timm", "resnet18", None),
    ],
)
def test_forms(text, scheme, name, detail):
    reference = parse_reference(text)
    assert (reference.scheme, reference.name, reference.detail) == (scheme, name, detail)
    assert str(reference) == text.strip()
    assert parse_reference(str(reference)) == reference


def test_every_scheme_has_an_example_that_parses():
    for scheme in SCHEMES.schemes:
        assert parse_reference(scheme.form).scheme == scheme.name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tim:resnet18", "Did you mean timm:"),
        ("Torchvision:resnet18", "Did you mean torchvision:"),
        ("resnet18", "Did you mean arch:resnet18"),
        ("owner/name", "Did you mean hf:owner/name"),
        ("folder/model.onnx", "Did you mean onnx:folder/model.onnx"),
        ("model.npz", "Did you mean outputs:model.npz"),
        ("net.py", "Did you mean python:net.py:FACTORY"),
        ("resnet20.th", "arch:cifar-resnet20 --weights resnet20.th"),
        ("", "A model is written"),
        ("quite:else", "A model is written"),
        ("arch:", "names no model"),
        ("python:net.py", "which function"),
        ("python:net.py:not a name", "which function"),
        ("hf:name", "owner/name"),
        ("hf:a/b/c", "owner/name"),
        ("ftp://host/model", "Endpoints are written"),
        ("http:host", "not an address"),
        ("file:///home/me/a%20b.onnx", "Write /home/me/a b.onnx"),
        ("onnx:file:///home/me/a.onnx", "Write onnx:/home/me/a.onnx"),
        ("http://", "Endpoints are written"),
    ],
)
def test_what_is_not_understood_says_what_may_be_meant(text, expected):
    with pytest.raises(ConfigurationError) as caught:
        parse_reference(text)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("content", "right"), [(b"\x89HDF\r\n\x1a\n" + bytes(20), "keras"), (bytes(4) + b"TFL3" + bytes(20), "tflite")]
)
def test_a_file_of_another_kind_is_said_to_be_that(tmp_path, content, right):
    path = tmp_path / "model"
    path.write_bytes(content)
    assert parse_reference(f"{right}:{path}").scheme == right
    for wrong in {"keras", "tflite", "onnx"} - {right}:
        with pytest.raises(ConfigurationError, match="another kind of model") as caught:
            parse_reference(f"{wrong}:{path}")
        assert caught.value.hint == f"Write {right}:{path}."
    path.write_bytes(b"PK\x03\x04" + bytes(20))  # a new Keras file is a zip archive; its own reader says what is wrong
    assert parse_reference(f"keras:{path}").scheme == "keras"


def test_passwords_in_addresses_are_refused_and_not_repeated():
    with pytest.raises(ConfigurationError) as caught:
        parse_reference("http://user:s3cret@host/predict")
    assert "s3cret" not in str(caught.value)
    assert "SECURITYNET_HTTP_TOKEN" in str(caught.value)


@pytest.mark.parametrize(
    ("record", "hint"),
    [
        ('{"architecture": "simple-cnn"}', "Write arch:simple-cnn --weights"),
        ('{"architecture": "timm:resnet18"}', "Write timm:resnet18 --weights"),
        ('{"architecture": "x; rm -r ~"}', "Write 'arch:x; rm -r ~' --weights"),
        ('{"architecture": 5}', "Write for example arch:cifar-resnet20"),
        ("[" * 100_000, "Write for example arch:cifar-resnet20"),
        (None, "Write for example arch:cifar-resnet20"),
    ],
)
def test_weights_alone_hint_at_the_network_of_their_record(tmp_path, record, hint):
    weights = tmp_path / "m.safetensors"
    weights.write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    if record is not None:
        weights.with_suffix(".json").write_text(record)
    with pytest.raises(ConfigurationError) as caught:
        parse_reference(str(weights))
    assert hint in caught.value.hint


def test_an_address_of_brackets_is_none():
    with pytest.raises(ConfigurationError, match="not an address"):
        parse_reference("http://[::1/v2/models/toy")
