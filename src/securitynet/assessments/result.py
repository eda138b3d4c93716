"""The machine-readable result of an assessment: what ``result.json`` holds."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from securitynet.assessments import environment
from securitynet.assessments.assessment import Assessment
from securitynet.assessments.config import AssessConfig
from securitynet.assessments.records import list_exposed
from securitynet.assessments.run_trial import Trial
from securitynet.records import Queries
from securitynet.results.document import (
    DatasetDescription,
    ResultDocument,
    TargetDescription,
    TrialSummary,
)


def to_document(assessment: Assessment) -> ResultDocument:
    """Convert an assessment to its machine-readable form, without grades, comparison and policy."""
    assessed, signals = assessment.assessed_target, assessment.signals
    target, dataset, splits = assessed.target, assessed.dataset, assessed.splits
    return ResultDocument(
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        target=TargetDescription(
            reference=target.reference,
            checksum=target.backend.checksum,
            preprocessing=target.preprocessing.describe(),
            normalize=target.preprocessing.constants(),
            head=target.head,
            num_classes=signals.outputs.shape[1],
            access=target.access.value,
            precision=target.precision,
            notes=target.notes,
            checks=target.checks,
            training=assessed.trained.model_dump(mode="json") if assessed.trained else None,
        ),
        dataset=DatasetDescription(
            reference=dataset.reference,
            fingerprint=dataset.fingerprint,
            records=len(dataset),
            classes=dataset.class_names,
            image_shape=dataset.image_shape if dataset.images is not None else None,
            split=splits.name,
            split_seed=assessed.split_seed,
            split_fingerprint=splits.fingerprint,
            membership=assessed.membership,
            members=len(splits.members),
            non_members=len(splits.non_members),
            known_members=len(splits.known_members),
            known_non_members=len(splits.known_non_members),
            members_stated=dataset.members_stated,
            notes=dataset.notes,
        ),
        measurements=tuple(assessment.all_measurements()),
        trials=tuple(
            TrialSummary(
                id=trial.result.id,
                name=trial.name,
                status=trial.result.status,
                reason=trial.result.reason,
                threat_model=trial.result.spec.threat_model,
                configuration=trial.result.spec.configuration,
                queries=trial.result.queries,
                seconds=trial.result.seconds,
                doubts=trial.result.doubts,
                reused=trial.reused,
                headline=list_headline(trial),
            )
            for trial in assessment.trials
        ),
        not_assessed=tuple(assessment.not_assessed),
        queries=count_queries(
            signals.queries, [trial.result.queries for trial in assessment.trials], sent=target.query_counter.total
        ),
        seconds={phase: round(value, 3) for phase, value in assessment.seconds.items()},
        environment=environment.describe_environment(target),
        settings=_settings(assessment.config),
        exposed=list_exposed(assessment),
        remedies=assessment.remedies,
        audit=assessment.audit,
        controls=assessment.controls.facts,
    )


def count_queries(records: Queries, trials: Sequence[Queries], *, sent: int) -> dict[str, int]:
    """Return the query count of an assessment: the same, whatever was cached and wherever an earlier run stopped.

    Args:
        records: That of the pass over the records of the assessment.
        trials: Those of its trials. Records of the dataset that several of them query are distinct images only once;
            the largest number is taken as their union. Other images count for each trial.
        sent: Images that this run sent to the target.
    """
    own = [min(trial.unique, records.unique) if trial.records is None else trial.records for trial in trials]
    return {
        "total": records.total + sum(trial.total for trial in trials),
        "unique": max(records.unique, *own, 0) + sum(trial.unique for trial in trials) - sum(own),
        "sent": sent,
    }


def _settings(config: AssessConfig) -> dict[str, Any]:
    """Return the configuration in the form of a file for ``--config``; the split's fingerprint replaces masks.

    A catalog in a file is named, so that commands made of the result find its entries; the address of a server, which
    holds names of users and hosts, is not.
    """
    masks = {name for name in ("members", "non_members") if not isinstance(getattr(config, name), Path)}
    stated = config.model_dump(
        mode="json", exclude_none=True, exclude={"out", "cache", "db", "mlflow", "wandb", *masks}
    )
    file = (config.db or "").removeprefix("sqlite:///")
    return {**stated, "db": file} if file and "://" not in file else stated


def list_headline(trial: Trial) -> tuple[str, ...]:
    """Return the full names of the headline measurements of a finished trial, in their order."""
    if trial.output is None:
        return ()
    wanted = trial.output.headline
    names = []
    for measurement in trial.result.measurements:
        own = measurement.name.removeprefix(f"{trial.name}.")
        if any(own == name or own.endswith(f".{name}") for name in wanted):
            names.append(measurement.name)
    return tuple(names)
