"""A Keras model, run on torch: .keras, or .h5 (also written by TensorFlow 2).

The model becomes an ordinary torch module, so white-box work is possible. Keras reads the file in safe mode on its
torch back end, and only after its configuration has been checked: a Lambda layer, a class that Keras does not define,
and a layer that reads further files are refused before anything is built.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import math
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from typing_extensions import override

from securitynet.errors import MissingExtra, ModelError, RefusedFile, UnsafeFile
from securitynet.files import file_checksum
from securitynet.first_run import is_short_of_memory, limit_memory, limit_run_memory, run_once
from securitynet.models.sources._hdf5 import check_self_contained
from securitynet.models.sources.base import NetworkSource, Shape
from securitynet.models.sources.references import ModelReference
from securitynet.models.sources.schemes import Scheme
from securitynet.untrusted import check_archive, describe_size, parse_json

SCHEME = Scheme(
    "keras",
    "keras:model.keras",
    remark="or model.h5",
    network=True,
    file=True,
    suffixes=(".keras", ".h5", ".hdf5"),
    magic=((0, b"\x89HDF\r\n\x1a\n"),),
    members=("config.json", "model.weights.h5"),
)

_CODE = frozenset({"Lambda", "__lambda__", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"})
"""Layers that hold code, or run or unpickle what lies in another place."""
_FILES = frozenset({"StringLookup", "IntegerLookup", "TextVectorization", "IndexLookup"})
"""Layers that may read a vocabulary from any path."""
_LOOPS = frozenset(
    {"RNN", "SimpleRNN", "LSTM", "GRU", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "Bidirectional", "TimeDistributed"}
)
"""Layers that loop over an axis of their input, which may be of any length."""
_MODULES = (
    "keras.layers",
    "keras.models",
    "keras.initializers",
    "keras.regularizers",
    "keras.constraints",
    "keras.activations",
    "keras.dtype_policies",
    "keras.src.models",
)
_EXPORT = "Export the model to ONNX where it was made (tf2onnx, or model.export(FILE, format='onnx'))."


class ChannelsFirst(nn.Module):
    """Passes N×C×H×W images to a Keras model as they are, and tells it whether it is trained."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    @override
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        # Layers of random augmentation are active unless they are told otherwise, also after eval().
        return self.inner(images) if self.training else self.inner(images, training=False)  # type: ignore[no-any-return]


class ChannelsLast(ChannelsFirst):
    """Passes N×C×H×W images to a Keras model that takes N×H×W×C, likewise."""

    @override
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images.permute(0, 2, 3, 1))


def open_source(reference: ModelReference) -> NetworkSource:
    """Load the model of a Keras file, with its weights.

    Raises:
        MissingExtra: If Keras is not installed.
        UnsafeFile: If the file holds code, or names classes that Keras does not define.
        ModelError: If it is missing, damaged, holds weights only, or is not an image classifier.
    """
    path, name = reference.path or Path(reference.name), str(reference.without_folders())
    if not path.is_file():
        raise ModelError(f"There is no Keras file {path}.")
    import_keras()
    config = read_keras_config(path, name)
    check_config(config, name)
    if any(node.get("class_name") in _LOOPS for node in _nodes(config)):
        run_once("securitynet.models.sources._network_trial", path, name, "keras")
    network, channels, size = load_keras(path, name)
    shape = getattr(network, "inner", network).output_shape
    classes = shape[-1] if isinstance(shape, tuple) else None

    def build(_shape: Shape, _keys: frozenset[str]) -> nn.Module:
        return network

    return NetworkSource(
        architecture=f"keras:{file_checksum(path)}",
        build=build,
        num_classes=classes if isinstance(classes, int) else None,
        channels=channels,
        input_size=(size[0], size[1]) if size[0] and size[1] else None,
        fixed_classes=True,
        bring_own=True,
        on_meta=False,
    )


def load_keras(path: Path, reference: str) -> tuple[nn.Module, int | None, tuple[int | None, int | None]]:
    """(network, channels, (height, width)) of a file whose configuration is safe; None where any is taken.

    Raises:
        UnsafeFile: If its configuration is not safe.
        ModelError: If Keras cannot load it, or it does not take images.
    """
    keras = import_keras()
    config = read_keras_config(path, reference)
    check_config(config, reference)
    try:
        # Keras makes the weights that the configuration describes before it looks for them in the file. A thread more
        # would reserve memory too, and could not be started.
        with _use_one_thread(), limit_memory(limit_run_memory(path)):
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except KeyboardInterrupt:
        raise
    except Exception as error:  # Keras raises whatever its layers' constructors do
        if is_short_of_memory(error):
            raise RefusedFile(
                f"{reference} has {describe_size(path.stat().st_size)} and describes a network that takes more than "
                f"{describe_size(limit_run_memory(path))} of memory: it is not built.",
                hint="If you trust it, allow more: securitynet --max-size GIB COMMAND.",
            ) from error
        raise ModelError(
            f"{reference} cannot be loaded by Keras {keras.__version__}: {_first_line(error)}", hint=_EXPORT
        ) from error
    _check_sizes(model, path, reference)
    first = '"data_format": "channels_first"' in json.dumps(config)
    shape = _input_shape(model, reference)
    channels, size = (shape[0], shape[1:]) if first else (shape[2], shape[:2])
    return ChannelsFirst(model) if first else ChannelsLast(model), channels, (size[0], size[1])


def _check_sizes(model: Any, path: Path, reference: str) -> None:
    """Refuse a model one of whose layers returns a larger tensor for one image than a model of that size needs.

    Keras knows these sizes without running anything, unless the model takes images of any size.
    """
    for operation in getattr(model, "operations", []):
        _check_sizes(operation, path, reference)  # a model within the model
        for output in _list_outputs(operation):
            size = 4 * math.prod(length for length in output.shape[1:] if length is not None)
            if size > limit_run_memory(path):
                raise RefusedFile(
                    f"{reference} needs {describe_size(size)} of memory for one image: it is not run.",
                    hint="If you trust it, allow more: securitynet --max-size GIB COMMAND.",
                )


@contextlib.contextmanager
def _use_one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _list_outputs(operation: Any) -> list[Any]:
    try:
        output = operation.output
    except (AttributeError, ValueError):  # a layer that was never called
        return []
    return [tensor for tensor in torch.utils._pytree.tree_leaves(output) if hasattr(tensor, "shape")]


def import_keras() -> Any:
    """Import Keras with its torch back end.

    Raises:
        MissingExtra: If it is not installed.
        ModelError: If it has already been imported with another back end.
    """
    if "keras" not in sys.modules:
        chosen = os.environ.get("KERAS_BACKEND")
        os.environ["KERAS_BACKEND"] = "torch"
        try:
            importlib.import_module("keras")
        except ImportError as error:
            raise MissingExtra("keras", "keras", "Loading a Keras model") from error
        finally:
            # Only this import is ours: programs that are started from here choose for themselves.
            os.environ.pop("KERAS_BACKEND")
            if chosen is not None:
                os.environ["KERAS_BACKEND"] = chosen
    keras = sys.modules["keras"]
    backend = keras.backend.backend()
    if backend != "torch":
        raise ModelError(
            f"Keras has been imported with its {backend} back end, with which a model is not a torch network.",
            hint="Set KERAS_BACKEND=torch before anything imports Keras, or load the model in a separate process.",
        )
    return keras


def check_config(config: Any, reference: str) -> None:
    """Refuse a configuration that needs anything but the classes of Keras.

    Raises:
        UnsafeFile: If it does.
    """
    for node in _nodes(config):
        name = str(node.get("class_name"))
        if name in _CODE or node.get("function_type") == "lambda":
            raise UnsafeFile(
                f"{reference} holds a {name} layer: code from the file, which is not run.",
                hint="Write its computation with Keras' own layers, or export the model to ONNX where it was made.",
            )
        if name in _FILES:
            raise UnsafeFile(f"{reference} holds a {name} layer, which may read other files. That is refused.")
        module, registered = node.get("module"), node.get("registered_name")
        if module == "builtins":
            custom = name != "function" or not isinstance(node.get("config"), str)
        else:
            custom = module is not None and module != "keras" and not str(module).startswith(_MODULES)
        if custom or (isinstance(registered, str) and ">" in registered):
            raise UnsafeFile(
                f"{reference} needs {registered or name}{f' of {module}' if module else ''}, which Keras does not "
                "define: code that is not in the file, or that is not looked for.",
                hint=_EXPORT,
            )


def _nodes(config: Any) -> Iterator[dict[str, Any]]:
    if isinstance(config, dict):
        if "class_name" in config or "function_type" in config:
            yield config
        for value in config.values():
            yield from _nodes(value)
    elif isinstance(config, list):
        for value in config:
            yield from _nodes(value)


def read_keras_config(path: Path, reference: str) -> dict[str, Any]:
    """Read the configuration of the model, without its compilation settings; no layer is made.

    Args:
        path: A ``.keras``, ``.h5`` or ``.hdf5`` file.
        reference: What messages call it.

    Raises:
        ModelError: If it is damaged, or holds weights only.
        UnsafeFile: If it refers to other files.
    """
    try:
        import h5py

        text: Any
        if zipfile.is_zipfile(path):
            check_archive(path)
            with zipfile.ZipFile(path) as archive:
                text = archive.read("config.json")
                for member in archive.namelist():
                    if member.endswith((".h5", ".hdf5")):
                        with h5py.File(io.BytesIO(archive.read(member))) as file:
                            check_self_contained(file, reference)
        else:
            with h5py.File(path) as file:
                check_self_contained(file, reference)
                text = file.attrs.get("model_config")
        if not isinstance(text, str | bytes | None):
            raise ValueError("its configuration is no text")
        config = None if text is None else parse_json(text)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ModelError(
            f"{reference} is not a Keras file, or it is damaged: {_first_line(error)}",
            hint="Compare its size or checksum with its source's, and fetch it again.",
        ) from error
    if not isinstance(config, dict):
        raise ModelError(
            f"{reference} holds weights only, without the model that they belong to.",
            hint="Save the whole model with model.save('model.keras').",
        )
    return {key: value for key, value in config.items() if key not in ("compile_config", "build_config")}


def _input_shape(model: Any, reference: str) -> tuple[Any, ...]:
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4:
        raise ModelError(
            f"{reference} takes inputs of shape {shape}; an image classifier takes one batch of images.",
            hint="Only models with one input of images can be assessed.",
        )
    return shape[1:]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
