"""Trial files: ``trials/ab/abcdef….json`` with the record, and ``….npz`` beside it with arrays.

The arrays are written before the record, and each file is whole or absent: where a record exists, so do its arrays, and
a killed run leaves nothing that looks finished and is not.

The JSON schema beside this module, ``trial.schema.json``,
is generated from the records (`write_trial_schema`); a test keeps
the two equal.
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
from pydantic_core import from_json

from securitynet.files import DIGEST, DIGEST_SCHEMA, add_digest, check_digest
from securitynet.records import TrialResult
from securitynet.results.root import Root, open_root
from securitynet.untrusted import check_archive

logger = logging.getLogger(__name__)

SCHEMA_FILE = Path(__file__).with_name("trial.schema.json")

FOLDER = "trials"


class TrialStore:
    """The trial files under one root.

    Args:
        root: A folder, or a URL that fsspec understands.
    """

    def __init__(self, root: Path | str | Root) -> None:
        self.files = open_root(root)

    def name(self, trial_id: str, suffix: str = ".json") -> str:
        """Path of a trial's file below the root, whether it exists or not."""
        return f"{FOLDER}/{trial_id[:2]}/{trial_id}{suffix}"

    def path(self, trial_id: str, suffix: str = ".json") -> Path:
        """Path of a trial's file, whether it exists or not; only for stores in a local folder."""
        assert self.files.folder is not None, f"{self.files.name} is not a local folder"
        return self.files.folder / self.name(trial_id, suffix)

    def save(self, result: TrialResult, arrays: Mapping[str, NDArray[Any]] | None = None) -> TrialResult:
        """Write a trial; returns the record as written, which names its arrays."""
        if arrays:
            buffer = io.BytesIO()
            np.savez_compressed(buffer, allow_pickle=False, **dict(arrays))
            self.files.write(self.name(result.id, ".npz"), buffer.getvalue())
            result = result.model_copy(update={"arrays": tuple(sorted(arrays))})
        self.files.write(self.name(result.id), write_trial_text(result).encode("utf-8"))
        return result

    def load(self, trial_id: str) -> TrialResult | None:
        """A finished trial, or None if there is none or its file can't be read (which is logged)."""
        name = self.name(trial_id)
        try:
            text = self.files.read(name)
        except FileNotFoundError:
            return None
        try:
            return parse_trial(text)
        except ValueError as error:
            logger.warning(
                "A trial file can't be read and its trial will run again: %s (%s)", name.rpartition("/")[2], error
            )
            return None

    def load_arrays(self, result: TrialResult) -> dict[str, NDArray[Any]] | None:
        """The arrays of a trial, or None if it has none or their file is damaged (which is logged)."""
        if not result.arrays:
            return None
        name = self.name(result.id, ".npz")
        try:
            # A local file is not read whole: it may be longer than the memory, and hold nothing.
            source: Path | io.BytesIO
            if self.files.folder is not None:
                source = self.files.folder / name
                check_archive(source)
            else:
                content = self.files.read(name)
                check_archive(content, name.rpartition("/")[2])
                source = io.BytesIO(content)
            with np.load(source, allow_pickle=False) as archive:
                return {name: archive[name] for name in result.arrays}
        except (
            Exception
        ) as error:  # numpy and zipfile raise many kinds on damaged files; all lead to computing them again
            logger.warning("The arrays of a trial can't be read: %s (%s)", name.rpartition("/")[2], error)
            return None

    def __iter__(self) -> Iterator[TrialResult]:
        """All readable trials, in the order of their ids."""
        for path, _ in sorted(self.files.files(FOLDER, ".json")):
            result = self.load(path.rpartition("/")[2].removesuffix(".json"))
            if result is not None:
                yield result


def write_trial_text(result: TrialResult) -> str:
    """A trial as JSON text. NaN and infinity are refused: they are not JSON."""
    value = add_digest({"id": result.id, **result.model_dump(mode="json")})
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def parse_trial(text: str | bytes) -> TrialResult:
    """A trial from its JSON text.

    Raises:
        ValueError: If it is no trial, or its id or digest is not that of its content.
    """
    return parse_identified_trial(text)[1]


def restore_trial(text: str) -> TrialResult:
    """A trial from JSON text that `parse_identified_trial` has read before, and that has not changed since.

    Raises:
        ValueError: If it is no trial.
    """
    return TrialResult.model_validate_json(text, extra="ignore")  # the id and the digest are no fields of it


def parse_identified_trial(text: str | bytes) -> tuple[str, TrialResult]:
    """(id, trial) from its JSON text, as `parse_trial`: the id is a digest, which is better not computed twice."""
    value = from_json(text)  # a study has a hundred thousand of them, and Python's parser takes three times as long
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    value = check_digest(value)
    stated = value.pop("id", None)
    try:
        result = TrialResult.model_validate(value)
    except ValidationError as error:
        raise ValueError(f"not a trial: {error.error_count()} fields are wrong") from error
    if stated != result.id:
        raise ValueError("its id does not match its content")
    return stated, result


def write_trial_schema() -> str:
    """The JSON schema of a trial file, as text."""
    schema = TrialResult.model_json_schema(mode="serialization")
    schema["properties"] = {
        "id": {"description": "Hash of what decides the result.", "pattern": "^[0-9a-f]{32}$", "type": "string"},
        **schema["properties"],
        DIGEST: DIGEST_SCHEMA,
    }
    schema["required"] = ["id", *schema["required"]]
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A trial file, version 1"}
    return json.dumps({**schema, **head}, indent=2, ensure_ascii=False) + "\n"
