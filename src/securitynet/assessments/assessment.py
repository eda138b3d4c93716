"""`Assessment`: what attacks, detectors and defenses came to on one target."""

from __future__ import annotations

from dataclasses import dataclass, field

from securitynet.assessments.assessed_target import AssessedTarget
from securitynet.assessments.config import AssessConfig
from securitynet.assessments.controls import MembershipControls, make_empty_controls
from securitynet.assessments.run_trial import Trial
from securitynet.models.targets.signals import Signals
from securitynet.records import Measurement
from securitynet.results.document import NotAssessed, Remedies


@dataclass(eq=False)
class Assessment:
    """What an assessment of one target found.

    Attributes:
        config: As given.
        assessed_target: The target with its data.
        measurements: Of the target itself (accuracies) and of the controls; those of attacks are in ``trials``.
        trials: In the order they ran.
        not_assessed: What a reader may expect and will not find.
        signals: Outputs for all members and non-members.
        seconds: Wall-clock seconds by phase.
        remedies: What would help; None unless it was asked for.
        controls: What stands beside membership attacks, and which records are not judged.
    """

    config: AssessConfig
    assessed_target: AssessedTarget
    measurements: list[Measurement]
    signals: Signals
    trials: list[Trial] = field(default_factory=list)
    not_assessed: list[NotAssessed] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    remedies: Remedies | None = None
    controls: MembershipControls = field(default_factory=make_empty_controls)

    def all_measurements(self) -> list[Measurement]:
        """The target's and all trials'."""
        return [*self.measurements, *(m for trial in self.trials for m in trial.result.measurements)]

    def __getitem__(self, name: str) -> Measurement:
        """A measurement by its dotted name; KeyError names what there is."""
        for measurement in self.all_measurements():
            if measurement.name == name:
                return measurement
        raise KeyError(f"{name!r}; there are: {', '.join(m.name for m in self.all_measurements())}")
