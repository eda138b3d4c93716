"""The types of the catalog's codes: choices, numbers in their ranges, and texts that every database can keep."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field

TaskType = Literal[
    "classification", "zero-shot classification", "feature extraction", "detection", "segmentation", "other"
]
TopicCategory = Literal[
    "natural", "medical", "digit", "character", "traffic sign", "satellite", "face", "fashion", "food", "plant",
    "vehicle", "scene", "web image",
]  # fmt: skip
Element = Literal[
    "dropout", "batch norm", "layer norm", "group norm", "instance norm", "RMS norm", "attention", "channel attention"
]
VenueType = Literal[
    "computer vision", "machine learning", "security", "artificial intelligence", "preprint", "journal", "other"
]
AffiliationType = Literal["company", "university", "research institute", "other"]

_T = TypeVar("_T")

PREPROCESSING_KEYS = frozenset({"input_size", "resize", "crop", "crop_fraction", "interpolation", "mean", "std"})


def refuse_nul(value: str) -> str:
    """The text itself, which PostgreSQL could not keep with a NUL character, nor a text file give back.

    Raises:
        ValueError: If it holds one.
    """
    if "\0" in value:
        raise ValueError("it holds a NUL character")
    return value


def check_preprocessing(value: dict[str, Any]) -> dict[str, Any]:
    """How images are brought to a model, with lists for tuples: equal entries compare equal after a database.

    Raises:
        ValueError: If it has an unknown key or holds a NUL character.
    """
    unknown = sorted(set(value) - PREPROCESSING_KEYS)
    if unknown:
        raise ValueError(f"unknown preprocessing {', '.join(unknown)}; known: {', '.join(sorted(PREPROCESSING_KEYS))}")
    refuse_nul(json.dumps(value, ensure_ascii=False).replace("\\u0000", "\0"))
    return dict(json.loads(json.dumps(value)))


def drop_repeats(value: tuple[_T, ...]) -> tuple[_T, ...]:
    """The values in their order, each once."""
    return tuple(dict.fromkeys(value))


Several = Annotated[tuple[_T, ...], AfterValidator(drop_repeats)]
Link = Annotated[str, Field(pattern=r"^https?://\S+$", max_length=2000), AfterValidator(refuse_nul)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=2**63 - 1)]
Text = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(refuse_nul)]
Notes = Annotated[str, Field(min_length=1, max_length=5000), AfterValidator(refuse_nul)]
