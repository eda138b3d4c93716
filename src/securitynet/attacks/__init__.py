"""Attacks, one file each, in one folder per family. The registry finds them; no other file needs to be edited."""

from securitynet.registry import Registry

ATTACKS = Registry("attack", package="securitynet.attacks", base="Attack")
