"""Shadow models for attacks: `securitynet.models.shadows` with the data and the context of an attack."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from securitynet.methods.context import Context
from securitynet.methods.data import TrialData
from securitynet.models import shadows
from securitynet.models.shadows import ShadowModel, ShadowOutputs, ShadowPlan, ShadowTraining
from securitynet.models.targets.target import Target


def shadow_outputs(
    target: Target, data: TrialData, records: NDArray[np.int64], plan: ShadowPlan, context: Context
) -> ShadowOutputs:
    """Return the outputs of shadow models for records; see `securitynet.models.shadows.shadow_outputs`.

    The accuracy of the target, with which that of the shadow models is compared, is the auditor's knowledge and does
    not count as queries of the adversary.

    Args:
        target: The target.
        data: Dataset and splits.
        records: Records to compute outputs for, N.
        plan: How many shadow models there are, and how they are trained.
        context: Seed, cache and device.
    """
    return shadows.shadow_outputs(
        target,
        data.dataset,
        data.splits,
        records,
        plan,
        trained=data.trained,
        defense=data.defense,
        cache=context.cache,
        seed=context.seed,
        device=context.device,
        progress=context.progress,
    )


def shadow_model(target: Target, data: TrialData, training: ShadowTraining, context: Context) -> ShadowModel:
    """Return the one shadow model of the shadow parts; see `securitynet.models.shadows.shadow_model`.

    Args:
        target: The target.
        data: Dataset and splits.
        training: How the shadow model is trained.
        context: Seed, cache and device.
    """
    return shadows.shadow_model(
        target,
        data.dataset,
        data.splits,
        training,
        trained=data.trained,
        defense=data.defense,
        cache=context.cache,
        seed=context.seed,
        device=context.device,
        progress=context.progress,
    )
