"""The base of attribute inference attacks: attributes, records and the output."""

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
from securitynet.methods.data import TrialData
from securitynet.methods.output import Output
from securitynet.metrics import attribute as metrics
from securitynet.records import Auxiliary, Measurement

_COLUMNS = ("indices", "truth", "predicted", "baseline", "labels")
_UNSPEAKABLE = re.compile(r"[.@=\s]+")


@dataclass(frozen=True, eq=False)
class Inferred:
    """The inferred values of one attribute.

    Attributes:
        name: Name of the attribute.
        values: Names of its values, V.
        indices: Records whose attribute is annotated, N int64.
        truth: Their true values, N int64.
        predicted: Values predicted by the attack, N int64.
        baseline: Values predicted from the class and the majority alone, N int64.
        labels: Their classes, N int64.
        notes: Notes for the reader of the measurements.
        random: Predictions of the same attack from embeddings of R networks with random weights, R×N int64; R may be 0.
        pixels: Its predictions from pixels, N int64; None if that was not tried.
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
    """The inferred values of all attributes.

    Attributes:
        attributes: One item for each attribute.
    """

    attributes: tuple[Inferred, ...]

    headline: ClassVar[tuple[str, ...]] = ("gain", "gain-over-random", "accuracy")

    @override
    def arrays(self) -> dict[str, NDArray[Any]]:
        arrays: dict[str, NDArray[Any]] = {"names": np.asarray([one.name for one in self.attributes], dtype=np.str_)}
        for number, one in enumerate(self.attributes):
            for name in _COLUMNS:
                arrays[f"{number}.{name}"] = getattr(one, name)
            arrays[f"{number}.values"] = np.asarray(one.values, dtype=np.str_)
            arrays[f"{number}.notes"] = np.asarray(one.notes, dtype=np.str_)
            arrays[f"{number}.random"] = one.random
            if one.pixels is not None:
                arrays[f"{number}.pixels"] = one.pixels
        return arrays

    @classmethod
    @override
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> InferredAttributes:
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
        """Compute the metrics of `securitynet.metrics.attribute`, prefixed with the name of each attribute."""
        measurements = []
        for one, name in zip(self.attributes, name_attributes([one.name for one in self.attributes]), strict=True):
            measured = metrics.measure_attribute(one.truth, one.predicted, one.baseline, one.labels, level=level)
            measured += metrics.compare_with_controls(
                one.truth, one.predicted, one.baseline, random=one.random, pixels=one.pixels, level=level
            )
            measurements += [measurement.renamed(name).with_notes(*one.notes) for measurement in measured]
        return measurements


def name_attributes(names: Sequence[str]) -> list[str]:
    """Turn names of attributes into unique parts of dotted names."""
    plain = [_UNSPEAKABLE.sub("-", name).strip("-") or "attribute" for name in names]
    return [
        name if plain.index(name) == number else f"{name}-{plain[:number].count(name) + 1}"
        for number, name in enumerate(plain)
    ]


JOINT = "*"
"""Joins the names of attributes to that of their joint one, as in ``Male*Young``."""


def join_attributes(attributes: Sequence[Attribute]) -> Attribute:
    """One attribute whose values are the combinations of those of several, as in ML-Doctor, section 5.2.

    Args:
        attributes: The attributes; the last one's values vary fastest. A record without one of them has none.
    """
    values = np.zeros_like(attributes[0].values)
    known = np.ones(len(values), dtype=bool)
    names: tuple[str, ...] = ("",)
    for attribute in attributes:
        values = values * len(attribute.names) + attribute.values
        known &= attribute.values >= 0
        names = tuple(f"{name} {other}".strip() for name in names for other in attribute.names)
    return Attribute(np.where(known, values, -1), names)


def choose_attributes(dataset: ImageDataset, names: Sequence[str] | None) -> dict[str, Attribute]:
    """Return the requested attributes of a dataset; all by default. ``A*B`` is the joint attribute of A and B.

    Raises:
        ConfigurationError: If the dataset has none, or none is requested.
        UnknownName: If the dataset lacks one of them.
    """
    if not dataset.attributes:
        raise ConfigurationError(
            f"{dataset.reference} has no attributes to infer.",
            hint="digits, celeba and utkface have some; in folders and Parquet files, further columns are attributes.",
        )
    if names is not None and not names:
        raise ConfigurationError("No attribute to infer is named.")
    requested: dict[str, Attribute] = {}
    for name in names or sorted(dataset.attributes):
        parts = [name] if name in dataset.attributes else [part.strip() for part in name.split(JOINT)]
        for part in parts:
            if part not in dataset.attributes:
                raise UnknownName("attribute", part, dataset.attributes)
        single = len(parts) == 1
        requested[name] = (
            dataset.attributes[parts[0]] if single else join_attributes([dataset.attributes[p] for p in parts])
        )
    return requested


def select_known_records(data: TrialData, auxiliary: Auxiliary) -> NDArray[np.int64]:
    """Return the records whose attributes the adversary knows: known members, or the shadow-train part.

    See ML-Doctor, section 5.1.

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


def find_annotated(attribute: Attribute, records: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the records whose attribute is annotated."""
    return records[attribute.values[records] >= 0]


def explain_single_value(name: str, attribute: Attribute, learned: NDArray[np.int64]) -> str | None:
    """Return why an attribute cannot be learned from annotated records, or None if it can.

    Args:
        name: Name of the attribute.
        attribute: The attribute.
        learned: Records whose attribute is annotated.
    """
    values = np.unique(attribute.values[learned])
    if len(values) == 0:
        return f"The attribute {name!r} is not annotated for any record that the adversary knows."
    if len(values) == 1:
        where = "it has no other" if len(attribute.names) == 1 else "among the records that the adversary knows"
        return f"The attribute {name!r} has only one value, {attribute.names[values[0]]!r}: {where}."
    return None
