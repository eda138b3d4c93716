"""``arch:NAME``: the package's own architectures. Their weights come with ``--weights``."""

from __future__ import annotations

from torch import nn

from securitynet.models.architectures import ARCHITECTURES
from securitynet.models.architectures.factory import build
from securitynet.models.sources.base import Shape, Source
from securitynet.models.sources.references import ModelReference


def open_source(reference: ModelReference) -> Source:
    """See `securitynet.models.sources.open_source`."""
    name = ARCHITECTURES.resolve(reference.name).name

    def make(shape: Shape, _keys: frozenset[str]) -> nn.Module:
        return build(name, shape.num_classes, shape.channels, shape.image_size)

    return Source(architecture=name, build=make, sized=True)
