"""An architecture of this package, to be filled with the user's weights."""

from __future__ import annotations

from torch import nn

from securitynet.models.architectures import ARCHITECTURES
from securitynet.models.architectures.factory import build
from securitynet.models.sources.base import NetworkSource, Shape
from securitynet.models.sources.references import ModelReference
from securitynet.models.sources.schemes import Scheme

SCHEME = Scheme("arch", "arch:cifar-resnet20", remark="with --weights FILE", network=True, takes_weights=True)


def open_source(reference: ModelReference) -> NetworkSource:
    """Describe an architecture of this package.

    Raises:
        UnknownName: If there is no architecture of that name.
    """
    name = ARCHITECTURES.resolve(reference.name).name

    def make(shape: Shape, _keys: frozenset[str]) -> nn.Module:
        return build(name, shape.num_classes, shape.channels, shape.image_size)

    return NetworkSource(architecture=name, build=make, sized=True, known_shapes=True)
