"""``result.json``: the machine-readable outcome of an assessment, with a version and a JSON schema.

The schema file beside this module, ``result.schema.json``,
is generated from these records (`write_result_schema`); a test
keeps the two equal.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import FailFast, Field

from securitynet.files import DIGEST, DIGEST_SCHEMA, check_digest
from securitynet.records import Check, Measurement, Queries, Record, ThreatModel
from securitynet.results.audit import PrivacyAudit
from securitynet.results.comparison import ResultComparison
from securitynet.results.grades import FamilyGrade
from securitynet.results.policy import PolicyOutcome
from securitynet.untrusted import parse_json, read_bytes

SCHEMA: Literal["securitynet/result/1"] = "securitynet/result/1"
SCHEMA_FILE = Path(__file__).with_name("result.schema.json")

LARGEST_RESULT = 32 << 20
"""Largest size in bytes of a result or a statement; assessments write less than a megabyte."""


class TargetDescription(Record):
    """The assessed target, and what was learned while loading it.

    Attributes:
        reference: As the user writes it.
        checksum: SHA-256 over what decides its outputs.
        preprocessing: In words.
        normalize: The preprocessing as ``--normalize`` takes it.
        head: What the model emits, such as ``logits``.
        num_classes: Number of classes.
        access: The most that an adversary may see.
        precision: Arithmetic of the target.
        notes: Remarks from loading it.
        checks: Whether its outputs are plausible and its accuracy is as stated.
        training: Its model record, if there is one.
    """

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
        default=(), description="Whether its outputs are plausible and its accuracy is as stated."
    )
    training: dict[str, Any] | None = Field(default=None, description="Its model record, if there is one.")


class DatasetDescription(Record):
    """The images, and which of them are members.

    Attributes:
        reference: As the user writes it.
        fingerprint: Digest of images and labels.
        records: Number of records.
        classes: Names of the classes.
        image_shape: Channels, height, width; None if there are outputs only.
        split: Name of the split.
        split_seed: Seed of the split.
        split_fingerprint: Digest of the split.
        membership: ``known`` or ``assumed``.
        members: Number of members.
        non_members: Number of non-members.
        known_members: Members that an adversary with partial data knows.
        known_non_members: Non-members that they know.
        members_stated: Whether the user listed the members.
        notes: How the images were read, where that matters.
    """

    reference: str
    fingerprint: str
    records: int
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int] | None = Field(description="Channels, height, width; null if outputs only.")
    split: str
    split_seed: int
    split_fingerprint: str
    membership: Literal["known", "assumed"] = Field(
        description="known: from the model record, a recording or the user; assumed: the dataset's own training part."
    )
    members: int
    non_members: int
    known_members: int
    known_non_members: int
    members_stated: bool = Field(default=False, description="Whether the user listed the members.")
    notes: tuple[str, ...] = Field(default=(), description="How the images were read, where that matters.")


class TrialSummary(Record):
    """A trial in brief; its file holds the rest.

    Attributes:
        id: Of the trial.
        name: Full name of the method, with the adversary's data where the method serves several.
        status: ``ok``, ``failed`` or ``skipped``.
        reason: Why it failed or was skipped.
        threat_model: What the adversary sees and holds.
        configuration: Settings of the method.
        queries: Images that it sent to the target.
        seconds: Wall-clock seconds by phase.
        doubts: Reasons to distrust its measurements.
        reused: Whether it finished in an earlier run.
        headline: Names of its most informative measurements.
    """

    id: str
    name: str
    status: Literal["ok", "failed", "skipped"]
    reason: str | None
    threat_model: ThreatModel
    configuration: dict[str, Any]
    queries: Queries
    seconds: dict[str, float]
    doubts: tuple[str, ...] = Field(default=(), description="Reasons to distrust its measurements.")
    reused: bool = Field(default=False, description="Finished in an earlier run.")
    headline: tuple[str, ...] = Field(default=(), description="Names of its most informative measurements.")


class ExposedMember(Record):
    """A member with one of the highest scores of an attack.

    Attributes:
        record: Its index in the dataset.
        file: Its file, or its part and position.
        label: Its class.
        prediction: The class that the target predicts.
        score: Higher is more likely a member; None if it is infinite.
        rank: 1 for the highest score among members.
        non_members_as_high: Non-members that score at least as high.
    """

    record: int = Field(description="Its index in the dataset.")
    file: str = Field(description="Relative to the dataset's folder; or the part and the position in it.")
    label: str = Field(description="Its class.")
    prediction: str = Field(description="The class that the target predicts.")
    score: float | None = Field(description="Higher is more likely a member; null if it is infinite.")
    rank: int = Field(description="1 for the highest score among members; ties share a rank.")
    non_members_as_high: int = Field(description="Non-members that score at least as high.")


class ExposedMembers(Record):
    """The members with the highest scores of one attack.

    Attributes:
        trial: Name of the attack's trial.
        members: Highest score first.
        tied: Further members with the score of the last one.
        non_members: Non-members that were scored.
    """

    trial: str
    members: tuple[ExposedMember, ...]
    tied: int = Field(description="Further members that score as high as the last one.")
    non_members: int = Field(description="Non-members that were scored.")


class NotAssessed(Record):
    """Something that a reader may expect and that was not assessed.

    Attributes:
        what: Such as a method or a threat model.
        why: The reason.
    """

    what: str
    why: str


class WorstCase(Record):
    """The risk of the worst records over several trainings with one defense, and the utility of these trainings.

    Attributes:
        trainings: Number of trainings.
        records: Audited records, each in about half of the training sets.
        fpr: The false-positive rate of both rates below.
        canaries: True-positive rate of LiRA on mislabelled records.
        exposed: The same on the members that the assessment found most exposed; None if no attack ranked them.
        average_auc: Mean AUC of the loss over all other members and all non-members.
        accuracy: Mean accuracy on non-members.
    """

    trainings: int
    records: int = Field(description="Audited records, each in about half of the training sets.")
    fpr: float = Field(gt=0, lt=1)
    canaries: Measurement = Field(description="True-positive rate of LiRA on mislabelled records.")
    exposed: Measurement | None = Field(
        default=None, description="The same on the members that the assessment found most exposed."
    )
    average_auc: Measurement = Field(description="Mean AUC of the loss over the other members and all non-members.")
    accuracy: Measurement = Field(description="Mean accuracy on non-members.")


class DefenseEffect(Record):
    """The measured effect of one defense on this target.

    Attributes:
        name: Of the defense; ``none`` for the target without one.
        stage: What it changes.
        settings: Those that differ from its defaults.
        accuracy: On non-members.
        attack: Name of the trial whose AUC is farthest from 0.5.
        auc: AUC of that attack.
        same_attack_auc: AUC of the attack that is strongest without a defense.
        against: The AUC that ``auc`` is compared with.
        worked: Number of attacks that still worked.
        denied: Attacks that the defense rules out.
        epsilon: Spent by DP-SGD.
        worst: The risk of the worst records; None if it was not measured.
        baseline: Whether this is DP-SGD tuned for utility, which the other defenses are compared with.
        reason: Why it was not tried; None if it was.
        seconds: How long it took.
    """

    name: str = Field(description="Of the defense; none for the target without one.")
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
        description="What the AUC is compared with: that of the strongest attack without a defense, among those that "
        "were run against this one (for an output defense: those that need only outputs).",
    )
    worked: int = Field(default=0, description="Attacks that still worked.")
    denied: tuple[str, ...] = Field(default=(), description="Attacks that the defense rules out.")
    epsilon: float | None = Field(default=None, description="Spent by DP-SGD.")
    worst: WorstCase | None = Field(default=None, description="The risk of the worst records, if it was measured.")
    baseline: bool = Field(default=False, description="Whether this is DP-SGD tuned for utility, to compare with.")
    reason: str | None = Field(default=None, description="Why it was not tried, if it was not.")
    seconds: float = 0.0


class DefenseEffects(Record):
    """The measured effects of all defenses that were tried.

    Attributes:
        undefended: The target without a defense.
        tried: One for each setting of a defense.
        attacks: Membership attacks that were run against each defense.
        notes: Remarks on the comparison.
    """

    undefended: DefenseEffect
    tried: tuple[DefenseEffect, ...]
    attacks: tuple[str, ...] = Field(description="Membership attacks that were run against each defense.")
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
    """All results of an assessment.

    Attributes:
        schema_: Name and version of the format.
        created: UTC time, ISO 8601.
        target: The assessed target.
        dataset: The images, and which of them are members.
        measurements: All measurements, with dotted names.
        trials: All trials.
        not_assessed: What was not assessed, and why.
        queries: Numbers of images that were queried.
        seconds: Wall-clock seconds by phase.
        environment: Package versions and device.
        settings: The configuration.
        exposed: The most exposed members, for each membership attack.
        grades: How much of a weakness was shown, by family; empty in results of earlier versions.
        comparison: The result against an earlier one; None unless there is one.
        policy: Whether the policy is met; None without a policy.
        remedies: Effects of defenses; None unless they were requested.
        audit: Lower bounds on epsilon; None unless the target was trained with canaries.
    """

    schema_: Literal["securitynet/result/1"] = Field(default=SCHEMA, alias="schema")
    created: str = Field(description="UTC time, ISO 8601.")
    target: TargetDescription
    dataset: DatasetDescription
    # The first wrong item is enough: each error takes more memory than what it is about.
    measurements: Annotated[tuple[Measurement, ...], FailFast()]
    trials: Annotated[tuple[TrialSummary, ...], FailFast()]
    not_assessed: Annotated[tuple[NotAssessed, ...], FailFast()]
    queries: dict[str, int] = Field(
        description="total and unique, whatever was cached; sent: images that this run sent to the target."
    )
    seconds: dict[str, float]
    environment: dict[str, str]
    settings: dict[str, Any] = Field(description="The configuration, as in a TOML file for --config.")
    exposed: Annotated[tuple[ExposedMembers, ...], FailFast()] = Field(
        default=(), description="The most exposed members, for each membership attack; exposed.csv has all records."
    )
    grades: Annotated[tuple[FamilyGrade, ...], FailFast()] = Field(
        default=(), description="One for each family of attacks and detectors: how much of a weakness was shown."
    )
    comparison: ResultComparison | None = Field(
        default=None, description="This result against that of an earlier version; only with --against."
    )
    policy: PolicyOutcome | None = None
    remedies: DefenseEffects | None = Field(default=None, description="Effects of defenses; only with --try-defenses.")
    audit: PrivacyAudit | None = Field(
        default=None, description="Lower bounds on epsilon; only for a target that was trained with canaries."
    )
    controls: MembershipControlFacts | None = Field(
        default=None, description="Whether members and non-members differ without the model, and copies among them."
    )

    def to_json(self) -> dict[str, Any]:
        """As JSON types, with ``schema`` first."""
        return self.model_dump(mode="json", by_alias=True)


def read_document(path: Path) -> ResultDocument:
    """The document in a ``result.json``.

    Raises:
        RefusedFile: If it is far too large.
        ValueError: If it does not follow the schema (Pydantic's ``ValidationError``), or its digest is not that of its
            content.
    """
    value = parse_json(read_bytes(path, LARGEST_RESULT))
    if not isinstance(value, dict):
        raise ValueError(f"{path} is not a JSON object")
    return ResultDocument.model_validate(check_digest(value))


def write_result_schema() -> str:
    """The JSON schema of `ResultDocument`, as text."""
    schema = ResultDocument.model_json_schema(by_alias=True, mode="serialization")
    schema["properties"][DIGEST] = DIGEST_SCHEMA
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2) + "\n"
