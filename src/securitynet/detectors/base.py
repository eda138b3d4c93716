"""The base class of backdoor detectors."""

from __future__ import annotations

from typing import ClassVar, Literal

from securitynet.methods.base import Context, Gallery, Method, Output, TrialData

__all__ = ["Context", "Detector", "Gallery", "Output", "TrialData"]


class Detector(Method):
    """A backdoor detector: it inspects a model, or filters its inputs."""

    kind: ClassVar[Literal["attack", "detector"]] = "detector"
