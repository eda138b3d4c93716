"""Files that hold a whole model, with its graph: ONNX, Keras and TFLite. Graphs are read as data; nothing is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from securitynet.catalog.known import find_family_codes
from securitynet.errors import ModelError
from securitynet.models.sources.keras import check_config, read_keras_config
from securitynet.models.targets.backends._layout import read_layout
from securitynet.models.targets.backends._onnx_graph import read_graph
from securitynet.models.targets.backends.tflite import read_tflite_details
from securitynet.scan.candidates import Evidence

WHOLE = 0.97
"""Confidence that a file which holds a graph can be loaded by itself."""

_NAMED = 0.85
_WIDTHS = ("units", "filters")


def describe_model_file(path: Path) -> list[Evidence]:
    """What the graph in a file says: reference, class count, input shape, and the architecture if it bears a name.

    Args:
        path: A file with one of the suffixes of `READERS`.

    Raises:
        MissingExtra: If the library that reads this kind of file is not installed.
        ModelError: If it is damaged, needs code to run, or is not a classifier of images.
    """
    scheme, read = READERS[path.suffix.lower()]
    name, inputs, classes = read(path)
    layout = read_layout([None, *inputs], path.name)
    reason = f"the graph in the file ({scheme})"
    values: dict[str, Any] = {
        "reference": f"{scheme}:{path}",
        "classes": max(classes, 2),  # one output is the score of the second of two classes
        "image_channels": layout.channels,
        "head": "classifier",
        "task_type": "classification",
    }
    if layout.size is not None:
        values |= {"image_height": layout.size[0], "image_width": layout.size[1]}
    evidence = [
        Evidence(code=code, value=value, reason=reason, confidence=WHOLE)
        for code, value in values.items()
        if value is not None
    ]
    for text, where in ((name, "the graph's name"), (path.stem, "the file's name")):
        if find_family_codes(text):
            reason = f"{where}, {text}"
            evidence.append(Evidence(code="architecture", value=text.lower(), reason=reason, confidence=_NAMED))
            break
    return evidence


def _read_onnx(path: Path) -> tuple[str, list[int | None], int]:
    graph = read_graph(path, path.name).graph
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [_sizes(value) for value in graph.input if value.name not in stored]
    outputs = [_sizes(value) for value in graph.output]
    return str(graph.name), _images(inputs, path), _scores(outputs, path)


def _sizes(value: Any) -> list[int | None]:
    return [int(size.dim_value) or None for size in value.type.tensor_type.shape.dim]


def _images(inputs: Sequence[Sequence[int | None]], path: Path) -> list[int | None]:
    images = [list(shape[1:]) for shape in inputs if len(shape) == 4]
    if len(inputs) != 1 or not images:
        raise ModelError(f"{path.name} does not take one batch of images.")
    return images[0]


def _scores(outputs: Sequence[Sequence[int | None]], path: Path) -> int:
    rows = [shape[1] for shape in outputs if len(shape) == 2 and shape[1]]
    if not rows or rows[0] is None:
        raise ModelError(f"{path.name} does not return a row of class scores for each image.")
    return rows[0]


def _read_keras(path: Path) -> tuple[str, list[int | None], int]:
    config = read_keras_config(path, path.name)
    check_config(config, path.name)
    layers = list(_layers(config))
    shapes = (layer.get("batch_input_shape", layer.get("batch_shape")) for layer in layers)
    images = next((list(shape[1:]) for shape in shapes if isinstance(shape, list) and len(shape) == 4), None)
    if images is None:
        raise ModelError(f"{path.name} does not take one batch of images.")
    widths = [layer[name] for layer in layers for name in _WIDTHS if isinstance(layer.get(name), int)]
    if not widths:
        raise ModelError(f"{path.name} has no layer that could return class scores.")
    inner = config.get("config")
    name = inner.get("name", "") if isinstance(inner, dict) else ""
    return str(name), images, widths[-1]


def _layers(config: Any) -> Iterator[dict[str, Any]]:
    """The settings of each layer, in the order of the file."""
    if isinstance(config, dict):
        inner = config.get("config")
        if "class_name" in config and isinstance(inner, dict):
            yield inner
        for value in config.values():
            yield from _layers(value)
    elif isinstance(config, list):
        for value in config:
            yield from _layers(value)


def _read_tflite(path: Path) -> tuple[str, list[int | None], int]:
    inputs, outputs = read_tflite_details(path, path.name)
    return "", _images(inputs, path), _scores(outputs, path)


READERS: dict[str, tuple[str, Callable[[Path], tuple[str, list[int | None], int]]]] = {
    ".onnx": ("onnx", _read_onnx),
    ".h5": ("keras", _read_keras),
    ".hdf5": ("keras", _read_keras),
    ".keras": ("keras", _read_keras),
    ".tflite": ("tflite", _read_tflite),
    ".lite": ("tflite", _read_tflite),
}
"""Suffix -> scheme of the reference, and what reads (the graph's name, sizes of an input image, classes)."""
