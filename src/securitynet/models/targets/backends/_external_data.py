"""Which other files an ONNX file loads its weights from. A file may name any path; only its own folder is allowed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from securitynet.errors import ModelError
from securitynet.models.targets.backends._onnx_graph import read_graph


def list_external_files(path: Path, reference: str, model: Any = None) -> list[Path]:
    """List the files with external weights of an ONNX model, sorted by name; most models have none.

    Args:
        path: The ONNX file.
        reference: Reference of the model, for messages.
        model: The graph as returned by `read_graph`, if it has been read already.

    Raises:
        MissingExtra: If the package onnx is not installed.
        ModelError: If ``path`` is not an ONNX file, or names a file that is missing or outside its folder.
    """
    if model is None:
        model = read_graph(path, reference)
    import onnx

    locations = {
        entry.value
        for tensor in _tensors(model)
        for entry in tensor.external_data
        if tensor.data_location == onnx.TensorProto.EXTERNAL and entry.key == "location"
    }
    return [_allowed(path, location, reference) for location in sorted(locations)]


def _allowed(path: Path, location: str, reference: str) -> Path:
    """The file at a location that stays inside the model's folder.

    A link out of the folder is allowed only if it leads where the model file's own link leads, as in download caches.
    """
    parts = {*PurePosixPath(location).parts, *PureWindowsPath(location).parts}
    absolute = PurePosixPath(location).is_absolute() or PureWindowsPath(location).drive != ""
    file = path.parent / location
    homes = (path.parent.resolve(), path.resolve().parent)
    if absolute or ".." in parts or not any(file.resolve().is_relative_to(home) for home in homes):
        raise ModelError(
            f"{reference} names a file outside its own folder as its weights: {location!r}. That is refused.",
            hint="Put the weights beside the .onnx file, or save it with its weights inside.",
        )
    if not file.is_file():
        raise ModelError(f"{reference} needs its weights from {location!r}, which is not beside it.")
    return file


def _tensors(model: Any) -> Iterator[Any]:
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)


def _graph_tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Any) -> Iterator[Any]:
    for node in nodes:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for graph in (attribute.g, *attribute.graphs):
                yield from _graph_tensors(graph)
