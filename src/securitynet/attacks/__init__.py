"""Attacks, one file each, in a folder per family. The registry finds them; nothing else needs an edit."""

from securitynet.registry import Registry

ATTACKS = Registry("attack", package="securitynet.attacks", base="Attack")
