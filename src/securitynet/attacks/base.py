"""The base class of attacks. Each family has one of its own below it, which knows what its attacks return."""

from __future__ import annotations

from typing import ClassVar, Literal

from securitynet.methods.base import Method


class Attack(Method):
    """An attack: what an adversary does to, or infers from, a target."""

    kind: ClassVar[Literal["attack", "detector"]] = "attack"
