"""The first run of an ONNX graph with operators that may take any time or memory; see `securitynet.first_run`.

onnxruntime even computes constants while it opens a file.
"""

from __future__ import annotations

import sys
from typing import Any

from securitynet.first_run import limit_run

UNBOUNDED = frozenset(
    {
        "Loop", "Scan", "SequenceMap",
        "ConstantOfShape", "Expand", "Tile", "Range", "Pad", "Resize", "Upsample", "OneHot", "EyeLike", "NonZero",
        "RandomNormal", "RandomUniform", "MaxUnpool", "ConvTranspose", "ScatterND", "Einsum",
    }
)  # fmt: skip
"""Operators whose time or memory is not bounded by the size of the file and its inputs."""

_USUAL_SIZE = 32


def _run(path: str) -> None:
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed: dict[str, Any] = {}
    for entry in session.get_inputs():
        shape = [size if isinstance(size, int) else _guess(axis) for axis, size in enumerate(entry.shape)]
        kind = {"tensor(float16)": "f2", "tensor(double)": "f8", "tensor(uint8)": "u1", "tensor(int8)": "i1"}
        feed[entry.name] = np.zeros(shape, dtype=kind.get(entry.type, "f4"))
    session.run(None, feed)


def _guess(axis: int) -> int:
    return (1, 3, _USUAL_SIZE, _USUAL_SIZE)[axis] if axis < 4 else 1


if __name__ == "__main__":
    import onnxruntime  # noqa: F401 (see `limit_run`)

    sys.exit(limit_run(_run))
