"""The base class of backdoor detectors."""

from __future__ import annotations

from typing import ClassVar, Literal

from securitynet.methods.base import Method


class Detector(Method):
    """A backdoor detector: it inspects a model or filters its inputs."""

    kind: ClassVar[Literal["attack", "detector"]] = "detector"
