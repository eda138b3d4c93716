"""Which column of a Parquet file holds the images, and which one the labels."""

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
class ParquetColumns:
    """Names of the two columns.

    Attributes:
        image: Column of the images.
        label: Column of the labels.
    """

    image: str = "image"
    label: str = "label"


def choose_columns(request: Request, first: tuple[Path, pq.ParquetFile]) -> ParquetColumns:
    """Choose the columns: those that the request names, else ``image`` and ``label``, else the only possible ones.

    Args:
        request: The request, which may name them.
        first: Path and opened file of the training part.

    Raises:
        DatasetError: If a named column is missing, or if there is no possible column or more than one.
    """
    path, file = first
    schema = file.schema_arrow
    return ParquetColumns(
        image=_choose(path, schema, request.image_column, "image", "Image", _may_hold_images),
        label=_choose(path, schema, request.label_column, "label", "ClassLabel", _may_hold_labels),
    )


def _choose(
    path: Path, schema: pa.Schema, stated: str | None, usual: str, kind: str, suits: Callable[[pa.DataType], bool]
) -> str:
    if stated is not None:
        if stated not in schema.names:
            raise explain_no_column(path, schema, stated)
        return stated
    if usual in schema.names:
        return usual
    # Hugging Face's metadata state the use of a column; without them, its type decides.
    declared = [name for name in schema.names if read_feature(schema, name).get("_type") == kind]
    suitable = [name for name in schema.names if suits(schema.field(name).type)]
    candidates = declared or ([name for name in suitable if name.lower() in _USUAL[usual]] or suitable)
    if len(candidates) == 1:
        return str(candidates[0])
    raise explain_no_column(path, schema, usual, candidates)


_USUAL = {
    "image": ("img", "images", "picture", "photo", "jpg", "png", "jpeg"),
    "label": ("labels", "class", "target", "y", "category"),
}


def explain_no_column(path: Path, schema: pa.Schema, name: str, candidates: list[str] | None = None) -> DatasetError:
    """Make the error for a missing column, which lists the existing ones.

    Args:
        path: The file.
        schema: Its schema.
        name: Name of the missing column.
        candidates: Columns that could be meant.
    """
    option = "--image-column" if name == "image" else "--label-column"
    hint = "Name the columns with --image-column and --label-column."
    if candidates:
        hint = f"Say which is meant: {option} {' or '.join(candidates[:4])}."
    return DatasetError(
        f"{path} has no column {name!r}; it has {', '.join(map(repr, schema.names)) or 'none'}.", hint=hint
    )


def read_feature(schema: pa.Schema, column: str) -> dict[str, Any]:
    """Hugging Face's metadata on a column; empty if there are none."""
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
