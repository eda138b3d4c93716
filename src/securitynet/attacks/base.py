"""The base class of attacks. Each family derives its own base class, which defines what its attacks return."""

from __future__ import annotations

from typing import ClassVar, Literal

from securitynet.methods.base import Method


class Attack(Method):
    """An attack: something that an adversary does to a target or infers from it."""

    kind: ClassVar[Literal["attack", "detector"]] = "attack"
