"""What attribute inference attacks share: which attributes and records, and their output."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from securitynet.datasets.base import Attribute, ImageDataset
from securitynet.errors import ConfigurationError, SplitError, UnknownName
from securitynet.methods.base import Output
from securitynet.methods.data import TrialData
from securitynet.metrics import attribute as metrics
from securitynet.records import Auxiliary, Measurement

_COLUMNS = ("indices", "truth", "predicted", "baseline", "labels")
_UNSPEAKABLE = re.compile(r"[.@=\s]+")


@dataclass(frozen=True, eq=False)
class Inferred:
    """What is said of one attribute of some records.

    Attributes:
        name: Of the attribute.
        values: What its values are called, V.
        indices: Records whose attribute is annotated, N int64.
        truth: Their values, N int64.
        predicted: What the attack says, N int64.
        baseline: What their labels and the majority say, N int64.
        labels: Their classes, N int64.
        notes: What a reader must know to read the measures.
        random: What the same attack says with embeddings of R networks with random weights, R×N int64; R may be 0.
        pixels: What it says with pixels for embeddings, N int64; None if that was not tried.
    """

    name: str
    values: tuple[str, ...]
    indices: NDArray[np.int64]
    truth: NDArray[np.int64]
    predicted: NDArray[np.int64]
    baseline: NDArray[np.int64]
    labels: NDArray[np.int64]
    notes: tuple[str, ...] = ()
    random: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, 0), dtype=np.int64))
    pixels: NDArray[np.int64] | None = None

    def without(self, records: NDArray[np.int64]) -> Inferred:
        """The same without some of the records, unless none would be left."""
        rest = ~np.isin(self.indices, records)
        if rest.all() or not rest.any():
            return self
        by_record = {name: getattr(self, name)[rest] for name in _COLUMNS}
        random = self.random[:, rest] if len(self.random) else self.random
        return replace(self, **by_record, random=random, pixels=None if self.pixels is None else self.pixels[rest])


@dataclass(frozen=True, eq=False)
class InferredAttributes(Output):
    """What is said of each attribute."""

    attributes: tuple[Inferred, ...]

    headline: ClassVar[tuple[str, ...]] = ("gain", "gain-over-random", "accuracy")

    def arrays(self) -> dict[str, NDArray[Any]]:
        """See `Output.arrays`: those of the attributes in their order, each under its number."""
        found: dict[str, NDArray[Any]] = {"names": np.asarray([one.name for one in self.attributes], dtype=np.str_)}
        for number, one in enumerate(self.attributes):
            for name in _COLUMNS:
                found[f"{number}.{name}"] = getattr(one, name)
            found[f"{number}.values"] = np.asarray(one.values, dtype=np.str_)
            found[f"{number}.notes"] = np.asarray(one.notes, dtype=np.str_)
            found[f"{number}.random"] = one.random
            if one.pixels is not None:
                found[f"{number}.pixels"] = one.pixels
        return found

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> InferredAttributes:
        """See `Output.from_arrays`."""
        return cls(
            tuple(
                Inferred(
                    str(name),
                    tuple(map(str, arrays[f"{number}.values"])),
                    **{column: arrays[f"{number}.{column}"] for column in _COLUMNS},
                    notes=tuple(map(str, arrays[f"{number}.notes"])),
                    random=arrays.get(f"{number}.random", np.empty((0, 0), dtype=np.int64)),
                    pixels=arrays.get(f"{number}.pixels"),
                )
                for number, name in enumerate(arrays["names"])
            )
        )

    @override
    def without(self, records: NDArray[np.int64]) -> InferredAttributes:
        """See `Output.without`."""
        return InferredAttributes(tuple(one.without(records) for one in self.attributes))

    def measurements(self, *, level: float, fprs: Sequence[float], seed: int) -> list[Measurement]:
        """For each attribute the measures of `securitynet.metrics.attribute`, its name before theirs."""
        found = []
        for one, name in zip(self.attributes, spoken([one.name for one in self.attributes]), strict=True):
            measured = metrics.measure(one.truth, one.predicted, one.baseline, one.labels, level=level)
            measured += metrics.compare_with_controls(
                one.truth, one.predicted, one.baseline, random=one.random, pixels=one.pixels, level=level
            )
            found += [measurement.renamed(name).with_notes(*one.notes) for measurement in measured]
        return found


def spoken(names: Sequence[str]) -> list[str]:
    """Names of attributes as parts of dotted names, no two alike."""
    plain = [_UNSPEAKABLE.sub("-", name).strip("-") or "attribute" for name in names]
    return [
        name if plain.index(name) == number else f"{name}-{plain[:number].count(name) + 1}"
        for number, name in enumerate(plain)
    ]


def chosen(dataset: ImageDataset, names: Sequence[str] | None) -> dict[str, Attribute]:
    """The attributes of a dataset that are asked for; all by default.

    Raises:
        ConfigurationError: If the dataset has none, or none is asked for.
        UnknownName: If it has not one of those.
    """
    if not dataset.attributes:
        raise ConfigurationError(
            f"{dataset.reference} has no attributes that could be inferred.",
            hint="digits, celeba and utkface have some; a folder or Parquet files have those of their columns.",
        )
    for name in names or ():
        if name not in dataset.attributes:
            raise UnknownName("attribute", name, dataset.attributes)
    if names is not None and not names:
        raise ConfigurationError("No attribute to infer is named.")
    return {name: dataset.attributes[name] for name in names or sorted(dataset.attributes)}


def known_records(data: TrialData, auxiliary: Auxiliary) -> NDArray[np.int64]:
    """Records whose attributes the adversary knows (ML-Doctor, section 5.1): known members, or the shadow-train part.

    Raises:
        SplitError: If there are none.
    """
    splits = data.splits
    records = splits.shadow_train if auxiliary is Auxiliary.SHADOW else splits.known_members
    if len(records) == 0:
        what = "shadow data" if auxiliary is Auxiliary.SHADOW else "members that the adversary knows"
        raise SplitError(
            f"The {splits.name} split has no {what} to learn attributes from.",
            hint="Use --split four-way." if auxiliary is Auxiliary.SHADOW else "Raise --known.",
        )
    return records


def annotated(attribute: Attribute, records: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of the records whose attribute is annotated."""
    return records[attribute.values[records] >= 0]


def one_value_only(name: str, attribute: Attribute, learned: NDArray[np.int64]) -> str | None:
    """Why nothing of an attribute can be learned from records whose attribute is annotated, or None."""
    values = np.unique(attribute.values[learned])
    if len(values) == 0:
        return f"The attribute {name!r} is annotated for none of the records that the adversary knows."
    if len(values) == 1:
        where = "it has no other" if len(attribute.names) == 1 else "among the records that the adversary knows"
        return f"The attribute {name!r} has one value only, {attribute.names[values[0]]!r}: {where}."
    return None
