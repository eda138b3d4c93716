"""Backdoors, one file each: they poison a training set, so that detectors can be measured."""

from securitynet.registry import Registry

BACKDOORS = Registry("backdoor", package="securitynet.backdoors", base="Backdoor")
