"""Planted backdoors, one file each: they poison a training set, to measure what detectors find."""

from securitynet.registry import Registry

BACKDOORS = Registry("implant", package="securitynet.backdoors", base="Implant")
