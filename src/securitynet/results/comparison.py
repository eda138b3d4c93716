"""Records of a comparison of two results: an earlier version of a model, and this one."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from securitynet.records import Measurement, Record


class MeasuredDifference(Record):
    """The change of one measurement.

    Attributes:
        name: Of the measurement.
        old: The earlier value.
        new: The value now.
        difference: New minus old, with an interval.
        paired: Whether the interval is that of the same records, measured twice.
        verdict: What the interval shows, for the owner; "other records" if the results are about one model and other
            members or non-members, so that the difference comes from these.
    """

    name: str
    old: float
    new: float
    difference: Measurement
    paired: bool = Field(description="Whether the interval is that of the same records, measured twice.")
    verdict: Literal["worse", "better", "no difference shown", "other records"]


class ChangedRecord(Record):
    """A member that one result exposes, and the other does not.

    Attributes:
        record: Its index in the dataset.
        file: Its file, or its part and position; None if neither result names it.
        old_share: Share of the non-members that scored at least as high, in the earlier result.
        new_share: The same, now.
    """

    record: int
    file: str | None = None
    old_share: float
    new_share: float


class ExposureChange(Record):
    """How the exposed members of one attack changed.

    Attributes:
        trial: The attack.
        share: A member is exposed if at most this share of the non-members scores at least as high.
        newly: Members that are exposed now and were not, the most exposed first.
        no_longer: Members that were exposed and no longer are.
        newly_count: How many of the first there are; ``newly`` names at most a hundred.
        no_longer_count: How many of the second there are.
        p_value: Of McNemar's exact test that as many members became exposed as ceased to be.
    """

    trial: str
    share: float
    newly: tuple[ChangedRecord, ...]
    no_longer: tuple[ChangedRecord, ...]
    newly_count: int
    no_longer_count: int
    p_value: float


class ResultComparison(Record):
    """An earlier result compared with this one.

    Attributes:
        against: When the earlier result was created.
        old_model: The earlier model, and the start of its checksum.
        new_model: This model, likewise.
        records: Records that both results scored, and by which they are paired; 0 if they cannot be paired.
        notes: Why results cannot be paired, and what else must be known.
        differences: One for each measurement that has a value in both.
        exposure: One for each membership attack of both.
    """

    against: str
    old_model: str
    new_model: str
    records: int
    notes: tuple[str, ...] = ()
    differences: tuple[MeasuredDifference, ...]
    exposure: tuple[ExposureChange, ...] = ()
