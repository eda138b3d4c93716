"""Membership inference: was this record in the training set? (ML-Doctor, section 3.1; SecurityNet, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from securitynet.attacks.membership._learned import LearnedAttack
    from securitynet.attacks.membership._scores import MembershipScores
    from securitynet.methods.context import Context
    from securitynet.methods.data import TrialData
    from securitynet.models.targets.target import Target
    from securitynet.records import ThreatModel


def attack_together(
    attack: LearnedAttack, cases: Sequence[tuple[Target, TrialData, Context]], threat_model: ThreatModel
) -> list[MembershipScores]:
    """Run one learned attack on several targets, training the attack networks of all of them at once.

    The results are those of the attack on each target alone, up to rounding. Targets with the same number of classes
    are trained together. Device, checkpoint cache and progress are those of the first context.

    Args:
        attack: An attack that trains networks, such as ``mlp-posteriors``.
        cases: Targets with their data and context; a target may occur several times with different data.
        threat_model: The threat model to assume.

    Returns:
        The scores of each case, in order.

    Raises:
        AccessDenied: If a target gives less access than the threat model assumes.
        ConfigurationError: If the attack does not support the threat model, or there are no cases.
    """
    from securitynet.errors import ConfigurationError

    if not cases:
        raise ConfigurationError("There are no targets to attack.")
    admitted = [(attack.admitted(target, context, threat_model), data) for target, data, context in cases]
    return attack.run_together([(target, data, context) for (target, context), data in admitted])
