"""A TorchScript program, run only if the user trusts its file (--trust)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from securitynet.errors import ModelError
from securitynet.files import file_checksum
from securitynet.models.sources.base import NetworkSource, OpaqueNetwork, Shape
from securitynet.models.sources.references import ModelReference
from securitynet.models.sources.schemes import Scheme

SCHEME = Scheme(
    "torchscript",
    "torchscript:model.pt",
    remark="with --trust",
    network=True,
    file=True,
    members=("*/code/*", "*/constants.pkl"),
    options=("trust",),
    trust="lets torch.jit run the program in this file with your rights: give it only if you made the file yourself, "
    "or trust who made it as you would trust a program. Without it: export the network to ONNX, or give its weights.",
)


def open_source(reference: ModelReference) -> NetworkSource:
    """Load the program of a TorchScript file as a network. Whether it may run was decided earlier.

    Raises:
        ModelError: If the file is missing or damaged.
    """
    path, name = reference.path or Path(reference.name), str(reference.without_folders())
    if not path.is_file():
        raise ModelError(f"There is no TorchScript file {path}.")
    try:
        script = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, OSError) as error:
        raise ModelError(
            f"{name} is not a TorchScript file, or it is damaged: {str(error).strip().splitlines()[0][:300]}"
        ) from error

    network = OpaqueNetwork(script, has_modes=True)

    def build(_shape: Shape, _keys: frozenset[str]) -> nn.Module:
        return network

    return NetworkSource(
        architecture=f"torchscript:{file_checksum(path)}",
        build=build,
        fixed_classes=True,
        bring_own=True,
        on_meta=False,
    )
