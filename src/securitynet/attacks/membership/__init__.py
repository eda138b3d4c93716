"""Membership inference: was this record in the training set? (ML-Doctor, section 3.1; SecurityNet, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from securitynet.attacks.membership._learned import LearnedAttack
    from securitynet.attacks.membership.base import MembershipScores
    from securitynet.methods.context import Context
    from securitynet.methods.data import TrialData
    from securitynet.models.targets.target import Target
    from securitynet.records import ThreatModel


def attack_together(
    attack: LearnedAttack, cases: Sequence[tuple[Target, TrialData, Context]], threat_model: ThreatModel
) -> list[MembershipScores]:
    """Run one learned attack on several targets, training the attack networks of all of them at once.

    What comes out is what the attack gives on each target alone, but for rounding. Where targets differ in the number
    of their classes, those of one number are trained together. The device, the cache of checkpoints and the progress
    are those of the first context.

    Args:
        attack: One that trains networks, such as ``mlp-posteriors``.
        cases: Targets with their data and context; one target may come with several data.
        threat_model: The one that is played out.

    Returns:
        The scores of each case, in order.

    Raises:
        AccessDenied: If a target gives less access than the threat model assumes.
        ConfigurationError: If the attack does not serve the threat model, or there are no cases.
    """
    from securitynet.errors import ConfigurationError

    if not cases:
        raise ConfigurationError("There are no targets to attack.")
    admitted = [(attack.admitted(target, context, threat_model), data) for target, data, context in cases]
    return attack.run_together([(target, data, context) for (target, context), data in admitted])
