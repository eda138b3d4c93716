"""The first run of a TFLite graph; see `securitynet.first_run`."""

from __future__ import annotations

import sys

from securitynet.first_run import limit_run


def _run(path: str) -> None:
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path, num_threads=1)
    interpreter.allocate_tensors()
    for entry in interpreter.get_input_details():
        interpreter.set_tensor(entry["index"], np.zeros(entry["shape"], entry["dtype"]))
    interpreter.invoke()


if __name__ == "__main__":
    import ai_edge_litert.interpreter  # noqa: F401 (see `limit_run`)

    sys.exit(limit_run(_run))
