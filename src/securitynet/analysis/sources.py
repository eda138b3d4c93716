"""The data of figures: the catalog, or the folder of a study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas

from securitynet.analysis import frames, study_frames
from securitynet.analysis.frames import ANNOTATIONS, CONDITIONS, HOW
from securitynet.analysis.papers import ml_doctor
from securitynet.errors import ConfigurationError


def load_frames(
    source: str | Sequence[str],
    *,
    db: str | None = None,
    where: dict[str, Any] | None = None,
    curves: bool = False,
    pictures: bool = False,
    doubtful: bool = False,
) -> pandas.DataFrame:
    """The tidy frame of a source, or of several together.

    Args:
        source: ``catalog``; ``ml-doctor``, the tables that the ML-Doctor paper prints; or the folder of a study. A
            target that several studies share is one case.
        db: The catalog's database; the user's own by default.
        where: Column -> value or values: annotations and conditions that a model must have.
        curves: Add the ROC curves of studies (`study_frames.from_study`).
        pictures: Add the pictures of studies, likewise.
        doubtful: Include targets of studies that failed a check.

    Raises:
        ConfigurationError: If there are no models, or a column does not exist.
    """
    sources = [source] if isinstance(source, str) else list(source)
    parts = [_one(name, db, curves, pictures, doubtful) for name in sources]
    frame = parts[0]
    if len(parts) > 1:  # a trial that is in several studies counts once
        together = pandas.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
        frame = together.drop_duplicates(["case", *HOW, "value", "low", "high"], ignore_index=True)
        for name in ANNOTATIONS:  # annotations from one study apply to the same target in the others
            frame[name] = frame[name].where(frame[name].notna(), frame["case"].map(_first(frame, name)))
    unknown = [name for name in where or {} if name not in (*ANNOTATIONS, *CONDITIONS, "model")]
    if unknown:
        raise ConfigurationError(
            f"There is no column {unknown[0]!r} to choose models by.",
            hint=f"There are: model, {', '.join((*ANNOTATIONS, *CONDITIONS))}.",
        )
    chosen = frames.select_cases(frame, where or {})
    if chosen.empty:
        which = "no models that match --where" if where and len(frame) else "no models"
        raise ConfigurationError(
            f"{' and '.join(sources)} {'holds' if len(sources) == 1 else 'hold'} {which}.",
            hint="Fill the catalog with `securitynet catalog import` or `collect`, or run the study.",
        )
    return chosen


def _first(frame: pandas.DataFrame, name: str) -> dict[str, Any]:
    """Case -> the first value of a column that is known of it."""
    known = frame[frame[name].notna()].drop_duplicates("case")
    return dict(zip(known["case"], known[name], strict=True))


def _one(source: str, db: str | None, curves: bool, pictures: bool, doubtful: bool) -> pandas.DataFrame:
    """The tidy frame of one source."""
    if source == "catalog":
        import securitynet.catalog

        with securitynet.catalog.open(db) as catalog:
            return frames.from_catalog(catalog)
    if source == ml_doctor.SOURCE and not Path(source).is_dir():
        return ml_doctor.read_tables()
    if Path(source).is_dir():
        return study_frames.from_study(Path(source), curves=curves, pictures=pictures, doubtful=doubtful)
    raise ConfigurationError(
        f"{source!r} is neither `catalog`, `ml-doctor` nor the folder of a study.",
        hint="Name the folder that holds its trials.",
    )


def parse_where(texts: list[str]) -> dict[str, list[str]]:
    """``dataset=CIFAR-10,SVHN`` and the like as column -> values.

    Raises:
        ConfigurationError: If a text is not of that form.
    """
    conditions: dict[str, list[str]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals or not name.strip() or not values.strip():
            raise ConfigurationError(f"--where {text!r} is invalid.", hint="Write COLUMN=VALUE,VALUE.")
        conditions.setdefault(name.strip(), []).extend(value.strip() for value in values.split(","))
    return conditions
