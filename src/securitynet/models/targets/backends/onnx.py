"""An ONNX file, run by onnxruntime."""

from __future__ import annotations

import hashlib
import mmap
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import override

from securitynet.errors import MissingExtra, ModelError, TargetError
from securitynet.files import file_checksum, hash_stably
from securitynet.first_run import limit_run_memory, run_once
from securitynet.models.sources.preprocessing import Preprocessing
from securitynet.models.sources.references import ModelReference
from securitynet.models.sources.schemes import Scheme
from securitynet.models.targets.backends import _onnx_trial
from securitynet.models.targets.backends._external_data import list_external_files
from securitynet.models.targets.backends._layout import read_layout
from securitynet.models.targets.backends._onnx_graph import (
    GraphOutput,
    convert_opset,
    describe_onnx_error,
    ends_in_sigmoid,
    expose,
    find_output,
    list_operators,
    may_grow,
    read_graph,
)
from securitynet.models.targets.backends.base import Backend, LoadOptions, OpenedModel
from securitynet.models.targets.backends.module import choose_batch
from securitynet.models.targets.outputs import expand_single

SCHEME = Scheme("onnx", "onnx:path.onnx", file=True, suffixes=(".onnx",), options=("output",))

_FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
_BYTES = {"tensor(uint8)": (np.uint8, 0), "tensor(int8)": (np.int8, -128)}
"""Types of inputs that take bytes 0 to 255, and what is added to them."""
_INTEGERS = (*_BYTES, "tensor(int32)")


class OnnxBackend(Backend):
    """An ONNX graph run by onnxruntime, on CUDA if the installed build supports it, else on the CPU.

    No custom operators are loaded, and weights outside the file's folder are refused.

    Args:
        path: The ``.onnx`` file; external weights lie beside it.
        reference: Reference as the user writes it (``onnx:model.onnx``).
        batch_size: Images per batch; chosen by image size if None. A batch size fixed in the graph takes precedence:
            larger batches are divided, and the last one is padded.
        output_name: Output that holds the class scores; by default the one whose rows have ``classes`` entries, else
            the first float output with a row per image.
        classes: Number of classes of the dataset, if known.

    Attributes:
        input_size: Height and width that the graph fixes, or None.
        takes_bytes: Whether the graph takes integers 0 to 255, so that it contains its own preprocessing.
        notes: Choices and changes that were made.

    Raises:
        MissingExtra: If onnxruntime is not installed.
        ModelError: If the file is absent, damaged, needs custom operators, or is not an image classifier.
    """

    def __init__(
        self,
        path: Path,
        *,
        reference: str,
        batch_size: int | None = None,
        output_name: str | None = None,
        classes: int | None = None,
    ) -> None:
        self.path = Path(path)
        self.reference = reference
        self.notes: list[str] = []
        graph = read_graph(self.path, reference)
        files = list_external_files(self.path, reference, graph)
        self.checksum = _checksum(self.path, files)
        if _holds(self.path, b"DynamicQuantizeLinear"):
            self.rounding = 5e-2  # its steps are as fine as the values of the whole batch allow
        if list_operators(graph) & _onnx_trial.UNBOUNDED or may_grow(graph, limit_run_memory(self.path)):
            run_once(_onnx_trial.__name__, self.path, reference)
        self._session = self._open(graph)
        self._read_input()
        self._choose_output(output_name, classes, graph, files)
        example = None if self.input_size is None else (self.channels or 3, *self.input_size)
        self._batch_size = batch_size or choose_batch(example, torch.device("cpu"))

    @classmethod
    @override
    def open(cls, reference: ModelReference, options: LoadOptions) -> OpenedModel:
        path = reference.path or Path(reference.name)
        backend = cls(
            path,
            reference=str(reference.without_folders()),
            batch_size=options.batch_size,
            output_name=options.output,
            classes=options.num_classes or options.expected_classes,
        )
        preprocessing = Preprocessing(input_size=backend.input_size) if backend.takes_bytes else None
        return OpenedModel(backend, preprocessing, input_size=backend.input_size, notes=tuple(backend.notes))

    @property
    def batch_size(self) -> int:
        """Images per batch."""
        return self._batch_size

    def outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        """Run the graph.

        Args:
            inputs: N×C×H×W float32, on any device.

        Raises:
            TargetError: If the graph rejects these inputs, or does not return one row for each.
        """
        images = self._layout.arrange(inputs.detach().float().cpu().contiguous().numpy(), self.reference)
        step = self._layout.batch or max(1, len(images))
        rows = [self._run(images[start : start + step]) for start in range(0, len(images), step)]
        outputs = torch.from_numpy(np.concatenate(rows)) if rows else torch.empty(0, self.num_classes or 0)
        self.num_classes = outputs.shape[1]
        return outputs

    def _run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        feed = self._layout.padded(images)
        feed = self._as_bytes(feed) if self.takes_bytes else feed.astype(self._dtype, copy=False)
        try:
            (result,) = self._session.run([self._output.name], {self._input: feed})
        except Exception as error:  # onnxruntime's exceptions have no common base but this
            shape = "×".join(map(str, images.shape[1:]))
            raise TargetError(
                f"{self.reference} does not take a batch of {len(feed)} inputs of shape {shape}: "
                f"{describe_onnx_error(error)}",
                hint="Set the size it was exported for with --input-size, or a smaller --batch-size.",
            ) from error
        result = np.asarray(result)
        if result.ndim > 2 and set(result.shape[2:]) == {1}:  # N×K×1×1: a classifier that ends in a pooling layer
            result = result.reshape(result.shape[:2])
        if result.ndim == 1 and len(result) == len(feed):
            result = result[:, None]
        if result.ndim != 2 or len(result) != len(feed):
            raise TargetError(
                f"{self.reference} returns {'×'.join(map(str, result.shape))} as {self._output.name!r} for {len(feed)} "
                "images, not one row of class scores per image.",
                hint="Choose another of its outputs with --output NAME.",
            )
        rows: NDArray[np.float32] = result[: len(images)].astype(np.float32)
        if self._output.scale is not None and self._output.zero is not None:
            rows = (rows - self._output.zero) * self._output.scale
        if rows.shape[1] == 1:
            rows = expand_single(torch.from_numpy(rows), "probability" if self._probability else "logit").numpy()
        return rows

    def _as_bytes(self, images: NDArray[np.float32]) -> NDArray[Any]:
        low, high = (float(images.min()), float(images.max())) if images.size else (0.0, 1.0)
        if low < -1e-3 or high > 1 + 1e-3:
            raise TargetError(
                f"{self.reference} takes bytes, and is given values from {low:.3g} to {high:.3g}.",
                hint="It normalises the images itself: leave --normalize out.",
            )
        dtype, offset = self._byte_type
        integers: NDArray[Any] = (np.rint(images.clip(0, 1) * 255) + offset).astype(dtype)
        return integers

    def _open(self, graph: Any) -> Any:
        try:
            return _session(self.path, self.reference, self.path.parent)
        except ModelError:
            for content in convert_opset(graph):
                try:
                    session = _session(content, self.reference, self.path.parent)
                except ModelError:
                    continue
                self.notes.append("its opset is older than onnxruntime supports: it was converted to a newer one.")
                return session
            raise

    def _read_input(self) -> None:
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            names = ", ".join(i.name for i in inputs) or "none"
            raise ModelError(f"{self.reference} takes {len(inputs)} inputs ({names}); an image classifier takes one.")
        self._input = inputs[0].name
        kind = inputs[0].type
        if kind not in _FLOATS and kind not in _BYTES:
            raise ModelError(f"{self.reference} takes {kind}; images are fed as floats or as bytes.")
        self.takes_bytes = kind in _BYTES
        self._byte_type = _BYTES.get(kind, (np.uint8, 0))
        self._dtype = _FLOATS.get(kind, np.float32)
        if self.takes_bytes:
            words = "bytes 0 to 255" if kind == "tensor(uint8)" else "bytes less 128"
            self.notes.append(f"the graph takes {words}; what normalises them is inside it.")
        self._layout = read_layout(inputs[0].shape, self.reference)
        self.channels = self._layout.channels
        self.input_size = self._layout.size

    def _choose_output(self, wanted: str | None, classes: int | None, graph: Any, files: list[Path]) -> None:
        outputs = {output.name: output for output in self._session.get_outputs()}
        listed = ", ".join(f"{name} {output.type} {output.shape}" for name, output in outputs.items())
        if wanted is not None and wanted not in outputs:
            raise ModelError(
                f"{self.reference} has no output {wanted!r}.", hint=f"Its outputs, for --output: {listed}."
            )
        graph_outputs = {name: find_output(graph, name) for name in outputs}
        usable = [name for name, output in outputs.items() if _is_scores(output, graph_outputs[name])]
        fitting = [name for name in usable if _width(outputs[name]) == classes is not None]
        if wanted is None and not usable:
            raise ModelError(
                f"{self.reference} has no float output with one row of class scores per image.",
                hint=f"Its outputs, for --output: {listed}. Attacks need posteriors or logits of all classes: export "
                "the network without the ArgMax or TopK at its end.",
            )
        name = wanted or (fitting or usable)[0]
        if not _is_numeric(outputs[name], graph_outputs[name]):
            raise ModelError(f"The output {name!r} of {self.reference} is {outputs[name].type}, not floats.")
        if len(usable) > 1 and wanted is None:
            others = ", ".join(other for other in usable if other != name)
            self.notes.append(f"the class scores are its output {name!r}, not {others} (--output chooses).")
        self._output = graph_outputs[name]
        self._probability = ends_in_sigmoid(graph, name)
        width = _width(outputs[name])
        if self._output.before_sigmoid:
            content = None if files else expose(graph, self._output.name)
            if content is None:
                self._output = GraphOutput(name)
            else:
                self._session = _session(content, self.reference, self.path.parent)
                self._probability = False
                self.notes.append("the graph ends in a sigmoid; scores are the logits before it.")
        if width == 1:
            self.notes.append("one output for two classes: it is the score of class 1.")
        self.num_classes = 2 if width == 1 else width
        if name != (usable or [name])[0] or self._output.before_sigmoid:
            # Signals are cached by it: another output of the same file is another target.
            self.checksum = hash_stably([self.checksum, self._output.name], 64)


def _width(output: Any) -> int | None:
    """Length of a row of an output, if declared."""
    shape = output.shape
    if len(shape) == 1:
        return 1
    return shape[1] if len(shape) >= 2 and isinstance(shape[1], int) else None


def _is_numeric(output: Any, source: GraphOutput) -> bool:
    return output.type in _FLOATS or (output.type in _INTEGERS and source.scale is not None)


def _is_scores(output: Any, source: GraphOutput) -> bool:
    shape = output.shape
    rows = len(shape) == 2 or (len(shape) > 2 and set(shape[2:]) == {1})
    return rows and _is_numeric(output, source)


def _session(model: Path | bytes, reference: str, folder: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtra("onnxruntime", "onnx", "Running an ONNX file") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors come as exceptions; the log prints names in the file as they are
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"] if cuda else ["CPUExecutionProvider"]
    try:
        return onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model), options, providers=providers
        )
    except Exception as error:  # onnxruntime's exceptions have no common base but this
        words = describe_onnx_error(error)
        if "is not a registered function/op" in words or "No Op registered" in words:
            raise ModelError(
                f"{reference} uses an operator that onnxruntime does not have: {words}",
                hint="Custom operators are code and are not loaded; export the network with standard operators.",
            ) from error
        raise ModelError(
            f"{reference} cannot be loaded by onnxruntime {onnxruntime.__version__}: {words}",
            hint="Export the network again for an opset and IR version that it supports.",
        ) from error


def _holds(path: Path, words: bytes) -> bool:
    """Whether a graph contains an operator whose name contains one of the words."""
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(words) >= 0


def _checksum(path: Path, external: list[Path]) -> str:
    whole = file_checksum(path)
    if not external:
        return whole
    return hashlib.sha256("/".join([whole, *map(file_checksum, external)]).encode()).hexdigest()
