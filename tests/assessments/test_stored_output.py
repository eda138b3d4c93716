"""Trial files whose arrays another program has changed: the trial runs again, and nothing breaks."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.torch import save_file

import securitynet
from securitynet.models.architectures.factory import build

CHANGES = {
    "lengths": lambda arrays: {**arrays, "scores": arrays["scores"][:3]},
    "dimensions": lambda arrays: {name: np.zeros((2, 2)) for name in arrays},
    "kinds": lambda arrays: {name: np.array(["a"]) for name in arrays},
    "nothing": lambda arrays: {name: values[:0] for name, values in arrays.items() if values.ndim},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_output_is_made_again(change, tmp_path):
    save_file(build("simple-cnn", 10, 1, 8).state_dict(), tmp_path / "w.safetensors")

    def assess():
        return securitynet.assess(
            "arch:simple-cnn", dataset="digits", weights=tmp_path / "w.safetensors", limit=60, attacks=["loss"],
            detectors=["none"], out=tmp_path / "out", normalize="none", device="cpu",
        )  # fmt: skip

    first = assess()
    (path,) = tmp_path.glob("out/trials/*/*.npz")
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **change(arrays))
    again = assess()
    assert again.document.measurements == first.document.measurements
    with np.load(path) as archive:
        assert archive["scores"].shape == arrays["scores"].shape
