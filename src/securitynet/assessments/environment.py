"""The environment of a trial: versions, device, threads."""

from __future__ import annotations

import platform

import numpy as np
import torch

from securitynet.models.targets.target import Target
from securitynet.version import __version__


def read_version() -> str:
    """Return the version of this package."""
    return __version__


def describe_environment(target: Target) -> dict[str, str]:
    """Describe versions and device."""
    device = target.backend.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "securitynet": read_version(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "device": f"{device} ({name})",
        "threads": str(torch.get_num_threads()),
        "system": platform.system(),
    }
