"""`TrialRequest`: the description of a trial for a worker. This module imports no torch."""

from __future__ import annotations

from typing import Any, Literal

from securitynet.records import Record, ThreatModel


class TrialRequest(Record):
    """A trial as a worker needs it; the target is part of the task.

    Attributes:
        name: Prefix of its measurements.
        kind: ``attack`` or ``detector``.
        method: Full name of the method.
        settings: Settings of the method as in the study file.
        threat_model: Its threat model.
        seed: Its seed.
        id: Expected id. A worker refuses the trial if it derives another id from the opened target.
    """

    name: str
    kind: Literal["attack", "detector"]
    method: str
    settings: dict[str, Any]
    threat_model: ThreatModel
    seed: int
    id: str
