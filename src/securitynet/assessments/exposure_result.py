"""`RecordsExposure`: the exposure of single records and of groups, as ``exposure.json`` states it."""

from __future__ import annotations

from pydantic import Field

from securitynet.metrics.groups import GroupExposure
from securitynet.records import Measurement, Record


class RecordExposure(Record):
    """The exposure of one member of the assessed target.

    Attributes:
        record: Its number in the dataset.
        name: Its file, or its part and position there.
        label: Its class.
        member_of: Number of shadow models that were trained on it.
        identified: Number of these in which it was identified as a member.
        non_member_of: Number of shadow models that were not trained on it.
        accused: Number of these in which it was taken for a member.
        among_top: Number of shadow models in which it was among the most exposed members.
        low: Lower end of the interval of ``identified / member_of``.
        high: Upper end.
        p_value: Of "identified no more often than accused", adjusted for all records.
        share: Share of the assessed target's non-members that score at least as high under it.
        loss_trace_iqr: Interquartile range of its loss over the epochs; None if the losses were not kept.
    """

    record: int
    name: str
    label: str
    member_of: int
    identified: int
    non_member_of: int
    accused: int
    among_top: int
    low: float
    high: float
    p_value: float
    share: float
    loss_trace_iqr: float | None = None


class RankingReliability(Record):
    """How often the most exposed members of one model are those of another; see `metrics.vulnerability`.

    Attributes:
        value: Share of those that could be.
        chance: Mean of the same over permutations of the memberships.
        chance_high: The largest share of all permutations.
        pairs: Number of pairs of a record and two models behind it.
    """

    value: float
    chance: float
    chance_high: float
    pairs: int


class RetrainedModel(Record):
    """Measurements of one model of a removal.

    Attributes:
        identified: Number of the named records that score above the model's threshold.
        median_share: Median of the shares of non-members that score at least as high as one of them.
        accuracy: Accuracy on the non-members.
        rest_identified: Number of the members that all three models were trained on that are identified.
        weights: Folder of its weights in the cache, by its key; None for the assessed target.
    """

    identified: int
    median_share: float
    accuracy: Measurement
    rest_identified: int
    weights: str | None = None


class Removal(Record):
    """The removal of records, tried by training again without them.

    Attributes:
        records: Their numbers.
        before: The assessed target.
        after: A model trained without them.
        control: A model trained without equally many other members, drawn at random.
        rest: Number of members that all three were trained on.
        accuracy_change: Accuracy after the removal minus accuracy before, on the non-members.
        rest_change: Share of the other members identified after the removal minus the share in the control.
    """

    records: tuple[int, ...]
    before: RetrainedModel
    after: RetrainedModel
    control: RetrainedModel
    rest: int
    accuracy_change: Measurement
    rest_change: Measurement


class RecordsExposure(Record):
    """The exposure of single records and groups of an assessed target.

    Attributes:
        weights_checksum: SHA-256 of the weights file.
        dataset: Reference of the dataset.
        members: Number of members.
        non_members: Number of non-members.
        shadow_models: Number of shadow models; each took the role of the target.
        fpr: False-positive rate of the thresholds.
        top_share: Share of a model's members that counts as most exposed.
        level: Confidence level.
        measurements: LiRA on the assessed target, and the predictor of its TPR.
        reliability: Of one model's ranking.
        significant: Number of records that are identified more often than chance explains.
        most_exposed: The members that are identified most often.
        groups: Classes and values of attributes, the most exposed first.
        removal: The removal that was tried; None for none.
        notes: Remarks, such as how the shadow models differ from the target.
        sentences: The outcome in words.
    """

    weights_checksum: str
    dataset: str
    members: int
    non_members: int
    shadow_models: int
    fpr: float
    top_share: float
    level: float
    measurements: tuple[Measurement, ...]
    reliability: RankingReliability
    significant: int = Field(description="Records identified more often than chance explains.")
    most_exposed: tuple[RecordExposure, ...]
    groups: tuple[GroupExposure, ...]
    removal: Removal | None = None
    notes: tuple[str, ...] = ()
    sentences: tuple[str, ...] = ()
