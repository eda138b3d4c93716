"""``result.json``: the machine-readable outcome of an assessment, versioned, with a JSON schema.

The schema file beside this module, ``result.schema.json``, is generated from these records (`schema_text`); a test
keeps the two equal.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from securitynet.records import Check, Measurement, Queries, Record, ThreatModel

SCHEMA: Literal["securitynet/result/1"] = "securitynet/result/1"
SCHEMA_FILE = Path(__file__).with_name("result.schema.json")


class TargetFacts(Record):
    """The model: which one it is, and what was found out while loading it."""

    reference: str
    checksum: str
    preprocessing: str = Field(description="In words.")
    normalize: str = Field(description="As --normalize takes it.")
    head: str
    num_classes: int
    access: str = Field(description="The most that an adversary may see in this assessment.")
    precision: str
    notes: tuple[str, ...] = ()
    checks: tuple[Check, ...] = Field(
        default=(), description="Whether it answers as a model must, and is as accurate as it is said to be."
    )
    training: dict[str, Any] | None = Field(default=None, description="What its artefact file says of its training.")


class DatasetFacts(Record):
    """The images and who is a member among them."""

    reference: str
    fingerprint: str
    records: int
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int] | None = Field(description="Channels, height, width; null if outputs only.")
    split: str
    split_seed: int
    split_fingerprint: str
    membership: Literal["known", "assumed"] = Field(
        description="known: from the file that training wrote, recorded, or stated; assumed: the dataset's own "
        "training part."
    )
    members: int
    non_members: int
    known_members: int
    known_non_members: int
    members_stated: bool = Field(default=False, description="Whether the user listed the members.")
    notes: tuple[str, ...] = Field(default=(), description="How the images were read, where that must be known.")


class TrialSummary(Record):
    """One trial; its file holds the rest."""

    id: str
    name: str
    status: Literal["ok", "failed", "skipped"]
    reason: str | None
    threat_model: ThreatModel
    configuration: dict[str, Any]
    queries: Queries
    seconds: dict[str, float]
    doubts: tuple[str, ...] = Field(default=(), description="What speaks against believing it.")
    reused: bool = Field(default=False, description="Finished in an earlier run.")
    headline: tuple[str, ...] = Field(default=(), description="Names of the measurements that say most.")


class ExposedMember(Record):
    """A member that an attack is sure of."""

    record: int = Field(description="Its number in the dataset.")
    file: str = Field(description="Relative to the folder that was named; or the part and the position there.")
    label: str = Field(description="Its class.")
    prediction: str = Field(description="The class that the target answers with.")
    score: float | None = Field(description="Higher is more likely a member; null if it is infinite.")
    rank: int = Field(description="1 for the highest score among members; those that tie share a rank.")
    non_members_as_high: int = Field(description="Non-members that score at least as high.")


class ExposedMembers(Record):
    """The members that one attack is most sure of."""

    trial: str
    members: tuple[ExposedMember, ...]
    tied: int = Field(description="Further members that score as high as the last one.")
    non_members: int = Field(description="Non-members that were scored.")


class NotAssessed(Record):
    """Something that a reader may expect and will not find."""

    what: str
    why: str


class Violation(Record):
    """A bound of the policy that is not met."""

    name: str
    bound: str
    value: float | None
    why: str


class PolicyOutcome(Record):
    """Whether the bounds of a policy file are met."""

    met: bool
    bounds: int
    violations: tuple[Violation, ...]


class Tried(Record):
    """What a defense did for this target, measured."""

    name: str = Field(description="Of the defense; none for the target as it is.")
    stage: Literal["none", "output", "training"]
    settings: dict[str, Any] = Field(default_factory=dict, description="Those that differ from its defaults.")
    accuracy: Measurement | None = Field(default=None, description="On non-members.")
    attack: str | None = Field(default=None, description="Trial with the AUC farthest from 0.5.")
    auc: Measurement | None = Field(default=None, description="Of that attack.")
    same_attack_auc: Measurement | None = Field(
        default=None, description="Of the attack that is the strongest without a defense."
    )
    against: Measurement | None = Field(
        default=None,
        description="What the AUC is compared with: of the strongest attack without a defense, among those that this "
        "one had to stand (of defenses of the answers: those that need no more than answers).",
    )
    worked: int = Field(default=0, description="Attacks that still worked.")
    denied: tuple[str, ...] = Field(default=(), description="Attacks that were denied what they need.")
    epsilon: float | None = Field(default=None, description="Spent by DP-SGD.")
    reason: str | None = Field(default=None, description="Why it was not tried, if it was not.")
    seconds: float = 0.0


class Remedies(Record):
    """What would help, measured on the owner's data."""

    undefended: Tried
    tried: tuple[Tried, ...]
    attacks: tuple[str, ...] = Field(description="Membership attacks that each defense had to stand.")
    notes: tuple[str, ...] = ()


class CopiedRecord(Record):
    """A non-member of which the members hold a copy."""

    non_member: str
    member: str
    equal: bool = Field(description="Whether the pixels are the same; otherwise they are nearly so.")


class CopyFacts(Record):
    """Images that are among the members and among the non-members; they are left out of what is judged."""

    members: int = Field(description="Members of which the non-members hold a copy.")
    non_members: int = Field(description="Non-members of which the members hold a copy.")
    equal: int = Field(description="Those of these non-members whose pixels are the same.")
    near: int = Field(description="Those whose pixels are nearly the same (perceptual hash).")
    searched: int = Field(description="Non-members of which near copies were searched for.")
    named: tuple[CopiedRecord, ...] = Field(default=(), description="The first of them.")


class BlindFacts(Record):
    """The blind baseline: a classifier that sees images, classes and files, and not the model."""

    members: int = Field(description="That it was fitted to and judged on, cross-fitted.")
    non_members: int
    differ: bool = Field(description="Whether it tells the groups apart: its interval lies above 0.5.")
    matched_pairs: int | None = Field(
        default=None, description="Pairs of a member and a non-member that it does not tell apart, where groups differ."
    )


class MembershipControlFacts(Record):
    """What must be known of members and non-members before an attack's success means anything."""

    copies: CopyFacts | None = None
    blind: BlindFacts | None = None
    why_not: str | None = Field(default=None, description="Why there is no blind baseline.")


class ResultDocument(Record):
    """Everything that an assessment found."""

    schema_: Literal["securitynet/result/1"] = Field(default=SCHEMA, alias="schema")
    created: str = Field(description="UTC time, ISO 8601.")
    target: TargetFacts
    dataset: DatasetFacts
    measurements: tuple[Measurement, ...]
    trials: tuple[TrialSummary, ...]
    not_assessed: tuple[NotAssessed, ...]
    queries: dict[str, int] = Field(description="total, unique; sent: those sent in this run, the rest was cached.")
    seconds: dict[str, float]
    environment: dict[str, str]
    settings: dict[str, Any] = Field(description="The configuration, as a TOML file for --config would give it.")
    exposed: tuple[ExposedMembers, ...] = Field(
        default=(), description="The most exposed members, for each membership attack; exposed.csv has all records."
    )
    policy: PolicyOutcome | None = None
    remedies: Remedies | None = Field(default=None, description="What would help; only if it was asked for.")
    controls: MembershipControlFacts | None = Field(
        default=None, description="Whether members and non-members differ without the model, and copies among them."
    )

    def to_json(self) -> dict[str, Any]:
        """As JSON types, with ``schema`` first."""
        return self.model_dump(mode="json", by_alias=True)


def read_document(path: Path) -> ResultDocument:
    """The document in a ``result.json``. Raises Pydantic's ``ValidationError`` if it does not follow the schema."""
    return ResultDocument.model_validate_json(path.read_text(encoding="utf-8"))


def schema_text() -> str:
    """The JSON schema of `ResultDocument`, as text."""
    schema = ResultDocument.model_json_schema(by_alias=True, mode="serialization")
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2) + "\n"
