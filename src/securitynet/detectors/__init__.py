"""Backdoor detectors, one file each: they inspect a model or filter its inputs."""

from securitynet.registry import Registry

DETECTORS = Registry("detector", package="securitynet.detectors", base="Detector")
