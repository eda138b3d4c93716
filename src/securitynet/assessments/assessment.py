"""`Assessment`: the results of attacks, detectors and defenses on one target."""

from __future__ import annotations

from dataclasses import dataclass, field

from securitynet.assessments.assessed_target import AssessedTarget
from securitynet.assessments.config import AssessConfig
from securitynet.assessments.controls import MembershipControls, make_empty_controls
from securitynet.assessments.run_trial import Trial
from securitynet.models.targets.signals import Signals
from securitynet.records import Measurement
from securitynet.results.audit import PrivacyAudit
from securitynet.results.document import DefenseEffects, NotAssessed


@dataclass(eq=False)
class Assessment:
    """The results of an assessment of one target.

    Attributes:
        config: The configuration.
        assessed_target: The target with its data.
        measurements: Those of the target itself (accuracies) and of the controls; those of attacks are in ``trials``.
        trials: The trials, in the order in which they ran.
        not_assessed: Attacks, detectors and families that were not run, with reasons.
        signals: Outputs of the target for all members and non-members.
        seconds: Wall-clock seconds by phase.
        remedies: The defenses that were tried; None unless requested.
        audit: Lower bounds on epsilon; None unless the target was trained with canaries.
        controls: The controls shown with membership attacks, and the records that are not evaluated.
    """

    config: AssessConfig
    assessed_target: AssessedTarget
    measurements: list[Measurement]
    signals: Signals
    trials: list[Trial] = field(default_factory=list)
    not_assessed: list[NotAssessed] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    remedies: DefenseEffects | None = None
    audit: PrivacyAudit | None = None
    controls: MembershipControls = field(default_factory=make_empty_controls)

    def all_measurements(self) -> list[Measurement]:
        """Return the measurements of the target and of all trials."""
        return [*self.measurements, *(m for trial in self.trials for m in trial.result.measurements)]

    def __getitem__(self, name: str) -> Measurement:
        """Return a measurement by its dotted name; the KeyError for an unknown name lists all names."""
        for measurement in self.all_measurements():
            if measurement.name == name:
                return measurement
        raise KeyError(f"{name!r}; there are: {', '.join(m.name for m in self.all_measurements())}")
