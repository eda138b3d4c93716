"""`TrialRequest`: what says which trial to run on a target. This module imports no torch."""

from __future__ import annotations

from typing import Any, Literal

from securitynet.records import Record, ThreatModel


class TrialRequest(Record):
    """A trial as a worker needs it; the target comes with the task.

    Attributes:
        name: Which its measurements carry.
        kind: Attack or detector.
        method: Full name of the method.
        settings: Of the method, as the study file gives them.
        threat_model: Under which it runs.
        seed: Of the trial.
        id: Which the runner expects. A worker that derives another one from what it has opened refuses the trial.
    """

    name: str
    kind: Literal["attack", "detector"]
    method: str
    settings: dict[str, Any]
    threat_model: ThreatModel
    seed: int
    id: str
