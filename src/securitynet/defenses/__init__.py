"""Defenses, one file each: they change how a target is trained, or its outputs."""

from securitynet.registry import Registry

DEFENSES = Registry("defense", package="securitynet.defenses", base="Defense")
