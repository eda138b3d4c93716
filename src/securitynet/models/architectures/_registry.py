"""The registry of architectures: those of files and plug-ins, and those that this process was given as objects."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from typing_extensions import override

from securitynet.errors import ModelError, UnknownName
from securitynet.registry import Entry, Registry

_OBJECT = re.compile(r".+@[0-9a-f]{12}")
"""How the name of an architecture ends that was given as an object: in a digest of its content."""


class ArchitectureRegistry(Registry):
    """Architectures by name. Objects are found by their names, but not listed: no other process has them."""

    def __init__(self, table: dict[str, tuple[str, str]]) -> None:
        super().__init__("architecture", table)
        self._objects: dict[str, Callable[..., Any]] = {}

    def add(self, label: str, digest: str, make: Callable[..., Any]) -> str:
        """Make a factory available in this process.

        Args:
            label: Of the factory or the network's class.
            digest: Twelve hexadecimal digits that stand for all that decides the network.
            make: Takes ``num_classes``, ``channels`` and ``image_size``.

        Returns:
            The name, ``label@digest``.
        """
        name = f"{label}@{digest}"
        self._objects[name] = make
        return name

    def is_object(self, name: str) -> bool:
        """Whether an architecture was given as an object in this process."""
        return name in self._objects

    @override
    def resolve(self, name: str) -> Entry:
        if name in self._objects:
            return Entry(name, "", "given as an object in this process")
        try:
            return super().resolve(name)
        except UnknownName as error:
            if not _OBJECT.fullmatch(name):
                raise
            raise ModelError(
                f"The architecture {name} was given as a Python object in another process, and can't be built in this "
                "one.",
                hint="Put the function or class that makes the network into a file and name it: python:FILE:FACTORY.",
            ) from error

    @override
    def get(self, name: str) -> Any:
        return self._objects[name] if name in self._objects else super().get(name)

    @override
    def __contains__(self, name: object) -> bool:
        return name in self._objects or super().__contains__(name)
