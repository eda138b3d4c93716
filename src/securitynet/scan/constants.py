"""Constants of normalisation, gathered from code and configuration, and the choice among several."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from securitynet.scan.dataset_names import find_named_dataset

_MEAN = re.compile(r"(?:^|_)(means?|mu)(?:_|$)", re.IGNORECASE)
_DEVIATIONS = ("std", "stds", "stdev", "sigma", "dev")
_BYTES = 1.5
"""Means above this are of pixels from 0 to 255."""

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and deviation that the weights of torchvision's zoo are used with (``weights.transforms()``)."""


class StatedNormalization(NamedTuple):
    """Mean and deviation, with the dataset under whose name they stand.

    Attributes:
        mean: Of each channel, for images in [0, 1].
        std: Deviation of each channel.
        dataset: The dataset that their name, their key or the branch of the code names; None if none does.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    dataset: str | None = None


def make_normalization(mean: Any, std: Any, dataset: str | None = None) -> StatedNormalization | None:
    """Constants of one or three channels; None if these are no such numbers.

    Args:
        mean: A number or a list of numbers.
        std: Likewise, as many.
        dataset: The dataset that they stand under.
    """
    means, deviations = _numbers(mean), _numbers(std)
    if len(means) != len(deviations) or len(means) not in (1, 3) or not all(0 < value < 256 for value in deviations):
        return None
    if max(means) > _BYTES:
        means, deviations = tuple(v / 255 for v in means), tuple(v / 255 for v in deviations)
    return StatedNormalization(means, deviations, dataset) if all(-1 <= value <= 1 for value in means) else None


def _numbers(value: Any) -> tuple[float, ...]:
    """A number, or a flat list of numbers, as a tuple; empty if it is anything else."""
    values = value if isinstance(value, (list, tuple)) else (value,)
    if values and all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in values):
        return tuple(float(item) for item in values)
    return ()


def pair_named_values(values: Mapping[str, Any], dataset: str | None = None) -> Iterator[StatedNormalization]:
    """The pairs among named values: ``CIFAR_MEAN`` and ``CIFAR_STD``, or ``mean`` and ``std``; also tables by dataset.

    Args:
        values: Name -> value, of one scope.
        dataset: The dataset that the scope names.
    """
    for name, mean in values.items():
        match = _MEAN.search(name)
        if match is None:
            continue
        start, end = match.span(1)
        words = (word.upper() if name.isupper() else word for word in _DEVIATIONS)
        std = next((values[key] for word in words if (key := name[:start] + word + name[end:]) in values), None)
        if isinstance(mean, dict) and isinstance(std, dict):
            pairs = [(mean[key], std[key], find_named_dataset(str(key))) for key in mean if key in std]
        else:
            pairs = [(mean, std, find_named_dataset(name) or dataset)]
        # A single number by a name may be of anything, such as the noise that weights start from.
        made = (make_normalization(*pair) for pair in pairs if isinstance(pair[0], (list, tuple)))
        yield from (item for item in made if item is not None)


def list_keyed(values: Mapping[Any, Any]) -> Iterator[StatedNormalization]:
    """Constants by dataset: ``{"mnist": ((0.1307,), (0.3081,)), "cifar10": {"mean": ..., "std": ...}}``.

    Args:
        values: A table of code or configuration.
    """
    for key, value in values.items():
        dataset = find_named_dataset(str(key))
        if isinstance(value, (list, tuple)) and len(value) == 2 and dataset:
            item = make_normalization(value[0], value[1], dataset)
            if item is not None:
                yield item
        elif isinstance(value, dict):
            yield from pair_named_values({str(name): inner for name, inner in value.items()}, dataset)


def choose(
    constants: Iterable[StatedNormalization], dataset: str | None, channels: int | None
) -> StatedNormalization | None:
    """The one that can belong to a network on a dataset; None if several can, or none.

    Args:
        constants: Of the code.
        dataset: What the network was trained on, if known.
        channels: Of its images, if known. One mean for all channels goes with any number.
    """
    fitting = {item for item in constants if channels is None or len(item.mean) in (1, channels)}
    if dataset is not None:
        fitting = {item for item in fitting if item.dataset in (None, dataset)}
        fitting = {item for item in fitting if item.dataset == dataset} or fitting
    own = {item for item in fitting if len(item.mean) == channels} or fitting
    values = {(item.mean, item.std) for item in own}
    return next(iter(own)) if len(values) == 1 else None
