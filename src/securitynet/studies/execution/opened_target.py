"""The record of a target that a worker has opened, and the checks of what its study or the catalog states about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from securitynet.assessments import environment
from securitynet.assessments.assessed_target import AssessedTarget
from securitynet.assessments.run_trial import read_clock
from securitynet.assessments.trial_plan import describe_capabilities
from securitynet.models.targets.signals import Signals
from securitynet.records import Check, Measurement
from securitynet.results.study_targets import StudyTargetRecord
from securitynet.studies.definition.targets import TargetPlan


def check_claims(target: TargetPlan, measurements: Sequence[Measurement], tolerance: float) -> list[Check]:
    """Check whether the target has the accuracy that the catalog or the study file states."""
    checks = []
    if target.checksum is not None and target.enforced is None:
        # Compared when the study was planned: a target whose weights differ is never opened.
        checks.append(Check(what="checksum", said=target.checksum, found=target.checksum, agrees=True))
    claimed = target.accuracy
    measured = next(m.value for m in measurements if m.name == "target.test_accuracy")
    if claimed is not None and measured is not None:
        agrees = abs(measured - claimed) <= tolerance
        checks.append(Check(what="accuracy", said=f"{claimed:.4f}", found=f"{measured:.4f}", agrees=agrees))
    return checks


def describe_opened_target(
    plan: TargetPlan,
    assessed: AssessedTarget,
    signals: Signals,
    checks: Sequence[Check],
    measurements: Sequence[Measurement],
    seconds: dict[str, float],
) -> StudyTargetRecord:
    """Make the record of an opened target."""
    dataset, splits = assessed.dataset, assessed.splits
    return StudyTargetRecord(
        key=plan.key,
        label=plan.label,
        status="ok",
        declared=plan.declared(),
        means=describe_capabilities(assessed),
        membership=assessed.membership,
        facts={
            "num_classes": signals.outputs.shape[1],
            "records": len(dataset),
            "image_shape": list(dataset.image_shape) if dataset.images is not None else None,
            "members": len(splits.members),
            "non_members": len(splits.non_members),
            "known_members": len(splits.known_members),
            "known_non_members": len(splits.known_non_members),
            "split_seed": assessed.split_seed,
            "normalize": assessed.target.preprocessing.constants(),
        },
        training=assessed.trained.model_dump(mode="json", exclude={"history"}) if assessed.trained else None,
        catalog=plan.catalog,
        codes=plan.codes,
        checks=tuple(checks),
        measurements=tuple(measurements),
        queries=signals.queries,
        notes=assessed.target.notes,
        seconds=seconds,
        environment=environment.describe_environment(assessed.target),
        finished=read_clock(),
    )


def list_lasting_facts(record: StudyTargetRecord) -> dict[str, Any]:
    """Return what must be the same whenever this target is opened."""
    return record.model_dump(mode="json", exclude={"seconds", "environment", "finished"})
