"""Target files of a study: ``subjects/KEY.json``, the record of one target with its data.

Each target is loaded, checked and queried once. Its record holds what determines the ids of its trials, so that a study
knows which trials are finished without loading anything, and what tables need to know about the target.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from securitynet.files import DIGEST, DIGEST_SCHEMA, add_digest, check_digest, hash_stably
from securitynet.records import (
    Access,
    Check,
    DatasetIdentity,
    Measurement,
    Queries,
    Record,
    SplitIdentity,
    TargetIdentity,
)
from securitynet.results.root import Root, open_root
from securitynet.untrusted import parse_json

logger = logging.getLogger(__name__)

SCHEMA_FILE = Path(__file__).with_name("subject.schema.json")

FOLDER = "subjects"


class Capabilities(Record):
    """What determines which threat models a target supports, and the ids of its trials.

    Attributes:
        target: Which model.
        dataset: Which images.
        split: Who is a member.
        access: The most that an adversary may see.
        shadow_data: Whether the split has shadow parts.
        auxiliary: The other dataset that an adversary may hold.
        training: Digest of how the target was trained, if that is known.
        precision: Arithmetic of the target.
    """

    target: TargetIdentity
    dataset: DatasetIdentity
    split: SplitIdentity
    access: Access
    shadow_data: bool
    auxiliary: DatasetIdentity | None = None
    training: str | None = None
    precision: str = "fp32"

    @property
    def key(self) -> str:
        """Digest of what the trials of this target have in common."""
        return make_target_key(self.target, self.dataset, self.split, self.precision)


class StudyTargetRecord(Record):
    """The record of a target with its data, or the reason why it could not be opened.

    Attributes:
        version: Of the record's format.
        key: Digest of what the study file declares about the target; the name of the file.
        label: Its name for readers.
        status: ``ok``, or ``failed``: then none of its trials could run.
        reason: Why it failed.
        traceback: Of the failure.
        declared: Its declaration in the study file, without folders.
        means: What determines its trials and their ids; None if it failed.
        membership: ``known`` or ``assumed``.
        facts: Counts: classes, members, non-members, ...
        training: How it was trained, where that is known.
        catalog: Id of its entry in the catalog.
        codes: Its annotations in the catalog.
        checks: Of its outputs, checksum and accuracy.
        measurements: Accuracies, and the overfitting level.
        queries: Images that were sent to it for its outputs.
        notes: Remarks from loading it.
        seconds: Wall-clock seconds by phase.
        environment: Package versions and device of the run.
        finished: UTC time in ISO 8601.
    """

    version: Literal[1] = 1
    key: str
    label: str
    status: Literal["ok", "failed"]
    reason: str | None = None
    traceback: str | None = None
    declared: dict[str, Any] = Field(default_factory=dict)
    means: Capabilities | None = None
    membership: Literal["known", "assumed"] | None = None
    facts: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] | None = None
    catalog: str | None = None
    codes: dict[str, Any] = Field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    queries: Queries = Queries()
    notes: tuple[str, ...] = ()
    seconds: dict[str, float] = Field(default_factory=dict)
    environment: dict[str, str] = Field(default_factory=dict)
    finished: str

    @property
    def doubtful(self) -> bool:
        """Whether a check failed. Figures and findings leave such targets out by default."""
        return any(not check.agrees for check in self.checks)


def make_target_key(target: TargetIdentity, dataset: DatasetIdentity, split: SplitIdentity, precision: str) -> str:
    """The digest that connects trials with the record of their target.

    Args:
        target: Which model.
        dataset: Which images and labels.
        split: Who is a member.
        precision: Arithmetic of the target.
    """
    preprocessing = json.dumps(target.preprocessing, sort_keys=True)
    return _hash_target(target.checksum, preprocessing, target.head, dataset.fingerprint, split.fingerprint, precision)


@functools.lru_cache(4096)
def _hash_target(checksum: str, preprocessing: str, *others: str) -> str:
    """Many trials have one target."""
    return hash_stably([checksum, json.loads(preprocessing), *others], 16)


class StudyTargetStore:
    """The target files under one root.

    Args:
        root: A folder, or a URL that fsspec understands.
    """

    def __init__(self, root: Path | str | Root) -> None:
        self.files = open_root(root)

    @staticmethod
    def name(key: str) -> str:
        """Path of a target's file below the root."""
        return f"{FOLDER}/{key}.json"

    def save(self, record: StudyTargetRecord) -> None:
        """Write a record."""
        text = json.dumps(add_digest(record.model_dump(mode="json")), indent=2, ensure_ascii=False, allow_nan=False)
        self.files.write(self.name(record.key), text.encode("utf-8") + b"\n")

    def load(self, key: str) -> StudyTargetRecord | None:
        """A record; None if there is none, or it can't be read (which is logged)."""
        try:
            return parse_study_target(self.files.read(self.name(key)))
        except FileNotFoundError:
            return None
        except ValueError as error:
            logger.warning("A target file can't be read and will be written again: %s.json (%s)", key, error)
            return None

    def __iter__(self) -> Iterator[StudyTargetRecord]:
        """All readable records, in the order of their keys."""
        for path, _ in sorted(self.files.files(FOLDER, ".json")):
            record = self.load(path.rpartition("/")[2].removesuffix(".json"))
            if record is not None:
                yield record


def parse_study_target(text: str | bytes) -> StudyTargetRecord:
    """A record from its JSON text. Raises ``ValueError`` if it is not one, or its digest is not that of its content."""
    value = parse_json(text)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    content = check_digest(value)
    try:
        return StudyTargetRecord.model_validate_json(json.dumps(content))
    except ValidationError as error:
        raise ValueError(f"not a target record: {error.error_count()} fields are wrong") from error


def write_target_schema() -> str:
    """The JSON schema of a target file, as text."""
    schema = StudyTargetRecord.model_json_schema(mode="serialization")
    schema["properties"][DIGEST] = DIGEST_SCHEMA
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The record of a target in a study, version 1",
    }
    return json.dumps({**schema, **head}, indent=2, ensure_ascii=False) + "\n"
