"""An ONNX file as a backend, run by onnxruntime."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from securitynet.errors import MissingExtra, ModelError, TargetError
from securitynet.files import file_checksum
from securitynet.models.targets.backends._external_data import external_files
from securitynet.models.targets.backends._layout import read_layout
from securitynet.models.targets.backends.base import Backend
from securitynet.models.targets.backends.module import suitable_batch

_FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_FLOAT_OUTPUTS = (*_FLOATS, "tensor(double)")


class OnnxBackend(Backend):
    """A graph that onnxruntime runs, on CUDA if that build of onnxruntime is installed, else on the CPU.

    No custom operators are loaded, and weights outside the file's folder are refused.

    Args:
        path: The ``.onnx`` file; external weights lie beside it.
        reference: As the user writes it (``onnx:model.onnx``).
        batch_size: Images a batch; chosen by the size of an image if None. A batch size fixed in the graph is kept
            whatever this says: larger batches are cut, the last one is padded.
        output_name: Which output holds the class scores; by default the first float one with a row per image.

    Attributes:
        input_size: Height and width that the graph fixes, or None.

    Raises:
        MissingExtra: Without onnxruntime.
        ModelError: If the file is absent, damaged, needs custom operators, or is no image classifier.
    """

    def __init__(
        self, path: Path, *, reference: str, batch_size: int | None = None, output_name: str | None = None
    ) -> None:
        self.path = Path(path)
        self.reference = reference
        files = external_files(self.path, reference)
        self.checksum = _checksum(self.path, files)
        self._session = _session(self.path, reference)
        self._read_input()
        self._read_output(output_name)
        example = None if self.input_size is None else (self.channels or 3, *self.input_size)
        self._batch_size = batch_size or suitable_batch(example, torch.device("cpu"))

    @property
    def batch_size(self) -> int:
        """Images a batch."""
        return self._batch_size

    def outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        """See `Backend.outputs`.

        Raises:
            TargetError: If the graph does not take these inputs, or returns something other than a row for each.
        """
        images = self._layout.arrange(inputs.detach().float().cpu().contiguous().numpy(), self.reference)
        step = self._layout.batch or max(1, len(images))
        rows = [self._run(images[start : start + step]) for start in range(0, len(images), step)]
        outputs = torch.from_numpy(np.concatenate(rows)) if rows else torch.empty(0, self.num_classes or 0)
        self.num_classes = outputs.shape[1]
        return outputs

    def _run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        feed = self._layout.padded(images).astype(self._dtype, copy=False)
        try:
            (result,) = self._session.run([self._output], {self._input: feed})
        except Exception as error:  # onnxruntime's exceptions have no common base but this
            shape = "×".join(map(str, images.shape[1:]))
            raise TargetError(
                f"{self.reference} does not take a batch of {len(feed)} inputs of shape {shape}: {_reason(error)}",
                hint="Set the size it was exported for with --input-size, or a smaller --batch-size.",
            ) from error
        result = np.asarray(result)
        if result.ndim > 2 and set(result.shape[2:]) == {1}:  # N×K×1×1: a classifier that ends in a pooling layer
            result = result.reshape(result.shape[:2])
        if result.ndim != 2 or len(result) != len(feed):
            raise TargetError(
                f"{self.reference} returns {'×'.join(map(str, result.shape))} as {self._output!r} for {len(feed)} "
                "images, not one row of class scores per image."
            )
        rows: NDArray[np.float32] = result[: len(images)].astype(np.float32)
        return rows

    def _read_input(self) -> None:
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            names = ", ".join(i.name for i in inputs) or "none"
            raise ModelError(f"{self.reference} takes {len(inputs)} inputs ({names}); an image classifier takes one.")
        self._input = inputs[0].name
        if inputs[0].type not in _FLOATS:
            raise ModelError(
                f"{self.reference} takes {inputs[0].type}; images are fed as float32 or float16.",
                hint="Export the network without the conversion from bytes; --normalize bytes feeds 0 to 255.",
            )
        self._dtype = _FLOATS[inputs[0].type]
        self._layout = read_layout(inputs[0].shape, self.reference)
        self.channels = self._layout.channels
        self.input_size = self._layout.size

    def _read_output(self, wanted: str | None) -> None:
        outputs = {output.name: output for output in self._session.get_outputs()}
        listed = ", ".join(f"{name} {output.type} {output.shape}" for name, output in outputs.items())
        if wanted is not None and wanted not in outputs:
            raise ModelError(f"{self.reference} has no output {wanted!r}.", hint=f"It has: {listed}.")
        usable = [name for name, output in outputs.items() if _is_scores(output)]
        if wanted is None and not usable:
            raise ModelError(
                f"{self.reference} has no float output with one row of class scores per image.",
                hint=f"Its outputs: {listed}.",
            )
        self._output = wanted or usable[0]
        if outputs[self._output].type not in _FLOAT_OUTPUTS:
            raise ModelError(
                f"The output {self._output!r} of {self.reference} is {outputs[self._output].type}, not floats."
            )
        shape = outputs[self._output].shape
        self.num_classes = shape[1] if len(shape) >= 2 and isinstance(shape[1], int) else None


def _is_scores(output: Any) -> bool:
    shape = output.shape
    return output.type in _FLOAT_OUTPUTS and (len(shape) == 2 or (len(shape) > 2 and set(shape[2:]) == {1}))


def _session(path: Path, reference: str) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtra("onnxruntime", "onnx", "Running an ONNX file") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: what matters comes as an exception
    options.intra_op_num_threads = torch.get_num_threads()
    cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"] if cuda else ["CPUExecutionProvider"]
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime's exceptions have no common base but this
        reason = _reason(error)
        if "is not a registered function/op" in reason or "No Op registered" in reason:
            raise ModelError(
                f"{reference} uses an operator that onnxruntime does not have: {reason}",
                hint="Custom operators are code and are not loaded; export the network with standard operators.",
            ) from error
        raise ModelError(f"{reference} cannot be loaded by onnxruntime: {reason}") from error


def _checksum(path: Path, external: list[Path]) -> str:
    whole = file_checksum(path)
    if not external:
        return whole
    return hashlib.sha256("/".join([whole, *map(file_checksum, external)]).encode()).hexdigest()


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
