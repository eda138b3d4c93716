"""What an ONNX graph declares about its outputs, and the changes to the graph that onnxruntime needs."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from securitynet.errors import MissingExtra, ModelError
from securitynet.untrusted import check_regular

_OLDEST = 7
"""The oldest opset that onnxruntime supports."""
_TRIED = (_OLDEST, 9, 11, 13, 17)
_SMALL = 1 << 10
_LONGEST = 1500
_LARGEST = 1 << 31


@dataclass(frozen=True)
class GraphOutput:
    """How the class scores are computed from an output of a graph.

    Attributes:
        name: Name of the tensor to request.
        before_sigmoid: Whether the tensor is the input of a sigmoid at the end of the graph.
        scale: Factor of an integer output, applied after ``zero`` has been subtracted; None for floats.
        zero: Zero point of an integer output; None for floats.
    """

    name: str
    before_sigmoid: bool = False
    scale: NDArray[np.float32] | None = None
    zero: NDArray[np.float32] | None = None


def read_graph(path: Path, reference: str) -> Any:
    """Read the model of a file as protobuf, without external weights.

    Raises:
        MissingExtra: If the package onnx is not installed.
        ModelError: If ``path`` is not an ONNX file.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise MissingExtra("onnx", "onnx", "Reading an ONNX file") from error
    check_regular(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise ModelError(f"The ONNX file {path} {what}.")
    if path.stat().st_size == 0:
        raise ModelError(f"{reference} is an empty file.")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except DecodeError as error:
        raise ModelError(
            f"{reference} is not an ONNX file, or it is damaged: {str(error)[:200]}",
            hint="Compare its size and checksum with those of its source, and fetch it again.",
        ) from error
    if not model.graph.node:
        raise ModelError(f"{reference} holds no graph: it is not an ONNX file, or it is damaged.")
    return model


def may_grow(model: Any, limit: int) -> bool:
    """Whether running a graph on one image may take more memory than a limit, as far as its shapes tell.

    A few nodes that join or multiply their inputs make a tensor of any size out of small ones. Functions may call each
    other so often that no machine can list their nodes.

    Args:
        model: From `read_graph`.
        limit: The largest size of a tensor in bytes.
    """
    from onnx import shape_inference

    if model.functions:
        return True
    try:
        graph = shape_inference.infer_shapes(_drop_weights(model)).graph
    except Exception:  # its errors have no common base; onnxruntime may think otherwise
        return True
    known = {value.name: value.type.tensor_type for value in (*graph.value_info, *graph.output)}
    for name in (name for node in graph.node for name in node.output if name):
        if name not in known or not known[name].HasField("shape"):
            return True
        axes = known[name].shape.dim
        if any(not axis.HasField("dim_value") for axis in axes[1:]):
            return True
        if 4 * math.prod(axis.dim_value or 1 for axis in axes) > limit:
            return True
    return False


def _drop_weights(model: Any) -> Any:
    """The model without the values of large tensors; those of small ones may be a shape that a node reads."""
    from onnx import ModelProto, TensorProto

    bare = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = model.graph
    bare.graph.name = graph.name
    bare.graph.node.extend(graph.node)
    bare.graph.input.extend(graph.input)
    bare.graph.output.extend(graph.output)
    for tensor in graph.initializer:
        large = len(tensor.raw_data) > _SMALL
        bare.graph.initializer.append(
            TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type) if large else tensor
        )
    return bare


def convert_opset(model: Any) -> list[bytes]:
    """Convert a graph whose opset is too old for onnxruntime to a newer one; empty if no conversion is needed."""
    from onnx import version_converter

    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), _OLDEST)
    if opset >= _TRIED[-1]:
        return []
    converted = []
    for version in _TRIED:
        if version <= opset:
            continue
        try:
            converted.append(version_converter.convert_version(model, version).SerializeToString())
        except Exception:  # the converter's errors have no common base; another version may do
            continue
    return converted


def find_output(model: Any, name: str) -> GraphOutput:
    """Find how to compute the class scores of an output: before a final sigmoid, or from quantised integers."""
    producer = _producers(model).get(name)
    if producer is None:
        return GraphOutput(name)
    if producer.op_type == "QuantizeLinear":
        from onnx import numpy_helper

        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        wanted = list(producer.input[1:])
        if wanted and all(entry in constants for entry in wanted):
            scale = constants[wanted[0]].astype(np.float32)
            zero = constants[wanted[1]].astype(np.float32) if len(wanted) > 1 else np.zeros_like(scale)
            return GraphOutput(name, scale=scale, zero=zero)
    if producer.op_type == "Sigmoid":
        return GraphOutput(producer.input[0], before_sigmoid=True)
    return GraphOutput(name)


def expose(model: Any, name: str) -> bytes | None:
    """Add one more output to the graph; None if the graph is too large to be serialised in one piece."""
    import onnx

    if model.ByteSize() >= _LARGEST:
        return None
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    if name not in {output.name for output in changed.graph.output}:
        changed.graph.output.append(onnx.ValueInfoProto(name=name))
    content: bytes = changed.SerializeToString()
    return content


def ends_in_sigmoid(model: Any, name: str) -> bool:
    """Whether an output is computed by a sigmoid, possibly reshaped afterwards."""
    producers = _producers(model)
    node = producers.get(name)
    while node is not None and node.op_type in ("Flatten", "Reshape", "Squeeze", "Identity", "Cast"):
        node = producers.get(node.input[0])
    return node is not None and node.op_type == "Sigmoid"


def describe_onnx_error(error: Exception) -> str:
    """The message of an onnxruntime error on one line, without the location in onnxruntime's own source."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"Load model from \S+ failed: ?", "", text)
    text = re.sub(r"/onnxruntime_src/\S+ (?:[\w:]*onnxruntime::[^()]*\([^)]*\) )?", "", text)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def list_operators(model: Any) -> set[str]:
    """The types of all operators in a model, including those in its functions, loops and branches."""
    waiting = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    operators = set()
    while waiting:
        node = waiting.pop()
        operators.add(node.op_type)
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                waiting += graph.node
    return operators


def _producers(model: Any) -> dict[str, Any]:
    return {output: node for node in model.graph.node for output in node.output}
