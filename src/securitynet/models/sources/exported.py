"""A graph written by torch.export (.pt2), provided that the archive holds no code to execute."""

from __future__ import annotations

import fnmatch
import io
import logging
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from typing_extensions import override

from securitynet import untrusted
from securitynet.errors import ModelError, RefusedFile, UnsafeFile
from securitynet.files import file_checksum
from securitynet.first_run import limit_run_memory, run_once
from securitynet.models.sources.base import NetworkSource, OpaqueNetwork, Shape
from securitynet.models.sources.references import ModelReference
from securitynet.models.sources.schemes import Scheme

SCHEME = Scheme(
    "exported",
    "exported:model.pt2",
    network=True,
    file=True,
    suffixes=(".pt2",),
    members=("*/models/*.json", "*/archive_format"),
)

_CODE = ("*.so", "*.cpp", "*.cubin", "*.py", "*.pyc", "*/data/aotinductor/*", "*.dll", "*.dylib")
_PICKLES = ("*.pt", "*.pkl", "*custom_obj*")
_OPERATORS = ("torch.ops.aten.", "torch.ops.prim", "torch.ops.higher_order.", "_operator.", "torch.sym_")
_SIZES = re.compile(
    r"(?:Symbol\('[su]\d+'(?:, (?:positive|nonnegative|integer)=True)*\)"
    r"|\b(?:[su]\d+|Max|Min|Mod|FloorDiv|CeilDiv|PythonMod|Pow)\b|[\d\s+*/%(),.<>=-])+"
)
_TRIAL = "securitynet.models.sources._network_trial"
_USUAL_SIZE = 32
_LOG = logging.getLogger("torch.export")
_ONNX = "Export the network to ONNX where it was made: torch.onnx.export(model, example, 'model.onnx')."


def open_source(reference: ModelReference) -> NetworkSource:
    """Load the network of a torch.export archive, with its weights.

    Raises:
        UnsafeFile: If the archive holds compiled code, custom objects, or pickles of anything but tensors.
        ModelError: If it is missing, damaged, or of a format too old for this version of torch.
    """
    path, name = reference.path or Path(reference.name), str(reference.without_folders())
    if not path.is_file():
        raise ModelError(f"There is no file {path}.")
    loops = check_exported(path, name)
    if loops:
        run_once(_TRIAL, path, name, "exported")
    network, channels, size = load_exported(path, name)
    try:
        _check_sizes(network, (1, channels or 3, size[0] or _USUAL_SIZE, size[1] or _USUAL_SIZE), path, name)
    except RefusedFile:
        raise
    except Exception:  # an operator whose output's shape depends on values
        run_once(_TRIAL, path, name, "exported")

    def build(_shape: Shape, _keys: frozenset[str]) -> nn.Module:
        return network

    return NetworkSource(
        architecture=f"exported:{file_checksum(path)}",
        build=build,
        channels=channels,
        input_size=(size[0], size[1]) if size[0] and size[1] else None,
        fixed_classes=True,
        bring_own=True,
        on_meta=False,
    )


def load_exported(path: Path, reference: str) -> tuple[nn.Module, int | None, tuple[int | None, int | None]]:
    """(network, channels, (height, width)) of an archive that `check_exported` has accepted; None where any is taken.

    Raises:
        ModelError: If torch cannot load it, or it does not take images.
    """
    logged = _KeepErrors()
    _LOG.addFilter(logged)
    try:
        program = torch.export.load(str(path))
        network: nn.Module = OpaqueNetwork(program.module(check_guards=False), has_modes=False)
    except Exception as error:  # torch.export's reader raises almost any type of error on damaged files
        reason = " ".join(str(logged.errors[0] if logged.errors else error).split()) or type(error).__name__
        raise ModelError(
            f"{reference} cannot be loaded by torch {torch.__version__}: {reason[:300]}", hint=_ONNX
        ) from error
    finally:
        _LOG.removeFilter(logged)
    _, channels, height, width = _input_shape(program, reference)
    return network, channels, (height, width)


class _KeepErrors(logging.Filter):
    """Keeps the errors that torch.export would log with a traceback before it raises another, which says less."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[BaseException] = []

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        if not record.exc_info or record.exc_info[1] is None:
            return True
        self.errors.append(record.exc_info[1])
        return False


class _LimitSizes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raises `RefusedFile` where an operator returns a larger tensor than a model of that size needs."""

    def __init__(self, limit: int, reference: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._limit, self._reference = limit, reference

    @override
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = func(*args, **(kwargs or {}))
        for output in torch.utils._pytree.tree_leaves(outputs):
            if isinstance(output, torch.Tensor) and output.numel() * output.element_size() > self._limit:
                raise RefusedFile(
                    f"{self._reference} needs {untrusted.describe_size(output.numel() * output.element_size())} of "
                    "memory for one image: it is not run.",
                    hint="If you trust it, allow more: securitynet --max-size GIB COMMAND.",
                )
        return outputs


def _check_sizes(network: nn.Module, shape: tuple[int, ...], path: Path, reference: str) -> None:
    """Run a network on tensors without values, to learn their sizes."""
    with FakeTensorMode(allow_non_fake_inputs=True), _LimitSizes(limit_run_memory(path), reference), torch.no_grad():
        network(torch.empty(shape))


def check_exported(path: Path, reference: str) -> bool:
    """Refuse an archive that holds anything to execute.

    Returns:
        Whether its graph holds loops or other operators that run graphs of their own.

    Raises:
        UnsafeFile: If it holds code.
        ModelError: If it is not an archive.
    """
    loops = False
    try:
        untrusted.check_archive(path)
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            code = [entry for entry in names if any(fnmatch.fnmatch(entry, pattern) for pattern in _CODE)]
            if code:
                raise UnsafeFile(
                    f"{reference} holds compiled code ({code[0].rpartition('/')[2]}), which is not run.", hint=_ONNX
                )
            for entry in names:
                if fnmatch.fnmatch(entry, "*/models/*.json"):
                    text = archive.read(entry)
                    _check_graph(untrusted.parse_json(text), reference)
                    loops |= b"torch.ops.higher_order." in text
                if any(fnmatch.fnmatch(entry, pattern) for pattern in _PICKLES):
                    _check_pickle(archive.read(entry), entry, reference)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise ModelError(f"{reference} is not an archive of torch.export, or it is damaged.", hint=_ONNX) from error
    return loops


def _check_graph(node: Any, reference: str) -> None:
    """Refuse expressions other than size arithmetic, which torch passes to an evaluator, and foreign operators."""
    if isinstance(node, list):
        for value in node:
            _check_graph(value, reference)
        return
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        if key == "expr_str" and not (isinstance(value, str) and _SIZES.fullmatch(value)):
            raise UnsafeFile(
                f"{reference} holds an expression that is more than arithmetic of sizes ({str(value)[:60]!r}): torch "
                "would evaluate it as code, so it is refused.",
                hint=_ONNX,
            )
        if key == "target" and isinstance(value, str) and not value.startswith(_OPERATORS):
            raise UnsafeFile(f"{reference} uses {value}, which is not an operator of torch itself.", hint=_ONNX)
        _check_graph(value, reference)


def _check_pickle(content: bytes, entry: str, reference: str) -> None:
    if not content:
        return
    try:
        torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except Exception as error:  # whatever it is, it does not hold plain tensors
        raise UnsafeFile(
            f"{reference} holds {entry.rpartition('/')[2]}, which is more than tensors: reading it would execute code "
            "from the file, so it is refused.",
            hint=_ONNX,
        ) from error


def _input_shape(program: Any, reference: str) -> list[int | None]:
    inputs = [node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    value = inputs[0].meta.get("val") if len(inputs) == 1 else None
    if not isinstance(value, torch.Tensor) or value.ndim != 4:
        raise ModelError(f"{reference} does not take one batch of images: it has {len(inputs)} inputs.")
    return [size if isinstance(size, int) else None for size in value.shape]
