"""Immutable records that all layers share: threat models, trials, measurements.

They are Pydantic models: they validate what they are given, and their JSON form is what trial files hold.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from securitynet.files import hash_stably

FAMILIES = {
    "membership": "Membership inference",
    "stealing": "Model stealing",
    "inversion": "Model inversion",
    "attribute": "Attribute inference",
    "evasion": "Evasion",
    "backdoor": "Backdoor detection",
}
"""The families of trials; all but the last are folders of attacks."""

TRIAL_VERSION = 2
"""Version of the list of fields that make a trial's id. Raise it when that list, or the meaning of a field, changes."""


class Record(BaseModel):
    """Base of all records: immutable, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Access(str, Enum):
    """How much of the target the adversary may see (ML-Doctor, section 2)."""

    BLACK_BOX = "black-box"
    WHITE_BOX = "white-box"

    def covers(self, other: Access) -> bool:
        """Whether this access allows everything that ``other`` allows."""
        return self is Access.WHITE_BOX or other is Access.BLACK_BOX


class Auxiliary(str, Enum):
    """What data the adversary holds (ML-Doctor, section 2; out-of-distribution: SecurityNet, section 3.1)."""

    PARTIAL = "partial"
    SHADOW = "shadow"
    NONE = "none"
    OUT_OF_DISTRIBUTION = "out-of-distribution"


class ThreatModel(Record):
    """Access to the target × auxiliary data.

    Attributes:
        access: What of the target the adversary sees.
        auxiliary: What data they hold.
    """

    access: Access
    auxiliary: Auxiliary

    def __str__(self) -> str:
        return f"{self.access.value}/{self.auxiliary.value}"

    def in_words(self) -> str:
        """The threat model in one sentence, for readers who do not know the taxonomy."""
        access = {
            Access.BLACK_BOX: "sees only the model's outputs for images of their choice",
            Access.WHITE_BOX: "has the model itself with its weights",
        }[self.access]
        auxiliary = {
            Auxiliary.PARTIAL: "knows part of its training data",
            Auxiliary.SHADOW: "holds other data from the same distribution",
            Auxiliary.NONE: "holds no data",
            Auxiliary.OUT_OF_DISTRIBUTION: "holds data of a different kind",
        }[self.auxiliary]
        return f"The adversary {access} and {auxiliary}."


class Direction(str, Enum):
    """Which way a measurement is good **for the owner of the target**."""

    HIGHER = "higher"
    LOWER = "lower"


_LARGEST = 1e100
"""Beyond it, which nothing measured is, differences and squares of values are no numbers."""


class Measurement(Record):
    """A named value with a confidence interval.

    Attributes:
        name: Dotted path, such as ``membership.modified-entropy.tpr@fpr=0.001``.
        value: The point estimate; None if it cannot be resolved with this many samples (``note`` says why).
        low: Lower end of the interval, None with ``value``.
        high: Upper end of the interval, None with ``value``.
        level: Confidence level of the interval, in (0, 1).
        n: Number of samples behind the value.
        direction: Whether higher or lower is better for the owner of the target.
        method: How the interval was computed, such as "Clopper–Pearson".
        note: What a reader must know to interpret the value.
    """

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    level: float = Field(default=0.95, gt=0, lt=1)
    n: int = Field(ge=0)
    direction: Direction
    method: str
    note: str | None = None

    @model_validator(mode="after")
    def _interval_holds_value(self) -> Measurement:
        if self.value is not None:
            if self.low is None or self.high is None:
                raise ValueError(f"measurement {self.name} has a value and no interval")
            if not self.low <= self.value <= self.high:
                raise ValueError(f"measurement {self.name}: {self.value} is outside [{self.low}, {self.high}]")
            if self.low < -_LARGEST or self.high > _LARGEST:
                raise ValueError(f"measurement {self.name}: its interval, [{self.low}, {self.high}], goes beyond 1e100")
        return self

    def renamed(self, prefix: str) -> Measurement:
        """The same measurement with ``prefix.`` before its name."""
        return self.model_copy(update={"name": f"{prefix}.{self.name}"})

    def with_notes(self, *notes: str) -> Measurement:
        """The same measurement with further sentences added to its note."""
        words = " ".join(note for note in (self.note, *notes) if note)
        return self.model_copy(update={"note": words or None})


class Check(Record):
    """Check that a target is the stated model, and that its outputs are plausible.

    Attributes:
        what: ``answers`` (the same for the same image), ``chance`` (accuracy above it), ``sign`` (of the scores),
            ``class order``, ``accuracy`` (as stated) or ``checksum``.
        said: What is expected, or stated by the catalog, the model record or the study file.
        found: What was observed.
        agrees: Whether the two agree.
        note: A sentence for people, where they do not.
    """

    what: Literal["answers", "chance", "sign", "class order", "accuracy", "checksum"]
    said: str
    found: str
    agrees: bool
    note: str | None = None


class TargetIdentity(Record):
    """Which model, exactly, and how its inputs are prepared.

    Attributes:
        reference: As the user writes it (``arch:cifar-resnet20``), without the path of a weights file.
        checksum: SHA-256 over what decides its outputs: weights, an ONNX file, a recording; for an endpoint, of its URL
            and model name and version.
        preprocessing: Canonical JSON form of the preprocessing.
        head: What the model emits: ``logits``, ``log-probabilities`` or ``probabilities``; ``answers`` or ``labels``
            where an output defense changes what it returns.
    """

    reference: str
    checksum: str
    preprocessing: dict[str, Any]
    head: Literal["logits", "log-probabilities", "probabilities", "sigmoid", "answers", "labels"]


class DatasetIdentity(Record):
    """Which images and labels, exactly.

    Attributes:
        reference: As the user writes it.
        fingerprint: Digest of images and labels.
    """

    reference: str
    fingerprint: str


class SplitIdentity(Record):
    """Which records are members, non-members, known to the adversary, and so on.

    Attributes:
        name: ``public``, ``four-way``, or that of a split of the user's own.
        fingerprint: Digest of the sets of records.
    """

    name: str
    fingerprint: str


class TrialSpec(Record):
    """The specification of a trial: everything that determines its result, and nothing else.

    Device, number of workers, batch size, cache and output folders are *not* part of it: they change how fast a result
    is computed, not the result.

    Attributes:
        target: Which model.
        dataset: Which images and labels.
        split: Who is a member.
        kind: ``attack`` or ``detector``.
        method: Full name of the method.
        configuration: Its settings.
        method_version: Version of what the method computes with equal settings (`Method.version`).
        threat_model: What the adversary sees and holds.
        auxiliary: The other dataset that an adversary with ``out-of-distribution`` data holds; None for the others.
        training: Digest of how the target was trained, for methods that train models like it; None for the others.
        seed: Of the method.
        precision: Arithmetic of the target.
    """

    target: TargetIdentity
    dataset: DatasetIdentity
    split: SplitIdentity
    kind: Literal["attack", "detector"]
    method: str
    configuration: dict[str, Any] = Field(default_factory=dict)
    # The first version is left out of the id and of trial files, which are older than this field.
    method_version: int = Field(default=1, ge=1, exclude_if=lambda value: value == 1)
    threat_model: ThreatModel
    auxiliary: DatasetIdentity | None = None
    training: str | None = None
    seed: int = 0
    precision: str = "fp32"

    @property
    def id(self) -> str:
        """32 hexadecimal digits derived from an explicit, versioned list of fields.

        The reference is a name for people; the checksum says which model it is, so a copy of the same weights under
        another path has the same trials.
        """
        return hash_stably(
            {
                "version": TRIAL_VERSION,
                "target.checksum": self.target.checksum,
                "target.preprocessing": self.target.preprocessing,
                "target.head": self.target.head,
                "dataset.fingerprint": self.dataset.fingerprint,
                "split.fingerprint": self.split.fingerprint,
                "kind": self.kind,
                "method": self.method,
                "configuration": self.configuration,
                "access": self.threat_model.access.value,
                "auxiliary": self.threat_model.auxiliary.value,
                "auxiliary.fingerprint": self.auxiliary.fingerprint if self.auxiliary else None,
                "training": self.training,
                "seed": self.seed,
                "precision": self.precision,
                **({} if self.method_version == 1 else {"method.version": self.method_version}),
            }
        )


class Queries(Record):
    """The queries that a trial sent to its target.

    Attributes:
        total: Images sent, repeats included, had nothing been cached.
        unique: Distinct images among them: what a provider that caches its outputs would have to compute.
        records: Records of the assessed dataset among these, which other trials query as well; None if not stated.
    """

    total: int = Field(default=0, ge=0)
    unique: int = Field(default=0, ge=0)
    records: int | None = Field(default=None, ge=0, exclude_if=lambda value: value is None)


class TrialResult(Record):
    """The outcome of a trial. A failure is a record, never a gap.

    Attributes:
        version: Of the record's format.
        spec: What was measured.
        status: ``ok``, ``failed`` (``reason`` holds the error) or ``skipped`` (``reason`` says why).
        measurements: Named values, family and method before the name.
        doubts: Reasons to distrust the measurements: failed checks of the target, one sentence each.
        queries: Images that it sent to the target.
        seconds: Wall-clock seconds by phase.
        environment: Package versions and device of the run.
        finished: UTC time in ISO 8601.
        arrays: Names of the arrays stored beside the record.
        reason: Why it failed or was skipped; None if it finished.
        traceback: Of the error, if it failed.
    """

    version: Literal[1] = 1
    spec: TrialSpec
    status: Literal["ok", "failed", "skipped"]
    reason: str | None = None
    traceback: str | None = None
    measurements: tuple[Measurement, ...] = ()
    doubts: tuple[str, ...] = ()
    queries: Queries = Queries()
    seconds: dict[str, float] = Field(default_factory=dict)
    environment: dict[str, str] = Field(default_factory=dict)
    finished: str
    arrays: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The id of the trial, which is that of its specification."""
        return self.spec.id
