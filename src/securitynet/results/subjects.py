"""Subject files: ``subjects/KEY.json``, what a study found out about one target with its data.

A subject is opened once: loaded, checked, asked. What decides the ids of its trials is kept here, so that a study knows
without loading anything which of its trials are there already; and so is what tables need to know of a target.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from securitynet.files import stable_hash
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

logger = logging.getLogger(__name__)

SCHEMA_FILE = Path(__file__).with_name("subject.schema.json")

FOLDER = "subjects"


class Means(Record):
    """What of a subject decides which threat models can be played out, and the ids of its trials.

    Attributes:
        target: Which model.
        dataset: Which images.
        split: Who is a member.
        access: The most that an adversary may see.
        shadow_data: Whether the split has shadow data.
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
        """Digest of what the subject's trials have in common; see `TrialSpec.id`."""
        return target_key(self.target, self.dataset, self.split, self.precision)


class StudyTargetRecord(Record):
    """What was found out about a target with its data; or why it could not be opened.

    Attributes:
        key: Digest of what the study file declares about it; the name of its file.
        label: How people call it.
        status: ``ok``, or ``failed``: then none of its trials could run.
        reason: Of the failure.
        declared: What the study file says, without folders.
        means: What decides which trials there are, and their ids; None if it failed.
        membership: How well it is known who is a member.
        facts: Of target and data: number of classes, of members, ...
        training: How it was trained, where that is known.
        catalog: Id of its entry in the catalog.
        codes: What the catalog says of it.
        checks: Of checksum and accuracy.
        measurements: Accuracies, and the overfitting level.
        queries: What its signals cost.
        notes: What was found out while it was loaded.
    """

    version: Literal[1] = 1
    key: str
    label: str
    status: Literal["ok", "failed"]
    reason: str | None = None
    traceback: str | None = None
    declared: dict[str, Any] = Field(default_factory=dict)
    means: Means | None = None
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
        """Whether a check of it failed: then it is in no figure and no finding, unless that is asked for."""
        return any(not check.agrees for check in self.checks)


def target_key(target: TargetIdentity, dataset: DatasetIdentity, split: SplitIdentity, precision: str) -> str:
    """Digest that a trial's specification and its subject share."""
    return stable_hash(
        [
            target.checksum,
            target.preprocessing,
            target.head,
            dataset.fingerprint,
            split.fingerprint,
            precision,
        ],
        16,
    )


class StudyTargetStore:
    """The subject files under one root."""

    def __init__(self, root: Path | str | Root) -> None:
        self.files = open_root(root)

    @staticmethod
    def name(key: str) -> str:
        """Path of a subject's file below the root."""
        return f"{FOLDER}/{key}.json"

    def save(self, record: StudyTargetRecord) -> None:
        """Write a record."""
        text = json.dumps(record.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False)
        self.files.write(self.name(record.key), text.encode("utf-8") + b"\n")

    def load(self, key: str) -> StudyTargetRecord | None:
        """A record; None if there is none, or it can't be read (which is logged)."""
        try:
            return parse_study_target(self.files.read(self.name(key)))
        except FileNotFoundError:
            return None
        except ValueError as error:
            logger.warning("A subject file can't be read and is made again: %s.json (%s)", key, error)
            return None

    def __iter__(self) -> Iterator[StudyTargetRecord]:
        """All readable records, in the order of their keys."""
        for path, _ in sorted(self.files.files(FOLDER, ".json")):
            record = self.load(path.rpartition("/")[2].removesuffix(".json"))
            if record is not None:
                yield record


def parse_study_target(text: str | bytes) -> StudyTargetRecord:
    """A record from its JSON text. Raises ``ValueError`` if it is none."""
    try:
        return StudyTargetRecord.model_validate_json(text)
    except ValidationError as error:
        raise ValueError(f"not a subject: {error.error_count()} fields are wrong") from error


def schema_text() -> str:
    """The JSON schema of a subject file, as text."""
    schema = StudyTargetRecord.model_json_schema(mode="serialization")
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A subject file, version 1"}
    return json.dumps({**schema, **head}, indent=2, ensure_ascii=False) + "\n"
