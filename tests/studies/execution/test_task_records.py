"""What goes between the runner and its workers arrives as it was sent."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from pydantic import ValidationError

from securitynet.records import Access, Auxiliary, Check, ThreatModel
from securitynet.results.study_targets import StudyTargetRecord
from securitynet.studies.definition.targets import TargetPlan
from securitynet.studies.definition.trial_request import TrialRequest
from securitynet.studies.execution.task_records import (
    TaskOutcome,
    WorkerConfig,
    WorkerMessage,
    WorkerPlacement,
    WorkerTask,
)

TRIAL = TrialRequest(
    name="membership.noop@none",
    kind="attack",
    method="membership.noop",
    # 0.1 + 0.2 has no short decimal form; an unbounded norm is infinite; 2.0 must not become 2.
    settings={
        "norm": math.inf,
        "rate": 0.1 + 0.2,
        "steps": 2,
        "scale": 2.0,
        "layers": [1, 2],
        "nested": {"none": None},
    },
    threat_model=ThreatModel(access=Access.WHITE_BOX, auxiliary=Auxiliary.PARTIAL),
    seed=7,
    id="0" * 32,
)
TARGET = TargetPlan(
    key="k",
    label="a model with ü",
    options={"model": "arch:simple-cnn", "dataset": "digits", "fprs": [0.1]},
    train={"architecture": "simple-cnn", "epochs": 2},
    tags=frozenset({"own", "other"}),
    codes={"family": "ResNet"},
    accuracy=0.5,
)


def test_a_task_arrives_as_it_was_sent():
    task = WorkerTask(kind="run_dependency", target=TARGET, trials=(TRIAL,), dependency="x", accuracy_tolerance=0.02)
    line = task.model_dump_json()
    assert "\n" not in line  # messages are lines
    arrived = WorkerTask.model_validate_json(line)
    assert arrived == task
    settings = arrived.trial.settings
    assert settings["norm"] == math.inf and isinstance(settings["scale"], float) and isinstance(settings["steps"], int)
    assert arrived.target.train_key == TARGET.train_key and arrived.target.declared() == TARGET.declared()


def test_a_configuration_arrives_as_it_was_sent():
    placement = WorkerPlacement(device="cuda:1", threads=3, cores=(4, 5), environment={"OMP_NUM_THREADS": "3"})
    config = WorkerConfig(root="s3://b/r", cache=Path("c"), level=0.9, fprs=(0.001,), term="t", placement=placement)
    assert WorkerConfig.model_validate_json(config.model_dump_json()) == config


def test_an_outcome_arrives_as_it_was_sent_and_defaults_need_no_words():
    record = StudyTargetRecord(
        key="k",
        label="a",
        status="ok",
        checks=(Check(what="accuracy", said="0.9", found="0.8", agrees=False),),
        finished="2026-01-01T00:00:00+00:00",
    )
    outcome = TaskOutcome(record=record, dependencies={"t": ["x"]}, descriptions={"x": "X"}, seconds=1.5)
    text = WorkerMessage(outcome=outcome).model_dump_json(exclude_defaults=True)
    assert WorkerMessage.model_validate_json(text).outcome == outcome and "traceback" not in text
    assert WorkerMessage().model_dump_json(exclude_defaults=True) == "{}"


def test_a_message_with_an_unknown_field_is_refused():
    with pytest.raises(ValidationError, match="extra"):
        WorkerTask.model_validate({"kind": "open", "target": TARGET, "trial": "x"})
