"""A first run of an ONNX graph in a process of its own, whose time and memory are limited.

A few bytes of a graph can ask for an endless loop or for a tensor of terabytes; onnxruntime even computes constants
while it opens a file. A graph with operators that can do so is therefore opened and run once where that does no harm.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from securitynet.errors import RefusedFile
from securitynet.untrusted import describe_size, max_growth

UNBOUNDED = frozenset(
    {
        "Loop", "Scan", "SequenceMap",
        "ConstantOfShape", "Expand", "Tile", "Range", "Pad", "Resize", "Upsample", "OneHot", "EyeLike", "NonZero",
        "RandomNormal", "RandomUniform", "MaxUnpool", "ConvTranspose", "ScatterND", "Einsum",
    }
)  # fmt: skip
"""Operators whose time or memory is not bounded by the size of the file and its inputs."""

_SECONDS = 25
_OUT_OF_MEMORY = 3
_USUAL_SIZE = 32


def try_graph(path: Path, reference: str) -> None:
    """Open a graph and run it on one image in another process.

    Other errors than those below are left to the caller, who opens the graph again.

    Args:
        path: The ONNX file.
        reference: Reference of the model, for messages.

    Raises:
        RefusedFile: If the graph does not end in time, or needs too much memory.
    """
    limit = (1 << 30) + max_growth(path.stat().st_size)
    command = [sys.executable, "-m", __name__, str(path.absolute()), str(limit)]
    try:
        done = subprocess.run(command, timeout=_SECONDS, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    except subprocess.TimeoutExpired:
        raise RefusedFile(
            f"{reference} does not return an output for one image within {_SECONDS} seconds: a loop in its graph may "
            "never end.",
            hint="Export the network without loops.",
        ) from None
    if done.returncode == _OUT_OF_MEMORY:
        raise RefusedFile(
            f"{reference} needs more than {describe_size(limit)} of memory for one image: it is not run.",
            hint="If you trust it, allow more: securitynet --max-size GIB COMMAND.",
        )


def _run(path: str, limit: int) -> int:
    import numpy as np
    import onnxruntime

    _limit_memory(limit)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        feed: dict[str, Any] = {}
        for entry in session.get_inputs():
            shape = [size if isinstance(size, int) else _guess(axis) for axis, size in enumerate(entry.shape)]
            kind = {"tensor(float16)": "f2", "tensor(double)": "f8", "tensor(uint8)": "u1", "tensor(int8)": "i1"}
            feed[entry.name] = np.zeros(shape, dtype=kind.get(entry.type, "f4"))
        session.run(None, feed)
    except MemoryError:
        return _OUT_OF_MEMORY
    except Exception as error:  # onnxruntime's exceptions have no common base but this
        words = str(error).lower()
        short = any(part in words for part in ("bad_alloc", "failed to allocate", "bad allocation", "out of memory"))
        return _OUT_OF_MEMORY if short else 1
    return 0


def _limit_memory(size: int) -> None:
    """Let this process take so many bytes more than it has, where the system knows such limits."""
    try:
        import resource

        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + size, held + size))
    except (ImportError, OSError, ValueError):  # Windows and macOS: the time limit remains
        pass


def _guess(axis: int) -> int:
    return (1, 3, _USUAL_SIZE, _USUAL_SIZE)[axis] if axis < 4 else 1


if __name__ == "__main__":
    sys.exit(_run(sys.argv[1], int(sys.argv[2])))
