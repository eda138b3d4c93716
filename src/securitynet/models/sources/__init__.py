"""Where networks come from: one module per scheme of a model reference, imported on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from securitynet.models.sources.base import NetworkSource
    from securitynet.models.sources.references import ModelReference


def open_source(reference: ModelReference) -> NetworkSource:
    """Describe a network before its weights are read.

    Raises:
        ModelError: If the library has no such model, or its description cannot be read.
        UnknownName: If the package has no architecture of that name.
    """
    from securitynet.models.sources.schemes import SOURCES

    source: NetworkSource = SOURCES.get(reference.scheme)(reference)
    return source
