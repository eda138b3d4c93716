"""Trial files: ``trials/ab/abcdef….json`` with the record, and ``….npz`` beside it with arrays.

The arrays are written before the record, and each file is whole or absent, so a record whose arrays it names can be
read with them, and a killed run leaves nothing that looks finished and is not.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from securitynet.files import atomic_write, write_json
from securitynet.records import TrialResult

logger = logging.getLogger(__name__)


class TrialStore:
    """The trial files under one folder.

    Args:
        root: The folder that holds ``trials``.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def path(self, trial_id: str, suffix: str = ".json") -> Path:
        """Where a trial's file is, whether it exists or not."""
        return self.root / "trials" / trial_id[:2] / f"{trial_id}{suffix}"

    def save(self, result: TrialResult, arrays: Mapping[str, NDArray[Any]] | None = None) -> TrialResult:
        """Write a trial; returns the record as written, which names its arrays."""
        if arrays:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, allow_pickle=False, **dict(arrays))
            with atomic_write(self.path(result.id, ".npz")) as stream:
                stream.write(buffer.getvalue())
            result = result.model_copy(update={"arrays": tuple(sorted(arrays))})
        write_json(self.path(result.id), {"id": result.id, **result.model_dump(mode="json")})
        return result

    def load(self, trial_id: str) -> TrialResult | None:
        """A finished trial, or None if there is none or its file can't be read (which is logged)."""
        path = self.path(trial_id)
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        try:
            return parse_trial(text)
        except ValueError as error:
            logger.warning("A trial file can't be read and its trial will run again: %s (%s)", path.name, error)
            return None

    def load_arrays(self, result: TrialResult) -> dict[str, NDArray[Any]] | None:
        """The arrays of a trial, or None if it has none or their file is damaged (which is logged)."""
        if not result.arrays:
            return None
        path = self.path(result.id, ".npz")
        try:
            with np.load(path, allow_pickle=False) as archive:
                return {name: archive[name] for name in result.arrays}
        except Exception as error:  # numpy and zipfile raise many kinds on damaged files; each means "compute again"
            logger.warning("The arrays of a trial can't be read: %s (%s)", path.name, error)
            return None

    def __iter__(self) -> Iterator[TrialResult]:
        """All readable trials, in the order of their ids."""
        for path in sorted((self.root / "trials").glob("??/*.json")):
            result = self.load(path.stem)
            if result is not None:
                yield result


def parse_trial(text: str) -> TrialResult:
    """A trial from its JSON text.

    Raises:
        ValueError: If it is no trial, or its id is not that of its content.
    """
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    stated = value.pop("id", None)
    try:
        result = TrialResult.model_validate(value)
    except ValidationError as error:
        raise ValueError(f"not a trial: {error.error_count()} fields are wrong") from error
    if stated != result.id:
        raise ValueError("its id does not match its content")
    return result
