"""Which column of a Parquet file holds the images, and which the labels."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from securitynet.datasets.source import Request
from securitynet.errors import DatasetError


@dataclass(frozen=True)
class Columns:
    """Names of the two columns."""

    image: str = "image"
    label: str = "label"


def choose_columns(request: Request, first: tuple[Path, pq.ParquetFile]) -> Columns:
    """The columns that the request names; else ``image`` and ``label``; else the only ones that can be meant.

    Args:
        request: May name them.
        first: Path and opened file of the training part.

    Raises:
        DatasetError: If a column that was named is missing, or none or several can be meant.
    """
    path, file = first
    schema = file.schema_arrow
    return Columns(
        image=_choose(path, schema, request.image_column, "image", "Image", _may_hold_images),
        label=_choose(path, schema, request.label_column, "label", "ClassLabel", _may_hold_labels),
    )


def _choose(
    path: Path, schema: pa.Schema, stated: str | None, usual: str, kind: str, suits: Callable[[pa.DataType], bool]
) -> str:
    if stated is not None:
        if stated not in schema.names:
            raise no_column(path, schema, stated)
        return stated
    if usual in schema.names:
        return usual
    # Hugging Face's metadata say what a column is for; where there are none, its type must.
    declared = [name for name in schema.names if feature_of(schema, name).get("_type") == kind]
    suitable = [name for name in schema.names if suits(schema.field(name).type)]
    candidates = declared or ([name for name in suitable if name.lower() in _USUAL[usual]] or suitable)
    if len(candidates) == 1:
        return str(candidates[0])
    raise no_column(path, schema, usual, candidates)


_USUAL = {
    "image": ("img", "images", "picture", "photo", "jpg", "png", "jpeg"),
    "label": ("labels", "class", "target", "y", "category"),
}


def no_column(path: Path, schema: pa.Schema, name: str, candidates: list[str] | None = None) -> DatasetError:
    """The error for a column that is not there, naming those that are."""
    option = "--image-column" if name == "image" else "--label-column"
    hint = "Name the columns with --image-column and --label-column."
    if candidates:
        hint = f"Say which is meant: {option} {' or '.join(candidates[:4])}."
    return DatasetError(
        f"{path} has no column {name!r}; it has {', '.join(map(repr, schema.names)) or 'none'}.", hint=hint
    )


def feature_of(schema: pa.Schema, column: str) -> dict[str, Any]:
    """What Hugging Face's metadata in a schema say about a column; empty if they say nothing."""
    raw: bytes = (schema.metadata or {}).get(b"huggingface", b"")
    try:
        feature = json.loads(raw)["info"]["features"][column]
    except (ValueError, KeyError, TypeError):
        return {}  # none, or other metadata under that key
    return feature if isinstance(feature, dict) else {}


def _may_hold_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        position = kind.get_field_index("bytes")
        return position >= 0 and _may_hold_images(kind.field(position).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _may_hold_labels(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind))
