"""A TFLite model, run by LiteRT (ai-edge-litert); black-box only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import override

from securitynet.errors import MissingExtra, ModelError, TargetError
from securitynet.files import file_checksum
from securitynet.first_run import run_once
from securitynet.models.sources.references import ModelReference
from securitynet.models.sources.schemes import Scheme
from securitynet.models.targets.backends import _tflite_trial
from securitynet.models.targets.backends._layout import read_layout
from securitynet.models.targets.backends.base import Backend, LoadOptions, OpenedModel
from securitynet.models.targets.backends.module import choose_batch
from securitynet.models.targets.outputs import expand_single

SCHEME = Scheme("tflite", "tflite:model.tflite", file=True, suffixes=(".tflite", ".lite"), magic=((4, b"TFL3"),))


class TfliteBackend(Backend):
    """A TFLite graph, float or quantised.

    Inputs of a quantised graph are rounded to its integers with the scale and zero point in the file, and its outputs
    are converted back in the same way. Preprocessing is therefore the same for a graph and its quantised form.

    Args:
        path: The ``.tflite`` file.
        reference: Reference as the user writes it.
        batch_size: Images per batch; chosen by image size if None.

    Attributes:
        input_size: Height and width that the graph fixes, or None.
        notes: Properties that were read from the graph.

    Raises:
        MissingExtra: If ai-edge-litert is not installed.
        ModelError: If the file is absent, damaged, needs custom operators, or is not an image classifier.
    """

    def __init__(self, path: Path, *, reference: str, batch_size: int | None = None) -> None:
        self.reference = reference
        self.notes: list[str] = []
        if not path.is_file():
            raise ModelError(f"There is no TFLite file {path}.")
        self.checksum = file_checksum(path)
        # LiteRT says too little about a graph to tell which ones end soon, so all are tried.
        run_once(_tflite_trial.__name__, path, reference)
        self._interpreter = _interpreter(path, reference)
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        if len(inputs) != 1:
            raise ModelError(f"{reference} takes {len(inputs)} inputs; an image classifier takes one.")
        rows = [output for output in outputs if len(output["shape"]) == 2]
        if len(rows) != 1:
            raise ModelError(
                f"{reference} has {len(rows)} outputs with one row of class scores per image; one is expected.",
                hint="Convert the model again with that output only.",
            )
        self._input, self._output = inputs[0], rows[0]
        shape = self._input.get("shape_signature", self._input["shape"])
        self._layout = read_layout([None, *(int(size) for size in shape[1:])], reference)
        self.channels, self.input_size = self._layout.channels, self._layout.size
        width = int(self._output["shape"][1])
        self.num_classes = max(width, 2)
        if width == 1:
            self.notes.append("one output for two classes: it is the score of class 1.")
        if self._input["dtype"] != np.float32:
            self.notes.append(f"the graph is quantised: inputs are rounded to {np.dtype(self._input['dtype']).name}.")
        example = None if self.input_size is None else (self.channels or 3, *self.input_size)
        self._batch_size = batch_size or choose_batch(example, torch.device("cpu"))
        self._prepared = 0
        self._unit = width == 1 and self._is_unit()

    @classmethod
    @override
    def open(cls, reference: ModelReference, options: LoadOptions) -> OpenedModel:
        path = reference.path or Path(reference.name)
        backend = cls(path, reference=str(reference.without_folders()), batch_size=options.batch_size)
        return OpenedModel(backend, input_size=backend.input_size, notes=tuple(backend.notes))

    @property
    def batch_size(self) -> int:
        """Images per batch."""
        return self._batch_size

    @override
    def outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        images = self._layout.arrange(inputs.detach().float().cpu().contiguous().numpy(), self.reference)
        if not len(images):
            return torch.empty(0, self.num_classes or 0)
        rows = torch.from_numpy(self._run(images))
        return expand_single(rows, "probability" if self._unit else "logit") if rows.shape[1] == 1 else rows

    def _run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            if self._prepared != len(images):
                self._interpreter.resize_tensor_input(self._input["index"], list(images.shape))
                self._interpreter.allocate_tensors()
                self._prepared = len(images)
            self._interpreter.set_tensor(self._input["index"], _quantised(images, self._input))
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            shape = "×".join(map(str, images.shape[1:]))
            raise TargetError(
                f"{self.reference} does not take a batch of {len(images)} inputs of shape {shape}: "
                f"{' '.join(str(error).split())}",
                hint="Set the size it was made for with --input-size, or --batch-size 1.",
            ) from error
        result = self._interpreter.get_tensor(self._output["index"])
        if len(result) != len(images):
            raise TargetError(f"{self.reference} returns {len(result)} rows for {len(images)} images.")
        return _dequantised(result, self._output)

    def _is_unit(self) -> bool:
        """Whether the single score is a probability: it stays in [0, 1] for inputs from very small to very large."""
        height, width = self.input_size or (32, 32)
        images = np.random.default_rng(0).normal(size=(4, self.channels or 3, height, width)).astype(np.float32)
        images *= np.array([0.1, 1, 30, 300], np.float32)[:, None, None, None]
        scores = self._run(self._layout.arrange(images, self.reference))
        return bool(((scores >= 0) & (scores <= 1)).all())


def _interpreter(path: Path, reference: str, *, allocate: bool = True) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise MissingExtra("ai-edge-litert", "tflite", "Running a TFLite model") from error
    try:
        interpreter = Interpreter(model_path=str(path), num_threads=torch.get_num_threads())
        if allocate:
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ModelError(
            f"{reference} cannot be loaded by LiteRT: {' '.join(str(error).split())[:600]}",
            hint="Models with custom or TensorFlow operators need code that is not run; convert with built-in ones.",
        ) from error
    return interpreter


def read_tflite_details(path: Path, reference: str) -> tuple[list[list[int | None]], list[list[int | None]]]:
    """Read the shapes of the inputs and of the outputs of a TFLite file; None stands for "any". The graph is not run.

    Args:
        path: The file.
        reference: What messages call it.

    Raises:
        MissingExtra: If ai-edge-litert is not installed.
        ModelError: If the file is damaged or needs custom operators.
    """
    interpreter = _interpreter(path, reference, allocate=False)
    shapes = (
        [tensor.get("shape_signature", tensor["shape"]) for tensor in details]
        for details in (interpreter.get_input_details(), interpreter.get_output_details())
    )
    inputs, outputs = ([[size if size > 0 else None for size in map(int, shape)] for shape in part] for part in shapes)
    return inputs, outputs


def _quantised(values: NDArray[np.float32], tensor: dict[str, Any]) -> NDArray[Any]:
    """Convert real numbers to the integers of a tensor of the graph."""
    dtype = np.dtype(tensor["dtype"])
    if dtype.kind == "f":
        return values.astype(dtype)
    scale, zero = tensor["quantization"]
    limits = np.iinfo(dtype)
    integers: NDArray[Any] = np.rint(values / (scale or 1.0) + zero).clip(limits.min, limits.max).astype(dtype)
    return integers


def _dequantised(values: NDArray[Any], tensor: dict[str, Any]) -> NDArray[np.float32]:
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    scale, zero = tensor["quantization"]
    numbers: NDArray[np.float32] = ((values.astype(np.float32) - zero) * (scale or 1.0)).astype(np.float32)
    return numbers
