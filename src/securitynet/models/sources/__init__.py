"""Where networks come from: one module per scheme of a model reference, imported when it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from securitynet.models.sources.base import NetworkSource
    from securitynet.models.sources.references import ModelReference


def open_source(reference: ModelReference) -> NetworkSource:
    """What is known about a network before its weights are read.

    Raises:
        ModelError: If the library has no such model, or a description of it cannot be read.
        UnknownName: If one of our own architectures is meant and there is none of that name.
    """
    from securitynet.models.sources.schemes import SOURCES

    source: NetworkSource = SOURCES.get(reference.scheme)(reference)
    return source
