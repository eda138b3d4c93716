"""The first run of a Keras file or of a torch.export archive; see `securitynet.first_run`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from securitynet.first_run import limit_run
from securitynet.models.sources import exported, keras

_USUAL_SIZE = 32


def _run(path: str) -> None:
    load = keras.load_keras if sys.argv[3] == "keras" else exported.load_exported
    network, channels, size = load(Path(path), sys.argv[3])
    with torch.inference_mode():
        network(torch.zeros(1, channels or 3, size[0] or _USUAL_SIZE, size[1] or _USUAL_SIZE))


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[3] == "keras":
        keras.import_keras()
    sys.exit(limit_run(_run))
